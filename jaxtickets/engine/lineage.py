"""One lineage: the state that a plan carries from phase to phase, and the pure functions that move it.

Everything here is written for one member. `jaxtickets.members` makes it many.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxtickets import masks
from jaxtickets.children import child_mask, child_units
from jaxtickets.engine.optimizer import build_optimizer
from jaxtickets.optimizers import Optimizer
from jaxtickets.penalties import L1
from jaxtickets.phases import Escape, Evolve, Fork, Gradual, Prune, Rewind, Start
from jaxtickets.sparsity import random_bits, random_mask
from jaxtickets.task import Task, mixed_log_proba
from jaxtickets.transforms import (
    GradualPruningState,
    KeepMaskedState,
    L1MaskingState,
    PruneGrowState,
    evolve_mask,
    gradual_pruning,
    keep_masked,
    l1_masking,
    prune_grow,
    prune_to,
)
from jaxtickets.transforms._masked_update import mask_moments
from jaxtickets.units import Units, unit_mask

PyTree = Any

# What a member's key is folded with for each use. Steps fold once more, so no two draws are ever the same.
WEIGHTS, MASK, ORDER, BATCH, GROWTH, ESCAPE, BAG, PRUNE, CHILD, CHILD_MASK, PENALTY = range(11)


class Lineage(NamedTuple):
    """State of one lineage.

    Args:
      params: weights, exactly 0 where pruned.
      model_state: batch statistics and the like.
      mask: the mask, a tree like params.
      ever_active: weights that were ever active, a tree like the mask.
      moments: the optimizer's state.
      step: training steps taken since Start, int32.
    """

    params: PyTree
    model_state: PyTree
    mask: PyTree
    ever_active: PyTree
    moments: PyTree
    step: jax.Array


class Tally(NamedTuple):
    """Sums over steps since the last report; `bad_step` is the first step with a loss that was not finite, or -1."""

    loss: jax.Array
    correct: jax.Array
    steps: jax.Array
    bad_step: jax.Array


class Numbers(NamedTuple):
    """What changes from step to step without a new program, float32."""

    lr: jax.Array
    drop_fraction: jax.Array
    momentum: jax.Array
    penalty: jax.Array


class Network(NamedTuple):
    """What of a lineage predicts."""

    params: PyTree
    mask: PyTree
    model_state: PyTree


class Remembered(NamedTuple):
    """What a Rewind goes back to. The mask is the present one."""

    params: PyTree
    model_state: PyTree


def empty_tally(members: int) -> Tally:
    """Nothing yet, [W]."""
    zeros = jnp.zeros(members, jnp.float32)
    return Tally(zeros, zeros + 0, jnp.zeros(members, jnp.int32), jnp.full(members, -1, jnp.int32))


def start(task: Task, phase: Start, optimizer: Optimizer, key: jax.Array, x: PyTree, given: Network | None = None) -> Lineage:
    """A fresh lineage: weights and mask from the member's own key; weights (and mask) that are `given` in their place."""
    if given is None:
        params, model_state = task.init(jax.random.fold_in(key, WEIGHTS), x)
        given = Network(params, masks.dense(params), model_state)
    mask = given.mask
    if phase.sparsity:
        draw = jax.random.fold_in(key, MASK)
        mask = random_mask(draw, given.params, phase.sparsity, phase.distribution, task.prunable, phase.keep_dense)
    return _lineage(optimizer, given.params, mask, given.model_state, jnp.zeros((), jnp.int32))


def _lineage(optimizer: Optimizer, params: PyTree, mask: PyTree, model_state: PyTree, step: jax.Array) -> Lineage:
    """A lineage that begins with those weights and that mask: fresh moments."""
    params = masks.apply(mask, params)
    moments = build_optimizer(optimizer, 0.0).init(params)
    return Lineage(params, model_state, mask, jax.tree.map(jnp.copy, mask), moments, step)


def open_mask(task: Task, lineage: Lineage) -> Lineage:
    """The lineage with a mask that can lose weights where it was marked dense."""
    full = masks.full(lineage.params, task.prunable)

    def opened(mask: PyTree) -> PyTree:
        return jax.tree.map(lambda m, f: m if m.ndim else m & f, mask, full)

    return lineage._replace(mask=opened(lineage.mask), ever_active=opened(lineage.ever_active))


def prune_step(task: Task, optimizer: Optimizer, phase: Prune) -> Callable[..., Lineage]:
    """Pruning of one member, `(lineage, key, sparsity) -> lineage`, to a sparsity of the original count."""

    def step(lineage: Lineage, key: jax.Array, sparsity: jax.Array) -> Lineage:
        leaves, tree = jax.tree.flatten(lineage.mask)
        kept = [any(re.search(p, path) for p in phase.keep_dense) for path in masks.leaf_paths(lineage.params)]
        candidates = jax.tree.unflatten(tree, [jnp.ones((), bool) if keep else m for m, keep in zip(leaves, kept, strict=True)])
        ranking = None
        if phase.scores == "random":
            draws = random_bits(jax.random.fold_in(jax.random.fold_in(key, PRUNE), lineage.step), leaves)
            ranking = jax.tree.unflatten(tree, draws)
        pruned = jax.tree.leaves(prune_to(candidates, lineage.params, sparsity, phase.scope, ranking))
        mask = jax.tree.unflatten(tree, [m if keep else p for m, p, keep in zip(leaves, pruned, kept, strict=True)])
        params = masks.apply(mask, lineage.params)
        moments = mask_moments(build_optimizer(optimizer, 0.0), lineage.moments, lineage.params, mask)
        return lineage._replace(params=params, mask=mask, moments=moments)

    return step


def rewind_step(optimizer: Optimizer, phase: Rewind) -> Callable[..., Lineage]:
    """Rewinding of one member, `(lineage, remembered) -> lineage`: the remembered weights under the present mask."""

    def step(lineage: Lineage, remembered: Remembered) -> Lineage:
        paths = jax.tree.unflatten(jax.tree.structure(lineage.params), masks.leaf_paths(lineage.params))
        stays = jax.tree.map(lambda path: any(re.search(pattern, path) for pattern in phase.keep), paths)
        params = jax.tree.map(lambda stay, now, then: now if stay else then, stays, lineage.params, remembered.params)
        params = masks.apply(lineage.mask, params)
        moments = build_optimizer(optimizer, 0.0).init(params)
        return lineage._replace(params=params, model_state=remembered.model_state, moments=moments)

    return step


def fork_step(task: Task, optimizer: Optimizer, phase: Fork, units: Units | None) -> Callable[..., Lineage]:
    """One child of one parent, `(parent, step, parent's key, child) -> lineage`; `units` where neurons are pruned."""

    def step(parent: Network, at: jax.Array, key: jax.Array, child: jax.Array) -> Lineage:
        mask = parent.mask
        if phase.masks != "parent":
            draw = jax.random.fold_in(key, CHILD_MASK)
            how: dict[str, Any] = {"members": phase.members, "kind": phase.masks, "share": phase.child_sparsity, "scope": phase.scope}
            if units is not None:
                new = unit_mask(units, child_units(draw, units, child, **how))
            else:
                new = child_mask(draw, parent.params, child, prunable=task.prunable, keep_dense=phase.keep_dense, **how)
            mask = jax.tree.map(jnp.logical_and, new, parent.mask)  # what the parent has lost stays lost
        return _lineage(optimizer, parent.params, mask, parent.model_state, at)

    return step


def child_key(key: jax.Array, child: jax.Array) -> jax.Array:
    """The key of a child, from its parent's."""
    return jax.random.fold_in(jax.random.fold_in(key, CHILD), child)


def random_coefficients(task: Task, penalty: L1, key: jax.Array, params: PyTree) -> PyTree:
    """A member's random coefficients, bool: one draw for all phases of its plan; 0 on leaves that no mask covers."""
    drawn = random_mask(jax.random.fold_in(key, PENALTY), params, 1 - penalty.share, "uniform", task.prunable)
    return jax.tree.map(lambda m: m if m.ndim else jnp.zeros((), bool), drawn)


class Pruning(NamedTuple):
    """A gradual pruning in steps of the lineage, counted from 1; `initial` is the sparsity before it."""

    how: Gradual
    begin: int
    end: int
    initial: float


Gather = Callable[[PyTree, jax.Array], tuple[PyTree, jax.Array]]


def loss_and_grads(
    task: Task, lineage: Lineage, key: jax.Array, x: PyTree, y: jax.Array
) -> tuple[tuple[jax.Array, tuple[PyTree, PyTree]], PyTree]:
    """Mean loss of a batch, the outputs and new model state, and the gradient with respect to *all* weights."""

    def loss(params: PyTree) -> tuple[jax.Array, tuple[PyTree, PyTree]]:
        outputs, model_state = task.apply(params, lineage.model_state, x, True, key)
        return jnp.mean(task.loss(outputs, y)), (outputs, model_state)

    return jax.value_and_grad(loss, has_aux=True)(lineage.params)


def train_step(
    task: Task, optimizer: Optimizer, evolve: Evolve | Pruning | None, penalty: L1 | None, cycles_momentum: bool, gather: Gather
) -> Callable[..., tuple[Lineage, Tally]]:
    """The training step of one member: `(lineage, tally, key, numbers, coefficients, *batch) -> (lineage, tally)`.

    `coefficients` are the penalty's, a tree like params; nothing where there is none. The transforms are the public ones. Their
    states are views of the lineage, which is where the mask lives.
    """

    def step(
        lineage: Lineage, tally: Tally, key: jax.Array, numbers: Numbers, coefficients: PyTree, *batch: PyTree
    ) -> tuple[Lineage, Tally]:
        augment_key, model_key = jax.random.split(jax.random.fold_in(jax.random.fold_in(key, BATCH), lineage.step))
        x, y = gather(batch, augment_key)
        (loss, (outputs, model_state)), grads = loss_and_grads(task, lineage, model_key, x, y)
        inner, moments = build_optimizer(optimizer, numbers.lr, numbers.momentum if cycles_momentum else None), lineage.moments
        if penalty is not None:
            inner = l1_masking(inner, coefficients, numbers.penalty, decoupled=penalty.decoupled)
            moments = L1MaskingState(lineage.step, coefficients, moments)
        if isinstance(evolve, Pruning):
            how = evolve.how
            tx = gradual_pruning(
                inner,
                sparsity=how.sparsity,
                initial=evolve.initial,
                begin=evolve.begin,
                end=evolve.end,
                update_every=how.update_every,
                scope=how.scope,
                prunable=task.prunable,
            )
            view = GradualPruningState(lineage.step, lineage.mask, moments)
        elif evolve is None:
            tx, view = keep_masked(inner, lineage.mask), KeepMaskedState(lineage.mask, moments)
        else:
            growth_key = jax.random.fold_in(key, GROWTH)
            tx = prune_grow(
                inner,
                key=growth_key,
                mask=lineage.mask,
                drop_fraction=numbers.drop_fraction,
                update_every=evolve.update_every,
                growth=evolve.growth,
                regrown=evolve.regrown,
                weight_update=evolve.weight_update,
                track_ever_active=True,
            )
            view = PruneGrowState(lineage.step, growth_key, lineage.mask, lineage.ever_active, moments)
        updates, state = tx.update(grads, view, lineage.params)
        assert isinstance(state, type(view))
        ever_active = state.ever_active if isinstance(state, PruneGrowState) else lineage.ever_active
        params = optax.apply_updates(lineage.params, updates)
        moments = state.inner.inner if penalty is not None else state.inner
        moved = Lineage(params, model_state, state.mask, ever_active, moments, lineage.step + 1)
        return moved, count_step(task, tally, lineage.step, loss, outputs, y)

    return step


def count_step(task: Task, tally: Tally, step: jax.Array, loss: jax.Array, outputs: PyTree, y: jax.Array) -> Tally:
    """The tally with one more step."""
    right = jnp.mean(jnp.argmax(mixed_log_proba(task, outputs), -1) == y, dtype=jnp.float32) if task.num_classes else jnp.float32(0)
    bad = jnp.where((tally.bad_step < 0) & ~jnp.isfinite(loss), step + 1, tally.bad_step)
    return Tally(tally.loss + loss, tally.correct + right, tally.steps + 1, bad)


def escape_step(task: Task, optimizer: Optimizer, phase: Escape, gather: Gather) -> Callable[..., Lineage]:
    """EDST's escape of one member, `(lineage, key, drop_fraction, *batch) -> lineage`: one prune-grow, no weight update."""

    def step(lineage: Lineage, key: jax.Array, drop_fraction: jax.Array, *batch: PyTree) -> Lineage:
        draw = jax.random.fold_in(jax.random.fold_in(key, ESCAPE), lineage.step)
        augment_key, model_key, growth_key = jax.random.split(draw, 3)
        x, y = gather(batch, augment_key)
        _, grads = loss_and_grads(task, lineage, model_key, x, y)
        mask, survivors = evolve_mask(lineage.mask, lineage.params, grads, drop_fraction, growth_key, phase.growth, phase.regrown)
        params = masks.apply(survivors, lineage.params)
        moments = mask_moments(build_optimizer(optimizer, 0.0), lineage.moments, lineage.params, survivors)
        ever_active = jax.tree.map(jnp.logical_or, lineage.ever_active, mask)
        return lineage._replace(params=params, mask=mask, moments=moments, ever_active=ever_active)

    return step
