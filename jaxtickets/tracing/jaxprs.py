"""Reads jaxprs: the one place that knows how JAX versions write loops, branches and calls."""

from __future__ import annotations

import contextlib
import itertools
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
from jax.extend import core as jex

# Operations that run a jaxpr more than once, or on parts of what they are given.
_NOT_ONCE = frozenset({"scan", "while", "pallas_call", "shard_map"})
_LIBRARIES = re.compile(r"[/\\](jax|jaxlib|flax|equinox|jaxtickets|jax2onnx)[/\\]|<frozen|<string>")


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
    """Every jaxpr among the parameters of an operation; of several platforms' forms, one."""
    if (default := _platform_default(eqn)) is not None:
        return [default]
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


def called(eqn: Any, operands: Sequence[Any]) -> tuple[jex.Jaxpr, list[Any]] | None:
    """The jaxpr that an operation runs once, as it is, and which of the operands it hands on.

    Of jit, remat and custom derivatives, and of `jax.lax.platform_dependent`; None of all others.
    Of the forms for several platforms, which compute the same, the one without a platform's name
    is read.
    """
    if (default := _platform_default(eqn)) is not None:
        return default, list(operands[1:])
    subs = subjaxprs(eqn)
    if len(subs) != 1 or eqn.primitive.name in _NOT_ONCE:
        return None
    pairs = ((eqn.invars, subs[0].invars), (eqn.outvars, subs[0].outvars))
    alike = all(
        len(outer) == len(inner) and all(map(_alike, outer, inner)) for outer, inner in pairs
    )
    return (subs[0], list(operands)) if alike else None


def plain(
    function: Callable[..., Any], instead: Mapping[str, Callable[..., Any]] | None = None
) -> Callable[..., Any]:
    """`function` as plain operations: calls inlined, of several platforms' forms the default one.

    For those who read jaxprs and know neither. Each operation is in a scope (`jax.named_scope`) of
    the layer that it is of, or of the function and the line that wrote it.

    Args:
      function: of arrays.
      instead: what is run in place of operations, by their names; it takes their operands, and
        their parameters by name.
    """

    def run(*args: Any) -> Any:
        closed, shapes = jax.make_jaxpr(function, return_shape=True)(*args)
        (jaxpr,) = _jaxprs([closed])
        outs = _evaluate(jaxpr, closed.consts, jax.tree.leaves(args), instead or {})
        return jax.tree.unflatten(jax.tree.structure(shapes), outs)

    return run


def _evaluate(
    jaxpr: jex.Jaxpr,
    consts: Sequence[Any],
    args: Sequence[Any],
    instead: Mapping[str, Callable[..., Any]],
    named: bool = False,
) -> list[Any]:
    """The values of a jaxpr; `named` says that these operations are in a layer's scope already."""
    env = dict(zip((*jaxpr.constvars, *jaxpr.invars), (*consts, *args), strict=True))

    def read(atom: Any) -> Any:
        return atom.val if isinstance(atom, jex.Literal) else env[atom]

    for eqn in jaxpr.eqns:
        operands = [read(v) for v in eqn.invars]
        layer = str(eqn.source_info.name_stack)
        inner = called(eqn, operands)
        if not layer and not named and inner is None:
            layer = _written_at(eqn)
        with jax.named_scope(layer) if layer else contextlib.nullcontext():
            if inner is not None:
                consts = _consts_of(eqn, inner[0])
                outs = _evaluate(inner[0], consts, inner[1], instead, named or bool(layer))
            elif eqn.primitive.name == "platform_index":  # what chooses between forms
                outs = [None]
            else:
                params = eqn.primitive.get_bind_params(eqn.params)
                run = instead.get(eqn.primitive.name, eqn.primitive.bind)
                outs = run(*operands, **params)
                outs = outs if eqn.primitive.multiple_results else [outs]
        env |= dict(zip(eqn.outvars, outs, strict=True))
    return [read(v) for v in jaxpr.outvars]


def _consts_of(eqn: Any, jaxpr: jex.Jaxpr) -> Sequence[Any]:
    """The constants that a jaxpr among the parameters of an operation brings along."""
    values = itertools.chain.from_iterable(
        v if isinstance(v, tuple | list) else (v,) for v in eqn.params.values()
    )
    return next((v.consts for v in values if getattr(v, "jaxpr", v) is jaxpr), ())


def _written_at(eqn: Any) -> str:
    """The function and the line outside of libraries that an operation is from, or ""."""
    trace = eqn.source_info.traceback
    frame = trace and trace.as_python_traceback()
    found = ""
    while frame:
        code = frame.tb_frame.f_code
        if not _LIBRARIES.search(code.co_filename):
            found = f"{code.co_qualname} ({Path(code.co_filename).name}:{frame.tb_lineno})"
        frame = frame.tb_next
    return found


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


def _platform_default(eqn: Any) -> jex.Jaxpr | None:
    """The form of a `jax.lax.platform_dependent` for all platforms that it does not name."""
    platforms = eqn.params.get("branches_platforms") or ()
    return read_branches(eqn)[platforms.index(None)] if None in platforms else None


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
