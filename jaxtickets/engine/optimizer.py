"""From a plan's optimizers, which are data, to optax's."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import optax

from jaxtickets import masks
from jaxtickets.plan.optimizers import SGD, Adam, Optax, Optimizer, override_of

PyTree = Any


def optax_optimizer(
    spec: Optimizer, lr: jax.Array | float, momentum: jax.Array | None = None
) -> optax.GradientTransformationExtraArgs:
    """The optax optimizer that a plan names; `momentum` in place of SGD's own."""
    tx = optax.with_extra_args_support(build_optimizer(spec, lr, momentum))

    # Optax counts on the standard promotion of dtypes, also where networks are written for the
    # strict one.
    def init(params: PyTree) -> PyTree:
        with jax.numpy_dtype_promotion("standard"):
            return tx.init(params)

    def update(
        updates: PyTree, state: PyTree, params: PyTree | None = None, **extra: Any
    ) -> tuple[PyTree, PyTree]:
        with jax.numpy_dtype_promotion("standard"):
            return tx.update(updates, state, params, **extra)

    return optax.GradientTransformationExtraArgs(init, update)


@functools.singledispatch
def build_optimizer(
    spec: Any, lr: jax.Array | float, momentum: jax.Array | None
) -> optax.GradientTransformation:
    """The optax optimizer of a plan's; register one for an `Optimizer` class of your own."""
    kind = type(spec).__name__
    raise NotImplementedError(
        f"{kind}: register what it is with jaxtickets.engine.build_optimizer."
    )


@build_optimizer.register
def _(spec: SGD, lr: jax.Array | float, momentum: jax.Array | None) -> optax.GradientTransformation:
    own = (spec.momentum or None) if momentum is None else momentum
    sgd = optax.sgd(lr, momentum=own, nesterov=spec.nesterov)
    return optax.chain(*_weight_decay(spec), sgd, *_rates(spec))


@build_optimizer.register
def _(
    spec: Adam, lr: jax.Array | float, momentum: jax.Array | None
) -> optax.GradientTransformation:
    clip = [optax.clip_by_global_norm(spec.clip_norm)] if spec.clip_norm is not None else []
    betas = (spec.b1, spec.b2, spec.eps)
    if not spec.overrides:
        return optax.chain(*clip, optax.adamw(lr, *betas, weight_decay=spec.weight_decay))
    adam, rate = optax.scale_by_adam(*betas), optax.scale_by_learning_rate(lr)
    return optax.chain(*clip, adam, *_weight_decay(spec), rate, *_rates(spec))


@build_optimizer.register
def _(
    spec: Optax, lr: jax.Array | float, momentum: jax.Array | None
) -> optax.GradientTransformation:
    make: Any = getattr(optax, spec.name)
    return optax.chain(make(lr, **dict(spec.keywords)), *_rates(spec))


def _weight_decay(spec: SGD | Adam) -> list[optax.GradientTransformation]:
    """Weight decay added to the gradient, of each leaf its own where overrides say so."""
    if not spec.overrides:
        return [optax.add_decayed_weights(spec.weight_decay)] if spec.weight_decay else []

    def decayed(u: jax.Array, p: jax.Array, path: str) -> jax.Array:
        own = override_of(spec, path).weight_decay
        return u + (spec.weight_decay if own is None else own) * p

    return [_by_path(decayed)]


def _rates(spec: Optimizer) -> list[optax.GradientTransformation]:
    """The factors on the learning rate that overrides say."""
    if not spec.overrides:
        return []
    return [_by_path(lambda u, p, path: u * override_of(spec, path).lr)]


def _by_path(
    change: Callable[[jax.Array, jax.Array, str], jax.Array],
) -> optax.GradientTransformation:
    """A transform of each update by its param and path."""

    def update(updates: PyTree, params: PyTree) -> PyTree:
        paths = jax.tree.unflatten(jax.tree.structure(params), masks.leaf_paths(params))
        return jax.tree.map(change, updates, params, paths)

    return optax.stateless(update)
