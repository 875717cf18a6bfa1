"""l1_masking: an L1 penalty that makes chosen weights small, so that pruning takes them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxtickets.errors import MaskError
from jaxtickets.messages import checks
from jaxtickets.messages.pytrees import describe_trees, leaf_paths
from jaxtickets.transforms._masked_update import check_update, is_placeholder, optimizer

check = checks.Checks(MaskError, arrays=True)

PyTree = Any


class L1MaskingState(NamedTuple):
    """State of `l1_masking`: steps taken (int32), the coefficients, the inner optimizer's state."""

    count: jax.Array
    coefficients: PyTree
    inner: PyTree


def l1_penalty(params: PyTree, coefficients: PyTree) -> jax.Array:
    """||theta * l||_1, float32: what `l1_masking` adds to the loss, times the strength.

    >>> float(l1_penalty({"w": jnp.array([1.0, -2.0])}, {"w": jnp.array([0.0, 1.0])}))
    2.0
    """

    def one(p: jax.Array, c: jax.Array | float) -> jax.Array:
        # |p| with derivative 0 at 0; that of jnp.abs is 1 there
        magnitude = jnp.real(p * jax.lax.stop_gradient(jnp.conj(jnp.sign(p))))
        return jnp.sum(magnitude.astype(jnp.float32) * c)

    if jax.tree.structure(params) != jax.tree.structure(coefficients):
        raise MaskError(
            f"coefficients must have the params' tree. {describe_trees(coefficients, params)}"
        )
    parts = jax.tree.map(one, params, coefficients)
    return jax.tree.reduce(jnp.add, parts, jnp.float32(0))


def penalised(
    inner: optax.GradientTransformationExtraArgs,
    coefficients: PyTree,
    strength: jax.Array | float,
    decoupled: bool,
) -> optax.GradientTransformationExtraArgs:
    """The optimizer `inner` with an L1 penalty of a known strength, and no state of its own."""

    def update(
        updates: PyTree, state: PyTree, params: PyTree = None, **extra: Any
    ) -> tuple[PyTree, PyTree]:
        l1 = jax.tree.map(lambda c: (strength * c).astype(jnp.float32), coefficients)
        if decoupled:
            updates, state = inner.update(updates, state, params, **extra)
            return jax.tree.map(_shrink, updates, l1, params), state
        grads = jax.tree.map(
            lambda g, c, p: g + (c * jnp.sign(p)).astype(g.dtype), updates, l1, params
        )
        return inner.update(grads, state, params, **extra)

    return optax.GradientTransformationExtraArgs(inner.init, update)


def _shrink(u: jax.Array, c: jax.Array, p: jax.Array) -> jax.Array:
    """The update that moves a weight by `u` and then by `c` towards 0, where it stays."""
    dtype = jnp.promote_types(u.dtype, p.dtype)  # in a narrower one -p would not take all of p away
    u, p, c = u.astype(dtype), p.astype(dtype), c.astype(jnp.finfo(dtype).dtype)
    moved = p + u
    shrunk = jnp.sign(moved) * jnp.maximum(jnp.abs(moved) - c, 0)
    return jnp.where(shrunk == 0, -p, jnp.where(c == 0, u, shrunk - p))  # -p: exactly 0


def l1_masking(
    inner: optax.GradientTransformation,
    coefficients: PyTree,
    strength: float | jax.Array | Callable[[jax.Array], Any],
    *,
    decoupled: bool = False,
) -> optax.GradientTransformationExtraArgs:
    """The optimizer `inner` with strength * ||theta * l||_1 pulling weights towards 0, each by its
    own coefficient.

    `decoupled` it stands outermost but for another transform of ours (`keep_masked(l1_masking(...),
    mask)`): what scales its updates moves the zeros that it makes.

    Args:
      inner: any optax optimizer or chain, another transform of ours included.
      coefficients: l, a tree like the params: floats of the leaf's shape, or one 0-d number for a
        whole leaf (0 for leaves that are not to be touched). It lives in the state, so members
        under `vmap` may each have their own.
      strength: tau, at least 0; a number, or a schedule of the steps taken before, as optax counts:
        0 at the first. Multi-Ticket lets it fall with the learning rate.
      decoupled: False adds the gradient tau * l * sign(theta) to the loss's, so that Adam rescales
        it (the paper). True takes a soft threshold of tau * l after the optimizer's step: weights
        reach exactly 0.

    Raises:
      MaskError: an `inner` that is no optimizer, a strength that is negative or no number; at
        `init`, coefficients that do not fit the params; at `update`, gradients or a state that do
        not.

    >>> tx = l1_masking(optax.sgd(1.0), {"w": jnp.array([0.0, 1.0])}, 0.5, decoupled=True)
    >>> params = {"w": jnp.array([0.3, 0.3])}
    >>> updates, _ = tx.update({"w": jnp.zeros(2)}, tx.init(params), params)
    >>> [round(w, 3) for w in optax.apply_updates(params, updates)["w"].tolist()]
    [0.3, 0.0]

    References:
      Kobayashi et al., 2022, arXiv:2205.11833, section 3.2 (in the loss); the soft threshold is the
      proximal step.
    """
    inner = optimizer(inner)
    if not callable(strength):
        check.number(
            "strength", strength, "a number of at least 0, or a schedule of the step", least=0
        )
    check.flag("decoupled", decoupled)

    def init(params: PyTree) -> L1MaskingState:
        if not is_placeholder(params):
            check_coefficients(params)
        as_floats = jax.tree.map(lambda c: jnp.array(c, jnp.float32, copy=True), coefficients)
        return L1MaskingState(jnp.zeros((), jnp.int32), as_floats, inner.init(params))

    def check_coefficients(params: PyTree) -> None:
        if jax.tree.structure(coefficients) != jax.tree.structure(params):
            raise MaskError(
                f"coefficients must have the params' tree: {leaf_paths(coefficients)} against"
                f" {leaf_paths(params)}."
            )
        for path, c, p in zip(
            leaf_paths(params), jax.tree.leaves(coefficients), jax.tree.leaves(params), strict=True
        ):
            if not (
                isinstance(c, int | float)
                or (
                    hasattr(c, "dtype") and (c.dtype == bool or jnp.issubdtype(c.dtype, jnp.number))
                )
            ):
                raise MaskError(f"the coefficients of {path!r} are numbers; got {checks.shown(c)}.")
            if jnp.shape(c) not in ((), p.shape):
                raise MaskError(
                    f"the coefficients of {path!r} have shape {list(jnp.shape(c))}; it must be"
                    f" {list(p.shape)} or []."
                )

    def update(
        updates: PyTree, state: Any, params: PyTree = None, **extra: Any
    ) -> tuple[PyTree, L1MaskingState]:
        grads, params = updates, check_update("l1_masking", updates, state, params, L1MaskingState)
        tau = strength(state.count) if callable(strength) else strength
        step = penalised(inner, state.coefficients, tau, decoupled)
        updates, inner_state = step.update(grads, state.inner, params, **extra)
        taken = jnp.asarray(optax.safe_increment(state.count))
        return updates, L1MaskingState(taken, state.coefficients, inner_state)

    return optax.GradientTransformationExtraArgs(init, update)
