"""The style that all pictures share, and how they are saved.

A blank figure, colours and markers, the house's dress, and the data that are saved beside them.
"""

from __future__ import annotations

import csv
import itertools
import math
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxtickets.files import paths

# Okabe and Ito's colours, told apart by colour-blind readers and in print; without their yellow,
# which white paper swallows.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = "osD^vPX*<>"
# 7, 10 and 3 have no common divisor: it is long until a series is like another
LINES = ("-", "--", "-.")

Rows = Sequence[Mapping[str, Any]]


def series_style(number: int) -> dict[str, Any]:
    """Colour, marker and line of the series of this number, for `plot`.

    Told apart by each of the three, so in grey too.
    """
    return {
        "color": COLOURS[number % len(COLOURS)],
        "marker": MARKERS[number % len(MARKERS)],
        "ls": LINES[number % len(LINES)],
    }


def row_style(found: Mapping[str, Any], row: Mapping[str, Any]) -> dict[str, Any]:
    """The style of an evaluation's row, the same in all its pictures."""
    return series_style(next(number for number, other in enumerate(found["rows"]) if other is row))


def new_figure(size: tuple[float, float]) -> Any:
    """An empty figure of so many inches; None where matplotlib is not installed."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        return None
    figure = Figure(figsize=size, layout="constrained")
    engine: Any = figure.get_layout_engine()
    engine.set(w_pad=0.07, h_pad=0.07)  # inches of white around everything
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: Any, file: str | Path, rows: Rows = ()) -> Path:
    """Save a figure in the package's style, and its numbers beside it; the picture's path.

    Args:
      figure: of `new_figure`.
      file: the picture to write; its ending says how: .png, or .pdf and .svg, which print at any
        size.
      rows: what was drawn, see `write_rows`; into the file of the same name that ends in .csv.
        Shares stay shares, also where the picture shows per cent.
    """
    import matplotlib

    file = paths.given(file)
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
        if not axes.images:  # (a heat map wants no lines)
            axes.grid(color="0.92")
        axes.set_axisbelow(True)
    # equal figures are equal files
    undated = {".pdf": {"CreationDate": None}, ".svg": {"Date": None}}.get(file.suffix)
    # fonts that printers take
    with matplotlib.rc_context({"pdf.fonttype": 42, "svg.hashsalt": file.stem}):
        figure.savefig(file, dpi=200, metadata=undated)
    if rows:
        write_rows(rows, file.with_suffix(".csv"))
    return file


def write_rows(rows: Rows, file: Path) -> Path:
    """Write rows as comma-separated values, the keys of the first above them.

    Numbers in full, nothing where a number is None or nan.

    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp()) / "found.csv"
    >>> rows = [{"name": "a, b", "acc (share)": 1 / 3}, {"name": "c", "acc (share)": None}]
    >>> write_rows(rows, file).read_text().splitlines()
    ['name,acc (share)', '"a, b",0.3333333333333333', 'c,']
    """
    with paths.given(file).open("w", newline="", encoding="utf-8") as opened:
        writer = csv.DictWriter(opened, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(
            {name: "" if absent(value) else value for name, value in row.items()} for row in rows
        )
    return file


def absent(value: Any) -> bool:
    """Whether a value is no number: None, as JSON has it, or nan."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def drawn(value: Any, times: float = 1.0) -> float:
    """A number times `times`, as matplotlib draws it: nan where it is None."""
    return math.nan if value is None else times * float(value)


def headline(figure: Any, text: str) -> None:
    """Write a title at the left of a figure, in as many lines as it takes."""
    lines = textwrap.wrap(text, max(20, int(12.5 * (figure.get_figwidth() - 0.2))))
    figure.suptitle("\n".join(lines), x=0.07 / figure.get_figwidth(), ha="left", fontsize="medium")


def legend_below(figure: Any, handles: Sequence[Any]) -> None:
    """Draw a legend under the axes, in as many columns as have room.

    The figure grows by its lines.
    """
    if not handles:
        return
    width, height = figure.get_size_inches()
    inches = [0.075 * len(handle.get_label()) + 0.65 for handle in handles]
    columns = min(len(handles), 6)
    while columns > 1 and _width(inches, columns) > width - 0.2:
        columns -= 1
    figure.set_size_inches(width, height + 0.17 * math.ceil(len(handles) / columns))
    figure.legend(
        handles=handles, loc="outside lower center", ncols=columns, frameon=False, fontsize="small"
    )


def _width(inches: Sequence[float], columns: int) -> float:
    """Width of a legend that fills its columns one after another, the first ones longer.

    >>> _width([1, 2, 3], 2)
    5
    """
    per_column, longer = divmod(len(inches), columns)
    begins = [column * per_column + min(column, longer) for column in range(columns + 1)]
    return sum(max(inches[begin:end]) for begin, end in itertools.pairwise(begins))


def readable(paths: Sequence[str]) -> list[str]:
    """Paths without the beginning, and without the last name, that all of them have.

    >>> readable(["params/Dense_0/kernel", "params/Block_1/Dense_0/kernel"])
    ['Dense_0', 'Block_1/Dense_0']
    >>> readable(["Dense_0/kernel"])
    ['Dense_0/kernel']
    """
    parts = [path.split("/") for path in paths]
    while len(parts) > 1 and min(map(len, parts)) > 1 and len({part[0] for part in parts}) == 1:
        parts = [part[1:] for part in parts]
    if len(parts) > 1 and min(map(len, parts)) > 1 and len({part[-1] for part in parts}) == 1:
        parts = [part[:-1] for part in parts]
    return ["/".join(part) for part in parts]
