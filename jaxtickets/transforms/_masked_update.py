"""The one place where an optimizer's step is made to respect a mask. Every transform here goes through it."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxtickets import masks

PyTree = Any


def inner_update(
    inner: optax.GradientTransformationExtraArgs, grads: PyTree, state: PyTree, params: PyTree, mask: PyTree, **extra: Any
) -> tuple[PyTree, PyTree]:
    """The inner optimizer's step on the surviving weights: it never sees a pruned weight's gradient."""
    return inner.update(masks.apply(mask, grads), state, params, **extra)


def mask_updates(updates: PyTree, params: PyTree, survivors: PyTree) -> PyTree:
    """Updates that leave every weight outside `survivors` at exactly 0, also where it was not 0 before."""

    def mask_leaf(m: jax.Array, u: jax.Array, p: jax.Array) -> jax.Array:
        if m.ndim == 0:
            return u
        dtype = jnp.promote_types(u.dtype, p.dtype)  # -p rounded to a narrower update's dtype would not take all of p away
        return jnp.where(m, u.astype(dtype), -p.astype(dtype))

    return jax.tree.map(mask_leaf, survivors, updates, params)


def mask_moments(inner: optax.GradientTransformation, state: PyTree, params: PyTree, survivors: PyTree) -> PyTree:
    """The optimizer's state with every per-weight moment outside `survivors` exactly 0.

    optax itself says which parts of a state are trees like the params, so no optimizer is known by name. Factored
    moments (Adafactor's rows and columns) belong to no single weight and are left alone, and so are the holes that
    `optax.partition` and `optax.masked` leave.
    """

    def hole(node: Any) -> bool:
        return isinstance(node, optax.MaskedNode)

    def mask_leaf(moment: Any, m: Any, p: Any) -> Any:
        whole = hole(moment) or m.ndim == 0 or getattr(moment, "shape", None) != p.shape
        return moment if whole else jnp.where(m, moment, jnp.zeros((), moment.dtype))

    return optax.tree.map_params(inner, mask_leaf, state, survivors, params, is_leaf=hole)


def is_placeholder(params: PyTree) -> bool:
    """Whether `init` is asked by `optax.tree.map_params`, on a tree without leaves, which parts are like the params."""
    return not jax.tree.leaves(params)


def require_params(params: PyTree | None, name: str) -> PyTree:
    """`params`; optax allows None, and masked updates cannot do without."""
    if params is None:
        raise ValueError(f"{name} needs the params: call tx.update(grads, state, params).")
    return params


def own_copy(tree: PyTree) -> PyTree:
    """Arrays that belong to a state alone: donating the state to a jitted step must not delete what the caller holds."""
    return jax.tree.map(lambda a: a.copy(), tree)
