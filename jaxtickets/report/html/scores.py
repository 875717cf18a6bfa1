"""The section of results: tables of runs, comparisons, schemes, sweeps and benchmarks."""

from __future__ import annotations

import math
from collections.abc import Sequence

from jaxtickets.report.comparison import COLUMNS, comparison_table
from jaxtickets.report.html.blocks import Block, Section
from jaxtickets.report.html.inputs import ReportInputs, Run
from jaxtickets.report.html.own_rows import place_on_axis
from jaxtickets.report.html.runs import state
from jaxtickets.report.reading import benchmark_table
from jaxtickets.report.records import Record
from jaxtickets.report.schemes import gains_table, members_table, strengths_table
from jaxtickets.report.table import Cell, Column, ScoreTable, table_of

ACCURACY = Column("acc", "%", 100, 2, "higher")
NLL = Column("NLL", "", 1, 3, "lower")
ECE = Column("ECE", "%", 100, 1, "lower")
BRIER = Column("Brier", "", 1, 3, "lower")
MEMBERS = Column("members", digits=0)
MEMBERS_ACCURACY = Column("members' acc", "%", 100)
NETWORK, DATA = Column("network", words=True), Column("data", words=True)


def clean_scores(scores: Record, *names: str) -> list[float | None]:
    """Scores of an ensemble by name: JSON has null where the NLL is infinite."""
    values = [scores.number(name) for name in names]
    return [
        math.inf if value is None and name == "nll" else value
        for name, value in zip(names, values, strict=True)
    ]


def results_section(inputs: ReportInputs) -> Section:
    """The section of every run's, comparison's and scheme's scores; runs without say why."""
    scored = [run for run in inputs.runs if run.results is not None]
    unscored = [run for run in inputs.runs if run.results is None]
    blocks: list[Block] = [_runs_table(scored)] if scored else []
    if unscored:
        lines = [(run.name, (state(run), run.model, run.dataset)) for run in unscored]
        columns = (Column("state", words=True), NETWORK, DATA)
        blocks.append(table_of("Runs without scores of their own", columns, lines))
    blocks += map(comparison_table, inputs.comparisons)
    for record in inputs.schemes:
        blocks += [gains_table(record), members_table(record)]
    blocks += map(strengths_table, inputs.strengths)
    blocks += map(_sweep_table, inputs.sweeps)
    blocks += map(benchmark_table, inputs.benchmarks)
    return Section("Results", blocks)


def _runs_table(runs: Sequence[Run]) -> ScoreTable:
    columns = (
        *(MEMBERS, ACCURACY, NLL, ECE, BRIER, MEMBERS_ACCURACY),
        Column("disagreement", "%", 100, 1),
        Column("KL", digits=3),
        Column("mask IoU", digits=3),
        *(NETWORK, DATA),
    )
    lines: list[tuple[str, list[Cell]]] = []
    bins = set()
    for run in runs:
        assert run.results is not None
        results, members = run.results, len(run.results.parts("members"))
        mean, diversity = results.part("members_mean"), results.part("diversity")
        bins.add(results.count("ece_bins"))
        scores = clean_scores(results.part("ensemble"), "accuracy", "nll", "ece", "brier")
        of_members = [mean.number("accuracy") if members > 1 else None]
        of_members += [diversity.number(name) for name in ("disagreement", "kl", "mask_iou")]
        lines.append((run.name, [members, *scores, *of_members, run.model, run.dataset]))
    note = (
        f"ECE over {' and '.join(map(str, sorted(bins)))} bins. The ensemble's scores are of its"
        " members' mean probability."
    )
    return table_of("Runs", columns, lines, note)


def _sweep_table(record: Record) -> ScoreTable:
    names = ("accuracy", "members_accuracy", "nll", "ece", "disagreement", "kl", "seconds")
    columns = (Column(record.text("label")), *(COLUMNS[name] for name in names))
    lines: list[tuple[str, list[Cell]]] = [
        (point.text("series"), [place_on_axis(point), *(point.number(name) for name in names)])
        for point in record.parts("points")
    ]
    return table_of(f"Sweep: {record.text('title')}", columns, lines, corner="series")
