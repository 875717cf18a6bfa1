"""Checks of arguments: each error names the argument, its value and what is allowed."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.core
import jax.numpy as jnp
import numpy as np

from jaxtickets.messages.pytrees import describe_trees
from jaxtickets.messages.quoting import shown as shown

PyTree = Any

MOST = 10_000
"""Members, rounds and phases of one plan: more than anybody trains, few enough to write down."""

LONGEST = 2**31 - 1
"""Steps, and examples of a batch: what an int32 counts."""


def plain(value: Any) -> Any:
    """NumPy's numbers as Python's, within tuples and lists too.

    The float32 of 0.8 is the 0.8 that it prints as.

    >>> plain((np.float32(0.8), np.int64(3), np.bool_(True), "erk"))
    (0.8, 3, True, 'erk')
    """
    if isinstance(value, np.floating):
        return float(str(value))
    if isinstance(value, np.generic):
        return value.item()
    return type(value)(map(plain, value)) if type(value) in (tuple, list) else value


def plain_fields(self: Any) -> None:
    """Make NumPy's numbers among a dataclass's fields Python's, for comparison and JSON."""
    for field in dataclasses.fields(self):
        value = getattr(self, field.name)
        if isinstance(value, np.generic | tuple | list):
            object.__setattr__(self, field.name, plain(value))


def is_traced(value: Any) -> bool:
    """Whether a value is not known yet."""
    return isinstance(value, jax.core.Tracer)


def is_int(value: Any) -> bool:
    """Whether it is an integer, which True and False are not here."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def is_number(value: Any) -> bool:
    """Whether it is a finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        return False
    return bool(abs(value) < math.inf) and (
        isinstance(value, float | np.floating) or abs(int(value)) < 2**1023
    )


def is_fraction(value: Any) -> bool:
    """Whether it is a number in [0, 1]."""
    return is_number(value) and bool(0 <= value <= 1)


def is_zero(value: Any) -> bool:
    """Whether it is the number 0, which stands for "none of it"; False is not."""
    return is_number(value) and value == 0


@dataclasses.dataclass(frozen=True)
class Checks:
    """The checks of one room, all of which raise the same class of error.

    Args:
      error: that class.
      arrays: whether 0-d arrays are numbers too, as `optax.inject_hyperparams` hands them on, and
        arrays being traced, of which only shape and dtype are known and checked. What is kept as
        data, as a plan is, has Python's numbers only.

    >>> Checks(ValueError).choice("scope", "all", ("global", "layerwise"))
    Traceback (most recent call last):
    ValueError: scope is one of global, layerwise; got 'all'.
    """

    error: type[Exception]
    arrays: bool = False

    def choice(self, name: str, value: Any, allowed: tuple[str, ...]) -> None:
        """One of a few texts."""
        if not isinstance(value, str) or value not in allowed:
            raise self.error(f"{name} is one of {', '.join(allowed)}; got {shown(value)}.")

    def flag(self, name: str, value: Any) -> None:
        """True or False."""
        if not isinstance(value, bool):
            raise self.error(f"{name} is True or False; got {shown(value)}.")

    def text(self, name: str, value: Any) -> None:
        """A text that is not empty."""
        if not isinstance(value, str) or not value:
            raise self.error(f"{name} is a text, such as 'first'; got {shown(value)}.")

    def integer(
        self,
        name: str,
        value: Any,
        what: str = "",
        *,
        least: int,
        most: int | None = None,
        rows: int | None = None,
    ) -> None:
        """A whole number from `least` to `most`; with `rows` also an array [rows] of them."""
        if rows is not None and isinstance(value, jax.Array | np.ndarray) and value.ndim:
            good = value.shape == (rows,) and jnp.issubdtype(value.dtype, jnp.integer)
            if not good or not (is_traced(value) or bool((np.asarray(value) >= least).all())):
                raise self.error(
                    f"{name} is {what}whole numbers, at least {least}, one or {rows} of them; got"
                    f" {shown(value)}."
                )
            return
        if not self._is_scalar(value, is_int, lambda known: known >= least):
            kind = "" if self._is_scalar(value, is_int) else "a whole number, "
            raise self.error(f"{name} is {what}{kind}at least {least}; got {shown(value)}.")
        if most is not None and not is_traced(value) and value > most:
            given = shown(value) if value >= 10**30 else f"{value:,}"
            raise self.error(f"{name} is at most {most:,}; got {given}.")

    def positive_int(
        self, name: str, value: Any, what: str = "", most: int | None = LONGEST
    ) -> None:
        """A count: a whole number, at least 1."""
        self.integer(name, value, what, least=1, most=most)

    def number(self, name: str, value: Any, what: str, *, least: float = -math.inf) -> None:
        """A finite number, at least `least`; `what` says so."""
        if not self._is_scalar(value, is_number, lambda known: known >= least):
            raise self.error(f"{name} is {what}; got {shown(value)}.")

    def non_negative(self, name: str, value: Any) -> None:
        """A weight or a rate: a finite number, at least 0."""
        self.number(name, value, "a finite number, at least 0", least=0)

    def fraction(
        self,
        name: str,
        value: Any,
        what: str = "",
        *,
        ends: Literal["[]", "[)", "(]", "()"] = "[]",
        hint: str = "",
    ) -> None:
        """A number from 0 to 1; a round bracket of `ends` is an end that does not belong to it."""

        def inside(known: Any) -> bool:
            return 0 <= known <= 1 and not (
                (ends[0] == "(" and known == 0) or (ends[1] == ")" and known == 1)
            )

        if not self._is_scalar(value, is_number, inside):
            interval = f"{ends[0]}0, 1{ends[1]}"
            raise self.error(f"{name} is {what}in {interval}; got {shown(value)}.{hint}")

    def patterns(self, name: str, value: Any) -> tuple[str, ...]:
        """Regular expressions for the paths of leaves; they come back as a tuple."""
        if not isinstance(value, tuple | list) or not all(
            isinstance(pattern, str) for pattern in value
        ):
            raise self.error(
                f"{name} is a tuple of path patterns, such as ('Dense_0',); got {shown(value)}."
            )
        for pattern in value:
            try:
                re.compile(pattern)
            except re.error as error:
                among = "" if len(value) == 1 else f" in {shown(value)}"
                raise self.error(
                    f"{name} are regular expressions for leaf paths; got {shown(pattern)}{among}:"
                    f" {error}."
                ) from None
        return tuple(value)

    def key(self, name: str, value: Any) -> None:
        """One random key, new style or old."""
        if isinstance(value, jax.Array | np.ndarray):
            if jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
                if value.ndim == 0:
                    return
                raise self.error(
                    f"{name} is one random key; got {list(value.shape)} of them. Members take one"
                    " each: map over keys by jax.vmap."
                )
            if value.dtype == jnp.uint32 and value.ndim == 1:
                return
        raise self.error(f"{name} is a random key, such as jax.random.key(0); got {shown(value)}.")

    def same_tree(self, name: str, tree: PyTree, structure: Any, of: str) -> None:
        """A tree of this structure, which is that `of` something."""
        if jax.tree.structure(tree) != structure:
            wanted = jax.tree.unflatten(structure, [0] * structure.num_leaves)
            raise self.error(
                f"{name}: the tree is not that of {of}. {describe_trees(tree, wanted)}"
            )

    def same_shapes(self, name: str, tree: PyTree, params: PyTree, paths: list[str]) -> None:
        """A tree like `params`, leaf for leaf of its shapes; `paths` are those of the leaves."""
        self.same_tree(name, tree, jax.tree.structure(params), "the params")
        leaves = zip(paths, jax.tree.leaves(tree), jax.tree.leaves(params), strict=True)
        for path, leaf, param in leaves:
            if jnp.shape(leaf) != jnp.shape(param):
                raise self.error(
                    f"{name}: {path!r} has the shape {list(jnp.shape(leaf))}; its param has"
                    f" {list(jnp.shape(param))}."
                )

    def _is_scalar(
        self,
        value: Any,
        of_kind: Callable[[Any], bool],
        allowed: Callable[[Any], bool] = lambda known: True,
    ) -> bool:
        """Whether it is one number of this kind, and allowed as far as it is known."""
        if self.arrays and isinstance(value, jax.Array | np.ndarray | np.generic):
            kind = jnp.integer if of_kind is is_int else jnp.number
            if value.ndim or not jnp.issubdtype(value.dtype, kind):
                return False
            if is_traced(value):
                return not jnp.issubdtype(value.dtype, jnp.complexfloating)
            value = value.item()
        return of_kind(value) and bool(allowed(value))
