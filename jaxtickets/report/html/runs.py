"""Sections on the runs: cost, what was run, how to run it again, and what does not fit."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from jaxtickets.report.costs import COST_COLUMNS, in_one_unit
from jaxtickets.report.html.blocks import Block, Facts, Figure, Section, Text
from jaxtickets.report.html.inputs import ReportInputs, Run
from jaxtickets.report.records import Record
from jaxtickets.report.table import Cell, Column, table_of


def state(run: Run) -> str:
    """How far a run without scores has come, in words."""
    if run.finished:
        return "finished, not scored by itself"
    progress = run.progress
    last = run.metrics[-1].text("name", "") if run.metrics else "nothing trained yet"
    return "not finished" + (
        f": {last}" if progress is None else f": {100 * progress:.0f} % trained"
    )


def cost_section(inputs: ReportInputs) -> Section | None:
    """The section on costs: the ledger's FLOPs, theoretical and executed, beside seconds."""
    scored = [(run, run.results) for run in inputs.runs if run.results is not None]
    if not scored:
        return None
    costs = in_one_unit([_costs(run, results) for run, results in scored])
    ratios = zip(*costs.columns.values(), strict=True)
    lines: list[tuple[str, list[Cell]]] = []
    phases: list[tuple[str, list[Cell]]] = []
    for (run, results), pair in zip(scored, ratios, strict=True):
        cost, seconds = results.part("cost"), results.part("seconds")
        values = [cost.number(name) for name in ("density", "ticket_bytes")]
        values += [seconds.number(name) for name in ("train", "compile", "total")]
        lines.append((run.name, [*pair, *values, _backend(run)]))
        for phase in cost.parts("phases"):
            flops = [
                "" if (number := phase.number(name)) is None else f"{number:.3g}"
                for name in ("flops", "executed")
            ]
            phases.append((run.name, [phase.text("name"), phase.number("steps"), *flops]))
    columns = (
        *(
            dataclasses.replace(COST_COLUMNS[name], title=f"{COST_COLUMNS[name].title} FLOPs")
            for name in costs.columns
        ),
        Column("density", digits=3),
        Column("tickets, MB", times=1e-6, digits=1),
        *(Column(f"{heading}, s", digits=0) for heading in ("training", "compiling", "in all")),
        Column("measured on", words=True),
    )
    note = f"{costs.note} FLOPs are counted from the plan, seconds are measured."
    ledger = (
        Column("phase", words=True),
        Column("steps", digits=0),
        Column("theoretical FLOPs"),
        Column("executed FLOPs"),
    )
    return Section(
        "Cost",
        [
            table_of("FLOPs and measured seconds", columns, lines, note),
            table_of("Ledger by phase", ledger, phases),
        ],
    )


def _costs(run: Run, results: Record) -> dict[str, Any]:
    """The part of a `results.json` that `in_one_unit` looks at, checked."""
    cost = results.part("cost")
    checked: dict[str, Any] = {
        name: cost.number(name)
        for name in (
            "training",
            "inference",
            "training_executed",
            "inference_executed",
            "training_counted",
            "inference_counted",
            "forward_dense",
        )
        if name in cost
    }
    phases = [
        {"flops": phase.number("flops") or 0.0, "executed": phase.number("executed")}
        for phase in cost.parts("phases")
    ]
    if (unit := cost.maybe("reference")) is not None:
        numbers = {name: unit.number(name) or 0.0 for name in ("flops", "forward")}
        checked["reference"] = {
            "network": unit.text("network"),
            "length": unit.text("length"),
            **numbers,
        }
    length = run.plan.reference if run.plan is not None else None
    reference = None if length is None else {"amount": length.amount, "unit": length.unit}
    return {
        "model": run.model,
        "cost": checked | {"phases": phases},
        "plan": {"reference": reference},
    }


def runs_section(inputs: ReportInputs, timelines: Mapping[str, Figure]) -> Section | None:
    """The section on the runs: what each was, on what, with its plan and training curves."""
    return (
        Section("What was run", [_run_section(run, timelines.get(run.name)) for run in inputs.runs])
        if inputs.runs
        else None
    )


def _run_section(run: Run, timeline: Figure | None) -> Section:
    record = run.config if run.config is not None else run.results
    facts = [
        ("method", run.method),
        ("network", run.model),
        ("data", _data(run)),
        ("state", "finished" if run.results is not None else state(run)),
    ]
    if run.config is not None:
        facts.append(("started", run.config.text("started", "not told")))
        key = run.config.part("run").number("key")
        facts.append(("key", "not told" if key is None else f"{key:,.0f}"))
    if run.results is not None and "seed" in run.results:
        facts.append(("seed", f"{run.results.count('seed')}"))
    versions = record.maybe("versions") if record is not None else None
    if versions is not None:
        facts.append(("hardware", versions.text("backend", "not told")))
        facts.append(
            (
                "versions",
                ", ".join(
                    f"{name} {versions.text(name)}" for name in versions.data if name != "backend"
                ),
            )
        )
    blocks: list[Block] = [
        Facts(facts),
        Text(
            str(run.plan) if run.plan is not None else "The plan is of another version.", "command"
        ),
    ]
    return Section(run.name, [*blocks, *([timeline] if timeline is not None else [])])


def _data(run: Run) -> str:
    if run.config is None:
        return run.dataset
    data = run.config.part("run").part("data")
    details = "".join(
        f", {name} {data.text(name)}"
        for name in ("fingerprint", "augment")
        if isinstance(data.data.get(name), str)
    )
    return f"{run.dataset}, {data.count('examples'):,} training examples{details}"


def again_section(inputs: ReportInputs, command: str) -> Section:
    """The section with the commands that made what is shown."""
    records: list[Any] = [run.results for run in inputs.runs if run.results is not None]
    records += [
        *inputs.comparisons,
        *inputs.schemes,
        *inputs.strengths,
        *inputs.sweeps,
        *inputs.benchmarks,
        *inputs.evaluations,
    ]
    commands = list(
        dict.fromkeys(record.text("command") for record in records if "command" in record)
    )
    blocks: list[Block] = [
        Text(text, "command") for text in [*commands, *([command] if command else [])]
    ]
    silent = [run.name for run in inputs.runs if run.results is None]
    if silent:
        blocks.append(
            Text(
                f"Of {', '.join(silent)} no command is kept: it is written with the scores. The"
                " same command resumes a run."
            )
        )
    return Section("Run it again", blocks)


def doubts(inputs: ReportInputs) -> list[Text]:
    """Warnings about what does not fit together, or not with what it says of itself."""
    warnings = []
    for run in inputs.runs:
        if not run.finished:
            warnings.append(f"{run.name}: {state(run)}; it has no scores yet.")
        if run.results is not None and run.config is not None:
            if (
                "plan" in run.results
                and run.results.part("plan").data != run.config.part("run").part("plan").data
            ):
                warnings.append(f"{run.name}: results.json is of another plan than config.json.")
            if "seed" in run.results and run.results.number("seed") != run.config.part(
                "run"
            ).number("key"):
                warnings.append(
                    f"{run.name}: results.json is of seed {run.results.count('seed')}, config.json"
                    " of another key."
                )
    scored = [run for run in inputs.runs if run.results is not None]
    warnings += _several(
        "bins of ECE",
        {run.name: str(run.results.count("ece_bins")) for run in scored if run.results is not None},
    )
    warnings += _several(
        "hardware; their seconds cannot be compared", {run.name: _backend(run) for run in scored}
    )
    for dataset in dict.fromkeys(run.dataset for run in inputs.runs):
        data_by_run = {
            run.name: run.config.part("run").part("data")
            for run in inputs.runs
            if run.config is not None and run.dataset == dataset
        }
        fingerprints = {
            name: data.text("fingerprint", "not told") for name, data in data_by_run.items()
        }
        warnings += _several(
            f"training data under the name {dataset}, by their fingerprints", fingerprints
        )
    rows = [row for record in inputs.evaluations for row in record.parts("rows")]
    warnings += _several(
        "ways to combine members",
        {row.text("name"): row.part("evaluation").text("combine", "proba") for row in rows},
    )
    for record in inputs.comparisons:
        warnings += [f"left out of {record.file.name}: {line}" for line in record.texts("failed")]
    return [Text(text, "warning") for text in warnings]


def _several(subject: str, values: Mapping[str, str]) -> list[str]:
    names: dict[str, list[str]] = {}
    for name, value in values.items():
        names.setdefault(value, []).append(name)
    if len(names) < 2:
        return []
    return [
        f"Different {subject}: "
        + "; ".join(f"{value} ({', '.join(run_names)})" for value, run_names in names.items())
        + "."
    ]


def _backend(run: Run) -> str:
    versions = run.results.maybe("versions") if run.results is not None else None
    return versions.text("backend", "not told") if versions is not None else "not told"
