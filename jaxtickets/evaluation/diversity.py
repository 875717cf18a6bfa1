"""How much the members of an ensemble differ in what they predict.

In their labels and their probabilities.

Each measure has a matrix [M, M] over pairs of members, and its mean over the pairs of *different*
members. The mean of one member is nan: there is no pair.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
from numpy.typing import ArrayLike

from jaxtickets.evaluation.checks import check_labels, check_log_proba
from jaxtickets.evaluation.metrics import class_mean
from jaxtickets.evaluation.pairs import pair_mean

LOG_FLOOR = math.log(np.finfo(np.float32).tiny)
"""Log-probabilities below this, the smallest normal float32, are clipped to it in the KL."""

_ROWS = 4096  # examples at a time, to bound the memory of the pairs


def disagreement_matrix(member_log_proba: ArrayLike) -> np.ndarray:
    """Share of examples on which two members predict different labels.

    Args:
      member_log_proba: log-probabilities [M, B, C].

    Returns:
      float64 [M, M] in [0, 1]: symmetric, 0 on the diagonal.

    Raises:
      EvaluationError: wrong shape, nothing in it, NaN, probabilities that do not sum to 1.

    >>> a, b = np.log([[0.9, 0.1], [0.8, 0.2]]), np.log([[0.7, 0.3], [0.4, 0.6]])
    >>> disagreement_matrix([a, b]).tolist()
    [[0.0, 0.5], [0.5, 0.0]]
    """
    labels = check_log_proba(member_log_proba, ndim=3, name="member_log_proba").argmax(-1)
    return np.stack([np.mean(labels != member_labels, axis=-1) for member_labels in labels])


def prediction_disagreement(member_log_proba: ArrayLike) -> float:
    """FreeTickets' prediction disagreement: share of different labels, mean over pairs.

    It does not ask which label is right, so it is another measure than the "disagreement" of
    right/wrong outputs.

    Args:
      member_log_proba: log-probabilities [M, B, C].

    Returns:
      In [0, 1]; nan for one member.

    Raises:
      EvaluationError: as `disagreement_matrix`.

    References:
      Liu et al. 2022, arXiv:2106.14568; Fort et al. 2019, arXiv:1912.02757.

    Differs:
      The FreeTickets code adds 0.001 to every entry of its matrix that is not 0 (so that its heat
      map shows them) and
      averages over those entries only: its number is 0.001 higher, and pairs that agree everywhere
        are left out.

    >>> a, b = np.log([[0.9, 0.1], [0.8, 0.2]]), np.log([[0.7, 0.3], [0.4, 0.6]])
    >>> prediction_disagreement([a, b])
    0.5
    """
    return pair_mean(disagreement_matrix(member_log_proba))


def class_disagreement(member_log_proba: ArrayLike, y: ArrayLike) -> np.ndarray:
    """Prediction disagreement on each class's examples: which classes members differ about.

    Args:
      member_log_proba: log-probabilities [M, B, C].
      y: integer labels [B].

    Returns:
      float64 [C] in [0, 1]: mean over pairs of members, and over the examples of the class. nan for
        a class without
      examples, and throughout for one member. Weighted by the classes' examples they average to
      `prediction_disagreement`.

    Raises:
      EvaluationError: as `disagreement_matrix`, and for labels that do not fit.

    References:
      Liu et al. 2022, arXiv:2106.14568, appendix G, table 7.

    >>> a, b = np.log([[0.9, 0.1], [0.8, 0.2]]), np.log([[0.7, 0.3], [0.4, 0.6]])
    >>> class_disagreement([a, b], [0, 1]).tolist()
    [0.0, 1.0]
    """
    predicted = check_log_proba(member_log_proba, ndim=3, name="member_log_proba")
    members, examples, classes = predicted.shape
    labels = check_labels(y, examples, classes)
    if members == 1:
        return np.full(classes, np.nan)
    cells = predicted.argmax(-1) + classes * np.arange(examples)
    votes = np.bincount(cells.ravel(), minlength=examples * classes).reshape(examples, classes)
    agreeing = (votes * (votes - 1)).sum(-1)  # ordered pairs
    return class_mean(1 - agreeing / (members * (members - 1)), labels, classes)


def kl_matrix(member_log_proba: ArrayLike) -> np.ndarray:
    """KL divergence from member i to member j, in nats, averaged over examples.

    Entry (i, j) is mean over b of sum over c of p_i (log p_i - log p_j), where terms with p_i = 0
    are 0. Each distribution is first normalised to sum to exactly 1, then logs are clipped at
    `LOG_FLOOR`, so that a p_j of exactly 0 gives a finite number (at most 87.4) and not inf. No
    probability that a normal float32 holds is touched.

    Args:
      member_log_proba: log-probabilities [M, B, C].

    Returns:
      float64 [M, M], not symmetric, 0 on the diagonal.

    Raises:
      EvaluationError: wrong shape, nothing in it, NaN, probabilities that do not sum to 1.

    >>> kl_matrix(np.log([[[0.5, 0.5]], [[0.9, 0.1]]])).round(4).tolist()
    [[0.0, 0.5108], [0.3681, 0.0]]
    """
    members = check_log_proba(member_log_proba, ndim=3, name="member_log_proba")
    count, examples, _ = members.shape
    total = np.zeros((count, count))
    for start in range(0, examples, _ROWS):
        log_p = members[:, start : start + _ROWS]
        log_p = log_p - np.log(np.exp(log_p).sum(-1, keepdims=True))
        p, log_p = np.exp(log_p), np.maximum(log_p, LOG_FLOOR)
        for i, j in itertools.permutations(range(count), 2):
            total[i, j] += np.sum(p[i] * (log_p[i] - log_p[j]))
    return np.maximum(total / examples, 0.0)  # rounding may go 1e-16 below


def pairwise_kl(member_log_proba: ArrayLike) -> float:
    """Mean KL divergence over ordered pairs of members, in nats: both directions, averaged.

    Args:
      member_log_proba: log-probabilities [M, B, C].

    Returns:
      0 or more; nan for one member. Finite where probabilities are exactly 0: see `kl_matrix`.

    Raises:
      EvaluationError: as `kl_matrix`.

    References:
      Liu et al. 2022, arXiv:2106.14568.

    Differs:
      The FreeTickets code takes the six ordered pairs of exactly three members; here all pairs of
      any number.

    >>> round(pairwise_kl(np.log([[[0.5, 0.5]], [[0.9, 0.1]]])), 4)
    0.4394
    """
    return pair_mean(kl_matrix(member_log_proba))
