"""How long a training is: epochs or steps."""

from __future__ import annotations

import dataclasses
from typing import Literal

from jaxtickets.errors import PlanError
from jaxtickets.messages import checks
from jaxtickets.plan.parts import Part


@dataclasses.dataclass(frozen=True)
class Length(Part):
    """How long: an amount of epochs (may be fractional) or of steps (an integer)."""

    amount: float
    unit: Literal["epochs", "steps"] = "epochs"

    def __post_init__(self) -> None:
        checks.plain_fields(self)
        if self.unit not in ("epochs", "steps"):
            raise PlanError(f"a length is in epochs or steps; got unit {checks.shown(self.unit)}.")
        number = checks.is_number(self.amount) and 0 < self.amount <= checks.LONGEST
        if not number or (self.unit == "steps" and self.amount != int(self.amount)):
            most = (
                f", at most {checks.LONGEST:,}"
                if checks.is_number(self.amount) and self.amount > checks.LONGEST
                else ""
            )
            given = f"{checks.shown(self.amount)} {self.unit}"
            raise PlanError(
                "a length's amount is a positive number of epochs or a positive whole number of"
                f" steps{most}; got {given}."
            )

    def steps(self, steps_per_epoch: int) -> int:
        """In steps, at least one."""
        return (
            max(1, round(self.amount * steps_per_epoch))
            if self.unit == "epochs"
            else int(self.amount)
        )

    def epochs(self, steps_per_epoch: int) -> float:
        """In epochs."""
        return self.amount if self.unit == "epochs" else self.amount / steps_per_epoch

    def __str__(self) -> str:
        return f"{self.amount:g} {self.unit if self.amount != 1 else self.unit[:-1]}"


def as_length(length: float | Length, name: str = "length") -> Length:
    """A bare number means epochs; `name` is what an error calls it."""
    if isinstance(length, Length):
        return length
    if not checks.is_number(length):
        raise PlanError(
            f"{name} is a number of epochs, or a Length such as Length(500, 'steps'); got"
            f" {checks.shown(length)}."
        )
    try:
        return Length(length)
    except PlanError as error:
        raise PlanError(f"{name}: {error}") from None
