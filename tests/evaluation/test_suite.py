"""Suites of parts: what evaluations gain by them, corrupted sets, and what is refused before anything is predicted."""

import dataclasses
import json

import numpy as np
import pytest
from scipy.special import log_softmax
from scipy.stats import pearsonr, spearmanr

from jaxtickets import evaluation
from jaxtickets.evaluation import (
    Corrupted,
    Diverse,
    EvaluationError,
    OutOfDistribution,
    accuracy_correlation,
    evaluate,
)

EXACT = 1e-12  # float64 sums in another order


@dataclasses.dataclass
class Network:
    params: dict
    info: dict


class Linear:
    """An ensemble of three sparse linear classifiers of five features and four classes."""

    def __init__(self, members=3):
        rng = np.random.default_rng(0)
        self.masks = [{"w": rng.random((5, 4)) < 0.5} for _ in range(members)]
        self.members = [
            Network({"w": rng.standard_normal((5, 4)) * mask["w"]}, {"ever_active": 0.7})
            for mask in self.masks
        ]
        self.predicted = []

    def member_log_proba(self, x, batch_size=None):
        self.predicted.append(getattr(x, "name", "pair"))
        x = x.x if hasattr(x, "x") else x
        return np.stack([log_softmax(x @ member.params["w"], -1) for member in self.members])


@dataclasses.dataclass
class Set:
    x: np.ndarray
    y: np.ndarray
    corruption: str = "fog"
    severity: int = 1
    generated: bool = False

    @property
    def name(self):
        return f"{self.corruption}-{self.severity}"


def examples(seed=1, count=120):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((count, 5)), rng.integers(0, 4, count)


SETS = [
    Set(*examples(seed), corruption=name, severity=seed)
    for name, seed in (("fog", 1), ("fog", 2), ("snow", 5))
]


def test_corrupted_rows_are_evaluations_of_the_sets():
    found = evaluate(Linear(), examples(), suite=Corrupted(SETS), combine="logits").parts[
        "corrupted"
    ]
    assert [(row["corruption"], row["severity"]) for row in found["sets"]] == [
        ("fog", 1),
        ("fog", 2),
        ("snow", 5),
    ]
    for row, each in zip(found["sets"], SETS, strict=True):
        alone = evaluate(Linear(), (each.x, each.y), combine="logits")
        wanted = {name: getattr(alone.ensemble, name) for name in ("accuracy", "nll", "ece")}
        assert {name: row[name] for name in wanted} == wanted
        assert row["members_accuracy"] == pytest.approx(alone.mean.accuracy, abs=EXACT)
    assert found["mean"] == pytest.approx(
        {name: np.mean([row[name] for row in found["sets"]]) for name in found["mean"]}, abs=EXACT
    )
    assert found["generated"] is False
    assert evaluate(
        Linear(),
        examples(),
        suite=Corrupted([dataclasses.replace(SETS[0], generated=True), *SETS[1:]]),
    ).parts["corrupted"]["generated"]


def test_corrupted_sets_go_on_where_they_were():
    whole = Corrupted(SETS)(Linear(), examples())
    tickets, met = Linear(), []
    rows = Corrupted(iter(SETS), on_set=met.append).rows(tickets, examples())
    first = [next(rows), next(rows)]
    assert (
        met == tickets.predicted == ["fog-1", "fog-2"]
    )  # a row is there before the next set is predicted
    again = Linear()
    assert Corrupted(SETS, done=json.loads(json.dumps(first)))(again, examples()) == whole
    assert again.predicted == ["snow-5"]


class Restricted(Set):
    classes = np.array([2, 0])


def test_corrupted_sets_are_restricted_as_the_test_set_is():
    x, y = examples()
    test = Restricted(x, y % 2)
    of_test = evaluate(Linear(), test)
    row = Corrupted([Set(x, y % 2)])(Linear(), test)["sets"][0]
    assert row["accuracy"] == of_test.ensemble.accuracy
    assert len(of_test.per_class.ensemble) == 2
    other = OutOfDistribution({"same": Set(x, y)})(Linear(), test)
    assert other["same"]["entropy"] == 0.5  # restricted as well


def test_diversity_is_made_of_the_measures():
    tickets, (x, y) = Linear(), examples()
    result = evaluate(tickets, (x, y), suite=["diversity"])
    assert tickets.predicted == ["pair"]  # once, for all
    found, log_p = result.parts["diversity"], tickets.member_log_proba(x)
    assert (found["disagreement"], found["kl"], found["mask_iou"]) == dataclasses.astuple(
        result.diversity
    )
    assert found["mask_hamming"] == evaluation.pair_mean(
        evaluation.mask_hamming_matrix(tickets.masks)
    )
    assert found["weight_cosine"] == evaluation.pair_mean(
        evaluation.weight_cosine_matrix([t.params for t in tickets.members])
    )
    assert found["oracle"] == evaluation.oracle_diversity(log_p.argmax(-1) == y).to_dict()
    assert found["class_disagreement"] == evaluation.class_disagreement(log_p, y).tolist()
    assert found["disagreement_matrix"] == evaluation.disagreement_matrix(log_p).tolist()
    assert found["itop"] == [0.7] * 3
    assert json.loads(json.dumps(result.to_dict(), allow_nan=False))["parts"]["diversity"] == found
    assert "diversity: disagreement 0." in str(result)
    assert max(map(len, str(result).splitlines())) <= 100


def test_one_member_has_no_diversity():
    found = evaluate(Linear(1), examples(), suite="diversity").parts["diversity"]
    assert {
        found[name] for name in ("disagreement", "kl", "mask_iou", "mask_hamming", "weight_cosine")
    } == {None}
    assert found["class_disagreement"] == [None] * 4


BAD = {
    "unknown": (
        "diverse",
        "suite: got 'diverse', wanted one of 'adversarial', 'diversity', 'features', or a metric",
    ),
    "corrupted": (
        ["corrupted"],
        r"suite: got 'corrupted', which needs arguments: which sets: Corrupted\(sets\)",
    ),
    "ood": ("ood", r'OutOfDistribution\(\{"svhn": svhn\}\)'),
    "a class": ([Diverse], "suite: got the class Diverse"),
    "no part": ([3], "suite: got int, wanted names of metrics"),
    "twice": (["diversity", Diverse()], "wanted each once"),
}


@pytest.mark.parametrize(("suite", "message"), BAD.values(), ids=BAD)
def test_suites_that_cannot_be_are_refused_before_predicting(suite, message):
    tickets = Linear()
    with pytest.raises(EvaluationError, match=message):
        evaluate(tickets, examples(), suite=suite)
    with pytest.raises(EvaluationError, match="combine: got 'median'"):
        evaluate(tickets, examples(), combine="median")  # pyright: ignore[reportArgumentType]
    assert not tickets.predicted


@pytest.mark.parametrize(
    ("sets", "message"),
    [
        ([], "sets: got none"),
        ([examples()], "sets: got tuple without name, corruption, severity, generated"),
        ([SETS[0], SETS[0]], "sets: got fog of severity 1 twice"),
        ([Set(SETS[0].x, SETS[0].y + 1)], "y of fog-1: got labels from 1 to 4, wanted 0 to 3"),
    ],
)
def test_sets_that_are_not_corrupted_sets_are_named(sets, message):
    with pytest.raises(EvaluationError, match=message):
        evaluate(Linear(), examples(), suite=[Corrupted(sets)])


@pytest.mark.parametrize("kind", ["random", "ties", "line", "constant"])
def test_correlation_of_accuracies_is_that_of_scipy(kind):
    rng = np.random.default_rng(4)
    x = rng.random(14).round(1 if kind == "ties" else 9)
    y = {"line": 2 * x + 1, "constant": np.ones(14)}.get(
        kind, x + rng.random(14).round(1 if kind == "ties" else 9)
    )
    found = accuracy_correlation(x, y)
    if kind == "constant":
        assert np.isnan(
            [found.pearson, found.pearson_pvalue, found.spearman, found.spearman_pvalue]
        ).all()
        return
    theirs = (*pearsonr(x, y), *spearmanr(x, y))
    ours = (found.pearson, found.pearson_pvalue, found.spearman, found.spearman_pvalue)
    # Of a line r is 1 up to rounding, and p a high power of what rounding leaves: nothing but very small.
    assert ours == pytest.approx(theirs, rel=1e-9, abs=1e-30 if kind != "line" else 1e-12)
    with pytest.raises(EvaluationError, match="got 2 runs, wanted 3 or more"):
        accuracy_correlation(x[:2], y[:2])
