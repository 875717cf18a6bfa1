"""The way through a run: group by group, phase by phase. The one place that knows the order."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import jax

from jaxtickets.engine import pack_step as pack_step  # registers what Pack does
from jaxtickets.engine import shrink_step as shrink_step  # and Shrink
from jaxtickets.engine import training as training  # and Train
from jaxtickets.engine.device_memory import ran_out
from jaxtickets.engine.events import Began, Stepped
from jaxtickets.engine.phase_steps import parents_of, run_phase
from jaxtickets.engine.preemption import Notice
from jaxtickets.engine.recorder import Recorder, find_group
from jaxtickets.engine.run import Group, Run
from jaxtickets.engine.state import GroupState, Parents
from jaxtickets.errors import RunError
from jaxtickets.plan import describe


def drive(run: Run, recorder: Recorder, wanted_back: Notice) -> None:
    """Train everything that the newest checkpoint does not have yet.

    Args:
      run: the context.
      recorder: what is written down, and what an earlier process wrote.
      wanted_back: whether the machine is, and the run to end here.

    Raises:
      Preempted: it was; the run is saved.
      RunError: a device ran out of memory.
    """
    # Each state is named once only: what a name holds stays on the device.
    state: GroupState | Parents | None
    position, state = recorder.resume()
    resumed = None if position is None else find_group(run, position)
    first = 0 if resumed is None else run.groups.index(resumed)
    for group in run.groups[:first]:
        recorder.skip(group, group.phases.stop, 0)
    parents = None
    for group in run.groups[first:]:
        begin, done = group.phases.start, 0
        if position is not None:
            begin, done, position = position.phase, position.step, None
            recorder.skip(group, begin, done)
        elif group.branch:
            state, parents = parents, None  # what a Fork makes children of
        for index in range(begin, group.phases.stop):
            phase = run.plan.phases[index]
            with _running_out_told(run, group, index):
                for after, event in run_phase(phase, run, group, index, state, done):
                    recorder.write(group, index, after, event)
                    state = after  # the one before may have been donated
                    del after
                    # These are the states that a checkpoint can hold.
                    if isinstance(event, Began | Stepped) and wanted_back():
                        raise recorder.preempted(group, index, state, event.done)
            done = 0
        assert isinstance(state, GroupState)
        # Only what the next group needs is held while it trains.
        parents = state.parents if group.branch else None
        if not group.branch and run.plan.fork is not None:
            parents = parents_of(state)
        state = None


@contextlib.contextmanager
def _running_out_told(run: Run, group: Group, index: int) -> Iterator[None]:
    """Where a device runs out of memory after all, a `RunError` that says in which phase and what
    takes less. The trial of a layout sees the first training only.
    """
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if not ran_out(error):
            raise
        together, advice = "one member alone", "Give a smaller batch."
        if len(group) > 1:
            half = len(group) // 2
            together = f"{len(group)} members together"
            advice = (
                f"Give layout=jt.AutoLayout({half}) (--members-together {half}), and another out"
                " folder if there is one, or a smaller batch."
            )
        phases = run.plan.phases
        raise RunError(
            f"phase {index + 1} of {len(phases)}, {describe(phases[index])}: {together} ran out of"
            f" the device's memory. {advice}"
        ) from error
