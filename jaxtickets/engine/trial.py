"""A layout on trial: the first steps of a run's largest group, taken for their time and memory.

They are taken by what takes them in the run, from states that are thrown away. Draws come from the
members' keys, so the run after it is the same as without.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from jaxtickets.engine.device_memory import DoesNotFit, bytes_of, ran_out
from jaxtickets.engine.events import Stepped
from jaxtickets.engine.phase_steps import beginning, mask_arrays, run_phase, start_arguments
from jaxtickets.engine.run import Group, Run, optimizer_from
from jaxtickets.engine.state import GroupState
from jaxtickets.engine.steps import start_step
from jaxtickets.members import Layout


class Trial(NamedTuple):
    """What a trial found.

    Args:
      seconds: of one step of one member, compiling not counted; None if none was measured.
      beginning: seconds until the first call was done, compiling included.
      bytes: what a device holds at most while training, as far as the programs tell.
    """

    seconds: float | None
    beginning: float
    bytes: int


def training_of(run: Run) -> tuple[Group, int] | None:
    """The first of the run's largest groups that train, and the index of its first training; None
    if there is no training at all.
    """
    found = None
    each, phases = run.feeds.steps_per_epoch, run.plan.phases
    for group in run.groups:
        trained = (i for i in group.phases if phases[i].trains_with and phases[i].steps(each))
        index = next(trained, None)
        if index is not None and (found is None or len(group) > len(found[0])):
            found = group, index
    return found


def try_layout(
    run_of: Callable[[Layout, bool], Run],
    layout: tuple[Layout, bool],
    limit: int | None,
    seconds: float,
    enough: float = 1e9,
) -> Trial:
    """Take the first steps of the largest group.

    Args:
      run_of: the run with a layout, its data streamed or not.
      layout: the one on trial, and whether its data is streamed.
      limit: bytes that a device may hold.
      seconds: how long steps are measured after the first call; 0 for not at all.
      enough: give up measuring once a step of one member is known to take longer than this.

    Raises:
      DoesNotFit: a program needs more than the limit, or the device ran out of memory.
    """
    try:
        return _limited(run_of(*layout), limit, seconds, enough)
    except jax.errors.JaxRuntimeError as error:
        if not ran_out(error):
            raise
    # Out here the error is gone, and with it the arrays that its frames held.
    raise DoesNotFit(None)


def _limited(run: Run, limit: int | None, seconds: float, enough: float) -> Trial:
    at = training_of(run)
    if at is None:
        return Trial(None, 0.0, 0)
    group, index = at
    beside = _held_beside(run, group)
    run.programs.reset_largest(None if limit is None else limit - beside)
    try:
        return _steps(run, group, index, seconds, enough)
    except DoesNotFit as error:
        raise DoesNotFit(None if error.needed is None else error.needed + beside) from None
    finally:
        run.programs.reset_largest(None)


def _steps(run: Run, group: Group, index: int, seconds: float, enough: float) -> Trial:
    began, width = time.perf_counter(), len(group)
    phase = run.plan.phases[index]
    steps = run_phase(phase, run, group, index, _begin(run, group, index))
    next(steps)  # it has begun
    state, _ = next(steps)
    jax.block_until_ready(state.tally)
    first = time.perf_counter() - began
    held = run.programs.largest + _held_beside(run, group)
    taken, spent, compiled = 0, 0.0, run.programs.seconds
    began = time.perf_counter()
    while spent < seconds:
        state, event = next(steps, (state, None))
        if not isinstance(event, Stepped):
            break
        jax.block_until_ready(state.tally)
        taken += event.taken
        spent = time.perf_counter() - began - (run.programs.seconds - compiled)
        if spent / (taken * width) > enough:
            break
    return Trial(spent / (taken * width) if taken else None, first, held)


def _begin(run: Run, group: Group, index: int) -> GroupState:
    """Fresh networks for that training, of the shapes, dtypes and places that it begins with."""
    static, args, mapped = start_arguments(run, group, optimizer_from(run.plan, index))
    program = run.programs.over_members(
        start_step, static, args, mapped, group.layout, runs_once=True
    )
    lineage = program(*args)
    if run.plan.masked_at(index):
        lineage = mask_arrays(run, group, lineage)
    return beginning(group, lineage)


def _held_beside(run: Run, group: Group) -> int:
    """Bytes of what lies on a device beside a training step's arguments: weights that are
    remembered, the best ones, the parents'.
    """
    phases: Any = run.plan.phases
    copies = len({phase.remembers for phase in phases} - {None})
    copies += any(phase.wants_best for phase in phases) + (run.plan.fork is not None)
    mesh = group.layout.mesh
    rows = 1 if mesh is None else mesh.shape["member"]
    return copies * bytes_of(run.begins) * len(group) // rows
