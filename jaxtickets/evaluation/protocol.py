"""The Multi-Ticket paper's protocol: scores of all ensembles of each size, and their tests.

Groups of seeds, all their ensembles, and Student's t-test between schemes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from jaxtickets.errors import EvaluationError
from jaxtickets.evaluation.checks import numbers
from jaxtickets.evaluation.subsets import Groups, Score, subset_scores


@dataclasses.dataclass(frozen=True, eq=False)
class EnsembleGain:
    """The gain of ensembling, averaged over every ensemble there is. Prints as a table.

    Attributes:
      single: mean score of the members.
      ensemble: by size, mean score of the ensembles of that many members.
      gain: by size, `ensemble - single`: the "diff." of the paper.
      single_scores: float64 [G, n], of each member.
      ensemble_scores: by size, float64 [G, C(n, k)], of each ensemble.
    """

    single: float
    ensemble: dict[int, float]
    gain: dict[int, float]
    single_scores: np.ndarray
    ensemble_scores: dict[int, np.ndarray]

    def to_dict(self) -> dict[str, Any]:
        """The means, as JSON takes them: sizes become text."""
        return {
            "single": self.single,
            "ensemble": {str(size): value for size, value in self.ensemble.items()},
            "gain": {str(size): value for size, value in self.gain.items()},
        }

    def __str__(self) -> str:
        groups, members = self.single_scores.shape
        lines = [
            f"{'members':>8} {'ensembles':>10} {'score %':>8} {'gain %':>7}",
            f"{1:>8} {groups * members:>10,} {100 * self.single:>8.2f}",
        ]
        for size, scores in self.ensemble_scores.items():
            lines.append(
                f"{size:>8} {scores.size:>10,} {100 * self.ensemble[size]:>8.2f}"
                f" {100 * self.gain[size]:>+7.2f}"
            )
        return "\n".join(lines)


def ensemble_gain(
    predictions: ArrayLike,
    y: ArrayLike,
    score: Score = "accuracy",
    sizes: Sequence[int] = (2, 3, 4, 5),
    groups: Groups = 2,
) -> EnsembleGain:
    """Mean scores of single members and of all their ensembles.

    Table 1 and figure 3 of the Multi-Ticket paper.

    With the paper's 20 seeds in two groups of ten these are 20 members and 2 C(10, k) ensembles of
    k of them: 90, 240, 420 and 504 for k = 2 to 5.

    Args:
      predictions: probabilities [M, B, C], or values [M, B] of a regression; member m is of seed m.
      y: integer labels [B], or values [B].
      score: as in `subset_scores`.
      sizes: members of an ensemble.
      groups: as in `subset_scores`; by default two of M / 2 consecutive members.

    Returns:
      An `EnsembleGain`.

    Raises:
      EvaluationError: as `subset_scores`.

    References:
      Kobayashi et al. 2022, arXiv:2205.11833, appendix C.

    >>> right, wrong = [0.2, 0.8], [0.6, 0.4]
    >>> predictions = [[right, wrong], [wrong, right], [right, right]]
    >>> result = ensemble_gain(predictions, [1, 1], sizes=(2,), groups=1)
    >>> round(result.single, 4), result.ensemble, round(result.gain[2], 4)
    (0.6667, {2: 1.0}, 0.3333)
    """
    scores = subset_scores(
        predictions, y, (1, *np.atleast_1d(np.asarray(sizes)).tolist()), score, groups
    )
    single = float(scores[1].mean())
    ensemble_scores = {
        size: values for size, values in scores.items() if size in np.atleast_1d(np.asarray(sizes))
    }
    ensemble = {size: float(values.mean()) for size, values in ensemble_scores.items()}
    return EnsembleGain(
        single,
        ensemble,
        {size: value - single for size, value in ensemble.items()},
        scores[1],
        ensemble_scores,
    )


@dataclasses.dataclass(frozen=True)
class TTest:
    """Student's t-test of two samples.

    Attributes:
      statistic: t, positive where the first sample's mean is larger.
      degrees: of freedom, the number of values minus 2.
      pvalue: of means that far apart, in either direction or in the one asked for.
    """

    statistic: float
    degrees: int
    pvalue: float


def student_t(first: ArrayLike, second: ArrayLike, alternative: str = "two-sided") -> TTest:
    """Student's t-test of two schemes' scores, with equal variances.

    The paper marks by it where a scheme's ensembles of five score significantly more than those of
    BASELINE, and of BASE-LT (p < 0.001). It does not say what the samples are or how many sides the
    test has; the scores of all 504 ensembles of each are taken here. Ensembles that share members
    are not independent: 504 scores of 20 members hold far less evidence than the test believes, and
    it does not ask about other test examples, so its p is too small. Print `paired_bootstrap`
    beside it.

    Args:
      first: scores of the first scheme, any shape, two or more: `EnsembleGain.ensemble_scores[5]`.
      second: of the second.
      alternative: "two-sided", or "greater": that the first has the larger mean.

    Returns:
      A `TTest`. Where no value differs from its sample's mean, the statistic is +-inf and p is 0 or
      1; nan if the means are equal as well.

    Raises:
      EvaluationError: fewer than two values, NaN or infinity, another alternative.

    References:
      Student 1908; Kobayashi et al. 2022, arXiv:2205.11833, section 4 and its footnote 3.

    >>> result = student_t([1.0, 2.0, 3.0], [2.0, 3.0, 4.0])
    >>> round(result.statistic, 4), result.degrees, round(result.pvalue, 4)
    (-1.2247, 4, 0.2879)
    """
    from scipy import stats

    if alternative not in ("two-sided", "greater"):
        raise EvaluationError(f"alternative: got {alternative!r}, wanted 'two-sided' or 'greater'.")
    samples = [
        numbers(scores, name, "scores").astype(np.float64).ravel()
        for name, scores in (("first", first), ("second", second))
    ]
    for name, sample in zip(("first", "second"), samples, strict=True):
        if len(sample) < 2 or not np.isfinite(sample).all():
            raise EvaluationError(
                f"{name}: got {len(sample)} scores, {np.isfinite(sample).sum()} finite; wanted two"
                " or more, all finite."
            )
    degrees = sum(map(len, samples)) - 2
    if all(sample.min() == sample.max() for sample in samples):  # SciPy warns of it
        sign = float(np.sign(samples[0][0] - samples[1][0]))
        larger = sign > 0 or alternative == "two-sided"
        p = 0.0 if larger else 1.0
        return TTest(sign * np.inf, degrees, p) if sign else TTest(np.nan, degrees, np.nan)
    result: Any = stats.ttest_ind(*samples, alternative=alternative)
    return TTest(float(result.statistic), degrees, float(result.pvalue))
