"""A branch that stays a branch under `vmap`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.extend.core as jex
import jax.numpy as jnp
from jax import lax
from jax.custom_batching import custom_vmap

from jaxtickets.masks.selection import same_on_the_mesh

PyTree = Any


def run_if(
    predicate: jax.Array,
    on: Callable[[PyTree], PyTree],
    off: Callable[[PyTree], PyTree],
    operand: PyTree,
) -> PyTree:
    """`on(operand) if predicate else off(operand)`; under `vmap` too `on` runs only if one asks.

    `lax.cond` on a batched predicate becomes a select: both branches run at every step for every
    member. Here the batching rule asks whether *any* member's predicate holds and then takes a real
    branch.

    What comes out has no derivative: it is masks.

    Args:
      predicate: bool scalar.
      on: the expensive branch.
      off: the other one; same result shapes.
      operand: a tree of arrays.
    """
    predicate, operand = lax.stop_gradient((predicate, operand))
    shared = same_on_the_mesh((predicate, operand)) != 0  # False
    consts_on, on = _with_constants(on, operand, shared)
    consts_off, off = _with_constants(off, operand, shared)
    return _gate(
        predicate,
        lambda o: on(o[0], *o[2:]),
        lambda o: off(*o[1:]),
        (consts_on, consts_off, operand, shared),
    )


def _with_constants(
    branch: Callable[[PyTree], PyTree], operand: PyTree, shared: jax.Array
) -> tuple[list[Any], Callable[..., PyTree]]:
    """The constants of a branch, and the branch as a function of `(constants, operand, shared)`.

    `custom_vmap` refuses to be batched over what a function holds, and in a `lax.cond` under `vmap`
    that is batched like all else.
    """

    def varying(operand: PyTree, shared: jax.Array) -> PyTree:
        # both branches alike on a mesh
        return jax.tree.map(lambda a: jnp.where(shared, a, a), branch(operand))

    closed, shape = jax.make_jaxpr(varying, return_shape=True)(operand, shared)
    jaxpr = closed.jaxpr  # without the constants, which are of the trace around it

    def run(consts: list[Any], operand: PyTree, shared: jax.Array) -> PyTree:
        flat = jex.jaxpr_as_fun(jex.ClosedJaxpr(jaxpr, consts))(*jax.tree.leaves((operand, shared)))
        return jax.tree.unflatten(jax.tree.structure(shape), flat)

    return list(closed.consts), run


def _gate(
    predicate: jax.Array,
    on: Callable[[PyTree], PyTree],
    off: Callable[[PyTree], PyTree],
    operand: PyTree,
) -> PyTree:
    @custom_vmap
    def run(predicate: jax.Array, operand: PyTree) -> PyTree:
        return lax.cond(predicate, on, off, operand)

    @run.def_vmap
    def _(
        axis_size: int, in_batched: list[Any], predicate: jax.Array, operand: PyTree
    ) -> tuple[PyTree, PyTree]:
        asks, batched = in_batched
        axes = jax.tree.map(lambda b: 0 if b else None, batched)
        if asks:

            def on_some(args: tuple[jax.Array, PyTree]) -> PyTree:
                def one(asked: jax.Array, operand: PyTree) -> PyTree:
                    return jax.tree.map(
                        lambda a, b: jnp.where(asked, a, b), on(operand), off(operand)
                    )

                return jax.vmap(one, in_axes=(0, axes), axis_size=axis_size)(*args)

        else:

            def on_some(args: tuple[jax.Array, PyTree]) -> PyTree:
                return jax.vmap(on, in_axes=(axes,), axis_size=axis_size)(args[1])

        def off_all(args: tuple[jax.Array, PyTree]) -> PyTree:
            return jax.vmap(off, in_axes=(axes,), axis_size=axis_size)(args[1])

        out = _gate(jnp.any(predicate), on_some, off_all, (predicate, operand))
        return out, jax.tree.map(lambda _: True, out)

    return run(predicate, operand)
