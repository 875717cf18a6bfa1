"""Reads jaxprs: the one place that knows how JAX versions write loops, branches and calls."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
from jax.extend import core as jex

# Operations that run a jaxpr more than once, or on parts of what they are given.
_NOT_ONCE = frozenset({"scan", "while", "pallas_call", "shard_map"})


class Scan(NamedTuple):
    """A `scan`: its body, and how often it runs on what.

    It runs `length` times on `consts` values that stay, `carry` values handed on, and slices of the
    rest.
    """

    body: jex.Jaxpr
    consts: int
    carry: int
    length: int


class While(NamedTuple):
    """A `while`: its test and its body, with constants of each, and the carry.

    The test is run on `test_consts` values of its own and the carry, the body on the next
    `body_consts` and the carry.
    """

    test: jex.Jaxpr
    test_consts: int
    body: jex.Jaxpr
    body_consts: int


def trace(function: Callable[..., Any], *args: Any) -> jex.Jaxpr:
    """The jaxpr of `function(*args)`; nothing is computed."""
    (jaxpr,) = _jaxprs([jax.make_jaxpr(function)(*args)])
    return jaxpr


def subjaxprs(eqn: Any) -> list[jex.Jaxpr]:
    """Every jaxpr among the parameters of an operation."""
    return _jaxprs(
        itertools.chain.from_iterable(
            v if isinstance(v, tuple | list) else (v,) for v in eqn.params.values()
        )
    )


def operations(jaxpr: Any) -> set[str]:
    """The names of all operations of a program, of what it calls and loops over too."""
    found: set[str] = set()
    for each in _jaxprs([jaxpr]):
        for eqn in each.eqns:
            found |= {eqn.primitive.name}.union(*map(operations, subjaxprs(eqn)))
    return found


def is_call(eqn: Any, subs: list[jex.Jaxpr]) -> bool:
    """Whether an operation runs one jaxpr once, as it is: jit, remat, a custom derivative.

    The operands are handed on.
    """
    if len(subs) != 1 or eqn.primitive.name in _NOT_ONCE:
        return False
    pairs = ((eqn.invars, subs[0].invars), (eqn.outvars, subs[0].outvars))
    return all(
        len(outer) == len(inner) and all(map(_alike, outer, inner)) for outer, inner in pairs
    )


def read_scan(eqn: Any) -> Scan:
    """An operation's `Scan`: its body, and how often it runs on which operands."""
    params = eqn.params
    (body,) = _jaxprs([_param(eqn, "jaxpr")])
    if "num_consts" in params:  # up to JAX 0.11
        consts, carry = params["num_consts"], _param(eqn, "num_carry")
    else:
        consts, carry, _ = map(len, _param(eqn, "ft_in").unpack())
    return Scan(body, consts, carry, _param(eqn, "length"))


def read_while(eqn: Any) -> While:
    """An operation's `While`: what it tests and runs on which operands."""
    test, body = _jaxprs([_param(eqn, "cond_jaxpr"), _param(eqn, "body_jaxpr")])
    return While(test, _param(eqn, "cond_nconsts"), body, _param(eqn, "body_nconsts"))


def read_branches(eqn: Any) -> list[jex.Jaxpr]:
    """The branches of a `cond`.

    Its first operand chooses, and the others are what the chosen one gets.
    """
    return _jaxprs(_param(eqn, "branches"))


def read_shards(eqn: Any) -> tuple[jex.Jaxpr, int]:
    """The body of a `shard_map`, and on how many different shards it runs.

    Devices that repeat the same work count once.
    """
    (body,) = _jaxprs([_param(eqn, "jaxpr")])
    entries = itertools.chain.from_iterable(_param(eqn, "in_specs"))
    axes = itertools.chain.from_iterable(
        e if isinstance(e, tuple) else (e,) for e in entries if e is not None
    )
    return body, math.prod(_param(eqn, "mesh").shape[axis] for axis in set(axes))


def _alike(outer: Any, inner: Any) -> bool:
    return getattr(outer.aval, "shape", None) == getattr(inner.aval, "shape", None)


def _jaxprs(values: Iterable[Any]) -> list[jex.Jaxpr]:
    """The values that are jaxprs.

    Up to JAX 0.11 one that brings its constants along is of another class, with this one inside.
    """
    inner = (getattr(value, "jaxpr", value) for value in values)
    return [value for value in inner if isinstance(value, jex.Jaxpr)]


def _param(eqn: Any, name: str) -> Any:
    if name not in eqn.params:
        raise NotImplementedError(
            f"JAX {jax.__version__} writes {eqn.primitive.name!r} down in a way that jaxtickets"
            f" does not know (no {name!r} in {sorted(eqn.params)}). Use a JAX that it is tested"
            " with, or a newer jaxtickets."
        )
    return eqn.params[name]
