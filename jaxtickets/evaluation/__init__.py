"""How good an ensemble is and how much its members differ. Knows predictions, labels and masks, and nothing else.

`evaluate(tickets, test)` reports everything; the functions that it calls take log-probabilities and labels from any
framework. What is done with all ensembles of a set of members (`subset_scores`, `ensemble_gain`, the tests between
schemes) takes probabilities, or the values of a regression.
"""

from jaxtickets.evaluation.adversarial import Adversarial
from jaxtickets.evaluation.attacks import fgsm, pgd
from jaxtickets.evaluation.bootstrap import BootstrapTest, paired_bootstrap
from jaxtickets.evaluation.checks import EvaluationError
from jaxtickets.evaluation.diversity import (
    disagreement_matrix,
    kl_matrix,
    mask_iou,
    mask_iou_matrix,
    mask_overlap,
    pair_mean,
    pairwise_kl,
    prediction_disagreement,
)
from jaxtickets.evaluation.evaluate import Diversity, Evaluation, Scores, evaluate, evaluate_predictions
from jaxtickets.evaluation.features import Features
from jaxtickets.evaluation.landscape import line
from jaxtickets.evaluation.metrics import accuracy, adaptive_ece, as_log_proba, brier, ece, mean_log_proba, nll, restrict
from jaxtickets.evaluation.oracle import OracleDiversity, oracle_diversity, oracle_matrices, oracle_outputs
from jaxtickets.evaluation.protocol import EnsembleGain, TTest, ensemble_gain, student_t
from jaxtickets.evaluation.subsets import subset_means, subset_scores
from jaxtickets.evaluation.task_scores import GLUE_METRICS, f1, glue_score, matthews, pearson, spearman

__all__ = [
    "GLUE_METRICS",
    "Adversarial",
    "BootstrapTest",
    "Diversity",
    "EnsembleGain",
    "Evaluation",
    "EvaluationError",
    "Features",
    "OracleDiversity",
    "Scores",
    "TTest",
    "accuracy",
    "adaptive_ece",
    "as_log_proba",
    "brier",
    "disagreement_matrix",
    "ece",
    "ensemble_gain",
    "evaluate",
    "evaluate_predictions",
    "f1",
    "fgsm",
    "glue_score",
    "kl_matrix",
    "line",
    "mask_iou",
    "mask_iou_matrix",
    "mask_overlap",
    "matthews",
    "mean_log_proba",
    "nll",
    "oracle_diversity",
    "oracle_matrices",
    "oracle_outputs",
    "pair_mean",
    "paired_bootstrap",
    "pairwise_kl",
    "pearson",
    "pgd",
    "prediction_disagreement",
    "restrict",
    "spearman",
    "student_t",
    "subset_means",
    "subset_scores",
]
