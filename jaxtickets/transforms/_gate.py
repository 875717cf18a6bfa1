"""A branch that stays a branch under `vmap`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_batching import custom_vmap

PyTree = Any


def run_if(predicate: jax.Array, on: Callable[[PyTree], PyTree], off: Callable[[PyTree], PyTree], operand: PyTree) -> PyTree:
    """`on(operand) if predicate else off(operand)`, and under `vmap` too only one of them runs while no member asks.

    `lax.cond` on a batched predicate becomes a select: both branches run at every step for every member. Here the
    batching rule asks whether *any* member's predicate holds and then takes a real branch.

    Args:
      predicate: bool scalar.
      on: the expensive branch. It may not close over traced values: everything comes through `operand`.
      off: the other one; same result shapes.
      operand: a tree of arrays.
    """

    @custom_vmap
    def run(predicate: jax.Array, operand: PyTree) -> PyTree:
        return lax.cond(predicate, on, off, operand)

    @run.def_vmap
    def _(axis_size: int, in_batched: list[Any], predicate: jax.Array, operand: PyTree) -> tuple[PyTree, PyTree]:
        asks, batched = in_batched
        axes = jax.tree.map(lambda b: 0 if b else None, batched)
        if asks:

            def on_some(args: tuple[jax.Array, PyTree]) -> PyTree:
                def one(asked: jax.Array, operand: PyTree) -> PyTree:
                    return jax.tree.map(lambda a, b: jnp.where(asked, a, b), on(operand), off(operand))

                return jax.vmap(one, in_axes=(0, axes), axis_size=axis_size)(*args)
        else:

            def on_some(args: tuple[jax.Array, PyTree]) -> PyTree:
                return jax.vmap(on, in_axes=(axes,), axis_size=axis_size)(args[1])

        def off_all(args: tuple[jax.Array, PyTree]) -> PyTree:
            return jax.vmap(off, in_axes=(axes,), axis_size=axis_size)(args[1])

        out = run_if(jnp.any(predicate), on_some, off_all, (predicate, operand))
        return out, jax.tree.map(lambda _: True, out)

    return run(predicate, operand)
