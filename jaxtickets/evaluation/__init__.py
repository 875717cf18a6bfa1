"""Scores of an ensemble, and measures of how much its members differ.

Knows predictions, labels, masks and weights, and nothing of how they came.

`evaluate(tickets, test)` reports everything; the functions that it calls take log-probabilities and
labels from any framework. A suite of parts (`evaluate(..., suite=[...])`) adds what needs more data
or more time. What is done with all ensembles of a set of members (`subset_scores`, `ensemble_gain`,
the tests between schemes) takes probabilities, or the values of a regression.
"""

from jaxtickets.errors import EvaluationError
from jaxtickets.evaluation.adversarial import Adversarial
from jaxtickets.evaluation.attacks import fgsm, pgd
from jaxtickets.evaluation.bootstrap import BootstrapTest, paired_bootstrap
from jaxtickets.evaluation.calibration import Reliability, reliability
from jaxtickets.evaluation.combining import combine
from jaxtickets.evaluation.correlation import AccuracyCorrelation, accuracy_correlation
from jaxtickets.evaluation.corrupted import Corrupted
from jaxtickets.evaluation.diverse import Diverse
from jaxtickets.evaluation.diversity import (
    class_disagreement,
    disagreement_matrix,
    kl_matrix,
    pairwise_kl,
    prediction_disagreement,
)
from jaxtickets.evaluation.evaluating import evaluate, evaluate_predictions
from jaxtickets.evaluation.features import Features
from jaxtickets.evaluation.landscape import line
from jaxtickets.evaluation.metrics import (
    accuracy,
    adaptive_ece,
    as_log_proba,
    brier,
    class_accuracy,
    ece,
    mean_log_proba,
    nll,
    restrict,
)
from jaxtickets.evaluation.ood import OutOfDistribution, auroc, in_distribution_scores
from jaxtickets.evaluation.oracle import (
    OracleDiversity,
    oracle_diversity,
    oracle_matrices,
    oracle_outputs,
)
from jaxtickets.evaluation.pairs import pair_mean
from jaxtickets.evaluation.parameters import (
    itop_rates,
    mask_hamming_matrix,
    mask_iou,
    mask_iou_matrix,
    mask_overlap,
    weight_cosine_matrix,
)
from jaxtickets.evaluation.plane import plane
from jaxtickets.evaluation.protocol import EnsembleGain, TTest, ensemble_gain, student_t
from jaxtickets.evaluation.scores import ClassAccuracy, Diversity, Evaluation, Scores
from jaxtickets.evaluation.subsets import subset_means, subset_scores
from jaxtickets.evaluation.suite import Metric
from jaxtickets.evaluation.task_scores import (
    GLUE_METRICS,
    f1,
    glue_score,
    matthews,
    pearson,
    spearman,
)

__all__ = [
    "GLUE_METRICS",
    "AccuracyCorrelation",
    "Adversarial",
    "BootstrapTest",
    "ClassAccuracy",
    "Corrupted",
    "Diverse",
    "Diversity",
    "EnsembleGain",
    "Evaluation",
    "EvaluationError",
    "Features",
    "Metric",
    "OracleDiversity",
    "OutOfDistribution",
    "Reliability",
    "Scores",
    "TTest",
    "accuracy",
    "accuracy_correlation",
    "adaptive_ece",
    "as_log_proba",
    "auroc",
    "brier",
    "class_accuracy",
    "class_disagreement",
    "combine",
    "disagreement_matrix",
    "ece",
    "ensemble_gain",
    "evaluate",
    "evaluate_predictions",
    "f1",
    "fgsm",
    "glue_score",
    "in_distribution_scores",
    "itop_rates",
    "kl_matrix",
    "line",
    "mask_hamming_matrix",
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
    "plane",
    "prediction_disagreement",
    "reliability",
    "restrict",
    "spearman",
    "student_t",
    "subset_means",
    "subset_scores",
    "weight_cosine_matrix",
]
