"""RigL in somebody's own loop: plain dicts, Linen, NNX (its Optimizer, and functional) and Equinox, five steps each."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from others import others

from jaxtickets import masks
from jaxtickets.transforms import prune_grow

X, Y = np.random.default_rng(0).normal(size=(2, 16, 8)).astype(np.float32)
STEPS = 5


def rigl():
    return prune_grow(
        optax.adam(1e-2), sparsity=0.5, update_every=2, drop_fraction=0.3, key=jax.random.key(0)
    )


def assert_a_ticket(params, mask, first, kernels, losses):
    """The mask fits, is half full, has moved; pruned weights are 0; training went down."""
    masks.check(mask, params)
    assert sum(leaf.ndim > 0 for leaf in jax.tree.leaves(mask)) == kernels
    assert abs(masks.density(mask) - 0.5) < 0.05
    assert masks.count(mask) == masks.count(first)
    assert masks.iou(mask, first) < 1
    for p, m in zip(jax.tree.leaves(params), jax.tree.leaves(mask), strict=True):
        assert m.ndim == 0 or not np.asarray(p)[~np.asarray(m)].any()
    assert losses[-1] < losses[0]


def test_plain_dicts():
    one, two = jax.random.split(jax.random.key(1))
    params = {
        "w1": jax.random.normal(one, (8, 12)) / 3,
        "b1": jnp.zeros((1, 12)),
        "w2": jax.random.normal(two, (12, 8)) / 3,
    }

    def loss(params):
        return jnp.mean((jnp.tanh(X @ params["w1"] + params["b1"]) @ params["w2"] - Y) ** 2)

    tx = rigl()
    state = tx.init(params)
    first = state.mask
    params = masks.apply(first, params)

    @jax.jit
    def step(params, state):
        value, grads = jax.value_and_grad(loss)(params)
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state, value

    losses = []
    for _ in range(STEPS):
        params, state, value = step(params, state)
        losses.append(value)
    assert_a_ticket(params, state.mask, first, 2, losses)


def test_linen():
    model = nn.Sequential([nn.Dense(12), nn.tanh, nn.LayerNorm(), nn.Dense(8)])
    params = model.init(jax.random.key(1), X)["params"]
    tx = rigl()
    state = tx.init(params)
    first = state.mask
    params = masks.apply(first, params)

    @jax.jit
    def step(params, state):
        value, grads = jax.value_and_grad(
            lambda params: jnp.mean((model.apply({"params": params}, X) - Y) ** 2)
        )(params)
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state, value

    losses = []
    for _ in range(STEPS):
        params, state, value = step(params, state)
        losses.append(value)
    assert_a_ticket(params, state.mask, first, 2, losses)


class NNXNet(nnx.Module):
    def __init__(self, rngs):
        self.first = nnx.Linear(8, 12, rngs=rngs)
        self.norm = nnx.BatchNorm(12, rngs=rngs)
        self.second = nnx.Linear(12, 8, rngs=rngs)

    def __call__(self, x):
        return self.second(self.norm(jnp.tanh(self.first(x))))


def test_nnx_with_its_optimizer():
    model = NNXNet(nnx.Rngs(1))
    optimizer = nnx.Optimizer(model, rigl(), wrt=nnx.Param)

    def mask():
        return nnx.as_pure(optimizer.opt_state.mask)

    first = jax.tree.map(jnp.array, mask())

    @nnx.jit
    def step(model, optimizer):
        value, grads = nnx.value_and_grad(lambda model: jnp.mean((model(X) - Y) ** 2))(model)
        optimizer.update(model, grads)
        return value

    losses = [step(model, optimizer) for _ in range(STEPS)]
    assert_a_ticket(nnx.as_pure(nnx.state(model, nnx.Param)), mask(), first, 2, losses)


def test_nnx_functional():
    graph, params, rest = nnx.split(NNXNet(nnx.Rngs(1)), nnx.Param, ...)
    tx = rigl()
    state = tx.init(params)
    first = state.mask
    params = masks.apply(first, params)

    @jax.jit
    def step(params, rest, state):
        def loss(params):
            model = nnx.merge(graph, params, rest, copy=True)
            return jnp.mean((model(X) - Y) ** 2), nnx.split(model, nnx.Param, ...)[2]

        (value, rest), grads = jax.value_and_grad(loss, has_aux=True)(params)
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), rest, state, value

    losses = []
    for _ in range(STEPS):
        params, rest, state, value = step(params, rest, state)
        losses.append(value)
    assert_a_ticket(params, state.mask, first, 2, losses)


def test_equinox():
    eqx = others("equinox")
    model = eqx.nn.MLP(8, 8, 12, 1, activation=jnp.tanh, key=jax.random.key(1))
    tx = rigl()
    state = tx.init(eqx.filter(model, eqx.is_array))
    first = state.mask
    params, static = eqx.partition(model, eqx.is_array)
    model = eqx.combine(masks.apply(first, params), static)

    @eqx.filter_jit
    def step(model, state):
        value, grads = eqx.filter_value_and_grad(
            lambda model: jnp.mean((jax.vmap(model)(X) - Y) ** 2)
        )(model)
        updates, state = tx.update(grads, state, eqx.filter(model, eqx.is_array))
        return eqx.apply_updates(model, updates), state, value

    losses = []
    for _ in range(STEPS):
        model, state, value = step(model, state)
        losses.append(value)
    assert_a_ticket(eqx.filter(model, eqx.is_array), state.mask, first, 2, losses)
