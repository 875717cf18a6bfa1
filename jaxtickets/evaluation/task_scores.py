"""The scores that GLUE's tasks are judged by, of predicted labels or values.

Everything is computed in float64 on the host and returns a Python float. `glue_score` takes what an
ensemble predicts and gives what the papers tabulate, as shares and not in per cent.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from jaxtickets.errors import EvaluationError
from jaxtickets.evaluation.checks import check_labels, check_predictions, check_values, numbers

GLUE_METRICS: dict[str, tuple[str, ...]] = {
    "cola": ("matthews", "accuracy"),
    "sst2": ("accuracy",),
    "mrpc": ("accuracy", "f1"),
    "stsb": ("pearson", "spearman"),
    "qqp": ("accuracy", "f1"),
    "mnli": ("accuracy",),
    "qnli": ("accuracy",),
    "rte": ("accuracy",),
    "wnli": ("accuracy",),
}
"""The metrics of each task; the first is the one that the papers tabulate."""


def f1(predicted: ArrayLike, y: ArrayLike, positive: int = 1) -> float:
    """F1 of one class against the rest.

    2 TP / (2 TP + FP + FN), the harmonic mean of precision and recall.

    Args:
      predicted: integer labels [B].
      y: integer labels [B].
      positive: the class that is looked for; of MRPC and QQP 1, the paraphrases.

    Returns:
      In [0, 1]; 0 where the class is neither predicted nor there (0 / 0), as scikit-learn has it.

    Raises:
      EvaluationError: not two rows of integers of equal length, or none.

    >>> f1([1, 1, 0, 0], [1, 0, 1, 0])
    0.5
    """
    guess, labels = _pair(predicted, y)
    hits = int(np.count_nonzero((guess == positive) & (labels == positive)))
    total = int(np.count_nonzero(guess == positive)) + int(np.count_nonzero(labels == positive))
    return 2 * hits / total if total else 0.0


def matthews(predicted: ArrayLike, y: ArrayLike) -> float:
    """Matthews' correlation of predicted and true labels; of more classes Gorodkin's R_K.

    For two classes (TP TN - FP FN) / sqrt((TP + FP) (TP + FN) (TN + FP) (TN + FN)).

    Args:
      predicted: integer labels [B], 0 or more.
      y: integer labels [B], 0 or more.

    Returns:
      In [-1, 1]; 0 where one class is always predicted, or is all there is (0 / 0), as scikit-learn
      has it.

    Raises:
      EvaluationError: not two rows of integers of equal length, or none.

    References:
      Matthews 1975; Gorodkin 2004, Comparing two K-category assignments by a K-category correlation
      coefficient, eq. 8.

    >>> round(matthews([1, 1, 0, 0], [1, 1, 1, 0]), 6)
    0.57735
    """
    guess, labels = _pair(predicted, y)
    classes = int(max(guess.max(), labels.max())) + 1
    # Products of counts as Python integers: four of them overflow 64 bits from 65,536 examples on.
    predictions, truths = (
        list(map(int, np.bincount(values, minlength=classes))) for values in (guess, labels)
    )
    total, hits = len(labels), int(np.count_nonzero(guess == labels))
    covariance = hits * total - sum(p * t for p, t in zip(predictions, truths, strict=True))
    spread = (total**2 - sum(p * p for p in predictions)) * (total**2 - sum(t * t for t in truths))
    return covariance / spread**0.5 if spread else 0.0


def pearson(values: ArrayLike, y: ArrayLike) -> float:
    """Pearson's correlation of predicted values and targets.

    Args:
      values: numbers [B].
      y: numbers [B].

    Returns:
      In [-1, 1]; nan where all values, or all targets, are equal: a constant has no correlation
      with anything.

    Raises:
      EvaluationError: not two rows of finite numbers of equal length, or none.

    >>> round(pearson([1.0, 2.0, 4.0], [1.0, 3.0, 4.0]), 6)
    0.928571
    """
    from scipy import stats

    x, targets = _pair_of_values(values, y)
    if is_constant(x) or is_constant(targets):
        return float("nan")
    result: Any = stats.pearsonr(x, targets)
    return float(result.statistic)


def spearman(values: ArrayLike, y: ArrayLike) -> float:
    """Spearman's rank correlation: Pearson's of the ranks, where ties share the mean of theirs.

    Args:
      values: numbers [B].
      y: numbers [B].

    Returns:
      In [-1, 1]; nan where all values, or all targets, are equal.

    Raises:
      EvaluationError: as `pearson`.

    >>> spearman([1.0, 2.0, 40.0], [0.0, 3.0, 3.5])
    1.0
    """
    from scipy import stats

    x, targets = _pair_of_values(values, y)
    if is_constant(x) or is_constant(targets):
        return float("nan")
    result: Any = stats.spearmanr(x, targets)
    return float(result.statistic)


def glue_score(task: str, predictions: ArrayLike, y: ArrayLike) -> dict[str, float]:
    """The scores that a task of GLUE is judged by, of a network or an ensemble's mean.

    Args:
      task: a name of `GLUE_METRICS`, also as data sets are called: "glue/mrpc", "glue/mnli-mm".
      predictions: probabilities [B, C]; of STS-B predicted scores [B]. Equal probabilities: the
        lowest class.
      y: integer labels [B]; of STS-B scores [B].

    Returns:
      the scores by name, as shares in [0, 1] or [-1, 1]; the first is the one of the papers'
      tables.

    Raises:
      EvaluationError: an unknown task, predictions that are not of its kind, or that do not fit y.

    References:
      Chen et al. 2020, arXiv:2007.12223, table 1; Kobayashi et al. 2022, arXiv:2205.11833.

    Differs:
      The papers print per cent, and of MRPC and QQP only the accuracy, of STS-B only Pearson's
      correlation.

    >>> glue_score("mrpc", [[0.2, 0.8], [0.4, 0.6], [0.9, 0.1]], [1, 0, 0])
    {'accuracy': 0.6666666666666666, 'f1': 0.6666666666666666}
    """
    name = str(task).removeprefix("glue/").removesuffix("-mm")
    if name not in GLUE_METRICS:
        raise EvaluationError(f"task: got {task!r}, wanted one of {', '.join(GLUE_METRICS)}.")
    return {
        metric: score_function(metric)(np.asarray(predictions), np.asarray(y))
        for metric in GLUE_METRICS[name]
    }


def score_function(
    score: str | Callable[[np.ndarray, np.ndarray], float],
) -> Callable[[np.ndarray, np.ndarray], float]:
    """A score of predictions by its name; a function is returned as it is.

    Args:
      score: "accuracy", "f1", "matthews" (of probabilities [B, C]), "pearson", "spearman" (of
        values [B]), or a function `(predictions, y) -> float`.

    Returns:
      the function `(predictions, y) -> float`.

    Raises:
      EvaluationError: another name. The function raises it for predictions of another kind, or that
        do not fit y.
    """
    if callable(score):
        return score
    if score in _OF_LABELS:
        return lambda predictions, y: _of_labels(str(score), predictions, y)
    if score in _OF_VALUES:
        return lambda predictions, y: _of_values(str(score), predictions, y)
    raise EvaluationError(
        f"score: got {score!r}, wanted one of {', '.join((*_OF_LABELS, *_OF_VALUES))}, or a"
        " function of predictions and y."
    )


def _accuracy(guess: np.ndarray, labels: np.ndarray) -> float:
    return float(np.mean(guess == labels))


_OF_LABELS: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "accuracy": _accuracy,
    "f1": f1,
    "matthews": matthews,
}
_OF_VALUES: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "pearson": pearson,
    "spearman": spearman,
}


def _of_labels(score: str, predictions: ArrayLike, y: ArrayLike) -> float:
    proba = check_predictions(predictions)
    if proba.ndim == 1:
        raise EvaluationError(
            f"predictions: got values of the shape {proba.shape}, wanted probabilities [B, C] for"
            f" {score}."
        )
    if score == "f1" and proba.shape[1] != 2:
        raise EvaluationError(
            f"predictions: got {proba.shape[1]} classes, wanted 2: F1 is of one class against"
            " another."
        )
    return _OF_LABELS[score](proba.argmax(-1), check_labels(y, *proba.shape))


def _of_values(score: str, predictions: ArrayLike, y: ArrayLike) -> float:
    values = check_predictions(predictions)
    if values.ndim == 2:
        raise EvaluationError(
            f"predictions: got probabilities of the shape {values.shape}, wanted values [B] for"
            f" {score}."
        )
    return _OF_VALUES[score](values, check_values(y, len(values)))


def _pair(predicted: ArrayLike, y: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    guess, labels = numbers(predicted, "predicted", "labels [B]"), numbers(y, "y", "labels [B]")
    if guess.ndim != 1 or guess.shape != labels.shape or not len(guess):
        raise EvaluationError(
            f"predicted and y: got the shapes {guess.shape} and {labels.shape}, wanted two rows of"
            " labels [B]."
        )
    for name, values in (("predicted", guess), ("y", labels)):
        if values.dtype.kind not in "biu" or values.min() < 0:
            raise EvaluationError(
                f"{name}: got {values.dtype} from {values.min()}, wanted integers, 0 or more. Give"
                " proba.argmax(-1)."
            )
    return guess.astype(np.int64), labels.astype(np.int64)


def _pair_of_values(values: ArrayLike, y: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    x = numbers(values, "values", "numbers [B]")
    x = check_values(x, x.size, name="values")
    if not len(x):
        raise EvaluationError("values: got none, wanted at least one.")
    return x, check_values(y, len(x))


def is_constant(x: np.ndarray) -> bool:
    """Whether all numbers are equal: it then has no correlation with anything."""
    return x.min() == x.max()
