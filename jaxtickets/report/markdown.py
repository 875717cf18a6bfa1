"""Tables of scores and committed result files in Markdown."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxtickets.report.table import ScoreTable


def markdown_table(table: ScoreTable, *, notes: bool = True) -> str:
    """The table in Markdown, the best of each column bold; below it the notes, a paragraph.

    Args:
      table: of `evaluation_table`, or your own.
      notes: whether they are written.

    >>> from jaxtickets.report import Column
    >>> print(markdown_table(ScoreTable((Column("NLL", better="lower"),), ("a|b", "c"), ((0.5,), (None,)), ("Of little.",))))
    | | NLL ↓ |
    | --- | ---: |
    | a\\|b | 0.50 |
    | c | |
    <BLANKLINE>
    Of little.
    """
    grid = markdown_grid(("", *(column.heading for column in table.columns)), *table.grid())
    return "\n".join([grid, *(["", " ".join(table.notes)] if notes and table.notes else [])])


def markdown_grid(
    header: Sequence[str], rows: Sequence[Sequence[str]], bold: Collection[tuple[int, int]] = (), texts: Collection[int] = (0,)
) -> str:
    """Cells in Markdown.

    Args:
      header: heading of each column.
      rows: cells, each row as long as the header.
      bold: (row, column), from 0, of cells to stress.
      texts: columns, from 0, that are set to the left.

    >>> print(markdown_grid(("", "acc %"), (("a|b", "79.2"), ("c", "")), bold={(0, 1)}))
    | | acc % |
    | --- | ---: |
    | a\\|b | **79.2** |
    | c | |
    """

    def line(cells: Iterable[str]) -> str:
        return "|" + "".join(f" {cell} |" if cell else " |" for cell in cells)

    def stressed(cell: str, i: int, j: int) -> str:
        return f"**{_escape(cell)}**" if cell and (i, j) in bold else _escape(cell)

    body = (line(stressed(cell, i, j) for j, cell in enumerate(row)) for i, row in enumerate(rows))
    rule = line("---" if place in texts else "---:" for place in range(len(header)))
    return "\n".join([line(map(_escape, header)), rule, *body])


def markdown_results(runs: Sequence[Mapping[str, Any]]) -> str:
    """One table of runs (the contents of `results.json` files): ensemble, members' mean, and a dense network beside them.

    Accuracy and ECE in per cent; FLOPs are theoretical ratios to one dense training run and one dense forward pass.
    """
    heading = ("", "accuracy", "NLL", "ECE", "disagreement", "training FLOPs", "inference FLOPs", "seconds")
    lines = ["| " + " | ".join(heading) + " |", "| --- |" + " ---: |" * (len(heading) - 1)]
    for run in runs:
        members, cost = run["members"], run["cost"]
        what = f"{run['plan']['name']}, {run['model']}, {run['dataset']['name']}"
        ratios = (f"{cost['training']:.2f}x", f"{cost['inference']:.2f}x", f"{run['seconds']['total']:,.0f}")
        if len(members) > 1:
            diversity = run["diversity"]
            disagreement = f"{diversity['disagreement']:.1%}"
            lines.append(_line(f"{what}: ensemble of {len(members)}", run["ensemble"], disagreement, *ratios, bold=True))
            lines.append(_line("mean of its members", run["members_mean"], "", "", "", ""))
        else:
            lines.append(_line(what, run["ensemble"], "", *ratios))
        dense = run.get("single_dense")
        if dense:
            costs = dense["cost"]
            ratios = (f"{costs['training']:.2f}x", f"{costs['inference']:.2f}x", f"{dense['seconds']['total']:,.0f}")
            lines.append(_line("one dense network, same schedule", dense["ensemble"], "", *ratios))
    return "\n".join(lines)


def markdown_benchmark(measured: Mapping[str, Any]) -> str:
    """The benchmark's JSON as a table."""
    lines = ["| | ratio | wanted | measured | against |", "| --- | ---: | ---: | ---: | ---: |"]
    for row in measured["rows"]:
        wanted = row["wanted"] + ("" if row["met"] else " (missed)")
        lines.append(f"| {row['what']} | {row['ratio']:.2f} | {wanted} | {row['measured']:.4g} | {row['against']:.4g} |")
    return "\n".join(lines)


def replace_block(file: Path, name: str, text: str) -> bool:
    """Put `text` between `<!-- name -->` and `<!-- /name -->` in `file`; returns whether that changed the file.

    Raises:
      ValueError: the file has no such pair of markers.
    """
    begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    before = file.read_text()
    if before.count(begin) != 1 or before.count(end) != 1:
        raise ValueError(f"{file} needs the markers {begin} and {end}, once each.")
    head, rest = before.split(begin)
    after = f"{head}{begin}\n{text}\n{end}{rest.split(end)[1]}"
    file.write_text(after)
    return after != before


def read_results(folder: Path) -> list[dict[str, Any]]:
    """All result files of runs in `folder`, by name; other JSON files are passed over."""
    found = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    return [run for run in found if "ensemble" in run]


def _line(what: str, scores: Mapping[str, Any], *rest: str, bold: bool = False) -> str:
    mark = "**" if bold else ""
    cells = (f"{100 * scores['accuracy']:.2f}", f"{scores['nll']:.3f}", f"{100 * scores['ece']:.1f}", *rest)
    return f"| {mark}{what}{mark} | " + " | ".join(f"{mark}{cell}{mark}" if cell else "" for cell in cells) + " |"


def _escape(text: str) -> str:
    """Names as they are: what Markdown would read as marks is shown, not obeyed."""
    return re.sub(r"([\\`*_|<\[\]])", r"\\\1", text).replace("\n", " ")
