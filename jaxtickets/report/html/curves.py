"""Training curves as figures: the timeline of each run, and its numbers as CSV."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from jaxtickets.errors import ReportError
from jaxtickets.report.html.blocks import Figure
from jaxtickets.report.html.inputs import ReportInputs, Run
from jaxtickets.report.timeline import draw_run

_ONE = ("phase", "epoch", "lr")
_EACH = ("density", "loss", "accuracy", "validation_accuracy")


def timelines(inputs: ReportInputs, folder: Path) -> dict[str, Figure]:
    """A figure for each run that has metrics, by the run's name.

    Args:
      inputs: the runs; their folders are not written to.
      folder: where pictures and CSV files go, an empty one.
    """
    figures = {}
    for number, run in enumerate(inputs.runs):
        figure = (
            _timeline(run, folder.resolve() / f"timeline-{number}.png")
            if run.metrics and run.plan is not None
            else None
        )
        if figure is not None:
            figures[run.name] = figure
    return figures


def _timeline(run: Run, file: Path) -> Figure | None:
    try:
        picture = draw_run(run.source, str(file))
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise ReportError(
            f"{run.source / 'metrics.jsonl'}: the timeline cannot be drawn ({type(error).__name__}:"
            f" {error})."
        ) from None
    if picture is None:
        return None
    numbers = file.with_suffix(".csv")
    with numbers.open("w", newline="", encoding="utf-8") as opened:
        writer = csv.writer(opened)
        writer.writerow([*_ONE, "lineage", "child", *_EACH])
        for record in run.metrics:
            shared = [record.number(name) for name in _ONE]
            lineages = record.numbers("lineages")
            lists = [
                record.numbers(name) or [None] * len(lineages) for name in ("children", *_EACH)
            ]
            writer.writerows([*shared, *line] for line in zip(lineages, *lists, strict=True))
    return Figure(
        f"Timeline of {run.name}",
        _caption(run),
        picture,
        numbers,
        f"Timeline of {run.name}. {_described(run)}",
    )


def _caption(run: Run) -> str:
    return "Learning rate, density, training loss and training accuracy by epoch" + (
        ", as far as it is trained." if not run.finished else "."
    )


def _described(run: Run) -> str:
    """A sentence on what the curves show, for readers who do not see them."""
    ends = {
        name: [_mean(record.numbers(name)) for record in (run.metrics[0], run.metrics[-1])]
        for name in ("loss", "accuracy")
    }
    changes = ", ".join(
        f"training {name} from {first} to {last}" for name, (first, last) in ends.items()
    )
    return (
        f"Four panels over {run.metrics[-1].number('epoch'):g} epochs: learning rate, density,"
        f" {changes}."
    )


def _mean(values: Sequence[float | None]) -> str:
    numbers = [value for value in values if value is not None]
    return f"{sum(numbers) / len(numbers):.3g}" if numbers else "undefined"
