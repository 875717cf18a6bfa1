"""What predictions, labels and bins must look like before anything is measured on them."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np

SUM_TOLERANCE = 1e-3
"""How far the probabilities of one example may sum from 1. float32 log-softmaxes are about 1e-6 off."""


class EvaluationError(ValueError):
    """Predictions, labels or masks that cannot be evaluated. Names the argument, what it got and what it wanted."""


def check_log_proba(log_proba: Any, ndim: int = 2, name: str = "log_proba") -> np.ndarray:
    """Log-probabilities as float64 on the host.

    Args:
      log_proba: [B, C] (`ndim=2`) or [M, B, C] (`ndim=3`), any float dtype; exactly -inf means probability 0.
      ndim: how many axes are wanted.
      name: what an error calls the argument.

    Returns:
      The same numbers, float64.

    Raises:
      EvaluationError: another number of axes; no member, example or class; NaN; probabilities of one example that do
        not sum to 1 within `SUM_TOLERANCE`.
    """
    axes = "[B, C]" if ndim == 2 else "[M, B, C]"
    try:
        array = np.asarray(log_proba, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise EvaluationError(f"{name}: got {type(log_proba).__name__}, wanted numbers {axes} ({error}).") from error
    if array.ndim != ndim:
        raise EvaluationError(f"{name}: got shape {array.shape}, wanted {axes}.")
    if array.size == 0:
        raise EvaluationError(f"{name}: got shape {array.shape}, wanted at least one of each axis of {axes}.")
    if nans := int(np.count_nonzero(np.isnan(array).any(-1))):
        raise EvaluationError(
            f"{name}: got NaN in {nans} of {array.size // array.shape[-1]} predictions, wanted numbers. Usual cause: training diverged."
        )
    with np.errstate(over="ignore"):
        sums = np.exp(array).sum(-1)
    worst = sums.flat[int(np.argmax(np.abs(sums - 1)))]
    if not abs(worst - 1) <= SUM_TOLERANCE:
        looks_like_proba = bool((array >= 0).all() and np.allclose(array.sum(-1), 1, atol=SUM_TOLERANCE))
        fix = "These are probabilities: give as_log_proba(proba)." if looks_like_proba else "Give log_softmax(logits), computed in float32."
        raise EvaluationError(f"{name}: got exp({name}) that sums to {worst:.6g}, wanted 1 within {SUM_TOLERANCE:g}. {fix}")
    return array


def check_predictions(predictions: Any, leading: int = 0, name: str = "predictions") -> np.ndarray:
    """Probabilities with a class axis, or predicted values without one, as float64 on the host.

    Args:
      predictions: probabilities [..., B, C] or values [..., B], with `leading` axes before B.
      leading: how many: 0 for one predictor, 1 for several.
      name: what an error calls the argument.

    Returns:
      The same numbers, float64, contiguous.

    Raises:
      EvaluationError: another number of axes, nothing in it, NaN or infinity, one class only; with a class axis,
        numbers that are no probabilities.
    """
    before = "M, " * leading
    axes = f"probabilities [{before}B, C], or values [{before}B] of a regression"
    try:
        array = np.ascontiguousarray(predictions, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise EvaluationError(f"{name}: got {type(predictions).__name__}, wanted {axes} ({error}).") from error
    if array.ndim not in (leading + 1, leading + 2) or np.ndim(predictions) == 0 or array.size == 0:
        raise EvaluationError(f"{name}: got shape {np.shape(predictions)}, wanted {axes}, at least one of each axis.")
    if lost := int(np.count_nonzero(~np.isfinite(array))):
        raise EvaluationError(f"{name}: got {lost} numbers that are NaN or infinite, wanted {axes}.")
    if array.ndim == leading + 2:
        if array.shape[-1] < 2:
            raise EvaluationError(f"{name}: got shape {array.shape} with one class, wanted {axes}. Of a regression give {name}[..., 0].")
        sums = array.sum(-1)
        if (array < 0).any() or np.abs(sums - 1).max() > SUM_TOLERANCE:
            fix = "These are log-probabilities: give np.exp of them." if (array <= 0).all() else "Give the softmax of logits."
            raise EvaluationError(f"{name}: got numbers from {array.min():.4g} to {array.max():.4g}, wanted probabilities. {fix}")
    return array


def check_values(y: Any, examples: int, name: str = "y") -> np.ndarray:
    """Targets of a regression as float64 on the host.

    Args:
      y: finite numbers [B].
      examples: B.
      name: what an error calls the argument.

    Returns:
      float64 [B].

    Raises:
      EvaluationError: another shape, not numbers, NaN or infinity.
    """
    try:
        values = np.asarray(y, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise EvaluationError(f"{name}: got {type(y).__name__}, wanted numbers [B] ({error}).") from error
    if values.shape != (examples,):
        raise EvaluationError(f"{name}: got shape {values.shape}, wanted one number for each prediction, {(examples,)}.")
    if not np.isfinite(values).all():
        raise EvaluationError(f"{name}: got NaN or infinity, wanted numbers.")
    return values


def check_labels(y: Any, examples: int, classes: int, name: str = "y") -> np.ndarray:
    """Labels as int64 on the host.

    Args:
      y: integers [B] in 0 ... C - 1.
      examples: B.
      classes: C.
      name: what an error calls the argument.

    Returns:
      int64 [B].

    Raises:
      EvaluationError: not integers, not [B], or out of range.
    """
    labels = np.asarray(y)
    if labels.shape != (examples,):
        fix = " Give y.argmax(-1) of one-hot labels." if labels.shape == (examples, classes) else ""
        raise EvaluationError(f"{name}: got shape {labels.shape}, wanted one label for each prediction, {(examples,)}.{fix}")
    if labels.dtype.kind not in "iu":
        raise EvaluationError(f"{name}: got dtype {labels.dtype}, wanted integers. Regression is not evaluated here.")
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= classes:
        raise EvaluationError(
            f"{name}: got labels from {low} to {high}, wanted 0 to {classes - 1}, as the predictions have {classes} classes."
        )
    return labels.astype(np.int64)


def check_bins(bins: Any) -> int:
    """The number of calibration bins: an integer of 1 or more.

    Raises:
      EvaluationError: anything else.
    """
    try:
        number = operator.index(bins)
    except TypeError:
        number = 0
    if number < 1:
        raise EvaluationError(f"bins: got {bins!r}, wanted an integer of 1 or more.")
    return number
