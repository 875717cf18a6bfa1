"""prune_grow: dynamic sparse training (RigL, SET). Drop small weights, grow others, keep the count."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import optax

from jaxtickets import masks, scores
from jaxtickets import sparsity as budgets
from jaxtickets.masks import KERNELS, MaskError, Rules
from jaxtickets.selection import keep_largest, share
from jaxtickets.transforms._gate import run_if
from jaxtickets.transforms._masked_update import inner_update, is_placeholder, mask_moments, mask_updates, own_copy, require_params

PyTree = Any
Growth = Literal["gradient", "random"]
Regrown = Literal["keep", "zero"]


class PruneGrowState(NamedTuple):
    """State of `prune_grow`.

    Args:
      count: steps taken, int32.
      key: what random growth draws from, folded with `count`.
      mask: the present mask.
      ever_active: weights that were active at any time (ITOP), a mask tree; dense markers alone unless it is tracked.
      inner: the inner optimizer's state.
    """

    count: jax.Array
    key: jax.Array
    mask: PyTree
    ever_active: PyTree
    inner: PyTree


def evolve_mask(
    mask: PyTree,
    params: PyTree,
    grads: PyTree,
    drop_fraction: jax.Array | float,
    key: jax.Array,
    growth: Growth = "gradient",
    regrown: Regrown = "keep",
) -> tuple[PyTree, PyTree]:
    """One prune-grow, leaf by leaf: drop the smallest weights, grow as many others.

    n = floor(drop_fraction * active). The n active weights of smallest magnitude go; among the inactive ones (the just
    dropped included) the n with the largest |gradient| come, or n random ones. Leaves without an inactive weight are
    skipped. The number of active weights of every leaf stays what it was.

    Args:
      mask: the present mask.
      params: weights, 0 where pruned.
      grads: gradient of the loss with respect to *all* weights at the masked params, averaged over devices and
        accumulation steps, unclipped. Not read with random growth.
      drop_fraction: share of the active weights to replace, in [0, 1].
      key: for random growth.
      growth: "gradient" (RigL) or "random" (SET).
      regrown: what becomes of a weight that is dropped and grown in the same update: it keeps its value and moments
        ("keep", RigL) or starts from 0 ("zero", FreeTickets' code).

    Returns:
      `(mask, survivors)`: the new mask, and those of its weights whose value and moments live on. All others, newly
      grown ones among them, are to be 0.

    References:
      Evci et al., 2020, arXiv:1911.11134, algorithm 1; Mocanu et al., 2018 (random growth).

    Differs:
      FreeTickets' code also resets the smallest half of layers without inactive weights; they are skipped here.
    """
    leaves, tree = jax.tree.flatten(mask)
    sparse = [i for i, m in enumerate(leaves) if m.ndim]
    old = [leaves[i] for i in sparse]

    def chosen(values: PyTree) -> list[jax.Array]:
        flat = jax.tree.leaves(values)
        return [flat[i] for i in sparse]

    active = [jnp.sum(m, dtype=jnp.int32) for m in old]
    dropped = [jnp.where(n == m.size, 0, share(drop_fraction, n)) for n, m in zip(active, old, strict=True)]
    remaining = [n - d for n, d in zip(active, dropped, strict=True)]
    stay = keep_largest(chosen(scores.magnitude(params)), remaining, where=old)
    candidates = scores.gradient(grads) if growth == "gradient" else scores.random(key, params)
    grown = keep_largest(chosen(candidates), dropped, where=[~s for s in stay])
    new, survivors = list(leaves), list(leaves)
    for i, m, s, g in zip(sparse, old, stay, grown, strict=True):
        new[i] = s | g
        survivors[i] = s | (g & m) if regrown == "keep" else s
    return jax.tree.unflatten(tree, new), jax.tree.unflatten(tree, survivors)


def prune_grow(
    inner: optax.GradientTransformation,
    *,
    key: jax.Array,
    sparsity: float | None = None,
    distribution: budgets.Distribution = "erk",
    mask: PyTree | None = None,
    drop_fraction: float | jax.Array | Callable[[jax.Array], Any] = 0.5,
    update_every: int | jax.Array = 1000,
    begin: int | jax.Array = 0,
    end: int | jax.Array | None = None,
    growth: Growth = "gradient",
    regrown: Regrown = "keep",
    weight_update: bool = True,
    track_ever_active: bool = False,
    prunable: Rules = KERNELS,
) -> optax.GradientTransformationExtraArgs:
    """The optimizer `inner` on a sparse network whose mask evolves: RigL, or SET with `growth="random"`.

    Every `update_every` steps the mask is replaced by `evolve_mask`'s. Grown weights start at 0 with moments 0. Between
    updates it is `keep_masked`; under `vmap` off-schedule steps pay nothing for the updates either.

    Args:
      inner: any optax optimizer or chain. Clipping or accumulation *inside* leaves the gradient that growth sees alone;
        `optax.MultiSteps(prune_grow(...), k)` grows by the accumulated one.
      key: draws the first mask and random growth. Members need different keys.
      sparsity: share of zeros of the first, random mask, in [0, 1). This or `mask`.
      distribution: layer-wise budgets of the first mask: "erk", "er" or "uniform".
      mask: a first mask of your own instead.
      drop_fraction: share of active weights replaced per update; a number, or a schedule of the step
        (`jaxtickets.sparsity.cosine(0.5, steps)` is RigL's), clipped to [0, 1]. It is resolved to a millionth.
      update_every: Delta T, steps between updates.
      begin: first step (counted from 1) at which an update may happen.
      end: last such step; None for no end (FreeTickets). RigL ends at 75 % of training.
      growth: "gradient" (RigL) or "random" (SET).
      regrown: see `evolve_mask`.
      weight_update: whether the weights are also updated on a step that updates the mask: first the weights, then
        prune-grow with the gradient of the weights before (True, FreeTickets). False replaces the one by the other and
        leaves the inner optimizer's state as it was (RigL).
      track_ever_active: keep in the state which weights were ever active (one byte per weight), for ITOP's rate.
      prunable: path rules (see `jaxtickets.masks.prunable`).

    Returns:
      A transform; its state is a `PruneGrowState`, `state.mask` the mask.

    Raises:
      MaskError: neither or both of `sparsity` and `mask`; a sparsity outside [0, 1); a drop fraction outside [0, 1];
        `update_every` below 1; an unknown `growth` or `regrown`; at `init`, rules or a mask that do not fit the params.

    >>> params = {"kernel": jnp.ones((10, 10)), "bias": jnp.zeros(10)}
    >>> tx = prune_grow(optax.adam(1e-3), sparsity=0.8, update_every=2, key=jax.random.key(0))
    >>> state = tx.init(params)
    >>> for _ in range(4):
    ...     updates, state = tx.update(params, state, params)
    ...     params = optax.apply_updates(params, updates)
    >>> masks.count(state.mask), int((params["kernel"] != 0).sum()) <= 20
    (20, True)

    References:
      Evci et al., 2020, arXiv:1911.11134; Mocanu et al., 2018; Liu et al., 2021, arXiv:2106.14568, section 3.

    Differs:
      A grown weight's second Adam moment is 0 while the bias correction has long ended, so its first step is
      (1 - b1) / sqrt(1 - b2) = 3.2 times the learning rate, as in every implementation that zeroes moments.
    """
    inner = optax.with_extra_args_support(inner)
    if (sparsity is None) == (mask is None):
        raise MaskError("prune_grow wants either sparsity=0.8 (a random first mask) or mask=..., one of them.")
    if sparsity is not None:
        budgets.check_sparsity(sparsity)
    for name, choice, choices in (("growth", growth, get_args(Growth)), ("regrown", regrown, get_args(Regrown))):
        if choice not in choices:
            raise MaskError(f"{name} is one of {', '.join(choices)}; got {choice!r}.")
    if isinstance(drop_fraction, int | float) and not 0 <= drop_fraction <= 1:
        raise MaskError(f"drop_fraction is a share of the active weights, in [0, 1]: got {drop_fraction!r}.")
    if isinstance(update_every, int) and update_every < 1:
        raise MaskError(f"update_every is a number of steps, at least 1: got {update_every!r}.")

    def init(params: PyTree) -> PruneGrowState:
        if is_placeholder(params):
            return PruneGrowState(jnp.zeros((), jnp.int32), key, params, params, inner.init(params))
        first = mask
        if first is None:
            assert sparsity is not None
            first = budgets.random_mask(jax.random.fold_in(key, 0), params, sparsity, distribution, prunable)
        masks.check(first, params)
        ever_active = own_copy(first) if track_ever_active else masks.dense(params)
        return PruneGrowState(jnp.zeros((), jnp.int32), own_copy(key), own_copy(first), ever_active, inner.init(params))

    def update(updates: PyTree, state: Any, params: PyTree = None, **extra: Any) -> tuple[PyTree, PruneGrowState]:
        grads, params = updates, require_params(params, "prune_grow")
        step = jnp.asarray(optax.safe_increment(state.count))
        due = (step % update_every == 0) & (step >= begin) & (True if end is None else step <= end)
        updates, inner_state = inner_update(inner, grads, state.inner, params, state.mask, **extra)
        if not weight_update:
            updates, inner_state = jax.tree.map(
                lambda old, new: jnp.where(due, old, new), (jax.tree.map(jnp.zeros_like, updates), state.inner), (updates, inner_state)
            )
        moved = optax.apply_updates(params, mask_updates(updates, params, state.mask))
        fraction = drop_fraction(step) if callable(drop_fraction) else drop_fraction

        def evolve(operand: PyTree) -> PyTree:
            mask, moved, grads, fraction, key, step = operand
            return evolve_mask(mask, moved, grads, fraction, jax.random.fold_in(key, step), growth, regrown)

        def stay(operand: PyTree) -> PyTree:
            return operand[0], operand[0]

        operand = (state.mask, moved, grads, jnp.clip(jnp.asarray(fraction, jnp.float32), 0, 1), state.key, step)
        new_mask, survivors = run_if(due, evolve, stay, operand)
        # A weight that was inactive has moments 0 already; `survivors` holds only weights that were active and stay.
        inner_state = mask_moments(inner, inner_state, params, survivors)
        ever_active = jax.tree.map(lambda e, m: e | m, state.ever_active, new_mask) if track_ever_active else state.ever_active
        return mask_updates(updates, params, survivors), PruneGrowState(step, state.key, new_mask, ever_active, inner_state)

    return optax.GradientTransformationExtraArgs(init, update)
