"""What is found wrong before compiling where networks become smaller: units, cuts, packs."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxtickets.engine.network_units import UnitsOf
from jaxtickets.engine.state import Network, Weights
from jaxtickets.errors import MaskError, PlanError
from jaxtickets.masks.channels import Channels
from jaxtickets.masks.children import child_units
from jaxtickets.masks.cutting import cut_shapes
from jaxtickets.masks.packable import packable
from jaxtickets.masks.units import UnitTable
from jaxtickets.plan import Fork, Pack, Plan, describe
from jaxtickets.task import Task

PyTree = Any


def check_units(plan: Plan, weights: Weights, units_of: UnitsOf) -> None:
    """Raise `MaskError` where a plan needs units that its network has not, or cannot divide them
    among its children.

    Args:
      plan: the method.
      weights: shapes of one network's.
      units_of: finds its units.
    """
    if any(structure.needs_units for structure in plan.structures):
        units_of(weights)
    if any(getattr(getattr(phase, "evolve", None), "channels", 0) for phase in plan.phases):
        Channels(units_of(weights), units_of(weights))  # there are some
    fork = plan.phases[plan.fork] if plan.fork is not None else None
    if not isinstance(fork, Fork) or fork.unit == "connection" or fork.masks == "parent":
        return
    units = units_of(weights, fork.keep_dense)
    how = {
        "members": fork.members,
        "kind": fork.masks,
        "share": fork.child_sparsity,
        "scope": fork.scope,
    }
    jax.eval_shape(
        lambda key: child_units(key, units, 0, **how), jax.eval_shape(lambda: jax.random.key(0))
    )


def check_shrinks(
    plan: Plan, task: Task, weights: Weights, units_of: UnitsOf, x_spec: PyTree
) -> None:
    """Raise `MaskError` where a plan shrinks a network that does not run with fewer units, naming
    the layer; nothing is computed.
    """
    if not any(phase.shrinks for phase in plan.phases):
        return
    units = units_of(weights)
    # One unit less in every layer at once; only where that fails, layer by layer.
    narrower = [size > 1 for size in units.sizes]
    problem = _problem(task, units, weights, narrower, x_spec)
    for group in range(len(units.sizes)) if problem else ():
        alone = [narrower[i] and i == group for i in range(len(units.sizes))]
        if problem := _problem(task, units, weights, alone, x_spec):
            layers = " and ".join(path.rpartition("/")[0] or path for path in units.groups[group])
            raise MaskError(
                f"Shrink: {task.name} does not run with fewer units of {layers}: {problem}. Its"
                " layers must take their widths from the params that they are given, as those of"
                " jaxtickets.models do; or leave Shrink out of the plan (shrink=False), and units"
                " stay masked."
            )


def check_packs(
    plan: Plan, task: Task, weights: Weights, given: Network | None, x_spec: PyTree
) -> None:
    """Raise `PlanError` where a plan packs and nothing can be packed, naming the layers; nothing is
    computed.
    """
    sparse = given is not None and any(m.ndim for m in jax.tree.leaves(given.mask))
    for index, phase in enumerate(plan.phases):
        if not isinstance(phase, Pack) or any(p.shrinks for p in plan.phases[:index]):
            continue  # nobody knows yet how wide layers are after a Shrink
        if not (sparse or plan.masked_at(index)):
            raise PlanError(
                f"phase {index + 1}, {describe(phase)}: nothing is pruned by then; put a phase"
                f" before it that prunes with structure={phase.structure}."
            )
        params, state = weights
        why = packable(task.apply, params, state, x_spec, task.prunable, phase.structure)
        if "" not in why.values():
            layers = (
                "; ".join(f"{path}: {reason}" for path, reason in why.items())
                or "It has no matrices"
            )
            raise PlanError(
                f"phase {index + 1}, {describe(phase)}: {task.name} has no layer that can be"
                f" packed. {layers}. Leave Pack out of the plan, and blocks stay masked."
            )


def _problem(
    task: Task, units: UnitTable, weights: Weights, narrower: list[bool], x_spec: PyTree
) -> str | None:
    """What goes wrong in a network that lacks the last unit of those groups; None if nothing."""
    stays = np.ones(len(units), bool)
    stays[(np.cumsum(units.sizes) - 1)[narrower]] = False

    batch = jax.tree.map(lambda s: jax.ShapeDtypeStruct((1, *s.shape), s.dtype), x_spec)
    params, state = weights
    small = (
        cut_shapes(units.params, params, stays),
        cut_shapes(units.model_state, state, stays),
    )

    def outputs(params: PyTree, state: PyTree, x: PyTree) -> PyTree:
        return task.apply(params, state, x, False, None)[0]

    try:
        wide, narrow = (jax.eval_shape(outputs, *of, batch) for of in (weights, small))
    except Exception as error:  # every framework has its own kinds for params that do not fit
        return str(error).split("\n")[0]
    shapes = [jax.tree.map(jnp.shape, outputs) for outputs in (wide, narrow)]
    return None if shapes[0] == shapes[1] else "its outputs have another shape"
