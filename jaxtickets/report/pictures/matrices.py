"""The picture of how every two members compare, as a heat map.

Disagreement, KL divergence, overlap of masks, cosine of weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxtickets.errors import ReportError
from jaxtickets.report.canvas import headline, new_figure, save_figure

_ANNOTATED = 12  # members up to which every cell has its number


def draw_matrix(
    matrix: Any,
    file: str | Path,
    *,
    title: str,
    label: str,
    names: Sequence[str] | None = None,
    percent: bool = False,
    diagonal: bool = False,
) -> Path | None:
    """A number for every two members, as a heat map, written in for up to twelve members.

    A member beside itself says nothing and would stretch the colours: the diagonal is grey, and in
    the data.

    Args:
      matrix: numbers [M, M], rows and columns the members; None or nan where there is none, left
        white.
      file: the picture to write; its data go into the .csv beside it, a row for each cell.
      title: above it.
      label: what the numbers are, with their unit.
      names: of the members, M; "0" to "M - 1" if not given.
      percent: show the numbers, shares, times 100.
      diagonal: colour the diagonal too: it is a number like the others (of two different sets of
        members).

    Returns:
      Its path; None where matplotlib is not installed.

    Raises:
      ReportError: a matrix that is not square, or another number of names.

    References:
      Liu et al. 2022, FreeTickets, arXiv:2106.14568, figures 6 and 7.
    """
    try:
        values = np.array(matrix, dtype=np.float64)  # (None becomes nan)
    except (TypeError, ValueError) as error:
        raise ReportError(
            f"matrix: got {type(matrix).__name__}, wanted numbers [M, M] ({error})."
        ) from error
    if values.ndim != 2 or values.shape[0] != values.shape[1] or not values.size:
        raise ReportError(
            f"matrix: got the shape {values.shape}, wanted [M, M], as disagreement_matrix gives it."
        )
    called = (
        [str(i) for i in range(len(values))] if names is None else [str(name) for name in names]
    )
    if len(called) != len(values):
        raise ReportError(
            f"names: got {len(called)} for a matrix of {len(values)} members; give one for each."
        )
    members, longest = len(values), max(map(len, called))
    side = float(np.clip(0.62 * members, 2.6, 6.6))
    figure = new_figure((side + 1.3 + 0.07 * longest, side + 0.6 + 0.05 * longest))
    if figure is None:
        return None
    axes = figure.subplots()
    shown_values = 100 * values if percent else values
    itself = np.eye(members, dtype=bool) & (not diagonal)
    coloured = np.ma.masked_array(shown_values, itself | ~np.isfinite(shown_values))
    low, high = (float(coloured.min()), float(coloured.max())) if coloured.count() else (0.0, 1.0)
    if high <= low:  # two members: one number, and colours around it
        low, high = low - 0.1 * (abs(low) or 1.0), high + 0.1 * (abs(high) or 1.0)
    # light grey
    axes.imshow(np.where(itself, 0.0, np.nan), cmap="Greys", vmin=-0.12, vmax=1, aspect="equal")
    image = axes.imshow(coloured, cmap="cividis", vmin=low, vmax=high, aspect="equal")
    digits = _digits(coloured)
    if members <= _ANNOTATED:
        for i, j in np.ndindex(shown_values.shape):
            if np.isfinite(shown_values[i, j]):
                dark = not itself[i, j] and (shown_values[i, j] - low) / (high - low) < 0.5
                style: dict[str, Any] = {
                    "color": "white" if dark else "0.55" if itself[i, j] else "black"
                }
                axes.text(
                    j,
                    i,
                    f"{shown_values[i, j]:.{digits}f}",
                    ha="center",
                    va="center",
                    fontsize=8.5 if members < 9 else 7,
                    **style,
                )
    step = 1 if members <= 24 else -(-members // 24)
    axes.set_xticks(
        range(0, members, step), called[::step], rotation=90 if longest > 3 else 0, fontsize="small"
    )
    axes.set_yticks(range(0, members, step), called[::step], fontsize="small")
    if names is None:
        axes.set(xlabel="member", ylabel="member")
    if coloured.count():
        figure.colorbar(image, ax=axes, label=label, shrink=0.9)
    headline(figure, title)
    rows = [
        {
            "member": called[i],
            "other member": called[j],
            f"{title} ({'share' if percent else label})": float(values[i, j]),
        }
        for i, j in np.ndindex(values.shape)
    ]
    return save_figure(figure, file, rows)


def _digits(values: Any) -> int:
    """How many decimals tell the numbers apart in four or five characters."""
    largest = float(np.abs(values).max()) if values.count() else 1.0
    return 1 if largest >= 10 else 2 if largest >= 0.095 else 3 if largest >= 0.0095 else 4
