"""Everything that a run writes down: metrics, probes, checkpoints, tickets, and the line of
progress.
"""

from __future__ import annotations

import dataclasses
import time
import warnings
from typing import Any

from jaxtickets import members
from jaxtickets.engine.abstract_state import abstract_state
from jaxtickets.engine.best_network import ensemble_of
from jaxtickets.engine.checkpoints import Checkpoints, numbers
from jaxtickets.engine.events import Began, Collected, Event, Message, Report, Stepped
from jaxtickets.engine.finite import check_finite, is_finite
from jaxtickets.engine.hosts import Turns, everywhere
from jaxtickets.engine.meter import Meter, read_tally
from jaxtickets.engine.probes import probe_files
from jaxtickets.engine.progress import ProgressLine
from jaxtickets.engine.run import Group, Position, Run
from jaxtickets.engine.run_folder import RunFolder
from jaxtickets.engine.state import GroupState, Weights, shapes_of
from jaxtickets.engine.ticket_log import TicketLog
from jaxtickets.errors import Preempted, RunError


class Recorder:
    """Where a run leaves what it makes.

    Args:
      run: its context.
      tickets: what it collects.
      line: of progress.
      folder: of the run; None writes nothing.
      checkpoints: of the folder.
      checkpoint_every: seconds between them.
    """

    def __init__(
        self,
        run: Run,
        tickets: TicketLog,
        line: ProgressLine,
        folder: RunFolder | None,
        checkpoints: Checkpoints | None,
        checkpoint_every: float,
    ) -> None:
        self._run, self._tickets, self._line = run, tickets, line
        self._folder, self._checkpoints, self._every = folder, checkpoints, checkpoint_every
        self._meter = Meter(lambda: run.programs.seconds)
        self._began, self._shown = time.monotonic(), 0.0
        self._before = Position()  # what earlier processes have taken
        self._saved: tuple[int, int, int, int] | None = None  # where in the run
        self._turns = Turns()

    # -- time --------------------------------------------------------------------------------------

    def seconds(self) -> float:
        """Seconds of the whole run so far, those before it was stopped included."""
        return self._before.seconds + time.monotonic() - self._began

    def compile_seconds(self) -> float:
        """Those of them that were spent compiling."""
        return self._before.compile_seconds + self._run.programs.seconds

    # -- going on ----------------------------------------------------------------------------------

    def resume(self) -> tuple[Position | None, GroupState | None]:
        """The position and the state of the newest whole checkpoint; None where there is none.

        Raises:
          RunError: the checkpoint is of another layout.
        """
        found = None
        if self._checkpoints is not None:
            everywhere(lambda: None, lambda _: {"out": {"checkpoints": self._there()}})
            found = self._checkpoints.newest(lambda position: self._parts(Position(**position)))
        if found is None:
            if self._folder is not None:
                self._folder.metrics_log.truncate((-1, -1, -1, -1))
            return None, None
        position, state = Position(**found[0]), GroupState(**found[1])
        self._before = position
        assert self._folder is not None
        at = (position.group, position.branch, position.phase, position.step)
        self._folder.metrics_log.truncate(at)
        self._saved = at
        self._line.say(
            f"going on with {self._folder.path}: group {position.group + 1}, phase "
            f"{position.phase + 1}, step {position.step}, after {position.seconds:.0f} s"
        )
        self._say_if_rounded(position)
        self._tickets.read_back(position.collected)
        return position, state

    def _there(self) -> list[int]:
        """The checkpoints of the folder, as this host sees it."""
        return [] if self._folder is None else numbers(self._folder.checkpoints)

    def _parts(self, position: Position) -> dict[str, Any]:
        """Shapes and shardings of what a checkpoint there holds; compiles and computes nothing.

        Raises:
          RunError: it was written with groups of another size.
          FileNotFoundError, TicketFileError: a ticket collected before it is gone or damaged.
        """
        run, networks = self._run, [tuple(network) for network in position.networks]
        group = find_group(run, position)
        if group is None or networks != list(group.networks):
            raise RunError(
                f"the run in {self._folder and self._folder.path} trains {position.together} "
                f"lineages at a time, and this layout {run.layout.group}; give "
                f"layout=Layout(group={position.together}) to go on, or another out folder."
            )
        assert self._folder is not None
        for index in range(position.collected):
            self._folder.read_ticket(index, run.task)
        return abstract_state(run, group, position).parts()

    def _say_if_rounded(self, position: Position) -> None:
        """Going on under another `across` is allowed, and said."""
        layout = self._run.layout
        before = [across for across in position.across if across != layout.across]
        if before:
            text = (
                f"this run was trained with across={before[0]!r} and goes on with "
                f"{layout.across!r}: its tickets are no longer the same to the bit, only up to "
                f"rounding; give layout=Layout({layout.group}, {before[0]!r}) for the same bits."
            )
            self._line.say(text)
            warnings.warn(text, stacklevel=6)

    def skip(self, group: Group, index: int, step: int) -> None:
        """Steps of that group which an earlier process took, for the time that is left."""
        taken = self._run.steps_before(index) - self._run.steps_before(group.phases.start)
        self._line.skip(len(group) * (taken + step))

    # -- on the way --------------------------------------------------------------------------------

    def write(self, group: Group, index: int, state: GroupState, event: Event | None) -> None:
        """Write down what happened in phase `index` of a group, whose state is that now."""
        match event:
            case Message():
                self._say(group, index, event.text)
            case Began():
                self._begin(group, index, state, event)
            case Stepped():
                self._step(group, index, state, event)
            case Collected():
                for ticket in event.tickets:
                    self._tickets.add(ticket)
                several = "s" * (len(event.tickets) > 1)
                self._say(group, index, f"collected {len(event.tickets)} ticket{several}")

    def _say(self, group: Group, index: int, text: str) -> None:
        self._line.say(f"{self._run.name(group, index)} {text}")

    def _begin(self, group: Group, index: int, state: GroupState, began: Began) -> None:
        if began.done == 0 and group.branch == 0 and self._run.steps_before(index) == 0:
            self._probe(group, state, 0, 0.0)
        self._meter.count(state.lineage.mask, len(group), self._run.sizes)
        name = f"{self._run.name(group, index)} {began.name}"
        self._line.phase(name, began.steps, began.done)
        self._meter.reset()
        self._shown = time.monotonic()

    def _step(self, group: Group, index: int, state: GroupState, step: Stepped) -> None:
        self._meter.examples += step.taken * self._run.plan.batch_size * len(group)
        self._line.advance(step.taken * len(group))
        if step.report is not None:
            self._report(group, index, state, step, step.report)
            if self._probe_is_due(step):
                self._probe(group, state, self._run.steps_before(index) + step.done, step.epoch)
            self._meter.reset()
        elif self._line.shows and time.monotonic() - self._shown > 1:
            self._shown = time.monotonic()
            losses, accuracies, _ = read_tally(members.own(state.tally))
            self._line.update(step.done, self._meter.numbers(losses, accuracies))
        if self._checkpoints is not None:
            self._checkpoints.poll()
            if self._turns.due(self._checkpoints.age(), self._every):
                self._save(group, index, state, step.done, self._checkpoints)

    def _report(
        self, group: Group, index: int, state: GroupState, step: Stepped, report: Report
    ) -> None:
        self._meter.count(state.lineage.mask, len(group), self._run.sizes)
        self._check_finite(group, index, report.bad_steps)
        numbers = self._meter.numbers(report.losses, report.accuracies)
        record = {
            "group": group.number,
            "branch": group.branch,
            "phase": index,
            "step_in_phase": step.done,
            "name": step.name,
            "step": self._run.steps_before(index) + step.done,
            "epoch": step.epoch,
            "lineages": [network.lineage for network in group.networks],
            "children": [network.child for network in group.networks],
            "loss": report.losses,
            "accuracy": report.accuracies,
            "density": self._meter.densities,
            "examples_per_second": round(numbers["examples_per_second"], 1),
            "seconds": round(self.seconds(), 3),
        }
        if self._folder is not None:
            self._folder.metrics_log.append(record | report.record)
        self._line.update(step.done, numbers, force=True)

    def _check_finite(self, group: Group, index: int, bad_steps: list[int]) -> None:
        kept = "" if self._folder is None else self._folder.tickets
        kept = kept and f" Tickets collected before are in {kept}."
        data = self._run.feeds.dataset
        check_finite(self._run.plan, index, group.networks, bad_steps, kept, data)

    def _probe_is_due(self, step: Stepped) -> bool:
        probe = self._run.probe
        at_epoch = probe is not None and step.epochs is not None and step.epochs % probe.every == 0
        return step.last or at_epoch

    def _probe(self, group: Group, state: GroupState, step: int, epoch: float) -> None:
        run, folder = self._run, self._folder
        if run.probe is None or folder is None:
            return
        tickets = ensemble_of(run.task, state.lineage.network, len(group), run.x_spec)
        if folder.writes:
            for name, arrays in probe_files(run.probe, tickets, group.networks, step, epoch):
                folder.save_probe(name, arrays)

    def preempted(self, group: Group, index: int, state: GroupState, done: int) -> Preempted:
        """Save the run as it is, after `done` steps of phase `index`, and say how to go on."""
        assert self._folder is not None
        assert self._checkpoints is not None
        here = (group.number, group.branch, index, done)
        if self._saved != here:
            self._save(group, index, state, done, self._checkpoints)
        self._checkpoints.finish()
        self._line.close()
        where = f"{self._run.name(group, index)} step {done}"
        how = (
            "is saved"
            if self._saved == here
            else "is left, its weights being no numbers, not saved,"
        )
        text = f"SIGTERM: {self._folder.path} {how} at {where}; run the same again to go on."
        self._line.say(text)
        return Preempted(text)

    def _save(
        self, group: Group, index: int, state: GroupState, done: int, checkpoints: Checkpoints
    ) -> None:
        parts = state.parts()
        host = members.fetch(parts)
        self._check_finite(group, index, host["tally"].bad_step.tolist())
        if not is_finite(host["lineage"].params):
            return  # the next step's loss ends the run; the checkpoint before stays the newest
        layout, parents = self._run.layout, state.parents
        position = Position(
            group=group.number,
            branch=group.branch,
            phase=index,
            step=done,
            collected=len(self._tickets),
            networks=group.networks,
            together=layout.group,
            across=sorted({*self._before.across, layout.across}),
            seconds=self.seconds(),
            compile_seconds=self.compile_seconds(),
            shapes=shapes_of(state.lineage.weights),
            parent_shapes=[] if parents is None else shapes_of(Weights(*parents.network[::2])),
        )
        checkpoints.save(parts, host, dataclasses.asdict(position))
        self._saved = (group.number, group.branch, index, done)


def find_group(run: Run, position: Position) -> Group | None:
    """The group of a position; None where this layout has no such group."""
    where = (position.group, position.branch)
    return next((group for group in run.groups if (group.number, group.branch) == where), None)
