"""Masks of children: exact counts, complements, partitions, independence, and the same child however it is made."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtickets import masks
from jaxtickets.errors import MaskError
from jaxtickets.masks.children import check_children, child_mask

# Sizes that no small number divides; a bias, which is never pruned; the classifier, which is kept whole.
SHAPES = {"conv": (3, 3, 1, 11), "bias": (11,), "dense": (17, 13), "classifier": (13, 7)}
PARAMS = {path: jax.ShapeDtypeStruct(shape, np.float32) for path, shape in SHAPES.items()}
RULES = ((".*", masks.is_matrix),)
SIZES = {"conv": 99, "dense": 221}
KINDS = ("random", "anti_random", "partition")


def child(key, number, members, kind, **how):
    share = {"share": 0.29} if kind == "random" else {}
    return child_mask(
        jax.random.key(key),
        PARAMS,
        number,
        members=members,
        kind=kind,
        prunable=RULES,
        **share,
        **how,
    )


@functools.cache
def children(members, kind, which=None, **how):
    """Those children, or all, of two parents: `[parent][child]`. One program, compiled quickly rather than well."""

    def make(keys, numbers):
        return jax.vmap(
            lambda key: jax.vmap(lambda number: child(key, number, members, kind, **how))(numbers)
        )(keys)

    args = np.arange(2), np.asarray(range(members) if which is None else which, np.int32)
    made = (
        jax.jit(make)
        .lower(*args)
        .compile(compiler_options={"xla_backend_optimization_level": 0})(*args)
    )
    return [
        [{path: np.asarray(leaf[i, j]) for path, leaf in made.items()} for j in range(len(args[1]))]
        for i in range(2)
    ]


def counts(mask):
    return {path: int(mask[path].sum()) for path in SIZES}


def test_random_masks_have_exact_counts():
    """N - floor(0.29 N), and 0.29 of 100 is 29 whatever its float is; of 99, 221 and 320 it is 28.71, 64.09 and 92.8."""
    assert [counts(mask) for mask in children(6, "random", scope="layerwise")[0]] == [
        {"conv": 71, "dense": 157}
    ] * 6
    together = [counts(mask) for mask in children(6, "random", scope="global")[0]]
    assert [sum(one.values()) for one in together] == [228] * 6
    assert len({one["conv"] for one in together}) > 1  # not the same share in every layer


@pytest.mark.parametrize("scope", ["layerwise", "global"])
def test_anti_random_children_are_pairs_of_complements(scope):
    six = children(6, "anti_random", scope=scope)[0]
    for path in SIZES:
        for first, second in zip(six[::2], six[1::2], strict=True):
            np.testing.assert_array_equal(first[path], ~second[path])
    if scope == "layerwise":
        assert [counts(mask) for mask in six] == [
            {"conv": 50, "dense": 111},
            {"conv": 49, "dense": 110},
        ] * 3
    else:
        assert [sum(counts(mask).values()) for mask in six] == [160] * 6


@pytest.mark.parametrize(("members", "scope"), [(6, "layerwise"), (6, "global"), (64, "layerwise")])
def test_a_partition_is_disjoint_covers_and_is_even(members, scope):
    """Neither 99 nor 221 nor 320 weights divide by these."""
    parts = children(members, "partition", scope=scope)[0]
    for path in SIZES:
        np.testing.assert_array_equal(np.sum([part[path] for part in parts], 0), 1)
    kept = np.asarray([[counts(part)[path] for part in parts] for path in SIZES])
    kept = kept if scope == "layerwise" else kept.sum(0, keepdims=True)
    assert kept.sum() == 320
    assert set((kept.max(1) - kept.min(1)).tolist()) == {1}
    assert kept.min() >= 1


def test_the_classifier_is_whole_and_what_is_not_prunable_is_marked_dense():
    for kind in KINDS:
        for scope in ("layerwise", "global"):
            for mask in children(6, kind, scope=scope)[0]:
                assert mask["classifier"].all()
                assert mask["classifier"].shape == SHAPES["classifier"]
                assert mask["bias"].shape == ()
    other = children(6, "random", keep_dense=("conv",))[0][0]
    assert other["conv"].all()
    assert counts(other)["dense"] == 157
    assert int(other["classifier"].sum()) == 91 - 26


def test_random_children_are_independent():
    """Two masks that keep n of N at random share k weights, k hypergeometric: mean n/2, variance N/16 (nearly). IoU = k / (2n - k)
    is about a third. Over 45 pairs of 20,000 weights, 5.5 deviations of k (35) leave a false alarm once in 500,000 such tests."""
    big = {
        "w": jax.ShapeDtypeStruct((200, 100), np.float32),
        "classifier": jax.ShapeDtypeStruct((2, 2), np.float32),
    }
    ten = jax.jit(
        jax.vmap(lambda i: child_mask(jax.random.key(1), big, i, members=10, prunable=RULES)["w"])
    )(jnp.arange(10))
    flat = np.asarray(ten).reshape(10, -1)
    shared = [int((flat[i] & flat[j]).sum()) for i in range(10) for j in range(i)]
    assert max(abs(k - 5000) for k in shared) < 5.5 * math.sqrt(20_000 / 16)
    assert np.mean([k / (20_000 - k) for k in shared]) == pytest.approx(1 / 3, abs=0.005)
    # Nor is a place in the layer favoured: of 1000 draws a row, half are kept. The 200 rows leave a false alarm once in 100,000.
    rows = flat.reshape(10, 200, 100).mean((0, 2))
    assert abs(rows - 0.5).max() < 5.5 * math.sqrt(0.25 / 1000)


@pytest.mark.parametrize("kind", ["random", "anti_random"])
def test_children_differ_from_each_other_and_from_those_of_another_parent(kind):
    assert (
        len(
            {
                mask["dense"].tobytes()
                for parent in children(6, kind, scope="layerwise")
                for mask in parent
            }
        )
        == 12
    )


@pytest.mark.parametrize("kind", KINDS)
def test_a_child_is_the_same_in_any_group_and_without_a_trace(kind):
    alone, group, everybody = (
        child(0, 5, 6, kind),
        children(6, kind, (4, 5))[0][1],
        children(6, kind, scope="layerwise")[0][5],
    )
    for path, mask in alone.items():
        np.testing.assert_array_equal(group[path], mask)
        np.testing.assert_array_equal(everybody[path], mask)


@pytest.mark.parametrize("kind", ["random", "anti_random"])
def test_a_child_does_not_depend_on_how_many_others_there_are(kind):
    for few, many in zip(
        children(6, kind, scope="layerwise")[1][2:4], children(128, kind, (2, 3))[1], strict=True
    ):
        assert all(np.array_equal(few[path], many[path]) for path in few)


SMALL = {"a": (5, 5), "b": (2, 1), "classifier": (4, 4)}


@pytest.mark.parametrize(
    ("shapes", "how", "message"),
    [
        (
            SMALL,
            (3, "partition", "layerwise", ("classifier",)),
            r"2 weights of b cannot be dealt out to 3 members.*take at most 2 members",
        ),
        (
            SMALL,
            (3, "partition", "layerwise", ("classifier",)),
            r"keep_dense=\('classifier', 'b'\)",
        ),
        (
            SMALL,
            (28, "partition", "global", ("classifier",)),
            r"27 weights of all layers together cannot be dealt out to 28",
        ),
        (
            {"a": (1, 1)},
            (2, "anti_random", "layerwise", ()),
            r"1 weights of a cannot be dealt out to 2 members.*take random masks",
        ),
        (
            SMALL,
            (2, "random", "layerwise", ("classifer",)),
            r"keep_dense='classifer' matches none of the layers a, b, classifier",
        ),
        (
            SMALL,
            (2, "random", "layerwise", ("a", "b", "cl")),
            r"leaves nothing to prune among a, b, classifier",
        ),
    ],
)
def test_children_that_cannot_be_are_errors(shapes, how, message):
    with pytest.raises(MaskError, match=message):
        check_children(shapes, *how)


def test_children_that_can_be_are_none():
    check_children(SMALL, 2, "partition", "layerwise", ("classifier",))
    check_children(SMALL, 27, "partition", "global", ("classifier",))
    check_children(SMALL, 128, "random", "layerwise", ("classifier",))
    check_children(SMALL, 2, "anti_random", "layerwise", ("classifier",))
