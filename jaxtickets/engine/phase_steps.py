"""What the phases without training do: start, fork, prune, escape, remember, rewind, collect.

    @run_phase.register
    def _(phase: MyPhase, run, group, index, state, done=0):
        yield state._replace(lineage=...), Message("what was done")

makes a phase of a user's own work; it is a generator of states and of what to write down.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxtickets import masks, members
from jaxtickets.engine import steps
from jaxtickets.engine.epochs import data_at
from jaxtickets.engine.events import Collected, Event, Message
from jaxtickets.engine.finite import is_finite
from jaxtickets.engine.run import Group, Run, optimizer_from, optimizer_of_moments
from jaxtickets.engine.state import (
    GroupState,
    Lineage,
    Parents,
    Weights,
    empty_tally,
    no_report,
    of_one,
    whole_shapes,
)
from jaxtickets.errors import NonFiniteLoss
from jaxtickets.masks import packing, scores
from jaxtickets.masks.units import UnitTable
from jaxtickets.plan import (
    Collect,
    Escape,
    Fork,
    Phase,
    Plan,
    Prune,
    Remember,
    Rewind,
    Start,
    describe,
)
from jaxtickets.tickets.ticket import Ticket

PyTree = Any
Steps = Iterator[tuple[GroupState, Event | None]]


@functools.singledispatch
def run_phase(phase: Phase, run: Run, group: Group, index: int, state: Any, done: int = 0) -> Steps:
    """A phase of a group: the states it goes through, and with each what there is to write down.

    Args:
      phase: phase `index` of the plan; what is registered for its class is run.
      run: the context, which nobody changes.
      group: the networks.
      index: of the phase, from 0.
      state: what the phases before leave; of a Fork the `Parents`; None at a Start.
      done: of a training, the steps that are done already.
    """
    kind = type(phase).__name__
    raise NotImplementedError(f"{kind}: register what it does with jaxtickets.engine.run_phase.")


@run_phase.register
def _(phase: Start, run: Run, group: Group, index: int, state: None, done: int = 0) -> Steps:
    """Fresh lineages."""
    static, args, mapped = start_arguments(run, group, optimizer_from(run.plan, 0))
    program = run.programs.over_members(
        steps.start_step, static, args, mapped, group.layout, runs_once=True
    )
    begun = beginning(group, program(*args))
    if phase.sparsity and phase.scores != "random":
        pruning = Prune(
            phase.sparsity,
            phase.scores,
            keep_dense=phase.keep_dense,
            structure=phase.structure,
        )
        yield from run_phase(pruning, run, group, index, begun)
        return
    yield begun, None


def start_arguments(run: Run, group: Group, optimizer: Any) -> tuple[Any, Any, tuple[bool, ...]]:
    """What the start is made from, its arguments, and which of them have a member axis."""
    given = () if run.given is None else (run.given,)
    static = (run.task, run.bound(run.plan.start, run.begins), optimizer)
    return static, (group.keys, run.example, *given), (True, False, False)[: 2 + len(given)]


def beginning(group: Group, lineage: Lineage) -> GroupState:
    """The state of a group whose networks are these, before anything is told of them."""
    tally, report = empty_tally(len(group)), no_report(len(group))
    return GroupState(*(group.place(part) for part in (lineage, tally, report)))


@run_phase.register
def _(phase: Fork, run: Run, group: Group, index: int, state: Parents, done: int = 0) -> Steps:
    """The group's children, of the lineages of their group."""
    rows = np.asarray([network.lineage for network in group.networks]) - group.first_lineage
    own = group.place(jax.tree.map(lambda a: a[rows], state))
    numbers = group.place(np.asarray([network.child for network in group.networks], np.int32))
    args = (own.network, own.step, group.lineage_keys, numbers)
    network, units = of_one(own.network), None
    if phase.unit == "neuron" and phase.may_prune:
        units = run.units_of(Weights(network.params, network.model_state), phase.keep_dense)
    program = run.programs.over_members(
        _fork_step, (run, phase, index, units), args, (True,) * 4, group.layout, runs_once=True
    )
    children = beginning(group, program(*args))._replace(remembered=own.remembered)
    yield children._replace(parents=state if group.more_children else None), None


def _fork_step(run: Run, phase: Fork, index: int, units: UnitTable | None) -> Any:
    optimizer = optimizer_from(run.plan, index)
    return steps.fork_step(run.task, optimizer, phase, units, run.x_spec)


@run_phase.register
def _(phase: Escape, run: Run, group: Group, index: int, state: GroupState, done: int = 0) -> Steps:
    """One prune-grow with a large drop fraction, on the batch that would come next."""
    feed, epoch_and_batch = data_at(run, group, index)
    batch = feed.batch(*epoch_and_batch(0))
    owner = optimizer_of_moments(run.plan, group, index)
    bound = run.bound(phase, of_one(state.lineage.weights))
    how = (phase.growth, phase.regrown, bound.structure)
    static = (run.task, owner, *how, feed.gather())
    lineage = state.lineage
    if phase.structure.needs_units:
        lineage = mask_arrays(run, group, lineage)
    args = (lineage, group.keys, np.float32(phase.drop_fraction), *batch)
    mapped = (True, True, False, *feed.mapped)
    lineage = _moved(run, group, steps.escape_step, static, args, mapped)
    of = "units" if phase.structure.needs_units else "weights"
    what = f"{describe(phase)}: {phase.drop_fraction:.0%} of the active {of} replaced"
    yield state._replace(lineage=lineage), Message(what)


@run_phase.register
def _(phase: Prune, run: Run, group: Group, index: int, state: GroupState, done: int = 0) -> Steps:
    """To a sparsity of the original count."""
    lineage = mask_arrays(run, group, state.lineage)
    owner = optimizer_of_moments(run.plan, group, index)
    args, mapped, gather = (
        (lineage, group.keys, np.float32(phase.sparsity)),
        (True, True, False),
        None,
    )
    if scores.get(phase.scores).needs_batch:
        feed, epoch_and_batch = data_at(run, group, index)
        gather, mapped = feed.gather(), (*mapped, *feed.mapped)
        args = (*args, *feed.batch(*epoch_and_batch(0)))
    # Prunings to other sparsities share the program: that one enters as a number.
    bound = run.bound(dataclasses.replace(phase, sparsity=0.5), of_one(lineage.weights))
    static = (run.task, owner, bound, gather, run.sizes)
    lineage = _moved(run, group, steps.prune_step, static, args, mapped)
    host = members.fetch(lineage.mask)
    each = (masks.density(members.member(host, i), run.sizes) for i in range(len(group)))
    densities = ", ".join(f"{density:.3f}" for density in each)
    yield state._replace(lineage=lineage), Message(f"{describe(phase)}: density {densities}")


@run_phase.register
def _(
    phase: Remember, run: Run, group: Group, index: int, state: GroupState, done: int = 0
) -> Steps:
    """A copy of the weights as they are, if a later phase asks for it."""
    if phase.name in wanted_from(run.plan, index + 1):
        copy = jax.tree.map(jnp.copy, state.lineage.weights)
        state = state._replace(remembered=state.remembered | {phase.name: copy})
    yield state, None


@run_phase.register
def _(phase: Rewind, run: Run, group: Group, index: int, state: GroupState, done: int = 0) -> Steps:
    """Back to remembered weights, under the present mask."""
    owner = optimizer_of_moments(run.plan, group, index)
    args = (state.lineage, state.remembered[phase.name])
    lineage = _moved(run, group, steps.rewind_step, (owner, phase.keep), args, (True, True))
    wanted = wanted_from(run.plan, index + 1)
    left = {name: weights for name, weights in state.remembered.items() if name in wanted}
    yield state._replace(lineage=lineage, remembered=left), Message(describe(phase))


@run_phase.register
def _(
    phase: Collect, run: Run, group: Group, index: int, state: GroupState, done: int = 0
) -> Steps:
    """Every network as a ticket."""
    best = state.best if phase.wants_best else None
    network, step, accuracy = state.lineage.network, state.lineage.step, None
    if best is not None:
        network, step, accuracy = best.network, best.step, best.accuracy
    wanted = (network, step, accuracy, state.lineage.ever_active, state.report)
    network, step, accuracy, ever_active, report = members.fetch(wanted)
    smaller = _made_smaller(run, of_one(state.lineage.weights))
    tickets = []
    for i, who in enumerate(group.networks):
        one = members.member(network, i)
        if not is_finite(one.params):
            raise NonFiniteLoss(
                f"the weights of member {who} became NaN or infinite by step "
                f"{run.steps_before(index)}, before phase {index + 1}, {describe(phase)}. A lower "
                "learning rate or a warm-up is the usual cure."
            )
        info = {
            "lineage": who.lineage,
            **({} if who.child is None else {"child": who.child}),
            "collected": sum(p.tickets for p in run.plan.phases[:index]),
            "phase": index,
            "step": int(step[i]),
            "density": masks.density(one.mask, run.sizes),
            "ever_active": masks.density(members.member(ever_active, i)),
            "train_loss": float(report[i, 0]),
            "train_accuracy": float(report[i, 1]),
            **smaller,
            **({} if accuracy is None else {"validation_accuracy": float(accuracy[i])}),
        }
        tickets.append(Ticket(one.params, one.mask, one.model_state, info))
    yield state._replace(best=None), Collected(tickets)


def _made_smaller(run: Run, weights: Weights) -> dict[str, list[int]]:
    """What a ticket says of units that were cut out, and of layers that are packed: before and
    after.
    """
    whole, info = whole_shapes(weights), {}
    shapes = [[leaf.shape for leaf in jax.tree.leaves(of)] for of in (run.begins, whole)]
    if shapes[0] != shapes[1]:
        info["shrunk"] = [run.units_of.left(of, run.begins) for of in (run.begins, whole)]
    return info | packing.counts(whole.params, weights.params)


def parents_of(state: GroupState) -> Parents:
    """What children need of their parents."""
    return Parents(state.lineage.network, state.lineage.step, state.remembered)


def wanted_from(plan: Plan, index: int) -> set[str]:
    """The names that phase `index` or a later one goes back to."""
    return {name for phase in plan.phases[index:] if (name := phase.rewinds_to) is not None}


def mask_arrays(run: Run, group: Group, lineage: Lineage) -> Lineage:
    """The lineages with masks that can lose weights, if they were marked dense."""
    return group.place(jax.jit(jax.vmap(steps.materialise_mask(run.task)))(lineage))


def _moved(
    run: Run, group: Group, build: Any, static: Any, args: Any, mapped: tuple[bool, ...]
) -> Lineage:
    """The lineages after a step, lying as programs expect them and checkpoints give them back.

    The first argument is the lineages before it, whose memory it takes over.
    """
    program = run.programs.over_members(build, static, args, mapped, group.layout, donate=(0,))
    return group.place(program(*args))
