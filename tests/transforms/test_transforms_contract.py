"""What every transform promises around every optimizer: exact zeros, exact counts, a state that keeps its form."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxtickets import masks, sparsity
from jaxtickets.transforms import gradual_pruning, keep_masked, l1_masking, prune_grow

STEPS = 20
# Every leaf has its own shape, by which its moments are known. Adafactor factors what has 128 rows and columns.
SHAPES = {"big": {"kernel": (128, 130), "bias": (130,)}, "small": {"kernel": (6, 5), "bias": (5,)}, "scale": ()}
LR = optax.exponential_decay(0.1, 5, 0.5)

OPTIMIZERS = {
    "sgd": lambda: optax.sgd(LR),
    "momentum": lambda: optax.sgd(LR, momentum=0.9),
    "nesterov": lambda: optax.sgd(0.1, momentum=0.9, nesterov=True),
    "weight decay": lambda: optax.chain(optax.add_decayed_weights(5e-4), optax.sgd(0.1, momentum=0.9)),
    "adam": lambda: optax.adam(LR),
    "adamw": lambda: optax.adamw(0.1, weight_decay=0.1),
    "lion": lambda: optax.lion(0.01, weight_decay=0.1),
    "adafactor": lambda: optax.adafactor(0.1, momentum=0.9, weight_decay_rate=1e-3),
    "multi steps": lambda: optax.MultiSteps(optax.adam(0.1), 2).gradient_transformation(),
    "hyperparameters": lambda: optax.inject_hyperparams(optax.adamw)(learning_rate=LR, weight_decay=0.1),
    "clipped": lambda: optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(0.1)),
    "noise": lambda: optax.chain(optax.add_noise(0.1, 0.55, jax.random.key(1)), optax.trace(0.9), optax.scale(-0.1)),
    "partition": lambda: optax.partition(
        {"first": optax.adam(0.1), "rest": optax.sgd(0.1, momentum=0.9)}, {"big": {"kernel": "first", "bias": "rest"}, "small": "rest", "scale": "rest"}
    ),
    "masked decay": lambda: optax.chain(
        optax.sgd(0.1, momentum=0.9), optax.masked(optax.ema(0.9), {"big": {"kernel": True, "bias": False}, "small": False, "scale": False})
    ),
    "plateau": lambda: optax.chain(optax.adam(0.1), optax.contrib.reduce_on_plateau(patience=2)),
}


def pruned_half(params):
    return sparsity.random_mask(jax.random.key(5), params, 0.5, "uniform")


def l1_coefficients(params):
    return jax.tree.map(lambda p: jnp.ones(p.shape if p.ndim > 1 else ()), params)


EVERY_3 = {"sparsity": 0.7, "update_every": 3, "key": jax.random.key(2)}
TRANSFORMS = {
    "keep_masked": lambda inner, params: keep_masked(inner, pruned_half(params)),
    "prune_grow": lambda inner, params: prune_grow(inner, **EVERY_3, drop_fraction=sparsity.cosine(0.5, STEPS)),
    "rigl": lambda inner, params: prune_grow(inner, **EVERY_3, weight_update=False, track_ever_active=True),
    "set": lambda inner, params: prune_grow(inner, **EVERY_3, growth="random", regrown="zero", distribution="uniform"),
    "gradual_pruning": lambda inner, params: gradual_pruning(inner, sparsity=0.8, begin=2, end=17, update_every=4),
    "global pruning": lambda inner, params: gradual_pruning(inner, sparsity=0.8, begin=2, end=17, update_every=4, scope="global"),
    "l1 inside": lambda inner, params: keep_masked(l1_masking(inner, l1_coefficients(params), 0.01), pruned_half(params)),
    "l1 outside": lambda inner, params: l1_masking(prune_grow(inner, **EVERY_3), l1_coefficients(params), 0.01, decoupled=True),
    "multi steps outside": lambda inner, params: optax.MultiSteps(prune_grow(inner, **EVERY_3), 2).gradient_transformation(),
}
FEW = ("momentum", "adamw", "noise")
CASES = [(t, o) for t in TRANSFORMS for o in (OPTIMIZERS if t in ("keep_masked", "prune_grow", "rigl") else FEW)]


def make_params(dtype="float32"):
    leaves, tree = jax.tree.flatten(SHAPES, is_leaf=lambda node: isinstance(node, tuple))
    keys = jax.random.split(jax.random.key(0), len(leaves))
    return jax.tree.unflatten(tree, [jax.random.normal(k, shape, dtype) for k, shape in zip(keys, leaves, strict=True)])


def sparse_state(state):
    """The state of ours among an optimizer's: it has a mask and the state of the optimizer inside."""
    if hasattr(state, "mask"):
        return state
    return sparse_state(state.inner if hasattr(state, "inner") else state.inner_opt_state)


def assert_pruned_is_zero(params, state, factored=True):
    """The weights, and every array of a weight's shape anywhere in the optimizer's state, found by shape alone."""
    ours = sparse_state(state)
    arrays = [leaf for leaf in jax.tree.leaves(ours.inner) if not jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)]
    moments = 0
    for p, m in zip(jax.tree.leaves(params), jax.tree.leaves(ours.mask), strict=True):
        if m.ndim == 0:
            continue
        pruned = ~np.asarray(m)
        assert pruned.any()
        for array in (p, *(a for a in arrays if a.shape == p.shape)):
            values = np.asarray(array.astype(jnp.float32))[pruned]
            assert not values.any(), "a pruned weight or moment is not 0"  # a NaN is not 0 either
            moments += array is not p
    return moments


def run(tx, params, steps=STEPS):
    """Yields (params, state) after each step; checks that a step is traced once and that the state keeps its form."""
    traces = []

    @jax.jit
    def step(params, state, key):
        traces.append(key)
        grads = jax.tree.map(lambda p, i: jax.random.normal(jax.random.fold_in(key, i), p.shape, p.dtype), params, number)
        updates, state = tx.update(grads, state, params, value=jnp.float32(1))
        return optax.apply_updates(params, updates), state

    number = jax.tree.unflatten(jax.tree.structure(params), range(len(jax.tree.leaves(params))))
    state = tx.init(params)
    form = jax.tree.map(lambda leaf: (jnp.shape(leaf), leaf.dtype, leaf.weak_type), state)
    for i in range(steps):
        params, state = step(params, state, jax.random.fold_in(jax.random.key(3), i))
        yield params, state
        assert jax.tree.structure(state) == jax.tree.structure(form, is_leaf=lambda node: type(node) is tuple and len(node) == 3)
        assert jax.tree.map(lambda leaf: (jnp.shape(leaf), leaf.dtype, leaf.weak_type), state) == form
    assert len(traces) == 1


@pytest.mark.parametrize(("transform", "optimizer"), CASES)
def test_pitfall_4_nothing_revives_a_pruned_weight_or_its_moments(transform, optimizer):
    params = make_params()
    tx = TRANSFORMS[transform](OPTIMIZERS[optimizer](), params)
    if transform == "multi steps outside":  # there the first of two steps moves nothing
        params = masks.apply(sparse_state(tx.init(params)).mask, params)
    moments, counts = 0, set()
    for after, state in run(tx, params):
        if "prun" in transform and transform != "prune_grow" and int(sparse_state(state).count) < 6:
            continue  # gradual pruning has pruned nothing yet
        moments += assert_pruned_is_zero(after, state)
        counts.add(tuple(map(int, jax.tree.leaves(masks.counts(sparse_state(state).mask)))))
    assert moments or optimizer == "sgd"
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(after))
    assert any((a != b).any() for a, b in zip(jax.tree.leaves(after), jax.tree.leaves(params), strict=True))
    if "prun" not in transform or transform == "prune_grow":
        assert len(counts) == 1  # prune_grow keeps the number of active weights of every leaf
