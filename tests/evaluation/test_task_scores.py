"""Scores of GLUE's tasks against scikit-learn and SciPy, where there is nothing to divide by as well."""

import math
import warnings

import numpy as np
import pytest
from others import others

from jaxtickets.data import GLUE_TASKS
from jaxtickets.evaluation import (
    GLUE_METRICS,
    EvaluationError,
    f1,
    glue_score,
    matthews,
    pearson,
    spearman,
)

EXACT = 1e-12  # float64 sums of some hundred numbers in another order

LABELS = {
    "random": lambda rng: rng.integers(0, 2, (2, 300)),
    "one class predicted": lambda rng: np.stack([np.ones(50, int), rng.integers(0, 2, 50)]),
    "the other one predicted": lambda rng: np.stack([np.zeros(50, int), rng.integers(0, 2, 50)]),
    "one class there": lambda rng: np.stack([rng.integers(0, 2, 50), np.ones(50, int)]),
    "nothing positive": lambda rng: np.zeros((2, 5), int),
    "all positive": lambda rng: np.ones((2, 5), int),
    "perfect": lambda rng: np.tile(rng.integers(0, 2, 50), (2, 1)),
    "opposite": lambda rng: np.stack([np.arange(50) % 2, 1 - np.arange(50) % 2]),
    "one example": lambda rng: np.array([[1], [1]]),
}


@pytest.mark.parametrize("kind", LABELS)
def test_labels_as_scikit_learn_scores_them(kind):
    sklearn = others("sklearn.metrics")
    predicted, y = LABELS[kind](np.random.default_rng(0))
    assert f1(predicted, y) == pytest.approx(
        sklearn.f1_score(y, predicted, zero_division=0.0), abs=EXACT
    )
    assert f1(predicted, y, positive=0) == pytest.approx(
        sklearn.f1_score(y, predicted, pos_label=0, zero_division=0.0), abs=EXACT
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # theirs, of a single label
        assert matthews(predicted, y) == pytest.approx(
            sklearn.matthews_corrcoef(y, predicted), abs=EXACT
        )


@pytest.mark.parametrize("classes", [3, 7])
def test_matthews_of_several_classes(classes):
    sklearn = others("sklearn.metrics")
    rng = np.random.default_rng(classes)
    y = rng.integers(0, classes, 500)
    predicted = np.where(rng.random(500) < 0.6, y, rng.integers(0, classes, 500))
    assert matthews(predicted, y) == pytest.approx(
        sklearn.matthews_corrcoef(y, predicted), abs=EXACT
    )


def test_matthews_of_many_examples_does_not_overflow():
    y = np.arange(400_000) % 2  # the product of four counts of 2e5 is 1.6e21, beyond 64 bits
    assert matthews(y, y) == 1.0
    assert matthews(1 - y, y) == -1.0


VALUES = {
    "random": lambda rng: rng.standard_normal((2, 400)),
    "ties": lambda rng: rng.integers(0, 6, (2, 400)).astype(float),
    "far from 0": lambda rng: 1e6 + rng.standard_normal((2, 400)),
    "very small": lambda rng: 1e-200 * rng.standard_normal((2, 400)),
    "two examples": lambda rng: np.array([[1.0, 2.0], [5.0, 3.0]]),
    "a line": lambda rng: np.stack([np.arange(9.0), 3 - 0.1 * np.arange(9.0)]),
}


@pytest.mark.parametrize("kind", VALUES)
def test_correlations_are_those_of_scipy(kind):
    stats = others("scipy.stats")
    x, y = VALUES[kind](np.random.default_rng(1))
    # 1e6 away from 0 a float64 holds deviations of 1 to 1e-10.
    assert pearson(x, y) == pytest.approx(
        stats.pearsonr(x, y).statistic, abs=1e-9 if kind == "far from 0" else EXACT
    )
    assert spearman(x, y) == pytest.approx(stats.spearmanr(x, y).statistic, abs=EXACT)


def test_a_constant_has_no_correlation():
    stats = others("scipy.stats")
    x, constant = np.arange(7.0), np.full(7, 0.1)
    for function, theirs in ((pearson, stats.pearsonr), (spearman, stats.spearmanr)):
        for a, b in ((x, constant), (constant, x), (constant, constant)):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # theirs, of constant input
                assert math.isnan(theirs(a, b).statistic)
            assert math.isnan(function(a, b))
        assert math.isnan(function([1.0], [2.0]))


def test_glue_by_hand():
    proba = np.array(
        [[0.2, 0.8], [0.4, 0.6], [0.9, 0.1], [0.5, 0.5]]
    )  # predicted 1, 1, 0, and 0 as a tie
    y = np.array([1, 0, 0, 1])
    assert glue_score("mrpc", proba, y) == {"accuracy": 0.5, "f1": 0.5}
    assert glue_score("glue/cola", proba, y) == {"matthews": 0.0, "accuracy": 0.5}
    assert glue_score("glue/mnli-mm", [[0.1, 0.2, 0.7], [0.6, 0.2, 0.2]], [2, 1]) == {
        "accuracy": 0.5
    }
    assert glue_score("stsb", [1.0, 3.0, 2.0], [0.0, 5.0, 1.0]) == {
        "pearson": pytest.approx(5 / math.sqrt(2 * 14), abs=EXACT),  # deviations -1 1 0 and -2 3 -1
        "spearman": pytest.approx(1.0, abs=EXACT),
    }
    assert list(glue_score("qqp", proba, y)) == ["accuracy", "f1"]


def test_the_metrics_are_those_of_the_data_room():
    assert {name: task.metrics for name, task in GLUE_TASKS.items()} == GLUE_METRICS


P, Y = np.full((3, 2), 0.5), np.array([0, 1, 0])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: glue_score("sst", P, Y), "task: got 'sst', wanted one of cola, sst2"),
        (lambda: glue_score("mrpc", np.log(P), Y), "log-probabilities: give np.exp"),
        (lambda: glue_score("mrpc", 3 * P, Y), "wanted probabilities. Give the softmax"),
        (lambda: glue_score("mrpc", P[:, 0], Y), r"wanted probabilities \[B, C\] for accuracy"),
        (lambda: glue_score("stsb", P, Y), r"wanted values \[B\] for pearson"),
        (lambda: glue_score("stsb", P[:, :1], Y), r"one class.*predictions\[..., 0\]"),
        (lambda: glue_score("mrpc", P, Y + 1), "got labels from 1 to 2"),
        (lambda: glue_score("mrpc", P, Y[:2]), r"got shape \(2,\)"),
        (lambda: glue_score("stsb", P[:, 0] * np.nan, Y), "3 numbers that are NaN"),
        (lambda: glue_score("qqp", np.full((3, 3), 1 / 3), Y), "F1 is of one class"),
        (lambda: f1(P[:, 0], Y), "predicted: got float64"),
        (lambda: matthews(Y[:2], Y), r"\(2,\) and \(3,\)"),
        (lambda: f1([], []), "two rows of labels"),
        (lambda: matthews(Y - 1, Y), "from -1"),
        (lambda: pearson([1.0, np.inf], [1.0, 2.0]), "values: got NaN or infinity"),
        (lambda: spearman([], []), "values: got none"),
    ],
)
def test_mistakes_are_named(call, message):
    with np.errstate(divide="ignore"), pytest.raises(EvaluationError, match=message):
        call()
