"""Scores against scikit-learn and torchmetrics, and against tables worked by hand."""

import math
import warnings

import jax.numpy as jnp
import numpy as np
import pytest
from others import others

from jaxtickets.evaluation import (
    EvaluationError,
    accuracy,
    adaptive_ece,
    as_log_proba,
    brier,
    class_accuracy,
    ece,
    mean_log_proba,
    nll,
    reliability,
)

METRICS = [accuracy, nll, brier, ece, adaptive_ece]
EXACT = 1e-12  # float64 sums of some thousand numbers in another order


def predictions(
    examples: int, classes: int, seed: int = 0, dtype: type = np.float64
) -> tuple[np.ndarray, np.ndarray]:
    """Overconfident predictions that are right more often than chance."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, classes, examples)
    logits = 3 * rng.standard_normal((examples, classes))
    logits[np.arange(examples), y] += 2
    logits -= np.log(np.exp(logits).sum(-1, keepdims=True))
    return logits.astype(dtype), y


def ece_by_the_book(proba: np.ndarray, y: np.ndarray, bins: int) -> float:
    """Guo et al. eq. 3, one bin at a time: no edge comes near a random confidence, so edges are not tested by this."""
    confidence, correct, total = proba.max(-1), proba.argmax(-1) == y, 0.0
    for k in range(bins):
        inside = (confidence > k / bins) & (confidence <= (k + 1) / bins)
        if inside.any():
            total += inside.mean() * abs(correct[inside].mean() - confidence[inside].mean())
    return total


@pytest.mark.parametrize("classes", [2, 3, 10, 100])
def test_scores_are_those_of_scikit_learn(classes):
    sklearn = others("sklearn.metrics")
    log_p, y = predictions(2000, classes)
    labels = np.arange(classes)
    assert accuracy(log_p, y) == sklearn.accuracy_score(y, log_p.argmax(-1))
    assert nll(log_p, y) == pytest.approx(
        sklearn.log_loss(y, np.exp(log_p), labels=labels), rel=EXACT
    )
    theirs = sklearn.brier_score_loss(y, np.exp(log_p), labels=labels, scale_by_half=False)
    assert brier(log_p, y) == pytest.approx(theirs, rel=EXACT)


@pytest.mark.parametrize("classes", [2, 10, 100])
@pytest.mark.parametrize("bins", [1, 10, 14, 15])
def test_ece_is_that_of_torchmetrics(classes, bins):
    torch = others("torch")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of their import, not of ours
        from torchmetrics.classification import MulticlassCalibrationError

        log_p, y = predictions(3000, classes, seed=1)
        metric = MulticlassCalibrationError(num_classes=classes, n_bins=bins, norm="l1")
        theirs = float(metric(torch.tensor(np.exp(log_p)), torch.tensor(y)))
    # They keep confidences in float32 (6e-8 relative) and add up to 3000 of them in float32.
    assert ece(log_p, y, bins) == pytest.approx(theirs, abs=2e-6)
    assert ece(log_p, y, bins) == pytest.approx(ece_by_the_book(np.exp(log_p), y, bins), abs=EXACT)


def test_ece_by_hand():
    # Ten bins. Confidences .95 (right), .92 (wrong), .65 (right), .55 (wrong):
    # (.9, 1]: 2 examples, accuracy .5, confidence .935, gap .435; (.6, .7]: gap .35; (.5, .6]: gap .55.
    p = np.array([0.95, 0.92, 0.65, 0.55])
    log_p = as_log_proba(np.stack([p, 1 - p], -1))
    y = np.array([0, 1, 0, 1])
    assert ece(log_p, y, bins=10) == pytest.approx((2 * 0.435 + 0.35 + 0.55) / 4, abs=EXACT)
    # One bin: accuracy .5 against confidence .7675.
    assert ece(log_p, y, bins=1) == pytest.approx(0.2675, abs=EXACT)
    # Two bins of equal mass: {.55, .65}: accuracy .5, confidence .6; {.92, .95}: .5 and .935.
    assert adaptive_ece(log_p, y, bins=2) == pytest.approx((0.1 + 0.435) / 2, abs=EXACT)


@pytest.mark.parametrize(
    ("bins", "edge"), [(10, k) for k in range(6, 10)] + [(15, k) for k in range(8, 15)] + [(4, 3)]
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_confidence_on_an_edge_falls_in_the_bin_below(bins, edge, dtype):
    # One example on the edge, right; one in the middle of the bin below, wrong: they share a bin, so their errors
    # of opposite sign cancel. Were the edge in the bin above, they would add up.
    on, below = edge / bins, (edge - 0.4) / bins
    log_p = as_log_proba([[on, 1 - on], [below, 1 - below]]).astype(dtype)
    y = np.array([0, 1])
    assert ece(log_p, y, bins) == pytest.approx(
        abs((1 - on) - below) / 2, abs=1e-6
    )  # float32 holds a log to 1e-7
    above = (edge + 0.4) / bins
    log_p = as_log_proba([[on, 1 - on], [above, 1 - above]]).astype(dtype)
    assert ece(log_p, y, bins) == pytest.approx(((1 - on) + above) / 2, abs=1e-6)


def test_ties_of_three_classes_lie_on_an_edge_of_fifteen_bins():
    # Confidence 1/3 = 5/15, predicted class 0; with .31, class 0 of four, in the same bin (4/15, 5/15].
    log_p = as_log_proba([[1 / 3, 1 / 3, 1 / 3, 0], [0.31, 0.23, 0.23, 0.23]])
    assert ece(log_p, [0, 3], bins=15) == pytest.approx((1 - 1 / 3 - 0.31) / 2, abs=EXACT)
    assert accuracy(log_p, [0, 0]) == 1.0
    assert (
        accuracy(log_p[:1], [1]) == 0.0
    )  # equal probabilities: the lowest class is the prediction


def test_fourteen_bins_are_what_the_freetickets_code_computes():
    log_p, y = predictions(3000, 10, seed=2)
    p = np.exp(log_p)
    confidence, correct = p.max(-1), p.argmax(-1) == y
    index = np.digitize(confidence, np.linspace(0, 1, 15), right=True)  # as published, "15 bins"
    theirs = sum(
        abs(np.sum(correct[index == k] - confidence[index == k])) for k in range(15)
    ) / len(y)
    assert ece(log_p, y, bins=14) == pytest.approx(theirs, abs=EXACT)
    assert abs(ece(log_p, y, bins=15) - theirs) > 1e-5


def test_adaptive_bins_hold_equally_many():
    log_p, y = predictions(1000, 10, seed=3)
    confidence, correct = np.exp(log_p.max(-1)), log_p.argmax(-1) == y
    parts = np.array_split(np.argsort(confidence), 10)  # 100 each, and no ties
    wanted = sum(abs(np.sum(correct[part] - confidence[part])) for part in parts) / 1000
    assert adaptive_ece(log_p, y, bins=10) == pytest.approx(wanted, abs=EXACT)
    # As many bins as examples, or more: every example alone.
    wanted = np.mean(np.abs(correct - confidence))
    assert adaptive_ece(log_p, y, bins=1000) == pytest.approx(wanted, abs=EXACT)
    assert adaptive_ece(log_p, y, bins=7777) == pytest.approx(wanted, abs=EXACT)


def test_adaptive_ece_does_not_depend_on_the_order_of_ties():
    p = np.array([0.6, 0.8, 0.8, 0.8, 0.8, 0.9])
    log_p, y = as_log_proba(np.stack([p, 1 - p], -1)), np.array([0, 0, 1, 0, 1, 0])
    # Three bins have right edges .8, .8 and .9, so {.6, .8 x 4}: 3 right against 3.8; {.9}: 1 against .9.
    wanted = (0.8 + 0.1) / 6
    for seed in range(5):
        order = np.random.default_rng(seed).permutation(6)
        assert adaptive_ece(log_p[order], y[order], bins=3) == pytest.approx(wanted, abs=EXACT)


def test_certain_predictions():
    log_p = as_log_proba(np.eye(3)[[0, 1, 2, 0]])
    right, wrong = np.array([0, 1, 2, 0]), np.array([1, 2, 0, 1])
    assert [metric(log_p, right) for metric in METRICS] == [1.0, 0.0, 0.0, 0.0, 0.0]
    assert math.copysign(1, nll(log_p, right)) == 1  # 0.0, not -0.0
    assert [metric(log_p, wrong) for metric in METRICS] == [0.0, math.inf, 2.0, 1.0, 1.0]
    assert nll(log_p, [0, 1, 2, 1]) == math.inf  # one sure mistake is enough


def test_one_class_and_one_example():
    assert [metric(np.zeros((4, 1)), [0, 0, 0, 0]) for metric in METRICS] == [
        1.0,
        0.0,
        0.0,
        0.0,
        0.0,
    ]
    log_p = as_log_proba([[0.75, 0.25]])
    wanted = [0.0, math.log(4), 2 * 0.75**2, 0.75, 0.75]
    assert [metric(log_p, [1]) for metric in METRICS] == pytest.approx(wanted, abs=EXACT)


def test_float32_predictions_give_nearly_the_same():
    log_p, y = predictions(2000, 10, seed=4)
    for metric in METRICS:
        # Rounding a log to float32 moves a probability by 1e-6 relative at most (logs of up to 20).
        assert metric(log_p.astype(np.float32), y) == pytest.approx(metric(log_p, y), abs=2e-6), (
            metric.__name__
        )


def test_scores_are_python_floats():
    log_p, y = predictions(10, 3)
    assert {type(metric(log_p, y)) for metric in METRICS} == {float}


def test_the_ensemble_is_the_mean_of_probabilities():
    members = np.stack([predictions(200, 10, seed)[0] for seed in range(3)])
    np.testing.assert_allclose(np.exp(mean_log_proba(members)), np.exp(members).mean(0), rtol=EXACT)
    np.testing.assert_allclose(mean_log_proba(members[:1]), members[0], rtol=0, atol=EXACT)


def test_the_mean_holds_what_does_not_fit_in_a_probability():
    low = np.array(
        [[[0.0, -800.0, -np.inf]], [[0.0, -801.0, -np.inf]]]
    )  # exp(-800) is 0 in float64
    wanted = [0.0, -800 + math.log1p(math.exp(-1)) - math.log(2), -np.inf]
    np.testing.assert_allclose(mean_log_proba(low)[0], wanted, rtol=EXACT, atol=EXACT)
    assert np.exp(mean_log_proba(as_log_proba([[[1, 0]], [[0, 1]]]))).tolist() == [[0.5, 0.5]]


GOOD = as_log_proba([[0.5, 0.5], [0.9, 0.1]])


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(
    ("log_proba", "y", "message"),
    [
        (GOOD[0], [0, 1], r"log_proba: got shape \(2,\), wanted \[B, C\]"),
        (GOOD[None], [0, 1], r"log_proba: got shape \(1, 2, 2\), wanted \[B, C\]"),
        (np.zeros((0, 2)), [], r"log_proba: got shape \(0, 2\), wanted at least one"),
        (np.zeros((2, 0)), [0, 0], r"log_proba: got shape \(2, 0\), wanted at least one"),
        ([["a", "b"]], [0], r"log_proba: got list, wanted numbers"),
        (np.array([[0.0, np.nan], [0.0, -np.inf]]), [0, 1], r"got NaN in 1 of 2 predictions"),
        (
            np.exp(GOOD),
            [0, 1],
            r"wanted 1 within 0.001. These are probabilities: give as_log_proba",
        ),
        (np.array([[3.0, 1.0], [2.0, 800.0]]), [0, 1], r"sums to inf, wanted 1 .* log_softmax"),
        (np.full((2, 2), -np.inf), [0, 1], r"sums to 0, wanted 1"),
        (GOOD + 2e-3, [0, 1], r"sums to 1.002, wanted 1"),
        (GOOD, [0, 1, 1], r"y: got shape \(3,\), wanted one label for each prediction, \(2,\)"),
        (GOOD, [[1, 0], [0, 1]], r"y: got shape \(2, 2\).*argmax"),
        (GOOD, [0.0, 1.0], r"y: got dtype float64, wanted integers"),
        (GOOD, [0, 2], r"y: got labels from 0 to 2, wanted 0 to 1"),
        (GOOD, [-1, 1], r"y: got labels from -1 to 1, wanted 0 to 1"),
    ],
)
def test_what_cannot_be_scored_is_refused(metric, log_proba, y, message):
    with pytest.raises(EvaluationError, match=message):
        metric(log_proba, y)


@pytest.mark.parametrize("metric", [ece, adaptive_ece])
@pytest.mark.parametrize("bins", [0, -1, 1.5, "15", None])
def test_bins_are_counted(metric, bins):
    with pytest.raises(EvaluationError, match="bins: got"):
        metric(GOOD, [0, 1], bins=bins)


def test_sums_within_the_tolerance_are_accepted():
    assert accuracy(GOOD + 5e-4, [0, 0]) == 1.0


def test_fifteen_bins_unless_said_otherwise():
    log_p, y = predictions(3000, 10, seed=6)
    log_p *= 0.2  # too sure in some bins and not sure enough in others: where all gaps have one sign, bins do not matter
    log_p -= np.log(np.exp(log_p).sum(-1, keepdims=True))
    for metric in (ece, adaptive_ece):
        assert metric(log_p, y) == metric(log_p, y, bins=15) != metric(log_p, y, bins=14)


def test_device_arrays_are_welcome():
    log_p, y = predictions(100, 5, seed=7, dtype=np.float32)
    for metric in METRICS:
        assert metric(jnp.asarray(log_p), jnp.asarray(y)) == metric(log_p, y), metric.__name__


@pytest.mark.parametrize("bins", [1, 10, 15])
def test_the_reliability_diagram_is_that_of_scikit_learn(bins):
    calibration = others("sklearn.calibration")
    log_p, y = predictions(2000, 5, seed=8)
    found = reliability(log_p, y, bins)
    confidence = np.exp(log_p).max(-1)
    accuracies, means = calibration.calibration_curve(
        log_p.argmax(-1) == y, confidence, n_bins=bins
    )  # of filled bins alone
    filled = np.array(found.count) > 0
    np.testing.assert_allclose(np.array(found.accuracy)[filled], accuracies, rtol=EXACT)
    np.testing.assert_allclose(np.array(found.confidence)[filled], means, rtol=EXACT)
    assert np.isnan(np.array(found.accuracy)[~filled]).all()
    assert (sum(found.count), len(found.count)) == (2000, bins)
    assert ece(log_p, y, bins) == found.error
    assert found == reliability(log_p, y, bins)  # nan in empty bins notwithstanding


def test_accuracy_of_classes_is_the_recall_of_scikit_learn():
    sklearn = others("sklearn.metrics")
    log_p, y = predictions(500, 4, seed=9)
    np.testing.assert_allclose(
        class_accuracy(log_p, y),
        sklearn.recall_score(y, log_p.argmax(-1), average=None),
        rtol=EXACT,
    )
    some = class_accuracy(log_p, 0 * y)
    assert np.isnan(some).tolist() == [False, True, True, True]
    assert some[0] == accuracy(log_p, 0 * y)


@pytest.mark.parametrize("right", [True, False])
def test_sure_predictions_have_one_bin(right):
    log_p = as_log_proba(np.eye(3)[[0, 1, 2, 2]])
    y = np.array([0, 1, 2, 2]) if right else np.array([1, 2, 0, 1])
    found = reliability(log_p, y, 4)
    assert (found.count, found.accuracy[3], found.confidence[3]) == (
        (0, 0, 0, 4),
        float(right),
        1.0,
    )
    assert ece(log_p, y, 4) == adaptive_ece(log_p, y, 4) == float(not right)
