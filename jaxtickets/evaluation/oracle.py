"""Diversity measures of which examples the members have right and wrong.

The five measures over pairs of members that ask which of the two was right.

They are of an *oracle*'s outputs, true where a member is right. With N11 the share of examples on
which both are right, N10 and N01 those on which only the first or only the second is, and N00 on
which neither is:

    Q   = (N11 N00 - N01 N10) / (N11 N00 + N01 N10)      lower is more diverse
    R   = (N01 + N10) / N00                              higher is
    ND  = -N00                                           higher is
    D   = N01 + N10                                      higher is
    C   = (N11 N00 - N01 N10) / sqrt((N11 + N10) (N01 + N00) (N11 + N01) (N10 + N00))
                                                         lower is

Where a denominator is 0:

    Q and C   1 where the two are right on the same examples, -1 where one is right exactly where
              the other is wrong, the values that pairs with other than constant outputs have
              there. Otherwise 0: one of the two is always right, or always wrong, and a constant
              says nothing about the other. (Q also has -1 or 1 where only one of the products is
              0, which is no 0 / 0.)
    R         0 where the two are always both right (no error differs); inf where they are never
              wrong together and differ, which is what it grows to.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import ArrayLike

from jaxtickets.errors import EvaluationError
from jaxtickets.evaluation.checks import check_labels, check_predictions, numbers
from jaxtickets.evaluation.pairs import pair_mean


@dataclasses.dataclass(frozen=True)
class OracleDiversity:
    """The five oracle measures of diversity, as means over pairs; nan for one member.

    Attributes:
      q: Q statistic, in [-1, 1].
      ratio_errors: ratio of different to coincident errors, 0 or more; inf as soon as one pair is
        never wrong together.
      negative_double_fault: minus the share of examples on which both are wrong, in [-1, 0].
      disagreement: share of examples on which exactly one is right, in [0, 1].
      correlation: of right and wrong, in [-1, 1].
    """

    q: float
    ratio_errors: float
    negative_double_fault: float
    disagreement: float
    correlation: float

    def to_dict(self) -> dict[str, float]:
        """The five measures as plain floats by name."""
        return dataclasses.asdict(self)


def oracle_outputs(member_proba: ArrayLike, y: ArrayLike) -> np.ndarray:
    """Which examples each member has right.

    Args:
      member_proba: probabilities [M, B, C]. Equal probabilities: the lowest class is predicted.
      y: integer labels [B].

    Returns:
      bool [M, B].

    Raises:
      EvaluationError: no probabilities, or labels that do not fit them.

    >>> oracle_outputs([[[0.9, 0.1], [0.4, 0.6]], [[0.3, 0.7], [0.2, 0.8]]], [0, 1]).tolist()
    [[True, True], [False, True]]
    """
    proba = check_predictions(member_proba, leading=1, name="member_proba")
    if proba.ndim == 2:
        raise EvaluationError(
            f"member_proba: got values of the shape {proba.shape}, wanted [M, B, C]: values are not"
            " right or wrong."
        )
    return proba.argmax(-1) == check_labels(y, *proba.shape[1:])


def oracle_matrices(right: ArrayLike) -> dict[str, np.ndarray]:
    """The five measures of every pair of members, by the names of `OracleDiversity`.

    Args:
      right: bool [M, B], true where member m is right on example b.

    Returns:
      float64 [M, M] each, symmetric. The diagonal is of a member and itself: Q, C = 1; R, D = 0; ND
        = -error rate.

    Raises:
      EvaluationError: not bool (or 0 and 1) [M, B], or nothing in it.

    >>> right = [[True, True, False, False], [True, False, True, False]]
    >>> oracle_matrices(right)["disagreement"].tolist()
    [[0.0, 0.5], [0.5, 0.0]]
    """
    outputs = numbers(right, "right", "bool [M, B]")
    if outputs.ndim != 2 or not outputs.size:
        raise EvaluationError(
            f"right: got shape {outputs.shape}, wanted [M, B], at least one of each axis."
        )
    if outputs.dtype != bool and not np.isin(outputs, (0, 1)).all():
        raise EvaluationError(
            f"right: got {outputs.dtype} from {outputs.min()} to {outputs.max()}, wanted bool:"
            " predicted == y."
        )
    hits = (outputs == 1).astype(np.float64)  # counts below 2^53 are exact
    n11, n10 = hits @ hits.T, hits @ (1 - hits).T
    n01, n00 = n10.T, (1 - hits) @ (1 - hits).T
    agreement, disagreement = n11 * n00, n01 * n10
    spread = (n11 + n10) * (n01 + n00) * (n11 + n01) * (n10 + n00)
    undefined = np.where(n01 + n10 == 0, 1.0, np.where(n11 + n00 == 0, -1.0, 0.0))
    total = outputs.shape[1]
    return {
        "q": _divide(agreement - disagreement, agreement + disagreement, undefined),
        "ratio_errors": _divide(n01 + n10, n00, np.where(n01 + n10 == 0, 0.0, np.inf)),
        "negative_double_fault": 0.0 - n00 / total,
        "disagreement": (n01 + n10) / total,
        "correlation": _divide(agreement - disagreement, np.sqrt(spread), undefined),
    }


def oracle_diversity(right: ArrayLike) -> OracleDiversity:
    """The five measures of table 2 of the Multi-Ticket paper: means over the pairs of members.

    Args:
      right: bool [M, B], true where member m is right on example b; see `oracle_outputs`.

    Returns:
      An `OracleDiversity`. Values for denominators of 0 are those of the module.

    Raises:
      EvaluationError: as `oracle_matrices`.

    References:
      Kuncheva and Whitaker 2003, Measures of diversity in classifier ensembles, table 1 (Q, C, D);
      Aksela 2003 (R); Giacinto and Roli 2001 (double fault); Kobayashi et al. 2022,
      arXiv:2205.11833, section 4.2.

    Differs:
      DESlib divides by 0, or by the largest float, where this module defines a value. This
      disagreement is not `prediction_disagreement`, which asks whether predicted labels differ,
      right or wrong.

    >>> oracle_diversity([[1, 1, 1, 0], [1, 1, 0, 0]]).q
    1.0
    """
    return OracleDiversity(
        **{name: pair_mean(matrix) for name, matrix in oracle_matrices(right).items()}
    )


def _divide(numerator: np.ndarray, denominator: np.ndarray, undefined: np.ndarray) -> np.ndarray:
    return np.where(
        denominator == 0, undefined, numerator / np.where(denominator == 0, 1.0, denominator)
    )
