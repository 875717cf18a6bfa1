"""Calibration: confidence against accuracy, bin by bin.

The reliability diagram, of which the calibration error is made.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from jaxtickets.evaluation.checks import check_bins, check_labels, check_log_proba

EDGE_TOLERANCE = 1e-6
"""A confidence this close above a bin's edge counts as on it: exp(log p) need not give p back."""


@dataclasses.dataclass(frozen=True)
class Reliability:
    """A reliability diagram: confidence, accuracy and number of examples of each bin.

    Attributes:
      count: examples of each bin.
      confidence: their mean highest probability; nan in an empty bin.
      accuracy: the share of them that is right; nan in an empty bin.
    """

    count: tuple[int, ...]
    confidence: tuple[float, ...]
    accuracy: tuple[float, ...]

    @property
    def error(self) -> float:
        """Mean over examples of |accuracy - confidence| of their bin.

        The expected calibration error, in [0, 1].
        """
        filled = np.asarray(self.count) > 0
        gaps = np.abs(np.asarray(self.accuracy)[filled] - np.asarray(self.confidence)[filled])
        return float(gaps @ np.asarray(self.count)[filled] / sum(self.count))

    def to_dict(self) -> dict[str, list[Any]]:
        """The diagram's lists by name; nan becomes None."""
        return {
            "count": list(self.count),
            "confidence": [None if math.isnan(value) else value for value in self.confidence],
            "accuracy": [None if math.isnan(value) else value for value in self.accuracy],
        }


def reliability(log_proba: ArrayLike, y: ArrayLike, bins: int = 15) -> Reliability:
    """The reliability diagram of the top label, over bins of equal width.

    Bin k of 1 ... bins holds the examples whose highest probability lies in ((k - 1) / bins, k /
    bins]. Bins are right-closed: a confidence on an edge (which ties such as 1/3 produce) falls in
    the lower bin. So does one up to 1e-6 above it, so that float32 and float64 agree on edges.

    Args:
      log_proba: log-probabilities [B, C].
      y: integer labels [B].
      bins: how many bins of width 1 / bins.

    Returns:
      A `Reliability` of that many bins.

    Raises:
      EvaluationError: shapes that do not fit, labels out of range, NaN, no examples, probabilities
        that do not sum to 1 within 1e-3, bins below 1.

    References:
      DeGroot and Fienberg 1983; Guo et al. 2017, arXiv:1706.04599, figure 1 and eq. 3.

    >>> reliability(np.log([[0.75, 0.25], [0.75, 0.25]]), [0, 1], bins=2).to_dict()
    {'count': [0, 2], 'confidence': [None, 0.75], 'accuracy': [None, 0.5]}
    """
    log_p = check_log_proba(log_proba)
    correct, confidence = top_label(log_p, check_labels(y, *log_p.shape))
    bins = check_bins(bins)
    index = np.ceil((confidence - EDGE_TOLERANCE) * bins).astype(np.int64) - 1
    return binned(correct, confidence, np.clip(index, 0, bins - 1), bins)


def top_label(log_p: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Whether each example's likeliest class is its label, bool [B], and its probability."""
    return log_p.argmax(-1) == labels, np.minimum(np.exp(log_p.max(-1)), 1.0)


def binned(
    correct: np.ndarray, confidence: np.ndarray, index: np.ndarray, bins: int
) -> Reliability:
    """The diagram of examples that are in the bins `index`, int [B] in 0 ... bins - 1."""
    count = np.bincount(index, minlength=bins)
    sums = (np.bincount(index, weights=values, minlength=bins) for values in (confidence, correct))
    confidences, accuracies = (
        np.divide(total, count, out=np.full(bins, np.nan), where=count > 0) for total in sums
    )
    return Reliability(tuple(count.tolist()), numbers(confidences), numbers(accuracies))


def numbers(values: np.ndarray) -> tuple[float, ...]:
    """Python floats with one nan object, so that tuples of equal numbers are equal."""
    return tuple(math.nan if math.isnan(value) else value for value in values.tolist())
