"""Figures of several runs: methods beside each other, and sweeps of a setting."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxtickets.errors import ReportError
from jaxtickets.report.canvas import COLOURS, MARKERS, drawn, new_figure, save_figure

BLUE, ORANGE, GREEN, PINK, _, SKY = COLOURS[:6]
# One colour for each kind of method; a method of no kind named here is grey.
KINDS = (
    ("one network", "0.35", ("independent", "dropout")),
    ("networks from scratch", BLUE, ("bagged", "dense_ensemble")),
    (
        "pruned or sparse",
        GREEN,
        ("static_sparse", "ltr", "prune_finetune", "dst", "edst", "edst_m7"),
    ),
    ("channels cut out while it evolves", SKY, ("dst_channels", "edst_channels")),
    ("Prune and Tune", ORANGE, ("pat_r", "pat_ar", "pat_partition")),
    ("children of whole units, cut out", PINK, ("pat_units",)),
    ("along one dense run", PINK, ("snapshot", "fge")),
    ("within one network", SKY, ("mc_dropout", "treenet", "batch_ensemble", "mimo")),
)


AXES = {
    "training": "training FLOPs, as multiples of one dense network's (theoretical)",
    "training_executed": "training FLOPs, as multiples of one dense network's (executed)",
    "seconds": "seconds of training (measured)",
}


_WITH_UNITS = {
    "training": "training FLOPs (multiples of one dense network's, theoretical)",
    "training_executed": "training FLOPs (multiples of one dense network's, executed)",
    "seconds": "training (seconds)",
}


def draw_comparison(
    found: Mapping[str, Any], file: str | Path, *, against: str = "training"
) -> Path | None:
    """Accuracy against what it cost: filled the ensemble, hollow its members' mean.

    Args:
      found: what `compare_cifar.py` writes.
      file: the picture to write; its data go into the .csv beside it.
      against: "training" FLOPs, theoretical; "training_executed"; or "seconds".

    Returns:
      Its path; None where matplotlib is not installed.

    Raises:
      ReportError: another `against`, or a row that does not tell it.
    """
    if against not in AXES:
        raise ReportError(f"against: got {against!r}, wanted one of {', '.join(map(repr, AXES))}.")
    for row in found["rows"]:
        if row["scores"].get(against) is None:
            raise ReportError(f"rows: {row['title']} does not tell {against!r}.")
    figure = new_figure((8.5, 5))
    if figure is None:
        return None
    axes = figure.subplots()
    points = []
    for row in found["rows"]:
        scores, colour = row["scores"], _colour(row["method"])
        x, y, mean = (scores[name]["mean"] for name in (against, "accuracy", "members_accuracy"))
        spread = scores["accuracy"]["standard_error"]
        if row["members"] > 1:
            axes.plot([x, x], [100 * mean, 100 * y], color=colour, lw=1.2, alpha=0.6, zorder=2)
            axes.plot(x, 100 * mean, "o", mfc="white", mec=colour, ms=6, zorder=3)
        axes.errorbar(
            x,
            100 * y,
            None if spread is None else 100 * spread,
            fmt="o",
            color=colour,
            ms=7,
            capsize=3,
            zorder=4,
        )
        points.append((x, 100 * y, _label(row), colour))
    _labels_at_the_right(axes, points)
    axes.set(
        xlabel=AXES[against],
        ylabel="test accuracy, %",
    )
    present = {row["method"] for row in found["rows"]}
    lines = [
        axes.plot([], [], "o", color=colour, label=kind)[0]
        for kind, colour, methods in KINDS
        if present & set(methods)
    ]
    lines.append(axes.plot([], [], "o", mfc="white", mec="0.3", label="mean of its members")[0])
    figure.legend(
        handles=lines, loc="outside lower center", ncols=4, frameon=False, fontsize="small"
    )
    runs = f", mean of {len(found['seeds'])} runs" if len(found["seeds"]) > 1 else ""
    axes.set_title(
        f"{found['network']} on {found['dataset']['name']}{runs}", loc="left", fontsize="medium"
    )
    rows = [
        {"method": row["method"], "title": row["title"], "members": row["members"]}
        | {_WITH_UNITS[against]: row["scores"][against]["mean"]}
        | {
            f"accuracy (share, {name.replace('_', ' ')})": row["scores"]["accuracy"][name]
            for name in ("mean", "standard_error")
        }
        | {"accuracy of the members (share, mean)": row["scores"]["members_accuracy"]["mean"]}
        for row in found["rows"]
    ]
    return save_figure(figure, file, rows)


def draw_sweep(found: Mapping[str, Any], file: str | Path) -> Path | None:
    """Accuracy along a sweep, one line per series.

    Solid the ensembles, dotted their members' means; diversity below.

    Args:
      found: what `ablations_cifar.py` writes: `title`, `label` of the swept setting, and `points`
        (`series`, `x`, `accuracy`, `members_accuracy`, `disagreement`, and a `standard_error` or
        None).
      file: the picture to write; its data go into the .csv beside it.

    Returns:
      Its path; None where matplotlib is not installed.
    """
    figure = new_figure((7.5, 5.2))
    if figure is None:
        return None
    panels = figure.subplots(2, 1, sharex=True, height_ratios=(2, 1))
    names = list(dict.fromkeys(point["series"] for point in found["points"]))
    places = list(dict.fromkeys(point["x"] for point in found["points"]))
    categories = any(isinstance(place, str) for place in places)
    for number, name in enumerate(names):
        series_points = [point for point in found["points"] if point["series"] == name]
        x = (
            [places.index(p["x"]) + 0.06 * (number - (len(names) - 1) / 2) for p in series_points]
            if categories
            else [p["x"] for p in series_points]
        )
        style: dict[str, Any] = {
            "color": COLOURS[number % len(COLOURS)],
            "marker": MARKERS[number % len(MARKERS)],
            "ms": 5,
        }
        joined = {"ls": "none" if categories else "-"}
        spread = [
            None if p["standard_error"] is None else 100 * p["standard_error"]
            for p in series_points
        ]
        bars = None if None in spread else spread
        panels[0].errorbar(
            x,
            [100 * p["accuracy"] for p in series_points],
            bars,
            **style,
            **joined,
            lw=1.8,
            capsize=3,
            label=name,
        )
        panels[0].plot(
            x,
            [100 * p["members_accuracy"] for p in series_points],
            **style | {"ms": 4},
            mfc="white",
            ls="none" if categories else ":",
            lw=1.2,
        )
        panels[1].plot(
            x, [drawn(p["disagreement"], 100) for p in series_points], **style, **joined, lw=1.8
        )
    if categories:
        panels[1].set_xticks(range(len(places)), places)
        panels[1].set_xlim(-0.5, len(places) - 0.5)
    elif found.get("log"):
        panels[1].set_xscale("log", base=2)
        panels[1].set_xticks(places, [f"{place:g}" for place in places])
        panels[1].minorticks_off()
    panels[0].set_ylabel("test accuracy, %")
    panels[1].set(ylabel="disagreement, %", xlabel=found["label"])
    panels[0].set_title(
        f"{found['title']} on {found['dataset']['name']}", loc="left", fontsize="medium"
    )
    handles = panels[0].get_legend_handles_labels()[0] if len(names) > 1 else []
    handles.append(
        panels[0].plot([], [], "o:", mfc="white", color="0.3", label="mean of the members")[0]
    )
    figure.legend(
        handles=handles, loc="outside lower center", ncols=4, frameon=False, fontsize="small"
    )
    shares = {
        name: f"{name.replace('_', ' ')} (share)"
        for name in ("accuracy", "standard_error", "members_accuracy", "disagreement")
    }
    rows = [
        {"series": p["series"], found["label"]: p["x"]}
        | {label: p[name] for name, label in shares.items()}
        for p in found["points"]
    ]
    return save_figure(figure, file, rows)


def _colour(method: str) -> str:
    return next((colour for _, colour, methods in KINDS if method in methods), "0.6")


def _label(row: Mapping[str, Any]) -> str:
    return row["title"] + (f" ({row['members']})" if row["members"] > 1 else "")


def _labels_at_the_right(axes: Any, points: Sequence[tuple[float, float, str, str]]) -> None:
    """Write every point's name beside the axes, as near to its height as others allow."""
    low, high = axes.get_ylim()
    ordered = sorted(points, key=lambda point: point[1])
    placed = _spread([y for _, y, *_ in ordered], high, (high - low) / max(20, len(points)))
    for (x, y, text, colour), height in zip(ordered, placed, strict=True):
        axes.annotate(
            text,
            (x, y),
            (1.03, height),
            textcoords=axes.get_yaxis_transform(),
            color=colour,
            fontsize="small",
            va="center",
            arrowprops={
                "arrowstyle": "-",
                "color": colour,
                "lw": 0.5,
                "alpha": 0.5,
                "shrinkA": 2,
                "shrinkB": 4,
                "relpos": (0, 0.5),
            },
        )


def _spread(heights: Sequence[float], high: float, gap: float) -> list[float]:
    """Rising heights, moved as little as possible to be `gap` apart and at most `high`."""
    placed: list[float] = []
    for height in heights:
        placed.append(height if not placed else max(height, placed[-1] + gap))
    limit = high
    # what was pushed over the top comes down, and pushes what is below it
    for i in reversed(range(len(placed))):
        placed[i] = min(placed[i], limit)
        limit = placed[i] - gap
    return placed
