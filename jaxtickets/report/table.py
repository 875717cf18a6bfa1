"""The model of a table of scores, which terminal, Markdown, LaTeX and HTML show alike."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple, get_args

from rich import box
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from jaxtickets.errors import ReportError

Better = Literal["higher", "lower", "none"]

_ARROWS = {"higher": "↑", "lower": "↓", "none": ""}


class Mean(NamedTuple):
    """A mean over runs, and its standard error where there are several."""

    value: float
    error: float | None = None


Cell = float | str | Mean | None


@dataclasses.dataclass(frozen=True)
class Column:
    """The meaning of a column of numbers, and how it is written.

    Args:
      title: what it is.
      unit: of the numbers as they are shown: "%" for shares times 100, "x" for multiples.
      times: what numbers are multiplied with to be shown in that unit.
      digits: decimals.
      better: which numbers are better, "higher", "lower", or "none" where neither is.
      arrow: whether the heading says which are better.
      short: a heading for where room is scarce; the title in full if not given.
      sign: whether numbers above 0 have a plus sign.
      words: whether it holds texts, which are set to the left and broken.

    Raises:
      ReportError: `better` is something else.

    >>> Column("accuracy", "%", 100, better="higher").show(0.91234)
    '91.23'
    >>> Column("training FLOPs", "x").show(0.61)
    '0.61x'
    """

    title: str
    unit: str = ""
    times: float = 1.0
    digits: int = 2
    better: Better = "none"
    arrow: bool = True
    short: str = ""
    sign: bool = False
    words: bool = False

    def __post_init__(self) -> None:
        if self.better not in get_args(Better):
            raise ReportError(
                f"better: got {self.better!r}, wanted one of"
                f" {', '.join(map(repr, get_args(Better)))}."
            )

    @property
    def heading(self) -> str:
        """The column's title, unit and arrow."""
        unit = "" if self.unit == "x" else self.unit
        arrow = _ARROWS[self.better] if self.arrow else ""
        return " ".join(part for part in (self.title, unit, arrow) if part)

    def show(self, value: Cell) -> str:
        """The cell's text: nothing for None and nan, "inf" where a number is infinite."""
        if isinstance(value, Mean):
            error = "" if value.error is None else f" ± {self.times * value.error:,.{self.digits}f}"
            return self.show(value.value) + error
        if value is None or isinstance(value, str):
            return value or ""
        plus, unit = "+" if self.sign else "", "x" if self.unit == "x" else ""
        shown = f"{self.times * value:{plus},.{self.digits}f}{unit}"
        return "" if math.isnan(value) else shown


class Grid(NamedTuple):
    """Cells as they are printed: the form that templates take.

    Attributes:
      header: heading of each column, the first that of the rows' names.
      rows: cells; the first names the row.
      bold: (row, column), from 0, of cells to stress.
      words: columns, from 0, that are set to the left.
    """

    header: list[str]
    rows: list[list[str]]
    bold: set[tuple[int, int]]
    words: set[int]


@dataclasses.dataclass(frozen=True)
class ScoreTable:
    """Rows of numbers with their names. Prints in a terminal, in blocks as wide as there is room.

    Args:
      columns: what the numbers are.
      names: of the rows.
      cells: a number, a `Mean`, a text or None, for each row and column; numbers unrounded.
      notes: what a reader has to know, sentences.
      title: its caption.
      corner: heading of the rows' names.
      strong: rows, from 0, that are stressed.
      faint: rows, from 0, that are said quietly.

    Raises:
      ReportError: rows that have not a cell for each column, or not a name each.
    """

    columns: tuple[Column, ...]
    names: tuple[str, ...]
    cells: tuple[tuple[Cell, ...], ...]
    notes: tuple[str, ...] = ()
    title: str = ""
    corner: str = ""
    strong: frozenset[int] = frozenset()
    faint: frozenset[int] = frozenset()

    def __post_init__(self) -> None:
        if len(self.names) != len(self.cells):
            raise ReportError(
                f"names: got {len(self.names)} for {len(self.cells)} rows; give one for each."
            )
        for name, row in zip(self.names, self.cells, strict=True):
            if len(row) != len(self.columns):
                raise ReportError(
                    f"cells: the row {name!r} has {len(row)} for {len(self.columns)} columns; give"
                    " None where there is no number."
                )

    def lines(self) -> list[list[tuple[str, bool]]]:
        """Every row's cells as text, and whether it is its column's best.

        What is shown alike is best alike. Nothing is where a column has one number, all are alike,
        or neither way is better.

        >>> columns, cells = (Column("NLL", better="lower"),), ((0.201,), (0.2,), (0.3,))
        >>> ScoreTable(columns, ("a", "b", "c"), cells).lines()
        [[('0.20', True)], [('0.20', True)], [('0.30', False)]]
        """
        shown = [
            [column.show(value) for column, value in zip(self.columns, row, strict=True)]
            for row in self.cells
        ]
        best = [self._best(j, [row[j] for row in shown]) for j in range(len(self.columns))]
        return [
            [(text, bool(text) and text == best[j]) for j, text in enumerate(row)] for row in shown
        ]

    def grid(self, short: bool = False) -> Grid:
        """All cells as text, with short headings where there are such."""
        lines = self.lines()
        header = [(column.short if short else "") or column.heading for column in self.columns]
        rows = [
            [name, *(text for text, _ in line)]
            for name, line in zip(self.names, lines, strict=True)
        ]
        bold = {
            (i, j) for i, line in enumerate(lines) for j, (_, best) in enumerate(line, 1) if best
        }
        bold |= {(i, j) for i in self.strong for j in range(len(header) + 1)}
        words = {0, *(j for j, column in enumerate(self.columns, 1) if column.words)}
        return Grid([self.corner, *header], rows, bold, words)

    def select(self, *titles: str) -> ScoreTable:
        """The table with these columns only, in this order: a page is narrow.

        Raises:
          ReportError: a title that no column has.
        """
        numbers = {column.title: number for number, column in enumerate(self.columns)}
        if unknown := [title for title in titles if title not in numbers]:
            raise ReportError(
                f"titles: no column is called {unknown[0]!r}; there are"
                f" {', '.join(map(repr, numbers))}."
            )
        column_numbers = [numbers[title] for title in titles]
        cells = tuple(tuple(row[number] for number in column_numbers) for row in self.cells)
        columns = tuple(self.columns[number] for number in column_numbers)
        return dataclasses.replace(self, columns=columns, cells=cells)

    def rows(self) -> list[dict[str, Any]]:
        """The unrounded numbers by name and title, for `write_rows`; shares stay shares."""
        units = [
            "share" if column.times == 100 else "multiples" if column.unit == "x" else column.unit
            for column in self.columns
        ]
        titles = [
            f"{column.title} ({unit})" if unit else column.title
            for column, unit in zip(self.columns, units, strict=True)
        ]
        return [
            {"row": name} | dict(zip(titles, row, strict=True))
            for name, row in zip(self.names, self.cells, strict=True)
        ]

    def _best(self, number: int, shown: list[str]) -> str | None:
        better = self.columns[number].better
        cells = (row[number] for row in self.cells)
        values = [cell.value if isinstance(cell, Mean) else cell for cell in cells]
        pairs = [
            (value, text)
            for value, text in zip(values, shown, strict=True)
            if text and isinstance(value, int | float)
        ]
        if better == "none" or len({text for _, text in pairs}) < 2:
            return None
        return (max if better == "higher" else min)(pairs)[1]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        grid = self.grid(short=True)
        widths = [
            max(*(len(row[j]) for row in grid.rows), *map(len, heading.split()), 0)
            for j, heading in enumerate(grid.header)
        ]
        name_width = min(max(map(len, self.names), default=0), max(12, options.max_width // 3))
        if self.title:
            yield Text(f"\n{self.title}", style="italic")
        for block in _blocks(widths[1:], options.max_width - name_width - 3):
            table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
            table.add_column(self.corner, width=name_width, overflow="fold")
            for j in block:
                side = "left" if j + 1 in grid.words else "right"
                table.add_column(grid.header[j + 1], justify=side, width=widths[j + 1])
            for i, row in enumerate(grid.rows):
                cells = (
                    Text(row[j], style="bold" if (i, j) in grid.bold else "")
                    for j in (0, *(j + 1 for j in block))
                )
                table.add_row(*cells, style="dim" if i in self.faint else "")
            yield table
        if self.notes:
            yield Text("\n".join(self.notes))


def table_of(
    title: str,
    columns: Sequence[Column],
    rows: Sequence[tuple[str, Sequence[Cell]]],
    note: str = "",
    corner: str = "",
) -> ScoreTable:
    """A table of rows that are pairs of a name and its cells."""
    names, cells = tuple(name for name, _ in rows), tuple(tuple(row) for _, row in rows)
    return ScoreTable(tuple(columns), names, cells, (note,) if note else (), title, corner)


def _blocks(widths: list[int], room: int) -> Iterator[list[int]]:
    """Numbers of the columns that fit beside each other, each two wider than its text.

    >>> list(_blocks([4, 4, 20, 4], 13))
    [[0, 1], [2], [3]]
    """
    block: list[int] = []
    for number, width in enumerate(widths):
        if block and sum(widths[i] + 2 for i in block) + width + 2 > room:
            yield block
            block = []
        block.append(number)
    if block:
        yield block
