"""What is a kernel and what is a layer: rules that know the frameworks, stacks of layers, and which axes are input and output."""

import math
import warnings

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from jaxtickets import masks
from jaxtickets.errors import MaskError
from jaxtickets.masks import kernels
from jaxtickets.masks.kernels import KernelShape
from jaxtickets.masks.sparsity import layer_budgets, num_kept, prunable_shapes, random_mask
from jaxtickets.models import (
    BatchEnsemble,
    DenseNet,
    LeNet,
    ResNet,
    TreeNet,
    WideResNet,
)
from jaxtickets.transforms import evolve_mask, gradual_pruning, prune_grow

KEY = jax.random.key(0)


def sparse_paths(params, **options):
    return {
        p
        for p, may in zip(
            masks.leaf_paths(params),
            jax.tree.leaves(masks.prunable(params, **options)),
            strict=True,
        )
        if may
    }


def tree(paths):
    """Nested dicts of ones from {"a/b": shape}."""
    out = {}
    for path, shape in paths.items():
        *holders, name = path.split("/")
        node = out
        for holder in holders:
            node = node.setdefault(holder, {})
        node[name] = jnp.ones(shape)
    return out


# What is prunable by the default rules and what is not, by the names of each framework.
NAMED = {
    "haiku": (
        {
            "net/~/linear/w": (4, 5),
            "net/~/gru/w_i": (4, 12),
            "net/~/gru/w_h": (4, 12),
            "net/~/conv2_d/w": (3, 3, 2, 4),
        },
        {
            "net/~/linear/b": (5,),
            "net/~/layer_norm/scale": (5,),
            "net/~/batch_norm/scale": (1, 1, 1, 5),
            "net/~/embed/embeddings": (9, 5),
        },
    ),
    "torch": (
        {
            "rnn/weight_ih_l0": (12, 4),
            "rnn/weight_hh_l0": (12, 4),
            "rnn/weight_ih_l0_reverse": (12, 4),
            "attention/in_proj_weight": (12, 4),
            "conv/weight": (4, 2, 3, 3),
            "patch_embed/weight": (8, 3, 4, 4),
        },
        {
            "rnn/bias_ih_l0": (12,),
            "word_embeddings/weight": (9, 4),
            "wte/weight": (9, 4),
            "LayerNorm/weight": (4,),
            "norm1/weight": (3, 4),
            "ln_f/weight": (3, 4),
            "conv/weight_g": (4, 1),
        },
    ),
    "plain": (
        {
            "W1": (4, 5),
            "W_2": (4, 5),
            "Wq": (4, 5),
            "w_out": (4, 5),
            "weights": (4, 5),
            "Whh": (4, 4),
            "weights_2": (4, 5),
        },
        {
            "b1": (1, 5),
            "wte": (9, 4),
            "wpe": (9, 4),
            "word": (9, 4),
            "weight_norm": (3, 1),
            "pos_embed": (7, 4),
        },
    ),
    "keras": (
        {"gru/recurrent_kernel": (4, 12), "sep/depthwise_kernel": (3, 3, 4, 1)},
        {"gru/bias": (12,), "embedding/embeddings": (9, 4)},
    ),
    "linen": (
        {"embed/kernel": (4, 5), "GRUCell_0/hr/kernel": (4, 4), "norm_1/kernel": (4, 4)},
        {"Embed_0/embedding": (9, 4)},
    ),
    "a dense layer that is called embed": ({"embed/w": (9, 4)}, {"embed/b": (4,)}),
    "a norm of several axes": ({"x/weight": (2, 3)}, {"y/weight": (2, 3, 4), "y/bias": (2, 3, 4)}),
}


@pytest.mark.parametrize("names", NAMED)
def test_the_default_rules_know_kernels_by_their_names(names):
    sparse, dense = NAMED[names]
    assert sparse_paths(tree(sparse | dense)) == set(sparse)


def test_recurrent_cells_of_linen_and_nnx():
    cell = nn.GRUCell(4)
    params = jax.eval_shape(lambda: cell.init(KEY, jnp.zeros((2, 4)), jnp.zeros((2, 3))))["params"]
    assert sparse_paths(params) == {
        f"{gate}/kernel" for gate in ("hn", "hr", "hz", "in", "ir", "iz")
    }
    state = nnx.state(nnx.eval_shape(lambda: nnx.LSTMCell(3, 4, rngs=nnx.Rngs(0))), nnx.Param)
    assert {p.rpartition("/")[2] for p in sparse_paths(state)} == {"kernel"}
    assert len(sparse_paths(state)) == sum(leaf.ndim == 2 for leaf in jax.tree.leaves(state))


def linen(model, shape, **call):
    return jax.eval_shape(
        lambda: model.init({"params": KEY, "dropout": KEY}, jnp.zeros(shape), **call)
    )["params"]


OURS = {
    "LeNet": lambda: linen(LeNet((4, 4, 8, 8)), (1, 28, 28, 1), train=False),
    "WideResNet": lambda: linen(WideResNet(10, 1), (1, 32, 32, 3), train=False),
    "ResNet": lambda: linen(ResNet(18), (1, 32, 32, 3), train=False),
    "DenseNet": lambda: linen(DenseNet((2, 2), 4), (1, 32, 32, 3), train=False),
    "TreeNet": lambda: linen(TreeNet(WideResNet(10, 1), 3), (1, 32, 32, 3), train=False),
    "BatchEnsemble of LeNet": lambda: linen(
        BatchEnsemble(LeNet((4, 4, 8, 8)), 3), (3, 28, 28, 1), train=False
    ),
    "BatchEnsemble": lambda: linen(
        BatchEnsemble(WideResNet(10, 1), 3), (3, 32, 32, 3), train=False
    ),
}


@pytest.mark.parametrize("name", OURS)
def test_our_own_networks_keep_their_masks(name):
    params = OURS[name]()
    before = ((r"(^|/)(kernel|weight|w)\d*$", masks.is_matrix), (r".*", False))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert masks.prunable(params) == masks.prunable(params, before)
    for path, shape in prunable_shapes(params).items():
        assert (shape.stack, shape.channels) == (0, "last"), path


# Equinox names everything "weight"; its modules' classes tell what is what.


@pytest.fixture
def eqx():
    return pytest.importorskip("equinox", reason="equinox is not installed")


def test_equinox_norms_and_embeddings_stay_dense(eqx):
    keys = iter(jax.random.split(KEY, 9))

    class Table(eqx.nn.Embedding):  # somebody's own
        pass

    net = {
        "norm": eqx.nn.LayerNorm((2, 3, 3)),
        "bare": eqx.nn.LayerNorm((2, 3, 3), use_bias=False),
        "rms": eqx.nn.RMSNorm((4, 5)),
        "table": eqx.nn.Embedding(7, 4, key=next(keys)),
        "own": Table(7, 4, key=next(keys)),
        "linear": eqx.nn.Linear(4, 5, key=next(keys)),
        "conv": eqx.nn.Conv2d(2, 4, 3, key=next(keys)),
        "gru": eqx.nn.GRUCell(3, 4, key=next(keys)),
        "attention": eqx.nn.MultiheadAttention(2, 4, key=next(keys)),
    }
    projections = {f"attention/{name}_proj/weight" for name in ("query", "key", "value", "output")}
    expected = {"linear/weight", "conv/weight", "gru/weight_ih", "gru/weight_hh"} | projections
    assert sparse_paths(eqx.filter(net, eqx.is_array)) == expected


def test_er_reads_input_and_output_of_equinox_convolutions(eqx):
    keys = jax.random.split(KEY, 2)
    net = [eqx.nn.Conv2d(8, 16, 3, key=keys[0]), eqx.nn.Linear(64, 64, key=keys[1])]
    shapes = prunable_shapes(eqx.filter(net, eqx.is_array))
    assert {path: (tuple(s), s.fans) for path, s in shapes.items()} == {
        "0/weight": ((16, 8, 3, 3), (16, 8)),
        "1/weight": ((64, 64), (64, 64)),
    }
    # The same layers in Flax's order have the same budgets.
    flax = layer_budgets({"a/kernel": (3, 3, 8, 16), "b/kernel": (64, 64)}, 0.8, "er")
    assert list(layer_budgets(shapes, 0.8, "er").values()) == list(flax.values())
    assert layer_budgets({"a/weight": (16, 8, 3, 3), "b/weight": (64, 64)}, 0.8, "er") == {
        "a/weight": flax["a/kernel"],
        "b/weight": flax["b/kernel"],
    }


def test_the_order_of_axes_can_be_said():
    params = {"conv": {"kernel": jnp.ones((16, 8, 3, 3))}, "dense": {"kernel": jnp.ones((64, 64))}}
    by = {
        c: masks.counts(random_mask(KEY, params, 0.8, "er", channels=c))["conv"]["kernel"]
        for c in ("auto", "first", "last")
    }
    assert by["auto"] == by["last"] != by["first"]
    # 24 / 128 of 1152 weights and 128 / 4096 of 4096: eps = 1049.6 / 344, times 216.
    assert by["first"] == math.ceil(1049.6 / 344 * 216)


class Block(nn.Module):
    bias: bool = True

    @nn.compact
    def __call__(self, x, _):
        return jnp.tanh(nn.Dense(6, use_bias=self.bias)(x)), None


class Stack(nn.Module):
    bias: bool = True

    @nn.compact
    def __call__(self, x):
        scanned = nn.scan(Block, variable_axes={"params": 0}, split_rngs={"params": True}, length=4)
        return nn.Dense(3)(scanned(self.bias, name="layers")(x, None)[0])


def stack_params(bias=True):
    return Stack(bias).init(KEY, jnp.ones((2, 6)))["params"]


def unrolled(params):
    """The same network, a layer at a time."""
    inner = params["layers"]["Dense_0"]
    return {f"layer{i}": {"kernel": inner["kernel"][i]} for i in range(4)} | {
        "out": {"kernel": params["Dense_0"]["kernel"]}
    }


@pytest.mark.parametrize("distribution", ["erk", "er", "uniform"])
@pytest.mark.parametrize(("bias", "stacked"), [(True, None), (False, ["layers/"])])
def test_scanned_layers_have_the_budgets_of_the_same_layers_unrolled(bias, stacked, distribution):
    params = stack_params(bias)
    mask = random_mask(KEY, params, 0.5, distribution, stacked=stacked)
    alone = layer_budgets(prunable_shapes(unrolled(params)), 0.5, distribution)
    assert np.asarray(mask["layers"]["Dense_0"]["kernel"]).sum((1, 2)).tolist() == [
        alone[f"layer{i}/kernel"] for i in range(4)
    ]
    assert int(mask["Dense_0"]["kernel"].sum()) == alone["out/kernel"]


def test_without_a_word_a_stack_without_biases_is_one_layer_and_none_can_be_said():
    bare, biased = stack_params(bias=False), stack_params()
    assert prunable_shapes(bare)["layers/Dense_0/kernel"].stack == 0
    assert prunable_shapes(biased)["layers/Dense_0/kernel"].stack == 1
    assert prunable_shapes(biased, stacked=[])["layers/Dense_0/kernel"].stack == 0


def test_attentions_projections_are_no_stacks():
    """kernel [in, heads, width] with bias [heads, width], where there are as many heads as inputs."""
    for kernel, bias in (((4, 4, 4), (4, 4)), ((4, 4, 3), (4, 3)), ((8, 2, 4), (2, 4))):
        assert (
            prunable_shapes({"query": {"kernel": jnp.ones(kernel), "bias": jnp.ones(bias)}})[
                "query/kernel"
            ].stack
            == 0
        )


def test_equinox_stacks_are_recognised(eqx):
    keys = jax.random.split(KEY, 5)
    stack = eqx.filter(
        eqx.filter_vmap(lambda k: eqx.nn.Linear(6, 6, use_bias=False, key=k))(keys), eqx.is_array
    )
    convs = eqx.filter(eqx.filter_vmap(lambda k: eqx.nn.Conv2d(2, 4, 3, key=k))(keys), eqx.is_array)
    twice = eqx.filter(
        eqx.filter_vmap(eqx.filter_vmap(lambda k: eqx.nn.GRUCell(3, 4, key=k)))(
            keys[:4].reshape(2, 2)
        ),
        eqx.is_array,
    )
    shapes = prunable_shapes([stack, convs, twice])
    assert {path: (s.layers, s.layer, s.fans) for path, s in shapes.items()} == {
        "0/weight": (5, (6, 6), (6, 6)),
        "1/weight": (5, (4, 2, 3, 3), (4, 2)),
        "2/weight_ih": (4, (12, 3), (12, 3)),
        "2/weight_hh": (4, (12, 4), (12, 4)),
    }
    mask = random_mask(KEY, [stack, convs, twice], 0.5, "uniform")
    assert np.asarray(mask[0].weight).sum((1, 2)).tolist() == [18] * 5
    assert np.asarray(mask[2].weight_hh).sum((2, 3)).tolist() == [[24, 24], [24, 24]]


def test_every_layer_of_a_stack_evolves_as_it_would_alone():
    """Drop and grow, and gradual pruning, in a stack against the same layers one by one."""
    params, grads = (
        jax.tree.map(lambda p, k=k: jax.random.normal(k, p.shape), stack_params())
        for k in jax.random.split(KEY)
    )
    mask = random_mask(KEY, params, 0.5)
    apart = unrolled(params), unrolled(grads)
    alone = jax.tree.map(lambda m: m, unrolled(mask))
    new, survivors = evolve_mask(mask, params, grads, 0.4, KEY)
    new_alone, survivors_alone = evolve_mask(alone, *apart, 0.4, KEY)
    for got, want in ((new, new_alone), (survivors, survivors_alone)):
        for a, b in zip(jax.tree.leaves(unrolled(got)), jax.tree.leaves(want), strict=True):
            np.testing.assert_array_equal(a, b)
    tx = gradual_pruning(optax.sgd(0.0), sparsity=0.7, begin=0, end=1, update_every=1)
    state = tx.init(params)
    for _ in range(2):
        _, state = tx.update(grads, state, params)
    assert (
        np.asarray(state.mask["layers"]["Dense_0"]["kernel"]).sum((1, 2)).tolist()
        == [num_kept(36, 0.7)] * 4
    )


def test_a_pattern_for_stacks_that_matches_none_is_an_error():
    for make in (
        lambda: prune_grow(optax.sgd(0.1), key=KEY, sparsity=0.5, stacked=["leyers"]),
        lambda: gradual_pruning(optax.sgd(0.1), sparsity=0.5, begin=0, end=2, stacked=["leyers"]),
    ):
        with pytest.raises(MaskError, match="stacked='leyers' matches no prunable leaf"):
            make().init(stack_params())


def test_a_kernel_shape_is_the_tuple_it_is():
    shape = KernelShape((4, 3, 3, 8, 16), stack=1)
    assert shape == (4, 3, 3, 8, 16)
    assert (shape.layers, shape.layer, shape.fans) == (4, (3, 3, 8, 16), (8, 16))
    assert layer_budgets({"a": shape}, 0.5, "uniform") == {"a": 4 * 576}


@pytest.mark.parametrize("distribution", ["uniform", "er", "erk"])
def test_layers_without_weights_have_none_to_keep(distribution):
    assert layer_budgets({"none": (0, 4), "a": (8, 8)}, 0.5, distribution) == {"none": 0, "a": 32}
    params = {"none": {"kernel": jnp.zeros((0, 4))}, "a": {"kernel": jnp.ones((8, 8))}}
    mask = random_mask(KEY, params, 0.5, distribution)
    assert (mask["none"]["kernel"].shape, int(mask["a"]["kernel"].sum())) == ((0, 4), 32)


# One warning where the default rules see less than half.


def test_one_warning_names_what_the_default_rules_leave_dense():
    params = {
        "A": jnp.ones((30, 30)),
        "U": jnp.ones((30, 30)),
        "w": jnp.ones((10, 10)),
        "embedding": jnp.ones((999, 9)),
    }
    message = r"cover 5% of 1,900 weights in matrices; these stay dense: 'A', 'U'\..*prunable=\[\(r'\(\^\|/\)\(A\|U\)\$', True\)"
    with pytest.warns(UserWarning, match=message) as said:
        prune_grow(optax.sgd(0.1), key=KEY, sparsity=0.5).init(params)
    assert len(said) == 1
    for verdict in (True, False):  # what it tells to pass is taken, and silent
        assert sparse_paths(params, rules=[(r"(^|/)(A|U)$", verdict), *masks.KERNELS]) == (
            {"A", "U", "w"} if verdict else {"w"}
        )


def test_no_warning_where_half_is_covered_or_the_rest_is_no_matrix():
    big, small = jnp.ones((30, 30)), jnp.ones((3, 3))
    for rest in (
        {"A": big},
        {"embedding": jnp.ones((999, 9))},
        {"norm": {"weight": jnp.ones((99, 99))}},
        {"b": jnp.ones((99, 99))},
    ):
        masks.prunable({"w": big, "w2": small, **rest})


def test_a_predicate_may_look_around():
    params = {
        "a": {"kernel": jnp.ones((2, 2)), "gate": jnp.ones(2)},
        "b": {"kernel": jnp.ones((2, 2))},
    }
    assert sparse_paths(
        params, rules=[("kernel", lambda leaf, place: "gate" in place.beside), (".*", False)]
    ) == {"a/kernel"}
    assert sparse_paths(
        params, rules=[("kernel", lambda leaf, most=9: leaf.size < most), (".*", False)]
    ) == {"a/kernel", "b/kernel"}


def test_named_leaves_follow_the_order_of_the_leaves():
    for params in (
        stack_params(),
        [1.0, {"a": None, "b": ()}, (2.0,)],
        nnx.state(nnx.Linear(2, 3, rngs=nnx.Rngs(0))),
        3.0,
    ):
        found = kernels.named_leaves(params)
        assert [p.path for p in found] == masks.leaf_paths(params)
        assert all(p.leaf is leaf for p, leaf in zip(found, jax.tree.leaves(params), strict=True))
