"""Masks: what rules find in every framework's tree, exact zeros, exact counts, bytes."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from others import others

from jaxtickets import masks
from jaxtickets.errors import MaskError

pytestmark = pytest.mark.usefixtures("strict_arithmetic")


class LinenNet(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.BatchNorm(use_running_average=True)(nn.Conv(4, (3, 3))(x))
        return nn.Dense(3)(x.reshape(x.shape[0], -1))


def linen_params():
    return jax.eval_shape(LinenNet().init, jax.random.key(0), jnp.zeros((1, 4, 4, 2)))["params"]


def nnx_params():
    rngs = nnx.Rngs(0)
    net = nnx.Sequential(
        nnx.Conv(2, 4, (3, 3), rngs=rngs), nnx.BatchNorm(4, rngs=rngs), nnx.Linear(4, 3, rngs=rngs)
    )
    return nnx.state(net, nnx.Param)


def equinox_params():
    eqx = others("equinox")
    return eqx.filter(eqx.nn.MLP(2, 3, 4, 1, key=jax.random.key(0)), eqx.is_array)


FRAMEWORKS = {
    "linen": (
        linen_params,
        {"Conv_0/kernel", "Dense_0/kernel"},
        {"Conv_0/bias", "BatchNorm_0/scale", "BatchNorm_0/bias", "Dense_0/bias"},
    ),
    "nnx": (
        nnx_params,
        {"layers/0/kernel", "layers/2/kernel"},
        {"layers/0/bias", "layers/1/scale", "layers/1/bias", "layers/2/bias"},
    ),
    "equinox": (
        equinox_params,
        {"layers/0/weight", "layers/1/weight"},
        {"layers/0/bias", "layers/1/bias"},
    ),
    "dict": (
        lambda: {
            "w1": jnp.ones((2, 3)),
            "b1": jnp.ones(3),
            "out": {"w": jnp.ones((3, 1)), "weight_norm": jnp.ones((3, 1))},
        },
        {"w1", "out/w"},
        {"b1", "out/weight_norm"},
    ),
}


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_default_rules_find_kernels_and_nothing_else(framework):
    make, sparse, dense = FRAMEWORKS[framework]
    params = make()
    verdicts = dict(
        zip(masks.leaf_paths(params), jax.tree.leaves(masks.prunable(params)), strict=True)
    )
    assert {path for path, may in verdicts.items() if may} == sparse
    assert {path for path, may in verdicts.items() if not may} == dense


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_mask_has_the_tree_of_the_params_and_no_none_leaves(framework):
    params = FRAMEWORKS[framework][0]()
    for mask in (masks.full(params), masks.dense(params), masks.complement(masks.full(params))):
        masks.check(mask, params)
        assert jax.tree.structure(mask) == jax.tree.structure(params)
        # None would be a subtree without leaves in one tree and a leaf in the other: no leaf may be missing.
        assert len(jax.tree.leaves(mask)) == len(jax.tree.leaves(params))
        assert all(
            isinstance(leaf, jax.Array) and leaf.dtype == bool for leaf in jax.tree.leaves(mask)
        )
    full = dict(zip(masks.leaf_paths(params), jax.tree.leaves(masks.full(params)), strict=True))
    shapes = dict(
        zip(masks.leaf_paths(params), (leaf.shape for leaf in jax.tree.leaves(params)), strict=True)
    )
    _, sparse, dense = FRAMEWORKS[framework]
    assert all(full[path].shape == shapes[path] for path in sparse)
    assert all(full[path].shape == () for path in dense)
    assert all(leaf.shape == () for leaf in jax.tree.leaves(masks.dense(params)))


def test_linen_variables_with_a_collection_level():
    params = {"params": linen_params()}
    assert "params/Conv_0/kernel" in masks.leaf_paths(params)
    assert sum(jax.tree.leaves(masks.prunable(params))) == 2


def test_a_dict_key_called_value_keeps_its_name():
    assert masks.leaf_paths({"attention": {"query": 0, "value": 1}}) == [
        "attention/query",
        "attention/value",
    ]


TREE = {
    "encoder": {"kernel": jnp.ones((4, 4)), "bias": jnp.ones(4)},
    "head": {"kernel": jnp.ones((4, 2))},
}


def test_the_first_matching_rule_wins():
    assert masks.prunable(TREE, [("head", False), ("kernel", True), (".*", False)]) == {
        "encoder": {"bias": False, "kernel": True},
        "head": {"kernel": False},
    }
    assert (
        masks.prunable(TREE, [("kernel", True), ("head", False), (".*", False)])["head"]["kernel"]
        is True
    )


def test_a_predicate_sees_the_leaf():
    verdicts = masks.prunable(TREE, [("kernel", lambda leaf: leaf.shape[-1] > 2), (".*", False)])
    assert verdicts["encoder"]["kernel"]
    assert not verdicts["head"]["kernel"]


def test_uncovered_leaves_are_listed():
    with pytest.raises(
        MaskError, match=r"no rule covers 2 of 3 leaves: 'encoder/bias', 'encoder/kernel'"
    ):
        masks.prunable(TREE, [("head", True)])


def test_a_rule_that_matches_nothing_is_an_error():
    with pytest.raises(MaskError, match=r"'haed', True\) matches no leaf.*'head/kernel'"):
        masks.prunable(TREE, [("haed", True), ("kernel", True), (".*", False)])
    masks.prunable(
        TREE, [("haed", False), ("kernel", True), (".*", False)]
    )  # what is dense anyway may be absent


def test_nothing_prunable_is_an_error():
    with pytest.raises(MaskError, match="nothing to prune among 'encoder/bias'"):
        masks.prunable(TREE, [(".*", False)])
    with pytest.raises(MaskError, match="nothing to prune"):
        masks.prunable({"bias": jnp.ones(3)})


def test_a_scalar_is_never_prunable():
    assert masks.prunable({"scale": jnp.ones(()), "w": jnp.ones((2, 2))}, [(".*", True)]) == {
        "scale": False,
        "w": True,
    }


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_apply_gives_exact_zeros_whatever_was_there(dtype):
    w = jnp.array([1.5, jnp.nan, jnp.inf, -jnp.inf, -2.0, 1e-30], dtype)
    out = masks.apply(
        {"w": jnp.array([True, False, False, False, False, False]), "b": jnp.ones((), bool)},
        {"w": w, "b": w},
    )
    assert out["w"].dtype == w.dtype
    assert (
        np.asarray(out["w"].view(jnp.uint8))[w.itemsize :].tolist() == [0] * 5 * w.itemsize
    )  # bit-wise: no -0.0 either
    assert out["w"][0] == 1.5
    assert out["b"] is w


@pytest.mark.parametrize(
    ("mask", "params", "message"),
    [
        ({"w": jnp.ones(3)}, {"w": jnp.ones(3, bool)}, "apply takes the mask first: .*apply"),
        ({"w": jnp.ones((1, 3), bool)}, {"w": jnp.ones((3, 3))}, r"bool\[1, 3\]; it must be"),
        ({"w": jnp.ones(3)}, {"w": jnp.ones(3)}, r"float32\[3\]; it must be bool"),
        ({"v": jnp.ones(3, bool)}, {"w": jnp.ones(3)}, "has 'v', and lacks 'w'"),
    ],
    ids=["swapped", "would broadcast", "no bools", "another tree"],
)
def test_apply_refuses_what_is_no_mask_of_the_params(mask, params, message):
    for apply in (masks.apply, jax.jit(masks.apply)):
        with pytest.raises(MaskError, match=message):
            apply(mask, params)


def test_pitfall_5_a_zero_weight_is_not_a_pruned_weight():
    mask = {"w": jnp.array([True, False, True])}
    params = {"w": jnp.zeros(3)}
    assert masks.count(mask) == 2
    assert masks.apply(mask, params)["w"].tolist() == [0, 0, 0]
    assert masks.count(masks.full({"kernel": jnp.zeros((3, 3))})) == 9


def test_counts_density_and_overlap_by_hand():
    a = {
        "w": jnp.array([[True, True, False], [False, True, False]]),
        "b": jnp.ones((), bool),
        "v": jnp.zeros(2, bool),
    }
    b = {
        "w": jnp.array([[True, False, False], [True, True, False]]),
        "b": jnp.ones((), bool),
        "v": jnp.array([True, False]),
    }
    assert masks.size(a) == 8
    assert masks.count(a) == 3
    assert masks.density(a) == 3 / 8
    assert jax.tree.map(int, masks.counts(a)) == {"b": 0, "v": 0, "w": 3}
    assert (
        masks.iou(a, b) == 2 / 5
    )  # both: (0, 0), (1, 1); either: those, (0, 1), (1, 0) and v's first
    assert masks.iou(a, a) == 1
    assert masks.iou(a, masks.complement(a)) == 0


def test_complement_parts_every_prunable_weight_and_leaves_dense_leaves():
    mask = {"w": jax.random.bernoulli(jax.random.key(1), 0.3, (7, 5)), "b": jnp.ones((), bool)}
    other = masks.complement(mask)
    assert (np.asarray(mask["w"]) ^ np.asarray(other["w"])).all()
    assert bool(other["b"])
    assert masks.count(mask) + masks.count(other) == 35


def test_dense_networks_have_density_one_and_no_overlap():
    dense = masks.dense({"w": jnp.ones((3, 3))})
    assert (masks.size(dense), masks.count(dense), masks.density(dense)) == (0, 0, 1.0)
    assert np.isnan(masks.iou(dense, dense))


def test_pitfall_6_counts_are_exact_beyond_two_to_the_24():
    n = 20_000_003  # float32 cannot tell this from its neighbours
    mask = {"w": jnp.ones(n, bool).at[7].set(False)}
    assert masks.count(mask) == n - 1
    assert int(masks.counts(mask)["w"]) == n - 1
    assert masks.density(mask) == (n - 1) / n


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        ({"w": jnp.ones((2, 3), bool)}, "tree is not the params' tree"),
        (
            {"w": jnp.ones((3, 2), bool), "b": jnp.ones((), bool)},
            r"'w' is bool\[3, 2\].*\[2, 3\] or \[\]",
        ),
        (
            {"w": jnp.ones((2, 3)), "b": jnp.ones((), bool)},
            r"'w' is float32\[2, 3\]; it must be bool",
        ),
        ({"w": jnp.ones((2, 3), bool), "b": None}, "tree is not the params' tree"),
    ],
)
def test_a_mask_that_does_not_fit_is_refused(mask, message):
    params = {"w": jnp.ones((2, 3)), "b": jnp.ones(3)}
    masks.check({"w": jnp.ones((2, 3), bool), "b": jnp.ones((), bool)}, params)
    with pytest.raises(MaskError, match=message):
        masks.check(mask, params)


@pytest.mark.parametrize(
    "shape", [(n,) for n in range(18)] + [(), (3, 5), (3, 3, 16, 33), (1000, 1001)]
)
def test_packing_round_trips(shape):
    mask = np.random.default_rng(0).random(shape) < 0.5
    packed = masks.pack(jnp.asarray(mask))
    assert packed.dtype == np.uint8
    assert packed.nbytes == -(-mask.size // 8)
    back = masks.unpack(packed, shape)
    assert back.dtype == bool
    assert back.shape == shape
    np.testing.assert_array_equal(back, mask)


def test_packing_puts_the_first_weight_in_the_highest_bit():
    assert masks.pack(
        jnp.array([False, True, False, False, False, False, False, True, True])
    ).tolist() == [0b01000001, 0b10000000]


def test_unpacking_refuses_what_pack_never_wrote():
    good = masks.pack(jnp.ones(10, bool))
    for packed in (
        good[:1],
        np.append(good, np.uint8(0)),
        good.astype(np.int32),
        good.reshape(2, 1),
    ):
        with pytest.raises(MaskError, match=r"shape \[10\] is 2 bytes"):
            masks.unpack(packed, (10,))
    with pytest.raises(MaskError, match="beyond its 10 weights"):
        masks.unpack(good | np.uint8(1), (10,))


def test_members_under_vmap():
    mask = {"w": jax.random.bernoulli(jax.random.key(0), 0.5, (3, 4, 5)), "b": jnp.ones(3, bool)}
    params = {"w": jax.random.normal(jax.random.key(1), (3, 4, 5)), "b": jnp.ones((3, 5))}
    out = jax.vmap(masks.apply)(mask, params)
    counts = jax.vmap(masks.counts)(mask)
    for i in range(3):
        one = jax.tree.map(lambda leaf, i=i: leaf[i], mask)
        np.testing.assert_array_equal(
            out["w"][i], np.where(np.asarray(one["w"]), np.asarray(params["w"][i]), 0)
        )
        np.testing.assert_array_equal(out["b"][i], params["b"][i])
        assert int(counts["w"][i]) == masks.count(one)
