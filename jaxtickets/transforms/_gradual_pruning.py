"""gradual_pruning: from dense to sparse while training, by magnitude (Zhu and Gupta)."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, get_args

import jax
import jax.numpy as jnp
import optax

from jaxtickets import masks
from jaxtickets.errors import MaskError
from jaxtickets.masks import KERNELS, Rules
from jaxtickets.masks import sparsity as budgets
from jaxtickets.masks.kernels import Channels
from jaxtickets.masks.pruning import Scope, prune_to
from jaxtickets.masks.scores import Score, ScoreInputs, magnitude
from jaxtickets.masks.structure import UNSTRUCTURED, Structure, structured
from jaxtickets.messages import checks
from jaxtickets.transforms._masked_update import (
    check_update,
    is_placeholder,
    masked_step,
    optimizer,
    stand_in,
)
from jaxtickets.transforms._run_if import run_if
from jaxtickets.transforms._scoring import known_score, loss_of

check = checks.Checks(MaskError, arrays=True)

PyTree = Any
GIVEN = frozenset({"mask", "grads"})


class GradualPruningState(NamedTuple):
    """State of `gradual_pruning`: steps taken (int32), the mask, the inner optimizer's state."""

    count: jax.Array
    mask: PyTree
    inner: PyTree


def prune_if(
    due: jax.Array,
    mask: PyTree,
    sparsity: jax.Array,
    scope: Scope,
    stacked: Sequence[str] | None,
    moved: Callable[[PyTree], PyTree],
    given: PyTree,
    *,
    structure: Structure = UNSTRUCTURED,
    channels: Channels = "auto",
    scores: Callable[[PyTree], PyTree] = magnitude,
    sizes: Sequence[int] | None = None,
) -> tuple[PyTree, PyTree]:
    """`prune_to` where it is due, as `masked_step` asks for it: the mask, twice.

    `scores` of the params are computed where it is due, and not else.
    """

    def prune(operand: PyTree) -> PyTree:
        mask, given, sparsity = operand
        params = moved(given)
        found = scores(params)
        return prune_to(mask, params, sparsity, scope, found, stacked, structure, channels, sizes)

    mask = run_if(due, prune, lambda operand: operand[0], (mask, given, sparsity))
    return mask, mask


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
    stacked: Sequence[str] | None = None,
    scores: str | Score = "magnitude",
    structure: Structure = UNSTRUCTURED,
    channels: Channels = "auto",
) -> optax.GradientTransformationExtraArgs:
    """The optimizer `inner` on a network that is pruned step by step along the cubic schedule.

    Steps are numbered as optax does: by how many were taken before, so that the first is 0 and the
    last of n is n - 1.

    It stands outermost: `gradual_pruning(optax.chain(...), ...)`. A chain *around* it that scales
    or adds to its updates, a lookahead or schedule-free optimizer around it, and an average of the
    params revive pruned weights (see `jaxtickets.masks.audit`).

    Args:
      inner: any optax optimizer or chain.
      sparsity: final share of zeros, in [0, 1).
      begin: the number of the step at which the schedule starts, and the first pruning is.
      end: the number of the step from which the final sparsity holds: always a pruning, whatever
        `update_every`. A step that is not reached prunes nothing, and the last of n steps is
        n - 1; 0.75 n leaves time to recover.
      update_every: steps between prunings, from `begin` on.
      initial: sparsity at `begin`.
      scope: "layerwise" or "global" (see `prune_to`).
      prunable: path rules (see `jaxtickets.masks.prunable`).
      stacked: which leaves are stacks of layers (see `jaxtickets.masks.sparsity.prunable_shapes`).
      scores: by what weights are kept, a name or a `Score` (see `jaxtickets.masks.scores`). One
        that needs the loss takes `tx.update(grads, state, params, value_fn=loss)`.
      structure: what the mask may look like (see `jaxtickets.masks.structure`).
      channels: where a kernel's input and output axes stand, for the structure.

    Returns:
      A transform; its state is a `GradualPruningState`, `state.mask` the mask.

    Raises:
      MaskError: an `inner` that is no optimizer; a sparsity outside [0, 1); steps that are no whole
        numbers or negative, `end <= begin`, `update_every` below 1; an unknown scope; scores that a
        transform cannot compute; no structure; at `init`, rules that do not fit; at `update`,
        gradients or a state that do not.

    >>> tx = gradual_pruning(optax.sgd(0.1), sparsity=0.75, begin=0, end=3, update_every=1)
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
    inner = optimizer(inner)
    budgets.check_sparsity(sparsity)
    budgets.check_sparsity(initial, "initial")
    check.integer("begin", begin, "the number of the step at which pruning starts, ", least=0)
    check.integer(
        "end", end, "the number of the step from which the final sparsity holds, ", least=1
    )
    check.integer("update_every", update_every, "a number of steps, ", least=1)
    schedule = budgets.cubic(sparsity, begin, end, initial)
    check.choice("scope", scope, get_args(Scope))
    masks.check_rules(prunable)
    score = known_score("gradual_pruning", "scores", scores, GIVEN)
    structured(structure)
    check.choice("channels", channels, get_args(Channels))
    if stacked is not None:
        check.patterns("stacked", stacked)

    def init(params: PyTree) -> GradualPruningState:
        if is_placeholder(params):
            return GradualPruningState(
                jnp.zeros((), jnp.int32), stand_in(params), inner.init(params)
            )
        mask = masks.full(params, prunable)
        if stacked:
            budgets.prunable_shapes(params, prunable, stacked)  # every pattern has a leaf
        return GradualPruningState(jnp.zeros((), jnp.int32), mask, inner.init(params))

    def update(
        updates: PyTree, state: Any, params: PyTree = None, **extra: Any
    ) -> tuple[PyTree, GradualPruningState]:
        grads, params = (
            updates,
            check_update("gradual_pruning", updates, state, params, GradualPruningState),
        )
        step = state.count
        due = (step >= begin) & (
            (step <= end) & ((step - begin) % update_every == 0) | (step == end)
        )
        target = jnp.asarray(schedule(step), jnp.float32)
        loss = loss_of("gradual_pruning", score, extra)

        def scores_of(moved: PyTree) -> PyTree:
            return score(ScoreInputs(moved, state.mask, grads, loss=loss))

        next_mask = functools.partial(
            prune_if,
            due,
            state.mask,
            target,
            scope,
            stacked,
            structure=structure,
            channels=channels,
            scores=scores_of,
        )
        stepped = masked_step(inner, grads, state.inner, params, state.mask, next_mask, **extra)
        taken = jnp.asarray(optax.safe_increment(step))
        return stepped.updates, GradualPruningState(taken, stepped.mask, stepped.moments)

    return optax.GradientTransformationExtraArgs(init, update)
