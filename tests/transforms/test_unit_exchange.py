"""Whole units that go and come while a network trains: which, with what weights, and that the function stays."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxtickets as jt
from jaxtickets import masks
from jaxtickets.errors import MaskError
from jaxtickets.masks.unit_exchange import lines_of
from jaxtickets.masks.units import find_units, random_units, unit_mask
from jaxtickets.transforms import exchange_units, exchange_units_if

KEY = jax.random.key(0)


def mlp(params, state, x, train, key):
    hidden = jnp.tanh(x @ params["w1"] + params["b1"][None])
    hidden = jnp.tanh(hidden @ params["w2"] + params["b2"][None])
    return hidden @ params["w3"] + params["b3"][None], state


def residual(params, state, x, train, key):
    stream = x @ params["w1"]
    stream = stream + jnp.tanh(stream @ params["w2"]) @ params["w3"]
    return stream @ params["w4"], state


NETWORKS = {
    "mlp": (
        mlp,
        {"w1": (3, 4), "b1": (4,), "w2": (4, 3), "b2": (3,), "w3": (3, 2), "b3": (2,)},
    ),
    "residual": (residual, {"w1": (3, 8), "w2": (8, 10), "w3": (10, 8), "w4": (8, 2)}),
}


def made(name, seed=0):
    """A network's function, weights and units."""
    apply, shapes = NETWORKS[name]
    rng = np.random.default_rng(seed)
    params = {n: jnp.asarray(rng.normal(size=s), jnp.float32) for n, s in shapes.items()}
    return apply, params, find_units(apply, params, {}, jax.ShapeDtypeStruct((3,), jnp.float32))


def sevens(params):
    """A beginning that one recognises."""
    return lambda key: (jax.tree.map(lambda p: jnp.full(p.shape, 7.0), params), {})


def drawn(params):
    """A beginning from a key: odd sixteenths, which every program draws to the same bits.

    Normal numbers are rounded as the compiler fuses their polynomial, one program otherwise than
    the next.
    """

    def fresh(key):
        keys = jax.random.split(key, len(params))
        return {
            n: jax.random.randint(k, p.shape, -16, 16) / 8.0 + 0.0625
            for k, (n, p) in zip(keys, params.items(), strict=True)
        }, {}

    return fresh


def exchanged(units, mask, params, fraction, key=KEY, **options):
    fresh = options.pop("fresh", None) or drawn(params)
    params = masks.apply(mask, params)
    call = jax.jit(lambda m, p: exchange_units(units, m, p, {}, fraction, key, fresh, **options))
    return call(mask, params)


def alive(units, mask):
    """Which units a mask of whole units has, by group."""
    keep = np.zeros(len(units), bool)
    for leaf in units.params:
        for axis, (ids, read) in enumerate(zip(leaf.units, leaf.read, strict=True)):
            for index in np.flatnonzero((ids >= 0) & read):
                keep[ids[index]] |= np.take(np.asarray(mask[leaf.path]), index, axis).any()
    return np.split(keep, np.cumsum(units.sizes)[:-1])


def by_hand():
    """Units 0, 1 and 2 of four, and 0 and 1 of three."""
    params = {
        "w1": jnp.tile(jnp.array([0.5, 2.0, 1.0, 0.0]), (3, 1)),  # unit 0 is the smallest
        "b1": jnp.array([0.1, 0.2, 0.3, 0.4]),
        "w2": jnp.array([[4.0, 1.0, 0.0]] * 3 + [[0.0] * 3]),  # unit 1 is
        "b2": jnp.array([0.5, 0.6, 0.7]),
        "w3": jnp.array([[1.0, 2.0], [30.0, 40.0], [0.0, 0.0]]),  # what reads it does not matter
        "b3": jnp.array([0.8, 0.9]),
    }
    _, _, units = made("mlp")
    mask = unit_mask(units, jnp.array([True, True, True, False, True, True, False]))
    return params, mask, units


def test_by_hand():
    """Of three units one goes, of two one; there is one other of each."""
    params, mask, units = by_hand()
    new = exchanged(units, mask, params, 0.5, fresh=sevens(params))
    t, f = True, False
    expected = {
        "w1": [[0.0, 2.0, 1.0, 7.0]] * 3,
        "b1": [0.1, 0.2, 0.3, 7.0],
        # Row 3 reads the unit that comes: 0, but 7 for the other that comes.
        "w2": [[0.0, 0.0, 0.0], [4.0, 0.0, 7.0], [4.0, 0.0, 7.0], [0.0, 0.0, 7.0]],
        "b2": [0.5, 0.6, 7.0],
        "w3": [[1.0, 2.0], [0.0, 0.0], [0.0, 0.0]],
        "b3": [0.8, 0.9],
    }
    for name, leaf in expected.items():
        np.testing.assert_array_equal(new.params[name], np.float32(leaf), err_msg=name)
    assert new.mask["w1"].tolist() == [[f, t, t, t]] * 3
    assert new.mask["w2"].tolist() == [[f, f, f]] + [[t, f, t]] * 3
    assert new.mask["w3"].tolist() == [[t, t], [f, f], [t, t]]
    assert new.survivors["w1"].tolist() == [[f, t, t, f]] * 3
    assert new.survivors["w2"].tolist() == [[f, f, f], [t, f, f], [t, f, f], [f, f, f]]
    assert new.survivors["w3"].tolist() == [[t, t], [f, f], [f, f]]
    assert new.survivors["b1"].tolist() == [t, t, t, f]
    assert new.survivors["b2"].tolist() == [t, t, f]
    assert bool(new.survivors["b3"])
    assert [new.mask[b].shape for b in ("b1", "b2", "b3")] == [()] * 3


@pytest.mark.parametrize("growth", ["random", "gradient"])
@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("seed", range(3))
def test_counts_hold_the_function_stays_and_what_came_learns_at_once(name, growth, seed):
    apply, params, units = made(name, seed)
    keys = jax.random.split(jax.random.key(seed), 3)
    mask = unit_mask(units, random_units(keys[0], units, 0.5))
    params = masks.apply(mask, params)
    x, y = (jax.random.normal(k, (5, size)) for k, size in zip(keys[1:], (3, 2), strict=True))

    def loss(params):
        return jnp.mean((apply(params, {}, x, True, None)[0] - y) ** 2)

    new = exchanged(units, mask, params, 0.6, keys[1], growth=growth, loss=loss)
    before, after = alive(units, mask), alive(units, new.mask)
    comes = [~old & now for old, now in zip(before, after, strict=True)]
    for old, now, came in zip(before, after, comes, strict=True):
        n = old.sum()
        assert now.sum() == n
        assert came.sum() == min(math.floor(0.6 * n), n - 1, len(old) - n) > 0
    keep = unit_mask(units, jnp.asarray(np.concatenate(after)))
    for path, m in new.mask.items():
        np.testing.assert_array_equal(m, keep[path])
        assert not np.asarray(new.params[path])[~np.broadcast_to(m, params[path].shape)].any()
    stays = np.concatenate(before) & np.concatenate(after)
    without = masks.apply(unit_mask(units, jnp.asarray(stays)), params)
    # The same sums, with zeros for what came: equal to the last bit.
    np.testing.assert_array_equal(
        apply(new.params, {}, x, False, None)[0], apply(without, {}, x, False, None)[0]
    )
    grads = jax.grad(loss)(new.params)
    came = jnp.asarray(np.concatenate(comes))
    for leaf in units.params:
        lines = lines_of(leaf, came)
        if leaf.prunable and lines.outgoing.ndim:
            learns = np.asarray(lines.outgoing & new.mask[leaf.path])
            assert (np.asarray(grads[leaf.path])[learns] != 0).all()
            assert not np.asarray(new.params[leaf.path])[learns].any()
            assert np.asarray(new.params[leaf.path])[
                np.asarray(lines.own & new.mask[leaf.path])
            ].all()


def test_by_gradient_those_come_whose_outgoing_gradient_is_largest():
    """Against each unit alone, set in by hand."""
    rng = np.random.default_rng(4)
    params = {"w1": rng.normal(size=(3, 9)), "w2": rng.normal(size=(9, 2))}
    params = jax.tree.map(jnp.float32, params)

    def apply(params, state, x, train, key):
        return jnp.tanh(x @ params["w1"]) @ params["w2"], state

    units = find_units(apply, params, {}, jax.ShapeDtypeStruct((3,), jnp.float32))
    keep = jnp.arange(9) < 4
    params = masks.apply(unit_mask(units, keep), params)
    x, y = jnp.float32(rng.normal(size=(6, 3))), jnp.float32(rng.normal(size=(6, 2)))

    def loss(params):
        return jnp.mean((apply(params, {}, x, True, None)[0] - y) ** 2)

    new = exchanged(units, unit_mask(units, keep), params, 0.5, growth="gradient", loss=loss)
    begins = drawn(params)(jax.random.split(KEY)[1])[0]["w1"]
    (now,) = alive(units, new.mask)
    left = now & np.asarray(keep)
    np.testing.assert_array_equal(new.params["w1"][:, now & ~left], begins[:, now & ~left])
    smaller = masks.apply(unit_mask(units, jnp.asarray(left)), params)
    norms = []
    for unit in range(4, 9):
        alone = smaller | {"w1": smaller["w1"].at[:, unit].set(begins[:, unit])}
        norms.append(float(jnp.sum(jax.grad(loss)(alone)["w2"][unit] ** 2)))
    assert set(np.flatnonzero(now & ~left)) == {4 + i for i in np.argsort(norms)[-2:]}


def test_never_all_go_nor_more_than_there_are_others():
    params, mask, units = by_hand()
    new = exchanged(units, mask, params, 1.0)
    first, second = alive(units, new.mask)
    assert first.tolist() == [False, True, True, True]  # one other came, for the smallest
    assert second.tolist() == [True, False, True]  # of two one stays
    whole = masks.full(params)
    for old, new_leaf in zip(
        jax.tree.leaves((whole, params)),
        jax.tree.leaves(exchanged(units, whole, params, 0.9)[2::-2]),
        strict=True,
    ):
        np.testing.assert_array_equal(old, new_leaf)


def test_what_is_pruned_inside_units_stays_pruned_and_dead_lines_are_tidied():
    params, mask, units = by_hand()
    mask["w2"] = mask["w2"].at[1, 0].set(False)  # between two units that stay
    mask["w1"] = mask["w1"].at[:, 3].set(True)  # writes a unit that nothing reads
    new = exchanged(units, mask, params, 0.5, fresh=sevens(params))
    assert new.params["w2"][1].tolist() == [0.0, 0.0, 7.0]
    assert new.mask["w2"][1].tolist() == [False, False, True]
    for fraction, column in ((0.0, [False] * 3), (0.5, [True] * 3)):
        kept = exchanged(units, mask, params, fraction).mask["w1"][:, 3]
        assert kept.tolist() == column


def test_what_is_not_a_number_goes_first():
    params, mask, units = by_hand()
    params["w1"] = params["w1"].at[1, 1].set(jnp.nan)
    new = exchanged(units, mask, params, 0.5)
    assert alive(units, new.mask)[0].tolist() == [True, False, True, True]
    assert np.isfinite(new.params["w1"]).all()


def test_a_random_unit_is_as_likely_as_another():
    """Two of five others come, 400 times: a share of .4 has a deviation of .0245."""
    _, shapes = NETWORKS["residual"]
    params = {n: jnp.ones(s) for n, s in shapes.items()}
    _, _, units = made("residual")
    mask = unit_mask(units, jnp.array([True] * 3 + [False] * 5 + [True] * 10))
    params = masks.apply(mask, params)

    def draw(key):
        new = exchange_units(units, mask, params, {}, 0.9, key, drawn(params))
        return new.mask["w4"].any(1)

    came = np.asarray(jax.vmap(draw)(jax.random.split(KEY, 400)))
    assert (came.sum(1) == 3).all()
    assert np.abs(came[:, 3:].mean(0) - 0.4).max() < 4 * 0.0245


def test_moments_are_those_of_the_weights_that_stay():
    params, mask, units = by_hand()
    tx = optax.adam(0.1)
    state = tx.init(params)
    state = jax.tree.map(lambda a: jnp.full(a.shape, 3, a.dtype), state)
    operand = (mask, masks.apply(mask, params), {}, state)

    def step(due):
        how = (units, sevens(params), "random", None)
        key = (KEY, jnp.int32(4))
        return exchange_units_if(due, operand, tx, jnp.float32(0.5), key, how)

    new = exchanged(units, mask, params, 0.5, jax.random.fold_in(KEY, 4), fresh=sevens(params))
    kept, now = jax.jit(step)(jnp.array(False)), jax.jit(step)(jnp.array(True))
    for a, b in zip(jax.tree.leaves(kept), jax.tree.leaves(operand), strict=True):
        np.testing.assert_array_equal(a, b)
    for a, b in zip(jax.tree.leaves(now[:2]), jax.tree.leaves((new.mask, new.params)), strict=True):
        np.testing.assert_array_equal(a, b)
    for moments in (now[3][0].mu, now[3][0].nu):
        for name, moment in moments.items():
            survives = np.broadcast_to(new.survivors[name], moment.shape)
            np.testing.assert_array_equal(moment, np.where(survives, 3.0, 0.0))
    both = jax.vmap(step)(jnp.array([False, True]))
    for a, b, two in zip(*map(jax.tree.leaves, (kept, now, both)), strict=True):
        np.testing.assert_array_equal(two, jnp.stack([a, b]))


@pytest.fixture
def broadcasting():
    """Our own models gain axes."""
    with jax.numpy_rank_promotion("allow"):
        yield


def noisy(tree, seed):
    """No weight, scale or statistic as it began."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda a: a + rng.uniform(0.05, 0.3, a.shape).astype(a.dtype), tree)


def exchange_in(task, x, fraction=0.5):
    """Half the units of a network, some of them exchanged."""
    params, state = jax.jit(task.init)(jax.random.key(1), x)
    params, state = noisy(params, 0), noisy(state, 1)
    x_spec = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape[1:], a.dtype), x)
    units = find_units(task.apply, params, state, x_spec, task.prunable)
    mask = unit_mask(units, random_units(jax.random.key(2), units, 0.5))
    params = masks.apply(mask, params)

    @jax.jit
    def exchange(mask, params, state):
        how = (fraction, KEY, lambda key: task.init(key, x))
        return exchange_units(units, mask, params, state, *how)

    return units, (params, state, mask), exchange(mask, params, state)


def leaf_by_path(tree):
    return dict(zip(masks.leaf_paths(tree), jax.tree.leaves(tree), strict=True))


@pytest.mark.usefixtures("broadcasting")
def test_a_residual_network_with_batch_norms():
    """Streams, batch norms and convolutions go together; statistics begin anew."""
    task = jt.classification(jt.models.WideResNet(10, 1, num_classes=3))
    x = jnp.asarray(np.random.default_rng(0).normal(size=(4, 8, 8, 3)), jnp.float32)
    units, (params, state, mask), new = exchange_in(task, x)
    assert any(len(group) > 1 for group in units.groups)  # what several layers add up to
    masks_before, masks_after = leaf_by_path(mask), leaf_by_path(new.mask)
    before = np.concatenate(alive(units, masks_before))
    after = np.concatenate(alive(units, masks_after))
    for old, now in zip(alive(units, masks_before), alive(units, masks_after), strict=True):
        assert old.sum() == now.sum() == len(old) // 2
        assert (old & now).sum() == len(old) // 4
    comes, stays = jnp.asarray(after & ~before), jnp.asarray(after & before)
    without = masks.apply(unit_mask(units, stays), params)
    for train in (False, True):

        @jax.jit
        def outputs(params, state, train=train):
            key = KEY if train else None
            return task.apply(params, state, x, train, key)[0]

        # XLA adds up in another order.
        np.testing.assert_allclose(
            outputs(new.params, new.model_state), outputs(without, state), atol=2e-5
        )
    kernels = leaf_by_path(jax.jit(task.init)(jax.random.split(KEY)[1], x)[0])
    told = 0
    for table, old, now in (
        (units.params, params, new.params),
        (units.model_state, state, new.model_state),
    ):
        old, now = leaf_by_path(old), leaf_by_path(now)
        for leaf in table:
            own = np.broadcast_to(lines_of(leaf, comes).own, leaf.shape)
            if leaf.prunable or not own.any():
                continue
            begins = {"scale": 1.0, "var": 1.0}.get(leaf.path.rpartition("/")[2], 0.0)
            np.testing.assert_array_equal(np.asarray(now[leaf.path])[own], begins)
            np.testing.assert_array_equal(
                np.asarray(now[leaf.path])[~own], np.asarray(old[leaf.path])[~own]
            )
            told += 1
    assert told >= 8
    for leaf in units.params:
        own = np.broadcast_to(lines_of(leaf, comes).own, leaf.shape) & masks_after[leaf.path]
        if leaf.prunable:
            now = np.asarray(leaf_by_path(new.params)[leaf.path])
            np.testing.assert_allclose(now[own], np.asarray(kernels[leaf.path])[own], rtol=1e-6)


@pytest.mark.usefixtures("broadcasting")
def test_heads_of_a_transformer():
    """A head has eight weights of every query, key and value; it goes and comes as one."""
    config = jt.models.TransformerConfig(
        vocabulary=50, layers=1, width=32, heads=4, intermediate=16, positions=16
    )
    rng = np.random.default_rng(0)
    x = {
        "input_ids": rng.integers(2, 50, (3, 8)).astype(np.int32),
        "attention_mask": np.ones((3, 8), np.int32),
        "token_type_ids": np.zeros((3, 8), np.int32),
    }
    model = jt.models.TextClassifier(config, num_classes=2)
    task = jt.classification(model, prunable=jt.models.ENCODER_KERNELS)
    units, (params, state, mask), new = exchange_in(task, x)
    assert units.sizes == (16, 4)
    before, after = (alive(units, leaf_by_path(m)) for m in (mask, new.mask))
    assert [a.sum() for a in after] == [8, 2]
    came, stayed = after[1] & ~before[1], after[1] & before[1]
    assert came.sum() == stayed.sum() == 1
    layer, mask_of = new.params["encoder"]["layer_0"], new.mask["encoder"]["layer_0"]
    head = int(np.flatnonzero(came)[0])
    rows = slice(8 * head, 8 * head + 8)
    begins = jax.jit(task.init)(jax.random.split(KEY)[1], x)[0]["encoder"]["layer_0"]
    for name in ("query", "key", "value"):
        np.testing.assert_allclose(
            layer[name]["kernel"][:, rows], begins[name]["kernel"][:, rows], rtol=1e-6
        )
        assert not np.asarray(layer[name]["bias"])[rows].any()
        assert np.asarray(mask_of[name]["kernel"])[:, rows].all()
    assert not np.asarray(layer["attention_output"]["kernel"])[rows].any()
    assert np.asarray(mask_of["attention_output"]["kernel"])[rows].all()
    stays = np.concatenate([a & b for a, b in zip(before, after, strict=True)])
    without = masks.apply(unit_mask(units, jnp.asarray(stays)), params)
    outputs = [task.apply(p, state, x, False, None)[0] for p in (new.params, without)]
    np.testing.assert_allclose(*outputs, atol=1e-6)


def test_of_a_wider_beginning_the_first_are_taken():
    params, mask, units = by_hand()
    wider = {n: jnp.zeros([s + 2 for s in p.shape]) for n, p in params.items()}
    for n, p in params.items():
        wider[n] = wider[n].at[tuple(slice(s) for s in p.shape)].set(7.0)
    a = exchanged(units, mask, params, 0.5, fresh=lambda key: (wider, {}))
    b = exchanged(units, mask, params, 0.5, fresh=sevens(params))
    for one, other in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_array_equal(one, other)


def test_what_cannot_be_had():
    params, mask, units = by_hand()
    narrow = {n: jnp.zeros([s - 1 for s in p.shape]) for n, p in params.items()}
    with pytest.raises(MaskError, match=r"b1 begins as \[3\], which is less than the \[4\]"):
        exchanged(units, mask, params, 0.5, fresh=lambda key: (narrow, {}))
    with pytest.raises(MaskError, match=r"growth is one of .*random.*gradient"):
        exchanged(units, mask, params, 0.5, growth="magnitude")
    with pytest.raises(MaskError, match='need the loss; take growth="random"'):
        exchanged(units, mask, params, 0.5, growth="gradient")
    with pytest.raises(MaskError, match="leaves w1 dense: give it an array of True"):
        exchanged(units, mask | {"w1": jnp.ones((), bool)}, params, 0.5)
    with pytest.raises(
        MaskError, match="are of 0 arrays, the network has 0, and at its beginning 1"
    ):
        exchanged(units, mask, params, 0.5, fresh=lambda key: (params, {"mean": jnp.zeros(2)}))
    with pytest.raises(MaskError, match="drop_fraction"):
        exchange_units(units, mask, params, {}, 1.5, KEY, sevens(params))
