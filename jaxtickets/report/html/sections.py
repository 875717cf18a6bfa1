"""Sections of a report from what was found: results, cost, what was run, how to run it again, and what does not fit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jaxtickets.report.comparison import THEORETICAL
from jaxtickets.report.html.files import Record, shown
from jaxtickets.report.html.found import Found, Run
from jaxtickets.report.html.parts import Facts, Figure, Part, Section, Table, Text

_COMPARED = (
    ("acc %", "accuracy", 100, 2, ""), ("NLL", "nll", 1, 3, ""), ("ECE %", "ece", 100, 1, ""), ("members' acc %", "members_accuracy", 100, 2, ""),
    ("disagreement %", "disagreement", 100, 1, ""), ("KL", "kl", 1, 3, ""), ("training", "training", 1, 2, "x"),
    ("inference", "inference", 1, 2, "x"), ("seconds", "seconds", 1, 0, ""),
)  # fmt: skip


def results_section(found: Found) -> Section:
    """Scores of every run, comparisons and schemes; runs that are not finished, or not scored, say so."""
    parts: list[Part] = []
    if found.runs:
        parts.append(_runs_table(found))
    parts += [_comparison_table(record) for record in found.comparisons]
    for record in found.schemes:
        parts += _schemes_tables(record)
    parts += [_sweep_table(record) for record in found.sweeps]
    parts += [_benchmark_table(record) for record in found.benchmarks]
    return Section("Results", parts)


def _runs_table(found: Found) -> Table:
    rows, faint, bold, bins = [], set(), set(), set()
    accuracies = [_accuracy(run) for run in found.runs]
    for number, run in enumerate(found.runs):
        what = [run.name, run.model, run.dataset]
        if run.results is None:
            faint.add(number)
            rows.append([f"{run.name} ({state(run)})", *what[1:], *[""] * 9])
            continue
        ensemble, mean, diversity = (run.results.part(part) for part in ("ensemble", "members_mean", "diversity"))
        bins.add(run.results.count("ece_bins"))
        members = len(run.results.parts("members"))
        row = [*what, str(members), shown(ensemble.number("accuracy"), 2, 100), _or_infinite(ensemble.number("nll"))]
        row += [shown(ensemble.number("ece"), 1, 100), shown(ensemble.number("brier"), 3)]
        row += [shown(mean.number("accuracy"), 2, 100) if members > 1 else "", shown(diversity.number("disagreement"), 1, 100)]
        row += [shown(diversity.number(part), 3) for part in ("kl", "mask_iou")]
        if len(found.runs) > 1 and accuracies[number] == max(accuracies):
            bold.add((number, 4))
        rows.append(row)
    header = ["", "network", "data", "members", "acc %", "NLL", "ECE %", "Brier", "members' acc %", "disagreement %", "KL", "mask IoU"]
    note = f"ECE over {' and '.join(map(str, sorted(bins)))} bins. " if bins else ""
    return Table(
        "Runs",
        header,
        rows,
        bold=bold,
        faint=faint,
        texts={1, 2},
        note=f"{note}The ensemble's scores are of its members' mean probability.",
    )


def _accuracy(run: Run) -> float:
    return -1.0 if run.results is None else run.results.part("ensemble").number("accuracy") or 0.0


def state(run: Run) -> str:
    """How far a run without scores is."""
    if run.finished:
        return "finished, not scored by itself"
    progress = run.progress
    last = run.metrics[-1].text("name", "") if run.metrics else "nothing trained yet"
    return "not finished" + (f": {last}" if progress is None else f": {100 * progress:.0f} % trained")


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
    return Table(title, ["", *(heading for heading, *_ in _COMPARED)], rows, note=note)


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
        f"{record.text('metric')} in % on {record.part('dataset').text('name')}; {record.count('seeds')} seeds, ensembles of {size}. The interval is "
        f"a 95 % bootstrap of the difference to the baseline's ensembles. Training: theoretical FLOPs. Seconds are measured.{made}"
    )
    header = ["scheme", "single", "ensemble", "diff.", "interval", "training", "seconds"]
    more = ["scheme", "Q less", "R more", "ND more", "D more", "C less", "mask IoU", "labels differ"]
    return [Table("What ensembling gains", header, gains, note=note), Table("How members differ", more, differ)]


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


def cost_section(found: Found) -> Section | None:
    """The ledger's FLOPs, called theoretical, beside the measured seconds."""
    rows, phases = [], []
    for run in found.runs:
        if run.results is None:
            continue
        cost, seconds = run.results.part("cost"), run.results.part("seconds")
        line = [run.name, *(shown(cost.number(name), 2, after="x") for name in ("training", "inference")), shown(cost.number("density"), 3)]
        line.append(shown(cost.number("ticket_bytes"), 1, 1e-6))
        rows.append([*line, *(shown(seconds.number(name), 0) for name in ("train", "compile", "total")), _backend(run)])
        for phase in cost.parts("phases"):
            phases.append([run.name, phase.text("name"), shown(phase.number("steps"), 0), f"{phase.number('flops') or 0:.3g}"])
    if not rows:
        return None
    header = ["", "training FLOPs", "inference FLOPs", "density", "tickets, MB", "training, s", "compiling, s", "in all, s", "measured on"]
    note = (
        "FLOPs are theoretical: counted from the plan, as multiples of one dense training run of the method's reference length and of one dense "
        "forward pass. Masks simulate sparsity with dense compute, so the measured seconds do not fall with them."
    )
    ledger = Table("Ledger by phase", ["", "phase", "steps", "theoretical FLOPs"], phases, texts={1})
    return Section("Cost", [Table("Theoretical FLOPs and measured seconds", header, rows, note=note, texts={8}), ledger])


def runs_section(found: Found, timelines: Mapping[str, Figure]) -> Section | None:
    """What each run was, on what, with its plan and its training curves."""
    return Section("What was run", [_run_section(run, timelines.get(run.name)) for run in found.runs]) if found.runs else None


def _run_section(run: Run, timeline: Figure | None) -> Section:
    about = run.config if run.config is not None else run.results
    facts = [
        ("method", run.method),
        ("network", run.model),
        ("data", _data(run)),
        ("state", "finished" if run.results is not None else state(run)),
    ]
    if run.config is not None:
        facts.append(("started", run.config.text("started", "not told")))
        facts.append(("key", shown(run.config.part("run").number("key"), 0) or "not told"))
    if run.results is not None and "seed" in run.results:
        facts.append(("seed", f"{run.results.count('seed')}"))
    versions = about.maybe("versions") if about is not None else None
    if versions is not None:
        facts.append(("hardware", versions.text("backend", "not told")))
        facts.append(("versions", ", ".join(f"{name} {versions.text(name)}" for name in versions.data if name != "backend")))
    parts: list[Part] = [Facts(facts), Text(str(run.plan) if run.plan is not None else "The plan is of another version.", "command")]
    return Section(run.name, [*parts, *([timeline] if timeline is not None else [])])


def _data(run: Run) -> str:
    if run.config is None:
        return run.dataset
    data = run.config.part("run").part("data")
    how = "".join(f", {name} {data.text(name)}" for name in ("fingerprint", "augment") if isinstance(data.data.get(name), str))
    return f"{run.dataset}, {data.count('examples'):,} training examples{how}"


def again_section(found: Found, command: str) -> Section:
    """The commands that made what is shown."""
    records: list[Any] = [run.results for run in found.runs if run.results is not None]
    records += [*found.comparisons, *found.schemes, *found.sweeps, *found.benchmarks, *found.evaluations]
    commands = list(dict.fromkeys(record.text("command") for record in records if "command" in record))
    parts: list[Part] = [Text(text, "command") for text in [*commands, *([command] if command else [])]]
    silent = [run.name for run in found.runs if run.results is None]
    if silent:
        parts.append(Text(f"Of {', '.join(silent)} no command is kept: it is written with the scores. The same command resumes a run."))
    return Section("Run it again", parts)


def doubts(found: Found) -> list[Text]:
    """What does not fit together, or not with what it says of itself."""
    told = []
    for run in found.runs:
        if not run.finished:
            told.append(f"{run.name}: {state(run)}; it has no scores yet.")
        if run.results is not None and run.config is not None:
            if "plan" in run.results and run.results.part("plan").data != run.config.part("run").part("plan").data:
                told.append(f"{run.name}: results.json is of another plan than config.json.")
            if "seed" in run.results and run.results.number("seed") != run.config.part("run").number("key"):
                told.append(f"{run.name}: results.json is of seed {run.results.count('seed')}, config.json of another key.")
    scored = [run for run in found.runs if run.results is not None]
    told += _several("bins of ECE", {run.name: str(run.results.count("ece_bins")) for run in scored if run.results is not None})
    told += _several("hardware; their seconds cannot be compared", {run.name: _backend(run) for run in scored})
    data = {run.name: run.config.part("run").part("data").text("fingerprint", "") for run in found.runs if run.config is not None}
    told += _several("training data, by its fingerprint", {name: text for name, text in data.items() if text})
    rows = [row for record in found.evaluations for row in record.parts("rows")]
    told += _several("ways to combine members", {row.text("name"): row.part("evaluation").text("combine", "proba") for row in rows})
    for record in found.comparisons:
        told += [f"left out of {record.file.name}: {str(line)[:300]}" for line in record.data.get("failed") or []]
    return [Text(text, "warning") for text in told]


def _several(what: str, values: Mapping[str, str]) -> list[str]:
    names: dict[str, list[str]] = {}
    for name, value in values.items():
        names.setdefault(value, []).append(name)
    if len(names) < 2:
        return []
    return [f"Different {what}: " + "; ".join(f"{value} ({', '.join(who)})" for value, who in names.items()) + "."]


def _backend(run: Run) -> str:
    versions = run.results.maybe("versions") if run.results is not None else None
    return versions.text("backend", "not told") if versions is not None else "not told"


def _or_infinite(value: float | None) -> str:
    return "inf" if value is None else f"{value:.3f}"
