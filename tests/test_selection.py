"""Selection against numpy's stable sort, and shares against Python's fractions."""

import math
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtickets.masks import scores
from jaxtickets.masks.counting import exact_floor
from jaxtickets.masks.selection import keep_largest, order_bits

pytestmark = pytest.mark.usefixtures("strict_arithmetic")
KEEP = jax.jit(keep_largest)
RNG = np.random.default_rng(0)


def by_sorting(values, count, where=None):
    """The same by a stable sort: largest first, NaN after everything, ties by flat index."""
    flat = np.asarray(values).astype(np.float64).reshape(-1)
    candidates = np.ones(flat.size, bool) if where is None else np.asarray(where).reshape(-1)
    nan = np.isnan(flat)
    order = np.lexsort((np.arange(flat.size), -np.where(nan, 0, flat), nan))
    order = order[candidates[order]][:count]
    kept = np.zeros(flat.size, bool)
    kept[order] = True
    return kept.reshape(np.shape(values))


def half_precision(values):
    return jnp.asarray(values, jnp.bfloat16)


TINY = np.float32(1e-45)
SCORES = {
    "random": RNG.normal(size=(13, 17)).astype(np.float32),
    "magnitudes": np.abs(RNG.normal(size=211)).astype(np.float32),
    "tied": RNG.integers(-2, 3, size=(10, 10, 2)).astype(np.float32),
    "equal": np.full(57, 0.25, np.float32),
    "zeros": np.zeros((5, 9), np.float32),
    "bf16": half_precision(RNG.normal(size=500)),
    "float16": RNG.normal(size=300).astype(np.float16),
    "negative": -np.exp(RNG.normal(size=100)).astype(np.float32),
    "signed zeros": np.array([-0.0, 0.0, -0.0, 0.0, 1.0, -1.0, 0.0, -0.0], np.float32),
    "infinite": np.array([np.inf, -np.inf, 3e38, -3e38, np.inf, 0.0, -np.inf, 1.0], np.float32),
    "nan": np.array(
        [np.inf, np.nan, 1.0, -np.nan, -1.0, np.copysign(np.nan, -1), -np.inf], np.float32
    ),
    "subnormal": np.array([0.0, TINY, -TINY, 3 * TINY, 1e-40, 1.2e-38, -1e-40, 0.0], np.float32),
    "one": np.array([3.0], np.float32),
    "nothing but nan": np.full((1, 7), np.nan, np.float32),
}


@pytest.mark.parametrize("name", SCORES)
def test_equals_a_stable_sort(name):
    values = jnp.asarray(SCORES[name])
    where = jnp.asarray(np.random.default_rng(1).random(values.shape) < 0.6)
    for count in sorted(
        {0, 1, 2, 3, values.size // 3, values.size // 2, values.size - 1, values.size}
    ):
        kept = np.asarray(KEEP(values, count))
        np.testing.assert_array_equal(kept, by_sorting(values, count))
        assert kept.sum() == min(count, values.size)
        np.testing.assert_array_equal(KEEP(values, count, where), by_sorting(values, count, where))


def test_bits_order_as_floats_do_and_integers_pass_through():
    values = np.concatenate(
        [np.asarray(v, np.float32).reshape(-1) for n, v in SCORES.items() if "nan" not in n]
    )
    keys = np.asarray(order_bits(jnp.asarray(values)))
    i, j = np.random.default_rng(2).integers(0, values.size, (2, 4000))
    np.testing.assert_array_equal(keys[i] < keys[j], values[i] < values[j])
    np.testing.assert_array_equal(keys[i] == keys[j], values[i] == values[j])
    bits = jnp.array([0, 1, 2**31, 2**32 - 1], jnp.uint32)
    assert order_bits(bits) is bits


def test_random_bits_are_ordered_as_unsigned():
    bits = (
        jax.random.bits(jax.random.key(0), (300,), jnp.uint32)
        .at[:3]
        .set(jnp.array([0, 2**32 - 1, 2**31], jnp.uint32))
    )
    for count in (0, 1, 2, 100, 299, 300):
        np.testing.assert_array_equal(KEEP(bits, count), by_sorting(bits, count))


def test_ties_beside_neighbouring_scores():
    """Scores one apart, where an end of the search that is off by one takes the next score for a tie."""
    scores = jnp.asarray(np.random.default_rng(3).integers(0, 4, 60), jnp.uint32)
    for count in range(61):
        np.testing.assert_array_equal(KEEP(scores, count), by_sorting(scores, count))


@pytest.mark.parametrize("dtype", ["float32", "uint32"])
def test_too_few_candidates_are_all_kept_and_nothing_else(dtype):
    values = jnp.arange(10).astype(dtype)
    where = jnp.arange(10) % 3 == 0  # the lowest score, 0, among them
    for count in (4, 5, 100, 2**31 - 1):
        np.testing.assert_array_equal(KEEP(values, count, where), where)
        assert KEEP(values, count).all() == (count >= 10)
    assert not KEEP(values, 3, jnp.zeros(10, bool)).any()


def test_over_a_tree_it_is_one_selection_over_all_leaves():
    tree = {
        "b": jnp.asarray(SCORES["tied"]),
        "a": jnp.asarray(SCORES["zeros"]),
        "c": [jnp.asarray(SCORES["random"]), jnp.asarray(SCORES["one"])],
        "none": jnp.zeros((0, 3)),
    }
    where = jax.tree.map(
        lambda leaf: jnp.asarray(np.random.default_rng(leaf.size).random(leaf.shape) < 0.7), tree
    )
    joined, joined_where = (
        np.concatenate([np.asarray(leaf).reshape(-1) for leaf in jax.tree.leaves(t)])
        for t in (tree, where)
    )
    for count in (0, 1, 60, 150, 300, joined.size):
        for among, reference in (
            (None, by_sorting(joined, count)),
            (where, by_sorting(joined, count, joined_where)),
        ):
            kept = KEEP(tree, count, among)
            assert jax.tree.structure(kept) == jax.tree.structure(tree)
            np.testing.assert_array_equal(
                np.concatenate([np.asarray(leaf).reshape(-1) for leaf in jax.tree.leaves(kept)]),
                reference,
            )


def test_with_a_count_per_leaf_it_is_one_selection_per_leaf():
    tree = {
        "a": jnp.asarray(SCORES["zeros"]),
        "b": jnp.asarray(SCORES["tied"]),
        "c": [jnp.asarray(SCORES["random"]), jnp.asarray(SCORES["one"])],
        "none": jnp.zeros((0, 3)),
    }
    where = jax.tree.map(
        lambda leaf: jnp.asarray(np.random.default_rng(leaf.size).random(leaf.shape) < 0.7), tree
    )
    for counts in (
        {"a": 7, "b": 0, "c": [100, 1]},
        {"a": 45, "b": 33, "c": [1, 0]},
        {"a": 0, "b": 200, "c": [221, 1]},
    ):
        counts = counts | {"none": 0}
        for among in (None, where):
            kept = KEEP(tree, counts, among)
            for values, count, got, ok in zip(
                *map(
                    jax.tree.leaves,
                    (tree, counts, kept, among or jax.tree.map(jnp.ones_like, tree)),
                ),
                strict=True,
            ):
                np.testing.assert_array_equal(got, by_sorting(values, count, np.asarray(ok, bool)))


def test_other_backends_count_without_the_cpus_detour(monkeypatch):
    values = jnp.asarray(SCORES["tied"])
    traced = jax.jit(lambda v: keep_largest(v, 60)).trace(values)
    texts = {p: traced.lower(lowering_platforms=(p,)).as_text() for p in ("cpu", "cuda", "tpu")}
    assert ["ui8" in text for text in texts.values()] == [True, False, False]
    assert " conditional(" not in traced.lower().compile().as_text()
    monkeypatch.setattr(
        jax.lax, "platform_dependent", lambda *args, default, **forms: default(*args)
    )
    np.testing.assert_array_equal(
        jax.jit(lambda v: keep_largest(v, 60))(values), by_sorting(values, 60)
    )


def test_a_traced_count_compiles_once():
    traces = []

    @jax.jit
    def keep(values, count):
        traces.append(count)
        return keep_largest(values, count)

    for count in (1, 50, 100):
        assert int(keep(jnp.arange(100.0), count).sum()) == count
    assert len(traces) == 1


def test_members_under_vmap_each_have_their_own_count():
    values = jnp.asarray(RNG.integers(0, 5, size=(4, 6, 7)).astype(np.float32))
    counts = jnp.array([0, 5, 20, 42])
    where = jnp.asarray(RNG.random((4, 6, 7)) < 0.8)
    kept = jax.vmap(keep_largest)(values, counts, where)
    for i in range(4):
        np.testing.assert_array_equal(kept[i], by_sorting(values[i], int(counts[i]), where[i]))


def test_share_is_the_exact_floor_of_every_millionth():
    millionths = jnp.arange(1_000_001, dtype=jnp.int32)
    fractions = jnp.asarray(np.arange(1_000_001) / 1e6, jnp.float32)
    np.testing.assert_array_equal(
        jax.vmap(exact_floor, in_axes=(0, None))(fractions, 1_000_000), millionths
    )


def test_share_is_exact_up_to_two_to_the_31():
    rng = np.random.default_rng(0)
    millionths = np.concatenate([rng.integers(0, 1_000_001, 3000), [0, 1, 999_999, 1_000_000] * 4])
    counts = np.concatenate(
        [
            rng.integers(2**31 - 10**7, 2**31, 2000),
            rng.integers(0, 10**7, 1000),
            np.repeat([0, 1, 2**31 - 1, 2**24 + 1], 4),
        ]
    )
    shares = jax.jit(jax.vmap(exact_floor))(
        jnp.asarray(millionths / 1e6, jnp.float32), jnp.asarray(counts, jnp.int32)
    )
    expected = [
        math.floor(Fraction(int(m), 10**6) * int(n))
        for m, n in zip(millionths, counts, strict=True)
    ]
    np.testing.assert_array_equal(shares, expected)


def test_pitfall_6_a_float32_product_would_be_off():
    n = 36_461_239  # about the kernels of WRN-28-10; float32 counts in twos there
    assert int(exact_floor(0.9, n)) == 32_815_115 == math.floor(Fraction(9, 10) * n)
    assert int(jnp.float32(0.9) * n) != 32_815_115


def test_scores_are_absolute_values_in_float32():
    tree = {"w": half_precision([-3.0, 0.5, -0.0]), "v": jnp.array([[-1.0]])}
    for score in (scores.magnitude, scores.gradient):
        out = score(tree)
        assert {leaf.dtype.name for leaf in jax.tree.leaves(out)} == {"float32"}
        assert jax.tree.map(lambda leaf: leaf.tolist(), out) == {"w": [3.0, 0.5, 0.0], "v": [[1.0]]}


def test_random_scores_differ_by_leaf_and_by_key(key):
    tree = {"a": jnp.zeros(64), "b": jnp.zeros(64)}
    draws = scores.random(key, tree)
    assert draws["a"].dtype == jnp.uint32
    assert (draws["a"] != draws["b"]).any()
    assert (scores.random(jax.random.key(1), tree)["a"] != draws["a"]).any()
    np.testing.assert_array_equal(scores.random(key, tree)["a"], draws["a"])
