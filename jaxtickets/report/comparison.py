"""Several methods beside each other: means over seeds, as a table, as Markdown."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

THEORETICAL = (
    "FLOPs are theoretical, as multiples of the training and of one prediction of one dense network; masks simulate sparsity with "
    "dense compute. Seconds of training are measured, without compiling."
)


def summary(runs: Sequence[Mapping[str, Any]], dense_run: float) -> dict[str, Any]:
    """Mean and standard error over runs of one method that differ in their seed.

    Args:
      runs: contents of `results.json` files.
      dense_run: training FLOPs of the one dense network that costs are compared with.

    Returns:
      By score (accuracy, nll, ece, members_accuracy, members_nll, disagreement, kl, training, inference, seconds): `mean`, and
      `standard_error`, the sample's standard deviation over the root of the number of runs, None for one run. A score that some run
      lacks (the disagreement of one member) or that is infinite is None.

    >>> run = {"ensemble": {"accuracy": 0.5, "nll": 1.0, "ece": 0.1}, "members_mean": {"accuracy": 0.4, "nll": 2.0}, "diversity":
    ...        {"disagreement": 0.2, "kl": None}, "cost": {"phases": [{"flops": 3.0}], "inference": 1.0}, "seconds": {"train": 7.0}}
    >>> summary([run, run | {"seconds": {"train": 9.0}}], 2.0)["seconds"]
    {'mean': 8.0, 'standard_error': 1.0}
    """
    values = [
        {
            **{name: run["ensemble"][name] for name in ("accuracy", "nll", "ece")},
            **{f"members_{name}": run["members_mean"][name] for name in ("accuracy", "nll")},
            **{name: run["diversity"][name] for name in ("disagreement", "kl")},
            "training": sum(phase["flops"] for phase in run["cost"]["phases"]) / dense_run,
            "inference": run["cost"]["inference"],
            "seconds": run["seconds"]["train"],
        }
        for run in runs
    ]
    return {name: _mean([value[name] for value in values]) for name in values[0]}


def _mean(values: list[float | None]) -> dict[str, float | None] | None:
    there = [value for value in values if value is not None]
    if len(there) < len(values):
        return None
    spread = statistics.stdev(there) / math.sqrt(len(there)) if len(there) > 1 else None
    return {"mean": statistics.fmean(there), "standard_error": spread}


class Column(NamedTuple):
    """A score of a comparison, and how it is shown."""

    heading: str
    score: str
    times: float
    digits: int
    after: str = ""


COLUMNS = (
    Column("acc %", "accuracy", 100, 2),
    Column("NLL", "nll", 1, 3),
    Column("ECE %", "ece", 100, 1),
    Column("members", "members_accuracy", 100, 2),
    Column("disagr %", "disagreement", 100, 1),
    Column("KL", "kl", 1, 3),
    Column("train", "training", 1, 2, "x"),
    Column("infer", "inference", 1, 2, "x"),
    Column("sec", "seconds", 1, 0),
)


def comparison_table(found: Mapping[str, Any]) -> Group:
    """The rows of a comparison (what `compare_cifar.py` writes) for a terminal, the papers' accuracies beside ours."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("")
    for column in COLUMNS:
        table.add_column(column.heading, justify="right", no_wrap=True)
    papers = any(row["published"] for row in found["rows"])
    if papers:
        table.add_column("paper", justify="right", no_wrap=True)
    for row in found["rows"]:
        table.add_row(_named(row), *_cells(row), *([_paper(row)] if papers else []))
    sources = sorted({row["published"]["source"] for row in found["rows"] if row["published"]})
    notes = [f"{found['budget']} {_runs(found)} {THEORETICAL}", *([f"paper: {'; '.join(sources)}."] if sources else [])]
    return Group(table, Text("\n".join(notes)))


def markdown_comparison(found: Mapping[str, Any]) -> str:
    """The same as a Markdown table; the best accuracy and the best NLL are bold."""
    papers = any(row["published"] for row in found["rows"])
    headings = ["", *(heading for heading, *_ in COLUMNS), *(["paper's acc %"] if papers else [])]
    lines = ["| " + " | ".join(headings) + " |", "| --- |" + " ---: |" * (len(headings) - 1)]
    best = {
        "accuracy": max(row["scores"]["accuracy"]["mean"] for row in found["rows"]),
        "nll": min((row["scores"]["nll"]["mean"] for row in found["rows"] if row["scores"]["nll"]), default=None),
    }
    for row in found["rows"]:
        cells = _cells(row)
        for place, (_, name, *_) in enumerate(COLUMNS):
            if name in best and row["scores"][name] and row["scores"][name]["mean"] == best[name]:
                cells[place] = f"**{cells[place]}**"
        lines.append("| " + " | ".join([_named(row), *cells, *([_paper(row)] if papers else [])]) + " |")
    return "\n".join(lines)


def _named(row: Mapping[str, Any]) -> str:
    return row["title"] + (f" (M={row['members']})" if row["members"] > 1 else "")


def _cells(row: Mapping[str, Any]) -> list[str]:
    cells = []
    for _, name, factor, digits, after in COLUMNS:
        score = row["scores"][name]
        alone = row["members"] == 1 and name in ("members_accuracy", "disagreement", "kl")
        if score is None or alone:
            cells.append("")
            continue
        spread = score["standard_error"] if name in ("accuracy", "nll", "ece") else None
        number = f"{factor * score['mean']:,.{digits}f}{after}"
        cells.append(number if spread is None else f"{number} ± {factor * spread:.{digits}f}")
    return cells


def _paper(row: Mapping[str, Any]) -> str:
    told = row["published"]
    if not told:
        return ""
    spread = told["standard_error"]
    return f"{told['accuracy']:.2f}" + ("" if spread is None else f" ± {spread:.2f}")


def _runs(found: Mapping[str, Any]) -> str:
    seeds = found["seeds"]
    return f"Mean and standard error of {len(seeds)} runs." if len(seeds) > 1 else "One run."
