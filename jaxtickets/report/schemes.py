"""Multi-Ticket's tables and figures: schemes beside each other by what ensembling gains, how members differ, how masks overlap."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from jaxtickets.report.canvas import COLOURS, MARKERS, new_figure, save_figure
from jaxtickets.report.table import Column, ScoreTable

MEASURES = ("q", "ratio_errors", "negative_double_fault", "disagreement", "correlation")
_SHORT = ("Q", "R", "ND", "D", "C")
_GAIN = ("scheme", "single", "ensemble", "diff.", "p: baseline", "p: base_lt", "bootstrap: baseline", "train", "sec")


def gain_rows(found: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Headings and cells of tables 1 and 3: mean score of the members, of their ensembles of the largest size, and the difference.

    Args:
      found: what `multi_ticket_glue.py` writes: `size`, and `rows` with `scheme`, `title`, `gain` (`single`, `ensemble` by size),
        `tests`, `bootstrap`, `training`, `seconds` and `published`.
    """
    size, cells = str(found["size"]), []
    paper = any(row["published"] for row in found["rows"])
    for row in found["rows"]:
        single, ensemble = row["gain"]["single"], row["gain"]["ensemble"].get(size)
        line = [row["title"], _percent(single), _percent(ensemble), "" if ensemble is None else f"{100 * (ensemble - single):+.2f}"]
        line += [_p(row["tests"].get(other)) for other in ("baseline", "base_lt")]
        boot = row["bootstrap"].get("baseline")
        line.append("" if boot is None else f"{100 * boot['low']:+.2f} to {100 * boot['high']:+.2f}")
        line += [f"{row['training']:.2f}x", f"{row['seconds']:,.0f}"]
        if paper:
            told = row["published"]
            line.append("" if told is None else f"{told['single']:.2f} / {told['ensemble']:.2f} / {told['ensemble'] - told['single']:+.2f}")
        cells.append(line)
    return [*_GAIN, *(["paper"] if paper else [])], cells


def diversity_rows(found: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Headings and cells of table 2: the five measures of right and wrong, and the overlap of masks."""
    cells, paper = [], any(row["published_diversity"] for row in found["rows"])
    for row in found["rows"]:
        measured = [_number(row["oracle"][name]) if row["oracle"] else "" for name in MEASURES]
        line = [row["title"], *measured, _number(row["mask_iou"], 3), _number(row["prediction_disagreement"], 3)]
        if paper:
            told = row["published_diversity"]
            line.append("" if told is None else " / ".join(f"{value:.2f}" for value in told))
        cells.append(line)
    arrows = [f"{name} {'less' if name in 'QC' else 'more'}" for name in _SHORT]
    return ["scheme", *arrows, "mask IoU", "labels differ", *(["paper: Q / R / ND / D / C"] if paper else [])], cells


def strengths_table(found: Mapping[str, Any]) -> ScoreTable:
    """A scheme at several strengths of its penalty: what ensembling gains, and how far masks and predictions differ.

    Args:
      found: what `multi_ticket_glue.py --tau-sweep` writes: `metric`, `size` and `points`, each with `tau`, `gain`, `mask_iou` and
        `prediction_disagreement`.
    """
    columns = (
        Column(f"single {found['metric']}", "%", 100, 2, "higher"),
        Column(f"ensemble of {found['size']}", "%", 100, 2, "higher"),
        Column("difference", "points", 100, 2, "higher"),
        Column("mask IoU", "", 1, 3),
        Column("labels that differ", "%", 100, 1),
    )
    cells = []
    for point in found["points"]:
        single, ensemble = point["gain"]["single"], point["gain"]["ensemble"].get(str(found["size"]))
        gain = None if ensemble is None else ensemble - single
        cells.append((single, ensemble, gain, point["mask_iou"], point["prediction_disagreement"]))
    names = tuple(f"tau = {point['tau']:g}" if point["tau"] else "no penalty" for point in found["points"])
    return ScoreTable(columns, names, tuple(cells))


def schemes_table(found: Mapping[str, Any]) -> Group:
    """Both tables for a terminal, with what their columns mean."""
    tables = []
    for title, (headings, cells) in (("What ensembling gains", gain_rows(found)), ("How members differ", diversity_rows(found))):
        table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), title=title, title_justify="left")
        for i, heading in enumerate(headings):
            table.add_column(heading, justify="right" if i else "left", no_wrap=True)
        for line in cells:
            table.add_row(*line)
        tables.append(table)
    return Group(*tables, Text(notes(found)))


def notes(found: Mapping[str, Any]) -> str:
    """What the columns mean."""
    made = " The data are synthetic, a made-up language: they show that it runs, and rank nothing." if found["synthetic"] else ""
    sources = sorted({row["published"]["source"] for row in found["rows"] if row["published"]})
    paper = f" paper: single / ensemble / difference of {'; '.join(sources)}." if sources else ""
    return (
        f"{found['metric']} in % on {found['dataset']['name']}, {found['dataset']['validation']:,} validation examples; "
        f"{found['seeds']} seeds "
        f"in {found['groups']} group(s), all ensembles of {found['size']} within a group. p: Student's t-test over all ensembles, whose "
        "overlap it does not know of; bootstrap: 95 % interval of the difference to the baseline's ensembles when validation "
        "examples are drawn again. Q and C are less, R, ND and D more, where members differ. train: theoretical FLOPs, as multiples of one "
        f"fine-tuning; masks simulate sparsity with dense compute. Seconds are measured.{paper}{made}"
    )


def markdown_schemes(found: Mapping[str, Any]) -> str:
    """Both tables in Markdown."""
    texts = []
    for headings, cells in (gain_rows(found), diversity_rows(found)):
        lines = [f"| {' | '.join(headings)} |", f"| --- |{' ---: |' * (len(headings) - 1)}"]
        texts.append("\n".join(lines + [f"| {' | '.join(line)} |" for line in cells]))
    return "\n\n".join(texts)


def draw_gains(found: Mapping[str, Any], file: str | Path) -> Path | None:
    """Figure 3: the score of ensembles by their size, relative to the mean score of single baseline members.

    Returns:
      The picture's path, the numbers in the .csv beside it; None where matplotlib is not installed.
    """
    figure = new_figure((6.5, 4.2))
    if figure is None:
        return None
    axes = figure.subplots()
    rows = found["rows"]
    zero = next((row["gain"]["single"] for row in rows if row["scheme"] == "baseline"), rows[0]["gain"]["single"])
    for number, row in enumerate(rows):
        scores = {1: row["gain"]["single"]} | {int(size): score for size, score in row["gain"]["ensemble"].items()}
        style = {"color": COLOURS[number % len(COLOURS)], "marker": MARKERS[number % len(MARKERS)]}
        axes.plot(list(scores), [100 * (score - zero) for score in scores.values()], **style, lw=1.8, ms=6, label=row["title"])
    axes.axhline(0, color="0.7", lw=0.8, zorder=0)
    axes.set(xlabel="members of an ensemble", ylabel=f"{found['metric']}, points above one {rows[0]['title']} member")
    axes.set_xticks(sorted({1} | {int(size) for row in rows for size in row["gain"]["ensemble"]}))
    axes.set_title(_title(found), loc="left", fontsize="medium")
    axes.legend(frameon=False, fontsize="small")
    data = [
        {"scheme": row["title"], "members": int(size), f"{found['metric']} (of 1)": score}
        | {f"points above one {rows[0]['title']} member": 100 * (score - zero)}
        for row in rows
        for size, score in {"1": row["gain"]["single"], **row["gain"]["ensemble"]}.items()
    ]
    return save_figure(figure, file, data)


def draw_overlaps(found: Mapping[str, Any], file: str | Path, most: int = 5) -> Path | None:
    """Figure 4: overlap (intersection over union) of the masks of the first `most` seeds, a panel per scheme that has masks.

    Returns:
      The picture's path, the numbers in the .csv beside it; None where matplotlib is not installed or nothing is masked.
    """
    rows = [row for row in found["rows"] if row["overlap"]]
    figure = new_figure((2.9 * len(rows) + 0.9, 3.6)) if rows else None
    if figure is None:
        return None
    panels = figure.subplots(1, len(rows), squeeze=False)[0]
    each = [[line[:most] for line in row["overlap"][:most]] for row in rows]
    low = min(value for matrix in each for line in matrix for value in line)
    image = None
    for axes, row, matrix in zip(panels, rows, each, strict=True):
        image = axes.imshow(matrix, vmin=low, vmax=1, cmap="cividis_r")
        for i, line in enumerate(matrix):
            for j, value in enumerate(line):
                dark = (value - low) / max(1 - low, 1e-9) > 0.5
                axes.text(j, i, f"{value:.2f}", ha="center", va="center", fontsize=8, color="white" if dark else "black")
        axes.set(title=row["title"], xlabel="seed", xticks=range(len(matrix)), yticks=range(len(matrix)))
    panels[0].set_ylabel("seed")
    figure.colorbar(image, ax=list(panels), label="overlap of masks (IoU)", shrink=0.85)
    figure.suptitle(_title(found), fontsize="medium", x=0.01, ha="left")
    data = [
        {"scheme": row["title"], "seed": i, "other seed": j, "overlap of masks (IoU)": value}
        for row, matrix in zip(rows, each, strict=True)
        for i, line in enumerate(matrix)
        for j, value in enumerate(line)
    ]
    return save_figure(figure, file, data)


def _title(found: Mapping[str, Any]) -> str:
    return f"{found['network']} on {found['dataset']['name']}, {found['seeds']} seeds" + (" (synthetic)" if found["synthetic"] else "")


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.2f}"


def _number(value: float | None, digits: int = 2) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _p(value: float | None) -> str:
    return "" if value is None else "<.001" if value < 0.001 else f"{value:.3f}".lstrip("0")
