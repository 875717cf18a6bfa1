"""The phases that take no training: each moves a group's state from one place in the plan to the next."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxtickets import masks, members
from jaxtickets.engine import best as bests
from jaxtickets.engine import lineage as lineages
from jaxtickets.engine.lineage import Lineage, Remembered
from jaxtickets.engine.meter import is_finite
from jaxtickets.engine.run import Run, Who
from jaxtickets.ensemble import Ticket, TicketEnsemble
from jaxtickets.errors import NonFiniteLoss
from jaxtickets.optimizers import Optimizer
from jaxtickets.phases import Collect, Escape, Fork, Prune, Remember, Rewind, Start, describe
from jaxtickets.ticket_file import StoredTickets

if TYPE_CHECKING:
    from jaxtickets.engine.group import GroupRun

PyTree = Any


def start(group: GroupRun, index: int, phase: Start) -> None:
    """Fresh lineages."""
    optimizer = group.optimizer(0)
    step, mapped, args = _start_step(group, optimizer)
    program = group.program(("start", phase, optimizer), step, mapped, args, runs_once=True)
    _begin(group, program(*args))


def _start_step(group: GroupRun, optimizer: Optimizer) -> tuple[Callable[..., Lineage], tuple[bool, ...], tuple[PyTree, ...]]:
    task, phase, given = group.run.task, group.run.plan.start, group.run.given
    args = (group.keys, group.run.example, *(() if given is None else (given,)))
    return lambda key, x, *given: lineages.start(task, phase, optimizer, key, x, *given), (True, False, False)[: len(args)], args


def _begin(group: GroupRun, lineage: Lineage) -> None:
    group.state = {
        "lineage": members.place(lineage, group.layout, "member"),
        "tally": group.empty_tally(),
        "report": members.place(group.no_report(), group.layout, "member"),
    }


def move(group: GroupRun, lineage: Lineage) -> None:
    """The group's next state, lying as programs expect it and checkpoints give it back."""
    group.state["lineage"] = members.place(lineage, group.layout, "member")


def lineage_like(group: GroupRun, index: int) -> Lineage:
    """Shapes of the group's lineages at phase `index`."""
    step, mapped, args = _start_step(group, group.optimizer(index))
    if group.branch:  # any key has the shape of a child's
        args = (group.keys, *args[1:])
    lineage = jax.eval_shape(members.over_members(step, mapped, group.layout.across), *args)
    return jax.eval_shape(jax.vmap(_opened(group)), lineage) if group.run.plan.masked_at(index) else lineage


def open_masks(group: GroupRun) -> None:
    """Masks that can lose weights, if they were marked dense."""
    move(group, jax.jit(jax.vmap(_opened(group)))(group.state["lineage"]))


def _opened(group: GroupRun) -> Callable[[Lineage], Lineage]:
    return lambda lineage: lineages.open_mask(group.run.task, lineage)


def escape(group: GroupRun, index: int, phase: Escape) -> None:
    """One prune-grow with a large drop fraction, on the batch that would come next."""
    feed, place = group.data_at(index)
    batch = feed.batch(*place(0))
    optimizer = group.optimizer_of_moments(index)
    step = lineages.escape_step(group.run.task, optimizer, phase, feed.gather)
    args = (group.state["lineage"], group.keys, np.float32(phase.drop_fraction), *batch)
    signature = ("escape", optimizer, phase.growth, phase.regrown, feed.rows)
    program = group.program(signature, step, (True, True, False, *feed.mapped), args, donate=(0,))
    move(group, program(*args))
    _say(group, index, f"{describe(phase)}: {phase.drop_fraction:.0%} of the active weights replaced")


def prune(group: GroupRun, index: int, phase: Prune) -> None:
    """To a sparsity of the original count."""
    open_masks(group)
    optimizer = group.optimizer_of_moments(index)
    step = lineages.prune_step(group.run.task, optimizer, phase)
    args = (group.state["lineage"], group.keys, np.float32(phase.sparsity))
    signature = ("prune", optimizer, phase.scores, phase.scope, phase.keep_dense)
    move(group, group.program(signature, step, (True, True, False), args, donate=(0,))(*args))
    host = members.fetch(group.state["lineage"].mask)
    densities = ", ".join(f"{masks.density(members.member(host, i)):.3f}" for i in range(len(group.who)))
    _say(group, index, f"{describe(phase)}: density {densities}")


def remember(group: GroupRun, index: int, phase: Remember) -> None:
    """A copy of the weights as they are, if a Rewind asks for it."""
    name = f"remembered {phase.name}"
    if name in group.remembered_by(index + 1):
        group.state[name] = jax.tree.map(jnp.copy, _weights_of(group.state["lineage"]))


def _weights_of(lineage: Lineage) -> Remembered:
    return Remembered(lineage.params, lineage.model_state)


def rewind(group: GroupRun, index: int, phase: Rewind) -> None:
    """Back to remembered weights, under the present mask."""
    optimizer = group.optimizer_of_moments(index)
    args = (group.state["lineage"], group.state[f"remembered {phase.name}"])
    signature = ("rewind", optimizer, phase.keep, group.run.plan.masked_at(index))
    program = group.program(signature, lineages.rewind_step(optimizer, phase), (True, True), args, donate=(0,))
    move(group, program(*args))
    for name in [name for name in group.state if name.startswith("remembered ")]:
        if name not in group.remembered_by(index + 1):
            del group.state[name]
    _say(group, index, describe(phase))


def parents_of(group: GroupRun) -> PyTree:
    """What children need of their parents: the networks, their step, and what is remembered."""
    lineage: Lineage = group.state["lineage"]
    remembered = {name: value for name, value in group.state.items() if name.startswith("remembered ")}
    return {"network": bests.network_of(lineage), "step": lineage.step} | remembered


def parents_like(group: GroupRun, index: int) -> PyTree:
    """Shapes and shardings of what `parents_of` gives at the Fork, phase `index`: the parents lie as their own group did."""
    lineage = lineage_like(group, index - 1)
    remembered = {name: remembered_like(group, name) for name in group.remembered_by(index)}
    return group.placed({"network": bests.network_of(lineage), "step": lineage.step} | remembered)


def remembered_like(group: GroupRun, name: str) -> PyTree:
    """Shapes of what is remembered by that name in the state."""
    phases = group.run.plan.phases
    index = next(i for i, p in enumerate(phases) if isinstance(p, Remember) and f"remembered {p.name}" == name)
    return _weights_of(lineage_like(group, index))


def fork(group: GroupRun, index: int, parents: PyTree, keys: jax.Array) -> None:
    """The group's children, from the networks of their parents' group and the keys of all lineages."""
    phase = group.run.plan.phases[index]
    assert isinstance(phase, Fork)
    rows = np.asarray([who.lineage for who in group.who])
    mine = rows - group.first
    own = members.place(jax.tree.map(lambda a: a[mine], parents), group.layout, "member")
    optimizer = group.optimizer(index)
    numbers = members.place(np.asarray([who.child for who in group.who], np.int32), group.layout, "member")
    parent_keys = members.place(keys[rows], group.layout, "member")
    args = (own["network"], own["step"], parent_keys, numbers)
    step = lineages.fork_step(group.run.task, optimizer, phase, group.run.units)
    program = group.program(("fork", phase, optimizer), step, (True, True, True, True), args, runs_once=True)
    _begin(group, program(*args))
    group.state |= {name: value for name, value in own.items() if name.startswith("remembered ")}


def collect(group: GroupRun, index: int, phase: Collect) -> None:
    """Every network as a ticket."""
    run, lineage = group.run, group.state["lineage"]
    best = group.state.pop("best", None)
    chosen = best if phase.which == "best" and best is not None else {"network": bests.network_of(lineage), "step": lineage.step}
    host, ever_active, report = members.fetch((chosen, lineage.ever_active, group.state["report"]))
    for i, who in enumerate(group.who):
        network = members.member(host["network"], i)
        if not is_finite(network.params):
            raise NonFiniteLoss(
                f"the weights of member {who} became NaN or infinite by step {group.steps_before(index)}, before phase {index + 1}, "
                f"{describe(phase)}. A lower learning rate or a warm-up is the usual cure."
            )
        info = {
            "lineage": who.lineage,
            **({} if who.child is None else {"child": who.child}),
            "collected": sum(isinstance(p, Collect) for p in run.plan.phases[:index]),
            "phase": index,
            "step": int(host["step"][i]),
            "density": masks.density(network.mask),
            "ever_active": masks.density(members.member(ever_active, i)),
            "train_loss": float(report[i, 0]),
            "train_accuracy": float(report[i, 1]),
        }
        if phase.which == "best":
            info["validation_accuracy"] = float(host["accuracy"][i])
        ticket = Ticket(network.params, network.mask, network.model_state, info)
        if run.folder is not None:
            run.folder.save_ticket(TicketEnsemble(run.task, (ticket,), run.x_spec, run.plan), len(group.tickets))
        group.tickets.append(info if run.keeps_tickets_in_files else ticket)
    _say(group, index, f"collected {len(group.who)} ticket{'s' * (len(group.who) > 1)}")


def _say(group: GroupRun, index: int, what: str) -> None:
    group.run.line.say(f"{group.name(index)} {what}")


def in_order(run: Run, collected: Sequence[Ticket | dict[str, Any]]) -> Sequence[Ticket]:
    """Groups of any size give one order: lineage by lineage, child by child, and within each as collected.

    Args:
      run: whose tickets they are.
      collected: in the order of collection; of those that are in files only the info.
    """

    def place(index: int) -> tuple[int, int, int]:
        one = collected[index]
        info = one.info if isinstance(one, Ticket) else one
        return info["lineage"], info.get("child", -1), info["collected"]

    order = sorted(range(len(collected)), key=place)
    if run.folder is not None and run.keeps_tickets_in_files:
        return StoredTickets([run.folder.ticket(i) for i in order], run.task)
    return tuple(one for one in map(collected.__getitem__, order) if isinstance(one, Ticket))


def children_of(rows: Sequence[int], each: int) -> list[Who]:
    """All children of those lineages."""
    return [Who(row, child) for row in rows for child in range(each)]


MOVES: dict[type, Callable[..., None]] = {
    Start: start,
    Escape: escape,
    Prune: prune,
    Remember: remember,
    Rewind: rewind,
    Collect: collect,
}
