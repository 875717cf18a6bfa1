"""The checks of arguments: what they take, what they refuse and in which words."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtickets.errors import MaskError, PlanError
from jaxtickets.messages import quoting
from jaxtickets.messages.checks import Checks

data = Checks(PlanError)
arrays = Checks(MaskError, arrays=True)
KEY = jax.random.key(0)
TREE = jax.tree.structure({"a": 0})

# A check, the arguments that it takes, those that it refuses with their message.
TABLE = {
    "choice": (
        lambda v: data.choice("scope", v, ("global", "layerwise")),
        ["global"],
        {"all": "scope is one of global, layerwise; got 'all'.", 3: "...; got 3."},
    ),
    "flag": (
        lambda v: data.flag("tied", v),
        [True, False],
        {1: "tied is True or False; got 1.", "no": "...; got 'no'."},
    ),
    "text": (
        lambda v: data.text("name", v),
        ["x"],
        {"": "name is a text, such as 'first'; got ''.", None: "...; got None."},
    ),
    "positive_int": (
        lambda v: data.positive_int("members", v, most=10_000),
        [1, np.int64(3), 10_000],
        {
            0: "members is at least 1; got 0.",
            1.5: "members is a whole number, at least 1; got 1.5.",
            True: "members is a whole number, at least 1; got True.",
            20_000: "members is at most 10,000; got 20,000.",
            10**5000: "members is at most 10,000; got <an integer of 16,610 bits>.",
        },
    ),
    "non_negative": (
        lambda v: data.non_negative("lr", v),
        [0, 1e-3, np.float32(2), 10**300],
        {
            -1: "lr is a finite number, at least 0; got -1.",
            float("inf"): "...; got inf.",
            float("nan"): "...; got nan.",
            "x": "...; got 'x'.",
            10**400: "...; got <an integer of 1,329 bits>.",
        },
    ),
    "fraction": (
        lambda v: data.fraction("q", v, "a share of the weights, "),
        [0, 0.5, 1],
        {1.5: "q is a share of the weights, in [0, 1]; got 1.5.", True: "...; got True."},
    ),
    "fraction below 1": (
        lambda v: data.fraction("b1", v, ends="[)"),
        [0, 0.999],
        {1: "b1 is in [0, 1); got 1.", -0.1: "...; got -0.1."},
    ),
    "fraction inside": (
        lambda v: data.fraction("s", v, ends="()", hint=" Say 0.8."),
        [0.5],
        {0: "s is in (0, 1); got 0. Say 0.8.", 1.0: "...; got 1.0. Say 0.8."},
    ),
    "patterns": (
        lambda v: data.patterns("keep", v),
        [(), ("a|b",)],
        {
            "a": "keep is a tuple of path patterns, such as ('Dense_0',); got 'a'.",
            (1,): "...; got (1,).",
            ("(",): "keep are regular expressions for leaf paths; got '(': missing ), unterminated"
            " subpattern at position 0.",
            ("a", "("): "keep are regular expressions for leaf paths; got '(' in ('a', '('):"
            " missing ), unterminated subpattern at position 0.",
        },
    ),
    "key": (
        lambda v: arrays.key("key", v),
        [],
        {0: "key is a random key, such as jax.random.key(0); got 0.", None: "...; got None."},
    ),
}


@pytest.mark.parametrize("name", TABLE)
def test_a_check_takes_what_is_allowed_and_says_what_is_not(name):
    check, right, wrong = TABLE[name]
    for value in right:
        check(value)
    for value, message in wrong.items():
        with pytest.raises((PlanError, MaskError)) as caught:
            check(value)
        said = str(caught.value)
        assert said == message or (message[:3] == "..." and said.endswith(message[3:])), said


# Of 0-d arrays, of arrays being traced, and of more than one number.
ARRAYS = {
    "integer": (lambda v: arrays.integer("n", v, least=2), jnp.int32(2), jnp.int32(1)),
    "integer's kind": (lambda v: arrays.integer("n", v, least=0), np.array(2), jnp.float32(2)),
    "fraction": (lambda v: arrays.fraction("q", v), jnp.float32(1), jnp.float32(1.5)),
    "number": (lambda v: arrays.number("x", v, "a number"), jnp.float32(9), jnp.float32("inf")),
    "shape": (lambda v: arrays.fraction("q", v), jnp.bfloat16(0.5), jnp.zeros(2)),
    "bool": (lambda v: arrays.number("x", v, "a number"), jnp.int32(0), jnp.array(True)),
    "rows": (
        lambda v: arrays.integer("n", v, least=0, rows=2),
        jnp.array([0, 3]),
        jnp.array([0, -3]),
    ),
    "row's length": (lambda v: arrays.integer("n", v, least=0, rows=2), jnp.int32(3), jnp.ones(2)),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_arrays_are_numbers_where_they_may_be(name):
    check, right, wrong = ARRAYS[name]
    check(right)
    jax.jit(lambda v: check(v) or v)(right)  # not known yet: only what is known is checked
    with pytest.raises(MaskError, match=r"; got "):
        check(wrong)


def test_a_plan_is_made_of_python_numbers():
    for check in (
        lambda v: data.positive_int("n", v),
        lambda v: data.fraction("q", v),
        lambda v: data.non_negative("lr", v),
    ):
        with pytest.raises(PlanError, match=r"got 1\.$"):
            check(jnp.int32(1))


def test_a_key_is_one_key():
    arrays.key("key", KEY)
    arrays.key("key", jax.random.PRNGKey(0))
    with pytest.raises(MaskError, match=r"key is one random key; got \[3\] of them"):
        arrays.key("key", jax.random.split(KEY, 3))


def test_trees_are_compared_by_leaf_and_shape():
    arrays.same_tree("where", {"a": 1}, TREE, "the scores")
    with pytest.raises(MaskError, match=re.escape("where: the tree is not that of the scores.")):
        arrays.same_tree("where", {"b": 1}, TREE, "the scores")
    with pytest.raises(MaskError, match=r"grads: 'a' has the shape \[2\]; its param has \[3\]"):
        arrays.same_shapes("grads", {"a": np.zeros(2)}, {"a": np.zeros(3)}, ["a"])


def test_a_huge_value_is_shown_in_a_line():
    deep = nested = []
    for _ in range(10_000):
        nested.append([])
        nested = nested[0]
    shared = [0] * 9
    for _ in range(30):  # 9 * 4^30 numbers, were it written out
        shared = [shared] * 4
    for value in (10**5000, "x" * 10**7, b"x" * 10**7, list(range(10**6)), deep, shared):
        assert len(quoting.shown(value)) <= 100
    assert quoting.shown([np.zeros((2, 3)), jnp.int32(4)]) == "[float64[2, 3], 4]"
