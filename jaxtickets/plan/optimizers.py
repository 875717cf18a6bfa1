"""Optimizers as data: what a plan says of them. The engine builds the optax optimizer that each
names.
"""

from __future__ import annotations

import dataclasses
import difflib
import inspect
import re
from typing import Any

import optax

from jaxtickets.errors import PlanError
from jaxtickets.messages import checks
from jaxtickets.plan.parts import Part

check = checks.Checks(PlanError)


@dataclasses.dataclass(frozen=True)
class Override(Part):
    """What is different for the leaves whose path a pattern matches; the first override that
    matches a leaf counts.

    Args:
      pattern: searched in the leaf's path, such as "bn" or "fast_".
      lr: factor on the learning rate.
      weight_decay: in place of the optimizer's; None leaves it.
    """

    pattern: str
    lr: float = 1.0
    weight_decay: float | None = None

    def __post_init__(self) -> None:
        checks.plain_fields(self)
        try:
            re.compile(self.pattern)
        except (re.error, TypeError):
            raise PlanError(
                "Override's pattern is a regular expression for leaf paths, such as 'bias'; got"
                f" {self.pattern!r}."
            ) from None
        check.non_negative("Override's lr", self.lr)
        if self.weight_decay is not None:
            check.non_negative("Override's weight_decay", self.weight_decay)


class Optimizer(Part):
    """What updates the weights, as data.

    Subclass it as a frozen dataclass; the optax optimizer that it names is made by a function that
    `jaxtickets.engine.optax_optimizer` registers for the class.
    """

    overrides: tuple[Override, ...] = ()


@dataclasses.dataclass(frozen=True)
class SGD(Optimizer):
    """Stochastic gradient descent. `weight_decay` is added to the gradient (L2), on all params, as
    in PyTorch.
    """

    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 0.0
    overrides: tuple[Override, ...] = ()

    def __post_init__(self) -> None:
        checks.plain_fields(self)
        check.fraction("SGD's momentum", self.momentum, ends="[)")
        check.flag("SGD's nesterov", self.nesterov)
        check.non_negative("SGD's weight_decay", self.weight_decay)
        object.__setattr__(self, "overrides", _overrides(self.overrides))


@dataclasses.dataclass(frozen=True)
class Adam(Optimizer):
    """Adam; `weight_decay` is decoupled (AdamW). `clip_norm` clips the gradient's global norm
    first.
    """

    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 0.0
    clip_norm: float | None = None
    overrides: tuple[Override, ...] = ()

    def __post_init__(self) -> None:
        checks.plain_fields(self)
        check.fraction("Adam's b1", self.b1, ends="[)")
        check.fraction("Adam's b2", self.b2, ends="[)")
        check.non_negative("Adam's eps", self.eps)
        check.non_negative("Adam's weight_decay", self.weight_decay)
        if self.clip_norm is not None and not (
            checks.is_number(self.clip_norm) and self.clip_norm > 0
        ):
            raise PlanError(
                "Adam's clip_norm is a positive number, or None for no clipping; got"
                f" {self.clip_norm!r}."
            )
        object.__setattr__(self, "overrides", _overrides(self.overrides))


@dataclasses.dataclass(frozen=True, init=False)
class Optax(Optimizer):
    """Any optimizer of optax, by its name and keywords; the learning rate is the phase's.

    Args:
      name: a function of optax whose first argument is the learning rate, such as "lion".
      keywords: its other arguments, numbers and texts: as keywords, or as pairs.
      overrides: factors on the learning rate for some leaves. (A weight decay of an override is
        SGD's and Adam's alone.)

    >>> Optax("lion", b1=0.95)
    Optax(name='lion', keywords=(('b1', 0.95),), overrides=())
    >>> Optax("lions")
    Traceback (most recent call last):
        ...
    jaxtickets.errors.PlanError: optax has no optimizer 'lions'; did you mean 'lion'?
    """

    name: str
    keywords: tuple[tuple[str, Any], ...] = ()
    overrides: tuple[Override, ...] = ()

    def __init__(
        self,
        name: str,
        keywords: tuple[tuple[str, Any], ...] = (),
        overrides: tuple[Override, ...] = (),
        **more: Any,
    ) -> None:
        pairs = dict(keywords) | more
        values = tuple(sorted((str(key), checks.plain(value)) for key, value in pairs.items()))
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "keywords", values)
        object.__setattr__(self, "overrides", _overrides(overrides))
        self._check()

    def _check(self) -> None:
        make = getattr(optax, self.name, None) if isinstance(self.name, str) else None
        named = inspect.signature(make).parameters if inspect.isfunction(make) else {}
        if next(iter(named), None) != "learning_rate":
            close = difflib.get_close_matches(str(self.name), _optimizers(), 1)
            fix = f"did you mean {close[0]!r}?" if close else 'one is "adamw".'
            raise PlanError(f"optax has no optimizer {checks.shown(self.name)}; {fix}")
        for key, value in self.keywords:
            if key not in named or key == "learning_rate":
                own = ", ".join(name for name in named if name != "learning_rate")
                raise PlanError(f"optax.{self.name} has no keyword {key!r}; it has {own}.")
            if not isinstance(value, bool | int | float | str | None):
                raise PlanError(
                    f"Optax's keywords are numbers and texts, which go to JSON; {key} is "
                    f"{checks.shown(value)}."
                )
        for override in self.overrides:
            if override.weight_decay is not None:
                raise PlanError(
                    f"Optax({self.name!r}) takes no weight decay by path; Adam and SGD do. Give its"
                    " overrides factors on the learning rate only."
                )


def _optimizers() -> list[str]:
    functions = inspect.getmembers(optax, inspect.isfunction)
    return [
        name for name, make in functions if "learning_rate" in inspect.signature(make).parameters
    ]


def override_of(spec: Optimizer, path: str) -> Override:
    """What counts for the leaf of that path."""
    return next(
        (override for override in spec.overrides if re.search(override.pattern, path)),
        Override("", weight_decay=None),
    )


def _overrides(value: tuple[Override, ...]) -> tuple[Override, ...]:
    if not isinstance(value, tuple | list) or not all(
        isinstance(override, Override) for override in value
    ):
        raise PlanError(f"overrides is a tuple of Override(...); got {value!r}.")
    return tuple(value)
