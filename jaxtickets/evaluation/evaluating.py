"""Evaluates an ensemble in one call: its scores, its members', and how much they differ."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from jaxtickets.errors import EvaluationError
from jaxtickets.evaluation.calibration import Reliability, numbers, reliability
from jaxtickets.evaluation.checks import check_bins, check_labels, check_log_proba
from jaxtickets.evaluation.checks import numbers as as_numbers
from jaxtickets.evaluation.combining import Combine, check_combine
from jaxtickets.evaluation.combining import combine as combine_members
from jaxtickets.evaluation.diversity import pairwise_kl, prediction_disagreement
from jaxtickets.evaluation.metrics import accuracy, adaptive_ece, brier, class_accuracy, nll
from jaxtickets.evaluation.parameters import comparable, mask_iou
from jaxtickets.evaluation.predicting import Tickets, inputs_and_labels, predict, remembering
from jaxtickets.evaluation.scores import ClassAccuracy, Diversity, Evaluation, Scores
from jaxtickets.evaluation.suite import Metric, check_suite
from jaxtickets.messages.checks import is_int
from jaxtickets.messages.quoting import shown

PyTree = Any


def evaluate(
    tickets: Tickets,
    test: Any,
    *,
    bins: int = 15,
    batch_size: int | None = None,
    combine: Combine = "proba",
    suite: Sequence[str | Metric] | str | Metric = (),
) -> Evaluation:
    """Scores and diversity of an ensemble on a test set, and whatever else a suite asks.

        evaluate(tickets, test, suite=["diversity", OutOfDistribution({"svhn": svhn})])

    Args:
      tickets: an ensemble: has `member_log_proba(x, batch_size=...)` that gives [M, B, C], and
        `masks`, M mask trees (M / H where it has `heads`, H > 1).
      test: a `Dataset` (anything with `x` and `y`), which the ensemble prepares as it was told to;
        an `EvaluationStream` (anything with `in_order` and `y`), read once; or a pair `(x, y)` of
        inputs and integer labels [B]. If `test.classes` is there and not None, every member's
        predictions are restricted to those classes (`restrict`) before anything is measured.
      bins: bins of the expected calibration errors.
      batch_size: examples predicted at a time; None leaves it to the ensemble. It changes memory,
        not the result.
      combine: how members' predictions become the ensemble's: "proba", "logits" or "vote" (see
        `combine`).
      suite: more to measure, each a `Metric` or the name of one that needs nothing but the
        tickets and the test set, such as "diversity". Their results are in `Evaluation.parts`.

    Returns:
      An `Evaluation`; print it, or take `to_dict()`.

    Raises:
      EvaluationError: a `test` that is neither; labels or predictions that cannot be evaluated;
        another way to combine; parts that there are not, or that need to be told more. What can be
        seen without predicting is seen before.
    """
    if not hasattr(tickets, "member_log_proba"):
        raise EvaluationError(
            f"tickets: got {tickets!r:.80}, wanted an ensemble, such as fit returns."
        )
    check_bins(bins)
    check_combine(combine)
    parts = check_suite(suite)
    y = as_numbers(inputs_and_labels(test)[1], "y", "integers [B]")
    predictions = predict(tickets, test, batch_size)
    options: dict[str, Any] = {"bins": bins, "combine": combine}
    masks = tickets.masks if comparable(tickets) else None
    clean = evaluate_predictions(
        predictions, y, masks=masks, heads=getattr(tickets, "heads", 1), **options
    )
    with remembering(tickets, test, predictions):
        results = {
            part.name: part(tickets, test, batch_size=batch_size, **options) for part in parts
        }
    return dataclasses.replace(clean, parts=results)


def evaluate_predictions(
    member_log_proba: ArrayLike,
    y: ArrayLike,
    masks: Sequence[PyTree] | None = None,
    bins: int = 15,
    heads: int = 1,
    combine: Combine = "proba",
) -> Evaluation:
    """Scores and diversity of predictions, wherever they come from.

    The ensemble's prediction is the mean of the members' probabilities: its NLL is the NLL of that
    mean, which is never more than the mean of the members' NLLs (Jensen's inequality). `combine`
    makes it another prediction.

    Args:
      member_log_proba: log-probabilities [M, B, C].
      y: integer labels [B].
      masks: M / heads mask trees, or None where there are none.
      bins: bins of the expected calibration errors.
      heads: how many members one network makes; masks are of networks.
      combine: how the members become one: "proba", "logits" or "vote".

    Returns:
      An `Evaluation`.

    Raises:
      EvaluationError: shapes that do not fit, labels out of range, NaN, no examples, probabilities
        that do not sum to 1 within 1e-3, another number of masks than of networks, another way to
        combine.

    >>> predictions = np.log([[[0.9, 0.1], [0.4, 0.6]], [[0.6, 0.4], [0.7, 0.3]]])
    >>> result = evaluate_predictions(predictions, [0, 1])
    >>> accuracies = [member.accuracy for member in result.members]
    >>> accuracies, result.ensemble.accuracy, result.diversity.disagreement
    ([1.0, 0.5], 0.5, 0.5)
    """
    check_combine(combine)
    predictions = check_log_proba(member_log_proba, ndim=3, name="member_log_proba")
    labels = check_labels(y, *predictions.shape[1:])
    bins = check_bins(bins)
    if not is_int(heads) or heads < 1:
        raise EvaluationError(f"heads: got {shown(heads)}, wanted an integer of 1 or more.")
    if masks is not None and not isinstance(masks, Sequence):
        raise EvaluationError(f"masks: got {shown(masks)}, wanted a list of mask trees, or None.")
    if masks is not None and len(masks) * heads != len(predictions):
        expected = f"{len(predictions)} members" + (f" / {heads} heads" if heads > 1 else "")
        raise EvaluationError(f"masks: got {len(masks)}, wanted one for each of {expected}.")
    overlap = float("nan") if masks is None else mask_iou(masks)
    combined = combine_members(predictions, combine)
    scores, diagram = _scores(combined, labels, bins)
    members, diagrams = zip(*(_scores(log_p, labels, bins) for log_p in predictions), strict=True)
    means = {
        field.name: float(np.mean([getattr(m, field.name) for m in members]))
        for field in dataclasses.fields(Scores)
    }
    return Evaluation(
        ensemble=scores,
        members=members,
        mean=Scores(**means),
        diversity=Diversity(
            prediction_disagreement(predictions), pairwise_kl(predictions), overlap
        ),
        bins=bins,
        examples=len(labels),
        combine=combine,
        per_class=_per_class(combined, predictions, labels),
        reliability=diagram,
        members_reliability=diagrams,
    )


def _scores(log_p: np.ndarray, labels: np.ndarray, bins: int) -> tuple[Scores, Reliability]:
    diagram = reliability(log_p, labels, bins)
    prediction = (log_p, labels)
    return (
        Scores(
            accuracy(*prediction),
            nll(*prediction),
            diagram.error,
            adaptive_ece(*prediction, bins),
            brier(*prediction),
        ),
        diagram,
    )


def _per_class(combined: np.ndarray, predictions: np.ndarray, labels: np.ndarray) -> ClassAccuracy:
    ensemble = class_accuracy(combined, labels)
    mean = np.mean([class_accuracy(log_p, labels) for log_p in predictions], axis=0)
    return ClassAccuracy(
        numbers(ensemble), numbers(mean), tuple(np.bincount(labels, minlength=len(mean)).tolist())
    )
