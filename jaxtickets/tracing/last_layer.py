"""Finds which layer of a network is its last, read off its jaxpr.

Every value is followed from the inputs on, with the kernels whose product it comes from: a product
of data with weights makes them the last, everything else hands on what its operands come from. What
reaches the outputs are the last layers: one in most networks, more where there are several heads,
or where a residual stream is added up at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
from jax.extend import core as jex

from jaxtickets.messages.pytrees import leaf_paths
from jaxtickets.tracing.jaxprs import (
    called,
    read_branches,
    read_scan,
    read_while,
    subjaxprs,
    trace,
)

PyTree = Any

_PRODUCTS = frozenset(("dot_general", "conv_general_dilated", "ragged_dot_general"))


class _Value(NamedTuple):
    """A value of the traced program: whether it is data, and which kernels it comes from.

    Leaves by number: the last that it was multiplied with; of weights those that are in it.
    """

    data: bool
    leaves: frozenset[int]


_CONSTANT = _Value(False, frozenset())


def last_layers(
    apply: Callable[..., Any], params: PyTree, model_state: PyTree, x_spec: PyTree
) -> list[str]:
    """Paths of the leaves of the last layers' products, in tree order; nothing is computed.

    Args:
      apply: as `Task.apply`; called as `apply(params, model_state, x, False, None)`.
      params: arrays or `jax.ShapeDtypeStruct`s.
      model_state: likewise.
      x_spec: shape (without the batch axis) and dtype of what the network takes, a tree of
        `jax.ShapeDtypeStruct`.

    Returns:
      Their paths; empty where no product is seen on the way to the outputs.

    >>> import jax.numpy as jnp
    >>> def mlp(params, state, x, train, key):
    ...     return jnp.tanh(x @ params["into"]) @ params["out"] + params["bias"], state
    >>> params = {"bias": jnp.zeros(2), "into": jnp.zeros((4, 3)), "out": jnp.zeros((3, 2))}
    >>> last_layers(mlp, params, {}, jax.ShapeDtypeStruct((4,), jnp.float32))
    ['out']
    """
    shapes, state = (
        jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), tree)
        for tree in (params, model_state)
    )
    batch = jax.tree.map(lambda s: jax.ShapeDtypeStruct((2, *s.shape), s.dtype), x_spec)
    jaxpr = trace(
        lambda p, s, x: jax.tree.leaves(apply(p, s, x, False, None)[0]), shapes, state, batch
    )
    weights = [_Value(False, frozenset((i,))) for i in range(len(jax.tree.leaves(shapes)))]
    ins = weights + [_CONSTANT] * len(jax.tree.leaves(state))
    ins += [_Value(True, frozenset())] * (len(jaxpr.invars) - len(ins))
    last = {i for out in _follow(jaxpr, ins) if out.data for i in out.leaves}
    return [path for i, path in enumerate(leaf_paths(shapes)) if i in last]


def _follow(jaxpr: jex.Jaxpr, ins: Sequence[_Value]) -> list[_Value]:
    env: dict[Any, _Value] = dict.fromkeys(jaxpr.constvars, _CONSTANT)
    env.update(zip(jaxpr.invars, ins, strict=True))

    def read(atom: Any) -> _Value:
        return _CONSTANT if isinstance(atom, jex.Literal) else env[atom]

    for eqn in jaxpr.eqns:
        env.update(zip(eqn.outvars, _operation(eqn, [read(v) for v in eqn.invars]), strict=True))
    return [read(v) for v in jaxpr.outvars]


def _operation(eqn: Any, ins: list[_Value]) -> list[_Value]:
    name, subs = eqn.primitive.name, subjaxprs(eqn)
    if name in _PRODUCTS:
        weights = frozenset().union(*(v.leaves for v in ins if not v.data))
        out = _Value(True, weights) if weights and any(v.data for v in ins) else _together(ins)
        return [out] * len(eqn.outvars)
    if (inner := called(eqn, ins)) is not None:
        return _follow(*inner)
    if name == "cond":
        return [
            _together(outs)
            for outs in zip(
                *(_follow(branch, ins[1:]) for branch in read_branches(eqn)), strict=True
            )
        ]
    if name == "scan":
        scan = read_scan(eqn)
        end = scan.consts + scan.carry
        return _loop(scan.body, ins[: scan.consts], ins[scan.consts : end], ins[end:])
    if name == "while":
        loop = read_while(eqn)
        start = loop.test_consts + loop.body_consts
        return _loop(loop.body, ins[loop.test_consts : start], ins[start:], [])
    # a kernel of which it is not known how it uses what: all its weights may be the last
    if subs and any(v.data for v in ins):
        return [_Value(True, frozenset().union(*(v.leaves for v in ins)))] * len(eqn.outvars)
    return [_together(ins)] * len(eqn.outvars)


def _together(values: Sequence[_Value]) -> _Value:
    """The value of anything but a product with weights, computed from these.

    Weights that data meet there are none of a layer.
    """
    data = any(v.data for v in values)
    return _Value(data, frozenset().union(*(v.leaves for v in values if v.data == data)))


def _loop(
    body: jex.Jaxpr, consts: list[_Value], carry: list[_Value], xs: list[_Value]
) -> list[_Value]:
    """The values that a loop gives, once a turn changes nothing."""
    while True:
        outs = _follow(body, [*consts, *carry, *xs])
        next_carry = [
            _Value(a.data or b.data, b.leaves if b.data and not a.data else a.leaves | b.leaves)
            for a, b in zip(carry, outs, strict=False)
        ]
        if next_carry == carry:
            return carry + outs[len(carry) :]
        carry = next_carry
