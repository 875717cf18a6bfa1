"""One lineage: the state that a plan carries from phase to phase, and the pure functions that move it.

Everything here is written for one member. `jaxtickets.members` makes it many.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxtickets import masks
from jaxtickets.plan import SGD, Escape, Evolve, Optimizer, Start
from jaxtickets.sparsity import random_mask
from jaxtickets.task import Task
from jaxtickets.transforms import KeepMaskedState, PruneGrowState, evolve_mask, keep_masked, prune_grow
from jaxtickets.transforms._masked_update import mask_moments

PyTree = Any

# What a member's key is folded with for each use. Steps fold once more, so no two draws are ever the same.
WEIGHTS, MASK, ORDER, BATCH, GROWTH, ESCAPE = range(6)


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


def empty_tally(members: int) -> Tally:
    """Nothing yet, [W]."""
    zeros = jnp.zeros(members, jnp.float32)
    return Tally(zeros, zeros + 0, jnp.zeros(members, jnp.int32), jnp.full(members, -1, jnp.int32))


def build_optimizer(spec: Optimizer, lr: jax.Array | float) -> optax.GradientTransformation:
    """The optax optimizer that a plan names."""
    if isinstance(spec, SGD):
        decay = [optax.add_decayed_weights(spec.weight_decay)] if spec.weight_decay else []
        return optax.chain(*decay, optax.sgd(lr, momentum=spec.momentum or None, nesterov=spec.nesterov))
    clip = [optax.clip_by_global_norm(spec.clip_norm)] if spec.clip_norm is not None else []
    return optax.chain(*clip, optax.adamw(lr, spec.b1, spec.b2, spec.eps, weight_decay=spec.weight_decay))


def start(task: Task, phase: Start, optimizer: Optimizer, key: jax.Array, x: PyTree) -> Lineage:
    """A fresh lineage: weights and mask from the member's own key."""
    params, model_state = task.init(jax.random.fold_in(key, WEIGHTS), x)
    if phase.sparsity:
        mask = random_mask(jax.random.fold_in(key, MASK), params, phase.sparsity, phase.distribution, task.prunable, phase.keep_dense)
    else:
        mask = masks.dense(params)
    params = masks.apply(mask, params)
    moments = build_optimizer(optimizer, 0.0).init(params)
    return Lineage(params, model_state, mask, jax.tree.map(jnp.copy, mask), moments, jnp.zeros((), jnp.int32))


Gather = Callable[[PyTree, jax.Array], tuple[PyTree, jax.Array]]


def loss_and_grads(
    task: Task, lineage: Lineage, key: jax.Array, x: PyTree, y: jax.Array
) -> tuple[tuple[jax.Array, tuple[PyTree, PyTree]], PyTree]:
    """Mean loss of a batch, the outputs and new model state, and the gradient with respect to *all* weights."""

    def loss(params: PyTree) -> tuple[jax.Array, tuple[PyTree, PyTree]]:
        outputs, model_state = task.apply(params, lineage.model_state, x, True, key)
        return jnp.mean(task.loss(outputs, y)), (outputs, model_state)

    return jax.value_and_grad(loss, has_aux=True)(lineage.params)


def train_step(task: Task, optimizer: Optimizer, evolve: Evolve | None, gather: Gather) -> Callable[..., tuple[Lineage, Tally]]:
    """The training step of one member: `(lineage, tally, key, numbers, *batch) -> (lineage, tally)`.

    The transforms are the public ones. Their states are views of the lineage, which is where the mask lives.
    """

    def step(lineage: Lineage, tally: Tally, key: jax.Array, numbers: Numbers, *batch: PyTree) -> tuple[Lineage, Tally]:
        augment_key, model_key = jax.random.split(jax.random.fold_in(jax.random.fold_in(key, BATCH), lineage.step))
        x, y = gather(batch, augment_key)
        (loss, (outputs, model_state)), grads = loss_and_grads(task, lineage, model_key, x, y)
        inner = build_optimizer(optimizer, numbers.lr)
        if evolve is None:
            tx = keep_masked(inner, lineage.mask)
            updates, state = tx.update(grads, KeepMaskedState(lineage.mask, lineage.moments), lineage.params)
            assert isinstance(state, KeepMaskedState)
            ever_active = lineage.ever_active
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
            view = PruneGrowState(lineage.step, growth_key, lineage.mask, lineage.ever_active, lineage.moments)
            updates, state = tx.update(grads, view, lineage.params)
            assert isinstance(state, PruneGrowState)
            ever_active = state.ever_active
        params = optax.apply_updates(lineage.params, updates)
        moved = Lineage(params, model_state, state.mask, ever_active, state.inner, lineage.step + 1)
        return moved, count_step(task, tally, lineage.step, loss, outputs, y)

    return step


def count_step(task: Task, tally: Tally, step: jax.Array, loss: jax.Array, outputs: PyTree, y: jax.Array) -> Tally:
    """The tally with one more step."""
    right = jnp.mean(jnp.argmax(task.log_proba(outputs), -1) == y, dtype=jnp.float32) if task.num_classes else jnp.float32(0)
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
