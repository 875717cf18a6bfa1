"""Arrays of one's own: what is good passes unchanged, what is wrong is named."""

from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtickets.data import CropFlip, DataError, Standardise, from_arrays

X = np.zeros((4, 3), np.float32)
Y = np.array([0, 2, 1, 1])


def test_good_arrays():
    data = from_arrays(
        X, Y, num_classes=3, augment=CropFlip(), name="mine", class_names=["a", "b", "c"]
    )
    assert data.x is X
    assert (data.y.dtype, data.num_classes, data.name, data.augment, data.class_names) == (
        np.int32,
        3,
        "mine",
        CropFlip(),
        ("a", "b", "c"),
    )
    assert data.prepare(X) is X
    assert from_arrays(X, Y).num_classes == 3
    assert from_arrays(X.astype(np.float64), Y.tolist(), num_classes=5).x.dtype == np.float32
    assert from_arrays(X, np.array([True, False, True, True])).num_classes == 2
    assert from_arrays(jnp.asarray(X, jnp.bfloat16), jnp.asarray(Y)).x.dtype == jnp.bfloat16


def test_regression_and_trees():
    data = from_arrays(
        {"tokens": np.ones((4, 7), np.int64), "mask": np.ones((4, 7), bool)}, np.linspace(0, 5, 4)
    )
    assert data.num_classes is None
    assert (data.y.dtype, data.x["tokens"].dtype, data.x["mask"].dtype) == (
        np.float32,
        np.int32,
        bool,
    )
    assert len(data.take(slice(2))) == 2


def test_images_are_scaled_unless_told_otherwise():
    x = np.full((4, 2, 2, 3), 255, np.uint8)
    np.testing.assert_array_equal(from_arrays(x, Y).prepare(x), np.ones(x.shape, np.float32))
    assert from_arrays(x, Y, prepare=Standardise((0.5,), (0.5,))).prepare == Standardise(
        (0.5,), (0.5,)
    )


BAD = {
    "no examples": (lambda: from_arrays(X[:0], Y[:0]), "hold no examples"),
    "no arrays": (lambda: from_arrays({}, Y), "x holds no arrays; got dict"),
    "lengths": (lambda: from_arrays(X, Y[:3]), "x has 4 examples and y has 3"),
    "length of a leaf": (
        lambda: from_arrays({"a": X, "b": [X[:2]]}, Y),
        r"x\['b'\]\[0\] has 2 examples and y has 4",
    ),
    "scalar": (lambda: from_arrays({"a": X, "b": 1}, Y), r"x\['b'\] is a single number"),
    "nested list": (
        lambda: from_arrays(X.tolist(), Y),
        r"x\[0\]\[0\] is a single number.*numpy.array\(x\)",
    ),
    "negative": (lambda: from_arrays(X, Y - 1, num_classes=3), r"y\[0\] is -1"),
    "too large": (
        lambda: from_arrays(X, Y, num_classes=2),
        r"y\[1\] is 2, but labels of num_classes=2 are 0 to 1",
    ),
    "not integers": (
        lambda: from_arrays(X, Y + 0.5, num_classes=3),
        r"y is float32, but num_classes=3.*astype",
    ),
    "one-hot": (lambda: from_arrays(X, np.eye(3)[Y], num_classes=3), "argmax"),
    "column": (lambda: from_arrays(X, Y[:, None]), r"Pass y\[:, 0\]"),
    "nan": (
        lambda: from_arrays(np.where(np.eye(4, 3), np.nan, 1), Y),
        r"x has 3 values that are NaN or infinite in float32, the first at \[0, 0\]",
    ),
    "infinity in a leaf": (
        lambda: from_arrays({"a": X, "b": X + np.inf}, Y),
        r"x\['b'\] has 12 values",
    ),
    "bfloat16 nan": (
        lambda: from_arrays(jnp.full((4, 1), jnp.nan, jnp.bfloat16), Y),
        "x has 4 values",
    ),
    "nan target": (
        lambda: from_arrays(X, np.array([0, 1, np.nan, 2])),
        r"y has 1 values that are NaN or infinite in float32, the first at \[2\]",
    ),
    "text": (lambda: from_arrays(X, np.array(list("abca"))), "y is of <U1"),
    "objects": (lambda: from_arrays(np.array([[1], [1, 2], [], [3]], object), Y), "x is of object"),
    "unequal rows": (
        lambda: from_arrays(np.zeros(4), [[1], [1, 2], [], [3]]),
        "y cannot be made a numpy array",
    ),
    "large integers": (lambda: from_arrays(np.full((4, 1), 2**31), Y), "outside of 32 bits"),
    "large float": (lambda: from_arrays(np.full((4, 1), 1e300), Y), "float32"),
    "one class": (lambda: from_arrays(X, Y * 0), "every label in y is 0"),
    "num_classes": (lambda: from_arrays(X, Y, num_classes=1), "integer >= 2, or None; got 1"),
    "num_classes of another type": (
        lambda: from_arrays(X, Y, num_classes=cast(Any, 3.0)),
        "integer >= 2, or None; got 3.0",
    ),
    "class names": (lambda: from_arrays(X, Y, class_names=["a"]), "1 names for 3 classes"),
}


@pytest.mark.parametrize(("call", "message"), BAD.values(), ids=BAD)
def test_mistakes_are_named(call, message):
    with pytest.raises(DataError, match=message):
        call()


def test_a_data_error_is_a_value_error():
    with pytest.raises(ValueError, match="from_arrays"):
        from_arrays(X, Y, num_classes=2)
    assert jax.tree.leaves(from_arrays(X, Y).x)[0] is X
