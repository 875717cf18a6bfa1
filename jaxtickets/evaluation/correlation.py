"""Whether ensembles of better members are better: correlation over runs."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from jaxtickets.errors import EvaluationError
from jaxtickets.evaluation.checks import check_values
from jaxtickets.evaluation.task_scores import is_constant


@dataclasses.dataclass(frozen=True)
class AccuracyCorrelation:
    """Correlation of the members' mean accuracy and the ensemble's.

    Attributes:
      pearson: of the accuracies, in [-1, 1]; nan where all runs have the same.
      pearson_pvalue: of a correlation that far from 0 in either direction, were both normal and
        independent.
      spearman: of their ranks.
      spearman_pvalue: the same by Student's t with n - 2 degrees, an approximation that wants some
        ten runs.
      runs: how many, n.
    """

    pearson: float
    pearson_pvalue: float
    spearman: float
    spearman_pvalue: float
    runs: int

    def to_dict(self) -> dict[str, float | int]:
        """The coefficients as plain numbers by name."""
        return dataclasses.asdict(self)


def accuracy_correlation(members_mean: ArrayLike, ensemble: ArrayLike) -> AccuracyCorrelation:
    """Correlation of the members' mean accuracy and the ensemble's over runs.

    Table 8 of FreeTickets.

    p is that of t = r sqrt((n - 2) / (1 - r^2)) with n - 2 degrees of freedom, two-sided; 0 where r
    is 1 or -1.

    Args:
      members_mean: mean accuracy of the members of each run [n].
      ensemble: accuracy of each run's ensemble [n].

    Returns:
      An `AccuracyCorrelation`.

    Raises:
      EvaluationError: fewer than three runs, two rows of unequal length, NaN or infinity.

    References:
      Liu et al. 2022, arXiv:2106.14568, appendix H, table 8.

    >>> result = accuracy_correlation([0.70, 0.72, 0.75, 0.76], [0.74, 0.73, 0.78, 0.80])
    >>> [round(value, 4) for value in (result.pearson, result.pearson_pvalue)]
    [0.9067, 0.0933]
    >>> [round(value, 4) for value in (result.spearman, result.spearman_pvalue)]
    [0.8, 0.2]
    """
    from scipy import stats

    x = check_values(members_mean, np.size(members_mean), name="members_mean")
    y = check_values(ensemble, len(x), name="ensemble")
    if len(x) < 3:
        raise EvaluationError(
            f"members_mean: got {len(x)} runs, wanted 3 or more: through two points there is always"
            " a line."
        )
    if is_constant(x) or is_constant(y):
        return AccuracyCorrelation(math.nan, math.nan, math.nan, math.nan, len(x))
    r: Any = stats.pearsonr(x, y)
    rank: Any = stats.spearmanr(x, y)
    return AccuracyCorrelation(
        float(r.statistic),
        float(r.pvalue),
        float(rank.statistic),
        float(rank.pvalue),
        len(x),
    )
