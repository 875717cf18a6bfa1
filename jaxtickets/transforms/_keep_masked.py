"""keep_masked: train a sparse network whose mask does not change."""

from __future__ import annotations

from typing import Any, NamedTuple

import optax

from jaxtickets import masks
from jaxtickets.transforms._masked_update import (
    check_update,
    is_placeholder,
    masked_step,
    optimizer,
    own_copy,
)

PyTree = Any


class KeepMaskedState(NamedTuple):
    """State of `keep_masked`: the mask, and the inner optimizer's state."""

    mask: PyTree
    inner: PyTree


def keep_masked(
    inner: optax.GradientTransformation, mask: PyTree
) -> optax.GradientTransformationExtraArgs:
    """The optimizer `inner`, restricted to the surviving weights.

    After every step pruned weights and their moments are exactly 0, with momentum, weight decay,
    Adam or anything else inside. The params need not be masked beforehand: the first step does it
    (a first loss on masked params wants `masks.apply(mask, params)`).

    It stands outermost: `keep_masked(optax.chain(...), mask)`. A chain *around* it that scales or
    adds to its updates, a lookahead or schedule-free optimizer around it, and an average of the
    params revive pruned weights (see `jaxtickets.masks.audit`).

    Args:
      inner: any optax optimizer or chain.
      mask: a mask tree of the params (see `jaxtickets.masks`). It lives in the state, `state.mask`,
        so that members under `vmap` may each have their own: `jax.vmap(lambda mask, params:
        keep_masked(inner, mask).init(params))`.

    Raises:
      MaskError: an `inner` that is no optimizer; at `init`, if the mask does not fit the params; at
        `update`, gradients or a state that do not.

    >>> import jax.numpy as jnp
    >>> tx = keep_masked(optax.sgd(0.1, momentum=0.9), {"w": jnp.array([True, False])})
    >>> params = {"w": jnp.array([1.0, 1.0])}
    >>> updates, state = tx.update({"w": jnp.array([1.0, 1.0])}, tx.init(params), params)
    >>> [round(w, 3) for w in optax.apply_updates(params, updates)["w"].tolist()]
    [0.9, 0.0]
    """
    inner = optimizer(inner)

    def init(params: PyTree) -> KeepMaskedState:
        if is_placeholder(params):
            return KeepMaskedState(mask, inner.init(params))
        masks.check(mask, params)
        return KeepMaskedState(own_copy(mask), inner.init(params))

    def update(
        updates: PyTree, state: Any, params: PyTree = None, **extra: Any
    ) -> tuple[PyTree, KeepMaskedState]:
        grads, params = (
            updates,
            check_update("keep_masked", updates, state, params, KeepMaskedState),
        )
        step = masked_step(inner, grads, state.inner, params, state.mask, **extra)
        return step.updates, KeepMaskedState(state.mask, step.moments)

    return optax.GradientTransformationExtraArgs(init, update)
