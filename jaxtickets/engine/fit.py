"""fit: a plan, a task and data in; an ensemble of tickets out."""

from __future__ import annotations

import dataclasses
import functools
import shutil
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxtickets import masks, members
from jaxtickets.arrays import as_dataset
from jaxtickets.dataset import Dataset, Stream
from jaxtickets.engine import checks, moves
from jaxtickets.engine.checkpoints import Checkpoints, digest
from jaxtickets.engine.feed import hold_out, make_feed
from jaxtickets.engine.given import given_network
from jaxtickets.engine.group import Clock, GroupRun
from jaxtickets.engine.lineage import Network, child_key
from jaxtickets.engine.probes import make_probe
from jaxtickets.engine.programs import Programs
from jaxtickets.engine.progress import ProgressLine
from jaxtickets.engine.run import Place, Run, Who
from jaxtickets.engine.run_folder import RunFolder, versions, write_json
from jaxtickets.ensemble import Ticket, TicketEnsemble
from jaxtickets.members import Layout
from jaxtickets.plan import Fork, Plan
from jaxtickets.task import Task
from jaxtickets.ticket_file import load

PyTree = Any


def fit(
    plan: Plan,
    task: Task,
    train: Dataset | Stream | tuple[Any, Any],
    *,
    key: int | jax.Array,
    out: str | Path | None = None,
    layout: Layout | None = None,
    start_from: PyTree | Ticket | TicketEnsemble | str | Path | None = None,
    checkpoint_every: float = 60.0,
    progress: bool = True,
    probe: Dataset | PyTree | None = None,
    probe_every: int = 1,
) -> TicketEnsemble:
    """Run `plan` and return its tickets.

    Every lineage has its own key, `fold_in(key, i)`, from which its weights, mask, data order, augmentation and dropout
    come; lineage i is the same, bit for bit on one backend, whatever the others are. So are the children of a Fork.

    Args:
      plan: the method (see `jaxtickets.methods`).
      task: the network and its loss.
      train: a `Dataset`, a `Stream`, or a pair of arrays `(x, y)`. Test data has no business here.
      key: an int, a JAX key, or one key per lineage.
      out: run folder. A run that was interrupted goes on from its last checkpoint when `fit` is called again with the
        same arguments, and ends in the same bits; a finished one is loaded.
      layout: how members lie on the hardware; by default chosen for the backend.
      start_from: a network trained elsewhere, in place of fresh weights: a tree of params, `(params, model_state)` where
        there are batch statistics, a `Ticket`, an ensemble of one, or a ticket file.
      checkpoint_every: seconds between checkpoints; 0 for one after every call of the compiled step.
      progress: show a progress line (on standard error).
      probe: inputs, a `Dataset` (its labels are not read) or arrays as the network takes them, of which every network's predictions
        are kept along its training: in `out/probe`, read by `jaxtickets.engine.read_probes`. Training is the same without.
      probe_every: epochs between them; besides, there are those before training and at the end of every training phase.

    Returns:
      The tickets in the order lineage by lineage, child by child, and within each as collected. Those of a run folder stay in
      its files and are read when they are asked for.

    Raises:
      DataError: data that cannot be trained on, or that the network cannot take; such inputs of `probe`.
      MaskError: a sparsity or rules that the network's layers cannot meet.
      TicketError: a `start_from` that does not fit the network.
      ValueError: a `key` or `layout` that does not fit the plan; a `probe` without `out`, or not every so many whole epochs.
      NonFiniteLoss: a loss became NaN or infinite; what was collected before is in `out/tickets`.
      RunError: `out` holds a run of another plan, network, data set, key or probe, or is in use by another process.

    >>> import jaxtickets as jt
    >>> train, test = jt.data.pair("digits")
    >>> plan = jt.dst(members=2, sparsity=0.5, epochs=1, batch_size=64)
    >>> tickets = fit(plan, jt.classification(jt.models.WideResNet(10, 1, num_classes=10)), train, key=0, progress=False)
    >>> tickets.predict_proba(test).shape
    (450, 10)
    """
    # Until "nothing is wrong" below nothing is compiled, so that what is wrong is said at once.
    data = train if isinstance(train, Stream) else as_dataset(train)
    checks.check_data(plan, task, data)
    checks.check_key(key, plan.width)
    fitted, held = hold_out(data, plan.validation) if isinstance(data, Dataset) else (data, None)
    together = 1 if plan.sequential else plan.copies(len(plan.phases))
    layout = layout or members.default_layout(together, lineages=min(plan.width, together))
    checks.check_layout(plan, layout)
    checks.check_batch(plan, len(fitted), layout)
    example = checks.example_of(fitted)
    params, model_state, x_spec = checks.check_model(plan, task, fitted, example)
    given = given_network(start_from, task, params, model_state)
    checks.check_given(plan, given)
    units = checks.check_units(plan, task, params, model_state, x_spec)
    probed = make_probe(probe, probe_every, out, task, x_spec)
    # Nothing is wrong.
    keys = members.member_keys(key, plan.width)
    if isinstance(fitted, Dataset):
        example = fitted.prepare(example)
    feed = make_feed(fitted, plan.batch_size, members.for_members(layout, min(layout.group, plan.width)))
    parts = (plan, task, feed, held, example, given, units, x_spec, layout, Programs())
    steps, show = plan.all_steps(feed.steps_per_epoch), progress and jax.process_index() == 0

    def run(folder: RunFolder | None) -> TicketEnsemble:
        line = ProgressLine(steps, show, compiling=lambda: parts[-1].seconds)
        checkpoints = Checkpoints(folder.checkpoints) if folder else None
        try:
            whole = Run(*parts, line, folder, checkpoints, checkpoint_every, probed)
            collected, seconds = _run_groups(whole, keys)
        finally:
            line.close()
            if checkpoints:
                checkpoints.close()
        ensemble = TicketEnsemble(task, moves.in_order(whole, collected), x_spec, plan)
        if folder and folder.writes:
            write_json(folder.path / "timing.json", {"seconds": seconds, "compilations": parts[-1].count, "versions": versions()})
            ensemble.save(folder.final)
            shutil.rmtree(folder.checkpoints, ignore_errors=True)
        return ensemble

    if out is None:
        return run(None)
    identity = _identity(plan, task, data, key, params, given) | ({} if probed is None else {"probe": probed.identity()})
    with RunFolder(out, identity) as folder:
        if not folder.final.exists():
            return run(folder)
        return load(folder.final, task)


def _run_groups(run: Run, keys: jax.Array) -> tuple[list[Ticket | dict[str, Any]], dict[str, float]]:
    """All groups, one after another, from the newest whole checkpoint on. Returns the tickets and the seconds it took."""
    began = time.monotonic()
    before = compiled = 0.0
    clock = Clock(lambda: before + time.monotonic() - began, lambda: compiled + run.programs.seconds)
    tickets: list[Ticket | dict[str, Any]] = []
    lineages = [list(rows) for rows in members.groups(run.plan.width, run.layout)]

    def trunk(number: int) -> GroupRun:
        # (A group that this layout does not have cannot be like the last one either, which says so.)
        rows = lineages[min(number, len(lineages) - 1)]
        return GroupRun(run, number, 0, [Who(row) for row in rows], keys[rows[0] : rows[-1] + 1], tickets, clock)

    def branch(trunk: GroupRun, number: int, parents: PyTree) -> GroupRun:
        fork = run.plan.phases[run.plan.fork or 0]
        rows = [who.lineage for who in trunk.who]
        children = moves.children_of(rows, fork.members if isinstance(fork, Fork) else 1)
        groups = members.groups(len(children), run.layout)
        who = [children[i] for i in groups[min(number, len(groups)) - 1]]
        own = jax.vmap(child_key)(keys[np.asarray([w.lineage for w in who])], jnp.asarray([w.child for w in who], jnp.int32))
        return GroupRun(run, trunk.number, number, who, own, tickets, clock, parents if number < len(groups) else None)

    def at(place: Place) -> GroupRun:
        group = trunk(place.group)
        return branch(group, place.branch, moves.parents_like(group, run.plan.fork)) if place.branch and run.plan.fork else group

    found = run.checkpoints.newest(lambda p: at(Place(**p)).like(Place(**p))) if run.checkpoints else None
    here, state = (Place(**found[0]), found[1]) if found else (None, {})
    del found  # and with it what it holds: a group takes its state over, and lets go of it when it has done
    if here and run.folder:
        before, compiled = here.seconds, here.compile_seconds
        run.folder.truncate_metrics((here.group, here.branch, here.phase, here.step))
        run.line.say(
            f"going on with {run.folder.path}: group {here.group + 1}, phase {here.phase + 1}, step {here.step}, after {before:.0f} s"
        )
        group = at(here)
        tickets += [group.read_ticket(index) for index in range(here.collected)]
        run.line.skip(_steps_of_groups_before(run, here, lineages))
    elif run.folder:
        run.folder.truncate_metrics((-1, -1, -1, -1))
    for number in range(here.group if here else 0, len(lineages)):
        group, parents = trunk(number), None
        if here is None or here.branch == 0:
            group.state, state = state, {}
            group.go(here)
            parents, here = moves.parents_of(group) if run.plan.fork is not None else None, None
            group.state = {}  # the next ones want the memory
        for each in range(here.branch if here else 1, _branches(run, group) + 1):
            child = branch(group, each, parents)
            if here:
                child.parents, child.state, state = state.pop("parents", None), state, {}
            else:
                assert run.plan.fork is not None
                moves.fork(child, run.plan.fork, parents, keys)
            parents = child.parents  # None once no more children follow
            child.go(here)
            child.state, here = {}, None
    total = clock.total()
    return tickets, {"train": total - clock.compiling(), "compile": clock.compiling(), "total": total}


def _branches(run: Run, trunk: GroupRun) -> int:
    """Groups of children that follow a group of lineages."""
    if run.plan.fork is None:
        return 0
    return len(members.groups(len(trunk.who) * run.plan.copies(len(run.plan.phases)) // run.plan.width, run.layout))


def _steps_of_groups_before(run: Run, place: Place, lineages: list[list[int]]) -> int:
    """Training steps that whole groups took before a place, over all their networks."""
    plan, per_epoch = run.plan, run.feed.steps_per_epoch
    whole = sum(len(rows) for rows in lineages[: place.group]) * plan.all_steps(per_epoch) // plan.width
    if not place.branch or plan.fork is None:
        return whole
    own, trunk = lineages[place.group], plan.steps_before(plan.fork, per_epoch)
    groups = members.groups(len(own) * plan.copies(len(plan.phases)) // plan.width, run.layout)[: place.branch - 1]
    return whole + len(own) * trunk + sum(map(len, groups)) * (plan.steps(per_epoch) - trunk)


def _identity(
    plan: Plan, task: Task, data: Dataset | Stream, key: int | jax.Array, params: PyTree, given: Network | None
) -> dict[str, Any]:
    """What makes a run this run and no other, as JSON."""
    shapes = {path: f"{leaf.dtype}{list(leaf.shape)}" for path, leaf in zip(masks.leaf_paths(params), jax.tree.leaves(params), strict=True)}
    about = {"name": data.name, "examples": len(data), "fingerprint": data.fingerprint()}
    if isinstance(data, Dataset):
        about |= {"augment": _name(data.augment), "prepare": _name(data.prepare)}
    if isinstance(key, jax.Array) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        key = jax.random.key_data(key)
    return {
        "plan": plan.to_json(),
        "task": {"name": task.name, "params": shapes, "loss": _name(task.loss), "prunable": [[p, _name(v)] for p, v in task.prunable]},
        "data": about,
        "key": np.asarray(key).tolist(),
    } | ({} if given is None else {"start_from": f"{digest(given):08x}"})


def _name(part: Any) -> Any:
    """What can be said of a function that stays the same from one process to the next: its fields, or its name."""
    if part is None or isinstance(part, bool):
        return part
    if dataclasses.is_dataclass(part):
        return repr(part)
    if isinstance(part, functools.partial):
        return f"{_name(part.func)}{part.args}{part.keywords}"
    return getattr(part, "__qualname__", type(part).__qualname__)
