"""The picture of how members' features differ, by KL divergence, layer by layer."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxtickets.report.canvas import (
    drawn,
    headline,
    legend_below,
    new_figure,
    readable,
    row_style,
    save_figure,
)

_NAMED = 40  # layers up to which each has its name below the axis


def draw_depth(found: Mapping[str, Any], file: str | Path, *, title: str = "") -> Path | None:
    """KL divergence between the members' features along the layers, a line for each method.

    Args:
      found: an evaluation.json: its `rows` with `name` and an `evaluation` whose `parts` have
        "features". Others are passed over.
      file: the picture to write; its data go into the .csv beside it, a row for each method and
        layer.
      title: above it; the test set's name if not given.

    Returns:
      Its path; None where matplotlib is not installed or no row's features were compared.

    References:
      Liu et al. 2022, FreeTickets, arXiv:2106.14568, figure 2.
    """
    kl_by_row = [
        ((row["evaluation"].get("parts") or {}).get("features") or {}).get("kl") or ()
        for row in found["rows"]
    ]
    # (one member has no pairs)
    rows = [
        row
        for row, kl in zip(found["rows"], kl_by_row, strict=True)
        if any(value is not None for value in kl)
    ]
    figure = new_figure((7, 3.7)) if rows else None
    if figure is None:
        return None
    axes = figure.subplots()
    handles, data = [], []
    features_by_row = [row["evaluation"]["parts"]["features"] for row in rows]
    for row, features in zip(rows, features_by_row, strict=True):
        kl = [drawn(value) for value in features["kl"]]
        small = {"ms": 5} if len(kl) <= _NAMED else {"ms": 3}
        handles.append(
            axes.plot(
                range(1, len(kl) + 1),
                kl,
                **row_style(found, row),
                lw=1.6,
                **small,
                label=row["name"],
            )[0]
        )
        data += [
            {
                "row": row["name"],
                "depth": depth,
                "layer": name,
                "KL between features (nats, mean over pairs)": value,
            }
            for depth, (name, value) in enumerate(
                zip(features["layers"], features["kl"], strict=True), 1
            )
        ]
    layers = readable(features_by_row[0]["layers"])
    if (
        all(features["layers"] == features_by_row[0]["layers"] for features in features_by_row)
        and len(layers) <= _NAMED
    ):
        steep, longest = len(layers) > 14, max(map(len, layers))
        label_style: dict[str, Any] = (
            {"rotation": 90, "fontsize": "x-small"}
            if steep
            else {"rotation": 40, "ha": "right", "rotation_mode": "anchor"}
        )
        flat = sum(map(len, layers)) + 2 * len(layers) < 75
        axes.set_xticks(
            range(1, len(layers) + 1),
            layers,
            **{"fontsize": "small"} | ({} if flat else label_style),
        )
        figure.set_figheight(
            figure.get_figheight() + (0 if flat else (0.07 if steep else 0.055) * longest)
        )
    else:
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.set_xlabel("layer, from the input to the output")
    axes.set_ylabel("KL between features, nats")
    headline(figure, title or f"{found['test']['name']}: features of members, mean over pairs")
    legend_below(figure, handles)
    return save_figure(figure, file, data)
