"""keep_masked: train a sparse network whose mask does not change."""

from __future__ import annotations

from typing import Any, NamedTuple

import optax

from jaxtickets import masks
from jaxtickets.transforms._masked_update import inner_update, is_placeholder, mask_moments, mask_updates, own_copy, require_params

PyTree = Any


class KeepMaskedState(NamedTuple):
    """State of `keep_masked`: the mask, and the inner optimizer's state."""

    mask: PyTree
    inner: PyTree


def keep_masked(inner: optax.GradientTransformation, mask: PyTree) -> optax.GradientTransformationExtraArgs:
    """The optimizer `inner`, restricted to the surviving weights.

    After every step pruned weights and their moments are exactly 0, with momentum, weight decay, Adam or anything else
    inside. The params need not be masked beforehand: the first step does it (a first loss on masked params wants
    `masks.apply(mask, params)`).

    Args:
      inner: any optax optimizer or chain.
      mask: a mask tree of the params (see `jaxtickets.masks`). It lives in the state, `state.mask`, so that members
        under `vmap` may each have their own: `jax.vmap(lambda mask, params: keep_masked(inner, mask).init(params))`.

    Raises:
      MaskError: at `init`, if the mask does not fit the params.

    >>> import jax.numpy as jnp
    >>> tx = keep_masked(optax.sgd(0.1, momentum=0.9), {"w": jnp.array([True, False])})
    >>> params = {"w": jnp.array([1.0, 1.0])}
    >>> updates, state = tx.update({"w": jnp.array([1.0, 1.0])}, tx.init(params), params)
    >>> [round(w, 3) for w in optax.apply_updates(params, updates)["w"].tolist()]
    [0.9, 0.0]
    """
    inner = optax.with_extra_args_support(inner)

    def init(params: PyTree) -> KeepMaskedState:
        if is_placeholder(params):
            return KeepMaskedState(params, inner.init(params))
        masks.check(mask, params)
        return KeepMaskedState(own_copy(mask), inner.init(params))

    def update(updates: PyTree, state: Any, params: PyTree = None, **extra: Any) -> tuple[PyTree, KeepMaskedState]:
        grads, params = updates, require_params(params, "keep_masked")
        updates, inner_state = inner_update(inner, grads, state.inner, params, state.mask, **extra)
        inner_state = mask_moments(inner, inner_state, params, state.mask)
        return mask_updates(updates, params, state.mask), KeepMaskedState(state.mask, inner_state)

    return optax.GradientTransformationExtraArgs(init, update)
