"""Multi-Ticket's tables and figures: what ensembling gains, how members and masks differ."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxtickets.report.canvas import COLOURS, MARKERS, new_figure, save_figure
from jaxtickets.report.comparison import p_value
from jaxtickets.report.costs import COST_COLUMNS, PREDICTING
from jaxtickets.report.records import Record, as_record
from jaxtickets.report.table import Cell, Column, ScoreTable, table_of

MEASURES = {
    "q": "Q less",
    "ratio_errors": "R more",
    "negative_double_fault": "ND more",
    "disagreement": "D more",
    "correlation": "C less",
}


def gains_table(schemes: Mapping[str, Any] | Record) -> ScoreTable:
    """The table of what ensembling gains, by scheme: tables 1 and 3.

    Mean score of the members, of their ensembles of the largest size, and the difference.

    Args:
      schemes: what `multi_ticket_glue.py` writes: `size`, and `rows` with `scheme`, `title`, `gain`
        (`single`, `ensemble` by size), `tests`, `bootstrap`, `training`, `seconds`, `published`.

    Raises:
      ReportError: a field of another kind than wanted; names it.
    """
    record = as_record(schemes)
    columns = [
        Column("single", times=100),
        Column("ensemble", times=100),
        Column("diff.", times=100, sign=True),
        Column("p: baseline"),
        Column("p: base_lt"),
        Column("bootstrap: baseline"),
        Column("training", "x", short="train"),
        Column("seconds", digits=0, short="sec"),
    ]
    # of an older file no row tells them
    optional = {"training_executed": COST_COLUMNS["training_executed"], "predict": PREDICTING}
    more = [name for name in optional if any(name in row for row in record.parts("rows"))]
    columns += [optional[name] for name in more]
    names, cells = [], []
    for row in record.parts("rows"):
        tests, boot = row.maybe("tests"), row.part("bootstrap").maybe("baseline")
        interval = [] if boot is None else [boot.number(end) for end in ("low", "high")]
        line: list[Cell] = [*_gain(row, record.count("size"))]
        line += [
            None if tests is None else p_value(tests.number(baseline))
            for baseline in ("baseline", "base_lt")
        ]
        line.append(" to ".join(columns[2].show(end) for end in interval))
        names.append(row.text("title"))
        cells.append([*line, row.number("training"), row.number("seconds"), *map(row.number, more)])
    published = [row.maybe("published") for row in record.parts("rows")]
    if any(published):
        columns.append(Column("paper"))
        for line, paper in zip(cells, published, strict=True):
            line.append(None if paper is None else _printed(paper))
    table = ScoreTable(tuple(columns), tuple(names), tuple(map(tuple, cells)), (notes(record),))
    return dataclasses.replace(table, title="What ensembling gains", corner="scheme")


def members_table(schemes: Mapping[str, Any] | Record) -> ScoreTable:
    """The table of how members differ, by scheme: table 2.

    The five measures of right and wrong, and the overlap of masks.

    Args:
      schemes: as of `gains_table`, rows with `oracle`, `mask_iou` and `prediction_disagreement`.

    Raises:
      ReportError: a field of another kind than wanted; names it.
    """
    columns = [Column(heading) for heading in MEASURES.values()]
    columns += [Column("mask IoU", digits=3), Column("labels differ", digits=3)]
    rows = as_record(schemes).parts("rows")
    papers = [row.numbers("published_diversity") for row in rows]
    lines: list[tuple[str, list[Cell]]] = []
    for row, paper in zip(rows, papers, strict=True):
        oracle = row.maybe("oracle")
        line: list[Cell] = [oracle and oracle.number(name) for name in MEASURES]
        line += [row.number("mask_iou"), row.number("prediction_disagreement")]
        line += [" / ".join(map(columns[0].show, paper))] if any(papers) else []
        lines.append((row.text("title"), line))
    columns += [Column("paper: Q / R / ND / D / C")] if any(papers) else []
    return table_of("How members differ", columns, lines, corner="scheme")


def strengths_table(sweep: Mapping[str, Any] | Record) -> ScoreTable:
    """The table of gains and differences by the strength of a scheme's penalty.

    Args:
      sweep: what `multi_ticket_glue.py --tau-sweep` writes: `scheme`, `metric`, `size` and
        `points`, each with `tau`, `gain`, `mask_iou` and `prediction_disagreement`.

    Raises:
      ReportError: a field of another kind than wanted; names it.
    """
    record = as_record(sweep)
    size = record.count("size")
    columns = (
        Column(f"single {record.text('metric')}", "%", 100, 2, "higher"),
        Column(f"ensemble of {size}", "%", 100, 2, "higher"),
        Column("difference", "points", 100, 2, "higher"),
        Column("mask IoU", "", 1, 3),
        Column("labels that differ", "%", 100, 1),
    )
    lines = [
        (
            f"tau = {tau:g}" if (tau := point.number("tau")) else "no penalty",
            (
                *_gain(point, size),
                point.number("mask_iou"),
                point.number("prediction_disagreement"),
            ),
        )
        for point in record.parts("points")
    ]
    return table_of(f"Strength of the penalty: {record.text('scheme', '')}", columns, lines)


def notes(schemes: Mapping[str, Any] | Record) -> str:
    """Notes on what the columns of the tables of schemes mean."""
    record = as_record(schemes)
    synthetic_note = (
        " The data are synthetic, a made-up language: they show that it runs, and rank nothing."
        if record.flag("synthetic")
        else ""
    )
    papers = [paper for row in record.parts("rows") if (paper := row.maybe("published"))]
    sources = sorted({paper.text("source") for paper in papers})
    paper = f" paper: single / ensemble / difference of {'; '.join(sources)}." if sources else ""
    groups = f" in {record.count('groups')} group(s)" if "groups" in record else ""
    data = record.part("dataset")
    timing = record.text("timing") if "timing" in record else "Seconds are measured."
    return (
        f"{record.text('metric')} in % on {data.text('name')}, {data.count('validation'):,}"
        f" validation examples; {record.count('seeds')} seeds{groups}, all ensembles"
        f" of {record.count('size')} within a group. p: Student's t-test over all ensembles, whose"
        " overlap it does not know of; bootstrap: 95 % interval of the difference to the baseline's"
        " ensembles when validation examples are drawn again. Q and C are less, R, ND and D more,"
        " where members differ. Training: theoretical FLOPs, as multiples of one fine-tuning; masks"
        f" simulate sparsity with dense compute. {timing}{paper}{synthetic_note}"
    )


def draw_gains(
    found: Mapping[str, Any] | Sequence[Mapping[str, Any]], file: str | Path
) -> Path | None:
    """Figure 3: ensembles' scores by their size, relative to the mean single baseline member.

    Args:
      found: what `multi_ticket_glue.py` writes; of several, each has a panel.
      file: the picture to write; its data go into the .csv beside it.

    Returns:
      The picture's path; None where matplotlib is not installed.
    """
    records = [found] if isinstance(found, Mapping) else list(found)
    figure = new_figure((6.5 if len(records) == 1 else 5 * len(records), 4.2))
    if figure is None:
        return None
    data: list[dict[str, Any]] = []
    for axes, record in zip(
        figure.subplots(1, len(records), squeeze=False)[0], records, strict=True
    ):
        rows = _gains_by_size(record)
        if len(records) > 1:
            named = {"data": record["dataset"]["name"], "metric": record["metric"]}
            data += [named | dict(zip(SEVERAL, row.values(), strict=True)) for row in rows]
        else:
            data += rows
        title = _title(record)
        _draw_gains(
            axes, record, rows, title.replace(" on ", "\non ") if len(records) > 1 else title
        )
    return save_figure(figure, file, data)


SEVERAL = ("scheme", "members", "score (of 1)", "points above one baseline member")
"""Columns of the data of gains, where they are of several metrics."""


def _gains_by_size(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The score of every scheme's ensembles of each size, and what it is above one baseline."""
    rows = record["rows"]
    zero = next((row for row in rows if row["scheme"] == "baseline"), rows[0])["gain"]["single"]
    return [
        {"scheme": row["title"], "members": int(size), f"{record['metric']} (of 1)": score}
        | {f"points above one {rows[0]['title']} member": 100 * (score - zero)}
        for row in rows
        for size, score in {"1": row["gain"]["single"], **row["gain"]["ensemble"]}.items()
    ]


def _draw_gains(
    axes: Any, record: Mapping[str, Any], rows: list[dict[str, Any]], title: str
) -> None:
    *_, gain = rows[0]
    for number, scheme in enumerate(dict.fromkeys(row["scheme"] for row in rows)):
        style = {"color": COLOURS[number % len(COLOURS)], "marker": MARKERS[number % len(MARKERS)]}
        points = [(row["members"], row[gain]) for row in rows if row["scheme"] == scheme]
        axes.plot(*zip(*points, strict=True), **style, lw=1.8, ms=6, label=scheme)
    axes.axhline(0, color="0.7", lw=0.8, zorder=0)
    axes.set(xlabel="members of an ensemble", ylabel=f"{record['metric']}, {gain}")
    axes.set_xticks(sorted({row["members"] for row in rows}))
    axes.set_title(title, loc="left", fontsize="medium")
    axes.legend(frameon=False, fontsize="small")


def draw_overlaps(found: Mapping[str, Any], file: str | Path, most: int = 5) -> Path | None:
    """Figure 4: overlap (intersection over union) of the masks of the first `most` seeds.

    There is a panel for each scheme that has masks.

    Returns:
      The picture's path, the numbers in the .csv beside it; None where matplotlib is not installed
      or nothing is masked.
    """
    rows = [row for row in found["rows"] if row["overlap"]]
    figure = new_figure((2.9 * len(rows) + 0.9, 3.6)) if rows else None
    if figure is None:
        return None
    panels = figure.subplots(1, len(rows), squeeze=False)[0]
    overlaps = [[line[:most] for line in row["overlap"][:most]] for row in rows]
    low = min(value for matrix in overlaps for line in matrix for value in line)
    image = None
    for axes, row, matrix in zip(panels, rows, overlaps, strict=True):
        image = axes.imshow(matrix, vmin=low, vmax=1, cmap="cividis_r")
        for i, line in enumerate(matrix):
            for j, value in enumerate(line):
                dark = (value - low) / max(1 - low, 1e-9) > 0.5
                axes.text(
                    j,
                    i,
                    f"{value:.2f}",
                    ha="center",
                    va="center",
                    fontsize=8,
                    color="white" if dark else "black",
                )
        axes.set(
            title=row["title"], xlabel="seed", xticks=range(len(matrix)), yticks=range(len(matrix))
        )
    panels[0].set_ylabel("seed")
    figure.colorbar(image, ax=list(panels), label="overlap of masks (IoU)", shrink=0.85)
    figure.suptitle(_title(found), fontsize="medium", x=0.01, ha="left")
    data = [
        {"scheme": row["title"], "seed": i, "other seed": j, "overlap of masks (IoU)": value}
        for row, matrix in zip(rows, overlaps, strict=True)
        for i, line in enumerate(matrix)
        for j, value in enumerate(line)
    ]
    return save_figure(figure, file, data)


def _title(record: Mapping[str, Any]) -> str:
    return f"{record['network']} on {record['dataset']['name']}, {record['seeds']} seeds" + (
        " (synthetic)" if record["synthetic"] else ""
    )


def _gain(row: Record, size: int) -> tuple[float | None, float | None, float | None]:
    """Score of single members, of their ensembles of that size, and the difference."""
    gain = row.part("gain")
    single, ensemble = gain.number("single"), gain.part("ensemble").number(str(size))
    gap = None if single is None or ensemble is None else ensemble - single
    return single, ensemble, gap


def _printed(paper: Record) -> str | None:
    single, ensemble = paper.number("single"), paper.number("ensemble")
    if single is None or ensemble is None:
        return None
    return f"{single:.2f} / {ensemble:.2f} / {ensemble - single:+.2f}"
