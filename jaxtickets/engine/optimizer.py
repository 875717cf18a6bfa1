"""From a plan's words to optax."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import optax

from jaxtickets import masks
from jaxtickets.optimizers import SGD, Optimizer, override_of

PyTree = Any


def build_optimizer(spec: Optimizer, lr: jax.Array | float, momentum: jax.Array | None = None) -> optax.GradientTransformation:
    """The optax optimizer that a plan names; `momentum` in place of SGD's own."""
    rates = [_by_path(lambda u, p, path: u * override_of(spec, path).lr)] if spec.overrides else []
    decay = [optax.add_decayed_weights(spec.weight_decay)] if spec.weight_decay else []
    if spec.overrides:

        def decayed(u: jax.Array, p: jax.Array, path: str) -> jax.Array:
            own = override_of(spec, path).weight_decay
            return u + (spec.weight_decay if own is None else own) * p

        decay = [_by_path(decayed)]
    if isinstance(spec, SGD):
        sgd = optax.sgd(lr, momentum=(spec.momentum or None) if momentum is None else momentum, nesterov=spec.nesterov)
        return optax.chain(*decay, sgd, *rates)
    clip = [optax.clip_by_global_norm(spec.clip_norm)] if spec.clip_norm is not None else []
    if not spec.overrides:
        return optax.chain(*clip, optax.adamw(lr, spec.b1, spec.b2, spec.eps, weight_decay=spec.weight_decay))
    return optax.chain(*clip, optax.scale_by_adam(spec.b1, spec.b2, spec.eps), *decay, optax.scale_by_learning_rate(lr), *rates)


def _by_path(change: Callable[[jax.Array, jax.Array, str], jax.Array]) -> optax.GradientTransformation:
    """A transform of each update by its param and path."""

    def update(updates: PyTree, params: PyTree) -> PyTree:
        paths = jax.tree.unflatten(jax.tree.structure(params), masks.leaf_paths(params))
        return jax.tree.map(change, updates, params, paths)

    return optax.stateless(update)
