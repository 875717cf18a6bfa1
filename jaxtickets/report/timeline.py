"""The picture of a run: its phases, and learning rate, density, loss and accuracy along them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jaxtickets.engine import read_metrics
from jaxtickets.files import paths
from jaxtickets.report.canvas import COLOURS, new_figure, save_figure
from jaxtickets.report.records import read_json


def draw_run(folder: str | Path, file: str = "timeline.png") -> Path | None:
    """Draw a run folder's `metrics.jsonl` to `folder/file`, and its numbers into a .csv beside it.

    Returns:
      The figure's path; None where matplotlib is not installed.
    """
    figure = new_figure((8, 7))
    if figure is None:
        return None
    folder = paths.given(folder)
    records = read_metrics(folder)
    config = read_json(folder / "config.json").part("run").data
    lines = _by_network(records)
    panels = figure.subplots(4, 1, sharex=True, height_ratios=(1, 1, 1.6, 1.6))
    quantities = (
        ("lr", "learning rate"),
        ("density", "density"),
        ("loss", "training loss"),
        ("accuracy", "training accuracy"),
    )
    several = len(lines) > 1
    colours = {
        network: COLOURS[number % len(COLOURS)] for number, network in enumerate(sorted(lines))
    }
    for axes, (name, label) in zip(panels, quantities, strict=True):
        for network, rows in sorted(lines.items()):
            x = [row["epoch"] for row in rows]
            kind = axes.step if name == "lr" else axes.plot
            line_style: dict[str, Any] = {"where": "pre"} if name == "lr" else {}
            line_style |= {"marker": "."} if len(rows) == 1 else {}
            kind(
                x,
                [row[name] for row in rows],
                color=colours[network],
                lw=1.6,
                label=_called(network, lines),
                **line_style,
            )
        if name == "accuracy" and any(
            "validation" in row for rows in lines.values() for row in rows
        ):
            for network, rows in sorted(lines.items()):
                validation_points = [
                    (row["epoch"], row["validation"]) for row in rows if "validation" in row
                ]
                if validation_points:
                    axes.plot(
                        *zip(*validation_points, strict=True),
                        color=colours[network],
                        ls=":",
                        label=f"validation {_called(network, lines)}",
                    )
        axes.set_ylabel(label)
    panels[0].set_yscale("log")
    panels[1].set_ylim(0, 1.05)
    panels[-1].set_xlabel("epochs of one lineage")
    if several:
        handles, labels = panels[-1].get_legend_handles_labels()
        # of 128 children a few tell enough
        shown = range(len(labels)) if len(labels) <= 12 else (*range(6), len(labels) - 1)
        panels[-1].legend(
            [handles[i] for i in shown],
            [labels[i] for i in shown],
            frameon=False,
            fontsize="small",
            ncols=2,
        )
    child = next((rows for network, rows in sorted(lines.items()) if network[1] >= 0), [])
    rows, phases = lines[min(lines)] + child, config["plan"]["phases"]
    # what comes after the last phase that was begun is not there yet
    if not (folder / "tickets.safetensors").exists():
        phases = phases[: max(row["phase"] for row in rows) + 1]
    _mark_phases(panels, phases, rows)
    figure.suptitle(
        f"{config['plan']['name']}: {config['task']['name']} on {config['data']['name']}",
        fontsize="medium",
        parse_math=False,
    )
    return save_figure(figure, folder / file, _rows(lines))


def _rows(lines: dict[tuple[int, int], list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """The numbers of the lines that are drawn, for `write_rows`."""
    names = {
        "epoch": "epoch of one lineage",
        "phase": "phase",
        "lr": "learning rate",
        "density": "density (share)",
    }
    names |= {
        "loss": "training loss",
        "accuracy": "training accuracy (share)",
        "validation": "validation accuracy (share)",
    }
    return [
        {"lineage": lineage, "child": child if child >= 0 else None}
        | {label: row.get(name) for name, label in names.items()}
        for (lineage, child), rows in sorted(lines.items())
        for row in rows
    ]


def _by_network(records: list[dict[str, Any]]) -> dict[tuple[int, int], list[dict[str, Any]]]:
    """Records by network, which is (lineage, child); child -1 is the lineage itself."""
    lines: dict[tuple[int, int], list[dict[str, Any]]] = {}
    for record in records:
        children = record.get("children") or [None] * len(record["lineages"])
        for i, (lineage, child) in enumerate(zip(record["lineages"], children, strict=True)):
            row = {name: record[name] for name in ("epoch", "lr", "phase")}
            row |= {name: record[name][i] for name in ("density", "loss", "accuracy")}
            if "validation_accuracy" in record:
                row["validation"] = record["validation_accuracy"][i]
            lines.setdefault((lineage, -1 if child is None else child), []).append(row)
    return lines


def _called(network: tuple[int, int], lines: dict[tuple[int, int], list[dict[str, Any]]]) -> str:
    lineage, child = network
    if all(other < 0 for _, other in lines):
        return f"member {lineage}"
    whose = f" {lineage}" if len({number for number, _ in lines}) > 1 else ""
    return f"parent{whose}" if child < 0 else f"child {child}" + (f" of{whose}" if whose else "")


def _mark_phases(panels: Any, phases: list[dict[str, Any]], rows: list[dict[str, Any]]) -> None:
    """Shade every second training phase; mark collected tickets and escapes."""
    begin, shaded, tickets = 0.0, False, 0
    forked = any(phase["kind"] == "Fork" for phase in phases)
    for index, phase in enumerate(phases):
        if phase["kind"] == "Train":
            end = max((row["epoch"] for row in rows if row["phase"] == index), default=begin)
            for axes in panels:
                axes.axvspan(begin, end, color="0.95" if shaded else "white", lw=0, zorder=0)
            begin, shaded = end, not shaded
        elif phase["kind"] == "Collect":
            label = "tickets" if forked else f"ticket {tickets}"
            panels[0].annotate(
                label,
                (begin, 1.02),
                xycoords=("data", "axes fraction"),
                ha="right",
                fontsize="small",
            )
            tickets += 1
        elif phase["kind"] == "Fork":
            for axes in panels:
                axes.axvline(begin, color="0.4", ls=":", lw=1)
            panels[0].annotate(
                " fork",
                (begin, 1.02),
                xycoords=("data", "axes fraction"),
                ha="right",
                fontsize="small",
                color="0.4",
            )
        elif phase["kind"] == "Escape":
            for axes in panels:
                axes.axvline(begin, color="0.4", ls="--", lw=1)
            panels[0].annotate(
                " escape",
                (begin, 1.02),
                xycoords=("data", "axes fraction"),
                ha="left",
                fontsize="small",
                color="0.4",
            )
