"""Units: small networks whose units are listed by hand, what is no unit and why, and draws with exact counts."""

from __future__ import annotations

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax

import jaxtickets as jt
from jaxtickets import masks
from jaxtickets.errors import MaskError
from jaxtickets.masks.units import UnitTable, find_units, partition_units, random_units, unit_mask


def spec(*shape, dtype=jnp.float32):
    return jax.ShapeDtypeStruct(shape, dtype)


def bare(function, shapes, x=(6,), **options) -> UnitTable:
    """The units of `function(params, x)` with params of these shapes."""
    params = {name: spec(*shape) for name, shape in shapes.items()}
    return find_units(
        lambda p, state, x, train, key: (function(p, x), state), params, {}, spec(*x), **options
    )


def of_model(model, image, **options) -> UnitTable:
    task = jt.classification(model)
    params, state = jax.eval_shape(task.init, jax.random.key(0), spec(1, *image))
    return find_units(task.apply, params, state, spec(*image), task.prunable, **options)


def numbers(units):
    return {leaf.path: [axis.tolist() for axis in leaf.units] for leaf in units.params}


def layers(units):
    return dict(zip(units.groups, units.sizes, strict=True))


NO = -1
MLP = {"w1": (6, 4), "b1": (4,), "w2": (4, 3), "b2": (3,), "w3": (3, 2)}


def mlp(p, x):
    x = jax.nn.relu(x @ p["w1"] + p["b1"])
    return jax.nn.gelu(x @ p["w2"] + p["b2"]) @ p["w3"]


# Found


def test_two_hidden_layers():
    units = bare(mlp, MLP)
    assert layers(units) == {("w1",): 4, ("w2",): 3}
    assert numbers(units) == {
        "b1": [[0, 1, 2, 3]],
        "b2": [[4, 5, 6]],
        "w1": [[NO] * 6, [0, 1, 2, 3]],
        "w2": [[0, 1, 2, 3], [4, 5, 6]],
        "w3": [[4, 5, 6], [NO] * 2],
    }
    assert units.names[5] == "unit 1 of w2"
    assert [leaf.path for leaf in units.params if leaf.read[0].all() and leaf.path[0] == "w"] == [
        "w1",
        "w2",
        "w3",
    ]
    assert repr(units) == "UnitTable(w1: 4, w2: 3)"


def test_what_is_added_up_is_one_unit():
    def residual(p, x):
        x = x @ p["w1"]
        return (x + jnp.tanh(x @ p["w2"]) @ p["w3"]) @ p["w4"]

    units = bare(residual, {"w1": (6, 3), "w2": (3, 5), "w3": (5, 3), "w4": (3, 2)})
    assert layers(units) == {("w1", "w3"): 3, ("w2",): 5}
    assert numbers(units)["w3"] == [[3, 4, 5, 6, 7], [0, 1, 2]]
    assert numbers(units)["w4"][0] == [0, 1, 2]


def test_what_is_concatenated_keeps_its_place():
    def dense(p, x):
        a = jnp.sin(x @ p["w1"])
        b = jnp.concatenate([jnp.sin(a @ p["w2"]), a], -1)
        return jnp.concatenate([b, x], -1) @ p["w3"]

    units = bare(dense, {"w1": (6, 2), "w2": (2, 3), "w3": (11, 4)})
    assert layers(units) == {("w1",): 2, ("w2",): 3}
    assert numbers(units)["w3"][0] == [2, 3, 4, 0, 1] + [NO] * 6


def test_a_unit_flattened_with_its_places_has_many_rows():
    def net(p, x):
        x = lax.conv_general_dilated(
            x, p["w1"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        return (
            lax.reduce_window(x, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID").reshape(
                x.shape[0], -1
            )
            @ p["w2"]
        )

    units = bare(net, {"w1": (3, 3, 2, 3), "w2": (12, 5)}, (4, 4, 2))
    assert numbers(units)["w1"] == [[NO] * 3, [NO] * 3, [NO] * 2, [0, 1, 2]]
    assert numbers(units)["w2"][0] == [0, 1, 2] * 4


def test_a_convolution_as_a_product_of_patches():
    """A kernel whose taps were moved to its channels: the channel is what its rows share."""

    def net(p, x):
        x = x @ p["w1"]
        patches = jnp.concatenate(
            [x[:, i : i + 3, j : j + 3] for i in range(2) for j in range(2)], -1
        )
        return (patches @ p["w2"].reshape(-1, 5)).mean((1, 2)) @ p["w3"]

    units = bare(net, {"w1": (2, 3), "w2": (2, 2, 3, 5), "w3": (5, 2)}, (4, 4, 2))
    assert numbers(units)["w2"] == [[NO] * 2, [NO] * 2, [0, 1, 2], [3, 4, 5, 6, 7]]
    assert [bool(read.any()) for read in units.params[1].read[2:]] == [True, False]


def test_weights_on_the_left_masked_or_scaled_weights_and_inner_calls():
    @jax.jit
    def layer(w, x):
        return jnp.maximum(w @ x, 0)

    def net(p, x):
        x = jax.checkpoint(layer)(p["w1"] * p["s"], x.T)
        return (p["w2"].astype(jnp.float32) @ x).T

    units = bare(net, {"w1": (4, 6), "s": (4, 1), "w2": (2, 4)})
    assert numbers(units) == {
        "s": [[0, 1, 2, 3], [NO]],
        "w1": [[0, 1, 2, 3], [NO] * 6],
        "w2": [[NO] * 2, [0, 1, 2, 3]],
    }


def test_lenet():
    units = of_model(jt.models.LeNet((4, 6, 9, 5)), (20, 20, 3))
    assert layers(units) == {
        ("conv1/kernel",): 4,
        ("conv2/kernel",): 6,
        ("dense1/kernel",): 9,
        ("dense2/kernel",): 5,
    }
    assert numbers(units)["dense1/kernel"][0] == list(range(4, 10)) * 4
    assert numbers(units)["conv2/kernel"][2] == [
        0,
        1,
        2,
        3,
    ]  # 4 channels: the formulation with rows moved to channels


def test_wide_resnet():
    units = of_model(jt.models.WideResNet(10, 1), (8, 8, 3))
    assert {
        " ".join(group).replace("/kernel", "").replace("_block1", ""): n
        for group, n in layers(units).items()
    } == {
        "conv group1/conv2": 16,
        "group1/conv1": 16,
        "group2/conv1": 32,
        "group2/conv2 group2/shortcut": 32,
        "group3/conv1": 64,
        "group3/conv2 group3/shortcut": 64,
    }
    norms = {leaf.path: leaf.units[0].tolist() for leaf in units.model_state}
    assert (
        norms["batch_stats/group1_block1/bn1/mean"]
        == norms["batch_stats/group2_block1/bn1/var"]
        == list(range(16))
    )


def test_densenet():
    units = of_model(jt.models.DenseNet((2, 1), growth=3), (8, 8, 3))
    found = {group[0].removesuffix("/kernel"): n for group, n in layers(units).items()}
    assert len(found) == len(units.sizes)  # nothing is added up
    assert sorted(found.values()) == [3, 3, 3, 6, 6, 12, 12, 12]
    by_path = numbers(units)
    stem, layer1, layer2 = (
        by_path[path][-1]
        for path in ("conv/kernel", "block1_layer1/conv2/kernel", "block1_layer2/conv2/kernel")
    )
    (reader,) = [path for path in by_path if "transition" in path and path.endswith("kernel")]
    assert sorted(by_path[reader][2]) == sorted(stem + layer1 + layer2)


def test_an_nnx_module():
    class Net(nnx.Module):
        def __init__(self, rngs):
            self.first, self.norm = nnx.Linear(6, 4, rngs=rngs), nnx.BatchNorm(4, rngs=rngs)
            self.last = nnx.Linear(4, 3, rngs=rngs)

        def __call__(self, x):
            return self.last(nnx.relu(self.norm(self.first(x))))

    task = jt.classification(Net, num_classes=3)
    params, state = jax.eval_shape(task.init, jax.random.key(0), spec(1, 6))
    units = find_units(task.apply, params, state, spec(6))
    assert layers(units) == {("first/kernel",): 4}
    assert {leaf.path: leaf.units[0].tolist() for leaf in units.model_state} == {
        "norm/mean": [0, 1, 2, 3],
        "norm/var": [0, 1, 2, 3],
    }


# No units


def layer_norm(p, x):
    x = x @ p["w1"]
    return (x - x.mean(-1, keepdims=True)) @ p["w2"]


def grouped(p, x):
    x = (x @ p["w1"])[:, None]
    return (
        lax.conv_general_dilated(
            x, p["k"], (1,), "SAME", dimension_numbers=("NHC", "HIO", "NHC"), feature_group_count=4
        )[:, 0]
        @ p["w2"]
    )


TWO = {"w1": (6, 4), "w2": (4, 2)}
NOT_UNITS = {
    "layer norm": (layer_norm, TWO, "'reduce_sum' runs over them"),
    "softmax": (
        lambda p, x: jax.nn.softmax(x @ p["w1"]) @ p["w2"],
        TWO,
        "'reduce_max' runs over them",
    ),
    "groups of groups": (
        lambda p, x: (x @ p["w1"]).reshape(-1, 2, 2, 2).max(2).reshape(-1, 4) @ p["w2"],
        {"w1": (6, 8), "w2": (4, 2)},
        "a reshape divides them into groups",
    ),
    "a slice": (lambda p, x: (x @ p["w1"])[:, :2] @ p["w2"][:2], TWO, "a slice picks some of them"),
    "padding": (
        lambda p, x: jnp.pad(x @ p["w1"], ((0, 0), (0, 1))) @ p["w2"],
        {"w1": (6, 3), "w2": (4, 2)},
        "padded with constants",
    ),
    "a skip from the input": (
        lambda p, x: (x + x @ p["w1"]) @ p["w2"],
        {"w1": (6, 6), "w2": (6, 2)},
        "an axis of fixed size",
    ),
    "a constant": (
        lambda p, x: (x @ p["w1"] + jnp.arange(4.0)) @ p["w2"],
        TWO,
        "an axis of fixed size",
    ),
    "sorting": (
        lambda p, x: jnp.sort(x @ p["w1"]) @ p["w2"],
        TWO,
        "the operation 'sort' uses them",
    ),
    "depthwise": (grouped, {**TWO, "k": (3, 1, 4)}, "a convolution in groups"),
    "kernels from data": (
        lambda p, x: (x @ p["w1"]) @ jnp.ones((4, 2)),
        {"w1": (6, 4)},
        "no kernel meets them as it is",
    ),
    "scores": (
        lambda p, x: (x @ p["w1"]) @ (x @ p["w2"]).T,
        {"w1": (6, 4), "w2": (6, 4)},
        "no kernel meets them as it is",
    ),
    "weights with an offset": (
        lambda p, x: (x @ p["w1"]) @ (p["w2"] + 1),
        TWO,
        "no kernel meets them as it is",
    ),
    "one layer": (lambda p, x: x @ p["w1"], {"w1": (6, 4)}, "no layer is read by another"),
    "a shuffle": (
        lambda p, x: (x @ p["w1"])[:, jnp.array([1, 0, 2, 3])] @ p["w2"],
        TWO,
        "the operation 'gather' uses them",
    ),
}


def attention(p, x):
    """Two heads of two channels; x [B, T, 6]."""
    query, key, value = (
        (x @ p[name]).reshape(*x.shape[:2], 2, 2).swapaxes(1, 2) for name in ("q", "k", "v")
    )
    weights = jax.nn.softmax(query @ key.swapaxes(2, 3))
    return (weights @ value).swapaxes(1, 2).reshape(*x.shape[:2], 4) @ p["o"]


def test_a_head_of_an_attention_is_a_unit():
    shapes = {"q": (6, 4), "k": (6, 4), "v": (6, 4), "o": (4, 2)}
    params = {name: jnp.ones(shape) for name, shape in shapes.items()}
    units = find_units(
        lambda p, s, x, train, key: (attention(p, x), s),
        params,
        {},
        jax.ShapeDtypeStruct((5, 6), jnp.float32),
        rules=((".*", True),),
    )
    assert units.sizes == (2,)
    assert units.groups == (("k", "q", "v"),)
    for leaf in units.params:
        ids, other = leaf.units if leaf.path == "o" else leaf.units[::-1]
        assert ids.tolist() == [0, 0, 1, 1]
        assert (other == -1).all()


def test_what_a_maximum_is_taken_of_goes_together():
    units = bare(
        lambda p, x: (x @ p["w1"]).reshape(-1, 2, 3).max(2) @ p["w2"], {"w1": (6, 6), "w2": (2, 2)}
    )
    assert units.sizes == (2,)
    assert [axis.tolist() for axis in units.params[0].units] == [[-1] * 6, [0, 0, 0, 1, 1, 1]]


@pytest.mark.parametrize("name", NOT_UNITS)
def test_what_is_no_unit(name):
    function, shapes, why = NOT_UNITS[name]
    with pytest.raises(MaskError, match=f"no units that could be pruned: .*{re.escape(why)}"):
        bare(function, shapes)


def test_one_layer_that_cannot_does_not_spoil_the_others():
    def net(p, x):
        x = jax.nn.relu(x @ p["w1"]) @ p["w2"]
        return (x - x.mean(-1, keepdims=True)) @ p["w3"]

    units = bare(net, {"w1": (6, 4), "w2": (4, 3), "w3": (3, 2)})
    assert layers(units) == {("w1",): 4}
    assert set(units.params[1].fixed[1]) == {"'reduce_sum' runs over them"}


def test_rules_and_layers_kept_dense():
    assert layers(bare(mlp, MLP, keep_dense=("w1",))) == {("w2",): 3}
    assert layers(bare(mlp, MLP, rules=(("w3", False), *masks.KERNELS))) == {("w1",): 4}
    with pytest.raises(
        MaskError, match=r"keep_dense='w3' matches no layer that has units. Those are 'w1', 'w2'"
    ):
        bare(mlp, MLP, keep_dense=("w3",))
    with pytest.raises(
        MaskError, match="a kernel reads them that the task's rules do not let a mask cover"
    ):
        bare(mlp, {k: v for k, v in MLP.items()}, rules=(("w2|w3", False), *masks.KERNELS))


# Masks and draws


def test_a_mask_prunes_what_writes_and_what_reads():
    units = bare(mlp, MLP)
    keep = jnp.array([True, False, True, True, False, True, True])
    mask = jax.jit(lambda keep: unit_mask(units, keep))(keep)
    assert {path: m.shape for path, m in mask.items() if m.ndim == 0} == {"b1": (), "b2": ()}
    rows, columns = np.array([1, 0, 1, 1], bool), np.array([0, 1, 1], bool)
    np.testing.assert_array_equal(mask["w1"], np.broadcast_to(rows, (6, 4)))
    np.testing.assert_array_equal(mask["w2"], rows[:, None] & columns)
    np.testing.assert_array_equal(mask["w3"], np.broadcast_to(columns[:, None], (3, 2)))
    many = jax.vmap(lambda keep: unit_mask(units, keep))(jnp.stack([keep, ~keep]))
    np.testing.assert_array_equal(many["w2"][1], ~rows[:, None] & ~columns)
    with pytest.raises(MaskError, match=r"keep has the shape \[6\].* \[7\]"):
        unit_mask(units, keep[:6])


@pytest.fixture(scope="module")
def wide():
    """Groups of 40, 7 and 10 units."""
    shapes = {"w1": (6, 40), "w2": (40, 7), "w3": (7, 10), "w4": (10, 2)}
    return bare(lambda p, x: x @ p["w1"] @ p["w2"] @ p["w3"] @ p["w4"], shapes)


def per_group(units, keep):
    return [int(part.sum()) for part in np.split(np.asarray(keep), np.cumsum(units.sizes)[:-1])]


@pytest.mark.parametrize(
    ("sparsity", "counts"), [(0, [40, 7, 10]), (0.5, [20, 4, 5]), (0.29, [29, 5, 8])]
)
def test_counts_are_exact_in_every_group(wide, sparsity, counts):
    draw = jax.jit(jax.vmap(lambda key: random_units(key, wide, sparsity)))
    kept = np.asarray(draw(jax.random.split(jax.random.key(0), 20)))
    assert {tuple(per_group(wide, keep)) for keep in kept} == {tuple(counts)}
    if sparsity == 0.5:
        np.testing.assert_array_equal(
            kept[3], random_units(jax.random.split(jax.random.key(0), 20)[3], wide, sparsity)
        )
        # Each of 40 units lives in Binomial(20, 1/2) draws: outside 1..19 with probability 40 * 2 * 2^-20 = 8e-5 by chance.
        assert 1 <= kept[:, :40].sum(0).min() <= kept[:, :40].sum(0).max() <= 19


@pytest.mark.parametrize(("sparsity", "count"), [(0.5, 29), (0.94, 4)])
def test_a_global_count_is_exact_and_empties_no_group(wide, sparsity, count):
    kept = jax.vmap(lambda key: random_units(key, wide, sparsity, "global"))(
        jax.random.split(jax.random.key(0), 50)
    )
    groups = np.array([per_group(wide, keep) for keep in kept])
    assert set(groups.sum(1)) == {count}
    assert groups.min() >= 1
    if sparsity == 0.5:
        assert len(np.unique(groups[:, 0])) > 1  # unlike layerwise


def test_a_partition_covers_everything_once(wide):
    share = jax.jit(jax.vmap(lambda index: partition_units(jax.random.key(0), wide, 3, index)))
    kept = np.asarray(share(jnp.arange(3)))
    np.testing.assert_array_equal(kept.sum(0), np.ones(57))
    assert [sorted(per_group(wide, keep)[g] for keep in kept) for g in range(3)] == [
        [13, 13, 14],
        [2, 2, 3],
        [3, 3, 4],
    ]
    assert not np.array_equal(kept[0], partition_units(jax.random.key(1), wide, 3, 0))


def test_anti_random_pairs_share_no_weight(wide):
    keep = random_units(jax.random.key(0), wide, 0.5)
    assert per_group(wide, ~keep) == [20, 3, 5]
    one, other = unit_mask(wide, keep), unit_mask(wide, ~keep)
    assert masks.iou(one, other) == 0.0


def test_draws_that_cannot_be(wide):
    with pytest.raises(MaskError, match=r"in \[0, 1\)"):
        random_units(jax.random.key(0), wide, 1.0)
    with pytest.raises(MaskError, match="scope is one of layerwise, global"):
        random_units(jax.random.key(0), wide, 0.5, "local")
    with pytest.raises(
        MaskError,
        match=r"leaves 2 of 57 units, but 3 groups of units need one each. Take a sparsity of at most 0.94",
    ):
        random_units(jax.random.key(0), wide, 0.97, "global")
    with pytest.raises(
        MaskError,
        match=r"but w2 has 7. Take 1 to 7 members, a wider network, or keep_dense=\('w2',\)",
    ):
        partition_units(jax.random.key(0), wide, 8, 0)


@pytest.mark.parametrize("stacked", [True, False])
def test_what_a_loop_carries_stays(stacked):
    """A body that runs several times is no call: its results are its operands of the next turn."""

    def net(p, state, x, train, key):
        if stacked:
            h, _ = jax.lax.scan(lambda h, w: (jnp.tanh(h @ w), None), x @ p["w1"], p["middle"])
        else:
            h = jax.lax.fori_loop(0, 3, lambda i, h: jnp.tanh(h @ p["middle"]), x @ p["w1"])
        return jnp.tanh(h @ p["w2"]) @ p["w3"], state

    shape = (3, 5, 5) if stacked else (5, 5)
    params = {
        "w1": jnp.ones((4, 5)),
        "middle": jnp.ones(shape),
        "w2": jnp.ones((5, 6)),
        "w3": jnp.ones((6, 2)),
    }
    units = find_units(net, params, {}, jax.ShapeDtypeStruct((4,), jnp.float32), ((".*", True),))
    assert units.groups == (("w2",),)
    assert units.sizes == (6,)
