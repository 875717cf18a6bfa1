"""Members by vmap: each equals a lone run, and off schedule no member pays for a selection."""

import jax
import jax.extend.core as jex
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxtickets import masks
from jaxtickets.masks.selection import keep_largest
from jaxtickets.transforms import gradual_pruning, keep_masked, prune_grow
from jaxtickets.transforms._run_if import run_if

MEMBERS = 3
X, Y = jax.random.normal(jax.random.key(8), (32, 6)), jax.random.normal(jax.random.key(9), (32, 10))


def init_params(key):
    return {"w": jax.random.normal(key, (6, 10)), "b": jnp.zeros((1, 10))}


def loss(params):
    return jnp.mean((jnp.tanh(X @ params["w"] + params["b"]) - Y) ** 2)


def make(name, key):
    inner = optax.sgd(0.1, momentum=0.9)
    if name == "keep_masked":
        return keep_masked(inner, masks.full(init_params(key)))
    if name == "gradual_pruning":
        return gradual_pruning(inner, sparsity=0.8, begin=1, end=8, update_every=3)
    growth = "random" if name == "set" else "gradient"
    return prune_grow(
        inner, sparsity=0.5, update_every=3, drop_fraction=0.5, growth=growth, key=key
    )


def start(name, key):
    params = init_params(key)
    return params, make(name, jax.random.fold_in(key, 1)).init(params)


def step(name):
    tx = make(name, jax.random.key(99))  # the state carries each member's own key

    def one(params, state):
        updates, state = tx.update(jax.grad(loss)(params), state, params)
        return optax.apply_updates(params, updates), state

    return one


@pytest.mark.parametrize("name", ["prune_grow", "gradual_pruning"])
def test_pitfall_2_members_differ_and_each_equals_a_lone_run(name):
    keys = jax.random.split(jax.random.key(1), MEMBERS)
    starts = jax.jit(lambda key: start(name, key))
    together, lone = jax.vmap(starts)(keys), [starts(key) for key in keys]
    stepped, step_one = jax.jit(jax.vmap(step(name))), jax.jit(step(name))
    for _ in range(8):
        together = stepped(*together)
        lone = [step_one(*member) for member in lone]
        for i, (params, state) in enumerate(lone):
            for a, b in zip(
                jax.tree.leaves(together[1].mask), jax.tree.leaves(state.mask), strict=True
            ):
                np.testing.assert_array_equal(a[i], b)
            for a, b in zip(jax.tree.leaves(together[0]), jax.tree.leaves(params), strict=True):
                np.testing.assert_allclose(a[i], b, rtol=1e-5, atol=1e-6)
                np.testing.assert_array_equal(a[i] == 0, b == 0)
    for i in range(MEMBERS):
        for j in range(i):
            assert masks.iou(lone[i][1].mask, lone[j][1].mask) < 0.8


def subjaxprs(eqn):
    for value in eqn.params.values():
        for item in value if isinstance(value, tuple | list) else (value,):
            inner = getattr(item, "jaxpr", item)
            if isinstance(inner, jex.Jaxpr):
                yield inner


def loops(jaxpr, predicates=()):
    """For every `while` in a jaxpr: the shapes of the predicates of the branches around it."""
    found = []
    for eqn in jaxpr.eqns:
        around = (
            (*predicates, eqn.invars[0].aval.shape) if eqn.primitive.name == "cond" else predicates
        )
        if eqn.primitive.name == "while":
            found.append(around)
        for inner in subjaxprs(eqn):
            found += loops(inner, around)
    return found


def test_the_walk_sees_a_branch_that_has_become_a_select():
    def gated(due, scores):
        return jax.lax.cond(due, lambda s: keep_largest(s, 2), lambda s: s > 0, scores)

    args = (jnp.array(True), jnp.ones(5))
    batched = jax.tree.map(lambda leaf: jnp.stack([leaf] * 2), args)
    assert set(loops(jax.make_jaxpr(gated)(*args).jaxpr)) == {((),)}
    assert set(loops(jax.make_jaxpr(jax.vmap(gated))(*batched).jaxpr)) == {
        ()
    }  # the selection runs at every step

    def ours(due, scores):
        return run_if(due, lambda s: keep_largest(s, 2), lambda s: s > 0, scores)

    assert set(loops(jax.make_jaxpr(jax.vmap(ours))(*batched).jaxpr)) == {((),)}


@pytest.mark.parametrize("name", ["prune_grow", "set", "gradual_pruning"])
@pytest.mark.parametrize("depth", [0, 1, 2])
def test_pitfall_1_selections_sit_in_a_branch_with_one_predicate_for_all_members(name, depth):
    one, args = step(name), jax.eval_shape(lambda: start(name, jax.random.key(0)))
    for _ in range(depth):
        one = jax.vmap(one)
        args = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((2, *leaf.shape), leaf.dtype), args)
    found = loops(jax.make_jaxpr(jax.jit(one))(*args).jaxpr)
    assert found, "no selection at all: the walk looks in the wrong place"
    assert all(() in predicates for predicates in found)


@pytest.mark.parametrize("name", ["keep_masked"])
def test_a_fixed_mask_never_selects(name):
    args = jax.vmap(lambda key: start(name, key))(jax.random.split(jax.random.key(0), 2))
    assert loops(jax.make_jaxpr(jax.vmap(step(name)))(*args).jaxpr) == []


def test_nested_vmap_and_scan_give_the_same_masks():
    starts = jax.jit(jax.vmap(lambda key: start("set", key)))(
        jax.random.split(jax.random.key(1), 4)
    )
    one = step("set")

    def train(start):
        return jax.lax.scan(lambda carry, _: (one(*carry), None), start, length=7)[0][1].mask

    alone = jax.jit(train)
    lone = [alone(jax.tree.map(lambda leaf, i=i: leaf[i], starts)) for i in range(4)]
    nested = jax.jit(jax.vmap(jax.vmap(train)))(
        jax.tree.map(lambda leaf: leaf.reshape(2, 2, *leaf.shape[1:]), starts)
    )
    for i in range(4):
        for a, b in zip(*map(jax.tree.leaves, (lone[i], nested)), strict=True):
            np.testing.assert_array_equal(a, b[i // 2, i % 2])
    assert masks.iou(lone[0], lone[1]) < 0.8


def test_members_may_be_due_at_different_steps():
    """`update_every` may be an array, and each member's own: only those that are due change."""
    key = jax.random.key(0)
    params = init_params(key)

    def make(every):
        return prune_grow(
            optax.sgd(0.1), sparsity=0.5, update_every=every, growth="random", key=key
        )

    every = jnp.array([2, 3])
    state = jax.vmap(lambda e: make(e).init(params))(every)
    update = jax.jit(jax.vmap(lambda e, s: make(e).update(params, s, params)[1]))
    changed = []
    for _ in range(6):
        before, state = state.mask["w"], update(every, state)
        changed.append((before != state.mask["w"]).any((1, 2)).tolist())
    assert changed == [
        [False, False],
        [True, False],
        [False, True],
        [True, False],
        [False, False],
        [True, True],
    ]


def test_run_if_takes_the_branch_each_member_asks_for():
    def double(x):
        return x * 2

    def negate(x):
        return -x

    values = jnp.arange(1.0, 5.0)
    asked = jnp.array([True, False, True, False])

    def run(p, x):
        return run_if(p, double, negate, x)

    assert run(jnp.array(True), values).tolist() == [2, 4, 6, 8]
    assert jax.vmap(run)(asked, values).tolist() == [2, -2, 6, -4]
    assert jax.vmap(run)(jnp.zeros(4, bool), values).tolist() == [-1, -2, -3, -4]
    assert jax.vmap(run, in_axes=(None, 0))(jnp.array(True), values).tolist() == [2, 4, 6, 8]
    assert jax.vmap(run, in_axes=(0, None))(asked, jnp.float32(3)).tolist() == [6, -3, 6, -3]
    both = jax.vmap(jax.vmap(run, in_axes=(None, 0)), in_axes=(0, None))(asked, values)
    assert both.tolist() == [[2, 4, 6, 8], [-1, -2, -3, -4]] * 2
