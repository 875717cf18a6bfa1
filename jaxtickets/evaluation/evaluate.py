"""One call that says how good an ensemble is, how good its members are, and how much they differ."""

from __future__ import annotations

import dataclasses
import io
import math
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike
from rich import box
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from jaxtickets.evaluation.checks import EvaluationError, check_bins, check_labels, check_log_proba
from jaxtickets.evaluation.diversity import mask_iou, pairwise_kl, prediction_disagreement
from jaxtickets.evaluation.metrics import accuracy, brier, ece, mean_log_proba, nll, restrict

PyTree = Any


class Tickets(Protocol):
    """What `evaluate` asks of an ensemble. Of one whose networks give H predictions each it also reads `heads`, H."""

    @property
    def masks(self) -> Any:
        """A mask tree for each network, M / H of them, or None."""
        ...

    def member_log_proba(self, x: Any, /, *, batch_size: Any = ...) -> Any:
        """Log-probabilities [M, B, C] of a data set or of inputs."""
        ...


@dataclasses.dataclass(frozen=True)
class Scores:
    """How good one predictor is.

    Attributes:
      accuracy: share of right labels, in [0, 1].
      nll: negative log-likelihood, nats per example.
      ece: expected calibration error, in [0, 1]; the bins are stated by the `Evaluation`.
      brier: squared error summed over classes, in [0, 2].
    """

    accuracy: float
    nll: float
    ece: float
    brier: float

    def to_dict(self) -> dict[str, float | None]:
        """Plain floats by name; nan becomes None."""
        return _plain(self)


@dataclasses.dataclass(frozen=True)
class Diversity:
    """How much the members differ, as means over pairs; all nan for one member.

    Attributes:
      disagreement: share of examples whose predicted labels differ.
      kl: KL divergence in nats, both directions averaged.
      mask_iou: overlap of the surviving weights of two networks; nan where nothing is masked or there is one network.
    """

    disagreement: float
    kl: float
    mask_iou: float

    def to_dict(self) -> dict[str, float | None]:
        """Plain floats by name; nan becomes None."""
        return _plain(self)


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """An ensemble's scores beside its members'. Prints as a table.

    Attributes:
      ensemble: scores of the mean of the members' probabilities.
      members: scores of each member, in order.
      mean: mean over members of their scores (not the scores of anything that predicts).
      diversity: how much the members differ.
      bins: how many bins the calibration error has.
      examples: how many examples were predicted.
    """

    ensemble: Scores
    members: tuple[Scores, ...]
    mean: Scores
    diversity: Diversity
    bins: int
    examples: int

    def to_dict(self) -> dict[str, Any]:
        """Everything as lists, dictionaries and numbers that JSON knows; nan is None. An infinite NLL stays `inf`."""
        return {
            "ensemble": self.ensemble.to_dict(),
            "members": [member.to_dict() for member in self.members],
            "members_mean": self.mean.to_dict(),
            "diversity": self.diversity.to_dict(),
            "ece_bins": self.bins,
            "examples": self.examples,
        }

    def __rich__(self) -> Group:
        table = Table(box=box.SIMPLE_HEAD, title=f"{self.examples:,} examples", title_justify="left", show_edge=False)
        table.add_column("")
        for heading in ("accuracy %", "NLL", f"ECE % ({self.bins} bins)", "Brier"):
            table.add_column(heading, justify="right")
        for number, scores in enumerate(self.members):
            table.add_row(f"member {number}", *_cells(scores), end_section=number == len(self.members) - 1)
        table.add_row("mean of members", *_cells(self.mean))
        table.add_row("ensemble", *_cells(self.ensemble), style="bold")
        return Group(table, Text(self._diversity_line()))

    def __str__(self) -> str:
        console = Console(file=io.StringIO(), width=100, color_system=None, force_terminal=False, force_jupyter=False)
        with console.capture() as captured:
            console.print(self)
        return "\n".join(line.rstrip() for line in captured.get().rstrip().splitlines())

    def _diversity_line(self) -> str:
        if len(self.members) == 1:
            return "diversity: one member, no pairs"
        overlap = "no masks to compare" if math.isnan(self.diversity.mask_iou) else f"{self.diversity.mask_iou:.4f}"
        return f"diversity: disagreement {100 * self.diversity.disagreement:.2f} %, KL {self.diversity.kl:.4f}, mask IoU {overlap}"


def evaluate(tickets: Tickets, test: Any, *, bins: int = 15, batch_size: int | None = None) -> Evaluation:
    """Scores and diversity of an ensemble on a test set.

    Args:
      tickets: an ensemble: has `member_log_proba(x, batch_size=...)` that gives [M, B, C], and `masks`, M mask trees (M / H
        where it has `heads`, H > 1).
      test: a `Dataset` (anything with `x` and `y`), which the ensemble prepares as it was told to; an
        `EvaluationStream` (anything with `in_order` and `y`), read once; or a pair `(x, y)` of inputs and integer
        labels [B]. If `test.classes` is there and not None, every member's predictions are restricted to those classes
        (`restrict`) before anything is measured.
      bins: bins of the expected calibration error.
      batch_size: examples predicted at a time; None leaves it to the ensemble. It changes memory, not the result.

    Returns:
      An `Evaluation`; print it, or take `to_dict()`.

    Raises:
      EvaluationError: a `test` that is neither; labels or predictions that cannot be evaluated.
    """
    check_bins(bins)
    if (hasattr(test, "x") or hasattr(test, "in_order")) and hasattr(test, "y"):
        x, y = test, test.y
    elif isinstance(test, (tuple, list)) and len(test) == 2:
        x, y = test
    else:
        size = f" of {len(test)}" if isinstance(test, (tuple, list)) else ""
        raise EvaluationError(f"test: got {type(test).__name__}{size}, wanted a Dataset, an EvaluationStream or a pair (x, y).")
    if np.size(y) == 0:
        raise EvaluationError("test: got no examples, wanted at least one.")
    options = {} if batch_size is None else {"batch_size": batch_size}
    predictions = tickets.member_log_proba(x, **options)
    classes = getattr(test, "classes", None)
    if classes is not None:
        predictions = restrict(predictions, classes)
    return evaluate_predictions(predictions, y, masks=tickets.masks, bins=bins, heads=getattr(tickets, "heads", 1))


def evaluate_predictions(
    member_log_proba: ArrayLike, y: ArrayLike, masks: Sequence[PyTree] | None = None, bins: int = 15, heads: int = 1
) -> Evaluation:
    """Scores and diversity of predictions, wherever they come from.

    The ensemble's prediction is the mean of the members' probabilities: its NLL is the NLL of that mean, which is
    never more than the mean of the members' NLLs (Jensen's inequality).

    Args:
      member_log_proba: log-probabilities [M, B, C].
      y: integer labels [B].
      masks: M / heads mask trees, or None where there are none.
      bins: bins of the expected calibration error.
      heads: how many members one network makes; masks are of networks.

    Returns:
      An `Evaluation`.

    Raises:
      EvaluationError: shapes that do not fit, labels out of range, NaN, no examples, probabilities that do not sum to
        1 within 1e-3, another number of masks than of networks.

    >>> predictions = np.log([[[0.9, 0.1], [0.4, 0.6]], [[0.6, 0.4], [0.7, 0.3]]])
    >>> result = evaluate_predictions(predictions, [0, 1])
    >>> [member.accuracy for member in result.members], result.ensemble.accuracy, result.diversity.disagreement
    ([1.0, 0.5], 0.5, 0.5)
    """
    predictions = check_log_proba(member_log_proba, ndim=3, name="member_log_proba")
    labels = check_labels(y, *predictions.shape[1:])
    bins = check_bins(bins)
    if masks is not None and len(masks) * heads != len(predictions):
        of = f"{len(predictions)} members" + (f" / {heads} heads" if heads > 1 else "")
        raise EvaluationError(f"masks: got {len(masks)}, wanted one for each of {of}.")
    overlap = float("nan") if masks is None else mask_iou(masks)
    members = tuple(_scores(log_p, labels, bins) for log_p in predictions)
    means = {field.name: float(np.mean([getattr(m, field.name) for m in members])) for field in dataclasses.fields(Scores)}
    return Evaluation(
        ensemble=_scores(mean_log_proba(predictions), labels, bins),
        members=members,
        mean=Scores(**means),
        diversity=Diversity(prediction_disagreement(predictions), pairwise_kl(predictions), overlap),
        bins=bins,
        examples=len(labels),
    )


def _scores(log_p: np.ndarray, labels: np.ndarray, bins: int) -> Scores:
    return Scores(accuracy(log_p, labels), nll(log_p, labels), ece(log_p, labels, bins), brier(log_p, labels))


def _cells(scores: Scores) -> tuple[str, str, str, str]:
    return f"{100 * scores.accuracy:.2f}", f"{scores.nll:.4f}", f"{100 * scores.ece:.2f}", f"{scores.brier:.4f}"


def _plain(record: Scores | Diversity) -> dict[str, float | None]:
    return {name: None if math.isnan(value) else float(value) for name, value in dataclasses.asdict(record).items()}
