"""The picture of a run: its phases, and learning rate, density, loss and accuracy along them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from jaxtickets.engine import read_metrics

# Okabe and Ito's colours: told apart by colour-blind readers and in print.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442", "#000000")


def draw_run(folder: str | Path, file: str = "timeline.png") -> Path | None:
    """Draw a run folder's `metrics.jsonl` to `folder/file`.

    Returns:
      The figure's path; None where matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        return None
    folder = Path(folder)
    records = read_metrics(folder)
    config = json.loads((folder / "config.json").read_text())["run"]
    lines = _by_lineage(records)
    figure = Figure(figsize=(8, 7), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(4, 1, sharex=True, height_ratios=(1, 1, 1.6, 1.6))
    quantities = (("lr", "learning rate"), ("density", "density"), ("loss", "training loss"), ("accuracy", "training accuracy"))
    several = len(lines) > 1
    for axes, (name, label) in zip(panels, quantities, strict=True):
        for lineage, rows in sorted(lines.items()):
            colour = COLOURS[lineage % len(COLOURS)] if several else COLOURS[0]
            x = [row["epoch"] for row in rows]
            kind = axes.step if name == "lr" else axes.plot
            where = {"where": "pre"} if name == "lr" else {}
            kind(x, [row[name] for row in rows], color=colour, lw=1.6, label=f"member {lineage}", **where)
        if name == "accuracy" and any("validation" in row for rows in lines.values() for row in rows):
            for lineage, rows in sorted(lines.items()):
                seen = [(row["epoch"], row["validation"]) for row in rows if "validation" in row]
                axes.plot(*zip(*seen, strict=True), color=COLOURS[lineage % len(COLOURS)], ls=":", label=f"validation {lineage}")
        axes.set_ylabel(label)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color="0.9")
        axes.set_axisbelow(True)
    panels[0].set_yscale("log")
    panels[1].set_ylim(0, 1.05)
    panels[-1].set_xlabel("epochs of one lineage")
    if several:
        panels[-1].legend(frameon=False, fontsize="small")
    _mark_phases(panels, config["plan"]["phases"], next(iter(lines.values())))
    figure.suptitle(f"{config['plan']['name']}: {config['task']['name']} on {config['data']['name']}", fontsize="medium")
    path = folder / file
    figure.savefig(path, dpi=110)
    return path


def _by_lineage(records: list[dict[str, Any]]) -> dict[int, list[dict[str, Any]]]:
    """Records of many lineages as one list per lineage."""
    lines: dict[int, list[dict[str, Any]]] = {}
    for record in records:
        for i, lineage in enumerate(record["lineages"]):
            row = {name: record[name] for name in ("epoch", "lr", "phase")}
            row |= {name: record[name][i] for name in ("density", "loss", "accuracy")}
            if "validation_accuracy" in record:
                row["validation"] = record["validation_accuracy"][i]
            lines.setdefault(lineage, []).append(row)
    return lines


def _mark_phases(panels: Any, phases: list[dict[str, Any]], rows: list[dict[str, Any]]) -> None:
    """Shade every second training phase; mark where tickets are collected and where the run escapes."""
    begin, shaded, tickets = 0.0, False, 0
    for index, phase in enumerate(phases):
        if phase["kind"] == "Train":
            end = max((row["epoch"] for row in rows if row["phase"] == index), default=begin)
            for axes in panels:
                axes.axvspan(begin, end, color="0.95" if shaded else "white", lw=0, zorder=0)
            begin, shaded = end, not shaded
        elif phase["kind"] == "Collect":
            panels[0].annotate(f"ticket {tickets}", (begin, 1.02), xycoords=("data", "axes fraction"), ha="right", fontsize="small")
            tickets += 1
        elif phase["kind"] == "Escape":
            for axes in panels:
                axes.axvline(begin, color="0.4", ls="--", lw=1)
            panels[0].annotate(" escape", (begin, 1.02), xycoords=("data", "axes fraction"), ha="left", fontsize="small", color="0.4")
