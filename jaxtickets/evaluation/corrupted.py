"""Scores on corrupted test sets: a part of an evaluation."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from jaxtickets.errors import EvaluationError
from jaxtickets.evaluation.checks import check_labels
from jaxtickets.evaluation.combining import Combine
from jaxtickets.evaluation.combining import combine as combine_members
from jaxtickets.evaluation.metrics import accuracy, ece, nll
from jaxtickets.evaluation.predicting import Tickets, inputs_and_labels, predict


@dataclasses.dataclass(frozen=True)
class Corrupted:
    """The part "corrupted": accuracy, NLL and ECE on each corrupted set, and their means.

    The means are over the sets' scores (cAcc, cNLL, cECE), each set with the same weight, and not
    scores of all examples together: calibration errors do not add up.

    Args:
      sets: labelled data sets that have a `corruption` (its name), a `severity` and say whether
        they were `generated` here and not published; they are read one after the other, so a
        generator holds one at a time, but serves once.
      done: rows of an earlier evaluation of the same tickets, as `rows` gave them: their sets are
        passed over.
      on_set: called with the name of each set before it is predicted.

    References:
      Hendrycks and Dietterich 2019, arXiv:1903.12261; Liu et al. 2022, arXiv:2106.14568, tables 1
      to 3.

    Differs:
      The accuracies are plain means, not relative to those of a reference network, as the mCE of
      Hendrycks and Dietterich.
    """

    sets: Iterable[Any]
    done: Sequence[Mapping[str, Any]] = ()
    on_set: Callable[[str], None] | None = None

    name = "corrupted"

    def __call__(
        self,
        tickets: Tickets,
        test: Any,
        *,
        bins: int = 15,
        batch_size: int | None = None,
        combine: Combine = "proba",
    ) -> dict[str, Any]:
        """Predict every corrupted set and score the predictions.

        Args:
          tickets: an ensemble.
          test: the clean test set; its `classes` restrict the predictions of sets that have no
            `classes` of their own.
          bins: of the calibration errors.
          batch_size: examples predicted at a time; None leaves it to the ensemble.
          combine: "proba", "logits" or "vote".

        Returns:
          `{"generated", "sets": rows, "mean": {"accuracy", "nll", "ece"}}`, where `generated` is
          true as soon as one set was.

        Raises:
          EvaluationError: as `rows`, and where there are no sets.
        """
        generated = []
        rows = list(self._rows(tickets, test, bins, batch_size, combine, generated))
        if not rows:
            raise EvaluationError(
                "sets: got none, wanted corrupted sets. A generator serves once; give a list, or"
                " make it anew."
            )
        mean = {
            name: float(np.mean([row[name] for row in rows])) for name in ("accuracy", "nll", "ece")
        }
        return {"generated": any(generated), "sets": rows, "mean": mean}

    def rows(
        self,
        tickets: Tickets,
        test: Any,
        *,
        bins: int = 15,
        batch_size: int | None = None,
        combine: Combine = "proba",
    ) -> Iterator[dict[str, Any]]:
        """A row for each set as soon as it is there, for callers that may be interrupted.

        Args:
          tickets, test, bins, batch_size, combine: as `__call__` takes them.

        Yields:
          `{"corruption", "severity", "accuracy", "nll", "ece", "members_accuracy"}` in the order of
          the sets: scores of the ensemble, and the mean over members of their accuracy.

        Raises:
          EvaluationError: something that is no corrupted set, a pair of corruption and severity
            that comes twice, labels and predictions that do not fit.
        """
        return self._rows(tickets, test, bins, batch_size, combine, [])

    def _rows(
        self,
        tickets: Tickets,
        test: Any,
        bins: int,
        batch_size: int | None,
        combine: Combine,
        generated: list[bool],
    ) -> Iterator[dict[str, Any]]:
        finished = {(row["corruption"], row["severity"]): dict(row) for row in self.done}
        seen_pairs = set()
        for corrupted_set in self.sets:
            if missing := [
                name
                for name in ("name", "corruption", "severity", "generated")
                if not hasattr(corrupted_set, name)
            ]:
                raise EvaluationError(
                    f"sets: got {type(corrupted_set).__name__} without {', '.join(missing)}, wanted"
                    " corrupted data sets."
                )
            pair = (str(corrupted_set.corruption), int(corrupted_set.severity))
            if pair in seen_pairs:
                raise EvaluationError(
                    f"sets: got {pair[0]} of severity {pair[1]} twice, wanted each once: means"
                    " weigh sets equally."
                )
            seen_pairs.add(pair)
            generated.append(bool(corrupted_set.generated))
            if pair in finished:
                yield finished[pair]
                continue
            if self.on_set is not None:
                self.on_set(corrupted_set.name)
            _, y = inputs_and_labels(corrupted_set, name="sets")
            members = predict(
                tickets,
                corrupted_set,
                batch_size,
                like=corrupted_set if hasattr(corrupted_set, "classes") else test,
            )
            labels = check_labels(y, *members.shape[1:], name=f"y of {corrupted_set.name}")
            ensemble = combine_members(members, combine)
            yield {
                "corruption": pair[0],
                "severity": pair[1],
                "accuracy": accuracy(ensemble, labels),
                "nll": nll(ensemble, labels),
                "ece": ece(ensemble, labels, bins),
                "members_accuracy": float(np.mean(members.argmax(-1) == labels)),
            }
