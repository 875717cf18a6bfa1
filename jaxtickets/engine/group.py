"""A group of networks on its way through a plan."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from jaxtickets import members
from jaxtickets.engine import best as bests
from jaxtickets.engine import lineage as lineages
from jaxtickets.engine import moves, training
from jaxtickets.engine.lineage import Tally
from jaxtickets.engine.meter import Meter
from jaxtickets.engine.run import Place, Run, Who
from jaxtickets.ensemble import Ticket
from jaxtickets.errors import RunError
from jaxtickets.plan import SGD, Optimizer, Remember, Rewind, Train
from jaxtickets.ticket_file import load

PyTree = Any


@dataclasses.dataclass(frozen=True)
class Clock:
    """Seconds of the whole run so far, those before a resume included: all of them, and those spent compiling."""

    total: Callable[[], float]
    compiling: Callable[[], float]


class GroupRun:
    """Networks that are trained together, through the phases before a plan's Fork or through those after it.

    Args:
      run: what it shares with the other groups.
      number: which group of lineages, from 0.
      branch: which group of their children, from 1; 0 for the lineages themselves.
      who: its networks.
      keys: their keys, [W].
      tickets: those of the whole run so far (of those in files the info); this group's are added.
      clock: what time it is.
      parents: for children, a description (shapes) or the networks of all lineages of the group, while more children follow.
    """

    def __init__(
        self,
        run: Run,
        number: int,
        branch: int,
        who: list[Who],
        keys: jax.Array,
        tickets: list[Ticket | dict[str, Any]],
        clock: Clock,
        parents: PyTree = None,
    ) -> None:
        self.run, self.number, self.branch, self.who, self.clock, self.tickets = run, number, branch, who, clock, tickets
        self.layout = members.for_members(run.layout, len(who))
        self.keys = members.place(keys, self.layout, "member")
        self.parents = parents
        self.first = run.layout.group * number  # the first lineage of its group
        fork = len(run.plan.phases) if run.plan.fork is None else run.plan.fork
        self.phases = range(fork) if branch == 0 else range(fork + 1, len(run.plan.phases))
        # What a checkpoint holds, with a leading member axis everywhere: "lineage", "tally", "report" (last loss and
        # accuracy, [W, 2]), "best" while the best is tracked, and networks remembered by name.
        self.state: dict[str, PyTree] = {}
        self.meter = Meter(lambda: run.programs.seconds)
        self._feeds: dict[float, Any] = {}

    # -- the way through the plan ---------------------------------------------------------------------------------

    def go(self, place: Place | None = None) -> None:
        """All phases of the group's part of the plan, or those from a checkpoint's place on, in whose state it is then."""
        first = self.phases.start if place is None else place.phase
        if place is not None:
            self.run.line.skip(len(self.who) * (self.steps_before(first) - self.steps_before(self.phases.start) + place.step))
        for index in range(first, self.phases.stop):
            phase = self.run.plan.phases[index]
            if isinstance(phase, Train):
                training.train(self, index, phase, place.step if place is not None and index == first else 0)
            else:
                moves.MOVES[type(phase)](self, index, phase)

    def like(self, place: Place) -> dict[str, PyTree]:
        """Shapes and shardings of the state that a checkpoint at `place` holds; compiles and computes nothing.

        Raises:
          RunError: it was written with groups of another size.
          FileNotFoundError, TicketFileError: a ticket collected before it is gone or damaged.
        """
        if [tuple(who) for who in place.who] != self.who:
            raise RunError(
                f"the run in {self.run.folder and self.run.folder.path} trains {place.together} lineages at a time, and this layout "
                f"{self.run.layout.group}; give layout=Layout(group={place.together}) to go on, or another out folder."
            )
        for index in range(place.collected):
            self.read_ticket(index)
        lineage = moves.lineage_like(self, place.phase)
        state: dict[str, PyTree] = {"lineage": lineage, "tally": lineages.empty_tally(len(self.who)), "report": self.no_report()}
        if self.run.plan.collects_best(place.phase):
            state["best"] = jax.eval_shape(bests.none_yet, lineage)
        for name in self.remembered_by(place.phase):
            state[name] = moves.remembered_like(self, name)
        return self.placed(state) | ({} if self.parents is None else {"parents": self.parents})

    def placed(self, shapes: PyTree) -> PyTree:
        """Those shapes where the group's members lie."""
        target = members.sharding(self.layout, "member") or jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        return jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=target), shapes)

    def remembered_by(self, index: int) -> list[str]:
        """What is remembered before phase `index` for a Rewind there or later, as names in the state."""
        phases = self.run.plan.phases
        wanted = {phase.name for phase in phases[index:] if isinstance(phase, Rewind)}
        return [f"remembered {phase.name}" for phase in phases[:index] if isinstance(phase, Remember) and phase.name in wanted]

    def steps_before(self, index: int) -> int:
        """Training steps of one network on the way to phase `index`."""
        return self.run.plan.steps_before(index, self.run.feed.steps_per_epoch)

    def optimizer(self, index: int) -> Optimizer:
        """The optimizer of phase `index`, or of the next Train after it, or of the last before."""
        phases = self.run.plan.phases
        trains = [phase for phase in (*phases[index:], *reversed(phases[:index])) if isinstance(phase, Train)]
        return trains[0].optimizer if trains else SGD()

    def optimizer_before(self, index: int) -> Optimizer | None:
        """The optimizer of the group's last training before phase `index`; None if it has not trained."""
        trains = [phase for phase in self.run.plan.phases[self.phases.start : index] if isinstance(phase, Train)]
        return trains[-1].optimizer if trains else None

    def optimizer_of_moments(self, index: int) -> Optimizer:
        """The optimizer whose moments the state holds at phase `index`: they change hands when another one trains."""
        return self.optimizer_before(index) or self.optimizer(index)

    def feed(self, bag: float) -> Any:
        """The data in the orders of these networks, each on its own bag of them."""
        if bag not in self._feeds:
            self._feeds = {bag: self.run.feed.for_members(self.keys, self.layout, bag)}
        return self._feeds[bag]

    def data_at(self, index: int) -> tuple[Any, Callable[[int], tuple[int, int]]]:
        """The feed of phase `index`, and what says the epoch and the position in it after so many steps of the phase.

        Epochs go on from phase to phase, and begin anew where the order is another one: after a Fork, and where the bag changes.
        """
        phases, start = self.run.plan.phases, self.phases.start
        around = (*reversed(phases[start : index + 1]), *phases[index:])
        bag = next((phase.bag for phase in around if isinstance(phase, Train)), 1.0)
        before = phases[start:index]
        begin = start + max((i + 1 for i, phase in enumerate(before) if isinstance(phase, Train) and phase.bag != bag), default=0)
        feed, steps = self.feed(bag), self.steps_before(index) - self.steps_before(begin)
        used = self.steps_before(begin) - self.steps_before(start)  # as a number of epochs: no epoch before has a higher one

        def place(done: int) -> tuple[int, int]:
            epoch, position = divmod(steps + done, feed.steps_per_epoch)
            return used + epoch, position

        return feed, place

    # -- small things -----------------------------------------------------------------------------------------------

    def program(self, signature: tuple[Any, ...], step: Any, mapped: tuple[bool, ...], args: Any, **how: Any) -> Any:
        """The compiled program of a step written for one member."""
        across = self.layout.across
        return self.run.programs.get((*signature, len(self.who)), lambda: members.over_members(step, mapped, across), args, **how)

    def empty_tally(self) -> Tally:
        """A tally of nothing, where the members lie."""
        return members.place(lineages.empty_tally(len(self.who)), self.layout, "member")

    def no_report(self) -> np.ndarray:
        """Loss and accuracy before there are any."""
        return np.zeros((len(self.who), 2), np.float32)

    def read_ticket(self, index: int) -> Ticket:
        """A ticket that was collected before."""
        assert self.run.folder is not None
        return load(self.run.folder.ticket(index), self.run.task).tickets[0]

    def name(self, index: int) -> str:
        """Who is where, for a line of progress."""
        everybody = self.run.plan.copies(index)
        kind = "member" if self.branch == 0 else "child"
        first = self.who[0].lineage if self.branch == 0 else self.number_of(self.who[0])
        last = first + len(self.who)
        several = f"{kind} {first + 1}" if len(self.who) == 1 else f"{'members' if self.branch == 0 else 'children'} {first + 1}-{last}"
        who = f"{several} of {everybody}, " if everybody > len(self.who) else ""
        return who + f"phase {index + 1} of {len(self.run.plan.phases)}:"

    def number_of(self, who: Who) -> int:
        """A child's place among all children."""
        return who.lineage * (self.run.plan.copies(len(self.run.plan.phases)) // self.run.plan.width) + (who.child or 0)
