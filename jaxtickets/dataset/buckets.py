"""Padded sequences cut to length.

A batch of short texts need not be computed at the length of the longest text there is.

A data set says in `Dataset.buckets` to which token lengths a batch may be cut. What is here says
how long each example is, cuts, and checks; who forms batches chooses the bucket.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any, Protocol

import jax
import numpy as np

from jaxtickets.errors import DataError

PyTree = Any

MASK = "attention_mask"
"""The entry of x that says which tokens are there."""


class Texts(Protocol):
    """What `lengths` reads of a `jaxtickets.dataset.Dataset`."""

    @property
    def x(self) -> PyTree:
        """The inputs."""
        ...

    @property
    def name(self) -> str:
        """What errors call it."""
        ...


def lengths(dataset: Texts) -> np.ndarray:
    """How many tokens each example has: the place of the last one that is attended to, plus one.

    A batch may be cut to any length that is not below the longest of its examples' without a token
    being lost.

    Args:
      dataset: its x is a dictionary with "attention_mask", bool or 0 and 1, [N, T]. Padding is on
        the right.

    Returns:
      int32 [N] in 0 ... T; 0 where nothing is attended to.

    Raises:
      DataError: x has no such mask.

    >>> from jaxtickets.dataset import Dataset
    >>> mask = np.array([[True, True, False, False], [True, False, True, False]])
    >>> lengths(Dataset({"attention_mask": mask}, np.zeros(2, np.int32), 2)).tolist()
    [2, 3]
    """
    mask = np.asarray(_mask(dataset.x, dataset.name)) != 0
    last = mask.shape[1] - np.argmax(mask[:, ::-1], axis=1)
    return np.where(mask.any(1), last, 0).astype(np.int32)


def trim(x: PyTree, length: int) -> PyTree:
    """The first `length` tokens.

    Every leaf with two axes or more is cut along axis 1, the others are left alone.

    Works on arrays of the host and of the device, and under `jit`, where `length` is static.

    Args:
      x: an array or a tree of them, leaves [B], [B, T] or [B, T, ...].
      length: tokens to keep, at least 1.

    Returns:
      the tree, its leaves [B] or [B, min(T, length), ...].

    Raises:
      DataError: a `length` below 1.

    >>> x = trim({"input_ids": np.zeros((2, 8)), "weight": np.ones(2)}, 3)
    >>> {name: leaf.shape for name, leaf in x.items()}
    {'input_ids': (2, 3), 'weight': (2,)}
    """
    if length < 1:
        raise DataError(f"trim: length is a number of tokens, at least 1; got {length!r}")
    return jax.tree.map(lambda leaf: leaf[:, :length] if np.ndim(leaf) >= 2 else leaf, x)


def check_buckets(x: PyTree, buckets: Any, name: str = "arrays") -> tuple[int, ...]:
    """The lengths as a tuple, if batches of these examples can be cut to them.

    Args:
      x: the examples, with the example axis first.
      buckets: token lengths, rising, the last of them T; empty for no cutting.
      name: what a message calls the data set.

    Returns:
      `buckets`.

    Raises:
      DataError: not rising integers from 1 on; another last one than T; x without an
        "attention_mask" [N, T]; a leaf of two axes or more whose axis 1 is not T.

    >>> check_buckets({"attention_mask": np.ones((5, 8), bool)}, (4, 8))
    (4, 8)
    >>> check_buckets({"attention_mask": np.ones((5, 8), bool)}, (4, 6))  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    jaxtickets.errors.DataError: arrays: buckets end with T, the 8 tokens of ...; got (4, 6)
    """
    if not isinstance(buckets, tuple | list) or not all(
        isinstance(n, int | np.integer) and not isinstance(n, bool) for n in buckets
    ):
        raise DataError(
            f"{name}: buckets are token lengths, integers such as (32, 64, 128); got {buckets!r}"
        )
    sizes = tuple(int(size) for size in buckets)
    if not sizes:
        return sizes
    if sizes[0] < 1 or any(a >= b for a, b in itertools.pairwise(sizes)):
        raise DataError(
            f"{name}: buckets rise from 1 or more, each once; got {sizes}. Write"
            f" {tuple(sorted({n for n in sizes if n > 0}))}"
        )
    tokens = _mask(x, name).shape[1]
    if sizes[-1] != tokens:
        raise DataError(
            f"{name}: buckets end with T, the {tokens} tokens of x[{MASK!r}]; got {sizes}"
        )
    for path, leaf in jax.tree_util.tree_leaves_with_path(x):
        if np.ndim(leaf) >= 2 and np.shape(leaf)[1] != tokens:
            raise DataError(
                f"{name}: with buckets every leaf of two axes or more has T = {tokens} at axis 1; "
                f"x{jax.tree_util.keystr(path)} is {list(np.shape(leaf))}. Pass buckets=()"
            )
    return sizes


def _mask(x: PyTree, name: str) -> Any:
    if not isinstance(x, Mapping) or MASK not in x:
        got = (
            f"a dictionary of {', '.join(map(str, x))}"
            if isinstance(x, Mapping)
            else type(x).__name__
        )
        raise DataError(f"{name}: token lengths are read from x[{MASK!r}], bool [N, T]; x is {got}")
    if np.ndim(x[MASK]) != 2:
        raise DataError(f"{name}: x[{MASK!r}] is {list(np.shape(x[MASK]))}, [N, T] expected")
    return x[MASK]
