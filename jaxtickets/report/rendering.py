"""Tables in Markdown and LaTeX, and the environment that the templates are filled in by."""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import Any

from jaxtickets.files import paths
from jaxtickets.report.table import Column, ScoreTable

TEMPLATES = Path(__file__).resolve().with_name("templates")

_NUMBER = re.compile(r"[-+]?(inf|[\d,.]+)[x%]?")
_ESCAPES = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
}
_ARROWS = {"higher": r"$\uparrow$", "lower": r"$\downarrow$", "none": ""}


@functools.cache
def environment(name: str) -> Any:
    """The Jinja environment of a template: HTML is escaped, LaTeX has delimiters of its own.

    Raises:
      ImportError: Jinja2 is not installed; says how to.
    """
    try:
        import jinja2
    except ImportError:
        raise ImportError(
            "reports in Markdown, LaTeX and HTML are made with Jinja2: pip install"
            " 'jaxtickets[plots]'."
        ) from None
    signs = ("<%", "%>", "<<", ">>", "<#", "#>") if ".tex." in name else ()
    template_environment = jinja2.Environment(
        *signs,
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=".html." in name,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    template_environment.filters |= {"latex": latex_escape, "markdown": markdown_escape}
    return template_environment


def render_template(name: str, **values: Any) -> str:
    """The text of a template, filled in."""
    return environment(name).get_template(name).render(values)


def markdown_table(
    table: ScoreTable,
    *,
    notes: bool = True,
    title: bool = False,
    gap: str = " ",
    escape: bool = True,
) -> str:
    """The table in Markdown, the best of each column bold; below it the notes, a paragraph.

    Args:
      table: of `evaluation_table`, or your own.
      notes: whether they are written.
      title: whether it is written, above the table.
      gap: what an empty cell has between its bars.
      escape: whether what Markdown would read as marks is shown, not obeyed; False for cells that
        are your own.

    >>> columns, cells = (Column("NLL", better="lower"),), ((0.5,), (None,))
    >>> print(markdown_table(ScoreTable(columns, ("a|b", "c"), cells, ("Of little.",))))
    | | NLL ↓ |
    | --- | ---: |
    | a\\|b | 0.50 |
    | c | |
    <BLANKLINE>
    Of little.
    """
    grid = table.grid(short=True)
    bold = [{j for i, j in grid.bold if i == number} for number in range(len(grid.rows))]
    return render_template(
        "table.md.jinja",
        grid=grid,
        bold=bold,
        gap=gap,
        escape=markdown_escape if escape else str,
        title=table.title if title else "",
        notes=table.notes if notes else (),
    ).rstrip("\n")


def latex_table(table: ScoreTable, *, caption: str = "", label: str = "") -> str:
    r"""The table in LaTeX: needs `\usepackage{booktabs}`. The best of each column is bold.

    Of a table that is wider than the page `select` the columns that matter.

    Args:
      table: of `evaluation_table`, or your own.
      caption: makes a float of it, with the notes in small print below; without one it is a bare
        tabular, the notes comments.
      label: to refer to the float with.

    >>> columns = (Column("accuracy", "%", 100, 1, "higher"),)
    >>> table = ScoreTable(columns, ("a_1", "b & c"), ((0.9,), (0.8,)), ("100 % made.",))
    >>> print(latex_table(table))
    % 100 % made.
    \begin{tabular}{lr}
    \toprule
     & \begin{tabular}[b]{@{}r@{}}accuracy\\(\%) $\uparrow$\end{tabular} \\
    \midrule
    a\_1 & \textbf{90.0} \\
    b \& c & 80.0 \\
    \bottomrule
    \end{tabular}
    """
    grid = table.grid(short=True)

    def cell(text: str, i: int, j: int) -> str:
        number = j not in grid.words and _NUMBER.fullmatch(text)
        shown = _latex_number(text) if number else latex_escape(text)
        return rf"\textbf{{{shown}}}" if shown and (i, j) in grid.bold else shown

    return render_template(
        "table.tex.jinja",
        header=[latex_escape(table.corner), *map(_latex_heading, table.columns)],
        rows=[[cell(text, i, j) for j, text in enumerate(row)] for i, row in enumerate(grid.rows)],
        sides="".join("l" if j in grid.words else "r" for j in range(len(grid.header))),
        caption=caption,
        label=label,
        notes=table.notes,
    ).rstrip("\n")


def latex_escape(text: str) -> str:
    r"""Text as LaTeX prints it, sign by sign.

    >>> print(latex_escape(r"50% of C:\a_b ~ {x^2}"))
    50\% of C:\textbackslash{}a\_b \textasciitilde{} \{x\textasciicircum{}2\}
    """
    return "".join(_ESCAPES.get(sign, sign) for sign in text)


def markdown_escape(text: str) -> str:
    """Text whose Markdown marks are shown as they are."""
    return re.sub(r"([\\`*_|<\[\]])", r"\\\1", text).replace("\n", " ")


def replace_block(file: Path, name: str, text: str) -> bool:
    """Put `text` between `<!-- name -->` and `<!-- /name -->` in `file`; whether that changed it.

    Raises:
      ValueError: the file has no such pair of markers.
    """
    file, begin, end = paths.given(file), f"<!-- {name} -->", f"<!-- /{name} -->"
    old_text = file.read_text(encoding="utf-8")
    if old_text.count(begin) != 1 or old_text.count(end) != 1:
        raise ValueError(f"{file} needs the markers {begin} and {end}, once each.")
    head, tail = old_text.split(begin)
    new_text = f"{head}{begin}\n{text}\n{end}{tail.split(end)[1]}"
    file.write_text(new_text, encoding="utf-8")
    return new_text != old_text


def _latex_heading(column: Column) -> str:
    """A column's heading in LaTeX: words below each other, unit and arrow last.

    Headings are longer than numbers.
    """
    if not column.arrow:
        return latex_escape(column.short or column.heading)
    unit = f"({latex_escape(column.unit)})" if column.unit and column.unit != "x" else ""
    last = " ".join(part for part in (unit, _ARROWS[column.better]) if part)
    lines = [*map(latex_escape, column.title.split()), *([last] if last else [])]
    if len(lines) < 2:
        return "".join(lines)
    return r"\begin{tabular}[b]{@{}r@{}}" + r"\\".join(lines) + r"\end{tabular}"


def _latex_number(text: str) -> str:
    """A number in LaTeX: signs and infinity as mathematics has them."""
    return (
        latex_escape(text).replace("inf", r"$\infty$").replace("-", "$-$").replace("x", r"$\times$")
    )
