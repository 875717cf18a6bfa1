"""The transforms stand outermost: what revives pruned weights is found by an audit, and every right way has an example."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxtickets import masks
from jaxtickets.errors import MaskError
from jaxtickets.masks import Audit, Revived, audit, sparsity
from jaxtickets.transforms import gradual_pruning, keep_masked, l1_masking, prune_grow

KEY = jax.random.key(0)
PARAMS = {"w": jax.random.normal(jax.random.key(1), (8, 8)), "b": jnp.zeros(8)}
RIGL = {"sparsity": 0.5, "update_every": 2, "drop_fraction": 0.4, "key": KEY}


def ours(state):
    """The state that has the mask, somewhere in an optimizer's."""
    found = [
        s
        for s in jax.tree.leaves(state, is_leaf=lambda n: hasattr(n, "mask"))
        if hasattr(s, "mask")
    ]
    return found[0]


def train(tx, steps=6, each=lambda params, state: params):
    params, state, update = PARAMS, tx.init(PARAMS), jax.jit(tx.update)
    for step in range(steps):
        grads = jax.tree.map(lambda p, s=step: jnp.cos(p + s) * 0.1, params)
        updates, state = update(grads, state, params)
        params = each(optax.apply_updates(params, updates), state)
    return params, state


# Wrong ways, each of which optax runs without a word; the audit finds them.
WRONG = {
    "a chain that scales": lambda: optax.chain(
        prune_grow(optax.scale_by_adam(), **RIGL), optax.scale_by_learning_rate(0.1)
    ),
    "schedule-free around": lambda: optax.contrib.schedule_free(
        prune_grow(optax.sgd(0.1), **RIGL), 0.1
    ),
    "weight decay behind": lambda: optax.chain(
        keep_masked(optax.sgd(0.1), MASK), optax.add_noise(0.1, 0.5, jax.random.key(3))
    ),
}
MASK = sparsity.random_mask(KEY, PARAMS, 0.5, "uniform")

# Right ways.
RIGHT = {
    "around the chain": lambda: prune_grow(
        optax.chain(optax.scale_by_adam(), optax.scale_by_learning_rate(0.1)), **RIGL
    ),
    "around schedule-free": lambda: keep_masked(
        optax.contrib.schedule_free(optax.sgd(0.1), 0.1), MASK
    ),
    "around decay": lambda: gradual_pruning(
        optax.adamw(0.1), sparsity=0.5, begin=0, end=4, update_every=1
    ),
    "with l1 inside": lambda: prune_grow(
        l1_masking(optax.adam(0.1), {"w": 1.0, "b": 0.0}, 0.01, decoupled=True), **RIGL
    ),
    "inside what only decides": lambda: optax.apply_if_finite(
        prune_grow(optax.adam(0.1), **RIGL), 3
    ),
    "inside accumulation": lambda: optax.MultiSteps(
        prune_grow(optax.adam(0.1), **RIGL), 2
    ).gradient_transformation(),
}


@pytest.mark.parametrize("way", WRONG)
def test_an_audit_finds_what_revives_pruned_weights(way):
    params, state = train(WRONG[way]())
    found = audit(ours(state).mask, params)
    pruned = ~np.asarray(ours(state).mask["w"])
    revived = np.abs(np.asarray(params["w"]))[pruned]
    assert found == {"w": (np.count_nonzero(revived), revived.max())}
    assert found["w"].count > 0
    assert (
        str(found)
        == f"w: {found['w'].count:,} pruned weights are not 0, the largest {revived.max():.3g}"
    )


@pytest.mark.parametrize("way", RIGHT)
def test_outermost_nothing_is_revived(way):
    params, state = train(RIGHT[way]())
    assert not audit(ours(state).mask, params)
    assert not audit(ours(state).mask, ours(state).inner)  # nor a moment
    assert 0 < masks.density(ours(state).mask) < 1


def test_an_average_of_the_params_is_masked_by_the_present_mask():
    average = optax.ema(0.9)
    averages = [average.init(PARAMS)]

    def follow(params, state):
        averages.append(average.update(params, averages[-1])[1])
        return params

    _, state = train(prune_grow(optax.adam(0.1), **RIGL), each=follow)
    mean = averages[-1].ema
    assert audit(state.mask, mean)  # weights that were dropped since are in it
    right = masks.apply(state.mask, mean)
    assert not audit(state.mask, right)
    np.testing.assert_array_equal(right["w"][state.mask["w"]], mean["w"][state.mask["w"]])


def test_lookahead_is_made_by_hand_around_the_params():
    """`optax.lookahead(prune_grow(...))` moves slow params that know no mask: let the loop pull, and mask what it pulls to."""
    tx = optax.lookahead(prune_grow(optax.adam(0.1), **RIGL), 4, 0.5)
    both = optax.LookaheadParams.init_synced(PARAMS)
    state, update = tx.init(both), jax.jit(tx.update)
    for step in range(7):
        updates, state = update(
            jax.tree.map(lambda p, s=step: jnp.cos(p + s), both.fast), state, both
        )
        both = optax.apply_updates(both, updates)
    assert audit(ours(state).mask, both.slow)

    slow = [PARAMS]

    def pull(params, state):
        if int(state.count) % 4 == 0:
            slow[0] = masks.apply(state.mask, optax.incremental_update(params, slow[0], 0.5))
            params = slow[0]
        return params

    params, state = train(prune_grow(optax.adam(0.1), **RIGL), 8, pull)
    assert not audit(state.mask, params)
    assert not audit(state.mask, slow[0])


def test_an_audit_by_hand():
    mask = {"a": jnp.array([True, False, False]), "b": jnp.ones((), bool)}
    found = audit(mask, {"a": jnp.array([1.0, -3.0, 2.0]), "b": jnp.ones(2)})
    assert isinstance(found, Audit)
    assert found == {"a": Revived(2, 3.0)}
    assert (
        str(audit(mask, {"a": jnp.array([1.0, 0.0, -0.0]), "b": jnp.ones(2)}))
        == "Every pruned weight is 0."
    )
    assert np.isnan(
        audit(mask, {"a": jnp.array([1.0, jnp.nan, 2.0]), "b": jnp.ones(2)})["a"].largest
    )
    assert audit(mask, {"a": jnp.array([1, 0, 2j]), "b": jnp.ones(2)}) == {"a": (1, 2.0)}
    bare = jnp.array([True, False])
    assert audit(bare, jnp.ones(2, jnp.bfloat16)) == {"": (1, 1.0)}
    stacked = {"a": jnp.array([[True, False], [False, True]]), "b": jnp.ones((), bool)}  # members
    assert audit(stacked, {"a": jnp.ones((2, 2)), "b": jnp.ones((2, 2))})["a"].count == 2


def test_an_audit_looks_at_every_moment_of_an_optimizer():
    state = optax.adam(0.1).init(PARAMS)
    state = (state[0]._replace(nu=jax.tree.map(jnp.ones_like, PARAMS)), *state[1:])
    assert audit(MASK, state) == {"0/nu/w": (32, 1.0)}
    partition = optax.partition(
        {"x": optax.adam(0.1), "y": optax.sgd(0.1)}, {"w": "x", "b": "y"}
    ).init(PARAMS)
    assert not audit(MASK, partition)
    lifted = jax.tree.map(lambda a: a + 1, partition)
    assert [path.rpartition("/")[2] for path in audit(MASK, lifted)] == ["w", "w"]


def test_an_audit_of_something_else_is_an_error():
    with pytest.raises(
        MaskError, match="nothing in this tree is like the mask: it has 'x', the mask 'b', 'w'"
    ):
        audit(MASK, {"x": jnp.ones(3)})
    with pytest.raises(MaskError, match=r"'w' is bool\[8, 8\]"):
        audit(MASK, {"w": jnp.ones((8, 9)), "b": jnp.ones(8)})


def test_members_under_vmap_of_init_share_one_mask_and_keys_of_their_own_part_them():
    members = 3
    params = jax.tree.map(lambda p: jnp.stack([p] * members), PARAMS)
    shared = jax.vmap(prune_grow(optax.sgd(0.1), **RIGL).init)(params).mask["w"]
    assert (shared == shared[:1]).all()

    def make(key):
        return prune_grow(optax.adam(0.1), **{**RIGL, "key": key, "growth": "random"})

    keys = jax.random.split(KEY, members)
    state = jax.vmap(lambda key, p: make(key).init(p))(keys, params)
    update = jax.jit(jax.vmap(make(KEY).update))  # each member's state has its own key
    for _ in range(2):
        _, state = update(params, state, params)
    for i in range(members):
        alone, update_one = make(keys[i]).init(PARAMS), jax.jit(make(KEY).update)
        for _ in range(2):
            _, alone = update_one(PARAMS, alone, PARAMS)
        np.testing.assert_array_equal(state.mask["w"][i], alone.mask["w"])
        for j in range(i):
            assert masks.iou({"w": state.mask["w"][i]}, {"w": state.mask["w"][j]}) < 0.6


def test_every_schedule_sees_how_many_steps_were_taken_before():
    """As optax counts: `optax.scale_by_schedule` inside sees the same numbers."""
    seen = {"drop": [], "strength": [], "rate": []}

    def note(name, value):
        def schedule(step):
            jax.debug.callback(lambda s: seen[name].append(int(s)), step)
            return value

        return schedule

    inner = l1_masking(optax.sgd(note("rate", 0.1)), {"w": 1.0, "b": 0.0}, note("strength", 0.0))
    train(prune_grow(inner, **{**RIGL, "drop_fraction": note("drop", 0.3)}), 4)
    jax.effects_barrier()
    # Where the mask evolves, in every second step, the branch computes the inner step once more.
    assert seen["drop"] == [0, 1, 2, 3]
    assert seen["rate"] == seen["strength"] == [0, 1, 1, 2, 3, 3]


def test_begin_and_end_are_numbers_of_steps_counted_from_0():
    def densities(tx, steps=6):
        seen = []
        train(tx, steps, lambda params, state: seen.append(state.mask["w"]) or params)
        return seen

    pruned = densities(
        gradual_pruning(optax.sgd(0.0), sparsity=0.5, initial=0.25, begin=1, end=3, update_every=9)
    )
    assert [int(m.sum()) for m in pruned] == [64, 48, 48, 32, 32, 32]
    every = {**RIGL, "update_every": 1, "growth": "random"}
    grown = densities(prune_grow(optax.sgd(0.0), **every, begin=2, end=3))
    assert [bool((a != b).any()) for a, b in itertools.pairwise(grown)] == [
        False,
        True,
        True,
        False,
        False,
    ]
