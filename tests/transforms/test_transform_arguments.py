"""Every argument of transforms, masks, budgets and selection that cannot be: a MaskError that names it, its value and what is allowed."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxtickets import masks
from jaxtickets.errors import MaskError
from jaxtickets.masks import scores, selection, sparsity
from jaxtickets.transforms import (
    evolve_mask,
    gradual_pruning,
    keep_masked,
    l1_masking,
    l1_penalty,
    prune_grow,
    prune_to,
)

KEY = jax.random.key(0)
PARAMS = {"w": jnp.ones((4, 4)), "b": jnp.zeros(4)}
MASK = {"w": jnp.eye(4, dtype=bool), "b": jnp.ones((), bool)}
NAN, INF = math.nan, math.inf


def pg(inner=None, **options):
    return prune_grow(
        optax.sgd(0.1) if inner is None else inner, **{"key": KEY, "sparsity": 0.5, **options}
    )


def gp(inner=None, **options):
    return gradual_pruning(
        optax.sgd(0.1) if inner is None else inner,
        **{"sparsity": 0.5, "begin": 0, "end": 4, **options},
    )


WRAPS = {
    "prune_grow": pg,
    "gradual_pruning": gp,
    "keep_masked": lambda inner: keep_masked(inner, MASK),
    "l1_masking": lambda inner: l1_masking(inner, {"w": 1.0, "b": 0.0}, 0.1),
}


@pytest.mark.parametrize("name", WRAPS)
def test_inner_is_an_optimizer(name):
    for inner, got in (("adam", "'adam'"), (3, "3"), ((), r"\(\)"), ({"lr": 0.1}, "'lr': 0.1")):
        with pytest.raises(
            MaskError, match=f"inner is an optax optimizer, such as .*; got .*{got}"
        ):
            WRAPS[name](inner)
    with pytest.raises(MaskError, match=r"got <function adam.*Call it first: adam\(1e-3\)"):
        WRAPS[name](optax.adam)


# name: (call of a value, values that cannot be, what the message says)
VALUES = {
    "key": (
        lambda v: pg(key=v),
        [None, 0, "k", 1.5, jnp.zeros(2)],
        r"key is a random key, such as jax.random.key\(0\); got",
    ),
    "keys": (
        lambda v: pg(key=v),
        [jax.random.split(KEY, 3)],
        r"key is one random key; got \[3\] of them.*jax.vmap",
    ),
    "sparsity": (
        lambda v: pg(sparsity=v),
        [1, 1.0, -0.1, NAN, INF, "0.5", True, jnp.ones(2), np.float32(2)],
        r"sparsity is the share of zeros, in \[0, 1\); got",
    ),
    "drop_fraction": (
        lambda v: pg(drop_fraction=v),
        ["x", None, 1.5, -1, NAN, True, jnp.ones(2), jnp.float32(3), [0.5]],
        r"drop_fraction is a share of the active weights, in \[0, 1\]; got",
    ),
    "update_every": (
        lambda v: pg(update_every=v),
        [0, -1, 2.0, NAN, True, "2", None, jnp.float32(2), jnp.array(0)],
        "update_every is a number of steps, (a whole number, )?at least 1; got",
    ),
    "begin": (
        lambda v: pg(begin=v),
        [-1, 0.5, NAN, None, True, "0"],
        "begin is the number of the first step .* at least 0; got",
    ),
    "end": (
        lambda v: pg(end=v),
        [-1, 0.5, INF, True, "0"],
        "end is None, or the number of the last step .* at least 0; got",
    ),
    "end before begin": (
        lambda v: pg(begin=5, end=v),
        [0, 4, jnp.array(3)],
        "no update would ever happen: end=. is before begin=5",
    ),
    "growth": (
        lambda v: pg(growth=v),
        ["gradients", None, 1, ["gradient"]],
        "growth is one of gradient, grasp, magnitude, .*random, .*snip, synflow; got",
    ),
    "regrown": (
        lambda v: pg(regrown=v),
        ["zeros", None, True],
        "regrown is one of keep, zero; got",
    ),
    "distribution": (
        lambda v: pg(distribution=v),
        ["ERK", None, 3],
        "distribution is one of uniform, er, erk; got",
    ),
    "channels": (
        lambda v: pg(channels=v),
        ["NHWC", None],
        "channels is one of auto, first, last; got",
    ),
    "weight_update": (
        lambda v: pg(weight_update=v),
        ["no", None, 1],
        "weight_update is True or False; got",
    ),
    "track_ever_active": (
        lambda v: pg(track_ever_active=v),
        [0, "yes"],
        "track_ever_active is True or False; got",
    ),
    "stacked": (lambda v: pg(stacked=v), ["layers", 1, [1]], "stacked is a tuple of path patterns"),
    "stacked pattern": (
        lambda v: gp(stacked=v),
        [["("]],
        r"stacked are regular expressions for leaf paths; got '\('",
    ),
    "mask": (
        lambda v: prune_grow(optax.sgd(0.1), key=KEY, mask=v).init(PARAMS),
        ["m", 3, {"w": True, "b": True}, {"w": jnp.ones((4, 4)), "b": jnp.ones((), bool)}],
        r"the mask",
    ),
    "prunable": (
        lambda v: pg(prunable=v),
        ["kernel", 3, None, {"w": True}],
        "rules are pairs .* got",
    ),
    "a rule": (
        lambda v: gp(prunable=v),
        [["w"], [("w",)], [(1, True)], [("w", True, 1)]],
        "rules are pairs .* got .* among them",
    ),
    "a pattern": (
        lambda v: pg(prunable=v),
        [[("[", True)], [("(", True), (".*", False)]],
        "is no regular expression: ",
    ),
    "a verdict": (
        lambda v: gp(prunable=v),
        [[("w", 1)], [("w", "yes")], [("w", None)]],
        "the verdict of the rule 'w' is True, False or a function of the leaf; got",
    ),
    "final sparsity": (
        lambda v: gp(sparsity=v),
        [1, -0.1, NAN, "x", None, False],
        "(final|sparsity) is the share of zeros",
    ),
    "initial": (
        lambda v: gp(initial=v),
        [1, -0.1, NAN, "x", None, False],
        "initial is the share of zeros",
    ),
    "begin of pruning": (
        lambda v: gp(begin=v),
        [-1, 0.5, NAN, None, True, "0"],
        "begin is the number of the step .* at least 0; got",
    ),
    "end of pruning": (
        lambda v: gp(end=v),
        [0, 0.5, NAN, None, True, "9"],
        "end is the number of the step .* at least 1; got",
    ),
    "pruning every": (
        lambda v: gp(update_every=v),
        [0, 0.5, NAN, None, True, "9"],
        "update_every is a number of steps, (a whole number, )?at least 1; got",
    ),
    "scope": (lambda v: gp(scope=v), ["layer", None, 1], "scope is one of layerwise, global; got"),
    "strength": (
        lambda v: l1_masking(optax.sgd(0.1), {"w": 1.0, "b": 0.0}, v),
        ["x", None, -1, NAN, True, jnp.ones(2)],
        "strength is a number of at least 0, or a schedule of the step; got",
    ),
    "decoupled": (
        lambda v: l1_masking(optax.sgd(0.1), {"w": 1.0, "b": 0.0}, 0.1, decoupled=v),
        [1, "yes", None],
        "decoupled is True or False; got",
    ),
    "coefficients": (
        lambda v: l1_masking(optax.sgd(0.1), v, 0.1).init(PARAMS),
        [None, 1.0, {"w": 1.0}],
        "coefficients must have the params' tree",
    ),
    "a coefficient": (
        lambda v: l1_masking(optax.sgd(0.1), {"w": v, "b": 0.0}, 0.1).init(PARAMS),
        ["x", object()],
        "the coefficients of 'w' are numbers; got",
    ),
    "coefficients of a penalty": (
        lambda v: l1_penalty(PARAMS, v),
        [None, 1.0, {"w": 1.0}],
        "coefficients must have the params' tree",
    ),
    "fraction to evolve": (
        lambda v: evolve_mask(MASK, PARAMS, PARAMS, v, KEY),
        ["x", -1, 1.5, NAN, None, True],
        r"drop_fraction is a share of the active weights, in \[0, 1\]; got",
    ),
    "key to evolve": (
        lambda v: evolve_mask(MASK, PARAMS, PARAMS, 0.5, v),
        [None, 0],
        "key is a random key",
    ),
    "growth to evolve": (
        lambda v: evolve_mask(MASK, PARAMS, PARAMS, 0.5, KEY, v),
        ["gradients", None],
        "growth is one of",
    ),
    "regrown to evolve": (
        lambda v: evolve_mask(MASK, PARAMS, PARAMS, 0.5, KEY, "gradient", v),
        ["zeros"],
        "regrown is one of",
    ),
    "gradients to evolve": (
        lambda v: evolve_mask(MASK, PARAMS, v, 0.5, KEY),
        [None, {"w": jnp.ones((4, 4))}],
        "gradients: the tree is not that of the params",
    ),
    "sparsity to prune to": (
        lambda v: prune_to(MASK, PARAMS, v),
        ["x", -0.1, 1.1, NAN, None],
        r"sparsity is the share of zeros, in \[0, 1\]; got",
    ),
    "scope to prune in": (
        lambda v: prune_to(MASK, PARAMS, 0.5, v),
        ["layer", None],
        "scope is one of",
    ),
    "scores of a pruning": (
        lambda v: prune_to(MASK, PARAMS, 0.5, scores=v),
        [3, {"w": jnp.ones((4, 4))}],
        "scores: the tree is not that of the params",
    ),
    "a mask to prune": (
        lambda v: prune_to(v, PARAMS, 0.5),
        [None, {"w": jnp.ones((4, 4), bool)}],
        "the mask's tree is not the params' tree",
    ),
    "rules": (
        lambda v: masks.prunable(PARAMS, v),
        ["kernel", None, [("[", True)]],
        "rules are pairs|no regular expression",
    ),
    "rules of full": (
        lambda v: masks.full(PARAMS, v),
        ["kernel", None, [("w", 2)]],
        "rules are pairs|verdict",
    ),
    "params of rules": (
        lambda v: masks.prunable(v),
        [{"kernel": 3}, "x"],
        "params are arrays; .* is",
    ),
    "apply": (
        lambda v: masks.apply(v, PARAMS),
        [
            None,
            {"w": MASK["w"]},
            {"w": jnp.ones((3, 4), bool), "b": MASK["b"]},
            {"w": True, "b": True},
        ],
        "the mask",
    ),
    "complement": (
        lambda v: masks.complement(v),
        ["x", PARAMS, [True]],
        "complement takes masks, trees of bool arrays; ",
    ),
    "counts": (lambda v: masks.counts(v), ["x", PARAMS], "counts takes masks"),
    "count": (lambda v: masks.count(v), ["x", PARAMS], "count takes masks"),
    "density": (lambda v: masks.density(v), ["x", PARAMS], "takes masks"),
    "iou": (lambda v: masks.iou(MASK, v), ["x", PARAMS, {"w": MASK["w"]}], "iou takes masks"),
    "pack": (lambda v: masks.pack(v), [jnp.ones(3), "x", 3], "pack takes masks"),
    "unpack": (
        lambda v: masks.unpack(v, (8,)),
        [[255], "x", None],
        "a packed mask is a numpy array of uint8; got",
    ),
    "unpack to": (
        lambda v: masks.unpack(np.zeros(1, np.uint8), v),
        [8, (-8,), ("8",), (8.0,)],
        "a shape is a tuple of whole numbers, at least 0; got",
    ),
    "check_sparsity": (
        lambda v: sparsity.check_sparsity(v),
        [1, NAN, True, False, "x", None, [0.5]],
        "sparsity is the share of zeros",
    ),
    "kept": (
        lambda v: sparsity.num_kept(v, 0.5),
        [-1, 1.5, True, "9", None],
        "n is how many there are, (a whole number, )?at least 0; got",
    ),
    "share kept": (
        lambda v: sparsity.num_kept(9, v),
        [-0.1, 1.1, NAN, "x", None],
        r"fraction is a share, in \[0, 1\]; got",
    ),
    "shapes": (
        lambda v: sparsity.layer_budgets(v, 0.5),
        [[(3, 3)], None, "x"],
        "shapes is a dict, path to shape; got",
    ),
    "a shape": (
        lambda v: sparsity.layer_budgets({"a": v}, 0.5),
        [3, (-3, 3), (1.5,), "x"],
        "the shape of 'a' is a tuple of whole numbers, at least 0; got",
    ),
    "dense": (
        lambda v: sparsity.layer_budgets({"a": (3, 3)}, 0.5, dense=v),
        ["a", 3, [3], None],
        "dense is a tuple of path patterns",
    ),
    "a dense pattern": (
        lambda v: sparsity.layer_budgets({"a": (3, 3)}, 0.5, dense=v),
        [["["]],
        r"dense are regular expressions for leaf paths; got '\['",
    ),
    "key of a mask": (
        lambda v: sparsity.random_mask(v, PARAMS, 0.5),
        [None, 3],
        "key is a random key",
    ),
    "cosine": (
        lambda v: sparsity.cosine(0.5, v),
        [0, -1, 1e4, NAN, True, "9", None],
        "cosine: steps is how many steps the way takes, (a whole number, )?at least 1; got",
    ),
    "linear": (
        lambda v: sparsity.linear(v, 9),
        ["x", NAN, INF, None, True],
        "linear: value is a finite number; got",
    ),
    "constant": (
        lambda v: sparsity.constant(v),
        ["x", NAN, None],
        "constant: value is a finite number; got",
    ),
    "cubic": (
        lambda v: sparsity.cubic(0.5, 0, v),
        ["x", NAN, None, True],
        "end is the step .* a finite number; got",
    ),
    "count to keep": (
        lambda v: selection.keep_largest(jnp.ones(4), v),
        [-1, 1.5, NAN, True, "2", jnp.float32(2)],
        "count is how many to keep, (a whole number, )?at least 0; got",
    ),
    "counts to keep": (
        lambda v: selection.keep_largest({"a": jnp.ones(4), "b": jnp.ones(2)}, v),
        [{"a": 1}, [1, 1], jnp.array([1, 1]), None],
        "count is one number for all leaves, or a tree of them like the scores; got",
    ),
    "scores": (
        lambda v: selection.keep_largest(v, 1),
        [jnp.arange(3), jnp.ones(3, bool), "x", jnp.ones(3) * 1j],
        "scores are arrays of floats or uint32; got",
    ),
    "where": (
        lambda v: selection.keep_largest(jnp.ones(3), 1, v),
        [jnp.ones(3), jnp.ones(4, bool), "x"],
        r"where is bool, of the scores' shape \[3\]; got",
    ),
    "share": (
        lambda v: sparsity.exact_floor(v, 10),
        [-0.1, 1.1, NAN, "x", None, True],
        r"fraction is a share, in \[0, 1\]; got",
    ),
    "share of": (
        lambda v: sparsity.exact_floor(0.5, v),
        [-1, 1.5, "x", None],
        "n is how many there are, (a whole number, )?at least 0; got",
    ),
    "key of scores": (lambda v: scores.random(v, PARAMS), [None, 1], "key is a random key"),
}


@pytest.mark.parametrize("name", VALUES)
def test_a_value_that_cannot_be_is_named_with_what_is_allowed(name):
    call, values, message = VALUES[name]
    for value in values:
        with pytest.raises(MaskError, match=message):
            call(value)


def test_values_that_can_be_are_taken_whatever_their_type():
    for fraction in (
        0,
        1,
        0.5,
        np.float32(0.5),
        np.float64(0.5),
        jnp.float32(0.5),
        jnp.array(1),
        sparsity.cosine(0.5, 9),
    ):
        pg(drop_fraction=fraction)
    for steps in (1, np.int64(3), jnp.array(3), np.array(3)):
        pg(update_every=steps, begin=steps, end=steps)
        sparsity.linear(0.5, steps)
    for share in (0.8, np.float32(0.8), jnp.float32(0.8), np.float64(0.8)):  # 0.8 as it is written
        assert sparsity.num_kept(10, share) == 2
    pg(prunable=[["w", True], (".*", False)])


@pytest.mark.parametrize("name", WRAPS)
def test_what_does_not_belong_together_at_an_update(name):
    tx = WRAPS[name](optax.sgd(0.1))
    state = tx.init(PARAMS)
    with pytest.raises(
        MaskError,
        match=f"{name}: gradients: the tree is not that of the params. It has nothing more, and lacks 'b'",
    ):
        tx.update({"w": PARAMS["w"]}, state, PARAMS)
    with pytest.raises(
        MaskError,
        match=f"{name}: gradients: the tree is not that of the params. It has 'x', and lacks 'w'",
    ):
        tx.update({"x": PARAMS["w"], "b": PARAMS["b"]}, state, PARAMS)
    with pytest.raises(
        MaskError, match=rf"{name}: gradients: 'w' has the shape \[4, 5\]; its param has \[4, 4\]"
    ):
        tx.update({"w": jnp.ones((4, 5)), "b": PARAMS["b"]}, state, PARAMS)
    with pytest.raises(
        MaskError, match=f"{name}: the state is not what its init gave; got tuple in place of"
    ):
        tx.update(PARAMS, (), PARAMS)
    with pytest.raises(ValueError, match="needs the params"):
        tx.update(PARAMS, state)
    if name != "l1_masking":
        other = {"w": jnp.ones((3, 4)), "b": jnp.ones(4)}
        with pytest.raises(MaskError, match="the mask"):
            tx.update(other, state, other)


def test_a_long_value_is_cut():
    with pytest.raises(MaskError) as error:
        pg(drop_fraction="x" * 10_000)
    assert len(str(error.value)) < 200
