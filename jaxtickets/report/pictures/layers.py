"""The picture of how many weights each layer keeps."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxtickets.errors import ReportError
from jaxtickets.messages.pytrees import leaf_paths
from jaxtickets.report.canvas import (
    COLOURS,
    headline,
    legend_below,
    new_figure,
    readable,
    save_figure,
)

PyTree = Any

BLUE, ORANGE = COLOURS[:2]


def draw_layers(
    masks: Sequence[PyTree], file: str | Path, *, title: str = "Weights that remain, by layer"
) -> Path | None:
    """The share of weights that remains in every layer.

    A bar for the tickets' mean, a line from the least to the most.

    A layer of more weights has a thicker bar, by their logarithm. Leaves that are not masked
    (biases, norms) are left out.

    Args:
      masks: a mask tree for each ticket, all of one tree (`TicketEnsemble.masks`).
      file: the picture to write; its data go into the .csv beside it, a row for each layer.
      title: above it.

    Returns:
      Its path; None where matplotlib is not installed or no layer is masked.

    Raises:
      ReportError: no mask, or masks of different trees.
    """
    names, sizes, shares = remaining(masks)
    figure = new_figure((6.8, float(np.clip(1.1 + 0.2 * len(names), 2, 9.6)))) if names else None
    if figure is None:
        return None
    axes = figure.subplots()
    mean, low, high = shares.mean(0), shares.min(0), shares.max(0)
    logs = np.log10(sizes)
    thick = (
        0.35 + 0.5 * (logs - logs.min()) / max(1e-9, logs.max() - logs.min())
        if logs.max() > logs.min()
        else np.full(len(names), 0.7)
    )
    heights = range(len(names))
    bar = axes.barh(heights, 100 * mean, height=thick, color=BLUE, alpha=0.75, lw=0)
    several = len(shares) > 1
    bar.set_label(f"mean of {len(shares)} tickets" if several else "kept")
    handles = [bar]
    if several:
        ends = 100 * np.stack([mean - low, high - mean])
        axes.errorbar(
            100 * mean,
            heights,
            xerr=np.maximum(ends, 0),
            fmt="none",
            ecolor="black",
            elinewidth=0.9,
            capsize=1.5,
        )
        handles.append(axes.plot([], [], color="black", lw=0.9, label="least to most")[0])
    overall = float((mean * sizes).sum() / sizes.sum())
    handles.append(
        axes.axvline(
            100 * overall, color=ORANGE, ls="--", lw=1.2, label=f"all layers: {100 * overall:.1f} %"
        )
    )
    points = 72 * (figure.get_figheight() - 1.1) / len(names)  # of height for each layer
    step = max(1, math.ceil(5.5 / points))
    short = [f"{name} ({_size(size)})" for name, size in zip(readable(names), sizes, strict=True)]
    axes.set_yticks(heights[::step], short[::step], fontsize=min(8.5, max(5.0, 0.85 * points)))
    axes.tick_params(axis="y", length=0)
    axes.set(xlabel="weights that remain, %", ylim=(len(names) - 0.4, -0.6))
    axes.set_xlim(0, max(float(100 * high.max()) * 1.04, 1e-3) if high.max() < 0.9 else 103)
    headline(figure, title)
    legend_below(figure, handles)
    rows = [
        {
            "layer": name,
            "weights": int(size),
            "mean (share)": float(mean[i]),
            "least (share)": float(low[i]),
            "most (share)": float(high[i]),
        }
        | {f"ticket {number} (share)": float(share[i]) for number, share in enumerate(shares)}
        for i, (name, size) in enumerate(zip(names, sizes, strict=True))
    ]
    return save_figure(figure, file, rows)


def remaining(masks: Sequence[PyTree]) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Names of the masked layers, their weights int64 [L], and the shares kept [tickets, L].

    >>> remaining([{"a": {"kernel": np.array([True, False])}, "b": np.array(True)}])
    (['a/kernel'], array([2]), array([[0.5]]))

    Raises:
      ReportError: no mask, or masks of different trees.
    """
    masks = list(masks)
    if not masks:
        raise ReportError("masks: got none; give a list of mask trees, such as tickets.masks.")
    trees = [jax.tree.map(np.shape, mask) for mask in masks]
    if odd := [number for number, tree in enumerate(trees) if tree != trees[0]]:
        raise ReportError(
            f"masks: ticket {odd[0]}'s mask has another tree than ticket 0's; draw tickets of one"
            " network."
        )
    leaf_numbers = {
        path: i
        for i, path in enumerate(leaf_paths(masks[0]))
        if np.ndim(jax.tree.leaves(masks[0])[i])
    }
    names = sorted(
        leaf_numbers,
        key=lambda path: [
            (not part.isdigit(), int(part) if part.isdigit() else 0, part)
            for part in re.split(r"(\d+)", path)
        ],
    )
    mask_leaves = [
        [np.asarray(jax.tree.leaves(mask)[leaf_numbers[name]]) for name in names] for mask in masks
    ]
    shares = np.array([[leaf.mean() for leaf in leaves] for leaves in mask_leaves])
    return names, np.array([leaf.size for leaf in mask_leaves[0]], np.int64), shares


def _size(count: int) -> str:
    """A number of weights in about four characters.

    >>> _size(432), _size(36_864), _size(2_359_296)
    ('432', '37k', '2.4M')
    """
    return (
        f"{count / 1e6:.1f}M"
        if count >= 1e6
        else f"{count / 1e3:.0f}k"
        if count >= 1e4
        else f"{count:,}"
    )
