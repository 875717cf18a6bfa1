"""What is added to the loss while a network trains, as data: the L1 penalty by which Multi-Ticket
makes masks differ.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

from jaxtickets.errors import PlanError
from jaxtickets.messages import checks
from jaxtickets.plan.parts import Part
from jaxtickets.schedules import Constant, Schedule

check = checks.Checks(PlanError)


@dataclasses.dataclass(frozen=True)
class L1(Part):
    """strength * ||theta * l||_1 over the prunable weights (see
    `jaxtickets.transforms.l1_masking`).

    Args:
      strength: tau as a function of the phase's progress, or a number.
      on: which coefficients l a lineage has: "random" (0 or 1, drawn once from its key), "earlier"
        (the mean of the masks of the last tickets of all lineages before it, which makes lineages
        train one after another), or "all" (1 everywhere).
      share: share of the prunable weights with coefficient 1 where they are random, in (0, 1): an
        exact count in every leaf.
      decoupled: a soft threshold after the optimizer's step, and not a term of the loss, which Adam
        rescales.

    >>> L1(0.1).strength
    Constant(value=0.1)
    """

    strength: Schedule
    on: Literal["random", "earlier", "all"] = "random"
    share: float = 0.7
    decoupled: bool = False

    def __post_init__(self) -> None:
        checks.plain_fields(self)
        if checks.is_number(self.strength) and self.strength >= 0:  # pyright: ignore[reportOperatorIssue]
            object.__setattr__(self, "strength", Constant(float(self.strength)))  # pyright: ignore[reportArgumentType]
        given: Any = self.strength
        if not isinstance(given, Schedule):
            raise PlanError(
                "L1's strength is a number, at least 0, or a schedule such as Linear(1e-5); got"
                f" {checks.shown(given)}."
            )
        check.choice("on", self.on, ("random", "earlier", "all"))
        check.fraction(
            "L1's share", self.share, "the share of weights that are penalised, ", ends="()"
        )
        check.flag("L1's decoupled", self.decoupled)
