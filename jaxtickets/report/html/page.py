"""From sections to one HTML file."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Sequence
from pathlib import Path

from jaxtickets.report.html.files import MOST_PICTURE, address, picture_address, read_bytes
from jaxtickets.report.html.parts import Figure, Section

HERE = Path(__file__).resolve().parent


@dataclasses.dataclass(frozen=True)
class Embedded:
    """A figure's files as `data:` addresses."""

    png: str
    width: int
    height: int
    csv: str | None
    file: str


def render(title: str, about: str, sections: Sequence[Section]) -> str:
    """The page. Everything in `title`, `about` and `sections` is text: what looks like markup is shown, not obeyed.

    Raises:
      ImportError: Jinja2 is not installed; says how to.
      ReportError: a figure's file that is no picture, or too large.
    """
    try:
        import jinja2
    except ImportError:
        raise ImportError("a report in HTML is made with Jinja2: pip install 'jaxtickets[plots]'.") from None
    from markupsafe import Markup

    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string((HERE / "page.html.jinja").read_text(encoding="utf-8"))
    style = Markup((HERE / "page.css").read_text(encoding="utf-8").strip())
    return template.render(
        title=title, about=about, sections=sections, style=style, embed=_embed, kind_of=lambda part: type(part).__name__
    )  # fmt: skip


def write(file: Path, page: str) -> None:
    """The page in one atomic step."""
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    temporary.write_text(page, encoding="utf-8")
    os.replace(temporary, file)


def _embed(figure: Figure) -> Embedded:
    png, width, height = picture_address(figure.png)
    csv = None if figure.csv is None else address("text/csv;charset=utf-8", read_bytes(figure.csv, MOST_PICTURE))
    name = re.sub("[^A-Za-z0-9]+", "-", figure.title).strip("-").lower()[:60] or "figure"
    return Embedded(png, width, height, csv, f"{name}.csv")
