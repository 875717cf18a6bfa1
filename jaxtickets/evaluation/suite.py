"""The parts that an evaluation can have beside the clean scores, and their names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

from jaxtickets.evaluation.adversarial import Adversarial
from jaxtickets.evaluation.checks import EvaluationError
from jaxtickets.evaluation.diverse import Diverse
from jaxtickets.evaluation.features import Features


@runtime_checkable
class Part(Protocol):
    """Something to measure on an ensemble: `evaluate(tickets, test, suite=[part])`. A small frozen dataclass."""

    @property
    def name(self) -> str:
        """Under which `Evaluation.parts` has the result."""
        ...

    def __call__(self, tickets: Any, test: Any, *, bins: int, batch_size: int | None, combine: Any) -> dict[str, Any]:
        """Measure. The arguments are those of `evaluate`.

        Returns:
          What JSON takes: str, int, float, list, dict and None (for nan).
        """
        ...


BY_NAME: dict[str, Callable[[], Part]] = {"adversarial": Adversarial, "diversity": Diverse, "features": Features}
"""Parts that need nothing but the tickets and the test set, by name."""

TO_BE_TOLD = {
    "corrupted": "which sets: Corrupted(sets), each with a corruption and a severity",
    "ood": 'which other data: OutOfDistribution({"svhn": svhn})',
}
"""Parts that need more, by name, and what."""


def check_suite(suite: Any) -> tuple[Part, ...]:
    """The parts of a suite, of which some may be given by name, and one alone without a list around it.

    Raises:
      EvaluationError: unknown names, names of parts that need to be told more, things that are no parts, two of one name.

    >>> check_suite(["diversity"])
    (Diverse(),)
    """
    given = suite if isinstance(suite, Sequence) and not isinstance(suite, str) else (suite,)
    parts: list[Part] = []
    for each in given:
        if isinstance(each, str):
            if each in TO_BE_TOLD:
                raise EvaluationError(f"suite: got {each!r}, which has to be told {TO_BE_TOLD[each]}.")
            if each not in BY_NAME:
                names = ", ".join(map(repr, BY_NAME))
                raise EvaluationError(f"suite: got {each!r}, wanted one of {names}, or a part: Corrupted(sets), OutOfDistribution(sets).")
            parts.append(BY_NAME[each]())
        elif isinstance(each, type) or not isinstance(each, Part) or not isinstance(each.name, str):
            what = f"the class {each.__name__}" if isinstance(each, type) else type(each).__name__
            raise EvaluationError(f"suite: got {what}, wanted names of parts, or parts such as OutOfDistribution(sets).")
        else:
            parts.append(each)
    names = [part.name for part in parts]
    if len(set(names)) < len(names):
        raise EvaluationError(f"suite: got {', '.join(map(repr, names))}, wanted each once: results go by name.")
    return tuple(parts)
