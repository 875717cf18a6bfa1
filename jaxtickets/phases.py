"""The phases of a plan, and what they are made of: frozen dataclasses that check themselves when they are made."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Literal, get_args

from jaxtickets.masks import MaskError
from jaxtickets.schedules import Constant, Schedule
from jaxtickets.sparsity import check_sparsity


class PlanError(ValueError):
    """A plan that cannot be run."""


@dataclasses.dataclass(frozen=True)
class Length:
    """How long: an amount of epochs (may be fractional) or of steps (an integer)."""

    amount: float
    unit: Literal["epochs", "steps"] = "epochs"

    def __post_init__(self) -> None:
        if self.unit not in ("epochs", "steps"):
            raise PlanError(f"a length is in epochs or steps; got unit {self.unit!r}.")
        number = isinstance(self.amount, int | float) and not isinstance(self.amount, bool) and math.isfinite(self.amount)
        if not number or self.amount <= 0 or (self.unit == "steps" and self.amount != int(self.amount)):
            raise PlanError(
                f"a length is a positive number of epochs or a positive whole number of steps; got {self.amount!r} {self.unit}."
            )

    def steps(self, steps_per_epoch: int) -> int:
        """In steps, at least one."""
        return max(1, round(self.amount * steps_per_epoch)) if self.unit == "epochs" else int(self.amount)

    def epochs(self, steps_per_epoch: int) -> float:
        """In epochs."""
        return self.amount if self.unit == "epochs" else self.amount / steps_per_epoch

    def __str__(self) -> str:
        return f"{self.amount:g} {self.unit if self.amount != 1 else self.unit[:-1]}"


def as_length(length: float | Length) -> Length:
    """A bare number means epochs."""
    return length if isinstance(length, Length) else Length(length)


@dataclasses.dataclass(frozen=True)
class SGD:
    """Stochastic gradient descent. `weight_decay` is added to the gradient (L2), on all params, as in PyTorch."""

    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        _share("SGD's momentum", self.momentum)
        _at_least_0("SGD's weight_decay", self.weight_decay)


@dataclasses.dataclass(frozen=True)
class Adam:
    """Adam; `weight_decay` is decoupled (AdamW). `clip_norm` clips the gradient's global norm first."""

    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 0.0
    clip_norm: float | None = None

    def __post_init__(self) -> None:
        _share("Adam's b1", self.b1)
        _share("Adam's b2", self.b2)
        _at_least_0("Adam's eps", self.eps)
        _at_least_0("Adam's weight_decay", self.weight_decay)
        if self.clip_norm is not None and not (_is_number(self.clip_norm) and self.clip_norm > 0):
            raise PlanError(f"Adam's clip_norm is a positive number, or None for no clipping; got {self.clip_norm!r}.")


Optimizer = SGD | Adam


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
        _one_of("decay", self.decay, ("constant", "cosine", "linear"))
        _one_of("growth", self.growth, ("gradient", "random"))
        _one_of("regrown", self.regrown, ("keep", "zero"))
        if not (is_int(self.update_every) and self.update_every >= 1):
            raise PlanError(f"update_every is a number of steps, at least 1; got {self.update_every!r}.")
        if not (_is_number(self.drop_fraction) and 0 <= self.drop_fraction <= 1):
            raise PlanError(f"drop_fraction is a share of the active weights, in [0, 1]; got {self.drop_fraction!r}.")
        if not (_is_number(self.end) and 0 <= self.end <= 1):
            raise PlanError(f"end is a share of the phase, in [0, 1]; got {self.end!r}.")

    def fraction_at(self, step: int, steps: int) -> float:
        """The drop fraction at `step` (from 0) of a phase of `steps`; 0 once updates have ended."""
        share = step / steps
        if share > self.end:
            return 0.0
        factor = {"constant": 1.0, "linear": 1 - share, "cosine": (1 + math.cos(math.pi * share)) / 2}[self.decay]
        return self.drop_fraction * factor


@dataclasses.dataclass(frozen=True)
class Start:
    """Fresh weights and fresh masks: `width` lineages, each from its own key.

    Args:
      width: how many lineages start.
      sparsity: share of zeros of the random first mask; 0 starts dense.
      distribution: "erk", "er" or "uniform".
      keep_dense: path patterns of layers to leave dense.
    """

    width: int = 1
    sparsity: float = 0.0
    distribution: Literal["uniform", "er", "erk"] = "erk"
    keep_dense: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not (is_int(self.width) and self.width >= 1):
            raise PlanError(f"members (the width of Start) is at least 1; got {self.width!r}.")
        if isinstance(self.keep_dense, str) or not all(isinstance(pattern, str) for pattern in self.keep_dense):
            raise PlanError(f"keep_dense is a tuple of path patterns, such as ('Dense_0',); got {self.keep_dense!r}.")
        object.__setattr__(self, "keep_dense", tuple(self.keep_dense))
        _one_of("distribution", self.distribution, ("uniform", "er", "erk"))
        try:
            check_sparsity(self.sparsity)
        except MaskError as error:
            raise PlanError(str(error)) from None


@dataclasses.dataclass(frozen=True)
class Train:
    """Train for `length`. The learning rate is a function of the phase's own progress."""

    length: Length
    lr: Schedule = dataclasses.field(default_factory=lambda: Constant(0.1))
    optimizer: Optimizer = dataclasses.field(default_factory=SGD)
    evolve: Evolve | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "length", as_length(self.length))
        for name, kinds in (("lr", Schedule), ("optimizer", Optimizer), ("evolve", Evolve | None)):
            if not isinstance(getattr(self, name), kinds):
                allowed = ", ".join(kind.__name__ for kind in get_args(kinds))
                raise PlanError(f"Train's {name} is one of {allowed}; got {getattr(self, name)!r}.")


@dataclasses.dataclass(frozen=True)
class Escape:
    """EDST's global exploration: one prune-grow with a large drop fraction q, to leave the basin."""

    drop_fraction: float = 0.8
    growth: Literal["gradient", "random"] = "gradient"
    regrown: Literal["keep", "zero"] = "keep"

    def __post_init__(self) -> None:
        _one_of("growth", self.growth, ("gradient", "random"))
        _one_of("regrown", self.regrown, ("keep", "zero"))
        if not (_is_number(self.drop_fraction) and 0 <= self.drop_fraction <= 1):
            raise PlanError(f"Escape's drop_fraction q is in [0, 1]; got {self.drop_fraction!r}.")


@dataclasses.dataclass(frozen=True)
class Collect:
    """Take every lineage's present network as a ticket.

    Args:
      which: "last" (the last iterate) or "best" (of the training phase before, by accuracy on the validation split at
        the end of each epoch; needs `Plan.validation`).
    """

    which: Literal["last", "best"] = "last"

    def __post_init__(self) -> None:
        _one_of("which", self.which, ("last", "best"))


Phase = Start | Train | Escape | Collect


def describe(phase: Any) -> str:
    """A phase in one line: only what differs from the defaults.

    >>> describe(Train(Length(3), Constant(0.01), evolve=Evolve(drop_fraction=0.3)))
    'Train(3 epochs, lr=0.01, evolve=Evolve(drop_fraction=0.3))'
    """
    if isinstance(phase, Start):
        rest = f", {phase.distribution}" if phase.sparsity else ""
        rest += f", keep_dense={phase.keep_dense!r}" if phase.keep_dense else ""
        return f"Start(width={phase.width}, sparsity={phase.sparsity:g}{rest})"
    parts = []
    for field in dataclasses.fields(phase):
        value = getattr(phase, field.name)
        if field.name == "length":
            parts.append(str(value))
        elif field.name == "lr":
            parts.append(f"lr={value}")
        elif value != _default(field):
            parts.append(f"{field.name}={describe(value) if dataclasses.is_dataclass(value) else f'{value!r}'}")
    return f"{type(phase).__name__}({', '.join(parts)})"


def _default(field: dataclasses.Field[Any]) -> Any:
    return field.default_factory() if field.default_factory is not dataclasses.MISSING else field.default


def _one_of(name: str, value: Any, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise PlanError(f"{name} is one of {', '.join(allowed)}; got {value!r}.")


def is_int(value: Any) -> bool:
    """Whether it is an integer, which True and False are not here."""
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _share(name: str, value: Any) -> None:
    if not (_is_number(value) and 0 <= value < 1):
        raise PlanError(f"{name} is in [0, 1); got {value!r}.")


def _at_least_0(name: str, value: Any) -> None:
    if not (_is_number(value) and value >= 0):
        raise PlanError(f"{name} is a finite number, at least 0; got {value!r}.")
