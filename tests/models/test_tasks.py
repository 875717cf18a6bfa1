"""Linen modules, NNX factories and bare functions enter by one door and learn."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen, nnx

from jaxtickets.models import LeNet, WideResNet, classification


class NNXNet(nnx.Module):
    num_classes = 4

    def __init__(self, rngs: nnx.Rngs):
        self.conv = nnx.Conv(1, 8, (3, 3), rngs=rngs)
        self.norm = nnx.BatchNorm(8, momentum=0.5, rngs=rngs)
        self.dropout = nnx.Dropout(0.2, rngs=rngs)
        self.layers = nnx.List([nnx.Linear(8, 8, rngs=rngs), nnx.Linear(8, 4, rngs=rngs)])

    def __call__(self, x):
        x = self.dropout(nnx.relu(self.norm(self.conv(x)))).mean((1, 2))
        return self.layers[1](nnx.relu(self.layers[0](x)))


class Plain(linen.Module):
    num_classes: int = 4

    @linen.compact
    def __call__(self, x):
        return linen.Dense(self.num_classes)(x.reshape(x.shape[0], -1))


def init(key, x):
    return {"w": jax.random.normal(key, (x[0].size, 4)) / 16, "bias": jnp.zeros(4)}, {}


def apply(params, model_state, x, train, key):
    return x.reshape(x.shape[0], -1) @ params["w"] + params["bias"], model_state


def data():
    """Four classes: which quarter of a 16x16 image is bright."""
    y = np.arange(32) % 4
    x = np.random.default_rng(0).normal(size=(32, 16, 16, 1)).astype(np.float32) * 0.3
    for image, label in zip(x, y, strict=True):
        row, col = divmod(int(label), 2)
        image[8 * row : 8 * row + 8, 8 * col : 8 * col + 8] += (
            1 + label
        )  # brightness too, for nets that average over space
    return jnp.asarray(x), jnp.asarray(y)


@pytest.mark.parametrize(
    ("model", "classes"),
    [(NNXNet, None), ((init, apply), 4), (Plain(), None), (LeNet((4, 6, 8, 8), 4), None)],
)
def test_every_kind_of_model_trains(model, classes, key):
    task = classification(model, num_classes=classes)
    x, y = data()
    params, state = task.init(key, x)
    tx = optax.adam(0.01)

    @jax.jit
    def step(params, state, opt, key):
        def loss(params):
            outputs, new = task.apply(params, state, x, True, key)
            return jnp.mean(task.loss(outputs, y)), new

        (value, new), grads = jax.value_and_grad(loss, has_aux=True)(params)
        updates, opt = tx.update(grads, opt, params)
        return optax.apply_updates(params, updates), new, opt, value

    opt, losses = tx.init(params), []
    before = state
    for i in range(12):
        params, state, opt, value = step(params, state, opt, jax.random.key(i))
        losses.append(float(value))
    assert losses[-1] < 0.9 * losses[0]
    assert jax.tree.structure(state) == jax.tree.structure(before)
    for old, new in zip(jax.tree.leaves(before), jax.tree.leaves(state), strict=True):
        assert old.shape == new.shape
        assert not np.array_equal(old, new)  # NNX's batch statistics moved
    evaluate = jax.jit(lambda p, s: task.apply(p, s, x, False, None))
    outputs, unchanged = evaluate(params, state)
    jax.tree.map(np.testing.assert_array_equal, unchanged, state)
    np.testing.assert_allclose(jnp.exp(task.log_proba(outputs)).sum(-1), 1, rtol=1e-5)
    assert task.num_classes == 4


def test_nnx_dropout_draws_from_the_key_of_the_call(key):
    task = classification(NNXNet)
    x, _ = data()
    params, state = task.init(key, x)
    run = jax.jit(task.apply, static_argnums=3)
    first, again, other = (run(params, state, x, True, jax.random.key(i))[0] for i in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, other)


def test_members_under_vmap_are_lone_runs(key):
    task = classification(LeNet((4, 6, 16, 8), dropout=0.3))
    x = jax.random.normal(key, (3, 4, 16, 16, 3))
    keys = jax.random.split(key, 3)
    draw = np.random.default_rng(
        0
    )  # compiling the generators of `init` would take longer than the rest
    params, state = jax.tree.map(
        lambda a: jnp.asarray(draw.normal(size=(3, *a.shape)) / 8, a.dtype),
        jax.eval_shape(task.init, key, x[0]),
    )

    def grads(params, state, x, key):
        return jax.grad(
            lambda p: jnp.mean(task.loss(task.apply(p, state, x, True, key)[0], jnp.arange(4)))
        )(params)

    batched = jax.jit(jax.vmap(grads))(params, state, x, keys)
    one = jax.jit(grads)
    for i in range(3):
        lone = one(*jax.tree.map(lambda a, i=i: a[i], (params, state)), x[i], keys[i])
        jax.tree.map(
            lambda a, b, i=i: np.testing.assert_allclose(a[i], b, rtol=1e-4, atol=1e-5),
            batched,
            lone,
        )
    assert not np.allclose(batched["conv1"]["kernel"][0], batched["conv1"]["kernel"][1])


def test_equal_models_make_equal_tasks_that_share_compiled_code():
    first, second = (
        classification(WideResNet(10, 1, num_classes=100), label_smoothing=0.1) for _ in range(2)
    )
    assert first == second
    assert hash(first.apply) == hash(second.apply)
    assert first != classification(WideResNet(10, 2, num_classes=100), label_smoothing=0.1)
    traces = []

    @jax.jit
    def traced(x):
        traces.append(1)
        return x

    run = jax.jit(lambda apply, x: traced(x), static_argnums=0)
    run(first.apply, jnp.zeros(()))
    run(second.apply, jnp.zeros(()))
    assert len(traces) == 1


def test_names_read_like_the_call():
    assert classification(WideResNet(28, 10)).name == "WideResNet(28, 10)"
    assert (
        classification(WideResNet(28, 10, 100, dropout=0.3)).name
        == "WideResNet(28, 10, num_classes=100, dropout=0.3)"
    )
    assert classification(LeNet("L", dtype=jnp.bfloat16)).name == "LeNet(L, dtype=bfloat16)"
    assert classification(NNXNet).name == "NNXNet"


def test_label_smoothing_is_the_mixture_with_uniform(key):
    logits = jax.random.normal(key, (5, 10)).astype(jnp.bfloat16)
    y = jnp.arange(5)
    task = classification(LeNet(), label_smoothing=0.2)
    expected = optax.softmax_cross_entropy(
        logits.astype(jnp.float32), optax.smooth_labels(jax.nn.one_hot(y, 10), 0.2)
    )
    np.testing.assert_allclose(task.loss(logits, y), expected, rtol=1e-5)
    assert task.loss(logits, y).dtype == task.log_proba(logits).dtype == jnp.float32


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: classification((init, apply)), ValueError, "num_classes is needed"),
        (lambda: classification(LeNet(), num_classes=4), ValueError, "num_classes=4.*10"),
        (lambda: classification(LeNet(), label_smoothing=1.0), ValueError, "label_smoothing.*1.0"),
        (lambda: classification(LeNet), TypeError, "model=LeNet\\("),  # pyright: ignore[reportArgumentType]
        (lambda: classification(NNXNet(nnx.Rngs(0))), TypeError, "lambda rngs"),  # pyright: ignore[reportArgumentType]
        (lambda: classification("LeNet"), TypeError, "'LeNet'"),  # pyright: ignore[reportArgumentType]
    ],
)
def test_errors_say_what_to_write(make, error, words):
    with pytest.raises(error, match=words):
        make()


def test_the_cost_of_an_nnx_module_with_batch_statistics():
    """And arrays of numpy, as tickets hold them, are read and not written to."""
    import jaxtickets as jt

    task = jt.classification(NNXNet, num_classes=4)
    train = jt.Dataset(np.zeros((32, 4, 4, 1), np.float32), np.zeros(32, np.int32), 4)
    dense = 2 * (16 * 9 * 8 + 8 * 8 + 8 * 4)
    assert jt.cost(jt.dense(1, batch_size=16), task, train).forward_dense == dense
    params, state = jax.device_get(task.init(jax.random.key(0), train.x[:2]))
    before = jax.tree.map(np.copy, state)
    task.apply(params, state, np.ones((2, 4, 4, 1), np.float32), True, jax.random.key(1))
    assert jax.tree.all(jax.tree.map(np.array_equal, before, state))


def test_rules_may_be_lists():
    """A task is part of the key under which programs are kept: whatever its rules were, it has a hash."""
    listed = classification(Plain(), prunable=[["Dense_0/kernel", True], (".*", False)])
    rules = (("Dense_0/kernel", True), (".*", False))
    assert listed == classification(Plain(), prunable=rules)
    assert hash(listed) == hash(classification(Plain(), prunable=rules))
