"""A paired bootstrap over test examples, for the difference of two schemes.

Would other examples have given the same order of the two?
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from jaxtickets.errors import EvaluationError
from jaxtickets.evaluation.checks import check_labels, check_predictions, check_values
from jaxtickets.evaluation.subsets import Score, from_counts
from jaxtickets.evaluation.task_scores import score_function
from jaxtickets.messages.checks import LONGEST, is_int, is_number
from jaxtickets.messages.quoting import shown

_CELLS = 2**22  # numbers of a block of resamples, 32 MB
# equal scores, averaged over ensembles in another order, differ by less; unequal ones by more
_SAME = 1e-12


@dataclasses.dataclass(frozen=True)
class BootstrapTest:
    """A difference of two scores, and how it varies with the test examples.

    Attributes:
      difference: score of the first minus score of the second, on the examples as they are.
      low: lower end of the percentile interval.
      high: upper end.
      level: the interval's share of resamples.
      pvalue: two-sided: twice the share of resamples whose difference is on the other side of 0, or
        on it.
      resamples: how many.
    """

    difference: float
    low: float
    high: float
    level: float
    pvalue: float
    resamples: int


def paired_bootstrap(
    first: ArrayLike,
    second: ArrayLike,
    y: ArrayLike,
    score: Score = "accuracy",
    *,
    seed: int,
    resamples: int = 10_000,
    level: float = 0.95,
) -> BootstrapTest:
    """Difference of two schemes' mean scores, with examples drawn again, the same ones for both.

    The score of a scheme is the mean of the scores of its ensembles, so sets of overlapping
    ensembles do no harm: it is the examples that are drawn, B of B with replacement. It asks about
    other test examples, not about other seeds.

    Args:
      first: predictions of the first scheme's ensembles: probabilities [K, B, C], or values [K, B],
        such as `subset_means(predictions, 5, groups=2)`; a single one as `prediction[None]`.
      second: of the second scheme's, [L, B, C] or [L, B].
      y: integer labels [B], or values [B].
      score: as in `subset_scores`. Accuracy, and for two classes F1 and Matthews' correlation, and
        Pearson's are computed for all ensembles of a resample at once; "spearman" and functions are
        called resamples * (K + L) times.
      seed: of the drawing; equal seeds draw the same examples.
      resamples: how many times.
      level: of the interval, in (0, 1).

    Returns:
      A `BootstrapTest`. Its p-value is (1 + count) / (1 + resamples), doubled, at most 1: never 0.

    Raises:
      EvaluationError: predictions that do not fit each other or y, a score that is not of their
        kind, or that is not defined on a resample (too few examples); `seed`, `resamples` or
        `level` that cannot be.

    References:
      Efron and Tibshirani 1993, An Introduction to the Bootstrap, sections 13.3 and 16.4.

    >>> a, b = np.full((1, 8, 2), [0.3, 0.7]), np.full((1, 8, 2), [0.6, 0.4])
    >>> result = paired_bootstrap(a, b, np.ones(8, int), seed=0, resamples=99)
    >>> result.difference, result.low, result.high, result.pvalue
    (1.0, 1.0, 1.0, 0.02)
    """
    if not is_int(seed) or seed < 0:
        raise EvaluationError(f"seed: got {shown(seed)}, wanted an integer of 0 or more.")
    if not is_int(resamples) or not 1 <= resamples <= LONGEST:
        raise EvaluationError(
            f"resamples: got {shown(resamples)}, wanted an integer of 1 or more, at most"
            f" {LONGEST:,}."
        )
    if not is_number(level) or not 0 < level < 1:
        raise EvaluationError(f"level: got {shown(level)}, wanted a share in (0, 1), such as 0.95.")
    schemes = [
        check_predictions(predictions, leading=1, name=name)
        for name, predictions in (("first", first), ("second", second))
    ]
    if schemes[0].shape[1:] != schemes[1].shape[1:]:
        raise EvaluationError(
            f"first and second: got the shapes {schemes[0].shape} and {schemes[1].shape}, wanted"
            " the same examples."
        )
    examples = schemes[0].shape[1]
    targets = (
        check_labels(y, *schemes[0].shape[1:])
        if schemes[0].ndim == 3
        else check_values(y, examples)
    )
    function = score_function(score)
    original = [np.mean([function(member, targets) for member in scheme]) for scheme in schemes]
    difference = float(original[0] - original[1])
    scorers = [_resampler(score, scheme, targets) for scheme in schemes]
    rng, resampled = np.random.default_rng(seed), []
    block = max(1, _CELLS // max(examples, max(len(scheme) for scheme in schemes)))
    for start in range(0, resamples, block):
        rows = rng.integers(0, examples, (min(block, resamples - start), examples))
        resampled.append(scorers[0](rows) - scorers[1](rows))
    differences = np.concatenate(resampled)
    undefined = int(np.count_nonzero(np.isnan(differences)))
    if undefined or np.isnan(difference):
        where = (
            "the examples as they are"
            if np.isnan(difference)
            else f"{undefined} of {resamples} resamples"
        )
        raise EvaluationError(
            f"score: {score!r} is not defined on {where}: all predictions or all y are equal there."
        )
    differences[np.abs(differences) < _SAME] = 0.0
    low, high = np.quantile(differences, [(1 - level) / 2, (1 + level) / 2])
    tail = min(np.count_nonzero(differences <= 0), np.count_nonzero(differences >= 0))
    return BootstrapTest(
        difference,
        float(low),
        float(high),
        float(level),
        min(1.0, 2 * (1 + int(tail)) / (1 + resamples)),
        resamples,
    )


def _resampler(
    score: Score, scheme: np.ndarray, y: np.ndarray
) -> Callable[[np.ndarray], np.ndarray]:
    """A function from rows int [R, B] to the scheme's mean score on each of R resamples, [R]."""
    examples = len(y)
    if score == "accuracy":
        right = (scheme.argmax(-1) == y).mean(0)
        return lambda rows: right[rows].mean(1)
    if score in ("f1", "matthews") and scheme.shape[-1] == 2:
        predicted, truth = scheme.argmax(-1).T.astype(np.float64), (y == 1).astype(np.float64)
        hits = predicted * truth[:, None]

        def of_counts(rows: np.ndarray) -> np.ndarray:
            times = _times(rows)
            positives = (times @ truth)[:, None]
            return from_counts(
                str(score), times @ hits, times @ predicted, positives, examples
            ).mean(1)

        return of_counts
    if score == "pearson":
        # Shifted and scaled by what all examples give: the moments of a resample then lose few
        # digits.
        x = (scheme - scheme.mean(1, keepdims=True)).T
        x /= np.where(x.any(0), np.abs(x).max(0), 1.0)
        t = y - y.mean()
        t /= np.abs(t).max() or 1.0

        def of_moments(rows: np.ndarray) -> np.ndarray:
            share = _times(rows) / examples
            mean_x, mean_t = share @ x, (share @ t)[:, None]
            covariance = share @ (x * t[:, None]) - mean_x * mean_t
            spread = (share @ x**2 - mean_x**2) * ((share @ t**2)[:, None] - mean_t**2)
            # rounding of squares of numbers up to 1 leaves 1e-16 of each factor
            defined = spread > 1e-24
            return np.where(
                defined, covariance / np.sqrt(np.where(defined, spread, 1.0)), np.nan
            ).mean(1)

        return of_moments
    function = score_function(score)
    return lambda rows: np.array(
        [np.mean([function(member[row], y[row]) for member in scheme]) for row in rows]
    )


def _times(rows: np.ndarray) -> np.ndarray:
    """How often each example was drawn, float64 [R, B]."""
    count, examples = rows.shape
    flat = rows + examples * np.arange(count)[:, None]
    return (
        np.bincount(flat.ravel(), minlength=count * examples)
        .reshape(count, examples)
        .astype(np.float64)
    )
