"""Checks of what a plan is made of: each raises `PlanError`, naming the value and what is allowed."""

from __future__ import annotations

import math
import re
from typing import Any

from jaxtickets.errors import PlanError


def is_int(value: Any) -> bool:
    """Whether it is an integer, which True and False are not here."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: Any) -> bool:
    """Whether it is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def one_of(name: str, value: Any, allowed: tuple[str, ...]) -> None:
    """A choice."""
    if value not in allowed:
        raise PlanError(f"{name} is one of {', '.join(allowed)}; got {value!r}.")


def at_least_1(name: str, value: Any) -> None:
    """A count."""
    if not (is_int(value) and value >= 1):
        raise PlanError(f"{name} is at least 1; got {value!r}.")


def at_least_0(name: str, value: Any) -> None:
    """A weight or a rate."""
    if not (is_number(value) and value >= 0):
        raise PlanError(f"{name} is a finite number, at least 0; got {value!r}.")


def share(name: str, value: Any, what: str = "") -> None:
    """A share that may be all of it, in [0, 1]."""
    if not (is_number(value) and 0 <= value <= 1):
        raise PlanError(f"{name} is {what}in [0, 1]; got {value!r}.")


def below_1(name: str, value: Any) -> None:
    """In [0, 1)."""
    if not (is_number(value) and 0 <= value < 1):
        raise PlanError(f"{name} is in [0, 1); got {value!r}.")


def patterns(name: str, value: Any) -> tuple[str, ...]:
    """Path patterns, as a tuple."""
    if not isinstance(value, tuple | list) or not all(isinstance(pattern, str) for pattern in value):
        raise PlanError(f"{name} is a tuple of path patterns, such as ('Dense_0',); got {value!r}.")
    for pattern in value:
        try:
            re.compile(pattern)
        except re.error:
            raise PlanError(f"{name} are regular expressions for leaf paths; got {pattern!r}.") from None
    return tuple(value)
