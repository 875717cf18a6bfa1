"""fit: a plan, a task and data in; an ensemble of tickets out."""

from __future__ import annotations

import contextlib
import functools
import math
import numbers
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax

from jaxtickets import members
from jaxtickets.dataset import Dataset, Stream
from jaxtickets.dataset.arrays import as_dataset
from jaxtickets.engine import checkpoints as stored
from jaxtickets.engine import checks, hosts, smaller_checks
from jaxtickets.engine.auto_layout import Chosen, choose
from jaxtickets.engine.candidates import AutoLayout, Candidates, candidates, check_asked
from jaxtickets.engine.checkpoints import Checkpoints
from jaxtickets.engine.driver import drive
from jaxtickets.engine.feed import hold_out
from jaxtickets.engine.finite import check_prepared
from jaxtickets.engine.given import given_network
from jaxtickets.engine.host_rows import make_feed
from jaxtickets.engine.identity import identity_of
from jaxtickets.engine.kept_layout import keep_layout, kept_layout
from jaxtickets.engine.network_units import UnitsOf
from jaxtickets.engine.preemption import Notice, preemption
from jaxtickets.engine.probes import Probe, make_probe
from jaxtickets.engine.programs import Programs
from jaxtickets.engine.progress import ProgressLine
from jaxtickets.engine.recorder import Recorder
from jaxtickets.engine.run import Run, RunOfLayout, groups_of
from jaxtickets.engine.run_folder import RunFolder, out_folder
from jaxtickets.engine.state import Network, Weights, of_network
from jaxtickets.engine.ticket_log import TicketLog
from jaxtickets.engine.traces import Traced
from jaxtickets.engine.versions import versions
from jaxtickets.files import paths
from jaxtickets.members import Layout
from jaxtickets.plan import Plan
from jaxtickets.plan.plan import check_plan_and_task
from jaxtickets.task import Task
from jaxtickets.tickets.ensemble import TicketEnsemble
from jaxtickets.tickets.ticket import Ticket
from jaxtickets.tracing.index_ranges import check_values
from jaxtickets.tracing.precision import in_32_bits

PyTree = Any


@in_32_bits
def fit(
    plan: Plan,
    task: Task,
    train: Dataset | Stream | tuple[Any, Any],
    *,
    key: int | jax.Array,
    out: str | Path | None = None,
    layout: Layout | AutoLayout | None = None,
    start_from: PyTree | Ticket | TicketEnsemble | str | Path | None = None,
    checkpoint_every: float = 60.0,
    progress: bool = True,
    probe: Dataset | PyTree | None = None,
    probe_every: int = 1,
) -> TicketEnsemble:
    """Run `plan` and return its tickets.

    Every lineage has its own key, `fold_in(key, i)`, from which its weights, mask, data order,
    augmentation and dropout come; lineage i is the same whatever the others are, and so are the
    children of a Fork: bit for bit on one backend where groups are of one size; between layouts but
    for rounding, which in time moves masks (see `Layout`).

    Args:
      plan: the method (see `jaxtickets.methods`).
      task: the network and its loss.
      train: a `Dataset`, a `Stream`, or a pair of arrays `(x, y)`. Test data has no business here.
      key: an int, a JAX key, or one key per lineage.
      out: run folder: empty, not there yet, or of this run. A run that was interrupted goes on from
        its last checkpoint when `fit` is called again with the same arguments, and ends in the same
        bits; a finished one is loaded.
      layout: how members lie on the hardware; by default chosen for backend, network and memory,
        as `AutoLayout` says, of which one can be given too. A run that goes on takes the layout
        that it began with.
      start_from: a network trained elsewhere, in place of fresh weights: a tree of params,
        `(params, model_state)` where there are batch statistics, a `Ticket`, an ensemble of one, or
        a ticket file. A ticket whose dead units were cut out starts as the smaller network that it
        is.
      checkpoint_every: seconds between checkpoints; 0 for one after every call of the compiled
        step.
      progress: show a progress line (on standard error).
      probe: inputs, a `Dataset` (its labels are not read) or arrays as the network takes them, of
        which every network's predictions are kept along its training: in `out/probe`, read by
        `jaxtickets.engine.read_probes`. Training is the same without.
      probe_every: epochs between them; besides, there are those before training and at the end of
        every training phase.

    Returns:
      The tickets in the order lineage by lineage, child by child, and within each as collected.
      Those of a run folder stay in its files and are read when they are asked for.

    Raises:
      DataError: data that cannot be trained on, or that the network cannot take; such inputs of
        `probe`.
      MaskError: a sparsity or rules that the network's layers cannot meet.
      TicketError: a `start_from` that does not fit the network.
      PlanError: a `layout` that is none, or a memory that JAXTICKETS_DEVICE_MEMORY cannot state.
      ValueError: a `key` or `layout` that does not fit the plan; a `probe` without `out`, or not
        every so many whole epochs; a `checkpoint_every` that is no number of seconds.
      NonFiniteLoss: a loss became NaN or infinite; what was collected before is in `out/tickets`.
      Preempted: SIGTERM came, which clouds and schedulers send before they take a machine: with
        `out` the run is saved at its next step and goes on from there when it is called again. It
        is a `SystemExit`: where nobody catches it, the process ends with status 75. A second
        SIGTERM ends the process at once.
      RunError: `out` holds a run of another plan, network, data set, key or probe, or what is no
        run, or is in use by another process; it cannot be read or written (a full disk, say), in
        one sentence that says how to go on. Of several hosts: one of them has another plan, data
        set, key or code, failed, or does not see the folder.

    >>> import jaxtickets as jt
    >>> train, test = jt.data.pair("digits")
    >>> plan = jt.dst(members=2, sparsity=0.5, epochs=1, batch_size=64)
    >>> task = jt.classification(jt.models.WideResNet(10, 1, num_classes=10))
    >>> tickets = fit(plan, task, train, key=0, progress=False)
    >>> tickets.predict_proba(test).shape
    (450, 10)
    """
    out = None if out is None else out_folder(out)

    def check() -> _Checked:
        _check_seconds(checkpoint_every)
        return _check(plan, task, train, key, out, layout, start_from, probe, probe_every)

    def about(checked: _Checked) -> dict[str, Any]:
        return checked.about() | {"checkpoint_every": checkpoint_every}

    # Here nothing is compiled, so that what is wrong is said at once, and by all hosts.
    checked = hosts.everywhere(check, about)
    with open_folder(out, checked.identity) as folder:
        if folder is not None and folder.finished:
            tickets = folder.load(task, plan.members)
            folder.finish()
            return tickets
        log = TicketLog(task, checked.x_spec, plan, folder)
        show = progress and jax.process_index() == 0
        say = ProgressLine(0, show).say
        run = _run_of(plan, task, key, checked, log, folder, say)
        if unmoved := plan.unmoved(run.feeds.steps_per_epoch):
            say(unmoved)
        with preemption(kept=folder is not None) as wanted_back:
            return _run(run, log, folder, checkpoint_every, show, wanted_back)


class _Checked(NamedTuple):
    """What was given to `fit`, in which nothing is wrong, and what was found out about it."""

    train: Dataset | Stream
    held: Dataset | None
    asked: Layout | AutoLayout
    among: Candidates
    example: PyTree
    traced: Traced
    given: Network | None
    begins: Weights
    units_of: UnitsOf
    probe: Probe | None
    identity: dict[str, Any] | None

    @property
    def x_spec(self) -> PyTree:
        """Shape and dtype of one example."""
        return self.traced.x_spec

    def about(self) -> dict[str, Any]:
        """What is the same on all hosts."""
        return (self.identity or {}) | {"layout": str(self.asked)}


def _check(
    plan: Plan,
    task: Task,
    train: Any,
    key: int | jax.Array,
    out: Path | None,
    layout: Layout | AutoLayout | None,
    start_from: Any,
    probe: Any,
    probe_every: int,
) -> _Checked:
    """What `fit` is given, checked; see there for what it raises."""
    start_from = (
        paths.given(start_from, "start_from") if isinstance(start_from, str | Path) else start_from
    )
    check_plan_and_task("fit", plan, task)
    data = train if isinstance(train, Stream) else as_dataset(train, task.num_classes)
    checks.check_data(plan, task, data)
    checks.check_key(key, plan.width)
    fitted, held = hold_out(data, plan.validation) if isinstance(data, Dataset) else (data, None)
    asked = check_asked(layout, plan, len(fitted))
    example = checks.example_of(fitted)
    traced = checks.check_model(plan, task, fitted, example)
    among = candidates(asked, plan, fitted, traced)
    params, model_state, x_spec = traced.params, traced.model_state, traced.x_spec
    given = given_network(start_from, task, params, model_state)
    checks.check_given(plan, given)
    begins = Weights(params, model_state) if given is None else of_network(given)
    units_of = UnitsOf(task, x_spec)
    smaller_checks.check_units(plan, begins, units_of)
    smaller_checks.check_shrinks(plan, task, begins, units_of, x_spec)
    smaller_checks.check_packs(plan, task, begins, given, x_spec)
    probed = make_probe(probe, probe_every, out, task, x_spec)
    if isinstance(fitted, Dataset):
        example = fitted.prepare(example)
    check_prepared(fitted, example)
    identity = None
    if out is not None or jax.process_count() > 1:
        identity = identity_of(plan, task, data, key, traced, given)
        identity |= {} if probed is None else {"probe": probed.identity()}
    return _Checked(
        *(fitted, held, asked, among, example, traced, given, begins, units_of, probed, identity)
    )


def _run_of(
    plan: Plan,
    task: Task,
    key: int | jax.Array,
    checked: _Checked,
    log: TicketLog,
    folder: RunFolder | None,
    say: Callable[[str], None],
) -> Run:
    """The context of a run, with the layout that its folder has or that is chosen now."""
    traced = checked.traced
    # A stream's batches come prepared.
    check = functools.partial(check_values, task, lambda x: x, traced.params, traced.model_state)
    of_layout = RunOfLayout(
        functools.partial(
            Run,
            plan=plan,
            task=task,
            held=checked.held,
            example=checked.example,
            given=checked.given,
            begins=checked.begins,
            units_of=checked.units_of,
            x_spec=checked.x_spec,
            programs=Programs(),
            probe=checked.probe,
            masks_before=log.masks_before,
        ),
        functools.partial(make_feed, checked.train, plan.batch_size, check=check),
        functools.partial(groups_of, plan, keys=members.member_keys(key, plan.width)),
    )

    def pick() -> Chosen:
        chosen = None if folder is None else kept_layout(folder.path, checked.asked)
        if chosen is None:
            chosen = choose(of_layout, checked.among, say)
        else:  # the devices may be others now
            checks.check_layout(plan, chosen.layout)
            checks.check_batch(plan, len(checked.train), chosen.layout)
        if folder is not None and folder.writes:
            keep_layout(folder.path, chosen, going_on=bool(stored.numbers(folder.checkpoints)))
        return chosen

    chosen = hosts.everywhere(pick, Chosen.about)
    if chosen.why:
        say(chosen.why)
    run = of_layout(chosen.layout, chosen.streamed)
    run.programs.seconds = 0.0  # the run's clock begins now, after the trials
    return run


def _run(
    run: Run,
    log: TicketLog,
    folder: RunFolder | None,
    checkpoint_every: float,
    show: bool,
    wanted_back: Notice,
) -> TicketEnsemble:
    """Train, and leave everything in its place."""
    steps = run.plan.all_steps(run.feeds.steps_per_epoch)
    line = ProgressLine(steps, show, compiling=lambda: run.programs.seconds)
    with contextlib.ExitStack() as closing:
        checkpoints = None
        if folder is not None:
            checkpoints = Checkpoints(folder.checkpoints, folder.run, folder.writes)
            closing.push(checkpoints)
        closing.callback(line.close)
        recorder = Recorder(run, log, line, folder, checkpoints, checkpoint_every)
        drive(run, recorder, wanted_back)
        total, compiling = recorder.seconds(), recorder.compile_seconds()
    tickets = TicketEnsemble(run.task, log.in_order(), run.x_spec, run.plan)
    seconds = {"train": total - compiling, "compile": compiling, "total": total}
    timing = {"seconds": seconds, "compilations": run.programs.count, "versions": versions()}

    def finish() -> None:
        if folder is not None and folder.writes:
            folder.save_timing(timing)
            folder.save_final(tickets)
            folder.finish()

    # None returns before all is written.
    hosts.everywhere(finish, when="after training; the same call again finishes it")
    return tickets


def open_folder(
    out: Path | None, identity: dict[str, Any] | None
) -> contextlib.AbstractContextManager[RunFolder | None]:
    """The run folder, or nothing where none is asked for."""
    if out is None or identity is None:
        return contextlib.nullcontext()
    opened: list[RunFolder] = []

    def open_it() -> RunFolder:
        opened.append(RunFolder(out, identity))
        return opened[0]

    try:
        return hosts.everywhere(
            open_it, lambda folder: {"out": {"finished": folder.finished}}, first_alone=True
        )
    except BaseException:
        for folder in opened:  # not to be in use for as long as somebody holds the error
            folder.__exit__(None, None, None)
        raise


def _check_seconds(every: Any) -> None:
    """Raise `ValueError` unless it is a time between checkpoints."""
    number = isinstance(every, numbers.Real) and not isinstance(every, bool)
    if not number or not math.isfinite(every) or every < 0:
        raise ValueError(
            "checkpoint_every is the seconds between checkpoints, at least 0, as in 60.0 (1e9 for"
            f" never); got {every!r}."
        )
