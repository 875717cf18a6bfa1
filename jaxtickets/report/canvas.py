"""What all pictures share: a blank figure, colours and markers, the house's dress, and the data that are saved beside them."""

from __future__ import annotations

import csv
import math
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

# Okabe and Ito's colours, told apart by colour-blind readers and in print; without their yellow, which white paper swallows.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = "osD^vPX*<>"
LINES = ("-", "--", "-.", (0, (1, 1.2)), (0, (5, 1, 1, 1, 1, 1)))

Rows = Sequence[Mapping[str, Any]]


def series_style(number: int) -> dict[str, Any]:
    """Colour, marker and line of the series of this number, for `plot`: told apart by each of the three, so in grey too."""
    return {"color": COLOURS[number % len(COLOURS)], "marker": MARKERS[number % len(MARKERS)], "ls": LINES[number % len(LINES)]}


def new_figure(size: tuple[float, float]) -> Any:
    """An empty figure that no window belongs to, of so many inches; None where matplotlib is not installed."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        return None
    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: Any, file: str | Path, rows: Rows = ()) -> Path:
    """The figure in the house's dress, as a picture, and beside it what it shows; the picture's path.

    Args:
      figure: of `new_figure`.
      file: the picture to write; its ending says how: .png, or .pdf and .svg, which print at any size.
      rows: what was drawn, see `write_rows`; into the file of the same name that ends in .csv. Shares stay shares, also where the
        picture shows per cent.
    """
    import matplotlib

    file = Path(file)
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
        if not axes.images:  # (a heat map wants no lines)
            axes.grid(color="0.92")
        axes.set_axisbelow(True)
    undated = {".pdf": {"CreationDate": None}, ".svg": {"Date": None}}.get(file.suffix)  # equal figures are equal files
    with matplotlib.rc_context({"pdf.fonttype": 42, "svg.hashsalt": file.stem}):  # fonts that printers take
        figure.savefig(file, dpi=200, metadata=undated)
    if rows:
        write_rows(rows, file.with_suffix(".csv"))
    return file


def write_rows(rows: Rows, file: Path) -> Path:
    """Rows as comma-separated values, the first one's keys above them; numbers in full, nothing where a number is None or nan.

    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp()) / "found.csv"
    >>> write_rows([{"name": "a, b", "accuracy (share)": 1 / 3}, {"name": "c", "accuracy (share)": None}], file).read_text().splitlines()
    ['name,accuracy (share)', '"a, b",0.3333333333333333', 'c,']
    """
    with file.open("w", newline="", encoding="utf-8") as opened:
        writer = csv.DictWriter(opened, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows({name: "" if absent(value) else value for name, value in row.items()} for row in rows)
    return file


def absent(value: Any) -> bool:
    """Whether there is no number: None, as JSON has it, or nan."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def drawn(value: Any, times: float = 1.0) -> float:
    """A number that can be drawn, times something (100 makes a share per cent): nan where it is None."""
    return math.nan if value is None else times * float(value)


def headline(axes: Any, text: str) -> None:
    """A title at the left, in as many lines as it takes."""
    width = axes.figure.get_figwidth()
    axes.set_title("\n".join(textwrap.wrap(text, max(20, int(12.5 * width)))), loc="left", fontsize="medium")


def legend_below(figure: Any, handles: Sequence[Any]) -> None:
    """A legend under the axes, in as many columns as names have room; the figure grows by its lines."""
    if not handles:
        return
    width, height = figure.get_size_inches()
    longest = max(len(handle.get_label()) for handle in handles)
    columns = max(1, min(len(handles), 6, int((width - 0.2) / (0.072 * longest + 0.62))))
    lines = math.ceil(len(handles) / columns)
    figure.set_size_inches(width, height + 0.17 * lines)
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, frameon=False, fontsize="small")
