"""The training of a group of networks: the one loop over steps, its reports and its checkpoints."""

from __future__ import annotations

import dataclasses
import functools
import time
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxtickets import members
from jaxtickets.engine import best as bests
from jaxtickets.engine import lineage as lineages
from jaxtickets.engine import moves, probes
from jaxtickets.engine.checkpoints import Checkpoints
from jaxtickets.engine.feed import HostFeed
from jaxtickets.engine.lineage import Lineage, Numbers, Pruning, Tally
from jaxtickets.engine.meter import check_finite, is_finite
from jaxtickets.engine.optimizer import build_optimizer
from jaxtickets.engine.penalty import coefficients
from jaxtickets.engine.run import Place
from jaxtickets.plan import Evolve, Gradual, Train

if TYPE_CHECKING:
    from jaxtickets.engine.group import GroupRun

PyTree = Any


def train(group: GroupRun, index: int, phase: Train, done: int) -> None:
    """Phase `index` to its end, from `done` steps on."""
    data = feed, place = group.data_at(index)
    steps = phase.steps(group.run.feed.steps_per_epoch)
    per_call = 1 if isinstance(feed, HostFeed) else group.layout.steps_per_call
    if done == 0:
        _prepare_phase(group, index, phase)
        if group.branch == 0 and group.steps_before(index) == 0:
            probes.record(group, 0, 0.0)
    pull = coefficients(group, phase.penalty)
    group.meter.count(group.state["lineage"].mask, len(group.who))
    group.run.line.phase(f"{group.name(index)} {_short(phase)}", steps, done)
    group.meter.reset()
    shown = time.monotonic()
    beat = None
    while done < steps:
        epoch, position = place(done)
        ahead = min(steps - done, feed.steps_per_epoch - position)
        take = per_call if per_call <= ahead else 1
        beat = _steps(group, index, phase, done, take, data, pull, beat)
        done += take
        group.meter.examples += take * group.run.plan.batch_size * len(group.who)
        group.run.line.advance(take * len(group.who))
        whole = position + take == feed.steps_per_epoch
        if done == steps or whole:
            group.run.line.update(done, _report(group, index, phase, done), force=True)
            if probes.due(group, epoch + 1 if whole else None, done == steps):
                probes.record(group, group.steps_before(index) + done, _epochs(group, index, phase, done))
            group.meter.reset()
        elif time.monotonic() - shown > 1:
            shown = time.monotonic()
            group.run.line.update(done, group.meter.read(group.state["tally"]))
        if group.run.checkpoints is not None and group.run.checkpoints.age() >= group.run.checkpoint_every:
            _save(group, group.run.checkpoints, index, done)


def _prepare_phase(group: GroupRun, index: int, phase: Train) -> None:
    """What a training phase starts with: fresh moments if the optimizer is another one, no best yet."""
    group.state["tally"] = group.empty_tally()
    group.state.pop("best", None)
    if isinstance(phase.evolve, Gradual):
        moves.open_masks(group)
    lineage: Lineage = group.state["lineage"]
    if group.optimizer_before(index) not in (None, phase.optimizer):
        build = build_optimizer(phase.optimizer, 0.0)
        moves.move(group, lineage._replace(moments=jax.jit(jax.vmap(build.init))(lineage.params)))
    if group.run.plan.collects_best(index):
        group.state["best"] = bests.none_yet(group.state["lineage"])


def _steps(
    group: GroupRun, index: int, phase: Train, done: int, take: int, data: tuple[Any, Any], pull: PyTree, beat: jax.Array | None
) -> jax.Array:
    """`take` training steps in one call. Learning rate, drop fraction, momentum and the penalty's strength enter as numbers.

    Returns what is there when the call is done: the next one waits for it, with its batch read.
    """
    feed, place = data
    batch, length = feed.batch(*place(done)), feed.length(*place(done), take)
    jax.block_until_ready(beat)
    steps = phase.steps(group.run.feed.steps_per_epoch)
    at = range(done, done + take)
    numbers = Numbers(
        np.asarray([phase.lr(i, steps) for i in at], np.float32),  # type: ignore[arg-type]
        np.asarray([_drop_fraction(phase, i, steps) for i in at], np.float32),  # type: ignore[arg-type]
        np.asarray([phase.momentum(i, steps) if phase.momentum else 0.0 for i in at], np.float32),  # type: ignore[arg-type]
        np.asarray([phase.penalty.strength(i, steps) if phase.penalty else 0.0 for i in at], np.float32),  # type: ignore[arg-type]
    )
    evolve = _evolution(group, index, phase, steps)
    penalty = phase.penalty and dataclasses.replace(phase.penalty, strength=0.0)  # which enters as a number
    gather = functools.partial(feed.gather, length=length)
    step = lineages.train_step(group.run.task, phase.optimizer, evolve, penalty, phase.momentum is not None, gather)

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

    args = (group.state["lineage"], group.state["tally"], group.keys, numbers, pull, *batch)
    masked = group.run.plan.masked_at(index)
    signature = ("train", phase.optimizer, evolve, penalty, phase.momentum is not None, take, masked, feed.rows, length)
    program = group.program(signature, several, (True, True, True, False, True, *feed.mapped), args, donate=(0, 1))
    group.state["lineage"], group.state["tally"], done_when = program(*args)
    return done_when


def _evolution(group: GroupRun, index: int, phase: Train, steps: int) -> Evolve | Pruning | None:
    """How the mask evolves, without what enters as a number."""
    if isinstance(phase.evolve, Gradual):
        begin, end = phase.evolve.steps(steps)
        before = group.steps_before(index)
        return Pruning(phase.evolve, before + begin, before + end, group.run.plan.sparsity_before(index))
    return phase.evolve and dataclasses.replace(phase.evolve, drop_fraction=0.0, decay="constant", end=1.0)


def _report(group: GroupRun, index: int, phase: Train, done: int) -> dict[str, Any]:
    """The tally to `metrics.jsonl`; a new tally begins."""
    lineage: Lineage = group.state["lineage"]
    group.meter.count(lineage.mask, len(group.who))
    numbers = group.meter.read(group.state["tally"])
    check_finite(group.run.plan, index, group.who, numbers["bad_steps"], group.run.folder)
    steps = phase.steps(group.run.feed.steps_per_epoch)
    record: dict[str, Any] = {
        "group": group.number,
        "branch": group.branch,
        "phase": index,
        "step_in_phase": done,
        "name": _short(phase),
        "step": group.steps_before(index) + done,
        "epoch": _epochs(group, index, phase, done),
        "lineages": [who.lineage for who in group.who],
        "children": [who.child for who in group.who],
        "lr": phase.lr(done - 1, steps),
        "drop_fraction": _drop_fraction(phase, done - 1, steps),
        "loss": numbers["losses"],
        "accuracy": numbers["accuracies"],
        "density": group.meter.densities,
        "examples_per_second": round(numbers["examples_per_second"], 1),
        "seconds": round(group.clock.total(), 3),
    }
    if "best" in group.state:
        network = bests.network_of(lineage)
        accuracy = bests.validation_accuracy(group.run, network, len(group.who))
        now = {"accuracy": accuracy, "step": lineage.step, "network": network}
        group.state["best"] = bests.better(group.state["best"], now)
        record["validation_accuracy"] = [float(a) for a in accuracy]
    if group.run.folder is not None:
        group.run.folder.append_metrics(record)
    report = np.asarray([numbers["losses"], numbers["accuracies"]], np.float32).T
    group.state["report"] = members.place(report, group.layout, "member")
    group.state["tally"] = group.empty_tally()
    return numbers


def _epochs(group: GroupRun, index: int, phase: Train, done: int) -> float:
    """Epochs of one network's training until `done` steps of phase `index`."""
    per_epoch = group.run.feed.steps_per_epoch
    before = [p.length.epochs(p.steps_per_epoch(per_epoch)) for p in group.run.plan.phases[:index] if isinstance(p, Train)]
    return sum(before) + done / phase.steps_per_epoch(per_epoch)


def _save(group: GroupRun, checkpoints: Checkpoints, index: int, done: int) -> None:
    state = group.state | ({} if group.parents is None else {"parents": group.parents})
    host = members.fetch(state)
    check_finite(group.run.plan, index, group.who, host["tally"].bad_step.tolist(), group.run.folder)
    if not is_finite(host["lineage"].params):
        return  # the next step's loss ends the run; the checkpoint before stays the newest
    place = Place(
        group=group.number,
        branch=group.branch,
        phase=index,
        step=done,
        collected=len(group.tickets),
        who=group.who,
        together=group.run.layout.group,
        seconds=group.clock.total(),
        compile_seconds=group.clock.compiling(),
    )
    checkpoints.save(state, host, dataclasses.asdict(place))


def _short(phase: Train) -> str:
    return f"Train {phase.length}" + (", evolving" if isinstance(phase.evolve, Evolve) else ", pruning" if phase.evolve else "")


def _drop_fraction(phase: Train, step: int, steps: int) -> float:
    return phase.evolve.fraction_at(step, steps) if isinstance(phase.evolve, Evolve) else 0.0
