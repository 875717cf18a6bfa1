"""Sections on the runs themselves: cost, what was run, how to run it again, and what does not fit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jaxtickets.report.html.files import shown
from jaxtickets.report.html.found import Found, Run
from jaxtickets.report.html.parts import Facts, Figure, Part, Section, Table, Text


def state(run: Run) -> str:
    """How far a run without scores is."""
    if run.finished:
        return "finished, not scored by itself"
    progress = run.progress
    last = run.metrics[-1].text("name", "") if run.metrics else "nothing trained yet"
    return "not finished" + (f": {last}" if progress is None else f": {100 * progress:.0f} % trained")


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
        each = cost.parts("phases")
        phases += [[run.name, row.text("name"), shown(row.number("steps"), 0), f"{row.number('flops') or 0:.3g}"] for row in each]
    if not rows:
        return None
    header = ["", "training FLOPs", "inference FLOPs", "density", "tickets, MB", "training, s", "compiling, s", "in all, s", "measured on"]
    note = (
        "FLOPs are theoretical: counted from the plan, as multiples of one dense training run of the method's reference length and of one "
        "dense forward pass. Masks simulate sparsity with dense compute, so the measured seconds do not fall with them."
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
    records += [*found.comparisons, *found.schemes, *found.strengths, *found.sweeps, *found.benchmarks, *found.evaluations]
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
    for dataset in dict.fromkeys(run.dataset for run in found.runs):
        alike = {run.name: run.config.part("run").part("data") for run in found.runs if run.config is not None and run.dataset == dataset}
        prints = {name: data.text("fingerprint", "not told") for name, data in alike.items()}
        told += _several(f"training data under the name {dataset}, by their fingerprints", prints)
    rows = [row for record in found.evaluations for row in record.parts("rows")]
    told += _several("ways to combine members", {row.text("name"): row.part("evaluation").text("combine", "proba") for row in rows})
    for record in found.comparisons:
        told += [f"left out of {record.file.name}: {line}" for line in record.texts("failed")]
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
