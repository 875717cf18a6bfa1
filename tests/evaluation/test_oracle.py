"""Oracle diversity against DESlib, by hand, and where DESlib divides by zero."""

import math

import numpy as np
import pytest
from others import others

from jaxtickets.evaluation import EvaluationError, oracle_diversity, oracle_matrices, oracle_outputs

EXACT = 1e-12  # a few float64 operations on counts
THEIRS = {
    "q": "Q_statistic",
    "ratio_errors": "ratio_errors",
    "negative_double_fault": "negative_double_fault",
    "disagreement": "disagreement_measure",
    "correlation": "correlation_coefficient",
}


@pytest.mark.parametrize("members", [2, 5])
def test_measures_are_those_of_deslib(members):
    deslib = others("deslib.util.diversity")
    rng = np.random.default_rng(members)
    y = rng.integers(0, 3, 400)
    predicted = np.where(
        rng.random((members, 400)) < np.linspace(0.6, 0.8, members)[:, None],
        y,
        rng.integers(0, 3, (members, 400)),
    )
    matrices, means = oracle_matrices(predicted == y), oracle_diversity(predicted == y).to_dict()
    for name, theirs in THEIRS.items():
        function = getattr(deslib, theirs)
        pairs = [(i, j) for i in range(members) for j in range(members) if i != j]
        wanted = [function(y, predicted[i], predicted[j]) for i, j in pairs]
        assert [matrices[name][pair] for pair in pairs] == pytest.approx(wanted, abs=EXACT)
        assert means[name] == pytest.approx(np.mean(wanted), abs=EXACT)
        sums = deslib.compute_pairwise_diversity(
            y, predicted.T, function
        )  # of each member with all others
        assert means[name] == pytest.approx(sums.mean() / (members - 1), abs=EXACT)


def test_by_hand():
    # Both right 4, only the first 2, only the second 1, neither 3.
    first, second = [1] * 6 + [0] * 4, [1] * 4 + [0] * 2 + [1] + [0] * 3
    found = oracle_diversity([first, second])
    assert found.q == pytest.approx((4 * 3 - 2 * 1) / (4 * 3 + 2 * 1), abs=EXACT)
    assert found.ratio_errors == pytest.approx(3 / 3, abs=EXACT)
    assert found.negative_double_fault == pytest.approx(-0.3, abs=EXACT)
    assert found.disagreement == pytest.approx(0.3, abs=EXACT)
    assert found.correlation == pytest.approx(10 / math.sqrt(6 * 4 * 5 * 5), abs=EXACT)


UNDEFINED = {  # the two members, and Q, R, C
    "both always right": ([1, 1, 1], [1, 1, 1], 1, 0, 1),
    "both always wrong": ([0, 0, 0], [0, 0, 0], 1, 0, 1),
    "equal": ([1, 0, 1], [1, 0, 1], 1, 0, 1),
    "opposite": ([1, 0, 1], [0, 1, 0], -1, math.inf, -1),
    "always right and always wrong": ([1, 1, 1], [0, 0, 0], -1, math.inf, -1),
    "one always right": ([1, 1, 1], [1, 0, 1], 0, math.inf, 0),
    "one always wrong": ([0, 0, 0], [1, 0, 1], 0, 2, 0),
}


@pytest.mark.parametrize("kind", UNDEFINED)
@pytest.mark.parametrize("order", [1, -1])
def test_denominators_of_zero(kind, order):
    *members, q, ratio, correlation = UNDEFINED[kind]
    found = oracle_diversity(np.array(members[::order], bool))
    assert (found.q, found.ratio_errors, found.correlation) == (q, ratio, correlation)


def test_a_member_and_itself_and_alone():
    right = np.random.default_rng(0).random((3, 50)) < 0.7
    matrices = oracle_matrices(right)
    for name, diagonal in (("q", 1), ("ratio_errors", 0), ("disagreement", 0), ("correlation", 1)):
        np.testing.assert_allclose(matrices[name].diagonal(), diagonal, rtol=EXACT)
        np.testing.assert_array_equal(matrices[name], matrices[name].T)
    np.testing.assert_allclose(
        matrices["negative_double_fault"].diagonal(), right.mean(1) - 1, rtol=EXACT
    )
    assert all(math.isnan(value) for value in oracle_diversity(right[:1]).to_dict().values())


def test_outputs():
    proba = np.array([[[0.2, 0.8], [0.5, 0.5]], [[0.7, 0.3], [0.1, 0.9]]])
    assert oracle_outputs(proba, [1, 0]).tolist() == [[True, True], [False, False]]
    for call, message in (
        (lambda: oracle_outputs(proba[..., 0], [1, 0]), "not right or wrong"),
        (lambda: oracle_outputs(proba, [1, 2]), "got labels from 1 to 2"),
        (lambda: oracle_matrices(np.ones(3, bool)), r"right: got shape \(3,\)"),
        (lambda: oracle_matrices([[0.2, 0.7]]), "right: got float64"),
        (lambda: oracle_matrices(np.ones((2, 0), bool)), "at least one"),
    ):
        with pytest.raises(EvaluationError, match=message):
            call()
