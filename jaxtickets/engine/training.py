"""What a training phase does: the one loop over steps, and its reports."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxtickets.engine.best_network import better, initial_best, validation_accuracy
from jaxtickets.engine.coefficients import l1_coefficients
from jaxtickets.engine.epochs import data_at
from jaxtickets.engine.events import Began, Report, Stepped
from jaxtickets.engine.feed import DeviceFeed, HostFeed
from jaxtickets.engine.mask_rules import compiled_for
from jaxtickets.engine.meter import read_tally
from jaxtickets.engine.phase_steps import Steps, mask_arrays, run_phase
from jaxtickets.engine.run import Group, Run, optimizer_before
from jaxtickets.engine.state import Best, GroupState, StepHyperparams, empty_tally, of_one
from jaxtickets.engine.steps import fresh_moments, train_steps
from jaxtickets.plan import Train
from jaxtickets.plan.parts import short_name

PyTree = Any


class _Training(NamedTuple):
    """One training phase of one group: what stays while it lasts."""

    phase: Train
    run: Run
    group: Group
    index: int
    feed: DeviceFeed | HostFeed
    steps: int
    coefficients: PyTree


@run_phase.register
def train(
    phase: Train, run: Run, group: Group, index: int, state: GroupState, done: int = 0
) -> Steps:
    """Training, from `done` steps on. Every state that it gives is one that can be gone on with."""
    feed, epoch_and_batch = data_at(run, group, index)
    steps, whole = phase.steps(run.feeds.steps_per_epoch), feed.steps_per_epoch
    if done == 0:
        state = _prepared(phase, run, group, index, state)
    coefficients = l1_coefficients(run, group, phase.penalty, state.lineage.params)
    training = _Training(phase, run, group, index, feed, steps, coefficients)
    per_call = group.layout.steps_per_call if feed.scans else 1
    programs: dict[Any, Any] = {}
    previous_call = None
    name, epochs_before = short_name(phase), run.epochs_before(index)
    per_epoch = phase.steps_per_epoch(run.feeds.steps_per_epoch)
    yield state, Began(name, steps, done)
    while done < steps:
        epoch, position = epoch_and_batch(done)
        taken = per_call if per_call <= min(steps - done, whole - position) else 1
        batch, length = feed.batch(epoch, position), feed.bucket_length(epoch, position, taken)
        # The call before is waited for, so that the host is never ahead by more than one; but only
        # when the next batch has been read.
        jax.block_until_ready(previous_call)
        hyper = _hyperparams(phase, range(done, done + taken), steps)
        args = (state.lineage, state.tally, group.keys, hyper, coefficients, *batch)
        if (taken, length) not in programs:
            programs[taken, length] = _program(training, args, length)
        lineage, tally, previous_call = programs[taken, length](*args)  # the old ones are donated
        state = state._replace(lineage=lineage, tally=tally)
        done += taken
        last, ends_epoch = done == steps, position + taken == whole
        report = None
        if last or ends_epoch:
            state, report = _report(training, state, done)
        at, epochs = epochs_before + done / per_epoch, epoch + 1 if ends_epoch else None
        yield state, Stepped(name, taken, done, last, epochs, at, report)


def _prepared(phase: Train, run: Run, group: Group, index: int, state: GroupState) -> GroupState:
    """What a training begins with: fresh moments if the optimizer is another one, no best yet."""
    lineage = state.lineage
    if phase.may_prune or (phase.evolve is not None and phase.evolve.exchanges_units):
        lineage = mask_arrays(run, group, lineage)
    if optimizer_before(run.plan, group, index) not in (None, phase.optimizer):
        lineage = group.place(jax.jit(jax.vmap(fresh_moments(phase.optimizer)))(lineage))
    best = initial_best(lineage) if run.plan.collects_best(index) else None
    return state._replace(lineage=lineage, tally=group.place(empty_tally(len(group))), best=best)


def _program(training: _Training, args: tuple[PyTree, ...], length: int | None) -> Any:
    """The compiled steps. What changes from step to step is not in what they are made from."""
    phase, run, group, index, feed, steps, _ = training
    before, sparsity = run.steps_before(index), run.plan.sparsity_before(index)
    bound = run.bound(phase.evolve, of_one(args[0].weights))
    evolve = compiled_for(bound, steps, before, sparsity)
    penalty = phase.penalty and dataclasses.replace(phase.penalty, strength=0.0)
    how = (
        phase.optimizer,
        evolve,
        penalty,
        phase.momentum is not None,
        feed.gather(length),
        run.sizes,
    )
    return run.programs.over_members(
        train_steps,
        (feed.advance, run.task, *how),
        args,
        (True, True, True, False, True, *feed.mapped),
        group.layout,
        donate=(0, 1),
    )


def _hyperparams(phase: Train, steps: range, of: int) -> StepHyperparams:
    """What changes from step to step, of some steps of the phase: float32 [steps]."""
    momentum, penalty = phase.momentum, phase.penalty
    each = (
        [phase.lr(i, of) for i in steps],
        [_drop_fraction(phase, i, of) for i in steps],
        [momentum(i, of) if momentum else 0.0 for i in steps],
        [penalty.strength(i, of) if penalty else 0.0 for i in steps],
    )
    return StepHyperparams(*(np.asarray(values, np.float32) for values in each))


def _report(training: _Training, state: GroupState, done: int) -> tuple[GroupState, Report]:
    """The means since the last report; a new tally begins."""
    phase, run, group = training.phase, training.run, training.group
    losses, accuracies, bad_steps = read_tally(state.tally)
    record: dict[str, Any] = {
        "lr": phase.lr(done - 1, training.steps),
        "drop_fraction": _drop_fraction(phase, done - 1, training.steps),
    }
    best, lineage = state.best, state.lineage
    if best is not None:
        assert run.held is not None
        network = (lineage.network, len(group), run.x_spec, run.held)
        accuracy = validation_accuracy(run.task, *network)
        best = better(best, Best(jnp.asarray(accuracy), lineage.step, lineage.network))
        record["validation_accuracy"] = [float(a) for a in accuracy]
    report = group.place(np.asarray([losses, accuracies], np.float32).T)
    tally = group.place(empty_tally(len(group)))
    state = state._replace(tally=tally, report=report, best=best)
    return state, Report(losses, accuracies, bad_steps, record)


def _drop_fraction(phase: Train, step: int, steps: int) -> float:
    return phase.evolve.drop_fraction_at(step, steps) if phase.evolve else 0.0
