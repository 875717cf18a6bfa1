"""What a page is made of: tables, figures, texts and lists, as data. How they look is the template's."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

# The only addresses that a page links to, by the name that a table's `source` has.
PAPERS = {
    "Liu et al. 2022": "https://arxiv.org/abs/2106.14568",
    "Whitaker and Whitley 2022": "https://arxiv.org/abs/2202.11782",
    "Kobayashi et al. 2022": "https://arxiv.org/abs/2205.11833",
    "Havasi et al. 2021": "https://arxiv.org/abs/2010.06610",
}


@dataclasses.dataclass(frozen=True)
class Table:
    """Cells as they are printed.

    Args:
      title: its caption.
      header: heading of each column; the first is that of the rows' names.
      rows: cells; each row as long as the header. The first cell names the row.
      bold: (row, column), from 0, of cells to stress.
      faint: rows, from 0, that are said quietly.
      note: what the columns mean.
      texts: columns, from 0, that hold words: set to the left and broken. The first always does.

    Raises:
      ValueError: a row of another length than the header, or no column.

    >>> Table("Scores", ("", "acc %"), (("edst", "79.25"),), bold={(0, 1)}).rows
    (('edst', '79.25'),)
    """

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    bold: frozenset[tuple[int, int]] | set[tuple[int, int]] = frozenset()
    faint: frozenset[int] | set[int] = frozenset()
    note: str = ""
    texts: frozenset[int] | set[int] = frozenset()

    def __post_init__(self) -> None:
        if not self.header:
            raise ValueError(f"table {self.title!r}: a table has at least one column; give header=.")
        for number, row in enumerate(self.rows):
            if len(row) != len(self.header):
                raise ValueError(f"table {self.title!r}: row {number} has {len(row)} cells, the header {len(self.header)}.")


@dataclasses.dataclass(frozen=True)
class Figure:
    """A picture, what it shows in words, and its numbers.

    Args:
      title: one line.
      caption: what is seen and how to read it.
      png: the picture's file.
      csv: the numbers' file; None if there is none.
      alt: what somebody is told who does not see it; title and caption if not given.
    """

    title: str
    caption: str
    png: Path
    csv: Path | None = None
    alt: str = ""


@dataclasses.dataclass(frozen=True)
class Text:
    """A paragraph: plain, a warning, or a command to be typed."""

    text: str
    kind: Literal["plain", "warning", "command"] = "plain"


@dataclasses.dataclass(frozen=True)
class Facts:
    """Pairs of a name and what it is."""

    pairs: Sequence[tuple[str, str]]


@dataclasses.dataclass(frozen=True)
class Sources:
    """Papers by their name in `PAPERS`; those not there are named without a link."""

    names: Sequence[str]

    @property
    def links(self) -> list[tuple[str, str | None]]:
        """Name and address."""
        return [(name, PAPERS.get(name)) for name in self.names]


Part = Table | Figure | Text | Facts | Sources


@dataclasses.dataclass(frozen=True)
class Section:
    """A heading with what stands under it; sections of sections are one level down."""

    title: str
    parts: Sequence[Part | Section] = ()

    def tables(self) -> Iterator[Table]:
        """Every table, in order."""
        for part in self.parts:
            if isinstance(part, Table):
                yield part
            elif isinstance(part, Section):
                yield from part.tables()
