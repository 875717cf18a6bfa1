"""The feed that fits the data, and one for a data set that fits the host's memory only."""

from __future__ import annotations

import functools
from typing import Any

import jax
import numpy as np

from jaxtickets import members
from jaxtickets.dataset import Dataset, Stream
from jaxtickets.dataset.buckets import trim
from jaxtickets.engine.feed import Check, DeviceFeed, Gather, HostFeed
from jaxtickets.members import Layout

PyTree = Any


class HostRowsFeed(DeviceFeed):
    """A `Dataset` that does not fit on the device: the same orders, augmentation and buckets, but
    the rows of a batch are gathered by the host, which does it while the device works.
    """

    mapped = (True, True)
    scans = False

    def __init__(self, dataset: Dataset, batch_size: int, layout: Layout) -> None:
        super().__init__(dataset, batch_size, layout)
        self._rows = np.zeros((0, 0), np.int32)

    def _on_devices(self, data: PyTree) -> PyTree:
        return jax.tree.map(np.asarray, data)

    def gather(self, length: int | None = None) -> Gather:
        """The rows as they come, augmented, cut to `length` and prepared."""
        if length not in self._gathers:
            self._gathers[length] = functools.partial(_ready, self._dataset, length)
        return self._gathers[length]

    def batch(self, epoch: int, position: int) -> tuple[PyTree, ...]:
        """The members' next batches."""
        self._draw(epoch)
        first = position * self._batch_size
        rows = self._rows[:, first : first + self._batch_size]
        batch = jax.tree.map(lambda a: a[rows], self._data)
        return members.place(batch, self._layout, "member", "data")

    def _draw(self, epoch: int) -> None:
        """The members' orders of an epoch, on the host."""
        if epoch != self._epoch:
            super()._draw(epoch)
            self._rows = members.fetch(self._order)

    @staticmethod
    def advance(batch: tuple[PyTree, ...], by: jax.Array) -> tuple[PyTree, ...]:
        """The host advances, so there is one step per call."""
        raise NotImplementedError


def _ready(
    dataset: Dataset, length: int | None, batch: PyTree, key: jax.Array
) -> tuple[PyTree, jax.Array]:
    """As `DeviceFeed` does it, of rows that are there."""
    x, y = batch
    if dataset.augment is not None:
        x = dataset.augment(key, x)
    return dataset.prepare(x if length is None else trim(x, length)), y


def make_feed(
    data: Dataset | Stream,
    batch_size: int,
    layout: Layout,
    check: Check = lambda x, name: None,
    streamed: bool = False,
) -> DeviceFeed | HostFeed:
    """The feed that fits the data.

    Args:
      data: to be trained on.
      batch_size: examples of a step of a member.
      layout: where members lie at first.
      check: raises `DataError` for a stream's batch that the network cannot take.
      streamed: a data set stays on the host, which hands out its batches.
    """
    if not isinstance(data, Dataset):
        return HostFeed(data, batch_size, layout, check)
    return (HostRowsFeed if streamed else DeviceFeed)(data, batch_size, layout)
