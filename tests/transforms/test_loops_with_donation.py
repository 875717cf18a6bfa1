"""Pruned weights and their moments in others' loops: AdamW, 20 steps, jitted, with donated state."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from flax.training.train_state import TrainState
from others import others

from jaxtickets import masks
from jaxtickets.transforms import gradual_pruning, prune_grow

X, Y = np.random.default_rng(0).normal(size=(2, 16, 8)).astype(np.float32)
STEPS = 20
KEY = jax.random.key(0)


def adamw():
    return optax.adamw(1e-2, weight_decay=0.1)


TRANSFORMS = {
    "prune_grow": lambda: prune_grow(
        adamw(), sparsity=0.5, update_every=3, drop_fraction=0.3, key=KEY
    ),
    "gradual_pruning": lambda: gradual_pruning(
        adamw(), sparsity=0.5, begin=2, end=10, update_every=2
    ),
}


def plain(tx):
    """Lists and tuples within a dict."""
    one, two = jax.random.split(KEY)
    params = {
        "layers": [
            {"kernel": jax.random.normal(one, (8, 12)) / 3, "bias": jnp.zeros(12)},
            {"kernel": jax.random.normal(two, (12, 8)) / 3, "bias": jnp.zeros(8)},
        ]
    }

    def apply(params, x):
        first, second = params["layers"]
        return (
            jnp.tanh(x @ first["kernel"] + first["bias"][None]) @ second["kernel"]
            + second["bias"][None]
        )

    return own_loop(tx, params, apply)


def haiku(tx):
    """Modules by path, of "w" and "b", as Haiku has them."""
    one, two = jax.random.split(KEY)
    params = {
        "mlp/~/linear_0": {"w": jax.random.normal(one, (8, 12)) / 3, "b": jnp.zeros(12)},
        "mlp/~/linear_1": {"w": jax.random.normal(two, (12, 8)) / 3, "b": jnp.zeros(8)},
    }

    def apply(params, x):
        first, second = params.values()
        return jnp.tanh(x @ first["w"] + first["b"][None]) @ second["w"] + second["b"][None]

    return own_loop(tx, params, apply)


def own_loop(tx, params, apply):
    """A loop over params and state, both donated."""
    state = tx.init(params)
    params = masks.apply(state.mask, params)

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def step(params, state):
        grads = jax.grad(lambda params: jnp.mean((apply(params, X) - Y) ** 2))(params)
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    for _ in range(STEPS):
        params, state = step(params, state)
    return params, state


def linen(tx):
    """A TrainState."""
    model = nn.Sequential([nn.Dense(12), nn.tanh, nn.LayerNorm(), nn.Dense(8)])
    state = TrainState.create(apply_fn=model.apply, params=model.init(KEY, X)["params"], tx=tx)
    state = state.replace(params=masks.apply(state.opt_state.mask, state.params))

    @functools.partial(jax.jit, donate_argnums=0)
    def step(state):
        def loss(params):
            return jnp.mean((state.apply_fn({"params": params}, X) - Y) ** 2)

        return state.apply_gradients(grads=jax.grad(loss)(state.params))

    for _ in range(STEPS):
        state = step(state)
    return state.params, state.opt_state


class Net(nnx.Module):
    def __init__(self, rngs):
        self.first = nnx.Linear(8, 12, rngs=rngs)
        self.second = nnx.Linear(12, 8, rngs=rngs)

    def __call__(self, x):
        return self.second(jnp.tanh(self.first(x)))


def nnx_optimizer(tx):
    """An nnx.Optimizer."""
    model = Net(nnx.Rngs(1))
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)

    @functools.partial(nnx.jit, donate_argnums=(0, 1))
    def step(model, optimizer):
        grads = nnx.grad(lambda model: jnp.mean((model(X) - Y) ** 2))(model)
        optimizer.update(model, grads)

    for _ in range(STEPS):
        step(model, optimizer)
    return nnx.as_pure(nnx.state(model, nnx.Param)), nnx.as_pure(optimizer.opt_state)


def equinox(tx):
    """A module, filtered."""
    eqx = others("equinox")
    model = eqx.nn.MLP(8, 8, 12, 1, activation=jnp.tanh, key=KEY)
    params, static = eqx.partition(model, eqx.is_array)
    state = tx.init(params)
    model = eqx.combine(masks.apply(state.mask, params), static)

    @eqx.filter_jit(donate="all")
    def step(model, state):
        grads = eqx.filter_grad(lambda model: jnp.mean((jax.vmap(model)(X) - Y) ** 2))(model)
        updates, state = tx.update(grads, state, eqx.filter(model, eqx.is_array))
        return eqx.apply_updates(model, updates), state

    for _ in range(STEPS):
        model, state = step(model, state)
    return eqx.filter(model, eqx.is_array), state


def moments(state):
    """Adam's mu and nu, wherever they are."""
    found = [
        leaf
        for leaf in jax.tree.leaves(state, is_leaf=lambda x: isinstance(x, optax.ScaleByAdamState))
        if isinstance(leaf, optax.ScaleByAdamState)
    ]
    assert len(found) == 1
    return found[0].mu, found[0].nu


@pytest.mark.parametrize("loop", [plain, haiku, linen, nnx_optimizer, equinox])
@pytest.mark.parametrize("transform", TRANSFORMS)
def test_pruned_weights_and_moments_are_exactly_0(transform, loop):
    params, state = loop(TRANSFORMS[transform]())
    masks.check(state.mask, params)
    pruned = 0
    trees = [jax.tree.leaves(tree) for tree in (state.mask, params, *moments(state))]
    for mask, *leaves in zip(*trees, strict=True):
        for leaf in leaves:
            leaf = np.asarray(leaf)
            assert np.isfinite(leaf).all()
            assert leaf.any()
            if mask.ndim:
                assert not leaf[~np.asarray(mask)].any()
                pruned += int((~np.asarray(mask)).sum())
    assert pruned == 3 * (8 * 12 + 12 * 8) // 2
