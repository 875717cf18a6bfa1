"""Learning rates over a phase: frozen dataclasses, called with the step and the phase's steps.

The value enters the compiled step as a number, so phases that differ only in their schedule share
one program.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np

from jaxtickets.errors import PlanError
from jaxtickets.messages import checks

check = checks.Checks(PlanError)


def _check_rates(schedule: Any, *names: str) -> None:
    """Finite numbers, at least 0; what is NumPy's becomes Python's."""
    checks.plain_fields(schedule)
    for name in names:
        check.non_negative(
            f"{type(schedule).__name__}: {name}, a learning rate,", getattr(schedule, name)
        )


def _check_points(schedule: Any, values: str, shares: str) -> None:
    """Learning rates and the shares of the phase they stand at, as tuples: lists would neither hash
    nor compare equal after JSON.
    """
    kind = type(schedule).__name__
    for name in (values, shares):
        given = getattr(schedule, name)
        numbers = (
            checks.plain(tuple(given))
            if isinstance(given, tuple | list | np.ndarray) and np.ndim(given) == 1
            else (None,)
        )
        if not all(map(checks.is_number, numbers)):
            raise PlanError(
                f"{kind}: {name} is a tuple of finite numbers, such as (0.5, 0.75); got"
                f" {checks.shown(given)}."
            )
        object.__setattr__(schedule, name, numbers)
    for i, value in enumerate(getattr(schedule, values)):
        check.non_negative(f"{kind}: {values}[{i}], a learning rate,", value)


class Schedule:
    """A number over a phase: what a learning rate, a momentum or a penalty's strength does.

    Subclass it as a frozen dataclass with a `__call__`, and it stands wherever ours do: in plans,
    in their JSON (by its class's name) and in their checks.
    """

    def __call__(self, step: int, steps: int) -> float:
        """The value at `step`, from 0, of a phase of `steps`; computed on the host."""
        raise NotImplementedError(f"{type(self).__name__} has no __call__(step, steps).")


@dataclasses.dataclass(frozen=True)
class Constant(Schedule):
    """The same value throughout."""

    value: float

    def __post_init__(self) -> None:
        _check_rates(self, "value")

    def __call__(self, step: int, steps: int) -> float:
        """The learning rate at `step`, from 0, of a phase of `steps`."""
        return self.value

    def __str__(self) -> str:
        return f"{self.value:g}"


@dataclasses.dataclass(frozen=True)
class Piecewise(Schedule):
    """`values[i]` until share `until[i]` of the phase, the last value to its end.

    >>> schedule = Piecewise((0.1, 0.01, 0.001), until=(0.5, 0.75))
    >>> [schedule(step, 100) for step in (0, 49, 50, 75)]
    [0.1, 0.1, 0.01, 0.001]
    """

    values: tuple[float, ...]
    until: tuple[float, ...]

    def __post_init__(self) -> None:
        _check_points(self, "values", "until")
        ordered = self.until and all(
            0 < a < b <= 1 for a, b in zip(self.until, (*self.until[1:], 1.0), strict=True)
        )
        if len(self.values) != len(self.until) + 1 or not ordered or self.until[-1:] == (1.0,):
            raise PlanError(
                "Piecewise: n + 1 values and n rising shares in (0, 1) are needed; got"
                f" values={self.values} and until={self.until}."
            )

    def __call__(self, step: int, steps: int) -> float:
        """The learning rate at `step`, from 0, of a phase of `steps`."""
        return self.values[sum(step >= round(share * steps) for share in self.until)]

    def __str__(self) -> str:
        later = (
            f", {value:g} from {100 * share:g}%"
            for value, share in zip(self.values[1:], self.until, strict=True)
        )
        return f"({self.values[0]:g}{''.join(later)})"


@dataclasses.dataclass(frozen=True)
class Linear(Schedule):
    """From `begin` at the first step to `end` at the last."""

    begin: float
    end: float = 0.0

    def __post_init__(self) -> None:
        _check_rates(self, "begin", "end")

    def __call__(self, step: int, steps: int) -> float:
        """The learning rate at `step`, from 0, of a phase of `steps`."""
        return self.begin + (self.end - self.begin) * (step / max(1, steps - 1))

    def __str__(self) -> str:
        return f"{self.begin:g} to {self.end:g} (linear)"


@dataclasses.dataclass(frozen=True)
class Polyline(Schedule):
    """Straight lines through `values` at the shares `at` of the phase.

    >>> schedule = Polyline((0.1, 0.1, 0.001, 0.001), at=(0, 0.5, 0.9, 1))
    >>> [round(schedule(step, 100), 4) for step in (0, 50, 70, 90, 99)]
    [0.1, 0.1, 0.0505, 0.001, 0.001]
    """

    values: tuple[float, ...]
    at: tuple[float, ...]

    def __post_init__(self) -> None:
        _check_points(self, "values", "at")
        rising = all(a < b for a, b in zip(self.at, self.at[1:], strict=False))
        if (
            len(self.values) != len(self.at)
            or self.at[:1] != (0,)
            or self.at[-1:] != (1,)
            or not rising
        ):
            raise PlanError(
                "Polyline: as many values as rising shares from 0 to 1 are needed; got"
                f" values={self.values} and at={self.at}."
            )

    def __call__(self, step: int, steps: int) -> float:
        """The learning rate at `step`, from 0, of a phase of `steps`."""
        share = step / steps
        after = next(i for i, a in enumerate(self.at) if a > share)
        (a, b), (u, v) = self.at[after - 1 : after + 1], self.values[after - 1 : after + 1]
        return u + (v - u) * (share - a) / (b - a)

    def __str__(self) -> str:
        return (
            "("
            + ", ".join(
                f"{value:g} at {100 * share:g}%"
                for value, share in zip(self.values, self.at, strict=True)
            )
            + ")"
        )


@dataclasses.dataclass(frozen=True)
class OneCycle(Schedule):
    """From `low` up to `high` over the first `rise` of the phase, then down to `final` at its last
    step, each along half a cosine.

    With `low=0.95, high=0.85, final=0.95` it is the momentum that PyTorch's scheduler cycles along
    with the learning rate.

    >>> schedule = OneCycle(0.001, 0.1, 1e-7)
    >>> [round(schedule(step, 100), 9) for step in (0, 9, 99)]
    [0.001, 0.1, 1e-07]

    References:
      Smith and Topin, 2018, arXiv:1708.07120; Le and Hua, 2021, arXiv:2105.03193 (two phases).
    """

    low: float = 0.001
    high: float = 0.1
    final: float = 1e-7
    rise: float = 0.1

    def __post_init__(self) -> None:
        _check_rates(self, "low", "high", "final")
        check.fraction("OneCycle: rise", self.rise, "a share of the phase ", ends="()")

    def __call__(self, step: int, steps: int) -> float:
        """The learning rate at `step`, from 0, of a phase of `steps`."""
        # the step at which `high` is reached, as PyTorch counts
        peak = max(0.0, self.rise * steps - 1)
        if step < peak:
            return _half_cosine(self.low, self.high, step / peak)
        return _half_cosine(self.high, self.final, (step - peak) / max(1.0, steps - 1 - peak))

    def __str__(self) -> str:
        return (
            f"one cycle ({self.low:g} to {self.high:g} over {100 * self.rise:g}%, to"
            f" {self.final:g})"
        )


def _half_cosine(begin: float, end: float, share: float) -> float:
    return end + (begin - end) * (1 + math.cos(math.pi * share)) / 2


@dataclasses.dataclass(frozen=True)
class Cosine(Schedule):
    """From `begin` to `end` along half a cosine, reached at the last step, or one step after it
    (`reached=False`).
    """

    begin: float
    end: float = 0.0
    reached: bool = True

    def __post_init__(self) -> None:
        _check_rates(self, "begin", "end")
        check.flag("Cosine: reached", self.reached)

    def __call__(self, step: int, steps: int) -> float:
        """The learning rate at `step`, from 0, of a phase of `steps`."""
        return _half_cosine(
            self.begin, self.end, step / (max(1, steps - 1) if self.reached else steps)
        )

    def __str__(self) -> str:
        return f"{self.begin:g} to {self.end:g} (cosine)"


@dataclasses.dataclass(frozen=True)
class Warmup(Schedule):
    """A line from 0 over the first `share` of the phase, then `then` as if the warm-up were part of
    it.

    >>> Warmup(0.1, Constant(0.1))(4, 100)
    0.05
    """

    share: float
    then: Schedule

    def __post_init__(self) -> None:
        checks.plain_fields(self)
        check.fraction("Warmup: share", self.share, "a share of the phase ", ends="()")
        check_schedule("Warmup: then", self.then, but=Warmup | Part)

    def __call__(self, step: int, steps: int) -> float:
        """The learning rate at `step`, from 0, of a phase of `steps`."""
        warm = max(1, round(self.share * steps))
        return self.then(step, steps) * min(1.0, (step + 1) / warm)

    def __str__(self) -> str:
        return f"{self.then} warmed up over {100 * self.share:g}%"


@dataclasses.dataclass(frozen=True)
class Part(Schedule):
    """What `of` is from share `begin` to share `end` of a whole, of which the phase is that part.

    >>> whole = Piecewise((0.1, 0.01), until=(0.5,))
    >>> [Part(whole, 0.25, 1)(step, 75) for step in (0, 24, 25, 74)]
    [0.1, 0.1, 0.01, 0.01]
    >>> [whole(step, 100) for step in (25, 49, 50, 99)]
    [0.1, 0.1, 0.01, 0.01]
    """

    of: Schedule
    begin: float
    end: float

    def __post_init__(self) -> None:
        checks.plain_fields(self)
        if not (
            checks.is_fraction(self.begin)
            and checks.is_fraction(self.end)
            and self.begin < self.end
        ):
            raise PlanError(
                f"Part: shares with 0 <= begin < end <= 1 are needed; got {self.begin!r} and"
                f" {self.end!r}."
            )
        check_schedule("Part: of", self.of, but=Part)

    def __call__(self, step: int, steps: int) -> float:
        """The learning rate at `step`, from 0, of a phase of `steps`."""
        whole = round(steps / (self.end - self.begin))
        return self.of(min(round(self.begin * whole) + step, whole - 1), whole)

    def __str__(self) -> str:
        return f"{self.of} from {100 * self.begin:g}% to {100 * self.end:g}%"


OURS = (Constant, Piecewise, Linear, Polyline, OneCycle, Cosine, Warmup, Part)


def check_schedule(name: str, value: Any, but: Any = ()) -> None:
    """Raise `PlanError` unless it is a schedule, and none of the kinds `but`."""
    if not isinstance(value, Schedule) or isinstance(value, but):
        kinds = ", ".join(kind.__name__ for kind in OURS if not issubclass(kind, but))
        fix = f" Write Constant({value!r})." if checks.is_number(value) else ""
        raise PlanError(f"{name} is one of {kinds}; got {checks.shown(value)}.{fix}")
