"""gradual_pruning: from dense to sparse while training, by magnitude (Zhu and Gupta)."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import optax

from jaxtickets import masks, scores
from jaxtickets import sparsity as budgets
from jaxtickets.masks import KERNELS, MaskError, Rules
from jaxtickets.selection import keep_largest, share
from jaxtickets.transforms._gate import run_if
from jaxtickets.transforms._masked_update import inner_update, is_placeholder, mask_moments, mask_updates, require_params

PyTree = Any
Scope = Literal["layerwise", "global"]


class GradualPruningState(NamedTuple):
    """State of `gradual_pruning`: steps taken (int32), the present mask, the inner optimizer's state."""

    count: jax.Array
    mask: PyTree
    inner: PyTree


def prune_to(
    mask: PyTree, params: PyTree, sparsity: jax.Array | float, scope: Scope = "layerwise", ranking: PyTree | None = None
) -> PyTree:
    """The mask of the largest magnitudes among the surviving weights, at `sparsity`.

    Args:
      mask: the present mask; pruned weights stay pruned, so a lower sparsity than the present one changes nothing.
      params: the weights.
      sparsity: share of zeros, in [0, 1), resolved to a millionth: per leaf N - floor(sparsity * N) survive.
      scope: "layerwise" (the same share in every leaf) or "global" (one threshold for all, no normalisation).
      ranking: scores like `params` in place of the magnitudes (see `jaxtickets.scores`).

    >>> mask = {"w": jnp.ones(4, bool)}
    >>> prune_to(mask, {"w": jnp.array([3.0, -4.0, 1.0, 2.0])}, 0.5)["w"].tolist()
    [True, True, False, False]
    """
    leaves, tree = jax.tree.flatten(mask)
    ranks = jax.tree.leaves(scores.magnitude(params) if ranking is None else ranking)
    sparse = [i for i, m in enumerate(leaves) if m.ndim]
    sizes = [leaves[i].size for i in sparse]
    count = sum(sizes) - share(sparsity, sum(sizes)) if scope == "global" else [n - share(sparsity, n) for n in sizes]
    kept = keep_largest([ranks[i] for i in sparse], count, where=[leaves[i] for i in sparse])
    for i, m in zip(sparse, kept, strict=True):
        leaves[i] = m
    return jax.tree.unflatten(tree, leaves)


def gradual_pruning(
    inner: optax.GradientTransformation,
    *,
    sparsity: float,
    begin: int,
    end: int,
    update_every: int = 1000,
    initial: float = 0.0,
    scope: Scope = "layerwise",
    prunable: Rules = KERNELS,
) -> optax.GradientTransformationExtraArgs:
    """The optimizer `inner` on a network that is pruned step by step along the cubic schedule.

    Args:
      inner: any optax optimizer or chain.
      sparsity: final share of zeros, in [0, 1).
      begin: the step (counted from 1) at which the schedule starts, in steps.
      end: the step from which the final sparsity holds. Always an update, whatever `update_every`.
      update_every: steps between prunings.
      initial: sparsity at `begin`.
      scope: "layerwise" or "global" (see `prune_to`).
      prunable: path rules (see `jaxtickets.masks.prunable`).

    Returns:
      A transform; its state is a `GradualPruningState`, `state.mask` the mask.

    Raises:
      MaskError: a sparsity outside [0, 1), `end <= begin`, `update_every` below 1, an unknown scope, or rules that do not fit.

    >>> tx = gradual_pruning(optax.sgd(0.1), sparsity=0.75, begin=0, end=4, update_every=1)
    >>> params = {"w": jnp.arange(16.0).reshape(4, 4)}
    >>> state = tx.init(params)
    >>> for _ in range(4):
    ...     updates, state = tx.update({"w": jnp.zeros((4, 4))}, state, params)
    ...     params = optax.apply_updates(params, updates)
    >>> masks.count(state.mask)
    4

    References:
      Zhu and Gupta, 2017, arXiv:1710.01878, equation 1.
    """
    inner = optax.with_extra_args_support(inner)
    budgets.check_sparsity(initial, "initial")
    schedule = budgets.cubic(sparsity, begin, end, initial)
    if scope not in get_args(Scope):
        raise MaskError(f"scope is one of {', '.join(get_args(Scope))}; got {scope!r}.")
    if update_every < 1:
        raise MaskError(f"update_every is a number of steps, at least 1: got {update_every!r}.")

    def init(params: PyTree) -> GradualPruningState:
        mask = params if is_placeholder(params) else masks.full(params, prunable)
        return GradualPruningState(jnp.zeros((), jnp.int32), mask, inner.init(params))

    def update(updates: PyTree, state: Any, params: PyTree = None, **extra: Any) -> tuple[PyTree, GradualPruningState]:
        grads, params = updates, require_params(params, "gradual_pruning")
        step = jnp.asarray(optax.safe_increment(state.count))
        due = (step >= begin) & ((step <= end) & ((step - begin) % update_every == 0) | (step == end))
        updates, inner_state = inner_update(inner, grads, state.inner, params, state.mask, **extra)
        moved = optax.apply_updates(params, mask_updates(updates, params, state.mask))
        target = jnp.asarray(schedule(step), jnp.float32)
        mask = run_if(due, lambda o: prune_to(o[0], o[1], o[2], scope), lambda o: o[0], (state.mask, moved, target))
        inner_state = mask_moments(inner, inner_state, params, mask)
        return mask_updates(updates, params, mask), GradualPruningState(step, mask, inner_state)

    return optax.GradientTransformationExtraArgs(init, update)
