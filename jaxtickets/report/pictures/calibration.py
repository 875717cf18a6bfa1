"""The reliability diagram: how often predictors are right when they are so sure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxtickets.report.canvas import (
    COLOURS,
    absent,
    drawn,
    headline,
    legend_below,
    new_figure,
    save_figure,
)

BLUE, ORANGE = COLOURS[:2]
_ENOUGH = 10  # examples in a bin: one of them moves its accuracy by a tenth


def draw_reliability(
    evaluation: Mapping[str, Any], file: str | Path, *, title: str = ""
) -> Path | None:
    """Accuracy against confidence in equal bins, of the ensemble and of its members.

    Below stands how many examples each bin has.

    Above the diagonal a predictor is less sure than it may be, below it more. The members' line is
    of all their predictions taken together; each member's own is thin and grey. Bins of fewer than
    ten examples, which chance rules, are faint and not joined.

    Args:
      evaluation: an `Evaluation` as a dictionary: its `reliability`, and of `ensemble` and
        `members_mean` the `ece`.
      file: the picture to write; its data go into the .csv beside it, a row for each bin and
        predictor.
      title: above it.

    Returns:
      Its path; None where matplotlib is not installed or `evaluation` has no `reliability`.

    References:
      Guo et al. 2017, On Calibration of Modern Neural Networks, arXiv:1706.04599, figure 4.
    """
    measured = evaluation.get("reliability")
    figure = new_figure((4.8, 5.4)) if measured else None
    if figure is None or not measured:
        return None
    members: Sequence[Mapping[str, Any]] = (
        measured["members"] if len(measured["members"]) > 1 else ()
    )
    bins = len(measured["ensemble"]["count"])
    panels = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    handles = [
        panels[0].plot(
            [0, 100], [0, 100], color="0.45", ls=(0, (4, 3)), lw=1, label="as sure as right"
        )[0]
    ]
    for member in members:
        panels[0].plot(*_line(member), color="0.78", lw=0.9, marker=".", ms=3)
    name = "ensemble" if members else "one network"
    together = _together(members) if members else None
    series = [(name, measured["ensemble"], evaluation["ensemble"]["ece"], BLUE, "o", "-")]
    if together:
        series.append(
            (
                f"its {len(members)} members",
                together,
                evaluation["members_mean"]["ece"],
                ORANGE,
                "s",
                "--",
            )
        )
    edges = [100 * i / bins for i in range(bins + 1)]
    for number, (predictor, diagram, ece, colour, marker, line) in enumerate(series):
        label = f"{predictor}: {'mean ' if number else ''}ECE {drawn(ece, 100):.2f} % ({bins} bins)"
        style: dict[str, Any] = {"color": colour, "ls": line}
        dots: dict[str, Any] = {"marker": marker, "ms": 5, "mfc": "white" if number else colour}
        handles.append(panels[0].plot(*_line(diagram), **style, **dots, lw=1.8, label=label)[0])
        panels[0].plot(*_line(diagram, few=True), **style | dots | {"ls": "none"}, alpha=0.3)
        total = sum(diagram["count"]) or 1
        shares = [100 * count / total for count in diagram["count"]]
        panels[1].stairs(
            shares,
            edges,
            fill=not number,
            color=colour,
            alpha=1 if number else 0.45,
            ls=line,
            lw=1.6,
        )
    panels[0].set(ylabel="right, %", xlim=(0, 100), ylim=(0, 102))
    panels[1].set(xlabel="confidence, %", ylabel="examples, %")
    panels[1].set_ylim(bottom=0)
    headline(figure, title or "Reliability")
    legend_below(figure, handles)
    everyone = {name: measured["ensemble"]} | ({"all members": together} if together else {})
    everyone |= {f"member {number}": member for number, member in enumerate(members)}
    rows = [
        {
            "predictor": predictor,
            "bin from (confidence, share)": i / bins,
            "bin to (confidence, share)": (i + 1) / bins,
        }
        | {
            "examples": diagram["count"][i],
            "confidence (share)": diagram["confidence"][i],
            "accuracy (share)": diagram["accuracy"][i],
        }
        for predictor, diagram in everyone.items()
        for i in range(bins)
    ]
    return save_figure(figure, file, rows)


def _line(diagram: Mapping[str, Any], few: bool = False) -> tuple[list[float], list[float]]:
    """Confidence and accuracy in per cent of the bins with enough examples, or with `few`."""
    places = [
        i
        for i, count in enumerate(diagram["count"])
        if (0 < count < _ENOUGH if few else count >= _ENOUGH)
    ]
    return [drawn(diagram["confidence"][i], 100) for i in places], [
        drawn(diagram["accuracy"][i], 100) for i in places
    ]


def _together(members: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """The diagram of all members' predictions: every bin's means, weighted by its counts.

    >>> one = {"count": [1, 0], "confidence": [0.5, None], "accuracy": [1.0, None]}
    >>> _together([one, {"count": [3, 0], "confidence": [0.25, None], "accuracy": [0.0, None]}])
    {'count': [4, 0], 'confidence': [0.3125, None], 'accuracy': [0.25, None]}
    """
    count = [sum(counts) for counts in zip(*(member["count"] for member in members), strict=True)]
    pooled: dict[str, list[Any]] = {"count": count}
    for name in ("confidence", "accuracy"):
        sums = [
            sum(
                member["count"][i] * member[name][i]
                for member in members
                if member["count"][i] and not absent(member[name][i])
            )
            for i in range(len(count))
        ]
        pooled[name] = [
            total / examples if examples else None
            for total, examples in zip(sums, count, strict=True)
        ]
    return pooled
