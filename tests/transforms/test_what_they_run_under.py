"""Under every transformation of JAX, and with every wrapper of optax inside and around."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxtickets import masks
from jaxtickets.errors import MaskError
from jaxtickets.masks import audit, sparsity
from jaxtickets.masks.selection import keep_largest
from jaxtickets.transforms import (
    evolve_mask,
    gradual_pruning,
    keep_masked,
    l1_masking,
    prune_grow,
    prune_to,
)

KEY = jax.random.key(0)
PARAMS = {
    "a": {"kernel": jax.random.normal(KEY, (6, 8)), "bias": jnp.zeros(8)},
    "b": {"kernel": jax.random.normal(KEY, (8, 4))},
}
MASK = sparsity.random_mask(KEY, PARAMS, 0.5)
MAKE = {
    "prune_grow": lambda inner=None, **o: prune_grow(
        inner or optax.adam(0.1), **{"key": KEY, "sparsity": 0.5, "update_every": 2, **o}
    ),
    "gradual_pruning": lambda inner=None: gradual_pruning(
        inner or optax.adam(0.1), sparsity=0.5, begin=0, end=3, update_every=2
    ),
    "keep_masked": lambda inner=None: keep_masked(inner or optax.adam(0.1), MASK),
    "l1_masking": lambda inner=None: l1_masking(
        inner or optax.adam(0.1), jax.tree.map(lambda p: 1.0, PARAMS), 0.01
    ),
}
EVOLVING = ("prune_grow", "gradual_pruning")


def assert_same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            x, y = jax.random.key_data(x), jax.random.key_data(y)
        np.testing.assert_array_equal(x, y)


def train(tx, params=PARAMS, steps=4, init=None, update=None):
    state, update = (init or tx.init)(params), update or jax.jit(tx.update)
    for _ in range(steps):
        updates, state = update(jax.tree.map(jnp.sin, params), state, params)
        params = optax.apply_updates(params, updates)
    return params, state


@pytest.mark.parametrize("name", MAKE)
def test_init_under_jit_and_eval_shape(name):
    tx = MAKE[name]()
    state = tx.init(PARAMS)
    assert_same(jax.jit(tx.init)(PARAMS), state)
    shapes = jax.eval_shape(tx.init, PARAMS)
    assert jax.tree.map(lambda s: (s.shape, s.dtype), shapes) == jax.tree.map(
        lambda s: (s.shape, s.dtype), state
    )


@pytest.mark.parametrize("impl", ["threefry2x32", "rbg", "old"])
def test_keys_of_every_kind(impl):
    key = jax.random.PRNGKey(3) if impl == "old" else jax.random.key(3, impl=impl)
    tx = MAKE["prune_grow"](key=key)
    assert_same(jax.jit(tx.init)(PARAMS), tx.init(PARAMS))
    train(tx, steps=2)


@pytest.mark.parametrize("name", MAKE)
def test_inside_a_branch_under_vmap_each_member_takes_its_own(name):
    """`vmap(apply_if_finite(...))`: what is batched over everything, constants too."""
    tx = optax.apply_if_finite(MAKE[name](), 5)
    params = jax.tree.map(lambda p: jnp.stack([p, p, 2 * p]), PARAMS)
    grads = jax.tree.map(lambda p: jnp.sin(p).at[1].set(jnp.nan), params)
    state, update = jax.vmap(tx.init)(params), jax.jit(jax.vmap(tx.update))
    one = jax.jit(tx.update)
    alone = [tx.init(jax.tree.map(lambda p, i=i: p[i], params)) for i in range(3)]
    for _ in range(2):
        _, state = update(grads, state, params)
        alone = [
            one(
                *jax.tree.map(lambda a, i=i: a[i], (grads,)),
                s,
                jax.tree.map(lambda a, i=i: a[i], params),
            )[1]
            for i, s in enumerate(alone)
        ]
    assert state.total_notfinite.tolist() == [0, 2, 0]
    for i in range(3):
        mine = jax.tree.map(lambda a, i=i: a[i], state.inner_state)
        if name != "l1_masking":
            assert_same(mine.mask, alone[i].inner_state.mask)
        assert [int(c) for c in jax.tree.leaves(mine) if c.dtype == jnp.int32] == [
            int(c) for c in jax.tree.leaves(alone[i].inner_state) if c.dtype == jnp.int32
        ]


def over_members(f):
    part = PartitionSpec("member")
    grid = Mesh(
        np.array(jax.devices()[:1]), ("member",)
    )  # values vary over an axis of one device, too
    return jax.jit(jax.shard_map(f, mesh=grid, in_specs=part, out_specs=part))


def test_selection_in_shard_map_on_values_that_vary():
    values = jax.random.normal(KEY, (1, 4, 10))
    want = keep_largest(values[0], 7)
    np.testing.assert_array_equal(
        over_members(lambda v: keep_largest(v[0], 7)[None])(values)[0], want
    )
    rows = over_members(lambda v: keep_largest(v[0], jnp.array([1, 2, 3, 4]))[None])(values)[0]
    assert rows.sum(1).tolist() == [1, 2, 3, 4]


@pytest.mark.parametrize("name", MAKE)
def test_a_whole_training_in_shard_map(name):
    def three_steps(params):
        params, state = train(
            MAKE[name](), jax.tree.map(lambda p: p[0], params), 3, update=MAKE[name]().update
        )
        return jax.tree.map(lambda p: p[None], (params, getattr(state, "mask", ())))

    params, mask = over_members(three_steps)(jax.tree.map(lambda p: p[None], PARAMS))
    want, state = train(MAKE[name](), steps=3)
    for a, b in zip(jax.tree.leaves(params), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(a[0], b, rtol=1e-5, atol=1e-6)
    if mask:
        assert_same(jax.tree.map(lambda m: m[0], mask), state.mask)


@pytest.mark.parametrize("name", ["prune_grow", "gradual_pruning", "l1_masking"])
@pytest.mark.parametrize("jit", [False, True])
def test_inject_hyperparams(name, jit):
    factory, options = {
        "prune_grow": (
            prune_grow,
            {"key": KEY, "sparsity": 0.6, "update_every": 2, "drop_fraction": 0.3},
        ),
        "gradual_pruning": (
            gradual_pruning,
            {"sparsity": 0.6, "begin": 0, "end": 3, "update_every": 2},
        ),
        "l1_masking": (
            l1_masking,
            {"coefficients": jax.tree.map(lambda p: 1.0, PARAMS), "strength": 0.01},
        ),
    }[name]
    static = ("sparsity",) if name == "prune_grow" and jit else ()
    tx, plain = (
        optax.inject_hyperparams(factory, static_args=static)(optax.adam(0.1), **options),
        factory(optax.adam(0.1), **options),
    )
    params, state = train(tx, init=jax.jit(tx.init) if jit else tx.init)
    want, want_state = train(plain)
    # Four steps of Adam in two programs: one has the hyperparameters as constants.
    for a, b in zip(jax.tree.leaves(params), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    if hasattr(want_state, "mask"):
        assert_same(state.inner_state.mask, want_state.mask)
    if name == "prune_grow":
        assert float(state.hyperparams["drop_fraction"]) == pytest.approx(0.3)


def test_a_traced_sparsity_says_what_to_pass():
    tx = optax.inject_hyperparams(prune_grow)(optax.adam(0.1), key=KEY, sparsity=0.6)
    with pytest.raises(MaskError, match=r"static_args=\('sparsity',\)"):
        jax.jit(tx.init)(PARAMS)


def test_a_scheduled_hyperparameter_moves_the_drop_fraction():
    schedule = optax.linear_schedule(0.5, 0.0, 4)
    tx = optax.inject_hyperparams(prune_grow)(
        optax.adam(0.1), key=KEY, sparsity=0.6, update_every=2, drop_fraction=schedule
    )
    plain = prune_grow(
        optax.adam(0.1), key=KEY, sparsity=0.6, update_every=2, drop_fraction=schedule
    )
    assert_same(train(tx)[1].inner_state.mask, train(plain)[1].mask)


OPTIMIZERS = {
    "sm3": lambda: optax.sm3(0.1),
    "flatten": lambda: optax.flatten(optax.adam(0.1)),
    "clip and flatten": lambda: optax.chain(
        optax.clip_by_global_norm(1.0), optax.flatten(optax.sgd(0.1, momentum=0.9))
    ),
    "apply_every": lambda: optax.chain(optax.adam(0.1), optax.apply_every(2)),
    "lookahead": lambda: optax.contrib.schedule_free(optax.sgd(0.1, momentum=0.9), 0.1),
    "MultiSteps": lambda: optax.MultiSteps(optax.adam(0.1), 2),
    "masked": lambda: optax.masked(optax.adam(0.1), {"a": True, "b": False}),
}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("name", EVOLVING)
def test_with_any_optimizer_inside_pruned_weights_and_moments_are_0(name, optimizer):
    params, state = train(MAKE[name](OPTIMIZERS[optimizer]()))
    assert 0.4 < masks.density(state.mask) < 0.6
    assert not audit(state.mask, params)
    assert not audit(state.mask, {"params": params, "inner": state.inner})
    # optax.flatten makes one vector of all.
    flags = np.concatenate(
        [
            np.broadcast_to(m, p.shape).reshape(-1)
            for m, p in zip(*map(jax.tree.leaves, (state.mask, params)), strict=True)
        ]
    )
    vectors = [leaf for leaf in jax.tree.leaves(state.inner) if jnp.shape(leaf) == flags.shape]
    assert len(vectors) == {"flatten": 2, "clip and flatten": 1}.get(optimizer, 0)
    assert not any(np.asarray(vector)[~flags].any() for vector in vectors)


AROUND = {
    "MultiSteps": lambda tx: optax.MultiSteps(tx, 2).gradient_transformation(),
    "masked": lambda tx: optax.masked(tx, {"a": True, "b": True}),
    "partition": lambda tx: optax.partition(
        {"sparse": tx, "dense": optax.adam(0.1)}, {"a": "sparse", "b": "dense"}
    ),
    "a label without params": lambda tx: optax.partition(
        {"sparse": tx, "dense": optax.adam(0.1)}, {"a": "dense", "b": "dense"}
    ),
    "zero_nans": lambda tx: optax.chain(optax.zero_nans(), tx),
}


@pytest.mark.parametrize("wrapper", AROUND)
@pytest.mark.parametrize("name", EVOLVING)
def test_with_wrappers_around(name, wrapper):
    params, _ = train(AROUND[wrapper](MAKE[name]()), steps=6)
    zeros = [int((params[layer]["kernel"] == 0).sum()) for layer in ("a", "b")]
    masked = {"partition": (True, False), "a label without params": (False, False)}.get(
        wrapper, (True, True)
    )
    assert [n > 0 for n in zeros] == list(masked)


@pytest.mark.parametrize("name", [*EVOLVING, "keep_masked"])
def test_specs_for_the_params_are_not_specs_for_dense_markers(name):
    """The recipe of optax for sharding a state: what is like the params gets their specs."""
    tx, grid = MAKE[name](), Mesh(np.array(jax.devices()[:1]), ("model",))
    specs = jax.tree.map(lambda p: PartitionSpec(*["model"] + [None] * (p.ndim - 1)), PARAMS)
    shardings = optax.tree.map_params(
        tx,
        lambda _, spec: NamedSharding(grid, spec),
        jax.eval_shape(tx.init, PARAMS),
        specs,
        transform_non_params=lambda _: NamedSharding(grid, PartitionSpec()),
    )
    state = jax.jit(tx.init, out_shardings=shardings)(PARAMS)
    assert state.inner[0].mu["a"]["kernel"].sharding.spec == PartitionSpec("model", None)
    assert_same(jax.device_put(tx.init(PARAMS), shardings).mask, state.mask)


@pytest.mark.parametrize("name", MAKE)
def test_without_jit_with_debug_nans_and_with_leaks_checked(name):
    want = train(MAKE[name](), steps=2)[0]
    with jax.disable_jit():
        got = train(MAKE[name](), steps=2, update=MAKE[name]().update)[0]
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    with jax.debug_nans(True):
        assert_same(train(MAKE[name](), steps=2)[0], want)
    with jax.checking_leaks():
        tx = MAKE[name]()
        assert_same(train(tx, steps=2, init=jax.jit(tx.init))[0], want)


def test_debug_nans_does_not_stop_at_a_gradient_that_only_growth_sees():
    mask = {"w": jnp.arange(6) < 3}
    grads = {"w": jnp.array([0.0, 0.0, 0.0, jnp.nan, 1.0, 2.0])}
    with jax.debug_nans(True):
        new, _ = jax.jit(evolve_mask)(
            mask, {"w": jnp.array([3.0, 2.0, 1.0, 0.0, 0.0, 0.0])}, grads, 0.4, KEY
        )
    assert new["w"].tolist() == [True, True, False, False, False, True]


@pytest.mark.parametrize("name", MAKE)
def test_in_64_bits(name):
    with jax.enable_x64(True):
        params = jax.tree.map(lambda p: jnp.asarray(np.asarray(p), jnp.float64), PARAMS)
        after, state = train(MAKE[name](), params)
        assert {leaf.dtype.name for leaf in jax.tree.leaves(after)} == {"float64"}
        if hasattr(state, "mask"):
            assert not audit(state.mask, after)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "complex64"])
@pytest.mark.parametrize("name", MAKE)
def test_params_of_every_dtype(name, dtype):
    params, state = train(MAKE[name](), jax.tree.map(lambda p: p.astype(dtype), PARAMS))
    assert {leaf.dtype.name for leaf in jax.tree.leaves(params)} == {dtype}
    if hasattr(state, "mask"):
        assert not audit(state.mask, params)


def test_frozen_leaves_and_holes():
    params = {**PARAMS, "none": None, "empty": {}, "steps": jnp.arange(3)}
    mask = prune_grow(optax.sgd(0.1), key=KEY, sparsity=0.5).init(params).mask
    assert mask["none"] is None
    assert mask["steps"].shape == ()
    for name in ("prune_grow", "gradual_pruning"):
        assert not jax.tree.leaves(MAKE[name]().init({}).mask)
        assert train(MAKE[name](), {}, 2)[0] == {}


@pytest.mark.parametrize("name", EVOLVING)
def test_weights_can_be_differentiated_through_an_update(name):
    """As meta-learning does; the mask has no derivative."""
    tx = MAKE[name](optax.sgd(0.1))
    state = tx.init(PARAMS)

    def total(grads):
        return jnp.sum(tx.update(grads, state, PARAMS)[0]["a"]["kernel"])

    pull = jax.grad(total)(jax.tree.map(jnp.ones_like, PARAMS))["a"]["kernel"]
    np.testing.assert_allclose(pull, -0.1 * state.mask["a"]["kernel"], atol=1e-7)


def test_nan_ranks_last_whatever_is_ranked():
    """Growth, drop and pruning, against sorted lists worked by hand."""
    mask = {"w": jnp.array([True] * 4 + [False] * 4)}
    params = {"w": jnp.array([5.0, jnp.nan, 0.5, 4.0, 0, 0, 0, 0])}
    grads = {"w": jnp.array([0.0, 0.0, 0.0, 0.0, jnp.nan, 1.0, jnp.inf, 0.5])}
    new, survivors = evolve_mask(mask, params, grads, 0.5, KEY)
    assert new["w"].tolist() == [
        True,
        False,
        False,
        True,
        False,
        True,
        False,
        True,
    ]  # NaN and .5 go; 1 and .5 come
    assert survivors["w"].tolist() == [True, False, False, True] + [False] * 4
    assert prune_to({"w": jnp.ones(4, bool)}, {"w": params["w"][:4]}, 0.25)["w"].tolist() == [
        True,
        False,
        True,
        True,
    ]
    both = prune_to(
        {"w": jnp.ones(4, bool), "v": jnp.ones(2, bool)},
        {"w": params["w"][:4], "v": jnp.array([jnp.inf, 0.1])},
        0.5,
        "global",
    )
    assert [both["w"].tolist(), both["v"].tolist()] == [[True, False, True, True], [False, False]]


@pytest.mark.parametrize("regrown", ["keep", "zero"])
def test_a_gradient_of_nothing_but_nan_leaves_the_mask(regrown):
    mask = {"w": jnp.arange(10) % 2 == 0}
    params = masks.apply(mask, {"w": jnp.arange(1.0, 11.0)})
    new, _ = evolve_mask(mask, params, {"w": jnp.full(10, jnp.nan)}, 0.6, KEY, regrown=regrown)
    np.testing.assert_array_equal(new["w"], mask["w"])


@pytest.mark.parametrize(
    "inner",
    [optax.chain(optax.zero_nans(), optax.sgd(0.1)), optax.apply_if_finite(optax.sgd(0.1), 9)],
)
def test_growth_with_zero_nans_inside_is_not_of_the_nan_ones(inner):
    tx = prune_grow(inner, key=KEY, sparsity=0.5, update_every=1, drop_fraction=0.5)
    params = {"w": jax.random.normal(KEY, (8, 8))}
    state = tx.init(params)
    inactive = np.flatnonzero(~np.asarray(state.mask["w"]).reshape(-1))
    grads = np.asarray(jax.random.normal(jax.random.key(2), (64,))).copy()
    grads[inactive[:10]] = np.nan
    _, after = jax.jit(tx.update)({"w": jnp.asarray(grads.reshape(8, 8))}, state, params)
    grown = np.asarray(after.mask["w"] & ~state.mask["w"]).reshape(-1)
    assert grown.sum() > 0
    assert not grown[inactive[:10]].any()
