"""Structures of masks against plain loops: counts, ties, candidates, and what holds while a mask evolves."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxtickets import masks
from jaxtickets.errors import MaskError
from jaxtickets.masks import NM, Blocks, Structure, Unstructured, sparsity
from jaxtickets.masks.children import child_mask
from jaxtickets.masks.selection import keep_largest
from jaxtickets.masks.structure import _of_groups
from jaxtickets.transforms import evolve_mask, gradual_pruning, prune_grow, prune_to


@dataclasses.dataclass(frozen=True)
class AtMost(Structure):
    """A structure of a user's: at most so many inputs of every output."""

    most: int

    def keep(self, scores, count, where=None):
        def first(s, ok):
            columns = [jnp.moveaxis(a, -2, -1).reshape(-1, s.shape[-2]) for a in (s, ok)]
            kept = jax.vmap(keep_largest, in_axes=(0, None, 0))(columns[0], self.most, columns[1])
            return jnp.moveaxis(kept.reshape(*s.shape[:-2], s.shape[-1], s.shape[-2]), -1, -2)

        if where is None:
            where = jax.tree.map(lambda s: jnp.ones(s.shape, bool), scores)
        return keep_largest(scores, count, jax.tree.map(first, scores, where))


STRUCTURES = [Unstructured(), NM(2, 4), NM(1, 3), Blocks(2, 3), Blocks(4, 1), AtMost(3)]
SHAPES = [(8, 6), (7, 5), (2, 3, 6, 4)]


def group_of(structure, shape, index):
    """What an index of a leaf shares a limit with, and the limit; or the block that it belongs to."""
    *lead, i, o = index
    if isinstance(structure, NM):
        return (*lead, i // structure.m, o), structure.n
    if isinstance(structure, AtMost):
        return (*lead, o), structure.most
    if isinstance(structure, Blocks):
        return (*lead, i // structure.rows, o // structure.columns), None
    return index, 1


def by_loops(structure, scores, count, where):
    """The mask, the slow way: one weight or block after the other, the best first."""
    shape, kept, taken = scores.shape, np.zeros(scores.shape, bool), {}
    indices = list(np.ndindex(*shape))
    if isinstance(structure, Blocks):
        blocks = {}
        for index in indices:
            blocks.setdefault(group_of(structure, shape, index)[0], []).append(index)
        live = {b: [i for i in of if where[i]] for b, of in blocks.items()}
        mean = {b: sum(scores[i] for i in live[b]) / len(blocks[b]) for b in blocks}
        order = sorted((b for b in blocks if live[b]), key=lambda b: (-mean[b], b))
        for b in order[: count * len(blocks) // scores.size]:
            for i in live[b]:
                kept[i] = True
        return kept
    for index in sorted((i for i in indices if where[i]), key=lambda i: -scores[i]):  # stable
        group, limit = group_of(structure, shape, index)
        if taken.get(group, 0) < limit and kept.sum() < count:
            taken[group], kept[index] = taken.get(group, 0) + 1, True
    return kept


@functools.cache
def compiled(structure):
    return jax.jit(structure.keep)


@pytest.mark.parametrize("structure", STRUCTURES, ids=str)
def test_a_structure_keeps_what_a_loop_keeps(structure):
    rng = np.random.default_rng(0)
    for shape in SHAPES:
        for i, count in enumerate((0, 1, math.prod(shape) // 2, math.prod(shape))):
            scores = rng.integers(0, 4, shape).astype(np.float32)  # many ties
            where = rng.random(shape) < 0.7 if i % 2 else np.ones(shape, bool)
            kept = compiled(structure)(scores, jnp.int32(count), where)  # a traced count
            expected = by_loops(structure, scores, count, where)
            np.testing.assert_array_equal(kept, expected, err_msg=f"{shape} {count}")
            assert not (np.asarray(kept) & ~where).any()


@pytest.mark.parametrize("structure", STRUCTURES, ids=str)
def test_members_under_vmap_get_what_each_gets_alone(structure):
    scores = jax.random.normal(jax.random.key(0), (3, 8, 6))
    count, where = jnp.array([10, 20, 40]), jax.random.bernoulli(jax.random.key(1), 0.8, (3, 8, 6))
    together = jax.jit(jax.vmap(structure.keep))(scores, count, where)
    for i in range(3):
        alone = compiled(structure)(scores[i], count[i], where[i])
        np.testing.assert_array_equal(together[i], alone)


@pytest.mark.parametrize("structure", STRUCTURES, ids=str)
def test_a_tree_has_one_count_or_one_for_each_leaf_or_for_each_layer(structure):
    scores = {
        "a": jax.random.normal(jax.random.key(0), (8, 6)),
        "b": jax.random.normal(jax.random.key(1), (2, 8, 6)),
    }
    apart = structure.keep(scores, {"a": 12, "b": jnp.array([6, 18])})
    np.testing.assert_array_equal(apart["a"], structure.keep(scores["a"], 12))
    np.testing.assert_array_equal(apart["b"][1], structure.keep(scores["b"][1], 18))
    together = structure.keep(scores, 36)
    flat = {"c": jnp.concatenate([scores["a"][None], scores["b"]])}
    joined = structure.keep(flat, 36)["c"]
    np.testing.assert_array_equal(joined[0], together["a"])
    np.testing.assert_array_equal(joined[1:], together["b"])
    assert sum(int(m.sum()) for m in together.values()) == 36


def params_of(shapes):
    return {
        path: jax.random.normal(jax.random.key(i), shape)
        for i, (path, shape) in enumerate(shapes.items())
    }


PARAMS = params_of({"kernel": (8, 6), "conv_kernel": (3, 3, 4, 6), "bias": (6,)})


def holds(structure, m):
    """Whether a mask looks as it may."""
    m = np.asarray(m)
    if isinstance(structure, NM):
        padded = np.pad(m, [(0, 0)] * (m.ndim - 2) + [(0, -m.shape[-2] % structure.m), (0, 0)])
        groups = padded.reshape(*m.shape[:-2], -1, structure.m, m.shape[-1])
        return groups.sum(-2).max() <= structure.n
    if isinstance(structure, AtMost):
        return m.sum(-2).max() <= structure.most
    if isinstance(structure, Blocks):
        first = m[..., :: structure.rows, :: structure.columns]
        whole = first.repeat(structure.rows, -2).repeat(structure.columns, -1)
        return (whole[..., : m.shape[-2], : m.shape[-1]] == m).all()
    return True


EVOLVING = [NM(2, 4), Blocks(2, 3), Blocks(3, 4), AtMost(5)]


@pytest.mark.parametrize(
    ("structure", "growth"), [*((s, "gradient") for s in EVOLVING), (NM(2, 4), "random")], ids=str
)
def test_a_structure_holds_through_fifty_steps_of_prune_grow(structure, growth):
    tx = prune_grow(
        optax.sgd(0.1, momentum=0.9),
        key=jax.random.key(0),
        sparsity=0.5,
        distribution="uniform",
        drop_fraction=0.5,
        update_every=1,
        growth=growth,
        structure=structure,
    )

    def step(carry, key):
        params, state = carry
        grads = jax.tree.map(lambda p: jax.random.normal(key, p.shape) + 0.1 * p, params)
        updates, state = tx.update(grads, state, params)
        return (optax.apply_updates(params, updates), state), state.mask

    state = tx.init(PARAMS)
    first = state.mask
    keys = jax.random.split(jax.random.key(1), 50)
    (params, _), seen = jax.jit(lambda c: jax.lax.scan(step, c, keys))((PARAMS, state))
    ragged = isinstance(structure, Blocks) and structure.rows == 3
    for path in ("kernel", "conv_kernel"):
        counts = {int(m.sum()) for m in seen[path]}
        assert counts == {int(first[path].sum())} or ragged
        if ragged:  # as many blocks, which are not all of one size
            heads = seen[path][..., ::3, ::4].reshape(50, -1).sum(-1)
            assert set(heads.tolist()) == {int(first[path][..., ::3, ::4].sum())}
        assert all(holds(structure, m) for m in seen[path])
        assert (seen[path][1:] != seen[path][:-1]).any()
        assert not np.asarray(params[path])[~np.asarray(seen[path][-1])].any()


def test_evolving_blocks_by_hand():
    # Blocks of 1 x 2. Of the active two the one of the smaller mean, 1.5, goes; the block of the
    # largest mean gradient comes: 5, though 9 is the largest gradient of one weight.
    params = {"w": jnp.array([[1.0, 2.0, 0.0, 0.0], [3.0, 3.0, 0.0, 0.0]])}
    mask = {"w": jnp.array([[True, True, False, False], [True, True, False, False]])}
    grads = {"w": jnp.array([[0.0, 0.0, 9.0, 0.0], [0.0, 0.0, -5.0, 5.0]])}
    new, survivors = evolve_mask(
        mask, params, grads, 0.5, jax.random.key(0), structure=Blocks(1, 2)
    )
    assert new["w"].tolist() == [[False] * 4, [True] * 4]
    assert survivors["w"].tolist() == [[False] * 4, [True, True, False, False]]


def test_what_is_grown_fits_to_what_stays():
    # 1:2. Weight 0 stays, so that its neighbour, which has the largest gradient, cannot come.
    params = {"w": jnp.array([[3.0], [0.0], [1.0], [0.0], [0.0], [0.0]])}
    mask = {"w": jnp.array([[True], [False], [True], [False], [False], [False]])}
    grads = {"w": jnp.array([[0.0], [9.0], [0.0], [2.0], [0.0], [1.0]])}
    new, _ = evolve_mask(mask, params, grads, 0.5, jax.random.key(0), structure=NM(1, 2))
    assert new["w"][:, 0].tolist() == [True, False, False, True, False, False]


@pytest.mark.parametrize("path", ["conv/weight", "weight", "kernel"])
def test_input_axes_are_found_in_every_layout(path):
    shape = {"conv/weight": (8, 4, 3, 3), "weight": (6, 8), "kernel": (8, 6)}[path]
    mask = sparsity.random_mask(
        jax.random.key(0), {path: jnp.ones(shape)}, 0.5, "uniform", structure=NM(2, 4)
    )[path]
    inputs = 0 if path == "kernel" else 1
    groups = np.moveaxis(np.asarray(mask), inputs, -1).reshape(-1, 4)
    assert (groups.sum(-1) == 2).all()
    pruned = prune_to(
        {path: jnp.ones(shape, bool)}, {path: jnp.ones(shape)}, 0.5, structure=NM(2, 4)
    )
    groups = np.moveaxis(np.asarray(pruned[path]), inputs, -1).reshape(-1, 4)
    assert groups.tolist() == [[True, True, False, False]] * len(groups)  # ties: the first


def test_unstructured_is_the_selection_of_before():
    key = jax.random.key(3)
    assert all(
        jax.tree.leaves(
            jax.tree.map(
                lambda a, b: bool((a == b).all()),
                sparsity.random_mask(key, PARAMS, 0.7, structure=Unstructured()),
                sparsity.random_mask(key, PARAMS, 0.7),
            )
        )
    )


def test_children_of_blocks_share_the_blocks_out():
    params, blocks = {"kernel": jnp.ones((7, 5))}, Blocks(2, 2)
    children = functools.partial(
        child_mask, jax.random.key(0), params, members=3, keep_dense=(), structure=blocks
    )
    parts = [children(i, kind="partition")["kernel"] for i in range(3)]
    assert all(holds(blocks, m) for m in parts)
    np.testing.assert_array_equal(sum(m.astype(int) for m in parts), np.ones((7, 5)))
    child = children(0, kind="random", share=0.5)["kernel"]
    assert holds(blocks, child)
    assert int(child[::2, ::2].sum()) == 6  # floor(18 * 12 / 35) of 12 blocks
    with pytest.raises(MaskError, match="Take random children, or whole blocks"):
        child_mask(
            jax.random.key(0),
            params,
            0,
            members=2,
            kind="anti_random",
            keep_dense=(),
            structure=NM(1, 4),
        )


def test_gradual_pruning_by_blocks_takes_whole_blocks():
    tx = gradual_pruning(
        optax.sgd(0.1), sparsity=0.75, begin=0, end=3, update_every=1, structure=Blocks(2, 2)
    )
    params = {"kernel": jax.random.normal(jax.random.key(0), (8, 8))}
    state = tx.init(params)
    for _ in range(4):
        updates, state = tx.update(jax.tree.map(jnp.zeros_like, params), state, params)
        params = optax.apply_updates(params, updates)
    assert holds(Blocks(2, 2), state.mask["kernel"])
    assert masks.count(state.mask) == 16


def test_groups_of_a_count_are_exact_beyond_float32():
    rng = np.random.default_rng(0)
    for _ in range(50):
        n = int(rng.integers(1, 2**31 - 1))
        groups, count = int(rng.integers(1, n + 1)), int(rng.integers(0, n + 1))
        assert int(_of_groups(jnp.int32(count), n, groups)) == count * groups // n
        assert _of_groups(count, n, groups) == count * groups // n


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: NM(5, 4), "keeps at most all of a group; got n=5 of m=4"),
        (lambda: NM(0, 4), "NM's n is how many of a group are kept, at least 1"),
        (lambda: Blocks(0, 4), "Blocks' rows is how many inputs a block has"),
        (lambda: NM(2, 4).keep(jnp.ones(4), 2), "needs leaves of an input and an output axis"),
        (lambda: prune_to(PARAMS, PARAMS, 0.5, structure=NM), r"Call it: NM\(...\)"),
        (
            lambda: prune_grow(
                optax.sgd(0.1), key=jax.random.key(0), sparsity=0.5, structure="2:4"
            ),
            r"structure says what a mask may look like, such as jaxtickets.masks.NM\(2, 4\)",
        ),
        (
            lambda: sparsity.random_mask(
                jax.random.key(0), {"kernel": jnp.ones((4, 4))}, 0.5, structure=Blocks(4, 4)
            ),
            "leaves nothing of kernel: its budget is 8 of 16 weights",
        ),
        (lambda: Structure().keep(jnp.ones((2, 2)), 1), "Structure has no keep"),
    ],
)
def test_what_does_not_go_is_said(make, message):
    with pytest.raises((MaskError, NotImplementedError), match=message):
        make()
