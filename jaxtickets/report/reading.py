"""The numbers of `results.json` files, and the tables that show them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxtickets.evaluation import Evaluation
from jaxtickets.files import paths
from jaxtickets.ledger import PlanCost
from jaxtickets.report.costs import COST_COLUMNS, in_one_unit
from jaxtickets.report.records import Record, as_record, read_json
from jaxtickets.report.table import Cell, Column, ScoreTable, table_of
from jaxtickets.tickets.ensemble import TicketEnsemble

ROUNDED = 1e-3
"""Relative: masks whose counts were known beforehand differ by the rounding of layer sizes."""


def results(
    tickets: TicketEnsemble,
    evaluation: Evaluation,
    cost: PlanCost,
    folder: str | Path,
    counted: PlanCost | None = None,
) -> dict[str, Any]:
    """Scores, diversity, cost and time of a finished run.

    Args:
      tickets: what the run collected.
      evaluation: of them, on test data.
      cost: the plan's ledger.
      folder: the run folder, for the measured seconds and versions.
      counted: the ledger of the tickets' masks, told beside the plan's where it is another.

    Returns:
      What `Evaluation.to_dict` has: `ensemble` and `members` (accuracy, nll, ece, adaptive_ece,
        brier), `members_mean`,
      `diversity` (disagreement, kl, mask_iou), `per_class`, `reliability` and more; files of before
      have no `adaptive_ece`, `per_class`, `reliability`, `combine` and `parts`. Beside it `cost`
      (training and inference ratio, density, and more), `seconds` (train, compile, total),
      `versions`, `plan`. Only what JSON knows: an infinite or undefined number is None.

    Raises:
      ReportError: `timing.json` is not there or is damaged.
    """
    timing = read_json(paths.given(folder) / "timing.json").data
    measured = evaluation.to_dict()
    for number, score in enumerate(measured["members"]):
        info = tickets.tickets[number // tickets.heads].info
        score |= {"density": info.get("density"), "ever_active": info.get("ever_active")}
    costs = cost.to_dict()
    if counted is not None and not math.isclose(counted.training, cost.training, rel_tol=ROUNDED):
        costs |= {f"{name}_counted": getattr(counted, name) for name in ("training", "inference")}
    record = measured | {"cost": costs} | timing | {"plan": cost.plan.to_json()}
    return finite(record)


def results_table(runs: Mapping[str, Mapping[str, Any]]) -> ScoreTable:
    """Members, their mean and the ensemble of every run, best seen in a terminal.

    Args:
      runs: what `results` gives, by name.
    """
    costs = in_one_unit(list(runs.values()))
    columns = (
        Column("acc %", times=100),
        Column("NLL", digits=3),
        Column("ECE %", times=100, digits=1),
        Column("Brier", digits=3),
        Column("density", digits=3, short="dens"),
        *(COST_COLUMNS[name] for name in costs.columns),
        Column("seconds", digits=0, short="sec"),
    )
    lines: list[tuple[str, list[Cell]]] = []
    notes, strong, faint = [], set(), set()
    for number, (name, run) in enumerate(runs.items()):
        ratios = {name: values[number] for name, values in costs.columns.items()}
        members = run["members"]
        if len(members) > 1:
            faint |= set(range(len(lines), len(lines) + len(members)))
            cost_cells: list[Cell] = [
                None if ratio is None or "training" in name else ratio / len(members)
                for name, ratio in ratios.items()
            ]
            for i, member in enumerate(members):
                cells = [*_scores(member), member["density"], *cost_cells, None]
                lines.append((f"member {i}", cells))
            blank = [None] * (len(cost_cells) + 2)
            lines.append(("mean of members", [*_scores(run["members_mean"]), *blank]))
            diversity = run["diversity"]
            overlap = diversity["mask_iou"]
            notes.append(
                f"{name}: prediction disagreement {diversity['disagreement']:.2%}, KL"
                f" {diversity['kl']:.4f}{'' if overlap is None else f', mask IoU {overlap:.3f}'}."
            )
        strong.add(len(lines))
        ensemble_cells = [*_scores(run["ensemble"]), run["cost"]["density"], *ratios.values()]
        row_name = f"{name} ensemble" if len(members) > 1 else name
        lines.append((row_name, [*ensemble_cells, run["seconds"]["total"]]))
    bins = next(iter(runs.values()))["ece_bins"]
    notes.append(f"ECE over {bins} bins. {costs.note} Seconds are measured.")
    return dataclasses.replace(
        table_of("", columns, lines),
        notes=tuple(notes),
        strong=frozenset(strong),
        faint=frozenset(faint),
    )


def runs_table(runs: Sequence[Mapping[str, Any]]) -> ScoreTable:
    """Each run's ensemble and its members' mean, and one dense network beside them.

    Accuracy and ECE in per cent. FLOPs, theoretical and executed, all in one unit, which the note
    names where the runs tell it.

    Args:
      runs: contents of `results.json` files.
    """
    dense = [
        run["single_dense"] | {"model": run["model"]} for run in runs if run.get("single_dense")
    ]
    costs = in_one_unit([*runs, *dense])
    columns = (
        Column("accuracy", times=100),
        Column("NLL", digits=3),
        Column("ECE", times=100, digits=1),
        Column("disagreement"),
        *(_with_flops(COST_COLUMNS[name]) for name in costs.columns),
        Column("seconds", digits=0),
    )
    ratios = list(zip(*costs.columns.values(), strict=True))
    of_dense = iter(ratios[len(runs) :])
    lines: list[tuple[str, list[Cell]]] = []
    strong = set()
    for run, cost_ratios in zip(runs, ratios, strict=False):
        members, scores = len(run["members"]), _scores(run["ensemble"])[:3]
        name = f"{run['plan']['name']}, {run['model']}, {run['dataset']['name']}"
        disagreement = f"{run['diversity']['disagreement']:.1%}" if members > 1 else ""
        line: list[Cell] = [*scores, disagreement, *cost_ratios, run["seconds"]["total"]]
        if members > 1:
            strong.add(len(lines))
            mean = [*_scores(run["members_mean"])[:3], *[None] * (len(columns) - 3)]
            lines += [(f"{name}: ensemble of {members}", line), ("mean of its members", mean)]
        else:
            lines.append((name, line))
        if single := run.get("single_dense"):
            scores, seconds = _scores(single["ensemble"])[:3], single["seconds"]["total"]
            line = [*scores, None, *next(of_dense), seconds]
            lines.append(("one dense network, same schedule", line))
    table = table_of("", columns, lines, costs.note if costs.unit else "")
    return dataclasses.replace(table, strong=frozenset(strong))


def _with_flops(column: Column) -> Column:
    return dataclasses.replace(column, title=f"{column.title} FLOPs", short="")


def benchmark_table(benchmark: Mapping[str, Any] | Record) -> ScoreTable:
    """The table of a benchmark: what it measured, beside what was wanted.

    Args:
      benchmark: what `benchmark.py` writes.

    Raises:
      ReportError: a field of another kind than wanted; names it.
    """
    columns = [Column("ratio"), *map(Column, ("wanted", "measured", "against"))]
    lines: list[tuple[str, list[Cell]]] = []
    for row in as_record(benchmark).parts("rows"):
        target = row.text("wanted", "") + ("" if row.flag("met") else " (missed)")
        pair = (row.number(name) for name in ("measured", "against"))
        numbers = ["" if number is None else f"{number:.4g}" for number in pair]
        lines.append((row.text("what"), [row.number("ratio"), target, *numbers]))
    return table_of("Benchmark", columns, lines)


def read_results(folder: Path) -> list[dict[str, Any]]:
    """All result files of runs in `folder`, by name; other JSON files are passed over.

    Raises:
      ReportError: one of the files is no JSON object.
    """
    records = [read_json(path) for path in sorted(paths.given(folder).glob("*.json"))]
    return [record.data for record in records if "ensemble" in record]


def _scores(scores: Mapping[str, Any]) -> tuple[float | None, ...]:
    """Accuracy, NLL, ECE and Brier score; JSON has None where the NLL is infinite."""
    values = (scores.get(name, math.nan) for name in ("accuracy", "nll", "ece", "brier"))
    return tuple(math.inf if value is None else value for value in values)


def finite(value: Any) -> Any:
    """The value as JSON knows it: infinite and undefined numbers, however deep, are None."""
    if isinstance(value, Mapping):
        return {name: finite(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
