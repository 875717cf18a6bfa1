"""Reads run folders and result files, and checks that they may stand in one report."""

from __future__ import annotations

import dataclasses
import itertools
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from jaxtickets.errors import PlanError, ReportError
from jaxtickets.files.paths import given
from jaxtickets.plan import Fork, Plan
from jaxtickets.report.records import Record, printable, read_json, read_lines

MOST_RUNS = 200
# What tells a result file from others: a field that only it has.
KINDS = {
    "results": "ensemble",
    "evaluation": "test",
    "strengths": "scheme",
    "sweep": "points",
    "comparison": "budget",
    "schemes": "metric",
    "benchmark": "rounds",
}


@dataclasses.dataclass(frozen=True)
class Run:
    """One run, as far as its files tell of it.

    Attributes:
      name: what the report calls it: its folder, or its file.
      source: folder or file.
      config: `config.json`; None for a results file alone.
      results: `results.json`; None where the run is not finished, or was not scored by itself.
      timing: `timing.json`; None where the run is not finished.
      metrics: the records of `metrics.jsonl`.
      plan: what was run; None where this version cannot read it.
    """

    name: str
    source: Path
    config: Record | None
    results: Record | None
    timing: Record | None
    metrics: tuple[Record, ...]
    plan: Plan | None

    @property
    def finished(self) -> bool:
        """Whether the run came to its end."""
        return self.config is None or self.timing is not None

    @property
    def progress(self) -> float | None:
        """Share of the plan's epochs that are trained; None where the plan cannot be read."""
        if self.plan is None or self.config is None:
            return None
        per_epoch = max(
            1, self.config.part("run").part("data").count("examples") // self.plan.batch_size
        )
        fork_epochs = 0.0
        if self.plan.fork is not None:
            fork_epochs = self.plan.steps_before(self.plan.fork, per_epoch) / per_epoch
        epochs_by_network: dict[tuple[float | None, float | None], float] = {}
        for record in self.metrics:
            lineages, children = record.numbers("lineages"), record.numbers("children")
            for network in zip(lineages, children or [None] * len(lineages), strict=False):
                epochs = (record.number("epoch") or 0.0) - (
                    fork_epochs if network[1] is not None else 0.0
                )
                epochs_by_network[network] = max(epochs_by_network.get(network, 0.0), epochs)
        total = self.plan.width * self.plan.epochs(per_epoch)
        return min(1.0, sum(epochs_by_network.values()) / total) if total else None

    @property
    def model(self) -> str:
        """The network's name."""
        if self.results is not None and "model" in self.results:
            return self.results.text("model")
        return (
            self.config.part("run").part("task").text("name")
            if self.config is not None
            else "unknown"
        )

    @property
    def dataset(self) -> str:
        """The data set's name."""
        if self.results is not None and "dataset" in self.results:
            return self.results.part("dataset").text("name")
        return (
            self.config.part("run").part("data").text("name")
            if self.config is not None
            else "unknown"
        )

    @property
    def method(self) -> str:
        """The method's name, as the papers' tables have it."""
        return method_of(self.plan, self.model)


@dataclasses.dataclass(frozen=True)
class ReportInputs:
    """The runs and result files of a report; every list in the order given."""

    runs: tuple[Run, ...] = ()
    evaluations: tuple[Record, ...] = ()
    comparisons: tuple[Record, ...] = ()
    schemes: tuple[Record, ...] = ()
    strengths: tuple[Record, ...] = ()
    sweeps: tuple[Record, ...] = ()
    benchmarks: tuple[Record, ...] = ()


def method_of(plan: Plan | None, model: str) -> str:
    """The name that the papers' tables have for a plan.

    It is the plan's own name, but for one that they have under several.

    >>> from jaxtickets import methods
    >>> method_of(methods.prune_and_tune(2, masks="anti_random"), "LeNet(L)")
    'pat_ar'
    >>> method_of(methods.dense(1, 2), "LeNet(L, dropout=0.5)")
    'dropout'
    """
    if plan is None:
        return "unknown"
    forks = [phase for phase in plan.phases if isinstance(phase, Fork)]
    if plan.name == "prune_and_tune" and forks:
        return {"random": "pat_r", "anti_random": "pat_ar", "partition": "pat_partition"}.get(
            forks[0].masks, plan.name
        )
    if plan.name == "dense" and plan.members == 1:
        return "dropout" if "dropout=" in model else "independent"
    return plan.name


def read_inputs(paths: Iterable[Path]) -> ReportInputs:
    """Everything that lies in run folders, in folders of run folders, and in single result files.

    Args:
      paths: each a run folder (has `config.json`), a folder of such, or a JSON file that an
        experiment wrote. An `evaluation.json` in a run folder or beside it belongs to it.

    Raises:
      ReportError: nothing to report there, a damaged file (names file and field), too many runs, or
        results on different test sets.
    """
    files: dict[str, dict[Path, Record]] = {kind: {} for kind in KINDS}
    runs: dict[Path, Run] = {}

    def take(file: Path, only: Sequence[str] = tuple(KINDS)) -> None:
        record = read_json(file)
        kind = next((kind for kind, field in KINDS.items() if field in record), None)
        if kind is None:
            raise ReportError(
                f"{file}: no result file that is known here; wanted one of {', '.join(KINDS)}, as"
                " the experiments write them."
            )
        if kind in only:
            files[kind].setdefault(file.resolve(), record)

    for path in map(given, paths):
        if os.path.isdir(path):
            try:
                folders = list(_run_folders(path))
            except OSError as error:
                raise ReportError(f"{path}: cannot be looked into: {error.strerror}.") from None
            if not folders:
                raise ReportError(
                    f"{path}: no run folder and none in it: there is no config.json. Give what"
                    " --out of an experiment was."
                )
            for folder in folders:
                if len(runs) >= MOST_RUNS:
                    raise ReportError(f"{path}: more than {MOST_RUNS} runs; give fewer of them.")
                runs.setdefault(folder.resolve(), _run(folder))
                for candidate in (folder / "evaluation.json", folder.parent / "evaluation.json"):
                    if candidate.is_file():
                        take(candidate, ("evaluation",))
            if folders != [path] and (path / "results.json").is_file():
                take(path / "results.json", ("comparison", "schemes", "sweep"))
        elif os.path.isfile(path):
            take(path)
        else:
            raise ReportError(f"{path}: no such file or folder.")
    for file, record in files["results"].items():
        _check_results(record)
        if file.parent not in runs:
            runs[file] = Run(
                printable(file.stem, 80), file, None, record, record, (), plan_of(record)
            )
    plurals = {
        "evaluation": "evaluations",
        "comparison": "comparisons",
        "sweep": "sweeps",
        "benchmark": "benchmarks",
    }
    kinds = {
        plurals.get(kind, kind): tuple(records.values())
        for kind, records in files.items()
        if kind != "results"
    }
    inputs = ReportInputs(_named(list(runs.values())), **kinds)
    _check_test_sets(inputs)
    return inputs


def _run_folders(path: Path) -> Iterator[Path]:
    if (path / "config.json").is_file():
        yield path
    else:
        # other folders have a config.json as well: pretrained networks
        marks = ("tickets", "metrics.jsonl")
        folders = (
            folder for folder in sorted(path.iterdir()) if (folder / "config.json").is_file()
        )
        yield from (folder for folder in folders if any((folder / mark).exists() for mark in marks))


def _run(folder: Path) -> Run:
    config = read_json(folder / "config.json")
    records = {
        name: read_json(folder / name) if (folder / name).is_file() else None
        for name in ("results.json", "timing.json")
    }
    results = records["results.json"]
    metrics = (
        tuple(read_lines(folder / "metrics.jsonl")) if (folder / "metrics.jsonl").is_file() else ()
    )
    for record in metrics:
        _check_metrics(record)
    run = config.part("run")
    for part, name in (("task", "name"), ("data", "name")):
        run.part(part).text(name)
    run.part("data").count("examples")
    if results is not None:
        _check_results(results)
    return Run(
        printable(folder.resolve().name, 80),
        folder,
        config,
        results,
        records["timing.json"],
        metrics,
        plan_of(run),
    )


def plan_of(record: Record) -> Plan | None:
    """The plan in a record; None where this version cannot read it."""
    try:
        return Plan.from_json(record.part("plan").data)
    except PlanError:  # of another version
        return None


def _check_metrics(record: Record) -> None:
    """Check the fields of a metrics record that the timeline is drawn from."""
    count = len(record.numbers("lineages"))
    for name in ("epoch", "lr", "phase"):
        if record.number(name) is None:
            raise record.wrong(name, "a number")
    lists = [
        "density",
        "loss",
        "accuracy",
        *(["validation_accuracy"] if "validation_accuracy" in record else []),
    ]
    for name in [*lists, *(["children"] if "children" in record else [])]:
        if len(record.numbers(name)) != count:
            raise record.wrong(name, f"a list of {count} numbers, one for each of lineages")


def _check_results(record: Record) -> None:
    for part in ("ensemble", "members_mean", "diversity", "cost", "seconds"):
        record.part(part)
    if not record.parts("members"):
        raise record.wrong("members", "a list of at least one member's scores")


def _named(runs: list[Run]) -> tuple[Run, ...]:
    """The runs with names made different: by the folder above, then by a number."""
    names = [run.name for run in runs]
    longer = [
        f"{run.source.resolve().parent.name}/{run.name}" if names.count(run.name) > 1 else run.name
        for run in runs
    ]
    seen: dict[str, int] = {}
    for i, name in enumerate(longer):
        seen[name] = seen.get(name, 0) + 1
        longer[i] = printable(name, 160) + (f" ({seen[name]})" if seen[name] > 1 else "")
    return tuple(
        dataclasses.replace(run, name=name) for run, name in zip(runs, longer, strict=True)
    )


def _check_test_sets(inputs: ReportInputs) -> None:
    """Check that scores of one table are of one test set."""
    dataset_records = [
        (run.results.file, run.results.part("dataset"))
        for run in inputs.runs
        if run.results is not None and "dataset" in run.results
    ]
    sets = [
        (file, data.text("name"), data.number("test"), data.text("test_fingerprint", ""))
        for file, data in dataset_records
    ]
    compared = [
        (record.file, record.part("dataset"))
        for record in (*inputs.comparisons, *inputs.sweeps, *inputs.schemes, *inputs.strengths)
    ]
    sets += [
        (
            file,
            data.text("name"),
            data.number("validation" if "validation" in data else "test"),
            data.text("test_fingerprint", ""),
        )
        for file, data in compared
    ]
    tests = [(record.file, record.part("test")) for record in inputs.evaluations]
    evaluated_sets = [
        (file, test.text("name"), test.number("examples"), test.text("fingerprint", ""))
        for file, test in tests
    ]
    for alike in (sets, evaluated_sets):
        for first, other in itertools.combinations(alike, 2):
            if other[1:3] != first[1:3] or (first[3] and other[3] and first[3] != other[3]):
                raise ReportError(
                    f"different test sets cannot stand beside each other: {first[0]} was scored on"
                    f" {_test_set(first)}, {other[0]} on {_test_set(other)}. Write a report of"
                    " each."
                )


def _test_set(test: tuple[Path, str, float | None, str]) -> str:
    _, name, examples, fingerprint = test
    return (
        name
        + ("" if examples is None else f", {examples:,.0f} examples")
        + (f", fingerprint {fingerprint}" if fingerprint else "")
    )
