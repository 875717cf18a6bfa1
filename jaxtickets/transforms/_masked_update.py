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
    return jax.tree.map(lambda m, u, p: u if m.ndim == 0 else jnp.where(m, u, -p.astype(u.dtype)), survivors, updates, params)


def mask_moments(inner: optax.GradientTransformation, state: PyTree, params: PyTree, survivors: PyTree) -> PyTree:
    """The optimizer's state with every per-weight moment outside `survivors` exactly 0.

    optax itself says which parts of a state are trees like the params, so no optimizer is known by name. Factored
    moments (Adafactor's rows and columns) belong to no single weight and are left alone.
    """

    def mask_leaf(moment: Any, m: jax.Array, p: jax.Array) -> Any:
        whole = m.ndim == 0 or getattr(moment, "shape", None) != p.shape
        return moment if whole else jnp.where(m, moment, jnp.zeros((), moment.dtype))

    return optax.tree.map_params(inner, mask_leaf, state, survivors, params)


def require_params(params: PyTree | None, name: str) -> None:
    """optax allows `params=None`; masked updates cannot do without."""
    if params is None:
        raise ValueError(f"{name} needs the params: call tx.update(grads, state, params).")
