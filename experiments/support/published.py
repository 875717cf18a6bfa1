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
    in a source: quoted there from Havasi et al., 2021. `training` is a multiple of one dense run of
    `reference` epochs; `counted` says why it, or the number of runs, is another than a plan's.
    """

    accuracy: float
    source: str
    standard_error: float | None = None
    nll: float | None = None
    ece: float | None = None
    training: float | None = None
    reference: float | None = None
    training_runs: float | None = None
    counted: str = ""


@functools.cache
def _contents() -> dict[str, Any]:
    return tomllib.loads(FILE.read_text(encoding="utf-8"))


def _tables() -> list[dict[str, Any]]:
    return _contents()["table"]


@functools.cache
def paper_rows() -> tuple[PaperRow, ...]:
    """All rows of the papers' tables, to stand beside ours in a report."""
    counted = _contents()["counted"]
    return tuple(_row(table, row, counted) for table in _tables() for row in table["rows"])


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


def _row(table: dict[str, Any], printed: list[Any], counted: dict[str, str]) -> PaperRow:
    names = table["columns"].split()
    cells = table | dict(zip(names, printed, strict=True))
    values: dict[str, Any] = {name: None if cell == "" else cell for name, cell in cells.items()}
    scores = {
        name.removesuffix("%"): values[name] / 100 if name.endswith("%") else values[name]
        for name in names
        if name not in (*SETTING, "accuracy+-") and values[name] is not None
    }
    if "single" in scores:
        scores["difference"] = (values["ensemble%"] - values["single%"]) / 100
    spread = {"accuracy": values["accuracy+-"] / 100} if "accuracy+-" in values else {}
    setting: dict[str, Any] = {name: values.get(name) for name in (*SETTING, "source", "reference")}
    reason = counted.get(setting["method"], "") if "training" in scores else ""
    return PaperRow(scores=scores, spread=spread, counted=reason, **setting)


def published(
    preset: str, dataset: str, network: str, method: str, members: int | None = None
) -> Published | None:
    """What a paper reports for that method in that setting; None if nothing.

    Without `members`, of several ensembles the one that stands first there.
    """
    setting = (method, network_of(network), dataset)
    for row in paper_rows():
        if (row.method, row.network, row.dataset) != setting or not _is_of(preset, row):
            continue
        if None not in (members, row.members) and members != row.members:
            continue
        names = ("nll", "ece", "training", "training_runs")
        return Published(
            _percent(row.scores["accuracy"]),
            row.source + ("*" if "*" in row.title else ""),
            _percent(row.spread["accuracy"]) if row.spread else None,
            reference=row.reference,
            counted=row.counted,
            **{name: row.scores.get(name) for name in names},
        )
    return None


def swept(dataset: str, network: str, method: str, score: str) -> float | None:
    """A score that a paper prints of a sweep's point, as a share; None if it prints none."""
    setting = (method, network_of(network), dataset)
    rows = (row for row in paper_rows() if (row.method, row.network, row.dataset) == setting)
    return next((row.scores[score] for row in rows if score in row.scores), None)


def _is_of(preset: str, row: PaperRow) -> bool:
    """Whether a preset of compare_cifar.py is trained as that row's table says."""
    if preset == "table1":
        return row.source == SMALL_BUDGET
    if preset == "table6":
        return row.source == "Liu et al. 2022, table 6"
    return preset == "paper" and "nll" in row.scores


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
