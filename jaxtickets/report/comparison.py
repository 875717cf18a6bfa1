"""Several methods beside each other: means over seeds, and their table."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from jaxtickets.report.costs import (
    COST_COLUMNS,
    NOTE_COUNTED,
    NOTE_EXECUTED,
    PREDICTING,
    DenseRun,
    cost_ratios,
)
from jaxtickets.report.records import Record, as_record
from jaxtickets.report.table import Cell, Column, Mean, ScoreTable

UNTOLD = (
    "FLOPs are theoretical, as multiples of the training and of one prediction of one dense"
    " network; masks simulate sparsity."
)
MEASURED = "Seconds of training are measured, without compiling."


def cost_note(comparison: Mapping[str, Any] | Record) -> str:
    """A note on a comparison's costs: what they are multiples of, and what is measured."""
    record = as_record(comparison)
    measured = "" if "timing" in record else f" {MEASURED}"
    unit = record.maybe("reference")
    if unit is None:
        return f"{UNTOLD}{measured}"
    flops, forward = (unit.number(name) or 0.0 for name in ("flops", "forward"))
    dense = DenseRun(unit.text("network"), unit.text("length"), flops, forward)
    return f"{dense.note}{measured}"


def summary(runs: Sequence[Mapping[str, Any]], dense_run: float) -> dict[str, Any]:
    """Mean and standard error over runs of one method that differ in their seed.

    Args:
      runs: contents of `results.json` files.
      dense_run: training FLOPs of the one dense network that costs are compared with.

    Returns:
      By score (accuracy, nll, ece, members_accuracy, members_nll, disagreement, kl, training,
        inference, their executed and counted ones, seconds): `mean`, and
      `standard_error`, the sample's standard deviation over the root of the number of runs, None
      for one run. A score that some run lacks (the disagreement of one member) or that is infinite
      is None.

    >>> run = {
    ...     "ensemble": {"accuracy": 0.5, "nll": 1.0, "ece": 0.1},
    ...     "members_mean": {"accuracy": 0.4, "nll": 2.0},
    ...     "diversity": {"disagreement": 0.2, "kl": None},
    ...     "cost": {"phases": [{"flops": 3.0}], "inference": 1.0},
    ...     "seconds": {"train": 7.0},
    ... }
    >>> summary([run, run | {"seconds": {"train": 9.0}}], 2.0)["seconds"]
    {'mean': 8.0, 'standard_error': 1.0}
    """
    values = [
        {
            **{name: run["ensemble"][name] for name in ("accuracy", "nll", "ece")},
            **{f"members_{name}": run["members_mean"][name] for name in ("accuracy", "nll")},
            **{name: run["diversity"][name] for name in ("disagreement", "kl")},
            **cost_ratios(run["cost"], dense_run, 1.0, 1.0),
            "seconds": run["seconds"]["train"],
        }
        for run in runs
    ]
    return {name: _mean([value[name] for value in values]) for name in values[0]}


def _mean(values: list[float | None]) -> dict[str, float | None] | None:
    numbers = [value for value in values if value is not None]
    if len(numbers) < len(values):
        return None
    error = statistics.stdev(numbers) / math.sqrt(len(numbers)) if len(numbers) > 1 else None
    return {"mean": statistics.fmean(numbers), "standard_error": error}


COLUMNS = {
    "accuracy": Column("acc %", times=100, better="higher", arrow=False),
    "nll": Column("NLL", digits=3, better="lower", arrow=False),
    "ece": Column("ECE %", times=100, digits=1),
    "members_accuracy": Column("members' acc %", times=100, short="members"),
    "disagreement": Column("disagreement %", times=100, digits=1, short="disagr %"),
    "kl": Column("KL", digits=3),
    **COST_COLUMNS,
    "training_runs": Column("training runs", digits=0, short="runs"),
    "seconds": Column("seconds", digits=0, short="sec"),
    "predict": PREDICTING,
}
SCORES = ("accuracy", "nll", "ece", "members_accuracy", "disagreement", "kl")
PAPER_COLUMNS = {
    "accuracy": Column("paper's acc %"),
    "training": Column("paper's training", "x", short="paper's train"),
    "training_runs": Column("paper's training runs", short="paper's runs", digits=1),
}
"""What a paper prints of a method, beside ours."""
NOTE_TESTS = (
    "p: Student's t-test of the runs' accuracies, two-sided, against that method; not corrected for"
    " the number of tests."
)
OF_MEMBERS = ("members_accuracy", "disagreement", "kl")
"""Scores that a single network has not."""
ALWAYS = ("training", "inference", "seconds")
"""Of the costs those that every row tells, of an older comparison too."""


def comparison_table(comparison: Mapping[str, Any] | Record) -> ScoreTable:
    """The methods of a comparison, a row each, the papers' accuracies beside ours.

    Args:
      comparison: what `compare_cifar.py` writes.

    Raises:
      ReportError: a field of another kind than wanted; names it.
    """
    record = as_record(comparison)
    rows = record.parts("rows")
    published = [row.maybe("published") for row in rows]
    names = [name for name in COLUMNS if name in (*SCORES, *ALWAYS) or _told(rows, name)]
    columns, cells = [COLUMNS[name] for name in names], [_cells(row, names) for row in rows]
    for name, column in PAPER_COLUMNS.items():
        if any(paper is not None and name in paper for paper in published):
            columns.append(column)
            for line, paper in zip(cells, published, strict=True):
                line.append(None if paper is None else _printed(paper, name))
    tested = list(dict.fromkeys(name for row in rows for name in _tests(row)))
    columns += [Column(f"p: {name}") for name in tested]
    for line, row in zip(cells, rows, strict=True):
        line += [p_value(_tests(row).get(name)) for name in tested]
    sources = sorted({paper.text("source") for paper in published if paper is not None})
    seeds = len(record.numbers("seeds"))
    runs = f"Mean and standard error of {seeds} runs." if seeds > 1 else "One run."
    notes = [f"{record.text('budget')} {runs} {cost_note(record)}"]
    if "timing" in record:
        notes.append(record.text("timing"))
    if "training_executed" in names:
        notes.append(NOTE_EXECUTED)
    if "training_counted" in names:
        notes.append(NOTE_COUNTED)
    if tested:
        notes.append(NOTE_TESTS)
    notes += [f"paper: {'; '.join(sources)}."] if sources else []
    notes += counted_otherwise(
        (_named(row), paper.text("counted", ""))
        for row, paper in zip(rows, published, strict=True)
        if paper is not None
    )
    return ScoreTable(
        tuple(columns),
        tuple(_named(row) for row in rows),
        tuple(map(tuple, cells)),
        tuple(notes),
        f"Comparison: {record.text('network')} on {record.part('dataset').text('name')}",
    )


def _named(row: Record) -> str:
    members = row.count("members")
    return row.text("title") + (f" (M={members})" if members > 1 else "")


def counted_otherwise(reasons: Iterable[tuple[str, str]]) -> list[str]:
    """Notes on why a paper's training FLOPs or runs are others than ours, of pairs of a row's name
    and the reason; none where no row has one.
    """
    told = [f"{name}: {reason}" for name, reason in reasons if reason]
    return [f"Counted otherwise in the paper. {' '.join(told)}"] if told else []


def p_value(value: float | None) -> str:
    """A p-value as tables print it.

    >>> p_value(0.0421), p_value(1e-9), p_value(None)
    ('.042', '<.001', '')
    """
    return "" if value is None else "<.001" if value < 0.001 else f"{value:.3f}".lstrip("0")


def _tests(row: Record) -> dict[str, float | None]:
    tests = row.maybe("tests")
    return {} if tests is None else {name: tests.number(name) for name in tests.data}


def _printed(paper: Record, name: str) -> Cell:
    return _mean_of(paper, name) if name == "accuracy" else paper.number(name)


def _told(rows: Sequence[Record], name: str) -> bool:
    if name == "training_runs":
        return any(name in row for row in rows)
    return any(row.part("scores").maybe(name) is not None for row in rows)


def _cells(row: Record, names: Sequence[str]) -> list[Cell]:
    cells: list[Cell] = []
    for name in names:
        score = row.part("scores").maybe(name)
        if name == "training_runs":
            cells.append(row.number(name))
        elif score is None or (row.count("members") == 1 and name in OF_MEMBERS):
            cells.append(None)
        elif name in ("accuracy", "nll", "ece"):
            cells.append(_mean_of(score, "mean"))
        else:
            cells.append(score.number("mean"))
    return cells


def _mean_of(score: Record, name: str) -> Mean | None:
    value = score.number(name)
    return None if value is None else Mean(value, score.number("standard_error"))
