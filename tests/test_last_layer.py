"""The last layer is found whatever it is called, and Prune and Tune leaves it whole without being told."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import nnx

import jaxtickets as jt
from jaxtickets import masks
from jaxtickets.engine import checks
from jaxtickets.errors import MaskError
from jaxtickets.masks.children import kept_dense
from jaxtickets.tracing.last_layer import last_layers

KEY = jax.eval_shape(lambda: jax.random.key(0))
POINT = jax.ShapeDtypeStruct((6,), jnp.float32)
SEQUENCE = jax.ShapeDtypeStruct((5, 6), jnp.float32)
IMAGE = jax.ShapeDtypeStruct((32, 32, 3), jnp.float32)
X = np.random.default_rng(0).normal(size=(32, 6)).astype(np.float32)
DATA = jt.Dataset(X, (X[:, 0] > 0).astype(np.int32), 2)
M = jt.models


class Middle(nn.Module):
    """The last layer is neither the last by name nor by the order in which it is made."""

    def setup(self):
        self.a_head, self.body, self.zero = nn.Dense(2), nn.Dense(8), nn.Dense(8)

    def __call__(self, x):
        return nn.log_softmax(self.a_head(nn.relu(self.body(nn.relu(self.zero(x)))))) * 2


class Scaled(nn.Module):
    """A norm and a bias after the last product; a kernel that is scaled and reshaped before it."""

    @nn.compact
    def __call__(self, x):
        w = self.param("w1", nn.initializers.normal(), (16,)) * self.param(
            "gain", nn.initializers.ones, (1,)
        )
        x = (
            nn.LayerNorm()(x @ w.reshape(8, 2))
            if x.shape[-1] == 8
            else nn.LayerNorm()(nn.Dense(8)(x) @ w.reshape(8, 2))
        )
        return x + self.param("bias", nn.initializers.zeros, (2,))


class Two(nn.Module):
    """Two heads, whose outputs are added up."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Dense(8, name="trunk")(x))
        return nn.Dense(2, name="one")(x) + nn.Dense(2, name="other")(x)


class Recurrent(nn.Module):
    """A loop over time, and a layer after it."""

    @nn.compact
    def __call__(self, x):
        return nn.Dense(2, name="out")(nn.RNN(nn.SimpleCell(4, name="cell"))(x)[:, -1])


class Inside(nn.Module):
    """The last layer is applied at every turn of the loop."""

    @nn.compact
    def __call__(self, x):
        x, out = (
            nn.Dense(4, name="first")(x),
            self.param("out/kernel", nn.initializers.normal(), (4, 2)),
        )
        return jax.lax.scan(
            lambda carry, step: (carry + jnp.tanh(step) @ out, None),
            jnp.zeros((x.shape[0], 2)),
            x.swapaxes(0, 1),
        )[0]


class Attending(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.MultiHeadDotProductAttention(num_heads=2, name="attention")(x, x)
        return nn.Dense(2, name="logits")(x.mean(1))


class Branches(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.Dense(8, name="first")(x)
        a, b = (self.param(name, nn.initializers.normal(), (8, 2)) for name in ("w1", "w2"))
        return jax.lax.cond(
            x.sum() > 0, lambda x: x @ a, lambda x: jax.checkpoint(jnp.matmul)(x, b), x
        )


class NNXNet(nnx.Module):
    def __init__(self, rngs):
        self.layers = nnx.List([nnx.Linear(6, 6, rngs=rngs) for _ in range(12)])
        self.a = nnx.Linear(6, 2, rngs=rngs)

    def __call__(self, x):
        for layer in self.layers:
            x = nnx.relu(layer(x))
        return self.a(x)


def found(task, spec):
    x = jax.tree.map(lambda s: jax.ShapeDtypeStruct((2, *s.shape), s.dtype), spec)
    params, state = jax.eval_shape(task.init, KEY, x)
    may = [
        path
        for path, ok in zip(
            masks.leaf_paths(params),
            jax.tree.leaves(masks.prunable(params, task.prunable)),
            strict=True,
        )
        if ok
    ]
    return may, [path for path in last_layers(task.apply, params, state, spec) if path in may]


@pytest.mark.parametrize(
    ("model", "spec", "last"),
    [
        (Middle(), POINT, ["a_head/kernel"]),
        (Two(), POINT, ["one/kernel", "other/kernel"]),
        (Recurrent(), SEQUENCE, ["out/kernel"]),
        (Inside(), SEQUENCE, ["out/kernel"]),
        (Attending(), SEQUENCE, ["logits/kernel"]),
        (Branches(), POINT, ["w1", "w2"]),
        (NNXNet, POINT, ["a/kernel"]),
    ],
)
def test_own_networks(model, spec, last):
    may, names = found(
        jt.classification(
            model, num_classes=2, prunable=((r"kernel|w\d", masks.is_matrix), (".*", False))
        ),
        spec,
    )
    assert names == last
    assert set(names) < set(may)


def test_a_kernel_that_is_scaled_and_reshaped():
    task = jt.classification(Scaled(), num_classes=2)
    params, state = jax.eval_shape(task.init, KEY, jax.ShapeDtypeStruct((2, 6), jnp.float32))
    assert "w1" in last_layers(task.apply, params, state, POINT)
    assert "Dense_0/kernel" not in last_layers(task.apply, params, state, POINT)


@pytest.mark.parametrize(
    "net",
    [
        M.WideResNet(10, 1),
        M.LeNet("S", dropout=0.1),
        M.ResNet(18),
        M.TreeNet(M.LeNet("S"), 2),
        M.MIMO(M.LeNet("S"), 2),
        M.BatchEnsemble(M.WideResNet(10, 1), 2),
        M.MCDropout(M.LeNet("S", dropout=0.5), 2, key=0),
    ],
    ids=lambda net: type(net).__name__,
)
def test_of_our_own_networks_it_is_the_classifier(net):
    """So plans without the argument end in the bits that they ended in when it was "classifier"."""
    may, names = found(jt.classification(net), IMAGE)
    assert names == [path for path in may if "classifier" in path] != []


@pytest.mark.parametrize("unit", ["connection", "neuron"])
@pytest.mark.parametrize("model", [Middle(), NNXNet])
def test_prune_and_tune_of_an_own_network_without_any_argument(model, unit):
    task = jt.classification(model, num_classes=2)
    plan = jt.prune_and_tune(2, parent=1, tune=1, unit=unit, batch_size=16)
    assert "keep_dense" not in str(plan.to_json())
    assert jt.cost(plan, task, DATA).density < 1
    if unit == "neuron" or model is NNXNet:
        return checks.check_model(plan, task, DATA, checks.example_of(DATA)) and None
    tickets = jt.fit(plan, task, DATA, key=0, progress=False)
    named = jt.fit(
        jt.prune_and_tune(2, parent=1, tune=1, unit=unit, batch_size=16, keep_dense=("a_head",)),
        task,
        DATA,
        key=0,
        progress=False,
    )
    for ticket, same in zip(tickets, named, strict=True):
        kept = {
            p: np.asarray(m)
            for p, m in zip(
                masks.leaf_paths(ticket.mask), jax.tree.leaves(ticket.mask), strict=True
            )
            if m.ndim
        }
        assert {path: mask.mean() for path, mask in kept.items()} == {
            "a_head/kernel": 1,
            "body/kernel": 0.5,
            "zero/kernel": 0.5,
        }
        jax.tree.map(np.testing.assert_array_equal, ticket.params, same.params)
    return None


def test_what_cannot_be_found_is_said():
    rules = ((".*", masks.is_matrix),)
    params = {"a": jnp.ones((6, 2)), "b": jnp.ones((6, 2))}
    nowhere = lambda p, s, x, train, key: ((x[:, :, None] * p["a"] * p["b"]).sum(1), s)
    with pytest.raises(
        MaskError,
        match=r"cannot be seen from its operations. Name it, keep_dense=\('b',\) or another of a, b; or give",
    ):
        kept_dense(None, nowhere, params, {}, POINT, rules)
    linear = lambda p, s, x, train, key: (x @ p["a"] + x @ p["b"], s)
    with pytest.raises(
        MaskError,
        match=r"all that is prunable, a, b, is this network's last layer. Give keep_dense=\(\)",
    ):
        kept_dense(None, linear, params, {}, POINT, rules)
    assert kept_dense(("x",), linear, params, {}, POINT, rules) == ("x",)
    assert kept_dense(None, lambda p, s, x, t, k: (x @ p["a"], s), params, {}, POINT, rules) == (
        "^a$",
    )
