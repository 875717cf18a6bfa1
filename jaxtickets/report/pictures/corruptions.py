"""Pictures of scores on corrupted test sets: against severity, and corruption by corruption."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxtickets.report.canvas import (
    absent,
    drawn,
    headline,
    legend_below,
    new_figure,
    row_style,
    save_figure,
)

_SCORES = (
    ("accuracy", "accuracy, %", 100, "share"),
    ("nll", "NLL", 1, "nats per example"),
    ("ece", "ECE, %", 100, "share"),
)


def draw_severities(found: Mapping[str, Any], file: str | Path, *, title: str = "") -> Path | None:
    """Accuracy, and smaller beside it NLL and ECE, against severity.

    Means over the corruptions; severity 0 is the clean test set.

    Args:
      found: an evaluation.json: its `rows` with `name` and an `evaluation` whose `parts` have
        "corrupted". Others are passed over.
      file: the picture to write; its data go into the .csv beside it, a row for each method and
        severity.
      title: above it; the test set's name if not given. That the sets were generated is added.

    Returns:
      Its path; None where matplotlib is not installed or no row was tested on corrupted sets.
    """
    rows = _tested(found)
    figure = new_figure((7.5, 4.4)) if rows else None
    if figure is None:
        return None
    grid = figure.add_gridspec(2, 2, width_ratios=(1.9, 1))
    panels = (
        figure.add_subplot(grid[:, 0]),
        figure.add_subplot(grid[0, 1]),
        figure.add_subplot(grid[1, 1]),
    )
    handles, data = [], []
    for row in rows:
        sets, clean = row["evaluation"]["parts"]["corrupted"]["sets"], row["evaluation"]["ensemble"]
        severities = sorted({record["severity"] for record in sets} - {0})
        means = {0: {name: clean[name] for name, *_ in _SCORES}} | {
            severity: {
                name: _mean([record[name] for record in sets if record["severity"] == severity])
                for name, *_ in _SCORES
            }
            for severity in severities
        }
        for axes, (name, _, times, _) in zip(panels, _SCORES, strict=True):
            style = row_style(found, row) | (
                {"ms": 5.5, "lw": 1.8} if name == "accuracy" else {"ms": 3.5, "lw": 1.3}
            )
            line = axes.plot(
                list(means),
                [drawn(mean[name], times) for mean in means.values()],
                **style,
                label=row["name"],
            )[0]
            handles += [line] if name == "accuracy" else []
        data += [
            {
                "row": row["name"],
                "severity": severity,
                "corruptions": sum(record["severity"] == severity for record in sets),
            }
            | {
                f"{name} ({unit}, mean over corruptions)": mean[name]
                for name, _, _, unit in _SCORES
            }
            for severity, mean in means.items()
        ]
    for axes, (_, label, *_) in zip(panels, _SCORES, strict=True):
        axes.set_ylabel(label)
        axes.set_xticks(range(max(row["severity"] for row in data) + 1))
    panels[0].set_xlabel("severity (0: the clean test set)")
    panels[2].set_xlabel("severity")
    panels[1].tick_params(labelbottom=False)
    headline(figure, _title(title or f"{found['test']['name']}, mean over corruptions", rows))
    legend_below(figure, handles)
    return save_figure(figure, file, data)


def draw_corruptions(found: Mapping[str, Any], file: str | Path, *, title: str = "") -> Path | None:
    """Accuracy under every corruption, the mean over its severities; a marker for each method.

    Args:
      found: as of `draw_severities`.
      file: the picture to write; its data go into the .csv beside it, a row for each method and
        corruption.
      title: above it; the test set's name if not given. That the sets were generated is added.

    Returns:
      Its path; None where matplotlib is not installed or no row was tested on corrupted sets.
    """
    rows = _tested(found)
    corruptions = list(
        dict.fromkeys(
            record["corruption"]
            for row in rows
            for record in row["evaluation"]["parts"]["corrupted"]["sets"]
        )
    )
    figure = new_figure((6.5, 1.2 + 0.27 * len(corruptions))) if rows else None
    if figure is None:
        return None
    axes = figure.subplots()
    handles, data = [], []
    for place, row in enumerate(rows):
        means = []
        for corruption in corruptions:
            corruption_records = [
                record
                for record in row["evaluation"]["parts"]["corrupted"]["sets"]
                if record["corruption"] == corruption
            ]
            means.append(_mean([record["accuracy"] for record in corruption_records]))
            data.append(
                {
                    "row": row["name"],
                    "corruption": corruption,
                    "severities": len(corruption_records),
                    "accuracy (share, mean)": means[-1],
                }
            )
        style = row_style(found, row) | {"ls": "none"}
        style |= {"mfc": "white"} if place % 2 else {}
        heights = [
            i + 0.44 * (place / max(1, len(rows) - 1) - 0.5) * (len(rows) > 1)
            for i in range(len(corruptions))
        ]
        handles.append(
            axes.plot(
                [drawn(mean, 100) for mean in means],
                heights,
                **style,
                ms=5.5,
                mew=1.2,
                label=row["name"],
            )[0]
        )
    for between in range(1, len(corruptions)):
        axes.axhline(between - 0.5, color="0.9", lw=0.6, zorder=0)
    axes.set_yticks(
        range(len(corruptions)),
        [corruption.replace("_", " ") for corruption in corruptions],
        fontsize="small",
    )
    axes.set_ylim(len(corruptions) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel("accuracy, %, mean over severities")
    headline(figure, _title(title or found["test"]["name"], rows))
    legend_below(figure, handles)
    return save_figure(figure, file, data)


def _tested(evaluation: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [
        row
        for row in evaluation["rows"]
        if (row["evaluation"].get("parts") or {}).get("corrupted", {}).get("sets")
    ]


def _title(title: str, rows: Sequence[Mapping[str, Any]]) -> str:
    return title + (
        " (generated corruptions)"
        if any(row["evaluation"]["parts"]["corrupted"]["generated"] for row in rows)
        else ""
    )


def _mean(values: Sequence[float | None]) -> float | None:
    """The mean of numbers; None where one of them is missing, so that a mean is always of all."""
    numbers = [float(value) for value in values if not absent(value) and value is not None]
    return statistics.fmean(numbers) if numbers and len(numbers) == len(values) else None
