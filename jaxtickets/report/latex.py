"""Tables of scores in LaTeX, for the package booktabs."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

from jaxtickets.report.table import Column, ScoreTable

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


def latex_table(table: ScoreTable, *, caption: str = "", label: str = "") -> str:
    r"""The table in LaTeX: needs `\usepackage{booktabs}`. The best of each column is bold.

    Of a table that is wider than the page `select` the columns that matter.

    Args:
      table: of `evaluation_table`, or your own.
      caption: makes a float of it, with the notes in small print below; without one it is a bare tabular, the notes comments.
      label: to refer to the float with.

    >>> print(latex_table(ScoreTable((Column("accuracy", "%", 100, 1, "higher"),), ("a_1", "b & c"), ((0.9,), (0.8,)), ("100 % made.",))))
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
    return latex_grid(("", *map(_heading, table.columns)), *table.grid(), caption=caption, label=label, notes=table.notes)


def latex_grid(
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    bold: Collection[tuple[int, int]] = (),
    texts: Collection[int] = (0,),
    *,
    caption: str = "",
    label: str = "",
    notes: Sequence[str] = (),
) -> str:
    """Cells in LaTeX: needs `booktabs`.

    Args:
      header: heading of each column, in LaTeX (`latex_escape` makes it of text).
      rows: cells, each row as long as the header, plain text.
      bold: (row, column), from 0, of cells to stress.
      texts: columns, from 0, that hold words and are set to the left; in others a hyphen is a minus sign.
      caption, label, notes: as of `latex_table`.
    """

    def cell(text: str, i: int, j: int) -> str:
        found = latex_escape(text) if j in texts or not _NUMBER.fullmatch(text) else _number(text)
        return rf"\textbf{{{found}}}" if found and (i, j) in bold else found

    lines = [r"\begin{tabular}{" + "".join("l" if j in texts else "r" for j in range(len(header))) + "}", r"\toprule"]
    lines += [" & ".join(header) + r" \\", r"\midrule"]
    lines += [" & ".join(cell(text, i, j) for j, text in enumerate(row)) + r" \\" for i, row in enumerate(rows)]
    lines += [r"\bottomrule", r"\end{tabular}"]
    if not caption:
        return "\n".join([*(f"% {note}" for note in notes), *lines])
    above = [r"\begin{table}", r"\centering", rf"\caption{{{latex_escape(caption)}}}", *([rf"\label{{{label}}}"] if label else [])]
    below = [r"\par\smallskip", rf"{{\footnotesize {latex_escape(' '.join(notes))}\par}}"] if notes else []
    return "\n".join([*above, *lines, *below, r"\end{table}"])


def latex_escape(text: str) -> str:
    r"""Text as LaTeX prints it, sign by sign.

    >>> print(latex_escape(r"50% of C:\a_b ~ {x^2}"))
    50\% of C:\textbackslash{}a\_b \textasciitilde{} \{x\textasciicircum{}2\}
    """
    return "".join(_ESCAPES.get(sign, sign) for sign in text)


def _heading(column: Column) -> str:
    """The words below each other, unit and arrow last: headings are longer than numbers."""
    unit = f"({latex_escape(column.unit)})" if column.unit and column.unit != "x" else ""
    last = " ".join(part for part in (unit, _ARROWS[column.better]) if part)
    lines = [*map(latex_escape, column.title.split()), *([last] if last else [])]
    return lines[0] if len(lines) == 1 else r"\begin{tabular}[b]{@{}r@{}}" + r"\\".join(lines) + r"\end{tabular}"


def _number(text: str) -> str:
    """A number: signs and infinity as mathematics has them."""
    return latex_escape(text).replace("inf", r"$\infty$").replace("-", "$-$").replace("x", r"$\times$")
