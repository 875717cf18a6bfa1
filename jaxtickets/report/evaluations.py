"""The table of an evaluation.json: scores, robustness, diversity and cost of ensembles."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jaxtickets.errors import ReportError
from jaxtickets.report.comparison import MEASURED
from jaxtickets.report.costs import COST_COLUMNS, Costs, in_one_unit
from jaxtickets.report.table import Column, ScoreTable

_OOD = ("max_probability", "entropy", "mutual_information")


def _cost_column(name: str) -> Column:
    of, _, kind = name.partition("_")
    return Column(f"{of} FLOPs ({kind or 'theoretical'})", "x", better="lower")


_COST_COLUMNS = {name: _cost_column(name) for name in COST_COLUMNS}

Row = Mapping[str, Any]
Read = Callable[[Row], float | None]


def evaluation_table(found: Row, *, ood: str = "max_probability") -> ScoreTable:
    """The table of all that an evaluation measured as single numbers, a row per ensemble.

    Corrupted sets, other distributions, attacks and costs have columns where some row has them.

    Args:
      found: what `experiments/evaluate.py` writes: `test` and `rows`.
      ood: which score tells examples of other distributions apart: "max_probability", "entropy" or
        "mutual_information".

    Returns:
      A `ScoreTable`: a row for each run.

    Raises:
      ReportError: no rows, or another `ood`.
    """
    rows = found["rows"]
    if not rows:
        raise ReportError("rows: got none; evaluate at least one ensemble.")
    if ood not in _OOD:
        raise ReportError(f"ood: got {ood!r}, wanted one of {', '.join(map(repr, _OOD))}.")
    columns: list[tuple[Column, Read]] = [
        (Column("accuracy", "%", 100, 2, "higher"), _score("accuracy")),
        (Column("NLL", "", 1, 3, "lower"), _score("nll")),
        (Column("ECE", "%", 100, 2, "lower"), _score("ece")),
        (Column("Brier", "", 1, 3, "lower"), _score("brier")),
    ]
    if _with(rows, "corrupted"):
        columns += [
            (Column("cAcc", "%", 100, 2, "higher"), _part("corrupted", "mean", "accuracy")),
            (Column("cNLL", "", 1, 3, "lower"), _part("corrupted", "mean", "nll")),
            (Column("cECE", "%", 100, 2, "lower"), _part("corrupted", "mean", "ece")),
        ]
    for name in dict.fromkeys(
        it for row in _with(rows, "shifted") for it in _parts(row)["shifted"]
    ):
        read = functools.partial(_part, "shifted", name, "ensemble")
        columns += [
            (Column(f"{name} accuracy", "%", 100, 2, "higher"), read("accuracy")),
            (Column(f"{name} NLL", "", 1, 3, "lower"), read("nll")),
            (Column(f"{name} ECE", "%", 100, 2, "lower"), read("ece")),
        ]
    sets = dict.fromkeys(name for row in _with(rows, "ood") for name in _parts(row)["ood"])
    columns += [
        (Column(f"AUROC {name}", "%", 100, 2, "higher"), _part("ood", name, ood)) for name in sets
    ]
    if _with(rows, "adversarial"):
        columns += [
            (Column(f"adv. {name}", "%", 100, 2, "higher"), _part("adversarial", name))
            for name in ("min", "mean", "max")
        ]
    columns += [
        (
            Column("disagreement", "%", 100, 2),
            lambda row: row["evaluation"]["diversity"]["disagreement"],
        ),
        (Column("KL", "", 1, 3), lambda row: row["evaluation"]["diversity"]["kl"]),
    ]
    costs = in_one_unit([row.get("run") for row in rows])
    if any(row.get("run") for row in rows):
        columns += [
            *((_COST_COLUMNS[name], _of(rows, values)) for name, values in costs.columns.items()),
            (Column("seconds", "", 1, 0), _run("seconds", "train")),
        ]
    cells = tuple(tuple(read(row) for _, read in columns) for row in rows)
    return ScoreTable(
        tuple(column for column, _ in columns),
        tuple(_named(row) for row in rows),
        cells,
        _notes(found, ood, costs),
    )


def _named(row: Row) -> str:
    return row["name"] + (
        f" (M={row['tickets']})" if row["tickets"] > 1 and "M=" not in row["name"] else ""
    )


def _score(name: str) -> Read:
    """A reader of a clean score, which is always there: JSON has None for an infinite NLL."""

    def read(row: Row) -> float:
        value = row["evaluation"]["ensemble"][name]
        return math.inf if value is None else value

    return read


def _part(*names: str) -> Read:
    return lambda row: _deep(_parts(row), names)


def _run(*names: str) -> Read:
    return lambda row: _deep(row.get("run"), names)


def _of(rows: Sequence[Row], values: Sequence[float | None]) -> Read:
    return lambda row: next(
        value for candidate, value in zip(rows, values, strict=True) if candidate is row
    )


def _deep(value: Any, names: Sequence[str]) -> Any:
    """The value under these names, one within the other; None where one is missing."""
    for name in names:
        value = (value or {}).get(name)
    return value


def _parts(row: Row) -> Row:
    return row["evaluation"].get("parts") or {}


def _with(rows: Sequence[Row], part: str) -> list[Row]:
    return [row for row in rows if _parts(row).get(part)]


def _notes(record: Row, ood: str, costs: Costs) -> tuple[str, ...]:
    rows, test = record["rows"], record["test"]
    evaluations = [row["evaluation"] for row in rows]
    bins = " or ".join(sorted({str(evaluation["ece_bins"]) for evaluation in evaluations}, key=int))
    notes = [f"{test['name']}, {test['examples']:,} test examples. ECE over {bins} bins."]
    combined = sorted(
        {evaluation.get("combine", "proba") for evaluation in evaluations} - {"proba"}
    )
    notes += [f"Members are combined by their {' or '.join(combined)}."] if combined else []
    if corrupted := [_parts(row)["corrupted"] for row in _with(rows, "corrupted")]:
        counts = " or ".join(sorted({str(len(part["sets"])) for part in corrupted}, key=int))
        generated = " that were generated" if any(part["generated"] for part in corrupted) else ""
        notes.append(f"cAcc, cNLL, cECE: means over {counts} corrupted sets{generated}.")
    if shifted := [_parts(row)["shifted"] for row in _with(rows, "shifted")]:
        sets = {name: scores for part in shifted for name, scores in part.items()}
        of = [
            f"{name} of {scores['examples']:,} examples and {scores['classes']:,} classes"
            for name, scores in sets.items()
        ]
        notes.append(f"{', '.join(of)}: predictions are restricted to the classes that are there.")
    if _with(rows, "ood"):
        notes.append(
            f"AUROC: how well {ood.replace('_', ' ')} tells test examples from those of another"
            " data set."
        )
    if attacked := [_parts(row)["adversarial"] for row in _with(rows, "adversarial")]:
        attacks = " or ".join(
            sorted({f"{part['attack'].upper()} of step {part['step']:.3g}" for part in attacked})
        )
        notes.append(
            f"adv.: accuracy under {attacks} crafted on one member: the least, the mean and the"
            " most over the members."
        )
    correlations = {"": record.get("correlation")} | (record.get("correlations") or {})
    if any(correlations.values()):
        told = [_correlation(method, found) for method, found in correlations.items() if found]
        notes.append(
            f"Accuracy of the members' mean and of the ensemble over {'; over '.join(told)}."
        )
    return (*notes, *([f"{costs.note} {MEASURED}"] if costs.note else []))


def _correlation(method: str, found: Row) -> str:
    of = f" of {method}" if method else ""
    return (
        f"{found['runs']} rows{of}: Pearson {_shown(found['pearson'])}"
        f" (p {_shown(found['pearson_pvalue'])}), Spearman {_shown(found['spearman'])}"
        f" (p {_shown(found['spearman_pvalue'])})"
    )


def _shown(number: float | None) -> str:
    return "undefined" if number is None else f"{number:.2f}"
