"""The picture of what more members gain.

The accuracy of all ensembles that a set of members contains, by their size.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxtickets.report.canvas import (
    drawn,
    headline,
    legend_below,
    new_figure,
    row_style,
    save_figure,
)


def draw_subsets(found: Mapping[str, Any], file: str | Path, *, title: str = "") -> Path | None:
    """Accuracy against the number of members.

    A line through the means over all subsets, dark one standard deviation, light the range.

    Args:
      found: an evaluation.json: its `rows` with `name` and `subsets` (`sizes`, and `accuracy` by
        size: mean, min, max, standard_deviation). Rows without subsets, of one member, are passed
        over.
      file: the picture to write; its data go into the .csv beside it, a row for each method and
        size.
      title: above it; the test set's name if not given.

    Returns:
      Its path; None where matplotlib is not installed or no row has subsets.
    """
    rows = [row for row in found["rows"] if row.get("subsets")]
    figure = new_figure((6.5, 4.2)) if rows else None
    if figure is None:
        return None
    axes = figure.subplots()
    handles, data = [], []
    band = min(1.0, 3 / len(rows))  # many bands over each other are paler
    for row in rows:
        style = row_style(found, row)
        sizes = row["subsets"]["sizes"]
        scores = [row["subsets"]["accuracy"][str(size)] for size in sizes]
        mean, low, high, spread = (
            [drawn(score[name], 100) for score in scores]
            for name in ("mean", "min", "max", "standard_deviation")
        )
        axes.fill_between(sizes, low, high, color=style["color"], alpha=0.10 * band, lw=0)
        inner = [(m - s, m + s) for m, s in zip(mean, spread, strict=True)]
        axes.fill_between(
            sizes, *zip(*inner, strict=True), color=style["color"], alpha=0.22 * band, lw=0
        )
        for edge in (low, high):
            axes.plot(sizes, edge, color=style["color"], lw=0.6, ls=style["ls"], alpha=0.7)
        handles.append(axes.plot(sizes, mean, **style, lw=1.8, ms=5.5, label=row["name"])[0])
        names = ("mean", "min", "max", "standard_deviation")
        data += [
            {"row": row["name"], "members": size}
            | {f"accuracy ({name.replace('_', ' ')}, share)": score[name] for name in names}
            for size, score in zip(sizes, scores, strict=True)
        ]
    axes.set(xlabel="members of an ensemble", ylabel="test accuracy, %")
    axes.xaxis.get_major_locator().set_params(integer=True)
    headline(
        figure,
        title
        or f"{found['test']['name']}: all ensembles of so many members (dark: one standard"
        " deviation, light: the range)",
    )
    legend_below(figure, handles)
    return save_figure(figure, file, data)
