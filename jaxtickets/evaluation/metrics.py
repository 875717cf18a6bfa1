"""Scores of predicted probabilities against labels.

Everything takes *log*-probabilities [B, C] and integer labels [B], is computed in float64 on the
host, and returns a Python float. A log-probability of exactly -inf is probability 0. Equal
probabilities: the lowest class is predicted. Functions raise `EvaluationError` on shapes that do
not fit, labels out of range, NaN, no examples, and probabilities that do not sum to 1 within 1e-3.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from jaxtickets.errors import EvaluationError
from jaxtickets.evaluation.calibration import binned, reliability, top_label
from jaxtickets.evaluation.checks import check_bins, check_labels, check_log_proba, numbers


def as_log_proba(proba: ArrayLike) -> np.ndarray:
    """Probabilities as log-probabilities, float64; 0 becomes -inf, without a warning.

    >>> as_log_proba([[1.0, 0.0]]).tolist()
    [[0.0, -inf]]
    """
    with np.errstate(divide="ignore"):
        return np.log(numbers(proba, "proba", "probabilities [..., C]").astype(np.float64))


def mean_log_proba(member_log_proba: ArrayLike) -> np.ndarray:
    """The ensemble's prediction: log of the mean of the members' probabilities.

    log p(c) = logsumexp over m of log p_m(c), minus log M. Nothing underflows that a member's
    log-probability holds.

    Args:
      member_log_proba: log-probabilities [M, B, C].

    Returns:
      Log-probabilities [B, C], float64; -inf where every member says -inf.

    Raises:
      EvaluationError: see the module.

    >>> np.exp(mean_log_proba(as_log_proba([[[1.0, 0.0]], [[0.5, 0.5]]]))).round(9).tolist()
    [[0.75, 0.25]]
    """
    members = check_log_proba(member_log_proba, ndim=3, name="member_log_proba")
    top = members.max(axis=0)
    top = np.where(np.isneginf(top), 0.0, top)
    total = np.zeros_like(top)
    for log_p in members:
        total += np.exp(log_p - top)
    return as_log_proba(total) + top - np.log(len(members))


def restrict(log_proba: ArrayLike, classes: ArrayLike) -> np.ndarray:
    """Predictions of some of the classes: probabilities renormalised over them, in log space.

    log q(k) = log p(classes[k]) - logsumexp over j of log p(classes[j]), which is the log-softmax
    of those logits alone. For data sets that have only K of the C classes a network was trained on,
    such as ImageNet-A. Of an ensemble each member is restricted and the mean taken then, as if the
    members had been predictors of K classes.

    Args:
      log_proba: log-probabilities [..., C].
      classes: int [K], all different, 1 <= K <= C.

    Returns:
      Log-probabilities [..., K], float64.

    Raises:
      EvaluationError: classes that are not such, NaN, or an example that gives all K classes
        probability 0.

    >>> np.exp(restrict(as_log_proba([[0.5, 0.375, 0.125]]), [1, 2])).round(9).tolist()
    [[0.75, 0.25]]
    """
    log_p = numbers(log_proba, "log_proba", "log-probabilities [..., C]").astype(np.float64)
    which = numbers(classes, "classes", "integers [K]")
    if not log_p.ndim:
        raise EvaluationError(
            f"log_proba: got {log_proba!r:.80}, wanted log-probabilities [..., C]."
        )
    total = log_p.shape[-1]
    fits = (
        which.ndim == 1
        and which.size > 0
        and which.dtype.kind in "iu"
        and which.min() >= 0
        and which.max() < total
    )
    if not fits or len(np.unique(which)) < len(which):
        raise EvaluationError(
            f"classes: got {which!r:.80}, wanted different integers in 0 to {total - 1}, one axis"
            " of them."
        )
    chosen_log_p = log_p[..., which]
    top = chosen_log_p.max(-1, keepdims=True)
    if not np.isfinite(top).all():
        undefined = int(np.count_nonzero(~np.isfinite(top)))
        raise EvaluationError(
            f"log_proba: got {undefined} predictions that are NaN or give all {len(which)} classes"
            " probability 0."
        )
    return chosen_log_p - top - np.log(np.exp(chosen_log_p - top).sum(-1, keepdims=True))


def accuracy(log_proba: ArrayLike, y: ArrayLike) -> float:
    """Share of examples whose most probable class is the label, in [0, 1].

    Args:
      log_proba: log-probabilities [B, C].
      y: integer labels [B].

    >>> accuracy(as_log_proba([[0.9, 0.1], [0.8, 0.2]]), [0, 1])
    0.5
    """
    log_p, labels = _checked(log_proba, y)
    return float(np.mean(log_p.argmax(-1) == labels))


def class_accuracy(log_proba: ArrayLike, y: ArrayLike) -> np.ndarray:
    """Accuracy on the examples of each class: the recall of every class.

    Args:
      log_proba: log-probabilities [B, C].
      y: integer labels [B].

    Returns:
      float64 [C], in [0, 1]; nan for a class without examples.

    >>> class_accuracy(as_log_proba([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3]]), [0, 1, 0]).tolist()
    [1.0, 0.0]
    """
    log_p, labels = _checked(log_proba, y)
    return class_mean(log_p.argmax(-1) == labels, labels, log_p.shape[-1])


def class_mean(values: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    """Mean of `values` [B] by class, float64 [C]; nan for a class without examples."""
    count = np.bincount(labels, minlength=classes)
    return np.divide(
        np.bincount(labels, values, classes), count, out=np.full(classes, np.nan), where=count > 0
    )


def nll(log_proba: ArrayLike, y: ArrayLike) -> float:
    """Negative log-likelihood in nats: the mean over examples of -log p(label).

    Args:
      log_proba: log-probabilities [B, C].
      y: integer labels [B].

    Returns:
      0 or more; inf as soon as one label has probability exactly 0.

    Differs:
      Nothing is clipped. scikit-learn's `log_loss` clips probabilities to the dtype's epsilon, so a
      sure mistake costs 36 nats there and inf here.

    >>> round(nll(as_log_proba([[0.5, 0.5], [0.75, 0.25]]), [0, 1]), 6)
    1.039721
    """
    log_p, labels = _checked(log_proba, y)
    return float(-np.mean(log_p[np.arange(len(labels)), labels])) + 0.0  # + 0.0: never a minus zero


def brier(log_proba: ArrayLike, y: ArrayLike) -> float:
    """Brier score: squared error of the probabilities, *summed* over classes, mean over examples.

    mean over b of sum over c of (p_bc - [c = y_b])^2, in [0, 2]: Brier's own definition. For two
    classes it is twice the binary score that looks at one class alone.

    Args:
      log_proba: log-probabilities [B, C].
      y: integer labels [B].

    References:
      Brier 1950, Verification of forecasts expressed in terms of probability.

    >>> round(brier(as_log_proba([[0.75, 0.25]]), [0]), 9)
    0.125
    """
    log_p, labels = _checked(log_proba, y)
    errors = np.exp(log_p)
    errors[np.arange(len(labels)), labels] -= 1
    return float(np.mean(np.sum(errors**2, axis=-1)))


def ece(log_proba: ArrayLike, y: ArrayLike, bins: int = 15) -> float:
    """Expected calibration error of the top label, over bins of equal width.

    sum over k of |B_k| / B * |accuracy(B_k) - confidence(B_k)|, where B_k holds the examples whose
    highest probability lies in ((k - 1) / bins, k / bins]: the mean gap of the diagram of
    `reliability`, which says where edges belong.

    Args:
      log_proba: log-probabilities [B, C].
      y: integer labels [B].
      bins: how many bins of width 1 / bins. State it with the result: the error depends on it.

    Returns:
      In [0, 1].

    References:
      Guo et al. 2017, arXiv:1706.04599, eq. 3.

    Differs:
      The FreeTickets code spans 15 bins by 15 *edges*, `linspace(0, 1, 15)`, which makes 14 bins:
      `ece(..., bins=14)` is its number.

    >>> round(ece(as_log_proba([[0.9, 0.1], [0.8, 0.2]]), [0, 1], bins=15), 9)
    0.45
    """
    return reliability(log_proba, y, bins).error


def adaptive_ece(log_proba: ArrayLike, y: ArrayLike, bins: int = 15) -> float:
    """Expected calibration error of the top label, over bins that hold equally many examples.

    As `ece`, but the right edge of bin k is the confidence of rank ceil(k B / bins). Examples of
    equal confidence share a bin (the lowest that they reach), so the order of the examples does not
    matter; without ties, sizes differ by one at most. With fewer examples than bins each example
    has its own.

    Args:
      log_proba: log-probabilities [B, C].
      y: integer labels [B].
      bins: how many bins. State it with the result.

    Returns:
      In [0, 1].

    References:
      Nguyen and O'Connor 2015, arXiv:1508.05154 (adaptive bins); Mukhoti et al. 2020,
      arXiv:2002.09437 (AdaECE).

    Differs:
      Edges are observed confidences. Mukhoti's code interpolates between them, which moves single
      examples to a neighbouring bin.

    >>> round(adaptive_ece(as_log_proba([[0.9, 0.1], [0.8, 0.2]]), [0, 1], bins=1), 9)
    0.35
    """
    log_p, labels = _checked(log_proba, y)
    bins = check_bins(bins)
    correct, confidence = top_label(log_p, labels)
    ranks = -(-np.arange(1, bins + 1) * len(labels) // bins)  # ceil, in integers
    right_edges = np.sort(confidence)[ranks - 1]
    return binned(
        correct, confidence, np.searchsorted(right_edges, confidence, side="left"), bins
    ).error


def _checked(log_proba: ArrayLike, y: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    log_p = check_log_proba(log_proba)
    return log_p, check_labels(y, *log_p.shape)
