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
from jaxtickets.engine import checks
from jaxtickets.engine.checkpoints import Checkpoints
from jaxtickets.engine.feed import hold_out, make_feed
from jaxtickets.engine.group import GroupRun
from jaxtickets.engine.programs import Programs
from jaxtickets.engine.progress import ProgressLine
from jaxtickets.engine.run import Place, Run
from jaxtickets.engine.run_folder import RunFolder, versions, write_json
from jaxtickets.ensemble import Ticket, TicketEnsemble
from jaxtickets.members import Layout
from jaxtickets.plan import Plan
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
    checkpoint_every: float = 60.0,
    progress: bool = True,
) -> TicketEnsemble:
    """Run `plan` and return its tickets.

    Every lineage has its own key, `fold_in(key, i)`, from which its weights, mask, data order, augmentation and dropout
    come; lineage i is the same, bit for bit on one backend, whatever the others are.

    Args:
      plan: the method (see `jaxtickets.methods`).
      task: the network and its loss.
      train: a `Dataset`, a `Stream`, or a pair of arrays `(x, y)`. Test data has no business here.
      key: an int, a JAX key, or one key per lineage.
      out: run folder. A run that was interrupted goes on from its last checkpoint when `fit` is called again with the
        same arguments, and ends in the same bits; a finished one is loaded.
      layout: how members lie on the hardware; by default chosen for the backend.
      checkpoint_every: seconds between checkpoints; 0 for one after every call of the compiled step.
      progress: show a progress line (on standard error).

    Returns:
      The tickets in the order lineage by lineage, and within a lineage as collected.

    Raises:
      DataError: data that cannot be trained on, or that the network cannot take.
      MaskError: a sparsity or rules that the network's layers cannot meet.
      ValueError: a `key` or `layout` that does not fit the plan.
      NonFiniteLoss: a loss became NaN or infinite; what was collected before is in `out/tickets`.
      RunError: `out` holds a run of another plan, network, data set or key, or is in use by another process.

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
    layout = layout or members.default_layout(plan.width)
    checks.check_layout(plan, layout)
    checks.check_batch(plan.batch_size, len(fitted), layout)
    example = checks.example_of(fitted)
    params, x_spec = checks.check_model(plan, task, fitted, example)
    # Nothing is wrong.
    keys = members.member_keys(key, plan.width)
    if out is None:
        return _run(plan, task, fitted, held, example, x_spec, keys, layout, None, checkpoint_every, progress)
    with RunFolder(out, _identity(plan, task, data, key, params)) as folder:
        if folder.final.exists():
            return load(folder.final, task)
        return _run(plan, task, fitted, held, example, x_spec, keys, layout, folder, checkpoint_every, progress)


def _run(
    plan: Plan,
    task: Task,
    data: Dataset | Stream,
    held: Dataset | None,
    example: PyTree,
    x_spec: PyTree,
    keys: jax.Array,
    layout: Layout,
    folder: RunFolder | None,
    checkpoint_every: float,
    progress: bool,
) -> TicketEnsemble:
    if isinstance(data, Dataset):
        example = data.prepare(example)
    checkpoints = Checkpoints(folder.checkpoints) if folder else None
    feed = make_feed(data, plan.batch_size, layout)
    programs = Programs()
    steps, show = plan.width * plan.steps(feed.steps_per_epoch), progress and jax.process_index() == 0
    line = ProgressLine(steps, show, compiling=lambda: programs.seconds)
    run = Run(plan, task, feed, held, example, x_spec, keys, layout, programs, line, folder, checkpoints, checkpoint_every)
    try:
        tickets, seconds = _run_groups(run)
    finally:
        line.close()
        if checkpoints:
            checkpoints.close()
    # Groups of any size give one order: lineage by lineage, and within a lineage as collected.
    tickets.sort(key=lambda ticket: (ticket.info["lineage"], ticket.info["collected"]))
    ensemble = TicketEnsemble(task, tuple(tickets), x_spec, plan)
    if folder and folder.writes:
        write_json(folder.path / "timing.json", {"seconds": seconds, "compilations": run.programs.count, "versions": versions()})
        ensemble.save(folder.final)
        shutil.rmtree(folder.checkpoints, ignore_errors=True)
    return ensemble


def _run_groups(run: Run) -> tuple[list[Ticket], dict[str, float]]:
    """All groups, one after another, from the newest whole checkpoint on. Returns the tickets and the seconds it took."""
    began = time.monotonic()
    before = compiled = 0.0

    def clock() -> float:
        return before + time.monotonic() - began

    def compiling() -> float:
        return compiled + run.programs.seconds

    groups = [GroupRun(run, g, rows, clock, compiling) for g, rows in enumerate(members.groups(run.plan.width, run.layout))]
    # (A group that this layout does not have cannot be like the last one either, which says so.)
    found = run.checkpoints.newest(lambda p: groups[min(p["group"], len(groups) - 1)].like(Place(**p))) if run.checkpoints else None
    place = Place(**found[0]) if found else Place()
    if found and run.folder:
        before, compiled = place.seconds, place.compile_seconds
        run.folder.truncate_metrics((place.group, place.phase, place.step))
        run.line.say(
            f"going on with {run.folder.path}: group {place.group + 1}, phase {place.phase + 1}, step {place.step}, after {before:.0f} s"
        )
    elif run.folder:
        run.folder.truncate_metrics((-1, -1, -1))
    tickets: list[Ticket] = []
    for group in groups:
        if group.number < place.group:
            tickets += group.collected_before()
        elif found and group.number == place.group:
            tickets += group.go(place, found[1])
        else:
            tickets += group.go()
    total = clock()
    return tickets, {"train": total - compiling(), "compile": compiling(), "total": total}


def _identity(plan: Plan, task: Task, data: Dataset | Stream, key: int | jax.Array, params: PyTree) -> dict[str, Any]:
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
    }


def _name(part: Any) -> Any:
    """What can be said of a function that stays the same from one process to the next: its fields, or its name."""
    if part is None or isinstance(part, bool):
        return part
    if dataclasses.is_dataclass(part):
        return repr(part)
    if isinstance(part, functools.partial):
        return f"{_name(part.func)}{part.args}{part.keywords}"
    return getattr(part, "__qualname__", type(part).__qualname__)
