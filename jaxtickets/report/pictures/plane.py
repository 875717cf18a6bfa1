"""The picture of the loss on the plane through three networks' weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxtickets.errors import ReportError
from jaxtickets.report.canvas import drawn, headline, new_figure, save_figure

LEVELS = 12


def draw_plane(
    found: Mapping[str, Any],
    file: str | Path,
    *,
    title: str = "The loss on the plane through three networks",
    names: Sequence[str] | None = None,
) -> Path | None:
    """The loss as a map with contours, the three networks as points with their names.

    Levels are evenly spaced in the logarithm of the loss: a plain at chance would else take all of
    them.

    Args:
      found: what `jaxtickets.evaluation.plane` returns.
      file: the picture to write; its data go into the .csv beside it, a row for each place.
      title: above it.
      names: of the three; their tickets' numbers if not given.

    Returns:
      Its path; None where matplotlib is not installed.

    Raises:
      ReportError: a grid of other rows than its places, or another number of names than of points.

    References:
      Garipov et al. 2018, arXiv:1802.10026, figure 1.
    """
    xs, ys, corners = found["x"], found["y"], found["corners"]
    if len(found["loss"]) != len(ys) or any(len(row) != len(xs) for row in found["loss"]):
        raise ReportError(
            f"found: the loss has {len(found['loss'])} rows of"
            f" {', '.join(sorted({str(len(row)) for row in found['loss']}))}, and there are"
            f" {len(ys)} places of {len(xs)}."
        )
    names = [f"member {it['ticket']}" for it in corners] if names is None else list(names)
    if len(names) != len(corners):
        raise ReportError(f"names: got {len(names)}, wanted one for each of {len(corners)} points.")
    figure = new_figure((5.8, 4.8))
    if figure is None:
        return None
    axes = figure.subplots()
    loss = np.array([[drawn(value) for value in row] for row in found["loss"]])
    finite = loss[np.isfinite(loss) & (loss > 0)]
    low, high = (finite.min(), finite.max()) if finite.size else (1.0, 1.0)
    levels = np.geomspace(low, max(high, 1.001 * low), LEVELS)
    filled = axes.contourf(
        xs, ys, np.ma.masked_invalid(loss), levels, cmap="cividis", extend="both"
    )
    axes.contour(xs, ys, np.ma.masked_invalid(loss), levels, colors="white", linewidths=0.4)
    for name, corner in zip(names, corners, strict=True):
        axes.plot(corner["x"], corner["y"], "o", color="white", mec="black", ms=7)
        axes.annotate(
            f"{name}\n{corner['loss']:.3f}",
            (corner["x"], corner["y"]),
            (7, 5),
            textcoords="offset points",
            fontsize="small",
            color="black",
            bbox={"boxstyle": "round,pad=0.2", "fc": "white", "ec": "none", "alpha": 0.7},
        )
    axes.set(xlabel="distance of the weights", ylabel="distance of the weights", aspect="equal")
    bar = figure.colorbar(filled, ax=axes, label="loss, nats")
    bar.set_ticks(levels[::2], labels=[f"{level:.2g}" for level in levels[::2]])
    headline(figure, title)
    rows = [
        {"x": x, "y": y, "loss (nats)": one_loss, "accuracy (share)": right}
        for y, losses, accuracies in zip(ys, found["loss"], found["accuracy"], strict=True)
        for x, one_loss, right in zip(xs, losses, accuracies, strict=True)
    ]
    return save_figure(figure, file, rows)
