"""What is added to the loss while a network trains, as data: the L1 penalty by which Multi-Ticket makes masks differ."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

from jaxtickets import checks
from jaxtickets.errors import PlanError
from jaxtickets.schedules import Constant, Schedule


@dataclasses.dataclass(frozen=True)
class L1:
    """strength * ||theta * l||_1 over the prunable weights (see `jaxtickets.transforms.l1_masking`).

    Args:
      strength: tau as a function of the phase's progress, or a number.
      on: which coefficients l a lineage has: "random" (0 or 1, drawn once from its key), "earlier" (the mean of the masks of
        the last tickets of all lineages before it, which makes lineages train one after another), or "all" (1 everywhere).
      share: share of the prunable weights with coefficient 1 where they are random, in (0, 1): an exact count in every leaf.
      decoupled: a soft threshold after the optimizer's step, and not a term of the loss, which Adam rescales.

    >>> L1(0.1).strength
    Constant(value=0.1)
    """

    strength: Schedule
    on: Literal["random", "earlier", "all"] = "random"
    share: float = 0.7
    decoupled: bool = False

    def __post_init__(self) -> None:
        if checks.is_number(self.strength) and self.strength >= 0:  # pyright: ignore[reportOperatorIssue]
            object.__setattr__(self, "strength", Constant(float(self.strength)))  # pyright: ignore[reportArgumentType]
        given: Any = self.strength
        if not isinstance(given, Schedule):
            raise PlanError(f"L1's strength is a number, at least 0, or a schedule such as Linear(1e-5); got {given!r}.")
        checks.one_of("on", self.on, ("random", "earlier", "all"))
        if not (checks.is_number(self.share) and 0 < self.share < 1):
            raise PlanError(f"L1's share is the share of weights that are penalised, in (0, 1); got {self.share!r}.")
        if not isinstance(self.decoupled, bool):
            raise PlanError(f"L1's decoupled is True or False; got {self.decoupled!r}.")
