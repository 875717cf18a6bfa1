"""A `Dataset` from a pair of arrays, checked before anything is compiled."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from jaxtickets.dataset.conversion import check_integers, host, is_device_array, narrow
from jaxtickets.dataset.types import Dataset
from jaxtickets.errors import DataError
from jaxtickets.messages import checks

PyTree = Any


def from_arrays(
    x: PyTree,
    y: Any,
    *,
    num_classes: int | None = None,
    augment: Callable[[jax.Array, PyTree], PyTree] | None = None,
    prepare: Callable[[PyTree], PyTree] | None = None,
    name: str = "arrays",
    class_names: Sequence[str] = (),
    buckets: Sequence[int] = (),
) -> Dataset:
    """Your own arrays as a `Dataset`.

    What is wrong with them is said here and not by a loss that is NaN an hour later.

    Integer `y` means classification, floating `y` regression. 64-bit floats and integers become
    32-bit ones.

    Args:
      x: an array [N, ...] or a tree of them (images, token ids and masks): numbers or booleans,
        floats finite.
      y: integer labels [N] in 0..num_classes - 1, or finite float targets [N].
      num_classes: C >= 2. None with integer labels: the largest label + 1, which is too few where
        the last class does not occur, so give it for anything but a quick look. None with float
        targets: regression.
      augment: `(key, x [B, ...]) -> x`, on training batches only, such as `CropFlip()`; a hashable
        callable.
      prepare: `x [B, ...] -> float32`, on every batch. None: an array of uint8 is scaled to 0..1,
        all else is passed on.
      name: what a run folder and a table call it.
      class_names: C names, or empty.
      buckets: token lengths that a batch may be cut to; see `Dataset`.

    Returns:
      the `Dataset`.

    Raises:
      DataError: no examples; lengths that differ; labels that are not integers, negative or >=
        `num_classes`; NaN or infinity; arrays of objects or text; labels that are not one axis;
        wrong `num_classes`, `class_names` or `buckets`.

    >>> import numpy as np
    >>> from_arrays(np.zeros((4, 2), np.float32), np.array([0, 1, 2, 1]), num_classes=3)
    Dataset(arrays: 4 examples, x=float32[4, 2], classes=3)
    >>> from_arrays(np.zeros((4, 2), np.float32), np.arange(4), num_classes=3)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    jaxtickets.errors.DataError: from_arrays: y[3] is 3, but labels of num_classes=3 are 0 to 2...
    """
    num_classes, names, lengths = _checked_options(
        num_classes, name, class_names, buckets, augment, prepare
    )
    labels = _numbers("y", y)
    if labels.ndim != 1:
        raise DataError(
            f"from_arrays: y has the shape {list(labels.shape)}, but one value per example is [N]."
            f" {_one_axis_hint(labels)}"
        )
    leaves, tree = jax.tree.flatten(x)
    if not leaves:
        raise DataError(
            f"from_arrays: x holds no arrays; got {type(x).__name__}. Pass an array [N, ...] or a"
            " tree of them"
        )
    paths = [
        "x" + jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_flatten_with_path(x)[0]
    ]
    arrays = [_numbers(path, leaf) for path, leaf in zip(paths, leaves, strict=True)]
    for path, array in zip(paths, arrays, strict=True):
        if array.ndim == 0:
            raise DataError(
                f"from_arrays: {path} is a single number; the first axis of every array counts the"
                " examples. Lists are trees of their items: pass numpy.array(x)"
            )
        if len(array) != len(labels):
            raise DataError(
                f"from_arrays: {path} has {len(array)} examples and y has {len(labels)}; row i of"
                " both is example i"
            )
    if len(labels) == 0:
        raise DataError(
            "from_arrays: x and y hold no examples; at least one is needed. Was a filter or a slice"
            " too narrow?"
        )
    labels, classes = _targets(labels, num_classes)
    if class_names and len(class_names) != classes:
        raise DataError(
            f"from_arrays: class_names has {len(class_names)} names for {classes} classes; give one"
            " per class or none"
        )
    examples = jax.tree.unflatten(tree, arrays)
    if prepare is None and isinstance(examples, np.ndarray) and examples.dtype == np.uint8:
        prepare = unit_scale
    dataset = Dataset(
        examples, labels, classes, name=name, augment=augment, class_names=names, buckets=lengths
    )
    return dataset if prepare is None else dataclasses.replace(dataset, prepare=prepare)


def _checked_options(
    num_classes: Any, name: Any, class_names: Any, buckets: Any, augment: Any, prepare: Any
) -> tuple[Any, ...]:
    """What says how the arrays are to be used, in Python's own kinds."""
    num_classes, class_names, buckets = checks.plain((num_classes, class_names, buckets))
    if num_classes is not None and not (
        checks.is_int(num_classes) and 2 <= num_classes <= checks.LONGEST
    ):
        raise DataError(
            f"from_arrays: num_classes is an integer >= 2, or None; got {checks.shown(num_classes)}"
        )
    if not isinstance(name, str) or not name:
        raise DataError(f"from_arrays: name is a text; got {checks.shown(name)}")
    for what, function in (("augment", augment), ("prepare", prepare)):
        if function is not None and not callable(function):
            raise DataError(
                f"from_arrays: {what} is a function, or None; got {checks.shown(function)}"
            )
    if (
        isinstance(class_names, str)
        or not isinstance(class_names, Sequence)
        or not all(isinstance(one, str) for one in class_names)
    ):
        raise DataError(
            "from_arrays: class_names is a list of texts, one per class, or empty; got"
            f" {checks.shown(class_names)}"
        )
    if not isinstance(buckets, Sequence) or not all(map(checks.is_int, buckets)):
        raise DataError(
            "from_arrays: buckets is a list of token lengths, or empty; got"
            f" {checks.shown(buckets)}"
        )
    return num_classes, tuple(class_names), tuple(buckets)


def unit_scale(x: jax.Array) -> jax.Array:
    """Pixels 0..255 as float32 in 0..1."""
    return jnp.asarray(x, jnp.float32) / 255


def as_dataset(
    data: Dataset | tuple[Any, Any],
    num_classes: int | Literal["of the labels"] | None = "of the labels",
) -> Dataset:
    """A `Dataset` as it is, or a pair `(x, y)` of arrays as one.

    Args:
      data: either; what `from_arrays` takes.
      num_classes: of what is to be learned, where that is known: the last of them may not occur
        among the labels, and of a regression (None) integers are targets too.

    Raises:
      DataError: neither of the two, or arrays that cannot be used.
    """
    if isinstance(data, Dataset):
        return _readable(data)
    if not isinstance(data, tuple | list) or len(data) != 2:
        count = f" of {len(data)}" if isinstance(data, tuple | list) else ""
        raise DataError(
            "data is a Dataset, a Stream or a pair of arrays (x, y); got"
            f" {type(data).__name__}{count}. What yields batches becomes a pair by"
            " numpy.concatenate of its batches, or a Stream by a method batches(seed, epoch,"
            " batch_size) (see jaxtickets.Stream)."
        )
    if any(isinstance(part, Dataset) for part in data):
        raise DataError(
            "data is a Dataset, a Stream or a pair of arrays (x, y); got a pair of data sets. Take"
            " one of them: train, test = jt.data.pair(...)."
        )
    if num_classes == "of the labels":
        return from_arrays(*data)
    x, y = data
    y = host(y, "from_arrays: y")
    if num_classes is None:
        return from_arrays(x, y if y.dtype.kind not in "biu" else y.astype(np.float32))
    return from_arrays(x, y, num_classes=num_classes)


def _readable(data: Dataset) -> Dataset:
    """The data set, with arrays of other libraries as NumPy's.

    Its own are left as they are, to the byte.
    """
    x = jax.tree_util.tree_map_with_path(
        lambda path, leaf: _read(leaf, f"{data.name}: x{jax.tree_util.keystr(path)}"), data.x
    )
    y = _read(data.y, f"{data.name}: y")
    same = y is data.y and all(
        a is b for a, b in zip(jax.tree.leaves(x), jax.tree.leaves(data.x), strict=True)
    )
    return data if same else dataclasses.replace(data, x=x, y=y)


def _read(value: Any, where: str) -> Any:
    if is_device_array(value):
        return value
    array = host(value, where)
    if array.ndim == 0:
        raise DataError(
            f"{where} is a single number; the first axis of every array counts the examples. Lists"
            " are trees of their items"
        )
    if (
        isinstance(value, np.ndarray)
        and array.dtype == value.dtype
        and not isinstance(value, np.ma.MaskedArray)
    ):
        check_integers(array, where)
        return value
    return narrow(array, where)


def _numbers(path: str, value: Any) -> np.ndarray:
    """The array, in at most 32 bits, if it holds finite numbers or booleans."""
    where = f"from_arrays: {path}"
    array = narrow(host(value, where), where)
    if array.dtype.kind not in "biu":
        finite = np.isfinite(array)
        if not finite.all():
            first = [int(i) for i in np.argwhere(~finite)[0]]
            count = int(finite.size - np.count_nonzero(finite))
            raise DataError(
                f"{where} has {count} values that are NaN or infinite in {array.dtype}, the first"
                f" at {first}; remove those rows or fill them, for instance with numpy.nan_to_num"
            )
    return array


def _one_axis_hint(labels: np.ndarray) -> str:
    if labels.ndim == 2 and labels.shape[1] == 1:
        return "Pass y[:, 0]"
    if labels.ndim == 2:
        return "If its rows are one-hot, pass y.argmax(axis=1)"
    return "Pass one label or target for each example"


def _targets(labels: np.ndarray, num_classes: int | None) -> tuple[np.ndarray, int | None]:
    """Labels as int32 with their number of classes, or targets as float32 with None."""
    if labels.dtype.kind not in "biu":
        if num_classes is None:
            return labels.astype(np.float32), None
        raise DataError(
            f"from_arrays: y is {labels.dtype}, but num_classes={num_classes} asks for"
            " classification, whose labels are integers. Pass y.astype(numpy.int32), or"
            " num_classes=None for regression"
        )
    labels = labels.astype(np.int32)
    low = int(labels.argmin())
    if labels[low] < 0:
        raise DataError(
            f"from_arrays: y[{low}] is {labels[low]}, but labels start at 0. Drop unlabelled rows,"
            " or subtract the smallest label"
        )
    high = int(labels.argmax())
    top = int(labels[high])
    if num_classes is None:
        if top == 0:
            raise DataError(
                "from_arrays: every label in y is 0, so the number of classes cannot be told. Pass"
                " num_classes, at least 2"
            )
        return labels, top + 1
    if top >= num_classes:
        raise DataError(
            f"from_arrays: y[{high}] is {top}, but labels of num_classes={num_classes} are 0 to"
            f" {num_classes - 1}. Pass num_classes={top + 1} if there is such a class"
        )
    return labels, int(num_classes)
