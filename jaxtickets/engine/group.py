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
from jaxtickets.engine import best as bests
from jaxtickets.engine import lineage as lineages
from jaxtickets.engine.feed import HostFeed
from jaxtickets.engine.lineage import Numbers, Tally
from jaxtickets.engine.meter import Meter, check_finite, is_finite
from jaxtickets.engine.run import Place, Run
from jaxtickets.ensemble import Ticket, TicketEnsemble
from jaxtickets.errors import NonFiniteLoss, RunError
from jaxtickets.plan import SGD, Collect, Escape, Evolve, Optimizer, Start, Train, describe
from jaxtickets.ticket_file import load

PyTree = Any


class GroupRun:
    """One group of lineages.

    Args:
      run: what it shares with the other groups.
      number: which group, from 0.
      rows: its lineages among all of them.
      clock: seconds that the whole run has taken so far, those before a resume included.
      compiled: how many of them compiling took.
    """

    def __init__(self, run: Run, number: int, rows: range, clock: Callable[[], float], compiled: Callable[[], float]) -> None:
        self.run, self.number, self.rows, self.clock, self.compiled = run, number, rows, clock, compiled
        self.keys = members.place(run.keys[rows.start : rows.stop], run.layout, "member")
        self.feed = run.feed.for_members(self.keys)
        self.first_ticket = rows.start * run.plan.members // run.plan.width
        # What a checkpoint holds, with a leading member axis everywhere: "lineage", "tally", "report" (last loss and
        # accuracy, [W, 2]), and "best" while the best is tracked.
        self.state: dict[str, PyTree] = {}
        self.tickets: list[Ticket] = []
        self.meter = Meter(lambda: run.programs.seconds)
        self._saved = time.monotonic()

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
                self._start(phase)
            elif isinstance(phase, Train):
                self._train(index, phase, done)
            elif isinstance(phase, Escape):
                self._escape(index, phase)
            elif isinstance(phase, Collect):
                self._collect(index, phase)
        self.state = {}  # the next group wants the memory
        return self.tickets

    def collected_before(self) -> list[Ticket]:
        """The tickets of a group that an earlier run finished."""
        count = len(self.rows) * self.run.plan.members // self.run.plan.width
        self.run.line.skip(len(self.rows) * self._steps_before(len(self.run.plan.phases)))
        return [self._read_ticket(self.first_ticket + i) for i in range(count)]

    def like(self, place: Place) -> dict[str, PyTree]:
        """Shapes and shardings of the state that a checkpoint at `place` holds; compiles and computes nothing.

        Raises:
          RunError: it was written with groups of another size.
          FileNotFoundError, TicketFileError: a ticket collected before it is gone or damaged.
        """
        if place.lineages != len(self.rows):
            raise RunError(
                f"the run in {self.run.folder and self.run.folder.path} trains {place.lineages} lineages at a time, and this layout "
                f"{len(self.rows)}; give layout=Layout(group={place.lineages}) to go on, or another out folder."
            )
        for index in range(place.collected):
            self._read_ticket(index)
        start, args = self._start_step(self._optimizer(place.phase))
        lineage = jax.eval_shape(members.over_members(start, (True, False), self.run.layout.across), *args)
        state = {"lineage": lineage, "tally": lineages.empty_tally(len(self.rows)), "report": self._no_report()}
        if self.run.plan.collects_best(place.phase):
            state["best"] = jax.eval_shape(bests.none_yet, lineage)
        target = members.sharding(self.run.layout, "member") or jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        return jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=target), state)

    def _steps_before(self, index: int) -> int:
        trains = (phase for phase in self.run.plan.phases[:index] if isinstance(phase, Train))
        return sum(phase.length.steps(self.feed.steps_per_epoch) for phase in trains)

    def _optimizer(self, index: int) -> Optimizer:
        """The optimizer of phase `index`, or of the next Train after it, or of the last before."""
        phases = self.run.plan.phases
        trains = [phase for phase in (*phases[index:], *reversed(phases[:index])) if isinstance(phase, Train)]
        return trains[0].optimizer if trains else SGD()

    # -- phases ---------------------------------------------------------------------------------------------------

    def _start_step(self, optimizer: Optimizer) -> tuple[Callable[..., lineages.Lineage], tuple[PyTree, ...]]:
        task, phase = self.run.task, self.run.plan.start
        return lambda key, x: lineages.start(task, phase, optimizer, key, x), (self.keys, self.run.example)

    def _start(self, phase: Start) -> None:
        optimizer = self._optimizer(0)
        start, args = self._start_step(optimizer)
        program = self._program(("start", phase, optimizer), start, (True, False), args, runs_once=True)
        self.state = {
            "lineage": members.place(program(*args), self.run.layout, "member"),
            "tally": self._empty_tally(),
            "report": members.place(self._no_report(), self.run.layout, "member"),
        }

    def _train(self, index: int, phase: Train, done: int) -> None:
        steps = phase.length.steps(self.feed.steps_per_epoch)
        before = self._steps_before(index)
        per_call = 1 if isinstance(self.feed, HostFeed) else self.run.layout.steps_per_call
        if done == 0:
            self._prepare_phase(index, phase)
        self.meter.count(self.state["lineage"].mask, len(self.rows))
        self.run.line.phase(f"{self._name(index)} {_short(phase)}", steps, done)
        self.meter.reset()
        shown = time.monotonic()
        beat = None
        while done < steps:
            epoch, position = divmod(before + done, self.feed.steps_per_epoch)
            ahead = min(steps - done, self.feed.steps_per_epoch - position)
            take = per_call if per_call <= ahead else 1
            batch = self.feed.batch(epoch, position)
            jax.block_until_ready(beat)  # the host reads one batch ahead of the device, and is no further ahead than that
            beat = self._call_train(phase, done, steps, take, batch)
            done += take
            self.meter.examples += take * self.run.plan.batch_size * len(self.rows)
            self.run.line.advance(take * len(self.rows))
            if done == steps or position + take == self.feed.steps_per_epoch:
                self.run.line.update(done, self._report(index, phase, done, steps), force=True)
                self.meter.reset()
            elif time.monotonic() - shown > 1:
                shown = time.monotonic()
                self.run.line.update(done, self.meter.read(self.state["tally"]))
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
            self.state["best"] = bests.none_yet(lineage)

    def _optimizer_before(self, index: int) -> Optimizer | None:
        trains = [phase for phase in self.run.plan.phases[:index] if isinstance(phase, Train)]
        return trains[-1].optimizer if trains else None

    def _call_train(self, phase: Train, done: int, steps: int, take: int, batch: tuple[PyTree, ...]) -> jax.Array:
        """`take` training steps in one call. Learning rate and drop fraction enter as numbers."""
        lr = [phase.lr(done + i, steps) for i in range(take)]
        drop = [phase.evolve.fraction_at(done + i, steps) if phase.evolve else 0.0 for i in range(take)]
        numbers = Numbers(np.asarray(lr, np.float32), np.asarray(drop, np.float32))  # type: ignore[arg-type]
        step = lineages.train_step(self.run.task, phase.optimizer, phase.evolve, self.feed.gather)

        def several(lineage: PyTree, tally: Tally, key: jax.Array, numbers: Numbers, *batch: PyTree) -> tuple[PyTree, Tally, jax.Array]:
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
        self.run.line.say(f"{self._name(index)} {describe(phase)}: {phase.drop_fraction:.0%} of the active weights replaced")

    def _collect(self, index: int, phase: Collect) -> None:
        lineage: lineages.Lineage = self.state["lineage"]
        best = self.state.pop("best", None)
        chosen = best if phase.which == "best" and best is not None else {"network": bests.network_of(lineage), "step": lineage.step}
        host, ever_active, report = members.fetch((chosen, lineage.ever_active, self.state["report"]))
        for i, row in enumerate(self.rows):
            ticket = members.member(host["network"], i)
            if not is_finite(ticket["params"]):
                raise NonFiniteLoss(
                    f"the weights of member {row} became NaN or infinite by step {self._steps_before(index)}, before phase {index + 1}, "
                    f"{describe(phase)}. A lower learning rate or a warm-up is the usual cure."
                )
            info = {
                "lineage": row,
                "collected": sum(isinstance(p, Collect) for p in self.run.plan.phases[:index]),
                "phase": index,
                "step": int(host["step"][i]),
                "density": masks.density(ticket["mask"]),
                "ever_active": masks.density(members.member(ever_active, i)),
                "train_loss": float(report[i, 0]),
                "train_accuracy": float(report[i, 1]),
            }
            if phase.which == "best":
                info["validation_accuracy"] = float(host["accuracy"][i])
            self.tickets.append(Ticket(ticket["params"], ticket["mask"], ticket["model_state"], info))
            if self.run.folder is not None:
                alone = TicketEnsemble(self.run.task, (self.tickets[-1],), self.run.x_spec, self.run.plan)
                self.run.folder.save_ticket(alone, self.first_ticket + len(self.tickets) - 1)
        self.run.line.say(f"{self._name(index)} collected {len(self.rows)} ticket{'s' * (len(self.rows) > 1)}")

    # -- reports and checkpoints ------------------------------------------------------------------------------------

    def _report(self, index: int, phase: Train, done: int, steps: int) -> dict[str, Any]:
        """The tally to `metrics.jsonl`; a new tally begins."""
        lineage: lineages.Lineage = self.state["lineage"]
        self.meter.count(lineage.mask, len(self.rows))
        numbers = self.meter.read(self.state["tally"])
        check_finite(self.run.plan, index, self.rows, numbers["bad_steps"], self.run.folder)
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
            "density": self.meter.densities,
            "examples_per_second": round(numbers["examples_per_second"], 1),
            "seconds": round(self.clock(), 3),
        }
        if "best" in self.state:
            network = bests.network_of(lineage)
            accuracy = bests.validation_accuracy(self.run, network, len(self.rows))
            now = {"accuracy": accuracy, "step": lineage.step, "network": network}
            self.state["best"] = bests.better(self.state["best"], now)
            record["validation_accuracy"] = [float(a) for a in accuracy]
        if self.run.folder is not None:
            self.run.folder.append_metrics(record)
        report = np.asarray([numbers["losses"], numbers["accuracies"]], np.float32).T
        self.state["report"] = members.place(report, self.run.layout, "member")
        self.state["tally"] = self._empty_tally()
        return numbers

    def _save(self, index: int, done: int) -> None:
        self._saved = time.monotonic()
        if self.run.checkpoints is None:
            return
        host = members.fetch(self.state)
        check_finite(self.run.plan, index, self.rows, host["tally"].bad_step.tolist(), self.run.folder)
        if not is_finite(host["lineage"].params):
            return  # the next step's loss ends the run; the checkpoint before stays the newest
        place = Place(
            group=self.number,
            phase=index,
            step=done,
            collected=self.first_ticket + len(self.tickets),
            lineages=len(self.rows),
            seconds=self.clock(),
            compile_seconds=self.compiled(),
        )
        self.run.checkpoints.save(self.state, host, dataclasses.asdict(place))

    # -- small things -----------------------------------------------------------------------------------------------

    def _program(self, signature: tuple[Any, ...], step: Any, mapped: tuple[bool, ...], args: Any, **how: Any) -> Any:
        across = self.run.layout.across
        return self.run.programs.get((*signature, len(self.rows)), lambda: members.over_members(step, mapped, across), args, **how)

    def _empty_tally(self) -> Tally:
        return members.place(lineages.empty_tally(len(self.rows)), self.run.layout, "member")

    def _no_report(self) -> np.ndarray:
        return np.zeros((len(self.rows), 2), np.float32)

    def _read_ticket(self, index: int) -> Ticket:
        assert self.run.folder is not None
        return load(self.run.folder.ticket(index), self.run.task).tickets[0]

    def _name(self, index: int) -> str:
        several = self.run.plan.width > len(self.rows)
        who = f"member {self.rows.start + 1}" if len(self.rows) == 1 else f"members {self.rows.start + 1}-{self.rows.stop}"
        return (f"{who} of {self.run.plan.width}, " if several else "") + f"phase {index + 1} of {len(self.run.plan.phases)}:"


def _short(phase: Train) -> str:
    return f"Train {phase.length}" + (", evolving" if phase.evolve else "")


def _without_numbers(evolve: Evolve | None) -> Evolve | None:
    """What of prune-grow is part of the program; the drop fraction and its schedule enter as numbers."""
    return evolve and dataclasses.replace(evolve, drop_fraction=0.0, decay="constant", end=1.0)
