"""What every transform promises around every optimizer: exact zeros, exact counts, a state that keeps its form."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxtickets import masks
from jaxtickets.masks import sparsity
from jaxtickets.transforms import gradual_pruning, keep_masked, l1_masking, prune_grow

STEPS = 20
# Every leaf has its own shape, by which its moments are known. Adafactor factors what has 128 rows and columns.
SHAPES = {
    "big": {"kernel": (128, 130), "bias": (130,)},
    "small": {"kernel": (6, 5), "bias": (5,)},
    "scale": (),
}
LR = optax.exponential_decay(0.1, 5, 0.5)

OPTIMIZERS = {
    "sgd": lambda: optax.sgd(LR),
    "momentum": lambda: optax.sgd(LR, momentum=0.9),
    "nesterov": lambda: optax.sgd(0.1, momentum=0.9, nesterov=True),
    "weight decay": lambda: optax.chain(
        optax.add_decayed_weights(5e-4), optax.sgd(0.1, momentum=0.9)
    ),
    "adam": lambda: optax.adam(LR),
    "adamw": lambda: optax.adamw(0.1, weight_decay=0.1),
    "lion": lambda: optax.lion(0.01, weight_decay=0.1),
    "adafactor": lambda: optax.adafactor(0.1, momentum=0.9, weight_decay_rate=1e-3),
    "multi steps": lambda: optax.MultiSteps(optax.adam(0.1), 2).gradient_transformation(),
    "hyperparameters": lambda: optax.inject_hyperparams(optax.adamw)(
        learning_rate=LR, weight_decay=0.1
    ),
    "clipped": lambda: optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(0.1)),
    "noise": lambda: optax.chain(
        optax.add_noise(0.1, 0.55, jax.random.key(1)), optax.trace(0.9), optax.scale(-0.1)
    ),
    "partition": lambda: optax.partition(
        {"first": optax.adam(0.1), "rest": optax.sgd(0.1, momentum=0.9)},
        {"big": {"kernel": "first", "bias": "rest"}, "small": "rest", "scale": "rest"},
    ),
    "masked decay": lambda: optax.chain(
        optax.sgd(0.1, momentum=0.9),
        optax.masked(
            optax.ema(0.9), {"big": {"kernel": True, "bias": False}, "small": False, "scale": False}
        ),
    ),
    "plateau": lambda: optax.chain(optax.adam(0.1), optax.contrib.reduce_on_plateau(patience=2)),
}


def pruned_half(params):
    return sparsity.random_mask(jax.random.key(5), params, 0.5, "uniform")


def l1_coefficients(params):
    return jax.tree.map(lambda p: jnp.float32(p.ndim > 1), params)


EVERY_3 = {"sparsity": 0.7, "update_every": 3, "key": jax.random.key(2)}
TRANSFORMS = {
    "keep_masked": lambda inner, params: keep_masked(inner, pruned_half(params)),
    "prune_grow": lambda inner, params: prune_grow(
        inner, **EVERY_3, drop_fraction=sparsity.cosine(0.5, STEPS)
    ),
    "rigl": lambda inner, params: prune_grow(
        inner, **EVERY_3, weight_update=False, track_ever_active=True
    ),
    "set": lambda inner, params: prune_grow(
        inner, **EVERY_3, growth="random", regrown="zero", distribution="uniform"
    ),
    "gradual_pruning": lambda inner, params: gradual_pruning(
        inner, sparsity=0.8, begin=2, end=17, update_every=4
    ),
    "global pruning": lambda inner, params: gradual_pruning(
        inner, sparsity=0.8, begin=2, end=17, update_every=4, scope="global"
    ),
    "l1 inside": lambda inner, params: keep_masked(
        l1_masking(inner, l1_coefficients(params), 0.01), pruned_half(params)
    ),
    "l1 outside": lambda inner, params: l1_masking(
        prune_grow(inner, **EVERY_3), l1_coefficients(params), 0.01, decoupled=True
    ),
    "multi steps outside": lambda inner, params: optax.MultiSteps(
        prune_grow(inner, **EVERY_3), 2
    ).gradient_transformation(),
}
PAIRS = {  # not all with all: compiling takes the time
    "keep_masked": tuple(OPTIMIZERS),
    "prune_grow": ("adamw", "lion", "adafactor", "multi steps", "noise", "partition"),
    "rigl": ("momentum", "multi steps", "noise"),
}
CASES = [
    (transform, optimizer)
    for transform in TRANSFORMS
    for optimizer in PAIRS.get(transform, ("adamw",))
]


def make_params(dtype="float32"):
    leaves, tree = jax.tree.flatten(SHAPES, is_leaf=lambda node: isinstance(node, tuple))
    keys = jax.random.split(jax.random.key(0), len(leaves))
    return jax.tree.unflatten(
        tree, [jax.random.normal(k, shape, dtype) for k, shape in zip(keys, leaves, strict=True)]
    )


def sparse_state(state):
    """The state of ours among an optimizer's: it has a mask and the state of the optimizer inside."""
    if hasattr(state, "mask"):
        return state
    return sparse_state(state.inner if hasattr(state, "inner") else state.inner_opt_state)


def assert_pruned_is_zero(params, state):
    """The weights, and every array of a weight's shape anywhere in the optimizer's state, found by shape alone."""
    ours = sparse_state(state)
    arrays = [
        leaf
        for leaf in jax.tree.leaves(ours.inner)
        if not jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    ]
    moments, pruned_weights = 0, 0
    for p, m in zip(jax.tree.leaves(params), jax.tree.leaves(ours.mask), strict=True):
        if m.ndim == 0:
            continue
        pruned = ~np.asarray(m)
        pruned_weights += pruned.sum()
        for array in (p, *(a for a in arrays if a.shape == p.shape)):
            values = np.asarray(array.astype(jnp.float32))[pruned]
            assert not values.any(), "a pruned weight or moment is not 0"  # a NaN is not 0 either
            moments += array is not p
    assert pruned_weights
    return moments


def form(state):
    return jax.tree.map(
        lambda leaf: (leaf.shape, leaf.dtype, getattr(leaf, "weak_type", False)), state
    )


def run(tx, params, steps=STEPS):
    """Yields (params, state) after each step; checks that a step is traced once and that the state keeps its form."""
    traces = []

    @jax.jit
    def step(params, state, grads):
        traces.append(grads)
        updates, state = tx.update(grads, state, params, value=jnp.float32(1))
        return optax.apply_updates(params, updates), state

    rng = np.random.default_rng(3)
    state = tx.init(params)
    before = form(state)
    for _ in range(steps):
        grads = jax.tree.map(lambda p: rng.normal(size=p.shape).astype(p.dtype), params)
        params, state = step(params, state, grads)
        yield params, state
        assert form(state) == before
    assert len(traces) == 1


@pytest.mark.parametrize(("transform", "optimizer"), CASES)
def test_pitfall_4_nothing_revives_a_pruned_weight_or_its_moments(transform, optimizer):
    params = make_params()
    tx = TRANSFORMS[transform](OPTIMIZERS[optimizer](), params)
    if transform == "multi steps outside":  # there the first of two steps moves nothing
        params = masks.apply(sparse_state(tx.init(params)).mask, params)
    moments, counts = 0, set()
    for after, state in run(tx, params):
        if (
            "prun" in transform
            and transform != "prune_grow"
            and int(sparse_state(state).count) <= 6
        ):
            continue  # gradual pruning has pruned nothing before step 6, the seventh
        moments += assert_pruned_is_zero(after, state)
        counts.add(tuple(map(int, jax.tree.leaves(masks.counts(sparse_state(state).mask)))))
    assert moments or optimizer == "sgd"
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(after))
    assert any(
        (a != b).any() for a, b in zip(jax.tree.leaves(after), jax.tree.leaves(params), strict=True)
    )
    if "prun" not in transform or transform == "prune_grow":
        assert len(counts) == 1  # prune_grow keeps the number of active weights of every leaf


@pytest.mark.parametrize("transform", ["keep_masked", "prune_grow"])
def test_bfloat16_params_are_pruned_exactly(transform):
    params = make_params("bfloat16")
    tx = TRANSFORMS[transform](optax.sgd(0.1, momentum=0.9), params)
    for after, state in run(tx, params):
        assert assert_pruned_is_zero(after, state)
    assert {leaf.dtype.name for leaf in jax.tree.leaves(after)} == {"bfloat16"}


@pytest.mark.parametrize("dtypes", [("float32", "bfloat16"), ("bfloat16", "float32")])
def test_updates_of_another_dtype_than_the_params_still_prune_exactly(dtypes):
    params = {"w": jax.random.normal(jax.random.key(0), (40, 40), dtypes[0])}
    grads = {"w": jax.random.normal(jax.random.key(1), (40, 40), dtypes[1])}
    tx = keep_masked(optax.sgd(0.1), {"w": jnp.tile(jnp.array([True, False]), (40, 20))})
    updates, _ = tx.update(grads, tx.init(params), params)
    after = optax.apply_updates(params, updates)["w"]
    assert after.dtype == dtypes[0]
    assert not after[:, 1::2].any()
    assert (after[:, ::2] != params["w"][:, ::2]).any()


@pytest.mark.parametrize(
    "optimizer", ["momentum", "adamw", "lion", "adafactor", "multi steps", "partition"]
)
def test_a_mask_that_keeps_everything_changes_nothing(optimizer):
    params = make_params()
    inner = optax.with_extra_args_support(OPTIMIZERS[optimizer]())
    tx = keep_masked(inner, masks.full(params))
    bare, state, grads = inner.init(params), tx.init(params), jax.tree.map(jnp.sin, params)
    for _ in range(2):
        expected, bare = inner.update(grads, bare, params, value=1.0)
        updates, state = tx.update(grads, state, params, value=1.0)
        for a, b in zip(
            jax.tree.leaves((updates, state.inner)), jax.tree.leaves((expected, bare)), strict=True
        ):
            np.testing.assert_array_equal(a, b)


def test_what_a_pruned_weights_gradient_is_never_matters():
    params = {"w": jnp.array([[1.0, 2.0, 3.0]]), "b": jnp.ones(3)}
    mask = {"w": jnp.array([[True, False, True]]), "b": jnp.ones((), bool)}
    tx = keep_masked(optax.chain(optax.clip_by_global_norm(1.0), optax.adam(0.1)), mask)
    results = []
    for gradient in (0.0, jnp.nan, jnp.inf, -1e30):
        updates, state = tx.update(
            {"w": jnp.array([[1.0, gradient, -1.0]]), "b": jnp.ones(3)}, tx.init(params), params
        )
        results.append(jax.tree.leaves((optax.apply_updates(params, updates), state)))
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(results[0][1][:, 1], 0)


def test_extra_arguments_reach_the_inner_optimizer():
    params = {"w": jnp.ones((4, 4))}
    inner = optax.contrib.reduce_on_plateau(factor=0.5, patience=1)
    for wrap in (
        lambda inner: keep_masked(inner, masks.full(params)),
        lambda inner: prune_grow(inner, sparsity=0.5, key=jax.random.key(0)),
        lambda inner: gradual_pruning(inner, sparsity=0.5, begin=5, end=9),
        lambda inner: l1_masking(inner, {"w": 1.0}, 0.1),
    ):
        tx = wrap(inner)
        state, update = tx.init(params), jax.jit(tx.update)
        for _ in range(5):  # a loss that never improves halves the scale
            _, state = update(params, state, params, value=jnp.float32(1))
        assert float(state.inner.scale) < 1
        with pytest.raises(TypeError, match="value"):
            tx.update(params, state, params)


def test_params_are_required():
    params = {"w": jnp.ones((4, 4))}
    for tx in (
        keep_masked(optax.sgd(0.1), masks.full(params)),
        prune_grow(optax.sgd(0.1), sparsity=0.5, key=jax.random.key(0)),
        gradual_pruning(optax.sgd(0.1), sparsity=0.5, begin=0, end=2),
        l1_masking(optax.sgd(0.1), {"w": 1.0}, 0.1),
    ):
        with pytest.raises(
            ValueError, match=r"needs the params: call tx.update\(grads, state, params\)"
        ):
            tx.update(params, tx.init(params))


def test_pitfall_3_states_have_no_none_leaves():
    params = make_params()
    for name, make in TRANSFORMS.items():
        state = sparse_state(make(optax.adam(0.1), params).init(params))
        assert jax.tree.structure(state.mask) == jax.tree.structure(params), name
        assert len(jax.tree.leaves(state.mask)) == len(jax.tree.leaves(params)), name


@pytest.mark.parametrize(
    "transform", ["keep_masked", "prune_grow", "rigl", "gradual_pruning", "l1 inside", "l1 outside"]
)
def test_optax_knows_which_parts_of_our_states_are_like_the_params(transform):
    params = make_params()
    tx = TRANSFORMS[transform](optax.adam(0.1), params)
    state = tx.init(params)
    marked = optax.tree.map_params(
        tx,
        lambda leaf, path: path,
        state,
        jax.tree.unflatten(jax.tree.structure(params), masks.leaf_paths(params)),
    )
    inner = sparse_state(marked)
    # A mask is not: its dense markers are 0-d, and specs for the params would not fit them.
    for marked, own in zip(
        *map(jax.tree.leaves, (inner.mask, sparse_state(state).mask)), strict=True
    ):
        np.testing.assert_array_equal(marked, own)
    adam = inner.inner.inner if transform == "l1 inside" else inner.inner
    assert jax.tree.leaves(adam[0].mu) == jax.tree.leaves(adam[0].nu) == masks.leaf_paths(params)


def test_a_mask_that_does_not_fit_is_refused_at_init():
    tx = keep_masked(optax.sgd(0.1), {"w": jnp.ones((2, 2), bool)})
    with pytest.raises(masks.MaskError, match=r"'w' is bool\[2, 2\]"):
        tx.init({"w": jnp.ones((2, 3))})


def test_keep_masked_under_strict_dtype_promotion(strict_arithmetic):
    params = {"w": jnp.ones((2, 2), jnp.bfloat16)}
    tx = keep_masked(optax.sgd(0.5, momentum=0.5), {"w": jnp.array([[True, False], [False, True]])})
    updates, _ = tx.update(params, tx.init(params), params)
    assert optax.apply_updates(params, updates)["w"].tolist() == [[0.5, 0.0], [0.0, 0.5]]


@pytest.mark.parametrize("name", ["keep_masked", "prune_grow", "gradual_pruning", "l1_masking"])
def test_a_state_can_be_donated_and_takes_nothing_of_the_callers_with_it(name):
    key = jax.random.key(0)
    params = {
        "a": {"kernel": jnp.ones((8, 8)), "bias": jnp.ones(8)},
        "b": {"kernel": jnp.ones((8, 4)), "bias": jnp.ones(4)},
    }
    mask = sparsity.random_mask(key, params, 0.5, "uniform")
    coefficients = jax.tree.map(lambda p: jnp.zeros((), jnp.float32), params)
    inner = optax.sgd(0.1, momentum=0.9)
    tx = {
        "keep_masked": lambda: keep_masked(inner, mask),
        "prune_grow": lambda: prune_grow(inner, mask=mask, track_ever_active=True, key=key),
        "gradual_pruning": lambda: gradual_pruning(inner, sparsity=0.5, begin=0, end=10),
        "l1_masking": lambda: l1_masking(inner, coefficients, 0.1),
    }[name]()
    step = jax.jit(lambda p, s: tx.update(p, s, p), donate_argnums=1)
    state = tx.init(params)
    for _ in range(2):
        updates, state = step(params, state)
    assert masks.count(mask) == 32 + 16  # half of each kernel; and still readable
    jax.block_until_ready((updates, state, params, mask, coefficients, jax.random.key_data(key)))
