"""Checks of predictions, labels and bins before anything is measured on them."""

from __future__ import annotations

from typing import Any

import numpy as np

from jaxtickets.dataset.conversion import host
from jaxtickets.errors import DataError, EvaluationError
from jaxtickets.messages.checks import LONGEST, is_int
from jaxtickets.messages.quoting import shown

SUM_TOLERANCE = 1e-3
"""How far one example's probabilities may sum from 1; float32 log-softmaxes are 1e-6 off."""


def check_log_proba(log_proba: Any, ndim: int = 2, name: str = "log_proba") -> np.ndarray:
    """Log-probabilities as float64 on the host.

    Args:
      log_proba: [B, C] (`ndim=2`) or [M, B, C] (`ndim=3`), any float dtype; exactly -inf means
        probability 0.
      ndim: how many axes are wanted.
      name: what an error calls the argument.

    Returns:
      The same numbers, float64.

    Raises:
      EvaluationError: another number of axes; no member, example or class; NaN; probabilities of
        one example that do not sum to 1 within `SUM_TOLERANCE`.
    """
    axes = "[B, C]" if ndim == 2 else "[M, B, C]"
    array = numbers(log_proba, name, f"numbers {axes}").astype(np.float64, copy=False)
    if array.ndim != ndim:
        raise EvaluationError(f"{name}: got shape {array.shape}, wanted {axes}.")
    if array.size == 0:
        raise EvaluationError(
            f"{name}: got shape {array.shape}, wanted at least one of each axis of {axes}."
        )
    if nans := int(np.count_nonzero(np.isnan(array).any(-1))):
        nan_places = np.argwhere(np.isnan(array).any(-1))[:5]
        rows = ", ".join(
            f"member {place[0]} row {place[1]}" if ndim == 3 else f"row {place[0]}"
            for place in nan_places.tolist()
        )
        raise EvaluationError(
            f"{name}: got NaN in {nans} of {array.size // array.shape[-1]} predictions, wanted"
            f" numbers. The first: {rows}. Usual causes: NaN, huge or out-of-range inputs (look at"
            " those first), or training that diverged."
        )
    with np.errstate(over="ignore"):
        sums = np.exp(array).sum(-1)
    worst = sums.flat[int(np.argmax(np.abs(sums - 1)))]
    if not abs(worst - 1) <= SUM_TOLERANCE:
        looks_like_proba = bool(
            (array >= 0).all() and np.allclose(array.sum(-1), 1, atol=SUM_TOLERANCE)
        )
        fix = (
            "These are probabilities: give as_log_proba(proba)."
            if looks_like_proba
            else "Give log_softmax(logits), computed in float32."
        )
        raise EvaluationError(
            f"{name}: got exp({name}) that sums to {worst:.6g}, wanted 1 within {SUM_TOLERANCE:g}."
            f" {fix}"
        )
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
      EvaluationError: another number of axes, nothing in it, NaN or infinity, one class only; with
        a class axis, numbers that are no probabilities.
    """
    member_axis = "M, " * leading
    axes = f"probabilities [{member_axis}B, C], or values [{member_axis}B] of a regression"
    values = numbers(predictions, name, axes)
    if values.ndim not in (leading + 1, leading + 2) or values.size == 0:
        raise EvaluationError(
            f"{name}: got shape {values.shape}, wanted {axes}, at least one of each axis."
        )
    array = np.ascontiguousarray(values, dtype=np.float64)
    if invalid := int(np.count_nonzero(~np.isfinite(array))):
        raise EvaluationError(
            f"{name}: got {invalid} numbers that are NaN or infinite, wanted {axes}."
        )
    if array.ndim == leading + 2:
        if array.shape[-1] < 2:
            raise EvaluationError(
                f"{name}: got shape {array.shape} with one class, wanted {axes}. Of a regression"
                f" give {name}[..., 0]."
            )
        sums = array.sum(-1)
        if (array < 0).any() or np.abs(sums - 1).max() > SUM_TOLERANCE:
            fix = (
                "These are log-probabilities: give np.exp of them."
                if (array <= 0).all()
                else "Give the softmax of logits."
            )
            raise EvaluationError(
                f"{name}: got numbers from {array.min():.4g} to {array.max():.4g}, wanted"
                f" probabilities. {fix}"
            )
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
    values = numbers(y, name, "numbers [B]").astype(np.float64)
    if values.shape != (examples,):
        raise EvaluationError(
            f"{name}: got shape {values.shape}, wanted one number for each prediction,"
            f" {(examples,)}."
        )
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
    labels = numbers(y, name, "integers [B]")
    if labels.shape != (examples,):
        fix = " Give y.argmax(-1) of one-hot labels." if labels.shape == (examples, classes) else ""
        fix = " Give y[:, 0]." if labels.shape == (examples, 1) else fix
        raise EvaluationError(
            f"{name}: got shape {labels.shape}, wanted one label for each prediction,"
            f" {(examples,)}.{fix}"
        )
    if labels.dtype.kind not in "iub":
        fix = "Give y.astype(int) if they are labels; regression is not evaluated here."
        raise EvaluationError(f"{name}: got dtype {labels.dtype}, wanted integers. {fix}")
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= classes:
        raise EvaluationError(
            f"{name}: got labels from {low} to {high}, wanted 0 to {classes - 1}, as the"
            f" predictions have {classes} classes."
        )
    return labels.astype(np.int64)


def numbers(value: Any, name: str, wanted: str) -> np.ndarray:
    """An array of numbers or booleans on the host, whichever library's it is.

    Raises:
      EvaluationError: anything else, or values that are missing or masked.
    """
    try:
        return host(value, name)
    except DataError as error:
        raise EvaluationError(
            f"{name}: got {type(value).__name__}, wanted {wanted} ({error})."
        ) from error


def check_bins(bins: Any) -> int:
    """The number of calibration bins, checked: an integer of 1 or more.

    Raises:
      EvaluationError: anything else.
    """
    if not is_int(bins) or not 1 <= bins <= LONGEST:
        raise EvaluationError(f"bins: got {shown(bins)}, wanted an integer of 1 or more.")
    return int(bins)
