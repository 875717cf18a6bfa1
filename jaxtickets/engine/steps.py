"""What happens to one network: pure functions, written for one member. `members` makes it many."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxtickets import masks
from jaxtickets.engine.mask_rules import EvolvingStep, mask_rule
from jaxtickets.engine.optimizer import optax_optimizer
from jaxtickets.engine.state import Lineage, Network, StepHyperparams, Tally, Weights
from jaxtickets.masks import packing
from jaxtickets.masks.children import child_mask, child_units, kept_dense
from jaxtickets.masks.pruning import prune_by_scores
from jaxtickets.masks.scores import ScoreInputs
from jaxtickets.masks.sparsity import random_mask
from jaxtickets.masks.structure import Structure
from jaxtickets.masks.units import UnitTable, unit_mask
from jaxtickets.masks.whole_units import Units
from jaxtickets.plan import L1, Fork, Optimizer, Prune, Start
from jaxtickets.task import Task, mixed_log_proba
from jaxtickets.transforms import (
    ExchangedUnits,
    Regrown,
    evolve_mask,
    exchange_units,
    mask_moments,
    masked_step,
    penalised,
)

PyTree = Any
Gather = Callable[[PyTree, jax.Array], tuple[PyTree, jax.Array]]

# What a member's key is folded with for each use. Steps fold once more, so no two draws are the
# same.
WEIGHTS, MASK, ORDER, BATCH, GROWTH, ESCAPE, BAG, PRUNE, CHILD, CHILD_MASK, PENALTY = range(11)


def child_key(key: jax.Array, child: jax.Array) -> jax.Array:
    """The key of a child, from its parent's."""
    return jax.random.fold_in(jax.random.fold_in(key, CHILD), child)


# -- beginnings ----------------------------------------------------------------------------------


def start_step(task: Task, phase: Start, optimizer: Optimizer) -> Callable[..., Lineage]:
    """A fresh lineage, `(key, x) -> lineage` or `(key, x, given) -> lineage`: weights and mask from
    the member's own key, or weights (and mask) that are `given` in their place.
    """

    def step(key: jax.Array, x: PyTree, given: Network | None = None) -> Lineage:
        if given is None:
            params, model_state = task.init(jax.random.fold_in(key, WEIGHTS), x)
            given = Network(params, masks.dense(params), model_state)
        mask = given.mask
        if phase.sparsity and phase.scores == "random":
            draw, rules = jax.random.fold_in(key, MASK), task.prunable
            how = (phase.distribution, rules, phase.keep_dense)
            mask = random_mask(draw, given.params, phase.sparsity, *how, structure=phase.structure)
        elif phase.sparsity:  # it is pruned by scores as soon as it is there
            mask = masks.full(given.params, task.prunable)
        return _begin(optimizer, Network(given.params, mask, given.model_state), jnp.int32(0))

    return step


def fork_step(
    task: Task, optimizer: Optimizer, phase: Fork, units: UnitTable | None, x_spec: PyTree
) -> Callable[..., Lineage]:
    """A child of a parent, `(parent, step, parent's key, child) -> lineage`; `units` of neurons."""

    def step(parent: Network, at: jax.Array, key: jax.Array, child: jax.Array) -> Lineage:
        if phase.masks == "parent":
            return _begin(optimizer, parent, at)
        draw = jax.random.fold_in(key, CHILD_MASK)
        how: dict[str, Any] = {
            "members": phase.members,
            "kind": phase.masks,
            "share": phase.child_sparsity,
            "scope": phase.scope,
        }
        if units is not None:
            new = unit_mask(units, child_units(draw, units, child, **how))
        else:
            network = (parent.params, parent.model_state, x_spec, task.prunable)
            keep = kept_dense(phase.keep_dense, task.apply, *network)
            rules: dict[str, Any] = {"prunable": task.prunable, "keep_dense": keep}
            rules["structure"] = phase.structure
            new = child_mask(draw, parent.params, child, **rules, **how)
        mask = jax.tree.map(jnp.logical_and, new, parent.mask)  # what is lost stays lost
        return _begin(optimizer, parent._replace(mask=mask), at)

    return step


def _begin(optimizer: Optimizer, network: Network, step: jax.Array) -> Lineage:
    """A lineage that begins with those weights and that mask: fresh moments."""
    params = masks.apply(network.mask, network.params)
    moments = optax_optimizer(optimizer, 0.0).init(params)
    whole = packing.unpacked(network.mask, packing.tables_in(network.model_state))
    ever_active = jax.tree.map(jnp.copy, whole)
    return Lineage(params, network.model_state, network.mask, ever_active, moments, step)


def fresh_moments(optimizer: Optimizer) -> Callable[[Lineage], Lineage]:
    """The lineage with moments of another optimizer, at their beginning."""

    def step(lineage: Lineage) -> Lineage:
        return lineage._replace(moments=optax_optimizer(optimizer, 0.0).init(lineage.params))

    return step


def materialise_mask(task: Task) -> Callable[[Lineage], Lineage]:
    """The lineage with an array of True for every dense marker of a leaf that can lose weights."""

    def step(lineage: Lineage) -> Lineage:
        full = masks.full(lineage.params, task.prunable)

        def arrays(mask: PyTree) -> PyTree:
            return jax.tree.map(lambda m, f: m if m.ndim else m & f, mask, full)

        return lineage._replace(mask=arrays(lineage.mask), ever_active=arrays(lineage.ever_active))

    return step


# -- training ------------------------------------------------------------------------------------


def loss_function(
    task: Task, lineage: Lineage, key: jax.Array, x: PyTree, y: jax.Array
) -> Callable[[PyTree], jax.Array]:
    """The mean loss of a batch in training mode, as a function of the params alone."""

    def loss(params: PyTree) -> jax.Array:
        outputs, _ = task.apply(params, lineage.model_state, x, True, key)
        return jnp.mean(task.loss(outputs, y))

    return loss


def loss_and_grads(
    task: Task, lineage: Lineage, key: jax.Array, x: PyTree, y: jax.Array
) -> tuple[jax.Array, PyTree, PyTree, PyTree]:
    """Mean loss of a batch, its gradient by *all* weights, the outputs, and the new model state."""

    def loss(params: PyTree) -> tuple[jax.Array, tuple[PyTree, PyTree]]:
        outputs, model_state = task.apply(params, lineage.model_state, x, True, key)
        return jnp.mean(task.loss(outputs, y)), (outputs, model_state)

    (value, (outputs, model_state)), grads = jax.value_and_grad(loss, has_aux=True)(lineage.params)
    return value, grads, outputs, model_state


def train_step(
    task: Task,
    optimizer: Optimizer,
    evolve: Any,
    penalty: L1 | None,
    cycles_momentum: bool,
    gather: Gather,
    sizes: tuple[int, ...] | None = None,
) -> Callable[..., tuple[Lineage, Tally]]:
    """A training step: `(lineage, tally, key, hyper, coefficients, *batch) -> (lineage, tally)`.

    `evolve` is what `compiled_for` leaves of the phase's evolution; `coefficients` are the
    penalty's, a tree like params; nothing where there is none. `sizes` are the original counts of
    weights, leaf by leaf.
    """

    def step(
        lineage: Lineage,
        tally: Tally,
        key: jax.Array,
        hyper: StepHyperparams,
        coefficients: PyTree,
        *batch: PyTree,
    ) -> tuple[Lineage, Tally]:
        now = jax.random.fold_in(jax.random.fold_in(key, BATCH), lineage.step)
        augment_key, model_key = jax.random.split(now)
        x, y = gather(batch, augment_key)
        # The gradient, of all weights: growth looks at those that are pruned.
        loss, grads, outputs, model_state = loss_and_grads(task, lineage, model_key, x, y)
        # The update and the mask, in this order: the mask is chosen by the weights after it.
        tx = optax_optimizer(optimizer, hyper.lr, hyper.momentum if cycles_momentum else None)
        if penalty is not None:
            tx = penalised(tx, coefficients, hyper.penalty, penalty.decoupled)
        growth_key = jax.random.fold_in(key, GROWTH)
        loss_of = loss_function(task, lineage, model_key, x, y)
        given = (lineage, grads, growth_key, hyper, loss_of, lambda key: task.init(key, x), sizes)
        rule = mask_rule(evolve, EvolvingStep(*given))
        network = (lineage.moments, lineage.params, lineage.mask)
        stepped = masked_step(tx, grads, *network, rule.next_mask, rule.no_update)
        moved = Lineage(
            optax.apply_updates(lineage.params, stepped.updates),
            model_state,
            stepped.mask,
            lineage.ever_active,
            stepped.moments,
            lineage.step + 1,
        )
        if rule.renewed is not None:
            moved = rule.renewed(moved, tx)
        if rule.grows:
            ever_active = jax.tree.map(jnp.logical_or, lineage.ever_active, moved.mask)
            moved = moved._replace(ever_active=ever_active)
        return moved, count_step(task, tally, lineage.step, loss, outputs, y)

    return step


def train_steps(
    advance: Callable[[PyTree, jax.Array], PyTree], *train: Any
) -> Callable[..., tuple[Lineage, Tally, jax.Array]]:
    """Several training steps in one program, as many as there are hyperparameters.

    Returns besides the number of steps as an array of its own: what is there when the call is done,
    for the next one to wait for (the state is donated to it).
    """
    step = train_step(*train)

    def steps(
        lineage: Lineage,
        tally: Tally,
        key: jax.Array,
        hyper: StepHyperparams,
        coefficients: PyTree,
        *batch: PyTree,
    ) -> tuple[Lineage, Tally, jax.Array]:
        count = hyper.lr.shape[0]
        if count == 1:
            first = jax.tree.map(lambda n: n[0], hyper)
            lineage, tally = step(lineage, tally, key, first, coefficients, *batch)
            return lineage, tally, tally.steps + 0

        def body(carry: PyTree, at: PyTree) -> tuple[PyTree, None]:
            i, numbers = at
            return step(*carry, key, numbers, coefficients, *advance(batch, i)), None

        (lineage, tally), _ = jax.lax.scan(body, (lineage, tally), (jnp.arange(count), hyper))
        return lineage, tally, tally.steps + 0

    return steps


def count_step(
    task: Task, tally: Tally, step: jax.Array, loss: jax.Array, outputs: PyTree, y: jax.Array
) -> Tally:
    """The tally with one more step."""
    right = jnp.float32(0)
    if task.num_classes:
        predicted = jnp.argmax(mixed_log_proba(task, outputs), -1)
        right = jnp.mean(predicted == y, dtype=jnp.float32)
    bad = jnp.where((tally.bad_step < 0) & ~jnp.isfinite(loss), step + 1, tally.bad_step)
    return Tally(tally.loss + loss, tally.correct + right, tally.steps + 1, bad)


# -- between trainings ---------------------------------------------------------------------------


def escape_step(
    task: Task,
    optimizer: Optimizer,
    growth: str,
    regrown: Regrown,
    structure: Structure,
    gather: Gather,
) -> Callable[..., Lineage]:
    """EDST's escape, `(lineage, key, drop_fraction, *batch) -> lineage`: prune-grow alone."""

    def step(lineage: Lineage, key: jax.Array, drop_fraction: jax.Array, *batch: PyTree) -> Lineage:
        draw = jax.random.fold_in(jax.random.fold_in(key, ESCAPE), lineage.step)
        augment_key, model_key, growth_key = jax.random.split(draw, 3)
        x, y = gather(batch, augment_key)
        loss_of = loss_function(task, lineage, model_key, x, y)
        if isinstance(structure, Units):
            network = (lineage.mask, lineage.params, lineage.model_state)
            how = (drop_fraction, growth_key, lambda key: task.init(key, x), growth, loss_of)
            return _exchanged(optimizer, lineage, exchange_units(structure.known, *network, *how))
        _, grads, _, _ = loss_and_grads(task, lineage, model_key, x, y)
        network = (lineage.mask, lineage.params, grads)
        mask, survivors = evolve_mask(
            *network,
            drop_fraction,
            growth_key,
            growth,
            regrown,
            structure=structure,
            loss=loss_of,
        )
        ever_active = jax.tree.map(jnp.logical_or, lineage.ever_active, mask)
        moved = _under(optimizer, lineage, survivors)
        return moved._replace(mask=mask, ever_active=ever_active)

    return step


def _exchanged(optimizer: Optimizer, lineage: Lineage, new: ExchangedUnits) -> Lineage:
    """The lineage with other units."""
    tx = optax_optimizer(optimizer, 0.0)
    return lineage._replace(
        params=new.params,
        model_state=new.model_state,
        mask=new.mask,
        ever_active=jax.tree.map(jnp.logical_or, lineage.ever_active, new.mask),
        moments=mask_moments(tx, lineage.moments, lineage.params, new.survivors),
    )


def prune_step(
    task: Task,
    optimizer: Optimizer,
    phase: Prune,
    gather: Gather | None,
    sizes: tuple[int, ...] | None = None,
) -> Callable[..., Lineage]:
    """A pruning, `(lineage, key, sparsity, *batch) -> lineage`, to a sparsity of the original
    count.

    A batch where the phase's scores look at one; `gather` makes it ready. `sizes` are the original
    counts, leaf by leaf.
    """

    def step(lineage: Lineage, key: jax.Array, sparsity: jax.Array, *batch: PyTree) -> Lineage:
        draw = jax.random.fold_in(jax.random.fold_in(key, PRUNE), lineage.step)
        inputs_of = _score_inputs(task, lineage, draw, gather, batch)
        mask = prune_by_scores(
            lineage.mask,
            lineage.params,
            phase.scores,
            sparsity,
            inputs_of,
            scope=phase.scope,
            rounds=phase.rounds,
            keep_dense=phase.keep_dense,
            structure=phase.structure,
            sizes=sizes,
        )
        return _under(optimizer, lineage, mask)._replace(mask=mask)

    return step


def _score_inputs(
    task: Task, lineage: Lineage, key: jax.Array, gather: Gather | None, batch: PyTree
) -> Callable[[PyTree, PyTree], ScoreInputs]:
    """What a score looks at in a round of pruning, `(params, mask) -> ScoreInputs`."""
    if gather is None:
        return lambda params, mask: ScoreInputs(params, mask, key=key)
    augment_key, model_key, score_key = jax.random.split(key, 3)
    x, y = gather(batch, augment_key)
    loss = loss_function(task, lineage, model_key, x, y)

    def predict(params: PyTree, x: PyTree) -> PyTree:
        return task.apply(params, lineage.model_state, x, False, None)[0]

    def inputs_of(params: PyTree, mask: PyTree) -> ScoreInputs:
        grads = jax.grad(loss)(params)  # XLA drops it where the score does not look
        return ScoreInputs(params, mask, grads, score_key, loss, predict, x)

    return inputs_of


def rewind_step(optimizer: Optimizer, keep: tuple[str, ...]) -> Callable[..., Lineage]:
    """A rewinding, `(lineage, remembered) -> lineage`: those weights under the present mask."""

    def step(lineage: Lineage, remembered: Weights) -> Lineage:
        tree = jax.tree.structure(lineage.params)
        stays = jax.tree.unflatten(tree, _matches(keep, lineage.params))
        now, then = lineage.params, remembered.params
        params = jax.tree.map(lambda stay, a, b: a if stay else b, stays, now, then)
        params = masks.apply(lineage.mask, params)
        moments = optax_optimizer(optimizer, 0.0).init(params)
        model_state = remembered.model_state
        return lineage._replace(params=params, model_state=model_state, moments=moments)

    return step


def _under(optimizer: Optimizer, lineage: Lineage, survivors: PyTree) -> Lineage:
    """The lineage with weights and moments 0 outside the survivors."""
    params = masks.apply(survivors, lineage.params)
    tx = optax_optimizer(optimizer, 0.0)
    moments = mask_moments(tx, lineage.moments, lineage.params, survivors)
    return lineage._replace(params=params, moments=moments)


def _matches(patterns: tuple[str, ...], params: PyTree) -> list[bool]:
    """For every leaf: does a pattern match its path?"""
    paths = masks.leaf_paths(params)
    return [any(re.search(pattern, path) for pattern in patterns) for path in paths]


def random_coefficients(task: Task, share: float) -> Callable[..., PyTree]:
    """A member's random L1 coefficients, `(key, params) -> bool tree`: one draw for all phases of
    its plan; 0 on leaves that no mask covers.
    """

    def step(key: jax.Array, params: PyTree) -> PyTree:
        draw = jax.random.fold_in(key, PENALTY)
        drawn = random_mask(draw, params, 1 - share, "uniform", task.prunable)
        return jax.tree.map(lambda m: m if m.ndim else jnp.zeros((), bool), drawn)

    return step
