"""The section of results: scores of runs, comparisons, schemes, sweeps and benchmarks, as tables."""

from __future__ import annotations

from collections.abc import Sequence

from jaxtickets.report.comparison import COLUMNS, THEORETICAL
from jaxtickets.report.html.files import Record, shown, shown_nll
from jaxtickets.report.html.found import Found, Run
from jaxtickets.report.html.parts import Part, Section, Table
from jaxtickets.report.html.runs import state

# A page has room for words that a terminal has not.
_WORDS = {"members": "members' acc %", "disagr %": "disagreement %", "train": "training", "infer": "inference", "sec": "seconds"}
_COMPARED = tuple(column._replace(heading=_WORDS.get(column.heading, column.heading)) for column in COLUMNS)


def results_section(found: Found) -> Section:
    """Scores of every run, comparisons and schemes; runs that are not finished, or not scored, say so."""
    parts: list[Part] = []
    scored = [run for run in found.runs if run.results is not None]
    others = [run for run in found.runs if run.results is None]
    parts += [_runs_table(scored)] if scored else []
    parts += [_without_scores(others)] if others else []
    parts += [_comparison_table(record) for record in found.comparisons]
    for record in found.schemes:
        parts += _schemes_tables(record)
    parts += [_strengths_table(record) for record in found.strengths]
    parts += [_sweep_table(record) for record in found.sweeps]
    parts += [_benchmark_table(record) for record in found.benchmarks]
    return Section("Results", parts)


def _runs_table(runs: Sequence[Run]) -> Table:
    rows, bold, bins = [], set(), set()
    accuracies = [_accuracy(run) for run in runs]
    for number, run in enumerate(runs):
        assert run.results is not None
        ensemble, mean, diversity = (run.results.part(part) for part in ("ensemble", "members_mean", "diversity"))
        bins.add(run.results.count("ece_bins"))
        members = len(run.results.parts("members"))
        row = [run.name, str(members), shown(ensemble.number("accuracy"), 2, 100), shown_nll(ensemble.number("nll"))]
        row += [shown(ensemble.number("ece"), 1, 100), shown(ensemble.number("brier"), 3)]
        row += [shown(mean.number("accuracy"), 2, 100) if members > 1 else "", shown(diversity.number("disagreement"), 1, 100)]
        row += [shown(diversity.number(part), 3) for part in ("kl", "mask_iou")]
        if len(runs) > 1 and accuracies[number] == max(accuracies):
            bold.add((number, 2))
        rows.append([*row, run.model, run.dataset])
    header = ["", "members", "acc %", "NLL", "ECE %", "Brier", "members' acc %", "disagreement %", "KL", "mask IoU", "network", "data"]
    note = f"ECE over {' and '.join(map(str, sorted(bins)))} bins. The ensemble's scores are of its members' mean probability."
    return Table("Runs", header, rows, bold=bold, texts={10, 11}, note=note)


def _without_scores(runs: Sequence[Run]) -> Table:
    rows = [[run.name, state(run), run.model, run.dataset] for run in runs]
    return Table("Runs without scores of their own", ["", "state", "network", "data"], rows, texts={1, 2, 3})


def _accuracy(run: Run) -> float:
    return -1.0 if run.results is None else run.results.part("ensemble").number("accuracy") or 0.0


def _comparison_table(record: Record) -> Table:
    rows = []
    for row in record.parts("rows"):
        members = row.count("members")
        cells = [row.text("title") + (f" (M={members})" if members > 1 else "")]
        for _, name, times, digits, after in _COMPARED:
            score = row.part("scores").maybe(name)
            if score is None or (members == 1 and name in ("members_accuracy", "disagreement", "kl")):
                cells.append("")
                continue
            spread = score.number("standard_error") if name in ("accuracy", "nll", "ece") else None
            cell = shown(score.number("mean"), digits, times, after)
            cells.append(cell if spread is None else f"{cell} ± {shown(spread, digits, times)}")
        rows.append(cells)
    seeds = len(record.numbers("seeds"))
    note = f"{record.text('budget')} {f'Mean and standard error of {seeds} runs.' if seeds > 1 else 'One run.'} {THEORETICAL}"
    title = f"Comparison: {record.text('network')} on {record.part('dataset').text('name')}"
    return Table(title, ["", *(column.heading for column in _COMPARED)], rows, note=note)


def _schemes_tables(record: Record) -> list[Part]:
    size = record.count("size")
    gains, differ = [], []
    for row in record.parts("rows"):
        gain = row.part("gain")
        single, ensemble = gain.number("single"), gain.part("ensemble").number(str(size))
        gap = None if single is None or ensemble is None else ensemble - single
        boot = row.part("bootstrap").maybe("baseline")
        interval = "" if boot is None else f"{shown(boot.number('low'), 2, 100)} to {shown(boot.number('high'), 2, 100)}"
        line = [row.text("title"), *(shown(value, 2, 100) for value in (single, ensemble, gap)), interval]
        gains.append([*line, shown(row.number("training"), 2, after="x"), shown(row.number("seconds"), 0)])
        oracle = row.maybe("oracle")
        names = ("q", "ratio_errors", "negative_double_fault", "disagreement", "correlation")
        measures = [shown(oracle.number(name), 2) if oracle is not None else "" for name in names]
        differ.append([row.text("title"), *measures, shown(row.number("mask_iou"), 3), shown(row.number("prediction_disagreement"), 3)])
    made = " The data are synthetic, a made-up language: they rank nothing." if record.flag("synthetic") else ""
    note = (
        f"{record.text('metric')} in % on {record.part('dataset').text('name')}; {record.count('seeds')} seeds, ensembles of {size}. The "
        f"interval is a 95 % bootstrap of the difference to the baseline's ensembles. "
        f"Training: theoretical FLOPs. Seconds are measured.{made}"
    )
    header = ["scheme", "single", "ensemble", "diff.", "interval", "training", "seconds"]
    more = ["scheme", "Q less", "R more", "ND more", "D more", "C less", "mask IoU", "labels differ"]
    return [Table("What ensembling gains", header, gains, note=note), Table("How members differ", more, differ)]


def _strengths_table(record: Record) -> Table:
    rows, size = [], str(record.count("size"))
    for point in record.parts("points"):
        gain, tau = point.part("gain"), point.number("tau")
        single, ensemble = gain.number("single"), gain.part("ensemble").number(size)
        gap = None if single is None or ensemble is None else ensemble - single
        line = [f"{tau:g}" if tau else "none", *(shown(value, 2, 100) for value in (single, ensemble, gap))]
        rows.append([*line, shown(point.number("mask_iou"), 3), shown(point.number("prediction_disagreement"), 3)])
    note = f"{record.text('metric')} in % on {record.part('dataset').text('name')}; {record.count('seeds')} seeds, ensembles of {size}."
    header = ["tau", "single", "ensemble", "diff.", "mask IoU", "labels differ"]
    return Table(f"Strength of the penalty: {record.text('scheme')}", header, rows, note=note)


def _sweep_table(record: Record) -> Table:
    names = (
        ("accuracy", 100, 2),
        ("members_accuracy", 100, 2),
        ("nll", 1, 3),
        ("ece", 100, 1),
        ("disagreement", 100, 1),
        ("kl", 1, 3),
        ("seconds", 1, 0),
    )
    rows = [
        [each.text("series"), shown(each.number("x"), 3), *(shown(each.number(name), digits, times) for name, times, digits in names)]
        for each in record.parts("points")
    ]
    header = ["series", record.text("label"), "acc %", "members' acc %", "NLL", "ECE %", "disagreement %", "KL", "seconds"]
    return Table(f"Sweep: {record.text('title')}", header, rows)


def _benchmark_table(record: Record) -> Table:
    rows = []
    for row in record.parts("rows"):
        wanted = row.text("wanted", "") + ("" if row.flag("met") else " (missed)")
        rows.append(
            [row.text("what"), shown(row.number("ratio"), 2), wanted, *(shown(row.number(name), 4) for name in ("measured", "against"))]
        )
    return Table("Benchmark", ["", "ratio", "wanted", "measured", "against"], rows)
