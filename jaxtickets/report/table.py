"""One model of a table of scores, which the terminal, Markdown and LaTeX show alike."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any, Literal, get_args

from rich import box
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from jaxtickets.errors import ReportError
from jaxtickets.report.canvas import absent

Better = Literal["higher", "lower", "none"]

_ARROWS = {"higher": "↑", "lower": "↓", "none": ""}


@dataclasses.dataclass(frozen=True)
class Column:
    """What a column of numbers means and how it is written.

    Args:
      title: what it is.
      unit: of the numbers as they are shown: "%" for shares times 100, "x" for multiples.
      times: what numbers are multiplied with to be shown in that unit.
      digits: decimals.
      better: which numbers are better, "higher", "lower", or "none" where neither is.

    Raises:
      ReportError: `better` is something else.

    >>> Column("accuracy", "%", 100, better="higher").show(0.91234), Column("training FLOPs", "x").show(0.61)
    ('91.23', '0.61x')
    """

    title: str
    unit: str = ""
    times: float = 1.0
    digits: int = 2
    better: Better = "none"

    def __post_init__(self) -> None:
        if self.better not in get_args(Better):
            raise ReportError(f"better: got {self.better!r}, wanted one of {', '.join(map(repr, get_args(Better)))}.")

    @property
    def arrow(self) -> str:
        """Up where higher is better, down where lower is, nothing where neither is."""
        return _ARROWS[self.better]

    @property
    def heading(self) -> str:
        """Title, unit and arrow."""
        return " ".join(part for part in (self.title, "" if self.unit == "x" else self.unit, self.arrow) if part)

    def show(self, value: float | None) -> str:
        """The number as a cell has it; nothing for None and nan, "inf" where it is infinite."""
        if value is None or absent(value):
            return ""
        return f"{self.times * value:,.{self.digits}f}" + ("x" if self.unit == "x" else "")


@dataclasses.dataclass(frozen=True)
class ScoreTable:
    """Rows of numbers with their names. Prints in a terminal, in as many blocks of columns as its width takes.

    Args:
      columns: what the numbers are.
      names: of the rows.
      cells: a number, or None, for each row and column, unrounded.
      notes: what a reader has to know, sentences.

    Raises:
      ReportError: rows that have not a number for each column, or not a name each.
    """

    columns: tuple[Column, ...]
    names: tuple[str, ...]
    cells: tuple[tuple[float | None, ...], ...]
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if len(self.names) != len(self.cells):
            raise ReportError(f"names: got {len(self.names)} for {len(self.cells)} rows; give one for each.")
        for name, row in zip(self.names, self.cells, strict=True):
            if len(row) != len(self.columns):
                raise ReportError(
                    f"cells: the row {name!r} has {len(row)} for {len(self.columns)} columns; give None where there is no number."
                )

    def lines(self) -> list[list[tuple[str, bool]]]:
        """Every row's cells as text, and whether it is its column's best.

        What is shown alike is best alike. Nothing is where a column has one number, all are alike, or neither way is better.

        >>> table = ScoreTable((Column("NLL", better="lower"),), ("a", "b", "c"), ((0.201,), (0.2,), (0.3,)))
        >>> table.lines()
        [[('0.20', True)], [('0.20', True)], [('0.30', False)]]
        """
        shown = [[column.show(value) for column, value in zip(self.columns, row, strict=True)] for row in self.cells]
        best = [self._best(place, [row[place] for row in shown]) for place in range(len(self.columns))]
        return [[(text, bool(text) and text == best[place]) for place, text in enumerate(row)] for row in shown]

    def grid(self) -> tuple[list[list[str]], set[tuple[int, int]]]:
        """Names and cells as text, a list for each row, and the places (row, column) of the best."""
        lines = self.lines()
        rows = [[name, *(text for text, _ in line)] for name, line in zip(self.names, lines, strict=True)]
        return rows, {(i, j) for i, line in enumerate(lines) for j, (_, best) in enumerate(line, start=1) if best}

    def select(self, *titles: str) -> ScoreTable:
        """The table with these columns only, in this order: a page is narrow.

        Raises:
          ReportError: a title that no column has.
        """
        places = {column.title: place for place, column in enumerate(self.columns)}
        if lost := [title for title in titles if title not in places]:
            raise ReportError(f"titles: no column is called {lost[0]!r}; there are {', '.join(map(repr, places))}.")
        kept = [places[title] for title in titles]
        cells = tuple(tuple(row[place] for place in kept) for row in self.cells)
        return dataclasses.replace(self, columns=tuple(self.columns[place] for place in kept), cells=cells)

    def rows(self) -> list[dict[str, Any]]:
        """The numbers, unrounded, by name and title: what `write_rows` takes. Shares are shares."""
        units = ["share" if column.times == 100 else "multiples" if column.unit == "x" else column.unit for column in self.columns]
        titles = [f"{column.title} ({unit})" if unit else column.title for column, unit in zip(self.columns, units, strict=True)]
        return [{"row": name} | dict(zip(titles, row, strict=True)) for name, row in zip(self.names, self.cells, strict=True)]

    def _best(self, place: int, shown: list[str]) -> str | None:
        better = self.columns[place].better
        there = [(value, text) for value, text in zip((row[place] for row in self.cells), shown, strict=True) if text and value is not None]
        if better == "none" or len({text for _, text in there}) < 2:
            return None
        return (max if better == "higher" else min)(there)[1]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        lines = self.lines()
        widths = [
            max([*(len(line[place][0]) for line in lines), *map(len, column.heading.split())]) for place, column in enumerate(self.columns)
        ]
        named = min(max(map(len, self.names), default=0), max(12, options.max_width // 3))
        for block in _blocks(widths, options.max_width - named - 3):
            table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
            table.add_column("", width=named, overflow="fold")
            for place in block:
                table.add_column(self.columns[place].heading, justify="right", width=widths[place])
            for name, line in zip(self.names, lines, strict=True):
                table.add_row(Text(name), *(Text(line[place][0], style="bold" if line[place][1] else "") for place in block))
            yield table
        yield Text("\n".join(self.notes))


def _blocks(widths: list[int], room: int) -> Iterator[list[int]]:
    """Places of columns that go beside each other, each column two wider than its text.

    >>> list(_blocks([4, 4, 20, 4], 13))
    [[0, 1], [2], [3]]
    """
    block: list[int] = []
    for place, width in enumerate(widths):
        if block and sum(widths[i] + 2 for i in block) + width + 2 > room:
            yield block
            block = []
        block.append(place)
    if block:
        yield block
