"""A group of lineages on its way through a plan: the one training loop."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxtickets import masks, members
from jaxtickets.dataset import Dataset, Stream
from jaxtickets.engine import lineage as lineages
from jaxtickets.engine.checkpoints import Checkpoints
from jaxtickets.engine.feed import HostFeed, make_feed
from jaxtickets.engine.lineage import Numbers, Tally
from jaxtickets.engine.progress import ProgressLine
from jaxtickets.engine.programs import Programs
from jaxtickets.engine.run_folder import RunFolder
from jaxtickets.ensemble import Ticket, TicketEnsemble
from jaxtickets.errors import NonFiniteLoss
from jaxtickets.members import Layout
from jaxtickets.plan import SGD, Collect, Escape, Evolve, Optimizer, Plan, Start, Train, describe
from jaxtickets.task import Task
from jaxtickets.ticket_file import load

PyTree = Any


@dataclasses.dataclass(frozen=True)
class Run:
    """What all groups of a run share."""

    plan: Plan
    task: Task
    data: Dataset | Stream
    held: Dataset | None
    example: PyTree
    x_spec: PyTree
    keys: jax.Array
    layout: Layout
    programs: Programs
    line: ProgressLine
    folder: RunFolder | None
    checkpoints: Checkpoints | None
    checkpoint_every: float


@dataclasses.dataclass(frozen=True)
class Place:
    """A place in a run: `step` steps of phase `phase` are done in group `group`, and `collected` tickets of all groups.

    `seconds` and `compile_seconds` are what the run took until here.
    """

    group: int = 0
    phase: int = 0
    step: int = 0
    collected: int = 0
    seconds: float = 0.0
    compile_seconds: float = 0.0


class GroupRun:
    """One group of lineages.

    Args:
      run: what it shares with the other groups.
      number: which group, from 0.
      rows: its lineages among all of them.
      clock: seconds that the whole run has taken so far.
    """

    def __init__(self, run: Run, number: int, rows: range, clock: Callable[[], float]) -> None:
        self.run, self.number, self.rows, self.clock = run, number, rows, clock
        self.keys = members.place(run.keys[rows.start : rows.stop], run.layout, "member")
        self.feed = make_feed(run.data, run.plan.batch_size, self.keys, run.layout)
        self.first_ticket = rows.start * run.plan.members // run.plan.width
        # What a checkpoint holds, with a leading member axis everywhere: "lineage", "tally", "report" (last loss and
        # accuracy, [W, 2]), and "best" while the best is tracked.
        self.state: dict[str, PyTree] = {}
        self.tickets: list[Ticket] = []
        self._density = float("nan")
        self._saved = time.monotonic()
        self._started: float | None = None
        self._examples = 0

    # -- the way through the plan ---------------------------------------------------------------------------------

    def go(self, place: Place | None = None, state: dict[str, PyTree] | None = None) -> list[Ticket]:
        """All phases, from the start or from a checkpoint's place and state. Returns the group's tickets."""
        plan = self.run.plan
        first = 0
        if place is not None and state is not None:
            self.state, first = state, place.phase
            self.tickets = [self._read_ticket(i) for i in range(self.first_ticket, place.collected)]
            self.run.line.skip(len(self.rows) * (self._steps_before(first) + place.step))
        for index, phase in enumerate(plan.phases[first:], first):
            done = place.step if place is not None and index == first else 0
            if isinstance(phase, Start):
                self.state = self._fresh(self._optimizer(0))
            elif isinstance(phase, Train):
                self._train(index, phase, done)
            elif isinstance(phase, Escape):
                self._escape(index, phase)
            elif isinstance(phase, Collect):
                self._collect(index, phase)
        return self.tickets

    def collected_before(self) -> list[Ticket]:
        """The tickets of a group that an earlier run finished."""
        count = len(self.rows) * self.run.plan.members // self.run.plan.width
        self.run.line.skip(len(self.rows) * self._steps_before(len(self.run.plan.phases)))
        return [self._read_ticket(self.first_ticket + i) for i in range(count)]

    def like(self, place: Place) -> dict[str, PyTree]:
        """A state of the shapes and shardings that a checkpoint at `place` has."""
        state = self._fresh(self._optimizer(place.phase))
        if self.run.plan.collects_best(place.phase):
            state["best"] = self._no_best(state["lineage"])
        return state

    def _fresh(self, optimizer: Optimizer) -> dict[str, PyTree]:
        report = members.place(np.zeros((len(self.rows), 2), np.float32), self.run.layout, "member")
        return {"lineage": self._start(self.run.plan.start, optimizer), "tally": self._empty_tally(), "report": report}

    def _steps_before(self, index: int) -> int:
        trains = (phase for phase in self.run.plan.phases[:index] if isinstance(phase, Train))
        return sum(phase.length.steps(self.feed.steps_per_epoch) for phase in trains)

    def _optimizer(self, index: int) -> Optimizer:
        """The optimizer of phase `index`, or of the next Train after it, or of the last before."""
        phases = self.run.plan.phases
        trains = [phase for phase in (*phases[index:], *reversed(phases[:index])) if isinstance(phase, Train)]
        return trains[0].optimizer if trains else SGD()

    # -- phases ---------------------------------------------------------------------------------------------------

    def _start(self, phase: Start, optimizer: Optimizer) -> lineages.Lineage:
        task = self.run.task
        program = self._program(
            ("start", phase, optimizer),
            lambda key, x: lineages.start(task, phase, optimizer, key, x),
            (True, False),
            (self.keys, self.run.example),
            runs_once=True,
        )
        return members.place(program(self.keys, self.run.example), self.run.layout, "member")

    def _train(self, index: int, phase: Train, done: int) -> None:
        steps = phase.length.steps(self.feed.steps_per_epoch)
        before = self._steps_before(index)
        per_call = 1 if isinstance(self.feed, HostFeed) else self.run.layout.steps_per_call
        if done == 0:
            self._prepare_phase(index, phase)
        self.run.line.phase(f"{self._name(index)} {_short(phase)}", steps, done)
        self._mark()
        shown = time.monotonic()
        while done < steps:
            epoch, position = divmod(before + done, self.feed.steps_per_epoch)
            ahead = min(steps - done, self.feed.steps_per_epoch - position)
            take = per_call if per_call <= ahead else 1
            beat = self._call_train(phase, done, steps, take, self.feed.batch(epoch, position))
            done += take
            self._examples += take * self.run.plan.batch_size * len(self.rows)
            at_report = done == steps or position + take == self.feed.steps_per_epoch
            if at_report:
                self.run.line.update(done, self._report(index, phase, done, steps), force=True)
                self._mark()
            elif time.monotonic() - shown > 1:
                shown = time.monotonic()
                self.run.line.update(done, self._numbers_now())
            else:
                jax.block_until_ready(beat)  # never more than one call ahead of the device
            self.run.line.advance(take * len(self.rows))
            if time.monotonic() - self._saved >= self.run.checkpoint_every:
                self._save(index, done)

    def _prepare_phase(self, index: int, phase: Train) -> None:
        """What a training phase starts with: fresh moments if the optimizer is another one, no best yet."""
        self.state["tally"] = self._empty_tally()
        self.state.pop("best", None)
        lineage = self.state["lineage"]
        if index > 0 and self._optimizer_before(index) not in (None, phase.optimizer):
            build = lineages.build_optimizer(phase.optimizer, 0.0)
            lineage = lineage._replace(moments=jax.jit(jax.vmap(build.init))(lineage.params))
            self.state["lineage"] = lineage
        if self.run.plan.collects_best(index):
            self.state["best"] = self._no_best(lineage)

    def _optimizer_before(self, index: int) -> Optimizer | None:
        trains = [phase for phase in self.run.plan.phases[:index] if isinstance(phase, Train)]
        return trains[-1].optimizer if trains else None

    def _call_train(self, phase: Train, done: int, steps: int, take: int, batch: tuple[PyTree, ...]) -> jax.Array:
        """`take` training steps in one call. Learning rate and drop fraction enter as numbers."""
        lr = [phase.lr(done + i, steps) for i in range(take)]
        drop = [phase.evolve.fraction_at(done + i, steps) if phase.evolve else 0.0 for i in range(take)]
        numbers = Numbers(np.asarray(lr, np.float32), np.asarray(drop, np.float32))  # type: ignore[arg-type]
        step = lineages.train_step(self.run.task, phase.optimizer, phase.evolve, self.feed.gather)

        def several(
            lineage: PyTree, tally: Tally, key: jax.Array, numbers: Numbers, *batch: PyTree
        ) -> tuple[PyTree, Tally, jax.Array]:
            if take == 1:
                lineage, tally = step(lineage, tally, key, jax.tree.map(lambda n: n[0], numbers), *batch)
                return lineage, tally, tally.steps + 0

            def body(carry: PyTree, at: PyTree) -> tuple[PyTree, None]:
                i, numbers = at
                return step(*carry, key, numbers, *self.feed.advance(batch, i)), None

            (lineage, tally), _ = jax.lax.scan(body, (lineage, tally), (jnp.arange(take), numbers))
            return lineage, tally, tally.steps + 0

        args = (self.state["lineage"], self.state["tally"], self.keys, numbers, *batch)
        signature = ("train", phase.optimizer, _without_numbers(phase.evolve), take)
        program = self._program(signature, several, (True, True, True, False, *self.feed.mapped), args, donate=(0, 1))
        self.state["lineage"], self.state["tally"], beat = program(*args)
        return beat

    def _escape(self, index: int, phase: Escape) -> None:
        position = self._steps_before(index)
        batch = self.feed.batch(*divmod(position, self.feed.steps_per_epoch))
        optimizer = self._optimizer_before(index) or self._optimizer(index)
        step = lineages.escape_step(self.run.task, optimizer, phase, self.feed.gather)
        args = (self.state["lineage"], self.keys, np.float32(phase.drop_fraction), *batch)
        signature = ("escape", optimizer, phase.growth, phase.regrown)
        program = self._program(signature, step, (True, True, False, *self.feed.mapped), args, donate=(0,))
        self.state["lineage"] = program(*args)
        self.run.line.say(f"{self._name(index)} {describe(phase)}")

    def _collect(self, index: int, phase: Collect) -> None:
        lineage: lineages.Lineage = self.state["lineage"]
        network = {"params": lineage.params, "mask": lineage.mask, "model_state": lineage.model_state}
        best = self.state.pop("best", None)
        if phase.which == "best" and best is not None:
            network = best["network"]
        host, ever_active, report = members.fetch((network, lineage.ever_active, self.state["report"]))
        for i, row in enumerate(self.rows):
            ticket = members.member(host, i)
            info = {
                "lineage": row,
                "collected": sum(isinstance(p, Collect) for p in self.run.plan.phases[:index]),
                "phase": index,
                "step": self._steps_before(index),
                "density": masks.density(ticket["mask"]),
                "ever_active": masks.density(members.member(ever_active, i)),
                "train_loss": float(report[i, 0]),
                "train_accuracy": float(report[i, 1]),
            }
            if best is not None:
                info["validation_accuracy"] = float(best["accuracy"][i])
            self.tickets.append(Ticket(ticket["params"], ticket["mask"], ticket["model_state"], info))
            if self.run.folder is not None:
                alone = TicketEnsemble(self.run.task, (self.tickets[-1],), self.run.x_spec, self.run.plan)
                alone.save(self.run.folder.ticket(self.first_ticket + len(self.tickets) - 1))
        self.run.line.say(f"{self._name(index)} collected {len(self.rows)} ticket{'s' * (len(self.rows) > 1)}")

    # -- reports, the best so far, checkpoints ----------------------------------------------------------------------

    def _mark(self) -> None:
        self._started, self._examples = time.monotonic(), 0

    def _numbers_now(self) -> dict[str, Any]:
        """The tally as means; waits for the device."""
        tally: Tally = members.fetch(self.state["tally"])
        taken = np.maximum(tally.steps, 1)
        elapsed = time.monotonic() - (self._started or time.monotonic())
        losses, accuracies = tally.loss / taken, tally.correct / taken
        return {
            "loss": float(losses.mean()),
            "accuracy": float(accuracies.mean()),
            "losses": [float(v) for v in losses],
            "accuracies": [float(v) for v in accuracies],
            "density": self._density,
            "examples_per_second": self._examples / max(elapsed, 1e-9),
            "bad_steps": tally.bad_step.tolist(),
        }

    def _check_finite(self, index: int, numbers: dict[str, Any]) -> None:
        for row, bad in zip(self.rows, numbers["bad_steps"], strict=True):
            if bad >= 0:
                kept = f" Tickets collected before are in {self.run.folder.tickets}." if self.run.folder else ""
                raise NonFiniteLoss(
                    f"the loss of member {row} became NaN or infinite at step {bad}, in phase {index + 1}, "
                    f"{describe(self.run.plan.phases[index])}. A lower learning rate or a warm-up is the usual cure.{kept}"
                )

    def _report(self, index: int, phase: Train, done: int, steps: int) -> dict[str, Any]:
        """The tally to `metrics.jsonl`; a new tally begins."""
        numbers = self._numbers_now()
        self._check_finite(index, numbers)
        lineage: lineages.Lineage = self.state["lineage"]
        densities = [masks.density(mask) for mask in _split(members.fetch(lineage.mask), len(self.rows))]
        numbers["density"] = self._density = float(np.mean(densities))
        record: dict[str, Any] = {
            "group": self.number,
            "phase": index,
            "step_in_phase": done,
            "name": _short(phase),
            "step": self._steps_before(index) + done,
            "epoch": (self._steps_before(index) + done) / self.feed.steps_per_epoch,
            "lineages": list(self.rows),
            "lr": phase.lr(done - 1, steps),
            "drop_fraction": phase.evolve.fraction_at(done - 1, steps) if phase.evolve else 0.0,
            "loss": numbers["losses"],
            "accuracy": numbers["accuracies"],
            "density": densities,
            "examples_per_second": round(numbers["examples_per_second"], 1),
            "seconds": round(self.clock(), 3),
        }
        if "best" in self.state:
            record["validation_accuracy"] = self._track_best()
        if self.run.folder is not None:
            self.run.folder.append_metrics(record)
        report = np.asarray([numbers["losses"], numbers["accuracies"]], np.float32).T
        self.state["report"] = members.place(report, self.run.layout, "member")
        self.state["tally"] = self._empty_tally()
        return numbers

    def _no_best(self, lineage: lineages.Lineage) -> dict[str, PyTree]:
        network = {"params": lineage.params, "mask": lineage.mask, "model_state": lineage.model_state}
        accuracy = members.place(jnp.full(len(self.rows), -1.0, jnp.float32), self.run.layout, "member")
        return {"accuracy": accuracy, "network": jax.tree.map(lambda a: a.copy(), network)}

    def _track_best(self) -> list[float]:
        """Validation accuracy of every member; the best network of each is kept."""
        lineage: lineages.Lineage = self.state["lineage"]
        network = {"params": lineage.params, "mask": lineage.mask, "model_state": lineage.model_state}
        host = members.fetch(network)
        tickets = tuple(Ticket(t["params"], t["mask"], t["model_state"], {}) for t in _split(host, len(self.rows)))
        assert self.run.held is not None
        ensemble = TicketEnsemble(self.run.task, tickets, self.run.x_spec)
        right = ensemble.member_log_proba(self.run.held).argmax(-1) == self.run.held.y
        accuracy = right.mean(1, dtype=np.float32)
        best = self.state["best"]
        self.state["best"] = jax.jit(_better)(best, {"accuracy": accuracy, "network": network})
        return [float(a) for a in accuracy]

    def _save(self, index: int, done: int) -> None:
        self._saved = time.monotonic()
        if self.run.checkpoints is None:
            return
        self._check_finite(index, self._numbers_now())
        place = Place(
            self.number, index, done, self.first_ticket + len(self.tickets), self.clock(), self.run.programs.seconds
        )
        self.run.checkpoints.save(self.state, dataclasses.asdict(place))

    # -- small things -----------------------------------------------------------------------------------------------

    def _program(self, signature: tuple[Any, ...], step: Any, mapped: tuple[bool, ...], args: Any, **how: Any) -> Any:
        across = self.run.layout.across
        return self.run.programs.get((*signature, len(self.rows)), lambda: members.over_members(step, mapped, across), args, **how)

    def _empty_tally(self) -> Tally:
        return members.place(lineages.empty_tally(len(self.rows)), self.run.layout, "member")

    def _read_ticket(self, index: int) -> Ticket:
        assert self.run.folder is not None
        return load(self.run.folder.ticket(index), self.run.task).tickets[0]

    def _name(self, index: int) -> str:
        several = self.run.plan.width > len(self.rows)
        who = f"member {self.rows.start + 1}/{self.run.plan.width}" if len(self.rows) == 1 else f"members {self.rows.start + 1}-{self.rows.stop}"
        return (f"[{who}] " if several else "") + f"{index + 1}/{len(self.run.plan.phases)}"


def _better(best: PyTree, now: PyTree) -> PyTree:
    """Member by member, the network of higher accuracy; the earlier of equals."""
    wins = now["accuracy"] > best["accuracy"]
    return jax.tree.map(lambda a, b: jnp.where(wins.reshape(wins.shape + (1,) * (a.ndim - 1)), b, a), best, now)


def _split(tree: PyTree, count: int) -> list[PyTree]:
    return [members.member(tree, i) for i in range(count)]


def _short(phase: Train) -> str:
    return f"Train {phase.length}" + (", evolving" if phase.evolve else "")


def _without_numbers(evolve: Evolve | None) -> Evolve | None:
    """What of prune-grow is part of the program; the drop fraction and its schedule enter as numbers."""
    return evolve and dataclasses.replace(evolve, drop_fraction=0.0, decay="constant", end=1.0)
