"""Shapes of what a group carries at a place in a run, for going on from a checkpoint."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from jaxtickets import members
from jaxtickets.engine import steps
from jaxtickets.engine.best_network import initial_best
from jaxtickets.engine.optimizer import optax_optimizer
from jaxtickets.engine.phase_steps import start_arguments, wanted_from
from jaxtickets.engine.run import Group, Position, Run, optimizer_from
from jaxtickets.engine.state import (
    GroupState,
    Lineage,
    Parents,
    Shapes,
    Weights,
    empty_tally,
    no_report,
    whole_shapes,
)
from jaxtickets.masks import packing
from jaxtickets.plan import Optimizer

PyTree = Any


def abstract_state(run: Run, group: Group, position: Position) -> GroupState:
    """Shapes, dtypes and shardings of the state there; nothing is computed."""
    index, width, shapes = position.phase, len(group), position.shapes
    lineage = _abstract_lineage(run, group, index, shapes)
    best = None
    if run.plan.collects_best(index):
        best = jax.eval_shape(initial_best, lineage)
    before = {p.remembers for p in run.plan.phases[:index] if p.remembers is not None}
    names = before & wanted_from(run.plan, index)
    remembered = {name: _abstract_weights(run, group, name, shapes) for name in sorted(names)}
    tally, report = jax.eval_shape(lambda: (empty_tally(width), jnp.asarray(no_report(width))))
    state = with_sharding(group, GroupState(lineage, tally, report, best, remembered))
    if not group.more_children:
        return state
    trunk = next(one for one in run.groups if one.number == group.number)
    parents = _abstract_parents(run, trunk, group.phases.start, position.parent_shapes)
    return state._replace(parents=parents)


def _abstract_lineage(run: Run, group: Group, index: int, shapes: Shapes) -> Lineage:
    static, args, mapped = start_arguments(run, group, optimizer_from(run.plan, index))
    step = members.over_members(steps.start_step(*static), mapped, group.layout.across)
    lineage = jax.eval_shape(step, *args)
    if run.plan.masked_at(index):
        lineage = jax.eval_shape(jax.vmap(steps.materialise_mask(run.task)), lineage)
    return _resized(run, lineage, shapes, optimizer_from(run.plan, index)) if shapes else lineage


def _resized(run: Run, lineage: Lineage, shapes: Shapes, optimizer: Optimizer) -> Lineage:
    """The lineage, where one network's weights have those shapes: some may have been cut out, and
    layers may be packed.
    """
    one = Weights(*packing.in_shapes(*run.begins, shapes))
    weights, whole = (_of_members(of, lineage.step.shape[0]) for of in (one, whole_shapes(one)))

    def like(params: PyTree, mask: PyTree) -> PyTree:
        return jax.tree.map(
            lambda m, p: jax.ShapeDtypeStruct(p.shape if m.ndim > 1 else m.shape, m.dtype),
            mask,
            params,
        )

    moments = jax.eval_shape(jax.vmap(optax_optimizer(optimizer, 0.0).init), weights.params)
    return lineage._replace(
        params=weights.params,
        model_state=weights.model_state,
        mask=like(weights.params, lineage.mask),
        ever_active=like(whole.params, lineage.ever_active),
        moments=moments,
    )


def _of_members(tree: PyTree, width: int) -> PyTree:
    """Shapes with a leading member axis."""
    return jax.tree.map(lambda a: jax.ShapeDtypeStruct((width, *a.shape), a.dtype), tree)


def _abstract_weights(run: Run, group: Group, name: str, shapes: Shapes) -> Weights:
    index = next(i for i, phase in enumerate(run.plan.phases) if phase.remembers == name)
    return _abstract_lineage(run, group, index, shapes).weights


def _abstract_parents(run: Run, trunk: Group, fork: int, shapes: Shapes) -> Parents:
    """The parents lie as their own group did."""
    lineage = _abstract_lineage(run, trunk, fork - 1, shapes)
    before = {p.remembers for p in run.plan.phases[:fork] if p.remembers is not None}
    names = sorted(before & wanted_from(run.plan, fork))
    remembered = {name: _abstract_weights(run, trunk, name, shapes) for name in names}
    return with_sharding(trunk, Parents(lineage.network, lineage.step, remembered))


def with_sharding(group: Group, shapes: PyTree) -> PyTree:
    """Those shapes where the group's members lie."""
    target = members.sharding(group.layout, "member")
    target = target or jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=target), shapes)
