"""The metrics that an evaluation can have beside the clean scores, and their names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

from jaxtickets.errors import EvaluationError
from jaxtickets.evaluation.adversarial import Adversarial
from jaxtickets.evaluation.diverse import Diverse
from jaxtickets.evaluation.features import Features


@runtime_checkable
class Metric(Protocol):
    """The protocol of something to measure: `evaluate(tickets, test, suite=[metric])`.

    A small frozen dataclass.
    """

    @property
    def name(self) -> str:
        """The name under which `Evaluation.parts` has the result."""
        ...

    def __call__(
        self, tickets: Any, test: Any, *, bins: int, batch_size: int | None, combine: Any
    ) -> dict[str, Any]:
        """Measure; the arguments are those of `evaluate`.

        Returns:
          What JSON takes: str, int, float, list, dict and None (for nan).
        """
        ...


BY_NAME: dict[str, Callable[[], Metric]] = {
    "adversarial": Adversarial,
    "diversity": Diverse,
    "features": Features,
}
"""Metrics that need nothing but the tickets and the test set, by name."""

NEEDS_ARGUMENTS = {
    "corrupted": "which sets: Corrupted(sets), each with a corruption and a severity",
    "ood": 'which other data: OutOfDistribution({"svhn": svhn})',
}
"""Metrics that need more, by name, and what."""


def check_suite(suite: Any) -> tuple[Metric, ...]:
    """The metrics of a suite: given as such, by name, or one alone without a list around it.

    Raises:
      EvaluationError: unknown names, names of metrics that need arguments, things that are no
        metrics, two of one name.

    >>> check_suite(["diversity"])
    (Diverse(),)
    """
    items = suite if isinstance(suite, Sequence) and not isinstance(suite, str) else (suite,)
    metrics: list[Metric] = []
    for item in items:
        if isinstance(item, str):
            if item in NEEDS_ARGUMENTS:
                raise EvaluationError(
                    f"suite: got {item!r}, which needs arguments: {NEEDS_ARGUMENTS[item]}."
                )
            if item not in BY_NAME:
                names = ", ".join(map(repr, BY_NAME))
                raise EvaluationError(
                    f"suite: got {item!r}, wanted one of {names}, or a metric: Corrupted(sets),"
                    " OutOfDistribution(sets)."
                )
            metrics.append(BY_NAME[item]())
        elif (
            isinstance(item, type) or not isinstance(item, Metric) or not isinstance(item.name, str)
        ):
            kind = f"the class {item.__name__}" if isinstance(item, type) else type(item).__name__
            raise EvaluationError(
                f"suite: got {kind}, wanted names of metrics, or metrics such as"
                " OutOfDistribution(sets)."
            )
        else:
            metrics.append(item)
    names = [metric.name for metric in metrics]
    if len(set(names)) < len(names):
        raise EvaluationError(
            f"suite: got {', '.join(map(repr, names))}, wanted each once: results go by name."
        )
    return tuple(metrics)
