"""Ways to combine members, against SciPy's softmax and against cases worked by hand."""

import math

import numpy as np
import pytest
from scipy.special import log_softmax

from jaxtickets.evaluation import (
    EvaluationError,
    as_log_proba,
    combine,
    evaluate_predictions,
    mean_log_proba,
)

EXACT = 1e-12  # float64 sums in another order


def logits(members=4, examples=200, classes=5, seed=0):
    return 3 * np.random.default_rng(seed).standard_normal((members, examples, classes))


def test_proba_is_the_mean_of_probabilities():
    log_p = log_softmax(logits(), -1)
    np.testing.assert_array_equal(combine(log_p), mean_log_proba(log_p))
    np.testing.assert_allclose(np.exp(combine(log_p, "proba")), np.exp(log_p).mean(0), rtol=EXACT)


def test_logits_are_averaged_whatever_constant_they_had():
    each = logits() + 50 * np.random.default_rng(1).standard_normal((4, 200, 1))
    np.testing.assert_allclose(
        combine(log_softmax(each, -1), "logits"), log_softmax(each.mean(0), -1), atol=1e-10
    )  # of numbers to 100


def test_logits_of_sure_members_are_the_limit_of_small_probabilities():
    # Class 0 is ruled out by one member of three, class 1 by none, class 2 by two.
    sure = as_log_proba([[[0.0, 1.0, 0.0]], [[0.7, 0.3, 0.0]], [[0.5, 0.25, 0.25]]])
    assert np.exp(combine(sure, "logits")).tolist() == [[0.0, 1.0, 0.0]]
    # Each class is ruled out by one of the two: what the other says of it is all there is, sqrt(0.9) to sqrt(0.4) is not.
    apart = as_log_proba([[[0.0, 0.9, 0.1]], [[0.4, 0.0, 0.6]], [[1 / 3, 1 / 3, 1 / 3]]])
    assert np.exp(combine(apart, "logits")).tolist() == [[0.0, 0.0, 1.0]]
    opposed = as_log_proba([[[1.0, 0.0]], [[0.0, 1.0]]])
    np.testing.assert_allclose(np.exp(combine(opposed, "logits")), [[0.5, 0.5]], rtol=EXACT)
    tiny = np.log([[[1 - 1e-200, 1e-200]], [[1e-200, 1 - 1e-200]]])
    np.testing.assert_allclose(combine(opposed, "logits"), combine(tiny, "logits"), atol=EXACT)


def test_votes_are_shares():
    labels = np.array([[0, 1, 2], [0, 1, 1], [0, 2, 1], [1, 2, 1]])
    votes = combine(as_log_proba(0.7 * np.eye(3)[labels] + 0.1), "vote")
    np.testing.assert_allclose(
        np.exp(votes), [[0.75, 0.25, 0], [0, 0.5, 0.5], [0, 0.75, 0.25]], atol=1e-11
    )  # 1e-12 of a tie


def test_a_tie_of_votes_goes_to_the_larger_mean_probability():
    p = np.array([[[0.6, 0.4]], [[0.1, 0.9]]])
    assert combine(np.log(p), "vote").argmax(-1).tolist() == [1]
    assert combine(np.log(p[..., ::-1]), "vote").argmax(-1).tolist() == [0]
    assert combine(np.log([[[0.6, 0.4]], [[0.4, 0.6]]]), "vote").argmax(-1).tolist() == [
        0
    ]  # equal means: the lowest
    result = evaluate_predictions(np.log(p), [1], combine="vote")
    assert result.ensemble.accuracy == 1
    assert result.reliability.confidence[7] == pytest.approx(
        0.5, abs=EXACT
    )  # the winner's share is not touched


def test_a_label_without_a_vote_is_an_infinite_nll():
    result = evaluate_predictions(np.log([[[0.6, 0.4]], [[0.7, 0.3]]]), [1], combine="vote")
    assert result.ensemble.nll == math.inf
    assert result.members[0].nll < 1
    assert "combined by majority vote" in str(result)


@pytest.mark.parametrize("how", ["proba", "logits", "vote"])
def test_one_member_decides(how):
    log_p = log_softmax(logits(members=1), -1)
    np.testing.assert_array_equal(combine(log_p, how).argmax(-1), log_p[0].argmax(-1))
    if how != "vote":
        np.testing.assert_allclose(combine(log_p, how), log_p[0], atol=EXACT)


def test_mistakes_are_named():
    log_p = log_softmax(logits(), -1)
    with pytest.raises(
        EvaluationError, match="combine: got 'mean', wanted one of 'proba', 'logits', 'vote'"
    ):
        combine(log_p, "mean")  # pyright: ignore[reportArgumentType]
    with pytest.raises(EvaluationError, match=r"member_log_proba: got exp.* that sums to"):
        combine(logits(), "logits")
    with pytest.raises(EvaluationError, match=r"wanted \[M, B, C\]"):
        combine(log_p[0], "vote")
