"""The parts of a page as data: tables, figures, texts. The template says how they look."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from jaxtickets.report.table import ScoreTable

# The only addresses that a page links to, by the paper's name in tables.
PAPERS = {
    "Liu et al. 2022": "https://arxiv.org/abs/2106.14568",
    "Whitaker and Whitley 2022": "https://arxiv.org/abs/2202.11782",
    "Kobayashi et al. 2022": "https://arxiv.org/abs/2205.11833",
    "Havasi et al. 2021": "https://arxiv.org/abs/2010.06610",
}


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
    """Pairs of a name and a value, such as a run's settings."""

    pairs: Sequence[tuple[str, str]]


@dataclasses.dataclass(frozen=True)
class Sources:
    """Papers by their name in `PAPERS`; those not there are named without a link."""

    names: Sequence[str]

    @property
    def links(self) -> list[tuple[str, str | None]]:
        """Each paper's name and address."""
        return [(name, PAPERS.get(name)) for name in self.names]


Block = ScoreTable | Figure | Text | Facts | Sources


@dataclasses.dataclass(frozen=True)
class Section:
    """A heading with the blocks under it; sections of sections are one level down."""

    title: str
    blocks: Sequence[Block | Section] = ()

    def tables(self) -> Iterator[ScoreTable]:
        """Every table of the section, in order."""
        for block in self.blocks:
            if isinstance(block, ScoreTable):
                yield block
            elif isinstance(block, Section):
                yield from block.tables()
