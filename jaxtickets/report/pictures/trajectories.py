"""The picture of members' ways while they learn: t-SNE of their predictions along training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxtickets.errors import ReportError
from jaxtickets.report.canvas import headline, legend_below, new_figure, save_figure, series_style

Records = Sequence[Mapping[str, Any]]

# points up to which the gradient is computed exactly, and so in the same order every time
_EXACT = 1000
_FEWEST = 4


def draw_trajectories(
    records: Records,
    file: str | Path,
    *,
    seed: int,
    perplexity: float = 30.0,
    title: str = "Predictions along training, t-SNE",
) -> Path | None:
    """Each member's way through the space of predictions, in two dimensions.

    A ring where it starts, a star where it ends.

    Distances on the map are of t-SNE: who is near whom is shown, how far is not.

    Args:
      records: predictions of one probe set along training, a mapping for each moment of each
        member: `lineage`, `step`, `epoch` and `log_proba` [N, C], log-probabilities. In any order.
      file: the picture to write; its data go into the .csv beside it, a row for each record.
      seed: of t-SNE; equal seeds and records draw the same map.
      perplexity: how many neighbours a point has; a third of the other points at most.
      title: above it.

    Returns:
      Its path; None where matplotlib is not installed.

    Raises:
      ImportError: scikit-learn is not installed.
      ReportError: fewer than four records, or predictions of different shapes or that are nan.

    References:
      Fort et al. 2019, Deep Ensembles: A Loss Landscape Perspective, arXiv:1912.02757, figure 2;
        Liu et al. 2022, FreeTickets,
      arXiv:2106.14568, figure 3. Van der Maaten and Hinton 2008, Visualizing Data using t-SNE.
    """
    figure = new_figure((5.6, 4.9))
    if figure is None:
        return None
    ordered = sorted(records, key=lambda record: (record["lineage"], record["step"]))
    places = embed(ordered, seed=seed, perplexity=perplexity)
    axes = figure.subplots()
    lineages = sorted({record["lineage"] for record in ordered})
    handles = []
    for number, lineage in enumerate(lineages):
        path_points = places[
            [i for i, record in enumerate(ordered) if record["lineage"] == lineage]
        ]
        style = series_style(number)
        colour, line = style["color"], style["ls"]
        axes.plot(*path_points.T, color=colour, ls=line, lw=0.9, alpha=0.7, zorder=2)
        axes.plot(
            *path_points.T,
            color=colour,
            ls="none",
            marker=style["marker"],
            ms=3,
            alpha=0.85,
            zorder=3,
        )
        axes.plot(*path_points[0], "o", mfc="white", mec=colour, mew=1.6, ms=8, zorder=4)
        axes.plot(*path_points[-1], "*", color=colour, mec="black", mew=0.6, ms=14, zorder=5)
        handles.append(
            axes.plot(
                [],
                [],
                color=colour,
                ls=line,
                marker=style["marker"],
                ms=4,
                label=f"member {lineage}",
            )[0]
        )
    handles.append(axes.plot([], [], "o", mfc="white", mec="0.3", mew=1.6, ms=7, label="start")[0])
    handles.append(axes.plot([], [], "*", color="0.3", ms=11, label="end")[0])
    axes.set(xticks=[], yticks=[], xlabel="first dimension of t-SNE", ylabel="second")
    axes.margins(0.06)
    headline(figure, title)
    legend_below(figure, handles)
    rows = [
        {
            "lineage": record["lineage"],
            "step": record["step"],
            "epoch": record["epoch"],
            "first (no unit)": float(x),
            "second (no unit)": float(y),
        }
        for record, (x, y) in zip(ordered, places, strict=True)
    ]
    return save_figure(figure, file, rows)


def embed(records: Records, *, seed: int, perplexity: float = 30.0) -> np.ndarray:
    """Probabilities of every record in two dimensions: float [len(records), 2].

    See `draw_trajectories`.
    """
    if len(records) < _FEWEST:
        raise ReportError(
            f"records: got {len(records)}, wanted {_FEWEST} or more, which t-SNE needs to lay"
            " anything out. Probe predictions more often."
        )
    shapes = sorted({np.shape(record["log_proba"]) for record in records})
    if len(shapes) > 1 or len(shapes[0]) != 2:
        raise ReportError(
            f"records: got log_proba of the shapes {shapes}, wanted one shape [N, C]: probe the"
            " same examples every time."
        )
    points = np.exp(
        np.stack([np.asarray(record["log_proba"], np.float32).ravel() for record in records])
    )
    if bad_steps := [
        record["step"]
        for record, point in zip(records, points, strict=True)
        if not np.isfinite(point).all()
    ]:
        raise ReportError(
            f"records: got log_proba that is nan or too large in {len(bad_steps)} records, first at"
            f" step {bad_steps[0]}; leave them out."
        )
    try:
        from sklearn.manifold import TSNE
    except ImportError as error:
        raise ImportError(
            f"t-SNE is scikit-learn's: pip install 'jaxtickets[vision]' ({error})"
        ) from error
    near = min(perplexity, (len(points) - 1) / 3)
    method = "exact" if len(points) <= _EXACT else "barnes_hut"
    return TSNE(perplexity=near, init="pca", random_state=seed, method=method).fit_transform(points)
