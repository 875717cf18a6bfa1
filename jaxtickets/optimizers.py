"""Optimizers as data: what a plan says of them. The engine builds the optax optimizer that each names."""

from __future__ import annotations

import dataclasses
import re

from jaxtickets import checks
from jaxtickets.errors import PlanError


@dataclasses.dataclass(frozen=True)
class Override:
    """What is different for the leaves whose path a pattern matches; the first override that matches a leaf counts.

    Args:
      pattern: searched in the leaf's path, such as "bn" or "fast_".
      lr: factor on the learning rate.
      weight_decay: in place of the optimizer's; None leaves it.
    """

    pattern: str
    lr: float = 1.0
    weight_decay: float | None = None

    def __post_init__(self) -> None:
        try:
            re.compile(self.pattern)
        except (re.error, TypeError):
            raise PlanError(f"Override's pattern is a regular expression for leaf paths, such as 'bias'; got {self.pattern!r}.") from None
        checks.at_least_0("Override's lr", self.lr)
        if self.weight_decay is not None:
            checks.at_least_0("Override's weight_decay", self.weight_decay)


@dataclasses.dataclass(frozen=True)
class SGD:
    """Stochastic gradient descent. `weight_decay` is added to the gradient (L2), on all params, as in PyTorch."""

    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 0.0
    overrides: tuple[Override, ...] = ()

    def __post_init__(self) -> None:
        checks.below_1("SGD's momentum", self.momentum)
        checks.at_least_0("SGD's weight_decay", self.weight_decay)
        object.__setattr__(self, "overrides", _overrides(self.overrides))


@dataclasses.dataclass(frozen=True)
class Adam:
    """Adam; `weight_decay` is decoupled (AdamW). `clip_norm` clips the gradient's global norm first."""

    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 0.0
    clip_norm: float | None = None
    overrides: tuple[Override, ...] = ()

    def __post_init__(self) -> None:
        checks.below_1("Adam's b1", self.b1)
        checks.below_1("Adam's b2", self.b2)
        checks.at_least_0("Adam's eps", self.eps)
        checks.at_least_0("Adam's weight_decay", self.weight_decay)
        if self.clip_norm is not None and not (checks.is_number(self.clip_norm) and self.clip_norm > 0):
            raise PlanError(f"Adam's clip_norm is a positive number, or None for no clipping; got {self.clip_norm!r}.")
        object.__setattr__(self, "overrides", _overrides(self.overrides))


Optimizer = SGD | Adam


def override_of(spec: Optimizer, path: str) -> Override:
    """What counts for the leaf of that path."""
    return next((override for override in spec.overrides if re.search(override.pattern, path)), Override("", weight_decay=None))


def _overrides(value: tuple[Override, ...]) -> tuple[Override, ...]:
    if not isinstance(value, tuple | list) or not all(isinstance(override, Override) for override in value):
        raise PlanError(f"overrides is a tuple of Override(...); got {value!r}.")
    return tuple(value)
