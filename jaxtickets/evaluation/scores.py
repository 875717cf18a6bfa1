"""The numbers of an evaluation, as a dictionary for files and as a table for people."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from jaxtickets.evaluation.calibration import Reliability
from jaxtickets.messages.printing import printed


@dataclasses.dataclass(frozen=True)
class Scores:
    """The scores of one predictor: an ensemble, a member, or the members' mean.

    Attributes:
      accuracy: share of right labels, in [0, 1].
      nll: negative log-likelihood, nats per example.
      ece: expected calibration error, in [0, 1], over bins of equal width; their number is stated
        by the `Evaluation`.
      adaptive_ece: the same over as many bins that hold equally many examples.
      brier: squared error summed over classes, in [0, 2].
    """

    accuracy: float
    nll: float
    ece: float
    adaptive_ece: float
    brier: float

    def to_dict(self) -> dict[str, float | None]:
        """The scores as plain floats by name; nan becomes None."""
        return plain(dataclasses.asdict(self))


@dataclasses.dataclass(frozen=True)
class Diversity:
    """How much the members differ, as means over pairs; all nan for one member.

    Attributes:
      disagreement: share of examples whose predicted labels differ.
      kl: KL divergence in nats, both directions averaged.
      mask_iou: overlap of the surviving weights of two networks; nan where nothing is masked or
        there is one network.
    """

    disagreement: float
    kl: float
    mask_iou: float

    def to_dict(self) -> dict[str, float | None]:
        """The measures as plain floats by name; nan becomes None."""
        return plain(dataclasses.asdict(self))


@dataclasses.dataclass(frozen=True)
class ClassAccuracy:
    """Accuracy on the examples of each class, C numbers each; nan for a class without examples.

    Attributes:
      ensemble: of the ensemble.
      members_mean: mean over members of theirs.
      examples: how many examples the class has.
    """

    ensemble: tuple[float, ...]
    members_mean: tuple[float, ...]
    examples: tuple[int, ...]

    def to_dict(self) -> dict[str, list[Any]]:
        """The accuracies as lists by name; nan becomes None."""
        return plain(dataclasses.asdict(self))


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """An ensemble's scores beside its members'. Prints as a table.

    Attributes:
      ensemble: scores of the members' combined prediction.
      members: scores of each member, in order.
      mean: mean over members of their scores (not the scores of anything that predicts).
      diversity: how much the members differ.
      bins: how many bins the calibration errors have.
      examples: how many examples were predicted.
      combine: how the members were combined: "proba", "logits" or "vote".
      per_class: accuracy on each class.
      reliability: the ensemble's reliability diagram, of `bins` bins.
      members_reliability: each member's.
      parts: results of the parts of a suite, by name, as JSON takes them.
    """

    ensemble: Scores
    members: tuple[Scores, ...]
    mean: Scores
    diversity: Diversity
    bins: int
    examples: int
    combine: str
    per_class: ClassAccuracy
    reliability: Reliability
    members_reliability: tuple[Reliability, ...]
    parts: Mapping[str, dict[str, Any]] = dataclasses.field(default_factory=dict, hash=False)

    def to_dict(self) -> dict[str, Any]:
        """The whole evaluation as JSON takes it; nan is None, an infinite NLL stays `inf`."""
        return {
            "ensemble": self.ensemble.to_dict(),
            "members": [member.to_dict() for member in self.members],
            "members_mean": self.mean.to_dict(),
            "diversity": self.diversity.to_dict(),
            "ece_bins": self.bins,
            "examples": self.examples,
            "combine": self.combine,
            "per_class": self.per_class.to_dict(),
            "reliability": {
                "ensemble": self.reliability.to_dict(),
                "members": [member.to_dict() for member in self.members_reliability],
            },
            "parts": plain(self.parts),
        }

    def __rich__(self) -> Group:
        suffixes = {
            "proba": "",
            "logits": ", members combined by their logits",
            "vote": ", members combined by majority vote",
        }
        title = f"{self.examples:,} examples{suffixes[self.combine]}"
        table = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", show_edge=False)
        table.add_column("")
        for heading in (
            "accuracy %",
            "NLL",
            f"ECE % ({self.bins} bins)",
            "adaptive ECE %",
            "Brier",
        ):
            table.add_column(heading, justify="right")
        for number, scores in enumerate(self.members):
            table.add_row(
                f"member {number}", *_cells(scores), end_section=number == len(self.members) - 1
            )
        table.add_row("mean of members", *_cells(self.mean))
        table.add_row("ensemble", *_cells(self.ensemble), style="bold")
        return Group(table, Text("\n".join([self._diversity_line(), *self._part_lines()])))

    def __str__(self) -> str:
        return printed(self)

    def _diversity_line(self) -> str:
        if len(self.members) == 1:
            return "diversity: one member, no pairs"
        overlap = (
            "no masks to compare"
            if math.isnan(self.diversity.mask_iou)
            else f"{self.diversity.mask_iou:.4f}"
        )
        return (
            f"diversity: disagreement {100 * self.diversity.disagreement:.2f} %, KL"
            f" {self.diversity.kl:.4f}, mask IoU {overlap}"
        )

    def _part_lines(self) -> Iterator[str]:
        """A line for each part with its single values; lists stay in the dictionary."""
        for name, result in self.parts.items():
            values = ", ".join(f"{label} {value}" for label, value in _single_values(result))
            yield f"{name}: {values or 'no single values'}"


def plain(value: Any) -> Any:
    """The value as JSON takes it, however deep: lists, Python's numbers, nan as None.

    >>> plain({"a": np.array([1.0, np.nan]), "b": (np.int64(3), float("inf"))})
    {'a': [1.0, None], 'b': [3, inf]}
    """
    if isinstance(value, Mapping):
        return {name: plain(item) for name, item in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def _cells(scores: Scores) -> tuple[str, ...]:
    ece, adaptive = f"{100 * scores.ece:.2f}", f"{100 * scores.adaptive_ece:.2f}"
    return f"{100 * scores.accuracy:.2f}", f"{scores.nll:.4f}", ece, adaptive, f"{scores.brier:.4f}"


def _single_values(result: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in result.items():
        label = f"{prefix}{name}".replace("_", " ")
        if isinstance(value, Mapping):
            yield from _single_values(value, f"{label} ")
        elif isinstance(value, float):
            yield label, f"{value:.4f}"
        elif isinstance(value, str | int):
            yield label, str(value)
