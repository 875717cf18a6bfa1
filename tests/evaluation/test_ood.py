"""ROC-AUC against scikit-learn, and scores of in-distribution against SciPy's entropy."""

import numpy as np
import pytest
from others import others
from scipy.special import log_softmax
from scipy.stats import entropy

from jaxtickets.dataset import Dataset
from jaxtickets.evaluation import (
    EvaluationError,
    OutOfDistribution,
    as_log_proba,
    auroc,
    evaluate,
    in_distribution_scores,
)

EXACT = 1e-12  # float64 sums in another order


@pytest.mark.parametrize("kind", ["random", "ties", "equal", "apart", "infinite"])
def test_auroc_is_that_of_scikit_learn(kind):
    sklearn = others("sklearn.metrics")
    rng = np.random.default_rng(0)
    inside, outside = {
        "random": (rng.standard_normal(700) + 0.5, rng.standard_normal(300)),
        "ties": (rng.integers(0, 4, 500) / 4, rng.integers(0, 3, 900) / 4),
        "equal": (np.ones(20), np.ones(30)),
        "apart": (np.arange(5.0), -np.arange(1.0, 8.0)),
        "infinite": (np.array([np.inf, 1.0, 2.0]), np.array([-np.inf, 1.0])),
    }[kind]
    finite = [
        np.nan_to_num(side, posinf=1e9, neginf=-1e9) for side in (inside, outside)
    ]  # theirs takes none; ranks are the same
    theirs = sklearn.roc_auc_score(
        np.repeat([1, 0], [len(inside), len(outside)]), np.concatenate(finite)
    )
    assert auroc(inside, outside) == pytest.approx(theirs, abs=EXACT)
    assert auroc(outside, inside) == pytest.approx(1 - theirs, abs=EXACT)
    if kind == "equal":
        assert auroc(inside, outside) == 0.5


def members(count=5, examples=100, classes=6, seed=1):
    return log_softmax(
        3 * np.random.default_rng(seed).standard_normal((count, examples, classes)), -1
    )


def test_scores_are_those_of_scipy():
    log_p = members()
    p = np.exp(log_p)
    found = in_distribution_scores(log_p)
    np.testing.assert_allclose(found["max_probability"], p.mean(0).max(-1), rtol=EXACT)
    np.testing.assert_allclose(-found["entropy"], entropy(p.mean(0), axis=-1), rtol=1e-10)
    between = np.mean(
        [entropy(one, p.mean(0), axis=-1) for one in p], axis=0
    )  # mutual information as a mean of KL divergences
    np.testing.assert_allclose(-found["mutual_information"], between, atol=EXACT)
    by_vote = in_distribution_scores(log_p, "vote")
    np.testing.assert_array_equal(by_vote["mutual_information"], found["mutual_information"])
    assert set(np.unique((5 * by_vote["max_probability"]).round(9))) <= {1, 2, 3, 4, 5}


def test_sure_members_have_finite_scores():
    found = in_distribution_scores(
        as_log_proba([[[1.0, 0.0], [1.0, 0.0]], [[1.0, 0.0], [0.0, 1.0]]])
    )
    np.testing.assert_allclose(-found["entropy"], [0, np.log(2)], atol=EXACT)
    np.testing.assert_allclose(-found["mutual_information"], [0, np.log(2)], atol=EXACT)


@pytest.mark.parametrize(
    "log_p", [members(count=1), np.repeat(members(count=1), 3, axis=0)], ids=["one", "equal"]
)
def test_without_disagreement_there_is_no_mutual_information(log_p):
    assert not in_distribution_scores(log_p)["mutual_information"].any()


class Fixed:
    """An ensemble whose inputs are its predictions."""

    masks = None

    def member_log_proba(self, x, batch_size=None):
        x = x.x if isinstance(x, Dataset) else x
        return np.moveaxis(x, 1, 0)


def test_the_part():
    sklearn = others("sklearn.metrics")
    inside, outside = (
        np.moveaxis(members(seed=seed, examples=n), 0, 1) for seed, n in ((2, 100), (3, 60))
    )
    outside = log_softmax(0.5 * outside, -1)  # less sure
    met = []
    part = OutOfDistribution(
        {"other": (outside, None), "same": Dataset(inside, np.zeros(100, int), 6)},
        on_set=met.append,
    )
    found = evaluate(Fixed(), (inside, np.zeros(100, int)), suite=[part]).parts["ood"]
    assert met == ["other", "same"]
    assert list(found["other"]) == ["examples", "max_probability", "entropy", "mutual_information"]
    assert (found["other"]["examples"], found["same"]["examples"]) == (60, 100)
    highest = np.concatenate([np.exp(x).mean(1).max(-1) for x in (inside, outside)])
    theirs = sklearn.roc_auc_score(np.repeat([1, 0], [100, 60]), highest)
    assert found["other"]["max_probability"] == pytest.approx(theirs, abs=EXACT)
    assert 0.6 < found["other"]["entropy"] < 1
    assert all(
        found["same"][score] == 0.5
        for score in ("max_probability", "entropy", "mutual_information")
    )
    alone = evaluate(
        Fixed(),
        (inside[:, :1], np.zeros(100, int)),
        suite=[OutOfDistribution({"other": (outside[:, :1], None)})],
    )
    assert alone.parts["ood"]["other"]["mutual_information"] == 0.5


BAD = {
    "none": (lambda: OutOfDistribution({}), "sets: got none, wanted data sets by name"),
    "no names": (lambda: OutOfDistribution([1]), "sets: got list"),  # pyright: ignore[reportArgumentType]
    "no data": (
        lambda: OutOfDistribution({"svhn": 3}),
        r"sets\['svhn'\]: got int, wanted a Dataset",
    ),
    "nan": (lambda: auroc([0.1, np.nan], [1.0]), r"inside: got shape \(2,\), 1 of it NaN"),
    "no scores": (lambda: auroc([0.1], []), r"outside: got shape \(0,\)"),
    "logits": (lambda: in_distribution_scores(np.ones((2, 3, 4))), "wanted 1 within"),
}


@pytest.mark.parametrize(("call", "message"), BAD.values(), ids=BAD)
def test_mistakes_are_named(call, message):
    with pytest.raises(EvaluationError, match=message):
        call()
