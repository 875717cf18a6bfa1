"""Channels that dynamic sparse training removes: which, when, and where their weights grow again."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxtickets as jt
from jaxtickets.errors import MaskError, PlanError
from jaxtickets.masks import NM
from jaxtickets.masks.channels import Channels
from jaxtickets.masks.scores import get
from jaxtickets.masks.units import find_units
from jaxtickets.plan import Evolve, Shrink, Train
from jaxtickets.transforms import evolve_mask, remove_channels

IN, OUT = 2, 2


def mlp(params, state, x, train, key):
    hidden = jnp.tanh(jnp.tanh(x @ params["w1"]) @ params["w2"])
    return hidden @ params["w3"], state


def channels_of(params, begins=None):
    spec = jax.ShapeDtypeStruct((IN,), jnp.float32)
    now, then = (find_units(mlp, p, {}, spec) for p in (params, begins or params))
    return Channels(now, then)


def network(first=4, second=4, seed=0):
    rng = np.random.default_rng(seed)
    shapes = {"w1": (IN, first), "w2": (first, second), "w3": (second, OUT)}
    return {
        name: jnp.asarray(rng.normal(size=shape), jnp.float32) for name, shape in shapes.items()
    }


def full(params):
    return jax.tree.map(lambda p: jnp.ones(p.shape, bool), params)


def removal(mask, params, grads, share, drop=0.0, growth="gradient", regrown="keep", channels=None):
    channels = channels or channels_of(params)
    fractions = jnp.float32(drop), jnp.float32(share)
    how = channels, get(growth), regrown, None
    masked = jt.masks.apply(mask, params)
    return jax.jit(lambda m, p, g: remove_channels(m, p, g, *fractions, jax.random.key(0), *how))(
        mask, masked, grads
    )


def test_by_hand():
    """Two layers of two; half of the four channels may go, at most one of each layer."""
    params = {
        "w1": jnp.array([[0.0, 3.0], [1.0, 3.0]]),  # means .5 (a zero counts), 3
        "w2": jnp.array([[5.0, 0.5], [4.0, 0.5]]),  # means 4.5, .5
        "w3": jnp.array([[1.0, 1.0], [9.0, 9.0]]),  # what reads a channel does not matter
    }
    mask = full(params)
    mask["w1"] = mask["w1"].at[0, 0].set(False)
    channels = channels_of(params)
    leaves = jax.tree.leaves(params)
    assert channels.removed(leaves, 0.0).tolist() == [False] * 4
    assert channels.removed(leaves, 0.25).tolist() == [
        True,
        False,
        False,
        False,
    ]  # the first of a tie
    assert channels.removed(leaves, 0.5).tolist() == [True, False, False, True]
    grads = jax.tree.map(jnp.ones_like, params)
    new, survivors = removal(mask, params, grads, 0.25)
    # Unit 0 of w1 loses one weight before it and two behind it. There is no room for them in w1 and
    # w2, which have all of what stays; nor in w3, which is whole.
    assert new["w1"].tolist() == [[False, True], [False, True]]
    assert new["w2"].tolist() == [[False, False], [True, True]]
    assert new["w3"].tolist() == [[True, True], [True, True]]
    assert jax.tree.map(np.array_equal, new, survivors) == {"w1": True, "w2": True, "w3": True}


def test_what_is_lost_grows_in_its_own_leaf_by_gradient_and_else_where_the_gradient_is_largest():
    params = network(4, 4)
    mask = full(params)
    mask["w3"] = jnp.zeros((4, OUT), bool).at[0].set(True)  # two of eight
    mask["w2"] = mask["w2"].at[0, 0].set(False)
    params["w1"] = (
        params["w1"].at[:, 3].set(1e-3)
    )  # the last of w1 goes: 2 weights, and row 3 of w2
    grads = jax.tree.map(jnp.zeros_like, params)
    grads["w2"] = grads["w2"].at[0, 0].set(5.0)
    grads["w3"] = grads["w3"].at[2, 1].set(7.0).at[3, 0].set(6.0)
    new, survivors = removal(mask, params, grads, 0.125)
    assert not new["w1"][:, 3].any()
    assert new["w1"].sum() == 6
    assert not new["w2"][3].any()
    assert new["w2"].sum() == 12  # it grew its one free place
    assert bool(new["w2"][0, 0])
    assert not survivors["w2"][0, 0]
    # 2 of w1 and 3 of w2 found no room at home: all five live in w3, the largest gradients first.
    assert new["w3"].sum() == 2 + 5
    assert bool(new["w3"][2, 1])
    assert bool(new["w3"][3, 0])
    assert sum(int(m.sum()) for m in new.values()) == sum(int(m.sum()) for m in mask.values())


@pytest.mark.parametrize("growth", ["gradient", "random"])
@pytest.mark.parametrize("regrown", ["keep", "zero"])
def test_where_no_channel_goes_it_is_prune_grow(growth, regrown):
    params, grads = network(6, 8), network(6, 8, seed=1)
    mask = jt.sparsity.random_mask(jax.random.key(1), params, 0.4)
    mask = jax.tree.map(lambda m: m.at[0].set(True).at[:, 0].set(True), mask)  # no channel is dead
    ours = removal(mask, params, grads, 0.0, 0.3, growth, regrown)
    theirs = evolve_mask(
        mask, jt.masks.apply(mask, params), grads, 0.3, jax.random.key(0), growth, regrown
    )
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("seed", range(6))
def test_counts_hold_and_nothing_grows_in_a_removed_channel(seed):
    rng = np.random.default_rng(seed)
    params, grads = network(12, 10, seed), network(12, 10, seed + 50)
    mask = jt.sparsity.random_mask(jax.random.key(seed), params, 0.7)
    share, drop = float(rng.uniform(0, 0.6)), float(rng.uniform(0, 0.6))
    new, survivors = removal(mask, params, grads, share, drop)
    channels = channels_of(params)
    gone = np.asarray(channels.removed(jax.tree.leaves(jt.masks.apply(mask, params)), share))
    assert gone.sum() == math.floor(share * 22 + 1e-9)
    for layer in (gone[:12], gone[12:]):
        assert layer.sum() <= max(len(layer) // 2, math.ceil(share * len(layer)))
    for array in (
        new["w1"][:, gone[:12]],
        new["w2"][gone[:12]],
        new["w2"][:, gone[12:]],
        new["w3"][gone[12:]],
    ):
        assert not array.any()
    had, has = (sum(int(m.sum()) for m in of.values()) for of in (mask, new))
    first, second = (int((~layer).sum()) for layer in (gone[:12], gone[12:]))
    assert has == min(had, IN * first + first * second + second * OUT)  # all the room that is left
    for name in new:
        assert not (survivors[name] & ~(new[name] & mask[name])).any()


def test_shares_are_of_the_channels_at_the_beginning():
    params, begins = network(6, 6), network(8, 8)
    channels = channels_of(params, begins)
    leaves = jax.tree.leaves(params)
    assert int(channels.removed(leaves, 0.25).sum()) == 0  # four of sixteen are gone
    assert int(channels.removed(leaves, 0.5).sum()) == 4
    assert channels.widths_at(0.5) == (4, 4)


def test_a_network_of_sums_alone_has_none():
    def sums(params, state, x, train, key):
        return (x @ params["w1"] + x @ params["w2"]) @ params["w3"], state

    params = {"w1": jnp.ones((2, 3)), "w2": jnp.ones((2, 3)), "w3": jnp.ones((3, 2))}
    units = find_units(sums, params, {}, jax.ShapeDtypeStruct((2,), jnp.float32))
    with pytest.raises(MaskError, match="no channels that could be removed"):
        Channels(units, units)


def test_the_schedule():
    whole = Evolve(channels=0.4, channels_by=0.8)
    assert [round(float(whole.channels_at(s)), 6) for s in (0, 0.4, 0.8, 1)] == [0, 0.35, 0.4, 0.4]
    first, second = (dataclasses.replace(whole, span=span) for span in ((0, 0.4), (0.4, 1.0)))
    assert float(first.channels_at(0.5)) == pytest.approx(float(whole.channels_at(0.2)))
    assert float(first.channels_at(1.0)) == float(second.channels_at(0.0))
    cosine = Evolve(decay="cosine", end=0.75)
    half = dataclasses.replace(cosine, span=(0.5, 1.0))
    for step in range(10):
        assert half.drop_fraction_at(step, 10) == pytest.approx(
            cosine.drop_fraction_at(10 + step, 20)
        )


def test_plans_of_it():
    plan = jt.dst(2, epochs=10, channels=0.3)
    kinds = [type(phase).__name__ for phase in plan.phases]
    assert kinds == ["Start", "Train", "Shrink", "Train", "Shrink", "Train", "Collect"]
    assert plan.steps(50) == 500 == jt.dst(2, epochs=10).steps(50)
    rates = [
        p.lr(i, p.steps(50))
        for p in plan.phases
        if isinstance(p, Train)
        for i in range(p.steps(50))
    ]
    assert rates == [jt.dst().phases[1].lr(i, 500) for i in range(500)]
    assert not any(isinstance(phase, Shrink) for phase in jt.dst(2).phases)
    for wrong in (1.0, -0.1, math.nan, "half", True):
        with pytest.raises(PlanError, match="channels"):
            jt.dst(2, channels=wrong)
        with pytest.raises(PlanError, match="channels"):
            jt.edst(2, channels=wrong)
    with pytest.raises(PlanError, match="explore=0 has none"):
        jt.edst(2, explore=0, channels=0.4)
    with pytest.raises(PlanError, match="without a structure"):
        Evolve(channels=0.4, structure=NM(2, 4))
    for span in ((0.5, 0.5), (0.6, 0.4), (0, 1.1), [0, 1], 1):
        with pytest.raises(PlanError, match="span"):
            Evolve(span=span)
