"""What to keep and what to grow: a score for every weight. The largest win."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

PyTree = Any


def magnitude(params: PyTree) -> PyTree:
    """|w| in float32: what to keep, in magnitude pruning, RigL and SET."""
    return jax.tree.map(lambda p: jnp.abs(p).astype(jnp.float32), params)


def gradient(grads: PyTree) -> PyTree:
    """|dL/dw| in float32: what RigL grows.

    The gradient must be averaged over devices and accumulation steps *before* it comes here: the mean of absolute
    values is not the absolute value of the mean.
    """
    return jax.tree.map(lambda g: jnp.abs(g).astype(jnp.float32), grads)


def random(key: jax.Array, params: PyTree) -> PyTree:
    """uint32 random bits: what SET grows. Each leaf has its own stream."""
    leaves, tree = jax.tree.flatten(params)
    draws = [jax.random.bits(jax.random.fold_in(key, i), leaf.shape, jnp.uint32) for i, leaf in enumerate(leaves)]
    return jax.tree.unflatten(tree, draws)
