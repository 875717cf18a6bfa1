"""`Units()` against a plain loop over units, in transforms and in plans, and what cannot be had with it."""

import dataclasses
import re
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxtickets as jt
from jaxtickets import masks, members
from jaxtickets.errors import MaskError, PlanError
from jaxtickets.masks import NM, Units
from jaxtickets.masks.sparsity import random_mask
from jaxtickets.masks.units import find_units, unit_mask
from jaxtickets.plan import (
    Collect,
    Fork,
    Gradual,
    Length,
    Plan,
    Prune,
    Start,
    Train,
)
from jaxtickets.transforms import evolve_mask, gradual_pruning, prune_grow, prune_to

ALL = ((".*", True),)


def perceptron(p, x):
    return jnp.tanh(jnp.tanh(x @ p["w1"]) @ p["w2"]) @ p["w3"]


def residual(p, x):
    x = x @ p["w1"]
    return (x + jnp.tanh(x @ p["w2"]) @ p["w3"]) @ p["w4"]


def convolution(p, x):
    x = jax.lax.conv_general_dilated(
        x, p["w1"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    return jnp.tanh(x).reshape(len(x), -1) @ p["w2"]


NETWORKS = {
    "perceptron": (perceptron, {"w1": (5, 6), "w2": (6, 4), "w3": (4, 3)}, (5,)),
    "residual": (residual, {"w1": (5, 4), "w2": (4, 7), "w3": (7, 4), "w4": (4, 3)}, (5,)),
    "convolution": (convolution, {"w1": (3, 3, 2, 5), "w2": (3 * 3 * 5, 4)}, (3, 3, 2)),
}


def made(name, key=0):
    """Weights of a network, and its units."""
    function, shapes, x = NETWORKS[name]
    keys = jax.random.split(jax.random.key(key), len(shapes))
    params = {n: jax.random.normal(k, s) for k, (n, s) in zip(keys, shapes.items(), strict=True)}
    spec = jax.ShapeDtypeStruct(x, jnp.float32)
    return params, find_units(
        lambda p, state, x, train, key: (function(p, x), state), params, {}, spec, ALL
    )


def incoming(units, unit):
    """The weights that write a unit: path and a bool array each."""
    for leaf in units.params:
        for axis, (ids, read) in enumerate(zip(leaf.units, leaf.read, strict=True)):
            if leaf.prunable and ((ids == unit) & ~read).any():
                along = [-1 if d == axis else 1 for d in range(len(leaf.shape))]
                yield leaf.path, np.broadcast_to(((ids == unit) & ~read).reshape(along), leaf.shape)


def group_of(units):
    return np.repeat(np.arange(len(units.sizes)), units.sizes)


def by_loops(units, params, scores, count, where):
    """The mask, the slow way: units in the order of their turn, as long as they fit."""
    mean = []
    for unit in range(len(units)):
        lines = [
            (scores[path][own] * where[path][own], where[path][own])
            for path, own in incoming(units, unit)
        ]
        mean.append(
            np.concatenate([a for a, _ in lines]).mean()
            if any(b.any() for _, b in lines)
            else -np.inf
        )
    groups, first = group_of(units), set()
    turn = {}
    for group, size in enumerate(units.sizes):
        ranked = sorted(np.flatnonzero(groups == group), key=lambda u: (-mean[u], u))
        writers = {path for u in ranked for path, _ in incoming(units, u)}
        if isinstance(count, dict):
            density = Fraction(sum(count[p] for p in writers), sum(params[p].size for p in writers))
            turn |= {
                u: Fraction(k + 1, size) / max(density, Fraction(1, 10**9))
                for k, u in enumerate(ranked)
            }
        else:
            turn |= {u: -mean[u] for u in ranked}
        first.add(ranked[0])
    total = sum(count.values()) if isinstance(count, dict) else count
    order = sorted(turn, key=lambda u: (u not in first, turn[u], -mean[u], u))
    best = None
    for lives in range(len(units.sizes), len(units) + 1):
        keep = np.isin(np.arange(len(units)), order[:lives])
        mask = jax.tree.map(lambda m, ok: np.asarray(m) & ok, unit_mask(units, keep), where)
        if best is None or masks.count(mask) <= total:
            best = mask
    return best


def equal(a, b):
    return all(
        np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    )


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("share", [0.05, 0.3, 0.62, 1.0])
@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize("candidates", [False, True])
def test_it_keeps_what_a_loop_over_units_keeps(name, share, apart, candidates):
    params, units = made(name)
    rng = np.random.default_rng(3)
    where = {n: rng.random(p.shape) < (0.8 if candidates else 1) for n, p in params.items()}
    scores = {n: np.abs(np.asarray(p)) for n, p in params.items()}
    if apart:  # layers of unequal density, as ERK's
        shares = np.linspace(0.7, 1.3, len(params)) * share
        count = {
            n: int(min(1, s) * p.size) for s, (n, p) in zip(shares, params.items(), strict=True)
        }
    else:
        count = int(share * masks.size(masks.full(params, ALL)))
    kept = Units(units).keep(scores, count, where if candidates else None)
    expected = by_loops(units, params, scores, count, where)
    assert equal(kept, expected)
    assert equal(jax.jit(Units(units).keep)(scores, count, where), expected)
    total = sum(count.values()) if apart else count
    least = by_loops(units, params, scores, 0, where)
    assert masks.count(kept) <= max(total, masks.count(least))


def test_a_case_by_hand():
    """Two hidden layers of 2 and 3 units, 13 of 20 weights allowed."""
    params = {
        "w1": jnp.array([[1.0, 2.0], [1.0, 2.0]]),  # means 1, 2
        "w2": jnp.array([[5.0, 3.0, 0.0], [1.0, 3.0, 2.0]]),  # means 3, 3, 1: the first of a tie
        "w3": jnp.ones((3, 2)),
    }
    spec = jax.ShapeDtypeStruct((2,), jnp.float32)
    units = find_units(lambda p, s, x, t, k: (perceptron(p, x), s), params, {}, spec, ALL)
    # In order: 3, 3, 2, 1, 1, of which the firsts of both layers live anyway. With units 0 and 1 of
    # w2 and unit 1 of w1 2 + 2 + 4 weights live; the next, unit 0 of w1, makes 4 + 4 + 4 = 12; the
    # last 4 + 6 + 6 = 16.
    assert masks.size(masks.full(params, ALL)) == 16
    mask = Units(units).keep(params, 11)
    assert mask["w1"].tolist() == [[False, True]] * 2
    assert mask["w2"].tolist() == [[False] * 3, [True, True, False]]
    assert mask["w3"].tolist() == [[True] * 2, [True] * 2, [False] * 2]
    assert masks.count(Units(units).keep(params, 12)) == 12
    assert masks.count(Units(units).keep(params, 15)) == 12
    assert masks.count(Units(units).keep(params, 16)) == 16
    assert masks.count(Units(units).keep(params, 0)) == 2 + 1 + 2  # one of each layer


def test_a_random_choice_is_fair():
    """Every unit of a layer is as likely as another, whatever stands in its row: 3 of 6, 400 draws."""
    params, units = made("perceptron")
    draw = jax.vmap(
        lambda key: random_mask(key, params, 0.6, "uniform", ALL, structure=Units(units))
    )
    drawn = draw(jax.random.split(jax.random.key(0), 400))
    alive = np.asarray(drawn["w1"]).any(1).mean(0)
    assert np.unique(np.asarray(drawn["w1"]).any(1).sum(1)).size == 1  # as many of them each time
    # 400 draws of a share p have a deviation of at most .025.
    assert np.abs(alive - alive.mean()).max() < 4 * 0.025


def test_what_is_not_a_number_goes_first():
    params, units = made("perceptron")
    scores = jax.tree.map(jnp.abs, params)
    scores["w1"] = scores["w1"].at[2, 3].set(jnp.nan)
    mask = Units(units).keep(scores, masks.size(masks.full(params, ALL)) - 1)
    assert not np.asarray(mask["w1"])[:, 3].any()
    assert masks.count({"w1": mask["w1"]}) == 5 * 5


def test_of_members_each_has_its_own():
    params, units = made("residual")
    several = jax.tree.map(lambda p: jnp.stack([p, p[..., ::-1]]), params)
    both = jax.vmap(lambda p: Units(units).keep(jax.tree.map(jnp.abs, p), 40))(several)
    for i in range(2):
        one = members.member(several, i)
        alone = Units(units).keep(jax.tree.map(jnp.abs, one), 40)
        assert equal(members.member(both, i), alone)


def test_it_works_on_a_mesh():
    """Values that vary over the mesh, inside `shard_map`."""
    params, units = made("perceptron")
    mesh = jax.make_mesh((1,), ("member",))
    spec = jax.sharding.PartitionSpec("member")
    where = jax.sharding.NamedSharding(mesh, spec)
    several = jax.device_put(jax.tree.map(lambda p: p[None], params), where)

    def prune(p):
        return jax.tree.map(
            lambda m: m[None], Units(units).keep(jax.tree.map(lambda a: jnp.abs(a[0]), p), 30)
        )

    found = jax.shard_map(prune, mesh=mesh, in_specs=spec, out_specs=spec)(several)
    assert equal(
        jax.tree.map(lambda m: m[0], found), Units(units).keep(jax.tree.map(jnp.abs, params), 30)
    )


@pytest.mark.parametrize("scope", ["layerwise", "global"])
def test_pruning_by_magnitude(scope):
    params, units = made("convolution")
    full = masks.full(params, ALL)
    half = prune_to(full, params, 0.5, scope, structure=Units(units))
    less = prune_to(half, params, 0.8, scope, structure=Units(units))
    assert masks.count(less) < masks.count(half) <= masks.size(full) // 2
    assert equal(jax.tree.map(jnp.logical_and, less, half), less)  # what is gone stays gone
    for mask in (half, less):
        alive = np.asarray(mask["w1"]).any((0, 1, 2))
        assert equal(mask, unit_mask(units, jnp.asarray(alive)))


def test_gradual_pruning_of_units_in_a_loop_of_ones_own():
    params, units = made("perceptron")
    tx = gradual_pruning(
        optax.sgd(0.1),
        sparsity=0.6,
        begin=0,
        end=4,
        update_every=1,
        prunable=ALL,
        structure=Units(units),
    )
    state = tx.init(params)
    seen = []
    for _ in range(6):
        updates, state = tx.update(params, state, params)
        params = optax.apply_updates(params, updates)
        seen.append(masks.count(state.mask))
        assert equal(
            state.mask,
            unit_mask(units, jnp.concatenate([state.mask["w1"].any(0), state.mask["w2"].any(0)])),
        )
        assert not masks.audit(state.mask, params)
    assert seen == sorted(seen, reverse=True)
    assert seen[-1] <= 66 - int(0.6 * 66)


PLANS = {
    "start": (Start(2, 0.6, structure=Units()), Train(Length(1)), Collect()),
    "snip": (Start(2, 0.6, scores="snip", structure=Units()), Train(Length(1)), Collect()),
    "prune": (
        Start(2),
        Train(Length(1)),
        Prune(0.6, structure=Units()),
        Train(Length(1)),
        Collect(),
    ),
    "gradual": (
        Start(2),
        Train(Length(2), evolve=Gradual(0.6, update_every=2, structure=Units())),
        Collect(),
    ),
}


@pytest.mark.usefixtures("programs_are_compiled_once")
@pytest.mark.parametrize("name", PLANS)
def test_tickets_of_a_plan_shrink_to_what_they_predict(name, monkeypatch):
    """The point of it: what is left is a smaller dense network, of the same outputs."""
    monkeypatch.syspath_prepend(__file__.rpartition("/")[0] + "/engine")
    from tiny_task import data, fit

    plan = Plan(name, PLANS[name], 16)
    assert Plan.from_json(plan.to_json()) == plan
    tickets = fit(plan)
    assert len({masks.count(ticket.mask) for ticket in tickets.tickets}) <= 2
    for ticket in tickets.tickets:
        alive = np.asarray(ticket.mask["w1"]).any(0)
        assert np.array_equal(alive, np.asarray(ticket.mask["w2"]).any(1))
        assert (
            0 < alive.sum() == int(0.4 * 176) // 11
        )  # a unit has 8 weights before and 3 behind it
    small = jt.shrink(tickets)
    # Float32 sums of 16 and of 6 products.
    np.testing.assert_allclose(
        small.predict_proba(data()), tickets.predict_proba(data()), atol=1e-6
    )


def test_what_cannot_be_had():
    params, units = made("perceptron")
    full = masks.full(params, ALL)
    with pytest.raises(MaskError, match=r"Units\(\) knows no network here: .*find_units"):
        prune_to(full, params, 0.5, structure=Units())
    other, _ = made("residual")
    with pytest.raises(
        MaskError, match=re.escape("and the units are of w1 [5, 6], w2 [6, 4], w3 [4, 3]")
    ):
        prune_to(masks.full(other, ALL), other, 0.5, structure=Units(units))
    grown = r"no gradient would ever reach it.*Evolve\(structure=Units\(\)\).*exchange_units"
    with pytest.raises(MaskError, match=grown):
        prune_grow(optax.sgd(0.1), sparsity=0.5, key=jax.random.key(0), structure=Units(units))
    with pytest.raises(MaskError, match=grown):
        evolve_mask(full, params, params, 0.5, jax.random.key(0), structure=Units(units))
    with pytest.raises(PlanError, match=r"children of Units\(\) are Fork\(unit='neuron'\)"):
        Fork(2, "random", structure=Units())
    for part in (Start, Prune):
        with pytest.raises(PlanError, match=r"have no Units\(\); leave out keep_dense=\('w1',\)"):
            part(sparsity=0.5, keep_dense=("w1",), structure=Units())
    with pytest.raises(PlanError, match=r"a plan has Units\(\) without units"):
        Plan("p", (Start(1, 0.5, structure=Units(units)), Train(Length(1)), Collect()), 16)


def test_a_network_without_units_is_an_error_before_anything_is_compiled():
    def init(key, x):
        return {"w": jax.random.normal(key, (x.shape[-1], 2))}, {}

    task = jt.classification(
        (init, lambda p, s, x, t, k: (x @ p["w"], s)), num_classes=2, name="one"
    )
    data = jt.Dataset(np.zeros((32, 3), np.float32), np.arange(32) % 2, 2)
    plan = Plan("p", (Start(1, 0.5, structure=Units()), Train(Length(1)), Collect()), 16)
    with pytest.raises(MaskError, match="no units that could be pruned"):
        jt.fit(plan, task, data, key=0, progress=False)


def test_other_structures_take_no_units():
    assert NM(2, 4).bound(None) == NM(2, 4)
    assert dataclasses.fields(Units)[0].name == "table"
