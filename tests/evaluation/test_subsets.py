"""All subsets against one subset at a time, by the definition."""

import itertools
import math
from types import SimpleNamespace

import numpy as np
import pytest

from jaxtickets.evaluation import (
    EvaluationError,
    glue_score,
    mask_overlap,
    subset_means,
    subset_scores,
)
from jaxtickets.evaluation.task_scores import score_function

EXACT = 1e-12  # sums of a few float64 numbers in another order


def predictions(members, examples, classes, seed=0):
    """Probabilities [M, B, C] of members that are right more often than chance, and labels; values if classes is None."""
    rng = np.random.default_rng(seed)
    if classes is None:
        y = rng.random(examples) * 5
        return y + rng.standard_normal((members, examples)), y
    y = rng.integers(0, classes, examples)
    logits = rng.standard_normal((members, examples, classes))
    logits[:, np.arange(examples), y] += 0.7
    p = np.exp(logits)
    return p / p.sum(-1, keepdims=True), y


CASES = [
    (2, "accuracy"),
    (2, "f1"),
    (2, "matthews"),
    (3, "accuracy"),
    (5, "accuracy"),
    (3, "matthews"),
    (None, "pearson"),
    (None, "spearman"),
]


@pytest.mark.parametrize(("classes", "score"), CASES)
@pytest.mark.parametrize("sizes", [(1, 2, 3), (3,), (2, 6), (6,)])
def test_every_subset(classes, score, sizes):
    p, y = predictions(6, 80, classes)
    found = subset_scores(p, y, sizes, score)
    assert sorted(found) == sorted(sizes)
    for size in sizes:
        wanted = [
            score_function(score)(p[list(c)].mean(0), y)
            for c in itertools.combinations(range(6), size)
        ]
        assert found[size].shape == (1, math.comb(6, size))
        np.testing.assert_allclose(found[size][0], wanted, atol=EXACT)


def test_every_size_of_ten_members():
    p, y = predictions(10, 60, 2, seed=1)
    found = subset_scores(p.astype(np.float32), y, range(1, 11))
    assert [found[k].size for k in range(1, 11)] == [math.comb(10, k) for k in range(1, 11)]
    for k in (1, 5, 9, 10):
        means = p.astype(np.float32)[np.array(list(itertools.combinations(range(10), k)))].mean(
            1, dtype=np.float64
        )
        np.testing.assert_array_equal(found[k][0], (means.argmax(-1) == y).mean(-1))


@pytest.mark.parametrize("classes", [2, None])
def test_groups_do_not_meet(classes):
    p, y = predictions(8, 40, classes, seed=2)
    score = "pearson" if classes is None else "matthews"
    two = subset_scores(p, y, (1, 3), score, groups=2)
    for g, rows in enumerate((slice(0, 4), slice(4, 8))):
        alone = subset_scores(p[rows], y, (1, 3), score)
        assert two[3].shape == (2, 4)
        np.testing.assert_array_equal(two[3][g], alone[3][0])
        np.testing.assert_array_equal(two[1][g], alone[1][0])
    mixed = subset_scores(p, y, 2, score, groups=[[7, 1, 4], [0, 2, 3]])[2]
    reordered = subset_scores(p[[7, 1, 4]], y, 2, score)[2]
    np.testing.assert_array_equal(mixed[0], reordered[0])


def test_any_function_is_a_score():
    p, y = predictions(5, 30, 3, seed=3)

    def nll(proba, labels):
        return -np.log(proba[np.arange(len(labels)), labels]).mean()

    found = subset_scores(p, y, 2, nll)[2][0]
    np.testing.assert_allclose(
        found, [nll(p[list(c)].mean(0), y) for c in itertools.combinations(range(5), 2)], rtol=EXACT
    )
    same = subset_scores(
        p, y, 2, lambda proba, labels: glue_score("mnli", proba, labels)["accuracy"]
    )[2]
    np.testing.assert_allclose(same, subset_scores(p, y, 2)[2], rtol=EXACT)


@pytest.mark.parametrize("classes", [2, 3, 4])
def test_a_tie_goes_to_the_lowest_class(classes):
    p = np.full((2, classes, classes), 1 / classes)  # every class is as probable as every other
    y = np.arange(classes)
    for k in (1, 2):
        np.testing.assert_array_equal(
            subset_scores(p, y, k)[k], 1 / classes
        )  # class 0 alone is right
    apart = np.zeros((2, classes, classes))
    apart[0, :, 0] = apart[1, :, -1] = (
        1  # one member is sure of the first class, the other of the last
    )
    assert subset_scores(apart, y, 2)[2].item() == 1 / classes
    assert subset_scores(apart[::-1], y, 2)[2].item() == 1 / classes


@pytest.mark.parametrize("score", ["f1", "matthews"])
def test_members_that_predict_one_class(score):
    sure = np.tile([[0.9, 0.1]], (3, 6, 1))
    y = np.array([0, 1, 0, 1, 1, 0])
    assert subset_scores(sure, y, (1, 2), score)[2].tolist() == [
        [0.0] * 3
    ]  # nothing is predicted to be 1
    assert subset_scores(sure, 0 * y, 2, score)[2].tolist() == [
        [0.0] * 3
    ]  # nor is there anything to predict
    assert subset_scores(sure[..., ::-1], y, 2, score)[2][0] == pytest.approx(
        [2 * 3 / 9 if score == "f1" else 0.0] * 3, abs=EXACT
    )


def test_means():
    p, y = predictions(6, 20, 3, seed=4)
    means = subset_means(p, 2, groups=2)
    pairs = [(0, 1), (0, 2), (1, 2), (3, 4), (3, 5), (4, 5)]
    np.testing.assert_allclose(means, [p[list(pair)].mean(0) for pair in pairs], rtol=EXACT)
    values, _ = predictions(4, 20, None)
    np.testing.assert_allclose(subset_means(values, 4), values.mean(0)[None], rtol=EXACT)


def test_a_collapsed_regression_is_nan_and_not_a_score():
    values, y = predictions(3, 20, None)
    values[:2] = 2.5
    found = subset_scores(values, y, (1, 2), "pearson")
    assert np.isnan(found[1][0]).tolist() == [True, True, False]
    assert np.isnan(found[2][0]).tolist() == [True, False, False]


P, Y = predictions(4, 10, 2)
BAD = {
    "sizes 0": (lambda: subset_scores(P, Y, (0, 2)), "sizes: got .*from 1 to 4"),
    "sizes 5": (lambda: subset_scores(P, Y, 5), "from 1 to 4"),
    "sizes of a group": (
        lambda: subset_scores(P, Y, 3, groups=2),
        "from 1 to 2, the members of a group",
    ),
    "no sizes": (lambda: subset_scores(P, Y, ()), "sizes"),
    "half a size": (lambda: subset_scores(P, Y, (1.5,)), "sizes"),  # pyright: ignore[reportArgumentType]
    "groups 3": (lambda: subset_scores(P, Y, 1, groups=3), "divides the 4 members"),
    "unequal groups": (lambda: subset_scores(P, Y, 1, groups=[[0, 1], [2]]), "equally long"),
    "twice": (lambda: subset_scores(P, Y, 1, groups=[[0, 1], [1, 2]]), "different members"),
    "absent": (lambda: subset_scores(P, Y, 1, groups=[[0, 4]]), "0 to 3"),
    "no groups": (lambda: subset_scores(P, Y, 1, groups=[]), "groups"),
    "score": (lambda: subset_scores(P, Y, 1, "auc"), "score: got 'auc', wanted one of accuracy"),
    "score of values": (lambda: subset_scores(P, Y, 1, "pearson"), "wanted values"),
    "score of labels": (lambda: subset_scores(P[..., 0], Y, 1, "f1"), "wanted probabilities"),
    "f1 of three": (lambda: subset_scores(*predictions(2, 5, 3), 1, "f1"), "wanted 2: F1"),
    "logits": (lambda: subset_scores(5 * P, Y, 1), "softmax"),
    "one member": (lambda: subset_scores(P[0, :, 0], Y, 1), r"values \[M, B\]"),
    "labels": (lambda: subset_scores(P, Y + 1, 1), "labels from 1 to 2"),
    "size of means": (lambda: subset_means(P, 5), "from 1 to 4"),
}


@pytest.mark.parametrize(("call", "message"), BAD.values(), ids=BAD)
def test_mistakes_are_named(call, message):
    with pytest.raises(EvaluationError, match=message):
        call()


def test_mask_overlap_reads_the_masks():
    three = SimpleNamespace(
        masks=[{"w": np.array(row, bool)} for row in ([1, 1, 0, 0], [0, 1, 1, 0], [1, 1, 1, 0])]
    )
    np.testing.assert_allclose(
        mask_overlap(three), [[1, 1 / 3, 2 / 3], [1 / 3, 1, 2 / 3], [2 / 3, 2 / 3, 1]], rtol=EXACT
    )
    with pytest.raises(EvaluationError, match="got ndarray without masks"):
        mask_overlap(np.ones(3))  # pyright: ignore[reportArgumentType]
