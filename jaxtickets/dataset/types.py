"""Data that lives on the device, and the protocol of data that does not.

A `Dataset` is arrays and two pure functions: `augment` (training only, needs a key) and `prepare`
(always). The engine gathers batches by index and runs both functions inside its compiled step.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Iterator
from typing import Any, Protocol, runtime_checkable

import jax
import numpy as np

from jaxtickets.dataset.buckets import check_buckets
from jaxtickets.errors import DataError
from jaxtickets.messages.checks import LONGEST, is_int, shown

PyTree = Any


def _identity(x: PyTree) -> PyTree:
    return x


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """Examples in memory.

    Args:
      x: an array, or a tree of arrays, with the example axis N first.
      y: integer labels [N], or float targets [N] for regression (`num_classes=None`).
      num_classes: C; None for regression.
      name: what a run folder and a table call it.
      augment: `(key, x [B, ...]) -> x`, training batches only; None for none. A hashable callable.
      prepare: `x [B, ...] -> float32`, every batch, after `augment`. A hashable callable.
      class_names: C names, or empty.
      buckets: token lengths that a batch may be cut to: the smallest that holds its longest
        example. Rising, the last is T; x is then a dictionary with "attention_mask" [N, T], and its
        leaves with two axes or more have T at axis 1. Empty for none. See
        `jaxtickets.dataset.buckets`.

    Raises:
      DataError: a `name` or `num_classes` that cannot be; `buckets` that do not fit x; y that is
        not one number for each example, [N].
    """

    x: PyTree
    y: np.ndarray
    num_classes: int | None
    name: str = "arrays"
    augment: Callable[[jax.Array, PyTree], PyTree] | None = None
    prepare: Callable[[PyTree], PyTree] = _identity
    class_names: tuple[str, ...] = ()
    buckets: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise DataError(f"Dataset: name is a text; got {shown(self.name)}.")
        if self.num_classes is not None and not (
            is_int(self.num_classes) and 1 <= self.num_classes <= LONGEST
        ):
            raise DataError(
                f"{self.name}: num_classes is an integer, at least 1, or None for a regression; got"
                f" {shown(self.num_classes)}."
            )
        if not hasattr(self.y, "shape"):
            object.__setattr__(self, "y", np.asarray(self.y))
        check_one_axis(self.y, self.name)
        if self.buckets != ():
            object.__setattr__(self, "buckets", check_buckets(self.x, self.buckets, self.name))

    def __len__(self) -> int:
        return len(self.y)

    def __repr__(self) -> str:
        shapes = jax.tree.map(lambda a: f"{a.dtype}{list(a.shape)}", self.x)
        return f"Dataset({self.name}: {len(self)} examples, x={shapes}, classes={self.num_classes})"

    def take(self, rows: np.ndarray | slice, name: str | None = None) -> Dataset:
        """Those rows, with the same functions."""
        return dataclasses.replace(
            self, x=jax.tree.map(lambda a: a[rows], self.x), y=self.y[rows], name=name or self.name
        )

    def fingerprint(self) -> str:
        """A digest of every byte of x and y: two data sets with the same one are the same data."""
        digest = hashlib.sha256()
        for leaf in [*jax.tree.leaves(self.x), self.y]:
            leaf = np.asarray(leaf)
            digest.update(f"{leaf.dtype}{leaf.shape}".encode())
            digest.update(np.ascontiguousarray(leaf).data)
        return digest.hexdigest()[:16]


def check_one_axis(y: Any, name: str) -> None:
    """Raise `DataError` unless y is one label or target for each example.

    >>> check_one_axis(np.zeros((5, 1), int), "mine")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    jaxtickets.errors.DataError: mine: y has the shape [5, 1], and one label ... Give y[:, 0].
    """
    shape = tuple(np.shape(y))
    if len(shape) == 1:
        return
    if len(shape) == 2 and 1 in shape:
        fix = "Give y[:, 0]." if shape[1] == 1 else "Give y[0]."
    elif len(shape) > 1:
        fix = (
            "Of one-hot rows give y.argmax(-1)."
            if len(shape) == 2
            else f"Give y.reshape({shape[0]}) if it is one number each."
        )
    else:
        fix = "Give one for each example."
    raise DataError(
        f"{name}: y has the shape {list(shape)}, and one label or target for each example is [N]."
        f" {fix}"
    )


@runtime_checkable
class Stream(Protocol):
    """Data that does not fit: batches come from the host, already augmented and prepared.

    `batches(seed, epoch, batch_size)` yields `(x, y)` of numpy arrays (or trees), equal for equal
    arguments: that is what makes a resumed run see what an undisturbed one saw.
    """

    @property
    def name(self) -> str:
        """What a run folder and a table call it."""
        ...

    @property
    def num_classes(self) -> int | None:
        """C; None for regression."""
        ...

    def __len__(self) -> int: ...

    def fingerprint(self) -> str:
        """A digest that changes when the data does."""
        ...

    def batches(
        self, seed: int, epoch: int, batch_size: int
    ) -> Iterator[tuple[PyTree, np.ndarray]]:
        """One epoch of full batches in the order that `seed` and `epoch` determine."""
        ...


@runtime_checkable
class SeekableStream(Stream, Protocol):
    """A stream that can begin in the middle of an epoch.

    A resumed run need not read what it has had.
    """

    def batches_from(
        self, seed: int, epoch: int, batch_size: int, first: int
    ) -> Iterator[tuple[PyTree, np.ndarray]]:
        """What `batches(seed, epoch, batch_size)` yields from batch `first` on."""
        ...


@runtime_checkable
class SplitStream(SeekableStream, Protocol):
    """A stream that can read some rows of its batches alone.

    Of several processes each reads the rows that its own devices train on. Of a stream without this
    each reads whole batches and drops the rest.
    """

    def rows_from(
        self, seed: int, epoch: int, batch_size: int, first: int, rows: slice
    ) -> Iterator[tuple[PyTree, np.ndarray]]:
        """Of what `batches_from(seed, epoch, batch_size, first)` yields, those rows."""
        ...


@runtime_checkable
class EvaluationStream(Protocol):
    """Labelled examples that do not fit, in a fixed order and prepared.

    An ensemble predicts them batch by batch.

    `classes` is None, or says which of the network's classes the labels 0 ... K - 1 are, int [K]:
    evaluation then restricts the predictions to those (see `jaxtickets.evaluation.restrict`).
    """

    @property
    def name(self) -> str:
        """What a table calls it."""
        ...

    @property
    def y(self) -> np.ndarray:
        """Labels [N]."""
        ...

    @property
    def classes(self) -> np.ndarray | None:
        """The network's classes that labels are about; None for all of them."""
        ...

    def __len__(self) -> int: ...

    def in_order(self, batch_size: int) -> Iterator[PyTree]:
        """All x, as the network takes them, in the order of `y`; the last batch may be short."""
        ...
