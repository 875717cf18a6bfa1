"""A group of networks on its way through a plan: the one training loop."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxtickets import members
from jaxtickets.engine import best as bests
from jaxtickets.engine import lineage as lineages
from jaxtickets.engine import moves
from jaxtickets.engine.checkpoints import Checkpoints
from jaxtickets.engine.feed import HostFeed
from jaxtickets.engine.lineage import Lineage, Numbers, Pruning, Tally
from jaxtickets.engine.meter import Meter, check_finite, is_finite
from jaxtickets.engine.optimizer import build_optimizer
from jaxtickets.engine.penalty import coefficients
from jaxtickets.engine.run import Place, Run, Who
from jaxtickets.ensemble import Ticket
from jaxtickets.errors import RunError
from jaxtickets.plan import SGD, Evolve, Gradual, Optimizer, Remember, Rewind, Train
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
        self._coefficients: PyTree = {}  # of the present phase's penalty; made again where a run goes on

    # -- the way through the plan ---------------------------------------------------------------------------------

    def go(self, place: Place | None = None) -> None:
        """All phases of the group's part of the plan, or those from a checkpoint's place on, in whose state it is then."""
        first = self.phases.start if place is None else place.phase
        if place is not None:
            self.run.line.skip(len(self.who) * (self.steps_before(first) - self.steps_before(self.phases.start) + place.step))
        for index in range(first, self.phases.stop):
            phase = self.run.plan.phases[index]
            if isinstance(phase, Train):
                self._train(index, phase, place.step if place is not None and index == first else 0)
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

    # -- training -------------------------------------------------------------------------------------------------

    def _train(self, index: int, phase: Train, done: int) -> None:
        feed, place = self.data_at(index)
        steps = phase.steps(self.run.feed.steps_per_epoch)
        per_call = 1 if isinstance(feed, HostFeed) else self.layout.steps_per_call
        if done == 0:
            self._prepare_phase(index, phase)
        self._coefficients = coefficients(self, phase.penalty)
        self.meter.count(self.state["lineage"].mask, len(self.who))
        self.run.line.phase(f"{self.name(index)} {_short(phase)}", steps, done)
        self.meter.reset()
        shown = time.monotonic()
        beat = None
        while done < steps:
            epoch, position = place(done)
            ahead = min(steps - done, feed.steps_per_epoch - position)
            take = per_call if per_call <= ahead else 1
            batch = feed.batch(epoch, position)
            jax.block_until_ready(beat)  # the host reads one batch ahead of the device, and is no further ahead than that
            beat = self._call_train(index, phase, done, take, feed, batch)
            done += take
            self.meter.examples += take * self.run.plan.batch_size * len(self.who)
            self.run.line.advance(take * len(self.who))
            if done == steps or position + take == feed.steps_per_epoch:
                self.run.line.update(done, self._report(index, phase, done), force=True)
                self.meter.reset()
            elif time.monotonic() - shown > 1:
                shown = time.monotonic()
                self.run.line.update(done, self.meter.read(self.state["tally"]))
            if self.run.checkpoints is not None and self.run.checkpoints.age() >= self.run.checkpoint_every:
                self._save(self.run.checkpoints, index, done)

    def _prepare_phase(self, index: int, phase: Train) -> None:
        """What a training phase starts with: fresh moments if the optimizer is another one, no best yet."""
        self.state["tally"] = self.empty_tally()
        self.state.pop("best", None)
        if isinstance(phase.evolve, Gradual):
            moves.open_masks(self)
        lineage: Lineage = self.state["lineage"]
        if self.optimizer_before(index) not in (None, phase.optimizer):
            build = build_optimizer(phase.optimizer, 0.0)
            moves.move(self, lineage._replace(moments=jax.jit(jax.vmap(build.init))(lineage.params)))
        if self.run.plan.collects_best(index):
            self.state["best"] = bests.none_yet(self.state["lineage"])

    def _call_train(self, index: int, phase: Train, done: int, take: int, feed: Any, batch: tuple[PyTree, ...]) -> jax.Array:
        """`take` training steps in one call. Learning rate, drop fraction and momentum enter as numbers."""
        steps = phase.steps(self.run.feed.steps_per_epoch)
        at = range(done, done + take)
        numbers = Numbers(
            np.asarray([phase.lr(i, steps) for i in at], np.float32),  # type: ignore[arg-type]
            np.asarray([_drop_fraction(phase, i, steps) for i in at], np.float32),  # type: ignore[arg-type]
            np.asarray([phase.momentum(i, steps) if phase.momentum else 0.0 for i in at], np.float32),  # type: ignore[arg-type]
            np.asarray([phase.penalty.strength(i, steps) if phase.penalty else 0.0 for i in at], np.float32),  # type: ignore[arg-type]
        )
        evolve = self._evolution(index, phase, steps)
        penalty = phase.penalty and dataclasses.replace(phase.penalty, strength=0.0)  # which enters as a number
        step = lineages.train_step(self.run.task, phase.optimizer, evolve, penalty, phase.momentum is not None, feed.gather)

        def several(
            lineage: PyTree, tally: Tally, key: jax.Array, numbers: Numbers, pull: PyTree, *batch: PyTree
        ) -> tuple[PyTree, Tally, jax.Array]:
            if take == 1:
                lineage, tally = step(lineage, tally, key, jax.tree.map(lambda n: n[0], numbers), pull, *batch)
                return lineage, tally, tally.steps + 0

            def body(carry: PyTree, at: PyTree) -> tuple[PyTree, None]:
                i, numbers = at
                return step(*carry, key, numbers, pull, *feed.advance(batch, i)), None

            (lineage, tally), _ = jax.lax.scan(body, (lineage, tally), (jnp.arange(take), numbers))
            return lineage, tally, tally.steps + 0

        args = (self.state["lineage"], self.state["tally"], self.keys, numbers, self._coefficients, *batch)
        masked = self.run.plan.masked_at(index)
        signature = ("train", phase.optimizer, evolve, penalty, phase.momentum is not None, take, masked, feed.rows)
        program = self.program(signature, several, (True, True, True, False, True, *feed.mapped), args, donate=(0, 1))
        self.state["lineage"], self.state["tally"], beat = program(*args)
        return beat

    def _evolution(self, index: int, phase: Train, steps: int) -> Evolve | Pruning | None:
        """How the mask evolves, without what enters as a number."""
        if isinstance(phase.evolve, Gradual):
            begin, end = phase.evolve.steps(steps)
            before = self.steps_before(index)
            return Pruning(phase.evolve, before + begin, before + end, self.run.plan.sparsity_before(index))
        return phase.evolve and dataclasses.replace(phase.evolve, drop_fraction=0.0, decay="constant", end=1.0)

    # -- reports and checkpoints ------------------------------------------------------------------------------------

    def _report(self, index: int, phase: Train, done: int) -> dict[str, Any]:
        """The tally to `metrics.jsonl`; a new tally begins."""
        lineage: Lineage = self.state["lineage"]
        self.meter.count(lineage.mask, len(self.who))
        numbers = self.meter.read(self.state["tally"])
        check_finite(self.run.plan, index, self.who, numbers["bad_steps"], self.run.folder)
        per_epoch, steps = self.run.feed.steps_per_epoch, phase.steps(self.run.feed.steps_per_epoch)
        before = [p.length.epochs(p.steps_per_epoch(per_epoch)) for p in self.run.plan.phases[:index] if isinstance(p, Train)]
        record: dict[str, Any] = {
            "group": self.number,
            "branch": self.branch,
            "phase": index,
            "step_in_phase": done,
            "name": _short(phase),
            "step": self.steps_before(index) + done,
            "epoch": sum(before) + done / phase.steps_per_epoch(per_epoch),
            "lineages": [who.lineage for who in self.who],
            "children": [who.child for who in self.who],
            "lr": phase.lr(done - 1, steps),
            "drop_fraction": _drop_fraction(phase, done - 1, steps),
            "loss": numbers["losses"],
            "accuracy": numbers["accuracies"],
            "density": self.meter.densities,
            "examples_per_second": round(numbers["examples_per_second"], 1),
            "seconds": round(self.clock.total(), 3),
        }
        if "best" in self.state:
            network = bests.network_of(lineage)
            accuracy = bests.validation_accuracy(self.run, network, len(self.who))
            now = {"accuracy": accuracy, "step": lineage.step, "network": network}
            self.state["best"] = bests.better(self.state["best"], now)
            record["validation_accuracy"] = [float(a) for a in accuracy]
        if self.run.folder is not None:
            self.run.folder.append_metrics(record)
        report = np.asarray([numbers["losses"], numbers["accuracies"]], np.float32).T
        self.state["report"] = members.place(report, self.layout, "member")
        self.state["tally"] = self.empty_tally()
        return numbers

    def _save(self, checkpoints: Checkpoints, index: int, done: int) -> None:
        state = self.state | ({} if self.parents is None else {"parents": self.parents})
        host = members.fetch(state)
        check_finite(self.run.plan, index, self.who, host["tally"].bad_step.tolist(), self.run.folder)
        if not is_finite(host["lineage"].params):
            return  # the next step's loss ends the run; the checkpoint before stays the newest
        place = Place(
            group=self.number,
            branch=self.branch,
            phase=index,
            step=done,
            collected=len(self.tickets),
            who=self.who,
            together=self.run.layout.group,
            seconds=self.clock.total(),
            compile_seconds=self.clock.compiling(),
        )
        checkpoints.save(state, host, dataclasses.asdict(place))

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


def _short(phase: Train) -> str:
    return f"Train {phase.length}" + (", evolving" if isinstance(phase.evolve, Evolve) else ", pruning" if phase.evolve else "")


def _drop_fraction(phase: Train, step: int, steps: int) -> float:
    return phase.evolve.fraction_at(step, steps) if isinstance(phase.evolve, Evolve) else 0.0
