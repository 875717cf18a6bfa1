"""Learning rates over a phase: frozen dataclasses, called on the host with the step and the phase's steps.

The value enters the compiled step as a number, so phases that differ only in their schedule share one program.
"""

from __future__ import annotations

import dataclasses
import math


def _check_rates(kind: str, *values: float) -> None:
    for value in values:
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
            raise ValueError(f"{kind}: a learning rate is a finite number, at least 0; got {value!r}.")


@dataclasses.dataclass(frozen=True)
class Constant:
    """The same value throughout."""

    value: float

    def __post_init__(self) -> None:
        _check_rates("Constant", self.value)

    def __call__(self, step: int, steps: int) -> float:
        """The learning rate at `step`, from 0, of a phase of `steps`."""
        return self.value

    def __str__(self) -> str:
        return f"{self.value:g}"


@dataclasses.dataclass(frozen=True)
class Piecewise:
    """`values[i]` until share `until[i]` of the phase, the last value to its end.

    >>> schedule = Piecewise((0.1, 0.01, 0.001), until=(0.5, 0.75))
    >>> [schedule(step, 100) for step in (0, 49, 50, 75)]
    [0.1, 0.1, 0.01, 0.001]
    """

    values: tuple[float, ...]
    until: tuple[float, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "values", tuple(self.values))  # lists would neither hash nor compare equal after JSON
        object.__setattr__(self, "until", tuple(self.until))
        _check_rates("Piecewise", *self.values)
        ordered = all(0 < a < b <= 1 for a, b in zip(self.until, (*self.until[1:], 1.0), strict=True))
        if len(self.values) != len(self.until) + 1 or not ordered or self.until[-1:] == (1.0,):
            raise ValueError(f"Piecewise: n + 1 values and n rising shares in (0, 1) are needed; got {self.values} and {self.until}.")

    def __call__(self, step: int, steps: int) -> float:
        """The learning rate at `step`, from 0, of a phase of `steps`."""
        return self.values[sum(step >= round(share * steps) for share in self.until)]

    def __str__(self) -> str:
        later = (f", {value:g} from {100 * share:g}%" for value, share in zip(self.values[1:], self.until, strict=True))
        return f"({self.values[0]:g}{''.join(later)})"


@dataclasses.dataclass(frozen=True)
class Linear:
    """From `begin` at the first step to `end` at the last."""

    begin: float
    end: float = 0.0

    def __post_init__(self) -> None:
        _check_rates("Linear", self.begin, self.end)

    def __call__(self, step: int, steps: int) -> float:
        """The learning rate at `step`, from 0, of a phase of `steps`."""
        return self.begin + (self.end - self.begin) * (step / max(1, steps - 1))

    def __str__(self) -> str:
        return f"{self.begin:g} to {self.end:g} (linear)"


@dataclasses.dataclass(frozen=True)
class Cosine:
    """From `begin` to `end` along half a cosine, reached at the last step."""

    begin: float
    end: float = 0.0

    def __post_init__(self) -> None:
        _check_rates("Cosine", self.begin, self.end)

    def __call__(self, step: int, steps: int) -> float:
        """The learning rate at `step`, from 0, of a phase of `steps`."""
        return self.end + (self.begin - self.end) * (1 + math.cos(math.pi * step / max(1, steps - 1))) / 2

    def __str__(self) -> str:
        return f"{self.begin:g} to {self.end:g} (cosine)"


@dataclasses.dataclass(frozen=True)
class Warmup:
    """A line from 0 over the first `share` of the phase, then `then` as if the warm-up were part of it.

    >>> Warmup(0.1, Constant(0.1))(4, 100)
    0.05
    """

    share: float
    then: Constant | Piecewise | Linear | Cosine

    def __post_init__(self) -> None:
        if not 0 < self.share < 1:
            raise ValueError(f"Warmup: it takes a share of the phase in (0, 1); got {self.share!r}.")
        if not isinstance(self.then, Constant | Piecewise | Linear | Cosine):
            raise ValueError(f"Warmup: `then` is a schedule that is no Warmup itself; got {self.then!r}.")

    def __call__(self, step: int, steps: int) -> float:
        """The learning rate at `step`, from 0, of a phase of `steps`."""
        warm = max(1, round(self.share * steps))
        return self.then(step, steps) * min(1.0, (step + 1) / warm)

    def __str__(self) -> str:
        return f"{self.then} warmed up over {100 * self.share:g}%"


Schedule = Constant | Piecewise | Linear | Cosine | Warmup
KINDS = (Constant, Piecewise, Linear, Cosine, Warmup)
