"""How a mask evolves while a network trains, as data: prune-grow, and gradual pruning."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, ClassVar, Literal

from jaxtickets.errors import MaskError, PlanError
from jaxtickets.masks.sparsity import check_sparsity, cubic
from jaxtickets.masks.structure import UNSTRUCTURED, Structure
from jaxtickets.masks.whole_units import Units
from jaxtickets.messages import checks
from jaxtickets.plan.parts import Part
from jaxtickets.plan.phase import Before
from jaxtickets.plan.phases import (
    UNITS,
    check_evolves,
    check_growth,
    check_prunes_more,
    check_score,
    check_structure,
)


class MaskEvolution(Part):
    """How a mask changes while a network trains.

    Subclass it as a frozen dataclass; what it does is a function that `jaxtickets.engine.mask_rule`
    registers for the class.
    """

    @property
    def prunes_units(self) -> bool:
        """Whether whole units can be lost by it."""
        return False

    @property
    def exchanges_units(self) -> bool:
        """Whether whole units go by it, and as many others come."""
        return False

    def drop_fraction_at(self, step: int, steps: int) -> float:
        """The share of active weights that goes at `step` (from 0) of a phase of `steps`."""
        return 0.0

    def density_at(self, share: float, before: float) -> float:
        """The density at a share of the phase; `before` the phase it was another."""
        return before

    def sparsity_after(self, sparsity: float) -> float:
        """Share of zeros that it leaves of a network that had this share."""
        return sparsity

    def check_after(self, before: Before) -> None:
        """Raise `PlanError`, naming the fix, where it cannot follow the phases before it."""


check = checks.Checks(PlanError)


@dataclasses.dataclass(frozen=True)
class Evolve(MaskEvolution):
    """Prune-grow while training (see `jaxtickets.transforms.prune_grow`).

    With the structure `jaxtickets.masks.Units()` whole units go and come, the number of every
    layer's being constant (see `jaxtickets.transforms.exchange_units`): `drop_fraction` is a share
    of its active units, the growth "gradient" takes one gradient of the whole network more, and
    `regrown` is not asked for, since what goes does not come in the same update. Units come with
    weights from the task's `init`; of a pretrained network that gives the pretrained ones. Where a
    layer has all of its units, as after a `Shrink`, none goes.

    Args:
      update_every: Delta T, in steps of the whole plan.
      drop_fraction: share of active weights replaced per update.
      decay: how the drop fraction moves over the phase: "constant", "cosine" or "linear" to 0.
      growth: "gradient" (RigL), "random" (SET), or another score (see `jaxtickets.scores`).
      regrown: "keep" or "zero".
      weight_update: also update the weights on such a step.
      end: share of the phase after which updates stop (RigL: 0.75).
      structure: what the mask may look like (see `jaxtickets.masks.Structure`).
      channels: share of the channels that lose all their weights on the way, those of the smallest
        mean magnitude; what they had grows again in those that stay (Yin et al., 2023). A `Shrink`
        after it cuts them out.
      channels_by: share of the phase by which they are gone.
      span: which part of a longer training this phase is, as shares of it, for all that moves over
        the phase.
    """

    shown: ClassVar[tuple[str, ...]] = ("update_every",)

    update_every: int = 1000
    drop_fraction: float = 0.5
    decay: Literal["constant", "cosine", "linear"] = "constant"
    growth: str = "gradient"
    regrown: Literal["keep", "zero"] = "keep"
    weight_update: bool = True
    end: float = 1.0
    structure: Structure = UNSTRUCTURED
    channels: float = 0.0
    channels_by: float = 0.8
    span: tuple[float, float] = (0.0, 1.0)

    def __post_init__(self) -> None:
        check_structure("Evolve's structure", self.structure)
        checks.plain_fields(self)
        check.choice("decay", self.decay, ("constant", "cosine", "linear"))
        check_score("growth", self.growth)
        check.choice("regrown", self.regrown, ("keep", "zero"))
        check.flag("weight_update", self.weight_update)
        check.positive_int("update_every", self.update_every, "a number of steps, ")
        check.fraction("drop_fraction", self.drop_fraction, "a share of the active weights, ")
        check_growth("Evolve", self.structure, self.growth, self.drop_fraction)
        check.fraction("end", self.end, "a share of the phase, ")
        check.fraction("channels", self.channels, "the share that is removed, ", ends="[)")
        check.fraction("channels_by", self.channels_by, "a share of the phase, ", ends="(]")
        if not (
            isinstance(self.span, tuple)
            and len(self.span) == 2
            and all(checks.is_fraction(n) for n in self.span)
            and self.span[0] < self.span[1]
        ):
            raise PlanError(
                "span is two shares of a training, 0 <= begin < end <= 1; got"
                f" {checks.shown(self.span)}."
            )
        if self.channels and self.structure != UNSTRUCTURED:
            raise PlanError(
                f"channels are removed from masks without a structure; leave out {self.structure},"
                " or channels."
            )

    def updates(self, before: int, steps: int) -> int:
        """How often the mask changes in so many steps after those before, `end` left aside."""
        return (before + steps) // self.update_every - before // self.update_every

    def progress(self, share: Any) -> Any:
        """At a share of the phase, the share of the training of which it is a part."""
        return self.span[0] + (self.span[1] - self.span[0]) * share

    def channels_at(self, share: Any) -> Any:
        """The share of channels that is gone at a share of the phase (Zhu and Gupta's cubic)."""
        left = 1 - self.progress(share) / self.channels_by
        left = max(left, 0.0) if isinstance(left, float) else left.clip(0)
        return self.channels * (1 - left**3)

    def drop_fraction_at(self, step: int, steps: int) -> float:
        """The drop fraction at `step` (from 0) of a phase of `steps`; 0 once updates have ended."""
        share = self.progress(step / steps)
        if share > self.end:
            return 0.0
        factor = {
            "constant": 1.0,
            "linear": 1 - share,
            "cosine": (1 + math.cos(math.pi * share)) / 2,
        }[self.decay]
        return self.drop_fraction * factor

    @property
    def prunes_units(self) -> bool:
        """Whether it removes channels."""
        return self.channels > 0

    @property
    def exchanges_units(self) -> bool:
        """Whether its structure is of whole units."""
        return isinstance(self.structure, Units)

    def check_after(self, before: Before) -> None:
        """There is a mask of whole layers, and something that could grow."""
        check_evolves(self.structure, before)


@dataclasses.dataclass(frozen=True)
class Gradual(MaskEvolution):
    """Gradual magnitude pruning while training (see `jaxtickets.transforms.gradual_pruning`).

    Args:
      sparsity: share of zeros at the end, in [0, 1).
      begin: share of the phase at which pruning starts.
      end: share of the phase from which the final sparsity holds.
      update_every: steps between prunings.
      scope: "layerwise" (the same share in every layer) or "global" (one threshold for all).
      scores: what is kept: the largest "magnitude", or another score (see `jaxtickets.scores`).
      structure: what the mask may look like (see `jaxtickets.masks.Structure`).
    """

    sparsity: float
    begin: float = 0.0
    end: float = 0.75
    update_every: int = 1000
    scope: Literal["layerwise", "global"] = "layerwise"
    scores: str = "magnitude"
    structure: Structure = UNSTRUCTURED

    def __post_init__(self) -> None:
        check_score("scores", self.scores)
        check_structure("Gradual's structure", self.structure)
        checks.plain_fields(self)
        try:
            check_sparsity(self.sparsity)
        except MaskError as error:
            raise PlanError(str(error)) from None
        check.choice("scope", self.scope, ("layerwise", "global"))
        check.positive_int("update_every", self.update_every)
        if not (
            checks.is_number(self.begin)
            and checks.is_number(self.end)
            and 0 <= self.begin < self.end <= 1
        ):
            raise PlanError(
                f"begin and end are shares of the phase, 0 <= begin < end <= 1; got {self.begin!r}"
                f" and {self.end!r}."
            )

    def steps(self, steps: int) -> tuple[int, int]:
        """First and last step of the schedule, counted from 1 within a phase of `steps`."""
        # so that the end is a step of the phase, however short it is
        begin = min(round(self.begin * steps), steps - 1)
        return begin, max(begin + 1, round(self.end * steps))

    def density_at(self, share: float, before: float) -> float:
        """Density at a share of the phase, on the schedule's curve; `before` the phase it was
        another.
        """
        return float(
            min(
                before,
                1
                - cubic(self.sparsity, 0, 1, 1 - before)(
                    (share - self.begin) / (self.end - self.begin)
                ),
            )
        )

    @property
    def prunes_units(self) -> bool:
        """Whether it prunes whole units."""
        return self.structure.needs_units

    def sparsity_after(self, sparsity: float) -> float:
        """Its own."""
        return self.sparsity

    def check_after(self, before: Before) -> None:
        """It prunes more."""
        check_prunes_more(self.sparsity, before)
        if self.structure.needs_units:
            before.check_whole(UNITS)
