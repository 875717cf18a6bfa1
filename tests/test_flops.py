"""FLOPs by parameter: hand-worked numbers, other people's counters, and every way a parameter can reach its product."""

from __future__ import annotations

import itertools
import math
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import nnx
from jax import lax
from jax.custom_batching import custom_vmap
from jax.experimental import pallas as pl
from jax.sharding import AbstractMesh, AxisType
from jax.sharding import PartitionSpec as P
from others import others

from jaxtickets.masks import leaf_paths
from jaxtickets.models import LeNet, WideResNet
from jaxtickets.tracing.flops import ForwardFlops, LayerFlops, forward_flops

NHWC = ("NHWC", "HWIO", "NHWC")


def spec(*shape, dtype=jnp.float32):
    return jax.ShapeDtypeStruct(shape, dtype)


def count(apply, params, *args, batch=1):
    return forward_flops(apply, params, *args, batch=batch)


def conv(x, kernel, stride=1, padding="SAME", groups=1, dilation=1):
    return lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        padding,
        rhs_dilation=(dilation, dilation),
        dimension_numbers=NHWC,
        feature_group_count=groups,
    )


def linen_count(model, x, batch):
    variables = jax.eval_shape(
        lambda key: model.init(key, jnp.zeros(x.shape), train=False), jax.random.key(0)
    )
    state = {name: tree for name, tree in variables.items() if name != "params"}
    return forward_flops(
        lambda p, s, x: model.apply({"params": p, **s}, x, train=False),
        variables["params"],
        state,
        x,
        batch=batch,
    )


# Models of the papers


@pytest.mark.parametrize(
    ("classes", "gflop", "weights"), [(10, 10.4867, 36_461_232), (100, 10.4868, 36_518_832)]
)
def test_wide_resnet_has_the_published_cost(classes, gflop, weights):
    start = time.perf_counter()
    flops = linen_count(WideResNet(28, 10, classes), spec(3, 32, 32, 3), batch=3)
    assert time.perf_counter() - start < 30  # 0.2 s; computing anything would take minutes
    assert round(flops.total / 1e9, 4) == gflop
    assert (
        sum(math.prod(layer.shape) for layer in flops.layers if layer.path.endswith("kernel"))
        == weights
    )
    assert flops.by_path["conv/kernel"] == 2 * 32 * 32 * 9 * 3 * 16
    assert flops.by_path["group2_block1/shortcut/kernel"] == 2 * 16 * 16 * 160 * 320
    assert flops.other == 0
    assert flops.inexact == ()
    assert all((layer.flops > 0) == layer.path.endswith("kernel") for layer in flops.layers)


def test_lenet_by_hand():
    flops = linen_count(LeNet("S"), spec(4, 32, 32, 3), batch=4)
    assert {path: n for path, n in flops.by_path.items() if path.endswith("kernel")} == {
        "conv1/kernel": 2 * 28 * 28 * 25 * 3 * 16,
        "conv2/kernel": 2 * 10 * 10 * 25 * 16 * 32,
        "dense1/kernel": 2 * 800 * 256,
        "dense2/kernel": 2 * 256 * 128,
        "classifier/kernel": 2 * 128 * 10,
    }
    assert flops.total == 4_919_296


# Single operations


def test_dense_by_hand_and_batch_size_cancels():
    def mlp(params, x):
        for layer in params:
            x = jnp.tanh(x @ layer["kernel"] + layer["bias"])
        return x

    params = [{"kernel": spec(5, 7), "bias": spec(7)}, {"kernel": spec(7, 3), "bias": spec(3)}]
    one = count(mlp, params, spec(1, 5))
    assert one.layers == (
        LayerFlops("0/bias", (7,), 0),
        LayerFlops("0/kernel", (5, 7), 70),
        LayerFlops("1/bias", (3,), 0),
        LayerFlops("1/kernel", (7, 3), 42),
    )
    assert one == count(mlp, params, spec(64, 5), batch=64)
    assert one.total == 112
    assert one.other == 0


@pytest.mark.parametrize(
    ("size", "kernel", "options", "expected"),
    [
        (8, (3, 3, 4, 6), {}, 2 * 64 * 9 * 4 * 6),
        (8, (3, 3, 4, 6), {"padding": "VALID"}, 2 * 36 * 9 * 4 * 6),
        (9, (3, 3, 4, 6), {"stride": 2, "padding": [(1, 1), (1, 1)]}, 2 * 25 * 9 * 4 * 6),
        (8, (3, 3, 2, 6), {"groups": 2}, 2 * 64 * 9 * 2 * 6),
        (8, (3, 3, 1, 4), {"groups": 4}, 2 * 64 * 9 * 4),
        (9, (3, 3, 4, 6), {"dilation": 2, "padding": "VALID"}, 2 * 25 * 9 * 4 * 6),
        (8, (1, 1, 4, 6), {"stride": 2}, 2 * 16 * 4 * 6),
    ],
)
def test_convolutions_by_hand_and_as_torch_counts_them(size, kernel, options, expected):
    flops = count(
        lambda p, x: conv(x, p, **options), spec(*kernel), spec(5, size, size, 4), batch=5
    )
    assert flops.layers == (LayerFlops("", kernel, expected),)

    torch = others("torch")
    from torch.utils.flop_counter import FlopCounterMode

    padding = options.get("padding", "SAME")
    pad = (
        {"SAME": kernel[0] // 2, "VALID": 0}[padding] if isinstance(padding, str) else padding[0][0]
    )
    with FlopCounterMode(display=False) as counter:
        torch.nn.functional.conv2d(
            torch.zeros(1, 4, size, size),
            torch.zeros(kernel[3], kernel[2], *kernel[:2]),
            stride=options.get("stride", 1),
            padding=pad,
            groups=options.get("groups", 1),
            dilation=options.get("dilation", 1),
        )
    assert counter.get_total_flops() == expected


def test_transposed_convolution_does_not_count_inserted_zeros():
    def up(kernel, x):
        return lax.conv_transpose(x, kernel, (2, 2), "SAME", dimension_numbers=NHWC)

    flops = count(up, spec(4, 4, 3, 5), spec(2, 8, 8, 3), batch=2)
    assert (
        flops.total == flops.layers[0].flops == 2 * 8 * 8 * 16 * 3 * 5
    )  # as torch counts: input positions

    torch = others("torch")
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        torch.nn.functional.conv_transpose2d(
            torch.zeros(1, 3, 8, 8), torch.zeros(3, 5, 4, 4), stride=2, padding=1
        )
    assert counter.get_total_flops() == flops.total


def test_batch_groups():
    def apply(kernel, x):
        return lax.conv_general_dilated(
            x, kernel, (1, 1), "SAME", dimension_numbers=NHWC, batch_group_count=2
        )

    # Each half of the batch meets half of the filters: 2 x (2 examples x 64 positions x 9 taps x 4 in x 3 out).
    assert count(apply, spec(3, 3, 4, 6), spec(4, 8, 8, 4)).total == 2 * 2 * 2 * 64 * 9 * 4 * 3


def test_patches_times_matrix_cost_what_the_convolution_costs():
    def im2col(kernel, x):
        x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
        patches = jnp.concatenate(
            [x[:, i : i + 8, j : j + 8] for i in range(3) for j in range(3)], -1
        )
        return patches.reshape(-1, 36) @ kernel.reshape(36, 6)

    kernel, x = spec(3, 3, 4, 6), spec(2, 8, 8, 4)
    assert count(im2col, kernel, x, batch=2) == count(lambda k, x: conv(x, k), kernel, x, batch=2)


@pytest.mark.parametrize("side", ["lhs", "rhs"])
def test_batched_and_multiply_contracted_products(side):
    def apply(w, x):
        return jnp.einsum(
            "gabc,gbcd->gad" if side == "rhs" else "gbcd,gabc->gad",
            *((x, w) if side == "rhs" else (w, x)),
        )

    assert count(apply, spec(2, 4, 5, 6), spec(2, 3, 4, 5)).total == 2 * (2 * 3 * 4 * 5 * 6)


def test_ragged_product_of_experts():
    flops = count(
        lambda w, x, sizes: lax.ragged_dot(x, w, sizes),
        spec(4, 5, 6),
        spec(8, 5),
        spec(4, dtype=jnp.int32),
        batch=8,
    )
    assert flops.total == flops.by_path[""] == 2 * 5 * 6  # an example meets one expert


def test_against_xla_on_a_dense_network():
    def mlp(params, x):
        for kernel, bias in params:
            x = jnp.maximum(x @ kernel + bias, 0)
        return x

    widths = [64, 128, 128, 16]
    params = [(jnp.ones((a, b)), jnp.ones(b)) for a, b in itertools.pairwise(widths)]
    flops = count(mlp, params, spec(32, 64), batch=32)
    cost = jax.jit(mlp).lower(params, spec(32, 64)).compile().cost_analysis()
    assert cost is not None
    xla = cost["flops"] / 32
    # XLA also counts the bias and the ReLU, one FLOP an element each (XLA may fuse or split them: hence at most three).
    assert flops.total <= xla <= flops.total + 3 * sum(widths[1:])


def test_against_xla_on_a_convolution():
    def apply(kernel, x):
        return conv(
            x, kernel, 2, "VALID"
        )  # XLA leaves padding out of its count; here there is none

    kernel, x = spec(3, 3, 4, 6), spec(2, 9, 9, 4)
    cost = jax.jit(apply).lower(kernel, x).cost_analysis()
    assert cost is not None
    assert cost["flops"] == 2 * count(apply, kernel, x, batch=2).total


# Ways of a parameter to its product


def sparse_conv(kernel, x):
    @jax.custom_vjp
    def apply(kernel, x):
        return conv(x, kernel)

    apply.defvjp(lambda k, x: (apply(k, x), (k, x)), lambda saved, g: saved)
    return apply(kernel, x)


def tangent_conv(kernel, x):
    @jax.custom_jvp
    def apply(kernel, x):
        return conv(x, kernel)

    apply.defjvp(lambda primals, tangents: (apply(*primals), apply(*primals)))
    return apply(kernel, x)


def batched_conv(kernel, x):
    @custom_vmap
    def apply(kernel, x):
        return conv(x, kernel)

    apply.def_vmap(
        lambda size, batched, k, x: (
            jax.vmap(lambda k, x: conv(x, k), [0 if b else None for b in batched])(k, x),
            True,
        )
    )
    return apply(kernel, x)


def sharded_conv(kernel, x):
    mesh = AbstractMesh(
        (2, 4), ("data", "spare"), axis_types=(AxisType.Auto,) * 2
    )  # the axis "spare" repeats the work, which counts once
    return jax.shard_map(
        lambda k, x: conv(x, k), mesh=mesh, in_specs=(P(), P("data")), out_specs=P("data")
    )(kernel, x)


def one_of_two(kernel, x):
    return lax.cond(x.sum() > 0, lambda: conv(x, kernel), lambda: conv(x, kernel[1:2, 1:2]))


WAYS = {
    "plain": lambda k, x: conv(x, k),
    "jit": jax.jit(lambda k, x: conv(x, k)),
    "remat": jax.checkpoint(lambda k, x: conv(x, k)),
    "custom_vjp": sparse_conv,
    "custom_jvp": tangent_conv,
    "custom_vmap": batched_conv,
    "shard_map": sharded_conv,
    "cond": one_of_two,
    "cast": lambda k, x: conv(x.astype(jnp.bfloat16), k.astype(jnp.bfloat16)),
    "transposed": lambda k, x: conv(x, k.transpose(3, 2, 1, 0).T[::-1]),
    "barrier": lambda k, x: conv(*reversed(lax.optimization_barrier((k, x)))),
    "masked": lambda k, x: conv(x, jnp.where(np.arange(k.size).reshape(k.shape) % 5 == 0, k, 0)),
    "times a mask": lambda k, x: conv(x, k * np.ones(k.shape, np.float32)),
    "top-k mask": lambda k, x: conv(
        x, jnp.where(jnp.abs(k) >= jnp.sort(jnp.abs(k).ravel())[10], k, 0)
    ),
    "standardised": lambda k, x: conv(x, (k - k.mean((0, 1, 2))) / k.std((0, 1, 2))),
    "straight through": lambda k, x: conv(x, k + lax.stop_gradient(jnp.sign(k) - k)),
    "padded with zeros": lambda k, x: conv(x, jnp.concatenate([k, jnp.zeros_like(k)], 3)[..., :6]),
    "scan of one": lambda k, x: lax.scan(
        lambda c, k: (conv(c, k), None), x[..., :4], k[None, ..., :4]
    )[0],
}


@pytest.mark.parametrize("way", WAYS)
def test_a_kernel_is_followed(way):
    flops = count(
        lambda p, x: WAYS[way](p["kernel"], x),
        {"bias": spec(6), "kernel": spec(3, 3, 4, 6)},
        spec(2, 8, 8, 4),
        batch=2,
    )
    outs = 4 if way == "scan of one" else 6
    assert flops == ForwardFlops(
        (LayerFlops("bias", (6,), 0), LayerFlops("kernel", (3, 3, 4, 6), 2 * 64 * 9 * 4 * outs)),
        other=0,
        inexact=(),
    )


@pytest.mark.parametrize(
    "way", [w for w in WAYS if w not in ("shard_map", "cond")]
)  # a batched cond runs both branches
def test_members_under_vmap_cost_members_times_as_much(way):
    def single(kernel, x):
        return WAYS[way](kernel, x)

    kernel, x = spec(3, 3, 4, 6), spec(2, 8, 8, 4)
    one = count(single, kernel, x, batch=2).total
    own_data = count(jax.vmap(single), spec(5, *kernel.shape), spec(5, *x.shape), batch=2)
    same_data = count(jax.vmap(single, (0, None)), spec(5, *kernel.shape), x, batch=2)
    assert own_data.by_path == same_data.by_path == {"": 5 * one}
    assert own_data.other == same_data.other == 0


def test_scan_over_stacked_layers():
    def apply(params, x):
        x, _ = lax.scan(lambda x, layer: (jnp.tanh(x @ layer["w"] + layer["b"]), None), x, params)
        return x

    flops = count(apply, {"w": spec(12, 8, 8), "b": spec(12, 8)}, spec(3, 8), batch=3)
    assert flops.by_path == {"b": 0, "w": 12 * 2 * 64}


def test_layers_stacked_inside_share_a_scan():
    def apply(params, x):
        return lax.scan(
            lambda x, w: (x @ w, None), x, jnp.stack([params["w1"], params["w2"], params["w3"]])
        )[0]

    assert count(apply, {f"w{i}": spec(8, 8) for i in (1, 2, 3)}, spec(1, 8)).by_path == {
        "w1": 128,
        "w2": 128,
        "w3": 128,
    }


def test_recurrence_from_a_constant_state():
    def apply(params, x):  # [T, B, D]; the first state is a constant, later ones are data
        def step(state, x):
            state = jnp.tanh(x @ params["in"] + state @ params["loop"])
            return state, None

        state, _ = lax.scan(step, jnp.zeros((x.shape[1], 6)), x)
        return state @ params["out"]

    flops = count(
        apply, {"in": spec(4, 6), "loop": spec(6, 6), "out": spec(6, 2)}, spec(10, 3, 4), batch=3
    )
    assert flops.by_path == {"in": 10 * 2 * 24, "loop": 10 * 2 * 36, "out": 24}
    assert flops.other == 0


def test_parameters_mixed_in_a_loop_reach_a_fixed_point():
    def apply(p, x):  # what is carried gets another piece in every turn
        carried, _ = lax.scan(
            lambda c, _: (jnp.concatenate([c[1:], p["small"]]), None), p["large"], None, length=3
        )
        return x @ carried

    assert count(apply, {"large": spec(8, 4), "small": spec(1, 4)}, spec(1, 8)).by_path == {
        "large": 64,
        "small": 0,
    }


def test_a_kernel_chosen_by_data_is_data():
    def apply(p, x):
        return x @ lax.cond(x.sum() > 0, lambda: p["a"], lambda: p["b"])

    assert count(apply, {"a": spec(8, 4), "b": spec(8, 4)}, spec(1, 8)).other == 64

    def experts(p, x):
        return lax.cond(x.sum() > 0, lambda: x @ p["a"] @ p["b"], lambda: x @ p["c"][:, :1] + x)

    params = {"a": spec(8, 4), "b": spec(4, 8), "c": spec(8, 8)}
    assert count(experts, params, spec(1, 8)).by_path == {"a": 64, "b": 64, "c": 0}


def test_loop_of_known_length_and_of_unknown_length():
    def known(w, x):
        return lax.fori_loop(0, 5, lambda i, x: x @ w[i], x)

    def unknown(w, x):
        return lax.while_loop(lambda x: jnp.max(x @ w[0]) < 1, lambda x: x @ w[1], x)

    assert count(known, spec(5, 8, 8), spec(1, 8)) == ForwardFlops(
        (LayerFlops("", (5, 8, 8), 5 * 128),), 0
    )
    assert count(unknown, spec(2, 8, 8), spec(1, 8)) == ForwardFlops(
        (LayerFlops("", (2, 8, 8), 2 * 128),), 0, ("while",)
    )
    harmless = count(
        lambda w, x: lax.while_loop(lambda x: x.sum() > 1, lambda x: x / 2, x @ w),
        spec(8, 8),
        spec(1, 8),
    )
    assert harmless.inexact == ()


def test_kernels_that_cannot_be_read_are_named():
    def body(x, w, out):
        out[...] = x[...] @ w[...]

    def apply(w, x):
        return pl.pallas_call(body, out_shape=spec(8, 8))(x, w)

    flops = count(apply, spec(8, 8), spec(8, 8), batch=8)
    assert flops.total == 128
    assert flops.inexact == ("pallas_call",)


def test_tied_weights_get_the_sum():
    def apply(params, tokens):
        x = params["table"][tokens]  # a look-up: no FLOPs
        return jnp.tanh(x @ params["w"]) @ params["w"] @ params["table"].T

    flops = count(
        apply, {"table": spec(100, 8), "w": spec(8, 8)}, spec(3, dtype=jnp.int32), batch=3
    )
    assert flops.by_path == {"table": 2 * 8 * 100, "w": 2 * 2 * 64}


def test_embedding_alone_costs_nothing():
    flops = count(
        lambda p, i: nn.Embed(50, 4).apply({"params": p}, i),
        {"embedding": spec(50, 4)},
        spec(2, 7, dtype=jnp.int32),
    )
    assert flops == ForwardFlops((LayerFlops("embedding", (50, 4), 0),), 0)


def test_mask_among_the_parameters_and_among_the_data():
    def apply(params, x):
        return x @ jnp.where(params["a_mask"], params["kernel"], 0)

    params = {"a_mask": spec(8, 4, dtype=jnp.bool_), "kernel": spec(8, 4)}
    assert count(apply, params, spec(1, 8)).by_path == {"a_mask": 0, "kernel": 64}
    as_data = count(
        lambda k, m, x: x @ jnp.where(m, k, 0), spec(8, 4), spec(8, 4, dtype=jnp.bool_), spec(1, 8)
    )
    assert as_data == ForwardFlops((LayerFlops("", (8, 4), 0),), other=64)  # as documented


def test_mixed_leaves_go_to_the_kernel():
    def batch_ensemble(p, x):
        return x @ (p["kernel"] * jnp.outer(p["r"], p["s"]))

    # The outer product is no product: jnp.outer multiplies element by element.
    flops = count(
        batch_ensemble, {"kernel": spec(8, 4), "r": spec(8), "s": spec(4)}, spec(2, 8), batch=2
    )
    assert (flops.by_path, flops.other) == ({"kernel": 64, "r": 0, "s": 0}, 0)

    quantised = count(
        lambda p, x: x @ (p["q"].astype(jnp.float32) * p["scale"]),
        {"q": spec(8, 4, dtype=jnp.int8), "scale": spec(4)},
        spec(1, 8),
    )
    assert quantised.by_path == {"q": 64, "scale": 0}


def test_low_rank_factors():
    params = {"a": spec(8, 2), "b": spec(2, 6)}
    apart = count(lambda p, x: x @ p["a"] @ p["b"], params, spec(4, 8), batch=4)
    assert apart.by_path == {"a": 2 * 16, "b": 2 * 12}
    merged = count(
        lambda p, x: x @ (p["a"] @ p["b"]), params, spec(4, 8), batch=4
    )  # the factors' own product once a batch
    assert merged.by_path == {"a": 2 * 48 + 2 * 8 * 2 * 6 // 4, "b": 0}
    params = {"a": spec(8, 2), "b": spec(2, 20)}
    assert count(lambda p, x: x @ (p["a"] @ p["b"]), params, spec(1, 8)).by_path == {
        "a": 0,
        "b": 2 * 160 + 2 * 320,
    }


def test_concatenated_leaves_share_by_size():
    def apply(p, x):
        return x @ jnp.concatenate([p["q"], p["k"] * 2, p["v"]], axis=1).astype(jnp.float32)

    flops = count(apply, {"q": spec(8, 8), "k": spec(8, 8), "v": spec(8, 4)}, spec(1, 8))
    assert flops.by_path == {"k": 128, "q": 128, "v": 64}


def test_attention_scores_are_other():
    model = nn.MultiHeadDotProductAttention(num_heads=2, qkv_features=8)
    x = spec(3, 5, 8)
    params = jax.eval_shape(lambda key: model.init(key, jnp.zeros(x.shape)), jax.random.key(0))[
        "params"
    ]
    flops = count(lambda p, x: model.apply({"params": p}, x), params, x, batch=3)
    assert flops.by_path == {
        f"{part}/{leaf}": 2 * 5 * 64 * (leaf == "kernel")
        for part in ("key", "out", "query", "value")
        for leaf in ("bias", "kernel")
    }
    assert flops.other == 2 * (2 * 5 * 5 * 8)  # scores, and values mixed by them
    assert flops.total == flops.other + 4 * 2 * 5 * 64


def test_product_with_a_constant_is_other():
    assert count(
        lambda p, x: (x * p) @ np.ones((8, 4), np.float32), spec(8), spec(2, 8), batch=2
    ) == ForwardFlops((LayerFlops("", (8,), 0),), other=64)


# Frameworks


def test_nnx():
    class Net(nnx.Module):
        def __init__(self, rngs):
            self.conv = nnx.Conv(3, 4, (3, 3), rngs=rngs)
            self.norm = nnx.BatchNorm(4, rngs=rngs)
            self.head = nnx.Linear(4, 2, rngs=rngs)

        def __call__(self, x):
            return self.head(nnx.relu(self.norm(self.conv(x))).mean((1, 2)))

    graph, params, rest = nnx.split(nnx.eval_shape(lambda: Net(nnx.Rngs(0))), nnx.Param, ...)

    def apply(params, rest, x):
        model = nnx.merge(graph, params, rest)
        model.eval()
        return model(x)

    flops = count(apply, params, rest, spec(2, 8, 8, 3), batch=2)
    assert {path: n for path, n in flops.by_path.items() if n} == {
        "conv/kernel": 2 * 64 * 27 * 4,
        "head/kernel": 2 * 4 * 2,
    }
    assert [layer.path for layer in flops.layers] == leaf_paths(params)


def test_equinox():
    eqx = others("equinox")
    model = eqx.nn.MLP(
        3, 2, width_size=8, depth=2, key=jax.random.key(0)
    )  # its activation functions are leaves
    flops = count(lambda m, x: jax.vmap(m)(x), model, spec(4, 3), batch=4)
    assert {path: n for path, n in flops.by_path.items() if n} == {
        "layers/0/weight": 48,
        "layers/1/weight": 128,
        "layers/2/weight": 32,
    }
    conv_net = eqx.nn.Conv2d(3, 4, 3, padding=1, key=jax.random.key(0))
    assert count(lambda m, x: jax.vmap(m)(x), conv_net, spec(4, 3, 8, 8), batch=4).by_path == {
        "weight": 2 * 64 * 27 * 4,
        "bias": 0,
    }


def test_arguments_that_are_not_arrays():
    def apply(p, x, train, key):
        assert train is False
        assert key is None
        return {"logits": x @ p, "name": "static"}

    assert (
        count(
            apply, np.ones((8, 4), np.float32), np.ones((2, 8), np.float32), False, None, batch=2
        ).total
        == 64
    )


def test_nothing_is_computed():
    assert count(lambda w, x: x @ w, spec(10**6, 10**6), spec(1, 10**6)).total == 2 * 10**12


@pytest.mark.parametrize("batch", [0, -1, 2.0, True])
def test_batch_must_be_a_positive_integer(batch):
    with pytest.raises(ValueError, match="batch must be the number of examples"):
        count(lambda w, x: x @ w, spec(8, 4), spec(2, 8), batch=batch)


def test_dilating_both_operands_alike_changes_nothing():
    # Inputs and kernel spread by two, stride 2: every tap meets data, so it is the plain convolution and counts as it.
    def spread(kernel, x):
        return jax.lax.conv_general_dilated(
            x,
            kernel,
            (2, 1),
            ((2, 2), (1, 1)),
            lhs_dilation=(2, 1),
            rhs_dilation=(2, 1),
            dimension_numbers=NHWC,
        )

    kernel, x = jnp.ones((3, 3, 4, 5)), jnp.ones((2, 8, 8, 4))
    plain = forward_flops(lambda k, x: conv(x, k), kernel, x, batch=2)
    assert forward_flops(spread, kernel, x, batch=2).total == plain.total == 2 * 64 * 9 * 4 * 5
