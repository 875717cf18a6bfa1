"""How a mask evolves while a network trains, as data: prune-grow, and gradual pruning."""

from __future__ import annotations

import dataclasses
import math
from typing import Literal

from jaxtickets import checks
from jaxtickets.errors import PlanError
from jaxtickets.masks import MaskError
from jaxtickets.sparsity import check_sparsity, cubic


@dataclasses.dataclass(frozen=True)
class Evolve:
    """Prune-grow while training (see `jaxtickets.transforms.prune_grow`).

    Args:
      update_every: Delta T, in steps of the whole plan.
      drop_fraction: share of active weights replaced per update.
      decay: how the drop fraction moves over the phase: "constant", "cosine" or "linear" to 0.
      growth: "gradient" (RigL) or "random" (SET).
      regrown: "keep" or "zero".
      weight_update: also update the weights on such a step.
      end: share of the phase after which updates stop (RigL: 0.75).
    """

    update_every: int = 1000
    drop_fraction: float = 0.5
    decay: Literal["constant", "cosine", "linear"] = "constant"
    growth: Literal["gradient", "random"] = "gradient"
    regrown: Literal["keep", "zero"] = "keep"
    weight_update: bool = True
    end: float = 1.0

    def __post_init__(self) -> None:
        checks.one_of("decay", self.decay, ("constant", "cosine", "linear"))
        checks.one_of("growth", self.growth, ("gradient", "random"))
        checks.one_of("regrown", self.regrown, ("keep", "zero"))
        if not (checks.is_int(self.update_every) and self.update_every >= 1):
            raise PlanError(f"update_every is a number of steps, at least 1; got {self.update_every!r}.")
        if not (checks.is_number(self.drop_fraction) and 0 <= self.drop_fraction <= 1):
            raise PlanError(f"drop_fraction is a share of the active weights, in [0, 1]; got {self.drop_fraction!r}.")
        if not (checks.is_number(self.end) and 0 <= self.end <= 1):
            raise PlanError(f"end is a share of the phase, in [0, 1]; got {self.end!r}.")

    def fraction_at(self, step: int, steps: int) -> float:
        """The drop fraction at `step` (from 0) of a phase of `steps`; 0 once updates have ended."""
        share = step / steps
        if share > self.end:
            return 0.0
        factor = {"constant": 1.0, "linear": 1 - share, "cosine": (1 + math.cos(math.pi * share)) / 2}[self.decay]
        return self.drop_fraction * factor

    def density_at(self, share: float, before: float) -> float:
        """The density is what it was before."""
        return before


@dataclasses.dataclass(frozen=True)
class Gradual:
    """Gradual magnitude pruning while training (see `jaxtickets.transforms.gradual_pruning`).

    Args:
      sparsity: share of zeros at the end, in [0, 1).
      begin: share of the phase at which pruning starts.
      end: share of the phase from which the final sparsity holds.
      update_every: steps between prunings.
      scope: "layerwise" (the same share in every layer) or "global" (one threshold for all).
    """

    sparsity: float
    begin: float = 0.0
    end: float = 0.75
    update_every: int = 1000
    scope: Literal["layerwise", "global"] = "layerwise"

    def __post_init__(self) -> None:
        try:
            check_sparsity(self.sparsity)
        except MaskError as error:
            raise PlanError(str(error)) from None
        checks.one_of("scope", self.scope, ("layerwise", "global"))
        checks.at_least_1("update_every", self.update_every)
        if not (checks.is_number(self.begin) and checks.is_number(self.end) and 0 <= self.begin < self.end <= 1):
            raise PlanError(f"begin and end are shares of the phase, 0 <= begin < end <= 1; got {self.begin!r} and {self.end!r}.")

    def steps(self, steps: int) -> tuple[int, int]:
        """First and last step of the schedule, counted from 1 within a phase of `steps`."""
        begin = min(round(self.begin * steps), steps - 1)  # so that the end is a step of the phase, however short it is
        return begin, max(begin + 1, round(self.end * steps))

    def density_at(self, share: float, before: float) -> float:
        """Density at a share of the phase, on the schedule's curve; `before` the phase it was another."""
        return float(min(before, 1 - cubic(self.sparsity, 0, 1, 1 - before)((share - self.begin) / (self.end - self.begin))))
