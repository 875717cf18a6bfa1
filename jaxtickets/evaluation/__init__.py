"""How good an ensemble is and how much its members differ. Knows predictions, labels and masks, and nothing else.

`evaluate(tickets, test)` reports everything; the functions that it calls take log-probabilities and labels from any
framework.
"""

from jaxtickets.evaluation.checks import EvaluationError
from jaxtickets.evaluation.diversity import (
    disagreement_matrix,
    kl_matrix,
    mask_iou,
    mask_iou_matrix,
    pair_mean,
    pairwise_kl,
    prediction_disagreement,
)
from jaxtickets.evaluation.evaluate import Diversity, Evaluation, Scores, evaluate, evaluate_predictions
from jaxtickets.evaluation.metrics import accuracy, adaptive_ece, as_log_proba, brier, ece, mean_log_proba, nll, restrict

__all__ = [
    "Diversity",
    "Evaluation",
    "EvaluationError",
    "Scores",
    "accuracy",
    "adaptive_ece",
    "as_log_proba",
    "brier",
    "disagreement_matrix",
    "ece",
    "evaluate",
    "evaluate_predictions",
    "kl_matrix",
    "mask_iou",
    "mask_iou_matrix",
    "mean_log_proba",
    "nll",
    "pair_mean",
    "pairwise_kl",
    "prediction_disagreement",
    "restrict",
]
