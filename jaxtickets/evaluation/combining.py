"""Combines the predictions of an ensemble's members into one."""

from __future__ import annotations

from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike

from jaxtickets.errors import EvaluationError
from jaxtickets.evaluation.checks import check_log_proba
from jaxtickets.evaluation.metrics import as_log_proba, mean_log_proba

Combine = Literal["proba", "logits", "vote"]

# by this share a class that loses a tie of votes has less: far below what a score shows, far above
# rounding
_LESS = 1e-12


def combine(member_log_proba: ArrayLike, how: Combine = "proba") -> np.ndarray:
    """The ensemble's prediction, combined from those of its members.

    "proba": the mean of the members' probabilities (`mean_log_proba`), which is what ensembles of
    this library predict.

    "logits": softmax of the mean of the members' logits. A member's logits are its
    log-probabilities plus a number per example that is the same for all classes, and so are their
    means; softmax does not see such a number. So the mean of log-probabilities, normalised, is
    exactly it, whatever the logits were: a geometric mean of the probabilities. Where members give
    a class probability exactly 0 it is the limit of equally small numbers in place of the zeros:
    only classes that the fewest members rule out have any, in the ratio that the other members say.

    "vote": p(c) is the share of members whose most probable class is c (of equal ones the lowest).
    Of classes with equally many votes the one with the larger mean probability wins, and of those
    the lowest: the others' shares are smaller by 1e-12 of themselves, which only argmax sees. A
    label without a vote makes the NLL infinite.

    Args:
      member_log_proba: log-probabilities [M, B, C].
      how: "proba", "logits" or "vote".

    Returns:
      Log-probabilities [B, C], float64.

    Raises:
      EvaluationError: another `how`; predictions of a wrong shape, nothing in them, NaN,
        probabilities that do not sum to 1 within 1e-3.

    >>> members = np.log([[[0.9, 0.1]], [[0.4, 0.6]], [[0.4, 0.6]]])
    >>> [np.exp(combine(members, how)).round(3).tolist() for how in ("proba", "logits", "vote")]
    [[[0.567, 0.433]], [[0.614, 0.386]], [[0.333, 0.667]]]
    """
    check_combine(how)
    members = check_log_proba(member_log_proba, ndim=3, name="member_log_proba")
    return {"proba": mean_log_proba, "logits": _mean_of_logits, "vote": _vote}[how](members)


def check_combine(how: Any) -> Combine:
    """The name of a way to combine members, checked.

    Raises:
      EvaluationError: anything else.
    """
    if how not in get_args(Combine):
        raise EvaluationError(
            f"combine: got {how!r}, wanted one of {', '.join(map(repr, get_args(Combine)))}."
        )
    return how


def _mean_of_logits(members: np.ndarray) -> np.ndarray:
    zeros = np.isneginf(members)
    refused = zeros.sum(0)
    mean = np.where(zeros, 0.0, members).sum(0) / len(members)
    mean[refused > refused.min(-1, keepdims=True)] = -np.inf
    mean -= mean.max(-1, keepdims=True)
    return mean - np.log(np.exp(mean).sum(-1, keepdims=True))


def _vote(members: np.ndarray) -> np.ndarray:
    count, examples, classes = members.shape
    cells = members.argmax(-1) + classes * np.arange(examples)
    votes = np.bincount(cells.ravel(), minlength=examples * classes).reshape(examples, classes)
    tied = votes == votes.max(-1, keepdims=True)
    winner = np.where(tied, mean_log_proba(members), -np.inf).argmax(-1)
    losers = tied & (np.arange(classes) != winner[:, None])
    return as_log_proba(np.where(losers, (1 - _LESS) * votes, votes) / count)
