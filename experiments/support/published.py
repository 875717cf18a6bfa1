"""The papers' own numbers, read from `papers.toml`, to print beside ours."""

from __future__ import annotations

import dataclasses
import functools
import tomllib
from pathlib import Path
from typing import Any

from jaxtickets.report import Column, Mean, ScoreTable
from jaxtickets.report.html import PaperRow
from jaxtickets.report.html.own_rows import network_of
from jaxtickets.report.html.papers import SCORES

FILE = Path(__file__).resolve().with_name("papers.toml")
SETTING = ("title", "method", "network", "dataset", "members", "sparsity", "epochs")
SMALL_BUDGET = "Whitaker and Whitley 2022, table 1"


@dataclasses.dataclass(frozen=True)
class Published:
    """One row of a paper's table.

    Accuracy in per cent, as printed; standard error and calibration where the paper gives them. `*`
    in a source: quoted there from Havasi et al., 2021.
    """

    accuracy: float
    source: str
    standard_error: float | None = None
    nll: float | None = None
    ece: float | None = None


@functools.cache
def _tables() -> list[dict[str, Any]]:
    return tomllib.loads(FILE.read_text(encoding="utf-8"))["table"]


@functools.cache
def paper_rows() -> tuple[PaperRow, ...]:
    """All rows of the papers' tables, to stand beside ours in a report."""
    return tuple(_row(table, row) for table in _tables() for row in table["rows"])


def printed_tables() -> list[tuple[str, ScoreTable]]:
    """The papers' tables as they are printed, each with its source."""
    return [(table["source"], _printed(table)) for table in _tables()]


def _printed(table: dict[str, Any]) -> ScoreTable:
    names = table["columns"].split()
    rows = [dict(zip(names, row, strict=True)) for row in table["rows"]]
    aside = ("title", "method", "members", "sparsity", "epochs", "accuracy+-")
    shown = [name for name in names if name not in aside]

    def cell(row: dict[str, Any], name: str) -> Any:
        error = row.get(f"{name.removesuffix('%')}+-")
        if error is not None:
            return Mean(row[name], error)
        return None if row[name] == "" else row[name]

    columns = tuple(_column(name, [row[name] for row in rows]) for name in shown)
    cells = tuple(tuple(cell(row, name) for name in shown) for row in rows)
    titles = tuple(str(row["title"]) for row in rows)
    setting = (table.get("network"), table.get("dataset"))
    note = f"{', '.join(name for name in setting if name)}. " if any(setting) else ""
    return ScoreTable(columns, titles, cells, (f"{note}{table['source']}.",), table["source"])


def _column(name: str, values: list[Any]) -> Column:
    """A column of numbers as printed: with as many decimals as the longest of them has."""
    known = SCORES.get(name.removesuffix("%"))
    title = known.title if known else name.removesuffix("%").replace("_", " ")
    title += " %" if name.endswith("%") else ""
    if any(isinstance(value, str) and value for value in values):
        return Column(title, words=True)
    digits = max((len(str(float(v)).partition(".")[2]) for v in values if v != ""), default=0)
    return Column(title, digits=digits)


def _row(table: dict[str, Any], printed: list[Any]) -> PaperRow:
    names = table["columns"].split()
    cells = table | dict(zip(names, printed, strict=True))
    values: dict[str, Any] = {name: None if cell == "" else cell for name, cell in cells.items()}
    scores = {
        name.removesuffix("%"): values[name] / 100 if name.endswith("%") else values[name]
        for name in names
        if name not in (*SETTING, "accuracy+-")
    }
    if "single" in scores:
        scores["difference"] = (values["ensemble%"] - values["single%"]) / 100
    spread = {"accuracy": values["accuracy+-"] / 100} if "accuracy+-" in values else {}
    setting = {name: values.get(name) for name in (*SETTING, "source", "reference")}
    return PaperRow(scores=scores, spread=spread, **setting)  # pyright: ignore[reportArgumentType]


def published(preset: str, dataset: str, network: str, method: str) -> Published | None:
    """What a paper reports for that method in that setting; None if nothing."""
    setting = (method, network_of(network), dataset)
    for row in paper_rows():  # of several rows of a method the first: EDST with three tickets
        if (row.method, row.network, row.dataset) != setting:
            continue
        if preset == "table1" and row.source == SMALL_BUDGET:
            error = row.spread["accuracy"]
            return Published(_percent(row.scores["accuracy"]), row.source, _percent(error))
        if preset == "paper" and "nll" in row.scores:
            source = row.source + ("*" if "*" in row.title else "")
            nll, ece = (row.scores[name] for name in ("nll", "ece"))
            return Published(100 * row.scores["accuracy"], source, nll=nll, ece=ece)
    return None


def multi_ticket_gain(family: str, task: str, scheme: str) -> dict[str, float | str] | None:
    """A scheme's single and ensemble score in the paper, in per cent; None if it has none.

    Args:
      family: "bert" or "roberta".
      task: "mrpc" or "stsb".
      scheme: as `jt.multi_ticket` names it.
    """
    row = _multi_ticket(family, task, scheme, "single")
    if row is None:
        return None
    scores = {name: _percent(row.scores[name]) for name in ("single", "ensemble")}
    return {**scores, "source": f"{row.source}, {row.network}"}


def multi_ticket_diversity(family: str, task: str, scheme: str) -> tuple[float, ...] | None:
    """A scheme's five measures of diversity in the paper (table 2): Q, R, ND, D, C."""
    row = _multi_ticket(family, task, scheme, "q")
    return None if row is None else tuple(row.scores.values())


def _multi_ticket(family: str, task: str, scheme: str, score: str) -> PaperRow | None:
    setting = (scheme, f"{family}-base", task)
    rows = (row for row in paper_rows() if (row.method, row.network, row.dataset) == setting)
    return next((row for row in rows if score in row.scores), None)


def _percent(share: float) -> float:
    return round(100 * share, 6)
