"""All pictures of an evaluation, and their titles and captions."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from support.sources import Source

from jaxtickets import engine, report
from jaxtickets.evaluation.parameters import comparable
from jaxtickets.report import html

MATRICES = {
    "disagreement_matrix": ("Prediction disagreement", "share of labels that differ, %", True),
    "kl_matrix": ("KL divergence", "nats", False),
    "mask_iou_matrix": ("Overlap of masks (IoU)", "share, %", True),
}


CAPTIONS = {
    "subsets": (
        "Accuracy against the number of members",
        "All ensembles of so many members: the mean, one standard deviation, the range.",
    ),
    "severities": (
        "Corruptions by severity",
        "Means over the corruptions; severity 0 is the clean test set.",
    ),
    "corruptions": ("Accuracy under each corruption", "The mean over its severities."),
    "features": (
        "Difference of features by depth",
        "KL divergence between the members' features, from the first layer to the last.",
    ),
    "reliability": (
        "Reliability",
        "Accuracy against confidence; above the diagonal a predictor is less sure than it may be.",
    ),
    "disagreement": ("Disagreement of members", "Share of examples whose predicted labels differ."),
    "kl": ("KL divergence between members", "In nats, both directions averaged."),
    "mask_iou": (
        "Overlap of masks",
        "Weights that both have, as a share of those that either has.",
    ),
    "line": (
        "Between two members",
        (
            "Loss and accuracy along the straight line between their weights: a hump is a barrier"
            " between basins."
        ),
    ),
    "plane": (
        "The plane through three networks",
        "Loss on the plane through the weights of the first three: whether they share a basin.",
    ),
    "layers": (
        "Weights that remain, by layer",
        "The tickets' mean, and a line from the least to the most.",
    ),
    "trajectories": (
        "Predictions along training",
        "t-SNE: a ring where a member starts, a star where it ends.",
    ),
}


def beside(evaluation: Path) -> list[html.Figure]:
    """The pictures that `draw_all` left beside an evaluation.json, in order.

    Those of all rows, then row by row.
    """
    folder = evaluation.parent
    folders = [folder, *sorted(path for path in folder.iterdir() if path.is_dir())]
    return [
        html.Figure(
            title if place == folder else f"{title}: {place.name}",
            caption,
            place / f"{stem}.png",
            place / f"{stem}.csv" if (place / f"{stem}.csv").is_file() else None,
        )
        for place in folders
        for stem, (title, caption) in CAPTIONS.items()
        if (place / f"{stem}.png").is_file()
    ]


def draw_all(found: Mapping[str, Any], sources: Mapping[str, Source], folder: Path) -> list[Path]:
    """Draw what can be drawn of an evaluation.json and its sources; the pictures' paths.

    Args:
      found: contents of evaluation.json.
      sources: by the rows' names.
      folder: to draw into: pictures of all rows directly, of one row in a folder of its name.
    """
    pictures = [
        report.draw_subsets(found, folder / "subsets.png"),
        report.draw_severities(found, folder / "severities.png"),
        report.draw_corruptions(found, folder / "corruptions.png"),
        report.draw_depth(found, folder / "features.png"),
    ]
    for row in found["rows"]:
        row_folder = folder / re.sub(r"[^\w.-]+", "-", row["name"]).strip("-.")
        row_folder.mkdir(exist_ok=True)
        pictures += draw_row(row, sources[row["name"]], row_folder)
    return [path for path in pictures if path is not None]


def draw_row(row: Mapping[str, Any], source: Source, folder: Path) -> list[Path | None]:
    """Draw the pictures of one row; their paths, None for what could not be drawn."""
    scores, name = row["evaluation"], row["name"]
    pictures = [report.draw_reliability(scores, folder / "reliability.png", title=name)]
    several = len(scores["members"]) > 1
    for matrix, (title, label, percent) in MATRICES.items():
        values = scores["parts"].get("diversity", {}).get(matrix)
        if several and values is not None and len(values) > 1:
            file = folder / f"{matrix.removesuffix('_matrix')}.png"
            pictures.append(
                report.draw_matrix(
                    values, file, title=f"{title}: {name}", label=label, percent=percent
                )
            )
    landscape = scores["parts"].get("landscape", {})
    if lines := landscape.get("lines"):
        start = "parent" if landscape.get("parent") else "0"
        pairs = [
            line | {"name": f"{start} to {j}"}
            for j, line in enumerate(lines, start=0 if landscape.get("parent") else 1)
        ]
        pictures.append(
            report.draw_paths(
                pairs,
                folder / "line.png",
                title=f"On the straight line between two members: {name}",
            )
        )
    if plane := landscape.get("plane"):
        names = ("parent", "child 0", "child 1") if landscape.get("parent") else None
        title = f"Loss on the plane through three networks: {name}"
        pictures.append(report.draw_plane(plane, folder / "plane.png", title=title, names=names))
    if not source.stored and comparable(source.tickets):
        pictures.append(
            report.draw_layers(
                source.tickets.masks, folder / "layers.png", title=f"Weights that remain: {name}"
            )
        )
    probes = engine.read_probes(source.folder) if source.folder is not None else []
    if len(probes) >= 4:
        pictures.append(
            report.draw_trajectories(
                probes,
                folder / "trajectories.png",
                seed=0,
                title=f"Predictions along training: {name}",
            )
        )
    return pictures
