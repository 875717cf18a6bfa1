"""Tables of scores in LaTeX, for the package booktabs."""

from __future__ import annotations

from jaxtickets.report.table import Column, ScoreTable

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
    lines = [r"\begin{tabular}{l" + "r" * len(table.columns) + "}", r"\toprule"]
    lines += [" & ".join(["", *map(_heading, table.columns)]) + r" \\", r"\midrule"]
    for name, line in zip(table.names, table.lines(), strict=True):
        lines.append(" & ".join([escape(name), *(_cell(text, best) for text, best in line)]) + r" \\")
    lines += [r"\bottomrule", r"\end{tabular}"]
    if not caption:
        return "\n".join([*(f"% {note}" for note in table.notes), *lines])
    above = [r"\begin{table}", r"\centering", rf"\caption{{{escape(caption)}}}", *([rf"\label{{{label}}}"] if label else [])]
    below = [r"\par\smallskip", rf"{{\footnotesize {escape(' '.join(table.notes))}\par}}"] if table.notes else []
    return "\n".join([*above, *lines, *below, r"\end{table}"])


def escape(text: str) -> str:
    r"""Text as LaTeX prints it, sign by sign.

    >>> print(escape(r"50% of C:\a_b ~ {x^2}"))
    50\% of C:\textbackslash{}a\_b \textasciitilde{} \{x\textasciicircum{}2\}
    """
    return "".join(_ESCAPES.get(sign, sign) for sign in text)


def _heading(column: Column) -> str:
    """The words below each other, unit and arrow last: headings are longer than numbers."""
    unit = f"({escape(column.unit)})" if column.unit and column.unit != "x" else ""
    last = " ".join(part for part in (unit, _ARROWS[column.better]) if part)
    lines = [*map(escape, column.title.split()), *([last] if last else [])]
    return lines[0] if len(lines) == 1 else r"\begin{tabular}[b]{@{}r@{}}" + r"\\".join(lines) + r"\end{tabular}"


def _cell(text: str, best: bool) -> str:
    """A number: signs and infinity as mathematics has them."""
    text = text.replace("inf", r"$\infty$").replace("-", "$-$").replace("x", r"$\times$")
    return rf"\textbf{{{text}}}" if best else text
