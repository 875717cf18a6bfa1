"""The picture of loss and accuracy on the straight line between two members' weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxtickets.errors import ReportError
from jaxtickets.report.canvas import (
    COLOURS,
    absent,
    drawn,
    headline,
    legend_below,
    new_figure,
    save_figure,
    series_style,
)

_EACH = len(COLOURS)  # pairs up to which each has a colour and a name


def draw_paths(
    pairs: Mapping[str, Any] | Sequence[Mapping[str, Any]],
    file: str | Path,
    *,
    title: str = "On the straight line between two members",
) -> Path | None:
    """Loss (above) and accuracy (below) along the line from one member to another.

    Place 0 is one member and 1 the other. The barrier stands in the legend.

    Of more than seven pairs each is grey, and their mean is drawn over them.

    Args:
      pairs: one pair or a list of them: `t` [P] in [0, 1], `loss` [P] in nats, `accuracy` [P],
        shares; `barrier`, nats, and a `name` where they have one.
      file: the picture to write; its data go into the .csv beside it, a row for each pair and
        place.
      title: above it.

    Returns:
      Its path; None where matplotlib is not installed.

    Raises:
      ReportError: no pair, or one whose loss or accuracy is not of the length of t.

    References:
      Frankle et al. 2020, Linear Mode Connectivity and the Lottery Ticket Hypothesis,
      arXiv:1912.05671, section 2.
    """
    pair_list = [pairs] if isinstance(pairs, Mapping) else list(pairs)
    if not pair_list:
        raise ReportError(
            "pairs: got none; give one as {'t': ..., 'loss': ..., 'accuracy': ...}, or several in a"
            " list."
        )
    names = [str(pair.get("name", f"pair {number}")) for number, pair in enumerate(pair_list)]
    for name, pair in zip(names, pair_list, strict=True):
        if not len(pair["t"]) == len(pair["loss"]) == len(pair["accuracy"]):
            counts = ", ".join(f"{len(pair[key])} {key}" for key in ("t", "loss", "accuracy"))
            raise ReportError(
                f"pairs: {name!r} has {counts}; give one loss and one accuracy for every t."
            )
    figure = new_figure((5.6, 4.8))
    if figure is None:
        return None
    panels = figure.subplots(2, 1, sharex=True)
    handles = []
    many = len(pair_list) > _EACH
    for number, (name, pair) in enumerate(zip(names, pair_list, strict=True)):
        style = (
            {"color": "0.75", "lw": 0.9} if many else series_style(number) | {"ms": 4, "lw": 1.6}
        )
        label = (
            f"{len(pair_list)} pairs"
            if many
            else _label(name if len(pair_list) > 1 or "name" in pair else "", pair.get("barrier"))
        )
        for axes, values in zip(panels, _values(pair), strict=True):
            line = axes.plot(pair["t"], values, **style, label=label)[0]
        handles += [line] if label and not (many and number) else []
    if many and all(list(pair["t"]) == list(pair_list[0]["t"]) for pair in pair_list):
        barriers = [pair.get("barrier") for pair in pair_list]
        barrier_note = (
            None
            if any(map(absent, barriers))
            else float(np.mean([drawn(barrier) for barrier in barriers]))
        )
        for axes, values in zip(panels, zip(*map(_values, pair_list), strict=True), strict=True):
            line = axes.plot(
                pair_list[0]["t"],
                np.mean(values, axis=0),
                color=COLOURS[0],
                marker="o",
                ms=4,
                lw=2,
                label=_label("mean", barrier_note),
            )[0]
        handles.append(line)
    panels[0].set_ylabel("loss, nats")
    panels[1].set(ylabel="accuracy, %", xlabel="from one member (0) to the other (1)")
    headline(figure, title)
    legend_below(figure, handles)
    rows = [
        {
            "pair": name,
            "t": t,
            "loss (nats)": loss,
            "accuracy (share)": accuracy,
            "barrier (nats)": pair.get("barrier"),
        }
        for name, pair in zip(names, pair_list, strict=True)
        for t, loss, accuracy in zip(pair["t"], pair["loss"], pair["accuracy"], strict=True)
    ]
    return save_figure(figure, file, rows)


def _values(pair: Mapping[str, Any]) -> tuple[list[float], list[float]]:
    return [drawn(loss) for loss in pair["loss"]], [
        drawn(accuracy, 100) for accuracy in pair["accuracy"]
    ]


def _label(name: str, barrier: float | None) -> str:
    barrier_note = "" if absent(barrier) else f"barrier {barrier:.3f}"
    return ": ".join(part for part in (name, barrier_note) if part)
