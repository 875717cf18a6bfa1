"""How well an ensemble tells its own data from other data: a part of an evaluation."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from jaxtickets.errors import EvaluationError
from jaxtickets.evaluation.checks import check_log_proba, numbers
from jaxtickets.evaluation.combining import Combine
from jaxtickets.evaluation.combining import combine as combine_members
from jaxtickets.evaluation.metrics import mean_log_proba
from jaxtickets.evaluation.predicting import Tickets, inputs_and_labels, predict

_NO_DIFFERENCE = 1e-12  # nats; what rounding leaves of the mutual information of members that agree


def auroc(inside: ArrayLike, outside: ArrayLike) -> float:
    """Area under the ROC curve of scores that should be larger inside: Mann-Whitney's, a share.

    The share of pairs (one example inside, one outside) in which the one inside has the larger
    score; equal scores count half. From ranks, where ties share the mean of theirs: (R - n (n + 1)
    / 2) / (n m), with R the sum of the ranks inside. O((n + m) log(n + m)).

    Args:
      inside: scores [n] of the examples that are to be found: the positive ones.
      outside: scores [m] of the others.

    Returns:
      In [0, 1]; 0.5 where the scores say nothing.

    Raises:
      EvaluationError: no scores, NaN, more than one axis.

    References:
      Hanley and McNeil 1982, The meaning and use of the area under a ROC curve.

    >>> auroc([0.9, 0.6], [0.6, 0.1])
    0.875
    """
    from scipy.stats import rankdata

    sides = []
    for name, scores in (("inside", inside), ("outside", outside)):
        side = numbers(scores, name, "scores [N]").astype(np.float64)
        if side.ndim != 1 or not side.size or np.isnan(side).any():
            raise EvaluationError(
                f"{name}: got shape {side.shape}, {np.isnan(side).sum()} of it NaN; wanted scores"
                " [N], one or more."
            )
        sides.append(side)
    n, m = map(len, sides)
    ranks = rankdata(np.concatenate(sides))
    return float((ranks[:n].sum() - n * (n + 1) / 2) / (n * m))


def in_distribution_scores(
    member_log_proba: ArrayLike, combine: Combine = "proba"
) -> dict[str, np.ndarray]:
    """How much each example looks like what the ensemble was trained on, by three scores.

    They are larger for what does.

    "max_probability": the ensemble's highest probability. "entropy": minus the entropy of its
    prediction. "mutual_information": minus the mutual information of label and member, which is the
    entropy of the mean of the members' probabilities minus the mean of their entropies: how much
    members disagree, and not how unsure they are. It is of that mean however members are combined.

    Args:
      member_log_proba: log-probabilities [M, B, C].
      combine: how the members become the ensemble.

    Returns:
      float64 [B] by name; entropies in nats. With one member, or members that agree, the mutual
      information is 0 (differences up to 1e-12 are rounding).

    Raises:
      EvaluationError: as `combine`.

    References:
      Hendrycks and Gimpel 2017, arXiv:1610.02136 (maximum probability); Lakshminarayanan et al.
      2017, arXiv:1612.01474 (entropy of an ensemble); Depeweg et al. 2018, arXiv:1710.07283 (mutual
      information).

    >>> proba = [[[0.9, 0.1], [0.5, 0.5]], [[0.9, 0.1], [0.1, 0.9]]]
    >>> scores = in_distribution_scores(np.log(proba))
    >>> scores["max_probability"].round(3).tolist(), scores["entropy"].round(3).tolist()
    ([0.9, 0.7], [-0.325, -0.611])
    >>> scores["mutual_information"].round(3).tolist()
    [-0.0, -0.102]
    """
    members = check_log_proba(member_log_proba, ndim=3, name="member_log_proba")
    ensemble = combine_members(members, combine)
    mean = ensemble if combine == "proba" else mean_log_proba(members)
    information = _entropy(mean) - np.mean([_entropy(member) for member in members], axis=0)
    information = (
        np.where(information < _NO_DIFFERENCE, 0.0, information)
        if len(members) > 1
        else np.zeros(members.shape[1])
    )
    return {
        "max_probability": np.exp(ensemble.max(-1)),
        "entropy": -_entropy(ensemble),
        "mutual_information": -information,
    }


@dataclasses.dataclass(frozen=True)
class OutOfDistribution:
    """The part "ood": ROC-AUC of the test set's examples against those of other data sets.

    The test set is the positive class. The other sets are prepared as they say themselves; their
    labels are not looked at.

    Args:
      sets: other data by name: data sets, streams, or pairs `(x, y)`.
      on_set: called with the name of each before it is predicted.

    References:
      Liu et al. 2022, arXiv:2106.14568, appendix K, tables 11 and 12.

    Differs:
      The paper does not say which score its tables are of.
    """

    sets: Mapping[str, Any]
    on_set: Callable[[str], None] | None = None

    name = "ood"

    def __post_init__(self) -> None:
        if not isinstance(self.sets, Mapping) or not self.sets:
            kind = "none" if isinstance(self.sets, Mapping) else type(self.sets).__name__
            raise EvaluationError(
                f'sets: got {kind}, wanted data sets by name: OutOfDistribution({{"svhn": svhn}}).'
            )
        for name, dataset in self.sets.items():
            inputs_and_labels(dataset, name=f"sets[{name!r}]")

    def __call__(
        self,
        tickets: Tickets,
        test: Any,
        *,
        bins: int = 15,
        batch_size: int | None = None,
        combine: Combine = "proba",
    ) -> dict[str, Any]:
        """Predict the test set and every other set, and compare their scores.

        Args:
          tickets: an ensemble.
          test: what it was trained for; where predictions of it are restricted to `test.classes`,
            all are.
          bins: not used.
          batch_size: examples predicted at a time; None leaves it to the ensemble.
          combine: "proba", "logits" or "vote".

        Returns:
          by name `{"examples", "max_probability", "entropy", "mutual_information"}`: how many there
          are, and the ROC-AUC by each of `in_distribution_scores`. With one member that of the
          mutual information is 0.5.

        Raises:
          EvaluationError: sets without examples, predictions that cannot be evaluated.
        """
        inside = in_distribution_scores(predict(tickets, test, batch_size), combine)
        result = {}
        for name, dataset in self.sets.items():
            if self.on_set is not None:
                self.on_set(name)
            outside = in_distribution_scores(
                predict(tickets, dataset, batch_size, like=test), combine
            )
            areas = {score: auroc(inside[score], outside[score]) for score in inside}
            result[name] = {"examples": len(outside["entropy"]), **areas}
        return result


def _entropy(log_p: np.ndarray) -> np.ndarray:
    """Entropy in nats, [B, C] -> [B]; what has probability 0 adds nothing."""
    return -np.sum(np.exp(log_p) * np.where(np.isneginf(log_p), 0.0, log_p), axis=-1)
