"""Diversity against SciPy, and against tables worked by hand."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from others import others

from jaxtickets.evaluation import (
    EvaluationError,
    as_log_proba,
    class_disagreement,
    disagreement_matrix,
    kl_matrix,
    mask_hamming_matrix,
    mask_iou,
    mask_iou_matrix,
    pair_mean,
    pairwise_kl,
    prediction_disagreement,
    weight_cosine_matrix,
)

EXACT = 1e-12  # float64 sums in another order
DENSE = np.ones((), bool)


def members(count: int, examples: int = 50, classes: int = 7, scale: float = 2.0) -> np.ndarray:
    logits = scale * np.random.default_rng(5).standard_normal((count, examples, classes))
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def labels(*predicted: list[int]) -> np.ndarray:
    """Members that are sure of these labels, of three classes."""
    return as_log_proba(np.eye(3)[np.array(predicted)])


def test_disagreement_by_hand():
    three = labels([0, 1, 2, 0], [0, 1, 2, 1], [1, 1, 0, 1])
    # Pairs (0, 1): one of four; (0, 2): three; (1, 2): two.
    assert disagreement_matrix(three).tolist() == [[0, 0.25, 0.75], [0.25, 0, 0.5], [0.75, 0.5, 0]]
    assert prediction_disagreement(three) == 0.5


def test_disagreement_looks_at_labels_only():
    one = as_log_proba([[0.9, 0.1], [0.4, 0.6]])
    assert prediction_disagreement([one, as_log_proba([[0.51, 0.49], [0.0, 1.0]])]) == 0.0
    assert prediction_disagreement([one, as_log_proba([[0.49, 0.51], [0.6, 0.4]])]) == 1.0


def test_pairs_that_agree_everywhere_count():
    # The FreeTickets code would say (2 * (.5 + .001)) / 2: it leaves out the pair that agrees, and adds .001.
    assert prediction_disagreement(labels([0, 0], [0, 0], [0, 1])) == pytest.approx(
        1 / 3, abs=EXACT
    )


def test_kl_is_that_of_scipy():
    stats = others("scipy.stats")
    log_p = members(4)
    p = np.exp(log_p)
    matrix = kl_matrix(log_p)
    for i, j in itertools.product(range(4), repeat=2):
        assert matrix[i, j] == pytest.approx(stats.entropy(p[i], p[j], axis=-1).mean(), abs=EXACT)
    assert pairwise_kl(log_p) == pytest.approx(
        np.mean([matrix[i, j] for i, j in itertools.permutations(range(4), 2)]), abs=EXACT
    )


def test_kl_takes_both_directions():
    a, b = np.log([[0.5, 0.5]]), np.log([[0.9, 0.1]])
    forward = 0.5 * math.log(0.5 / 0.9) + 0.5 * math.log(0.5 / 0.1)
    backward = 0.9 * math.log(0.9 / 0.5) + 0.1 * math.log(0.1 / 0.5)
    np.testing.assert_allclose(kl_matrix([a, b]), [[0, forward], [backward, 0]], atol=EXACT)
    assert (
        pairwise_kl([a, b])
        == pairwise_kl([b, a])
        == pytest.approx((forward + backward) / 2, abs=EXACT)
    )


def test_kl_over_more_examples_than_one_block():
    log_p = members(2, examples=10_000, classes=3)
    p = np.exp(log_p)
    assert kl_matrix(log_p)[1, 0] == pytest.approx(
        np.mean(np.sum(p[1] * (log_p[1] - log_p[0]), -1)), abs=EXACT
    )


def test_kl_at_probability_zero():
    floor = math.log(np.finfo(np.float32).tiny)
    sure, other, torn = (
        as_log_proba([[1.0, 0.0]]),
        as_log_proba([[0.0, 1.0]]),
        as_log_proba([[0.5, 0.5]]),
    )
    matrix = kl_matrix([sure, other, torn])
    assert matrix[0, 2] == pytest.approx(
        math.log(2), abs=EXACT
    )  # 0 log 0 is 0: exact, nothing clipped
    assert (
        matrix[0, 1] == matrix[1, 0] == pytest.approx(-floor, abs=EXACT)
    )  # the largest value there is
    assert matrix[2, 0] == pytest.approx(-math.log(2) - 0.5 * floor, abs=EXACT)
    assert pairwise_kl([sure, sure]) == 0.0


def test_kl_of_float32_predictions_is_never_negative():
    log_p = members(2).astype(np.float32)
    log_p[1] = log_p[0] + np.float32(
        1e-7
    )  # sums are off by rounding; unnormalised, one direction would be below 0
    matrix = kl_matrix(log_p)
    assert (matrix >= 0).all()
    assert matrix.max() < 1e-12  # second order in differences of 1e-7
    assert kl_matrix(log_p[[0, 0]]).tolist() == [[0, 0], [0, 0]]


def test_iou_by_hand():
    def mask(kernel, out):
        return {"a": {"kernel": np.array(kernel, bool), "bias": DENSE}, "out": np.array(out, bool)}

    masks = [
        mask([[1, 1], [0, 0]], [1, 0, 0]),  # 3 survive
        mask([[1, 0], [1, 0]], [1, 1, 0]),  # 4: shares 1 + 1, union 3 + 2
        mask(
            [[0, 0], [1, 1]], [0, 0, 1]
        ),  # 3: shares 0 of 7 with the first; 1 of 6 with the second
    ]
    np.testing.assert_allclose(
        mask_iou_matrix(masks), [[1, 2 / 5, 0], [2 / 5, 1, 1 / 6], [0, 1 / 6, 1]], rtol=EXACT
    )
    assert mask_iou(masks) == pytest.approx((2 / 5 + 0 + 1 / 6) / 3, abs=EXACT)
    assert mask_iou([masks[0], masks[0]]) == 1.0


def test_iou_counts_survivors_and_not_zeros():
    few, more = np.zeros(1000, bool), np.zeros(1000, bool)
    few[:1], more[:2] = True, True  # equal in 999 of 1000 places
    assert mask_iou([{"w": few}, {"w": more}]) == 0.5


def test_iou_of_device_arrays():
    assert (
        mask_iou(
            [
                [jnp.array([True, True]), jnp.ones((), bool)],
                [jnp.array([False, True]), jnp.ones((), bool)],
            ]
        )
        == 0.5
    )


def test_iou_without_masks_is_nan():
    assert math.isnan(mask_iou([{"w": DENSE}, {"w": DENSE}]))
    assert np.isnan(mask_iou_matrix([{"w": DENSE}, {"w": DENSE}])).all()
    assert math.isnan(
        mask_iou([{"w": np.zeros(3, bool)}, {"w": np.zeros(3, bool)}])
    )  # nothing survives
    assert mask_iou([{"w": np.zeros(3, bool)}, {"w": np.ones(3, bool)}]) == 0.0


@pytest.mark.parametrize("order", [1, -1])
def test_a_dense_member_beside_a_masked_one_is_full(order):
    masks = [{"w": DENSE, "v": DENSE}, {"w": np.array([True, False, False, False]), "v": DENSE}][
        ::order
    ]
    assert mask_iou(masks) == 0.25
    assert mask_iou_matrix(masks).tolist() == [[1, 0.25], [0.25, 1]]


def test_one_member_has_no_pairs():
    one = members(1)
    assert all(
        math.isnan(value)
        for value in (
            prediction_disagreement(one),
            pairwise_kl(one),
            mask_iou([{"w": np.ones(3, bool)}]),
        )
    )
    assert disagreement_matrix(one).tolist() == kl_matrix(one).tolist() == [[0]]
    assert mask_iou_matrix([{"w": np.ones(3, bool)}]).tolist() == [[1]]
    assert math.isnan(pair_mean([[7.0]]))


@pytest.mark.parametrize(
    "measure", [disagreement_matrix, prediction_disagreement, kl_matrix, pairwise_kl]
)
def test_predictions_are_checked(measure):
    for wrong in (
        members(2)[0],
        np.zeros((0, 3, 2)),
        np.exp(members(2)),
        np.full((2, 3, 2), np.nan),
    ):
        with pytest.raises(EvaluationError, match="member_log_proba: got"):
            measure(wrong)


@pytest.mark.parametrize(
    ("masks", "message"),
    [
        ([], "masks: got none"),
        (
            [{"w": np.ones(3, bool)}, {"v": np.ones(3, bool)}],
            "for member 1, wanted the tree of member 0",
        ),
        ([{"w": np.ones(3, bool)}, {"w": np.ones(4, bool)}], r"got bool\[3\], bool\[4\] at 'w'"),
        (
            [{"w": np.ones(3)}, {"w": np.ones(3)}],
            r"got float64\[3\], float64\[3\] at 'w', wanted bool",
        ),
        ([{"w": np.zeros((), bool)}, {"w": DENSE}], r"got False, True at 'w'"),
    ],
)
def test_masks_are_checked(masks, message):
    with pytest.raises(EvaluationError, match=message):
        mask_iou(masks)


def test_disagreement_of_classes_against_every_pair():
    rng = np.random.default_rng(12)
    log_p = np.log(rng.dirichlet(np.ones(4), (5, 300)))
    y = rng.integers(0, 3, 300)  # no example of class 3
    labels = log_p.argmax(-1)
    pairs = np.array([labels[i] != labels[j] for i in range(5) for j in range(i)])
    found = class_disagreement(log_p, y)
    np.testing.assert_allclose(
        found[:3], [pairs[:, y == c].mean() for c in range(3)], rtol=1e-12
    )  # sums in another order
    assert np.isnan(found[3])
    weighted = found[:3] @ np.bincount(y) / 300
    assert weighted == pytest.approx(prediction_disagreement(log_p), rel=1e-12)
    assert np.isnan(class_disagreement(log_p[:1], y)).all()
    assert class_disagreement(np.repeat(log_p[:1], 3, 0), y)[:3].tolist() == [0.0] * 3


def test_hamming_distance_is_that_of_scipy():
    from scipy.spatial.distance import pdist, squareform

    rng = np.random.default_rng(13)
    masks = [
        {"a": rng.random((6, 5)) < 0.3, "b": rng.random(40) < 0.7, "norm": np.array(True)}
        for _ in range(4)
    ]
    flat = np.array([np.concatenate([mask["a"].ravel(), mask["b"]]) for mask in masks])
    np.testing.assert_allclose(
        mask_hamming_matrix(masks), squareform(pdist(flat, "hamming")), rtol=1e-12
    )
    half, dense = {"w": np.array([True, False])}, {"w": np.array(True)}
    assert mask_hamming_matrix([half, dense]).tolist() == [[0, 0.5], [0.5, 0]]
    assert np.isnan(mask_hamming_matrix([dense, dense])).all()
    with pytest.raises(EvaluationError, match="masks: got none"):
        mask_hamming_matrix([])


def test_cosine_of_weights_is_that_of_scipy(monkeypatch):
    from scipy.spatial.distance import cosine

    monkeypatch.setattr("jaxtickets.evaluation.parameters._AT_ONCE", 7)
    rng = np.random.default_rng(14)
    params = [
        {
            "conv": {"kernel": rng.standard_normal((3, 4)).astype(np.float32), "bias": np.ones(4)},
            "w": rng.standard_normal((5, 2)),
        }
        for _ in range(3)
    ]
    flat = [
        np.concatenate([p["conv"]["kernel"].ravel().astype(float), p["w"].ravel()]) for p in params
    ]  # no biases
    found = weight_cosine_matrix(params)
    for i in range(3):
        for j in range(3):
            assert found[i, j] == pytest.approx(
                1 - cosine(flat[i], flat[j]), abs=1e-12
            )  # sums in another order
    zero = jax.tree.map(np.zeros_like, params[0])
    assert np.isnan(weight_cosine_matrix([params[0], zero])).tolist() == [
        [False, True],
        [True, True],
    ]
    biases = weight_cosine_matrix(params, rules=[("bias", True), (".*", False)])
    np.testing.assert_allclose(biases, 1.0, rtol=1e-12)
    for bad, message in (
        (([],), "params: got none"),
        (([*params[:1], {"w": params[0]["w"]}],), "another tree or other shapes for member 1"),
        ((params, [("nothing", True), (".*", False)]), "rules: the rule"),
    ):
        with pytest.raises(EvaluationError, match=message):
            weight_cosine_matrix(*bad)
