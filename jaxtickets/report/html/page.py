"""Makes one HTML file of sections."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Sequence
from pathlib import Path

from jaxtickets.files import paths
from jaxtickets.report.html.blocks import Figure, Section
from jaxtickets.report.records import MOST_PICTURE, address, picture_address, read_bytes
from jaxtickets.report.rendering import TEMPLATES, environment


@dataclasses.dataclass(frozen=True)
class Embedded:
    """A figure's files as `data:` addresses."""

    png: str
    width: int
    height: int
    csv: str | None
    file: str


def render(title: str, about: str, sections: Sequence[Section]) -> str:
    """The HTML of a page: title, a line about it, and the sections.

    All of it is text: what looks like markup is shown, not obeyed.

    Raises:
      ImportError: Jinja2 is not installed; says how to.
      ReportError: a figure's file that is no picture, or too large.
    """
    page = environment("page.html.jinja").get_template("page.html.jinja")
    from markupsafe import Markup  # it comes with Jinja2, whose lack is told above

    style = Markup((TEMPLATES / "page.css").read_text(encoding="utf-8").strip())
    values = {"title": title, "about": about, "sections": sections, "style": style}
    return page.render(values, embed=_embed, kind_of=lambda block: type(block).__name__)


def write(file: Path, page: str) -> None:
    """Write the page to a file, in one atomic step."""
    file = paths.given(file)
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    temporary.write_text(page, encoding="utf-8")
    os.replace(temporary, file)


def _embed(figure: Figure) -> Embedded:
    png, width, height = picture_address(figure.png)
    csv = (
        None
        if figure.csv is None
        else address("text/csv;charset=utf-8", read_bytes(figure.csv, MOST_PICTURE))
    )
    name = re.sub("[^A-Za-z0-9]+", "-", figure.title).strip("-").lower()[:60] or "figure"
    return Embedded(png, width, height, csv, f"{name}.csv")
