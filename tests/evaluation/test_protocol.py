"""The protocol of 20 seeds, the t-test against SciPy, the bootstrap against SciPy's and against an exact distribution."""

import dataclasses
import itertools
import math

import numpy as np
import pytest
from others import others
from test_subsets import predictions

from jaxtickets.evaluation import (
    EvaluationError,
    ensemble_gain,
    paired_bootstrap,
    pearson,
    student_t,
    subset_means,
)
from jaxtickets.evaluation.task_scores import score_function

EXACT = 1e-12  # means of some hundred float64 numbers in another order


@pytest.mark.parametrize(("classes", "score"), [(2, "f1"), (None, "pearson")])
def test_twenty_seeds_in_two_groups(classes, score):
    p, y = predictions(20, 50, classes, seed=1)
    found = ensemble_gain(p, y, score)
    function = score_function(score)
    assert found.single == pytest.approx(np.mean([function(one, y) for one in p]), abs=EXACT)
    assert {k: scores.shape for k, scores in found.ensemble_scores.items()} == {
        2: (2, 45),
        3: (2, 120),
        4: (2, 210),
        5: (2, 252),
    }
    for k in (2, 5):
        subsets = [
            c for group in (range(10), range(10, 20)) for c in itertools.combinations(group, k)
        ]
        wanted = np.mean([function(p[list(c)].mean(0), y) for c in subsets])
        assert found.ensemble[k] == pytest.approx(wanted, abs=EXACT)
        assert found.gain[k] == pytest.approx(wanted - found.single, abs=EXACT)
    assert found.gain[5] > found.gain[2] > 0  # independent errors: averaging must help
    table = str(found).splitlines()
    assert table[-1].split() == [
        "5",
        "504",
        f"{100 * found.ensemble[5]:.2f}",
        f"{100 * found.gain[5]:+.2f}",
    ]
    assert found.to_dict()["ensemble"]["3"] == found.ensemble[3]


def test_protocol_by_hand():
    # Members right with .8 or wrong with .6 on examples (1, 2): a right one outweighs a wrong one.
    right, wrong = [0.2, 0.8], [0.6, 0.4]
    p = [[right, wrong], [wrong, right], [wrong, wrong], [right, right]]
    found = ensemble_gain(p, [1, 1], sizes=(2,), groups=2)  # {0, 1}: all right; {2, 3}: all right
    assert found.single == pytest.approx((0.5 + 0.5 + 0 + 1) / 4)
    assert (found.ensemble, found.gain) == ({2: 1.0}, {2: 0.5})
    assert ensemble_gain(p, [1, 1], sizes=(1,), groups=2).gain == {1: 0.0}


@pytest.mark.parametrize("alternative", ["two-sided", "greater"])
def test_t_test_is_that_of_scipy(alternative):
    stats = others("scipy.stats")
    rng = np.random.default_rng(0)
    for shift, sizes in itertools.product((-0.3, 0.0, 0.1, 2.0), ((2, 2), (5, 30), (504, 504))):
        a, b = rng.standard_normal(sizes[0]) + shift, rng.standard_normal(sizes[1])
        ours, theirs = student_t(a, b, alternative), stats.ttest_ind(a, b, alternative=alternative)
        assert ours.statistic == pytest.approx(
            theirs.statistic, rel=1e-10
        )  # squares added in another order
        assert ours.pvalue == pytest.approx(theirs.pvalue, rel=1e-8)
        assert ours.degrees == theirs.df


def test_t_test_without_variance():
    assert student_t([0.5, 0.5], [0.1, 0.1]) == student_t([0.5] * 2, [0.1] * 2, "greater")
    assert (
        student_t([0.5, 0.5], [0.1, 0.1]).statistic,
        student_t([0.5, 0.5], [0.1, 0.1]).pvalue,
    ) == (math.inf, 0.0)
    assert student_t([0.1, 0.1], [0.5, 0.5], "greater").pvalue == 1.0
    assert math.isnan(student_t([0.1, 0.1], [0.1, 0.1]).pvalue)


def coin(right):
    """A scheme of one ensemble that is right on those of the examples, all of class 1."""
    return np.where(np.array(right)[:, None], [0.3, 0.7], [0.7, 0.3])[None]


def test_bootstrap_by_hand():
    # Of 3 examples the first scheme has one more right: a resample's difference is Binomial(3, 1/3) / 3.
    found = paired_bootstrap(
        coin([1, 1, 0]), coin([0, 1, 0]), np.ones(3, int), seed=0, resamples=20_000
    )
    none = (2 / 3) ** 3
    # 5 deviations of a share of 20,000 draws: one false alarm in 1.7 million seeds; the seed is fixed besides.
    assert found.pvalue == pytest.approx(
        2 * none, abs=2 * 5 * math.sqrt(none * (1 - none) / 20_000)
    )
    assert found.difference == pytest.approx(1 / 3)
    assert (found.low, found.high) == (
        0.0,
        1.0,
    )  # P(0) = .296 and P(1) = .037 are both more than .025
    narrow = paired_bootstrap(
        coin([1, 1, 0]), coin([0, 1, 0]), np.ones(3, int), seed=0, resamples=20_000, level=0.6
    )
    assert (narrow.low, narrow.high) == (
        0.0,
        pytest.approx(2 / 3),
    )  # P(0) = .296 > .2; P(0 or 1/3) = .741 < .8 < .963


@pytest.mark.parametrize(
    ("classes", "score"),
    [
        (2, "accuracy"),
        (2, "f1"),
        (2, "matthews"),
        (3, "accuracy"),
        (3, "matthews"),
        (None, "pearson"),
    ],
)
def test_fast_resamples_are_those_of_the_function(classes, score):
    p, y = predictions(6, 60, classes, seed=5)
    a, b = subset_means(p, 2, groups=2), p[3:]
    function = score_function(score)
    fast = paired_bootstrap(a, b, y, score, seed=3, resamples=150)
    slow = paired_bootstrap(
        a, b, y, lambda one, labels: function(one, labels), seed=3, resamples=150
    )
    for name in ("difference", "low", "high", "pvalue"):
        assert getattr(fast, name) == pytest.approx(
            getattr(slow, name), abs=1e-10
        )  # moments of 60 numbers up to 1


@pytest.mark.parametrize("score", ["f1", "matthews"])
def test_resamples_without_one_of_the_classes(score):
    p, y = predictions(4, 4, 2, seed=9)
    y = np.array([1, 0, 0, 0])  # (3 / 4)^4 = 32 % of the resamples have no example of class 1
    fast = paired_bootstrap(p[:2], p[2:], y, score, seed=4, resamples=200)
    function = score_function(score)
    slow = paired_bootstrap(
        p[:2], p[2:], y, lambda one, labels: function(one, labels), seed=4, resamples=200
    )
    assert dataclasses.astuple(fast) == pytest.approx(dataclasses.astuple(slow), abs=EXACT)


def test_equal_scores_are_equal_whatever_order_they_are_added_in():
    p, y = predictions(7, 30, 2, seed=10)
    found = paired_bootstrap(p, p[::-1], y, "matthews", seed=0, resamples=500)
    assert (found.difference, found.low, found.high, found.pvalue) == (
        pytest.approx(0.0, abs=EXACT),
        0.0,
        0.0,
        1.0,
    )


@pytest.mark.parametrize("kind", ["accuracy", "pearson"])
def test_interval_is_that_of_scipy(kind):
    stats = others("scipy.stats")
    p, y = predictions(2, 200, None if kind == "pearson" else 2, seed=6)
    function = score_function(kind)

    def difference(rows):
        rows = rows.astype(int)
        return function(p[0, rows], y[rows]) - function(p[1, rows], y[rows])

    theirs = stats.bootstrap(
        (np.arange(200),),
        difference,
        n_resamples=4000,
        method="percentile",
        vectorized=False,
        rng=np.random.default_rng(1),
    )
    ours = paired_bootstrap(p[:1], p[1:], y, kind, seed=2, resamples=4000)
    # The .025 quantile of 4,000 normal draws has a deviation of sqrt(.025 .975 / 4000) / .058 = .042 of the distribution's.
    # Two independent ones differ by less than 5 sqrt(2) times that, .3, but for one seed in a million.
    assert ours.low == pytest.approx(
        theirs.confidence_interval.low, abs=0.3 * theirs.standard_error
    )
    assert ours.high == pytest.approx(
        theirs.confidence_interval.high, abs=0.3 * theirs.standard_error
    )
    assert ours.low < ours.difference < ours.high


def test_bootstrap_is_deterministic_paired_and_in_blocks(monkeypatch):
    p, y = predictions(4, 50, 2, seed=7)
    found = paired_bootstrap(p[:2], p[2:], y, "f1", seed=11, resamples=300)
    assert found == paired_bootstrap(p[:2], p[2:], y, "f1", seed=11, resamples=300)
    assert found != paired_bootstrap(p[:2], p[2:], y, "f1", seed=12, resamples=300)
    same = paired_bootstrap(p[:2], p[:2], y, "f1", seed=11, resamples=300)
    assert (same.difference, same.low, same.high, same.pvalue) == (
        0.0,
        0.0,
        0.0,
        1.0,
    )  # unpaired draws would differ
    monkeypatch.setattr("jaxtickets.evaluation.bootstrap._CELLS", 1000)
    assert paired_bootstrap(p[:2], p[2:], y, "f1", seed=11, resamples=300) == found


def test_bootstrap_tells_a_real_difference_from_none():
    rng = np.random.default_rng(8)
    y = rng.random(300) * 5
    good, bad = y + 0.5 * rng.standard_normal((3, 300)), y + 2 * rng.standard_normal((3, 300))
    assert pearson(good[0], y) > pearson(bad[0], y)
    assert paired_bootstrap(good, bad, y, "pearson", seed=0, resamples=999).pvalue == 2 / 1000
    assert paired_bootstrap(bad, good, y, "pearson", seed=0, resamples=999).high < 0


P, Y = predictions(4, 10, 2)
V = np.tile(np.arange(3.0), (2, 1))
BAD = {
    "resamples": (lambda: paired_bootstrap(P, P, Y, seed=0, resamples=0), "resamples: got 0"),
    "level": (lambda: paired_bootstrap(P, P, Y, seed=0, level=95), "level: got 95"),
    "examples": (lambda: paired_bootstrap(P, P[:, :5], Y, seed=0), "wanted the same examples"),
    "kind": (lambda: paired_bootstrap(P, P, Y, "spearman", seed=0), "wanted values"),
    "one ensemble": (lambda: paired_bootstrap(P[0, :, 0], P, Y, seed=0), "first: got shape"),
    "undefined resamples": (
        lambda: paired_bootstrap(V, V, [0.0, 2.0, 1.0], "pearson", seed=0, resamples=200),
        "of 200 resamples",
    ),
    "undefined": (
        lambda: paired_bootstrap(0 * V, V, [0.0, 2.0, 1.0], "pearson", seed=0),
        "on the examples as they are",
    ),
    "one score": (lambda: student_t([1.0], [1.0, 2.0]), "first: got 1 scores"),
    "nan": (lambda: student_t([1.0, 2.0], [1.0, np.nan]), "second: got 2 scores, 1 finite"),
    "alternative": (
        lambda: student_t([1.0, 2.0], [1.0, 2.0], "less"),
        "wanted 'two-sided' or 'greater'",
    ),
    "sizes": (lambda: ensemble_gain(P, Y), "from 1 to 2, the members of a group"),
}


@pytest.mark.parametrize(("call", "message"), BAD.values(), ids=BAD)
def test_mistakes_are_named(call, message):
    with pytest.raises(EvaluationError, match=message):
        call()
