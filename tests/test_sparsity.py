"""Budgets against hand work, an independent solver and published FLOP ratios; schedules; random masks."""

import functools
import math
import re
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
import scipy.stats

from jaxtickets import masks
from jaxtickets.errors import MaskError
from jaxtickets.masks.sparsity import (
    check_sparsity,
    constant,
    cosine,
    cubic,
    layer_budgets,
    linear,
    num_kept,
    prunable_shapes,
    random_mask,
)
from jaxtickets.models import WideResNet

pytestmark = pytest.mark.usefixtures("strict_arithmetic")
DECIMALS = [0.0, 0.05, 0.1, 0.2, 0.29, 0.3, 0.35, 0.5, 0.57, 0.58, 0.7, 0.8, 0.9, 0.95, 0.99, 0.999]


@pytest.mark.parametrize("sparsity", DECIMALS)
def test_a_layer_keeps_exactly_n_less_floor_s_n(sparsity):
    for n in [*range(1, 201), 1000, 2_359_296, 36_461_232, 2**31 - 1]:
        pruned = Fraction(round(sparsity * 1000), 1000) * n
        assert num_kept(n, sparsity) == n - math.floor(pruned)


@pytest.mark.parametrize("distribution", ["uniform", "er", "erk"])
@pytest.mark.parametrize("sparsity", DECIMALS)
def test_equal_layers_get_the_exact_count_under_every_distribution(distribution, sparsity):
    shapes = {f"layer{i}": (3, 3, 50, 40) for i in range(3)}
    assert layer_budgets(shapes, sparsity, distribution) == dict.fromkeys(
        shapes, num_kept(18000, sparsity)
    )


def test_erk_by_hand():
    # Sizes 64, 4096, 1152; sums of axes 16, 128, 30. At S = .8 the budget is 1062.4. eps = 1062.4 / 174 = 6.1 would give "a"
    # 6.1 * 16 / 64 = 1.5: it is dense. Then eps = 998.4 / 158 = 6.319: 808.8 -> 809 and 189.57 -> 190 weights.
    shapes = {"a": (8, 8), "b": (64, 64), "c": (3, 3, 8, 16)}
    assert layer_budgets(shapes, 0.8, "erk") == {"a": 64, "b": 809, "c": 190}
    # ER reads (8, 16) of "c": 24/128 = 3/16, times 1152 is 216. eps = 1062.4 / 360 = 2.951: a 0.738. Nothing is dense: 47.2,
    # 377.7 and 637.4 weights.
    assert layer_budgets(shapes, 0.8, "er") == {"a": 48, "b": 378, "c": 638}
    assert layer_budgets(shapes, 0.8, "uniform") == {"a": 13, "b": 820, "c": 231}


def solve(shapes, sparsity, axes):
    """Densities min(1, eps * sum / prod) with eps from a root finder."""
    sizes = np.array([math.prod(shape) for shape in shapes], float)
    raw = np.array([sum(shape[axes:]) / math.prod(shape[axes:]) for shape in shapes])

    def excess(eps):
        return np.minimum(1, eps * raw) @ sizes - (1 - sparsity) * sizes.sum()

    return np.minimum(
        1, scipy.optimize.brentq(excess, 0, 2 / raw.min(), xtol=1e-14, rtol=1e-14) * raw
    ) * sizes, sizes


@pytest.mark.parametrize("distribution", ["er", "erk"])
@pytest.mark.parametrize("sparsity", [0.1, 0.5, 0.8, 0.9, 0.95])
def test_er_and_erk_equal_an_independent_solve(distribution, sparsity):
    rng = np.random.default_rng(0)
    for _ in range(20):
        shapes = [
            (*rng.integers(1, 4, 2), *rng.integers(8, 200, 2))
            if rng.random() < 0.7
            else (*rng.integers(8, 400, 2),)
            for _ in range(12)
        ]
        shapes = [tuple(map(int, shape)) for shape in shapes]
        exact, sizes = solve(shapes, sparsity, -2 if distribution == "er" else 0)
        budgets = np.array(
            list(
                layer_budgets(
                    {str(i): s for i, s in enumerate(shapes)}, sparsity, distribution
                ).values()
            )
        )
        assert (budgets >= exact - 1e-4).all()
        assert (budgets < exact + 1 + 1e-4).all()  # rounded up, by less than one weight
        assert (budgets <= sizes).all()
        assert 0 <= budgets.sum() - (1 - sparsity) * sizes.sum() + 1e-6 < len(shapes) + 1e-3


@functools.cache
def wide_resnet(classes):
    """Kernel shapes of WRN-28-10 by path, and their forward FLOPs: 2 x weights x output positions, on images of 32 x 32."""
    init = functools.partial(WideResNet(28, 10, num_classes=classes).init, train=False)
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        shapes = prunable_shapes(
            jax.eval_shape(init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))["params"]
        )
    side = {"conv": 32, "group1": 32, "group2": 16, "group3": 8, "classifier": 1}
    return shapes, {
        path: 2 * math.prod(shape) * side[re.split("[/_]", path)[0]] ** 2
        for path, shape in shapes.items()
    }


@pytest.mark.parametrize(
    ("classes", "total", "gflop", "ratios"),
    [
        (10, 36_461_232, 10.4867, (0.3396, 0.1686, 0.0854)),
        (100, 36_518_832, 10.4868, (0.3374, 0.1663, 0.0828)),
    ],
)
def test_erk_flops_of_wrn_28_10_are_the_reference_values(classes, total, gflop, ratios):
    shapes, flops = wide_resnet(classes)
    sizes = {path: math.prod(shape) for path, shape in shapes.items()}
    assert sum(sizes.values()) == total
    dense = sum(flops.values())
    assert dense / 1e9 == pytest.approx(gflop, abs=5e-5)
    for sparsity, ratio in zip((0.8, 0.9, 0.95), ratios, strict=True):
        budgets = layer_budgets(shapes, sparsity, "erk")
        assert sum(
            flops[path] * budgets[path] / sizes[path] for path in shapes
        ) / dense == pytest.approx(ratio, abs=5e-5)
        assert 0 <= sum(budgets.values()) - (1 - sparsity) * total + 1e-6 < len(shapes)


def test_the_layers_that_erk_leaves_dense_in_wrn_28_10():
    shapes, _ = wide_resnet(10)
    budgets = layer_budgets(shapes, 0.8)
    dense = sorted(shapes[path] for path in shapes if budgets[path] == math.prod(shapes[path]))
    # The first convolution; first 3x3 and 1x1 shortcut of group 1; the shortcuts of groups 2 and 3; the classifier.
    assert dense == sorted(
        [
            (3, 3, 3, 16),
            (3, 3, 16, 160),
            (1, 1, 16, 160),
            (1, 1, 160, 320),
            (1, 1, 320, 640),
            (640, 10),
        ]
    )


def test_layers_left_dense_by_name_count_for_er_and_not_for_uniform():
    shapes = {"first": (3, 3, 3, 16), "a": (64, 64), "b": (64, 64)}
    assert layer_budgets(shapes, 0.75, "uniform", dense=["^first"]) == {
        "first": 432,
        "a": 1024,
        "b": 1024,
    }
    shapes = {"a": (64, 64), "b": (64, 64), "c": (64, 64), "d": (64, 64)}
    # The budget is 8192; "a" takes 4096, and the others share the rest: 4096 / 3.
    assert layer_budgets(shapes, 0.5, "erk", dense=["a"]) == {
        "a": 4096,
        "b": 1366,
        "c": 1366,
        "d": 1366,
    }


@pytest.mark.parametrize("distribution", ["uniform", "er", "erk"])
def test_sparsity_zero_is_dense(distribution):
    assert layer_budgets({"a": (8, 8), "b": (4, 2)}, 0.0, distribution) == {"a": 64, "b": 8}


@pytest.mark.parametrize("sparsity", [1.0, 1, -0.1, 2, math.nan, math.inf, "0.8", None])
def test_a_sparsity_outside_0_1_is_an_error(sparsity):
    for refuse in (
        lambda: check_sparsity(sparsity),
        lambda: layer_budgets({"a": (8, 8)}, sparsity),
        lambda: random_mask(jax.random.key(0), {"w": jnp.ones((4, 4))}, sparsity),
        lambda: cubic(sparsity, 0, 10),
    ):
        with pytest.raises(MaskError, match=r"share of zeros, in \[0, 1\)"):
            refuse()


def test_budgets_that_cannot_be_are_errors():
    shapes = {"a": (8, 8), "b": (64, 64)}
    with pytest.raises(MaskError, match="one of uniform, er, erk; got 'erx'"):
        layer_budgets(shapes, 0.5, "erx")  # pyright: ignore[reportArgumentType]
    with pytest.raises(MaskError, match="dense='c' matches none of the layers a, b"):
        layer_budgets(shapes, 0.5, dense=["c"])
    with pytest.raises(MaskError, match="not one each"):
        layer_budgets({str(i): (2, 2) for i in range(5)}, 0.9)
    with pytest.raises(
        MaskError,
        match=r"leaves 832.0 weights; the layers left dense, \['b'\], and one weight in every other layer are 4097",
    ):
        layer_budgets(shapes, 0.8, dense=["b"])
    with pytest.raises(MaskError, match="are 65"):  # "a" would be left with none at all
        layer_budgets({"a": (8, 8), "b": (8, 8)}, 0.5, dense=["b"])
    with pytest.raises(MaskError, match="begin < end"):
        cubic(0.8, 10, 10)


PARAMS = {
    "conv": {"kernel": jnp.ones((3, 3, 4, 6)), "bias": jnp.ones(6)},
    "head": {"kernel": jnp.ones((50, 30))},
}


@pytest.mark.parametrize(
    ("sparsity", "distribution"),
    [(0.0, "erk"), (0.29, "uniform"), (0.8, "er"), (0.8, "erk"), (0.95, "erk")],
)
def test_random_masks_have_exactly_the_budget(key, distribution, sparsity):
    mask = random_mask(key, PARAMS, sparsity, distribution)
    masks.check(mask, PARAMS)
    budgets = layer_budgets(prunable_shapes(PARAMS), sparsity, distribution)
    assert jax.tree.map(int, masks.counts(mask)) == {
        "conv": {"bias": 0, "kernel": budgets["conv/kernel"]},
        "head": {"kernel": budgets["head/kernel"]},
    }
    assert mask["conv"]["kernel"].shape == (3, 3, 4, 6)
    assert mask["conv"]["bias"].shape == ()


def test_random_masks_read_shapes_only(key):
    abstract = jax.eval_shape(lambda: PARAMS)
    for a, b in zip(
        jax.tree.leaves(random_mask(key, abstract, 0.5)),
        jax.tree.leaves(random_mask(key, PARAMS, 0.5)),
        strict=True,
    ):
        np.testing.assert_array_equal(a, b)


def test_pitfall_2_members_draw_different_masks_and_each_equals_a_lone_draw():
    keys = jax.random.split(jax.random.key(3), 4)
    members = jax.jit(jax.vmap(lambda k: random_mask(k, PARAMS, 0.8)))(keys)
    alone = list(map(jax.jit(lambda k: random_mask(k, PARAMS, 0.8)), keys))
    for i in range(4):
        for together, lone in zip(jax.tree.leaves(members), jax.tree.leaves(alone[i]), strict=True):
            np.testing.assert_array_equal(together[i], lone)
        for j in range(i):
            assert (
                masks.iou(alone[i], alone[j]) < 0.5
            )  # independent masks of density d overlap by d / (2 - d)


def test_pitfall_10_threefry_keys_are_right_under_vmap_and_rbg_keys_are_not():
    params = {"w": jnp.ones((16, 16))}
    draw = jax.jit(lambda k: random_mask(k, params, 0.5, "uniform")["w"])

    def members_are_lone_runs(impl):
        keys = jax.random.split(jax.random.key(0, impl=impl), 3)
        return [
            bool((member == draw(k)).all())
            for member, k in zip(jax.vmap(draw)(keys), keys, strict=True)
        ]

    assert members_are_lone_runs("threefry2x32") == [True, True, True]
    assert members_are_lone_runs("rbg") != [
        True,
        True,
        True,
    ]  # JAX draws them all from the first key


def test_layers_of_equal_shape_get_different_masks(key):
    mask = random_mask(key, {"a": {"w": jnp.ones((20, 20))}, "b": {"w": jnp.ones((20, 20))}}, 0.5)
    assert (mask["a"]["w"] != mask["b"]["w"]).any()


def test_random_masks_are_uniform_over_positions():
    # 4,000 masks that keep 12 of 40. The counts of a position sum to a constant, so (n - 1) / n * chi2 has n - 1 degrees
    # of freedom. The false-alarm rate is one key in a thousand.
    draws, n, k = 4000, 40, 12
    keys = jax.random.split(jax.random.key(7), draws)
    drawn = jax.jit(
        jax.vmap(lambda key: random_mask(key, {"w": jnp.ones((8, 5))}, 0.7, "uniform")["w"])
    )(keys)
    counts = np.asarray(drawn).reshape(draws, n).sum(0)
    assert counts.sum() == draws * k
    p = k / n
    statistic = ((counts - draws * p) ** 2).sum() / (draws * p * (1 - p)) * (n - 1) / n
    assert scipy.stats.chi2.sf(statistic, n - 1) > 1e-3


def test_schedules_at_their_ends_and_between():
    steps = jnp.array([0, 25, 50, 75, 100, 150])
    np.testing.assert_allclose([constant(0.5)(t) for t in steps], 0.5)
    np.testing.assert_allclose(
        cosine(0.5, 100)(steps),
        0.25 * (1 + np.cos(np.pi * np.array([0, 0.25, 0.5, 0.75, 1, 1]))),
        atol=1e-7,
    )
    np.testing.assert_allclose(linear(0.5, 100)(steps), [0.5, 0.375, 0.25, 0.125, 0, 0], atol=1e-7)
    # s_f - (s_f - s_i) (1 - x)^3 with s_f = .8, s_i = .2, from 50 to 150.
    np.testing.assert_allclose(
        cubic(0.8, 50, 150, initial=0.2)(steps),
        [0.2, 0.2, 0.2, 0.8 - 0.6 * 0.75**3, 0.8 - 0.6 * 0.5**3, 0.8],
        atol=1e-7,
    )
