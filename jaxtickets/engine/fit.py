"""fit: a plan, a task and data in; an ensemble of tickets out."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxtickets import masks, members
from jaxtickets.arrays import as_dataset
from jaxtickets.dataset import Dataset, Stream
from jaxtickets.engine.checkpoints import Checkpoints
from jaxtickets.engine.feed import check_batch, hold_out
from jaxtickets.engine.group import GroupRun, Place, Run
from jaxtickets.engine.programs import Programs
from jaxtickets.engine.progress import ProgressLine
from jaxtickets.engine.run_folder import RunFolder, versions, write_json
from jaxtickets.ensemble import Ticket, TicketEnsemble
from jaxtickets.errors import DataError
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
      checkpoint_every: seconds between checkpoints.
      progress: show a progress line (on standard error).

    Returns:
      The tickets in the order lineage by lineage, and within a lineage as collected.

    Raises:
      DataError: data that cannot be trained on.
      MaskError: a sparsity or rules that the network's layers cannot meet.
      NonFiniteLoss: a loss became NaN or infinite; what was collected before is in `out/tickets`.
      RunError: `out` holds a run of another plan, data set or key.

    >>> import jaxtickets as jt
    >>> train, test = jt.data.pair("digits")
    >>> plan = jt.dst(members=2, sparsity=0.5, epochs=1, batch_size=64)
    >>> tickets = fit(plan, jt.classification(jt.models.WideResNet(10, 1, num_classes=10)), train, key=0, progress=False)
    >>> tickets.predict_proba(test).shape
    (450, 10)
    """
    data = train if isinstance(train, Stream) else as_dataset(train)
    if len(data) == 0:
        raise DataError(f"{data.name} is empty: there is nothing to train on.")
    if plan.validation and not isinstance(data, Dataset):
        raise DataError("a plan with a validation split needs data in memory; hold the split out of the stream yourself.")
    if data.num_classes != task.num_classes:
        raise DataError(f"{data.name} has {data.num_classes} classes and {task.name} tells {task.num_classes} apart; make them equal.")
    held = None
    fitted = data
    if isinstance(data, Dataset):
        fitted, held = hold_out(data, plan.validation)
    example, x_spec = _example(fitted)
    layout = layout or members.default_layout(plan.width)
    if plan.width % layout.group and layout.mesh is not None:
        raise ValueError(f"{plan.width} members do not divide into groups of {layout.group} on a mesh.")
    check_batch(plan.batch_size, len(fitted), layout)
    keys = members.member_keys(key, plan.width)
    params = _check_model(plan, task, example)

    folder = None
    if out is not None:
        folder = RunFolder(out, _identity(plan, task, data, keys, params))
        if folder.final.exists():
            return load(folder.final, task)
    steps = plan.width * plan.steps(max(1, len(fitted) // plan.batch_size))
    checkpoints = Checkpoints(folder.checkpoints) if folder else None
    line, programs = ProgressLine(steps, progress), Programs()
    run = Run(
        plan, task, fitted, held, example, x_spec, keys, layout, programs, line, folder, checkpoints, checkpoint_every
    )  # fmt: skip
    try:
        tickets, seconds = _run_groups(run)
    finally:
        line.close()
        if checkpoints:
            checkpoints.close()
    # Groups of any size give one order: lineage by lineage, and within a lineage as collected.
    tickets.sort(key=lambda ticket: (ticket.info["lineage"], ticket.info["collected"]))
    ensemble = TicketEnsemble(task, tuple(tickets), x_spec, plan)
    if folder:
        write_json(folder.path / "timing.json", {"seconds": seconds, "compilations": programs.count, "versions": versions()})
        ensemble.save(folder.final)
        shutil.rmtree(folder.checkpoints, ignore_errors=True)
    return ensemble


def _run_groups(run: Run) -> tuple[list[Ticket], dict[str, float]]:
    """All groups, one after another, from the newest whole checkpoint on. Returns the tickets and the seconds it took."""
    began = time.monotonic()
    before = 0.0

    def clock() -> float:
        return before + time.monotonic() - began

    groups = [GroupRun(run, g, rows, clock) for g, rows in enumerate(members.groups(run.plan.width, run.layout))]
    found = run.checkpoints.newest(lambda place: groups[place["group"]].like(Place(**place))) if run.checkpoints else None
    place = Place(**found[0]) if found else Place()
    if found and run.folder:
        before = place.seconds
        run.programs.seconds += place.compile_seconds
        run.folder.truncate_metrics((place.group, place.phase, place.step))
        run.line.say(f"resuming {run.folder.path} at phase {place.phase + 1}, step {place.step}, after {before:.0f} s")
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
    total, compiling = clock(), run.programs.seconds
    return tickets, {"train": total - compiling, "compile": compiling, "total": total}


def _example(data: Dataset | Stream) -> tuple[PyTree, PyTree]:
    """Two examples as the network takes them, and their shape and dtype without the batch axis."""
    if isinstance(data, Dataset):
        x = data.prepare(jax.tree.map(lambda a: np.asarray(a[:2]), data.x))
    else:
        x = jax.tree.map(lambda a: np.asarray(a[:1]), next(iter(data.batches(0, 0, 1)))[0])
    return x, jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape[1:], a.dtype), x)


def _check_model(plan: Plan, task: Task, example: PyTree) -> PyTree:
    """Trace the network once, compiling nothing: wrong shapes, rules and budgets are found here."""
    from jaxtickets.sparsity import layer_budgets, prunable_shapes

    params, _ = jax.eval_shape(task.init, jax.random.key(0), example)
    start = plan.start
    if start.sparsity:
        layer_budgets(prunable_shapes(params, task.prunable), start.sparsity, start.distribution, start.keep_dense)
    return params


def _identity(plan: Plan, task: Task, data: Dataset | Stream, keys: jax.Array, params: PyTree) -> dict[str, Any]:
    shapes = [f"{path} {leaf.dtype}{list(leaf.shape)}" for path, leaf in zip(masks.leaf_paths(params), jax.tree.leaves(params), strict=True)]
    return {
        "plan": plan.to_json(),
        "task": {"name": task.name, "params": shapes},
        "data": {"name": data.name, "examples": len(data), "fingerprint": data.fingerprint()},
        "keys": np.asarray(jax.random.key_data(keys)).tolist(),
    }
