"""Batches: gathered on the device by index, or streamed from the host. One protocol for both.

A feed gives a batch for every position of an epoch, and what makes inputs and labels of it inside
the compiled step. It is made once per run; `Feeds.of` gives a group of members its own reading of
it.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any, Protocol, Self

import jax
import jax.numpy as jnp
import numpy as np

from jaxtickets import members
from jaxtickets.dataset import Dataset, SeekableStream, SplitStream, Stream
from jaxtickets.dataset.buckets import lengths, trim
from jaxtickets.engine.steps import BAG, ORDER
from jaxtickets.errors import DataError
from jaxtickets.masks.counting import exact_floor
from jaxtickets.members import Layout

PyTree = Any
Check = Callable[[PyTree, str], None]
Gather = Callable[[PyTree, jax.Array], tuple[PyTree, jax.Array]]


class Feed(Protocol):
    """What the training loop asks of data."""

    steps_per_epoch: int
    rows: int
    mapped: tuple[bool, ...]
    scans: bool  # whether several steps may be taken in one call

    def for_members(self, keys: jax.Array, layout: Layout, bag: float = 1.0) -> Feed:
        """The same data, in the orders of the members with those keys; each sees its own bag, a
        share of the examples.
        """
        ...

    def batch(self, epoch: int, position: int) -> tuple[PyTree, ...]:
        """The argument of the compiled step for that place."""
        ...

    def bucket_length(self, epoch: int, position: int, batches: int = 1) -> int | None:
        """To how many tokens so many batches from that place on may be cut; None where they are
        not.
        """
        ...

    def gather(self, length: int | None = None) -> Gather:
        """What makes a batch ready inside the compiled step, cut to that many tokens; hashable."""
        ...

    @staticmethod
    def advance(batch: tuple[PyTree, ...], by: jax.Array) -> tuple[PyTree, ...]:
        """Inside the compiled step: the batch `by` steps further in the same epoch."""
        ...


class Feeds:
    """The data of a run, as every group of networks reads them.

    Args:
      feed: the data.
    """

    def __init__(self, feed: DeviceFeed | HostFeed) -> None:
        self.feed = feed
        self.steps_per_epoch, self.dataset = feed.steps_per_epoch, feed.dataset
        self._last: tuple[Any, float, DeviceFeed | HostFeed] | None = None

    def of(self, keys: jax.Array, layout: Layout, bag: float = 1.0) -> DeviceFeed | HostFeed:
        """The reading of the networks of those keys. The last one is kept: a stream reads on."""
        if self._last is None or self._last[0] is not keys or self._last[1] != bag:
            self._last = (keys, bag, self.feed.for_members(keys, layout, bag))
        return self._last[2]


def hold_out(dataset: Dataset, examples: int) -> tuple[Dataset, Dataset | None]:
    """Training rows and `examples` validation rows: evenly spaced ones, the same for every member
    and seed.

    Raises:
      DataError: fewer than one row would be left to train on.
    """
    if not examples:
        return dataset, None
    if examples >= len(dataset):
        raise DataError(
            f"validation={examples} examples cannot be held out of {len(dataset)}; take fewer."
        )
    held = np.zeros(len(dataset), bool)
    held[np.arange(examples) * len(dataset) // examples] = True
    return dataset.take(~held), dataclasses.replace(dataset.take(held), augment=None)


class DeviceFeed:
    """A `Dataset` on the device; every member has its own order, a permutation per epoch from its
    key.
    """

    # data shared, order by member, position shared
    mapped: tuple[bool, ...] = (False, True, False)
    scans = True

    def __init__(self, dataset: Dataset, batch_size: int, layout: Layout) -> None:
        self.steps_per_epoch = len(dataset) // batch_size
        self.rows = len(dataset)
        self._layout = layout
        self._data = self._on_devices((dataset.x, dataset.y))
        self.dataset: Dataset | None = dataset
        self._dataset, self._batch_size = dataset, batch_size
        self._keys: jax.Array | None = None
        self._epoch = -1
        self._order: jax.Array | None = None
        self._gathers: dict[Any, Gather] = {}  # of all copies
        self._lengths = lengths(dataset) if dataset.buckets else None  # of all examples
        # example of every batch of the epoch, over all members
        self._longest = np.zeros(0, np.int32)

    def for_members(self, keys: jax.Array, layout: Layout, bag: float = 1.0) -> Self:
        """The same arrays on the device; only the order is another."""
        feed = copy.copy(self)
        feed._keys, feed._layout, feed._epoch, feed._order = keys, layout, -1, None
        feed._data = feed._on_devices(self._data)
        if bag < 1:
            feed.steps_per_epoch, feed.rows = (
                max(1, exact_floor(bag, self.steps_per_epoch)),
                exact_floor(bag, self.rows),
            )
        return feed

    def _on_devices(self, data: PyTree) -> PyTree:
        """All data, in the dtypes that it is stored in: images stay bytes."""
        return members.place(data, self._layout)

    def gather(self, length: int | None = None) -> Gather:
        """The rows of a batch, augmented, cut to `length` and prepared."""
        sharding = members.sharding(self._layout, "data")
        key = (length, sharding)
        if key not in self._gathers:  # one object for one way, as programs are known by it
            self._gathers[key] = functools.partial(
                _gather, self._dataset, self._batch_size, sharding, length
            )
        return self._gathers[key]

    def batch(self, epoch: int, position: int) -> tuple[PyTree, ...]:
        """All data, the members' orders, and the place."""
        self._draw(epoch)
        return self._data, self._order, np.int32(position)

    def _draw(self, epoch: int) -> None:
        """The members' orders of an epoch, unless they are there."""
        if epoch == self._epoch:
            return
        order = _draw_order(self._keys, epoch, len(self._dataset), self.rows)
        self._order, self._epoch = members.place(order, self._layout, "member"), epoch
        if self._lengths is not None:
            batches = members.fetch(order)[
                :, : self.rows // self._batch_size * self._batch_size
            ].reshape(len(order), -1, self._batch_size)
            self._longest = self._lengths[batches].max((0, 2))

    def bucket_length(self, epoch: int, position: int, batches: int = 1) -> int | None:
        """The smallest bucket that holds the longest example of those batches, of all members
        together.
        """
        if self._lengths is None:
            return None
        self._draw(epoch)
        longest = self._longest[position : position + batches].max()
        return next(bucket for bucket in self._dataset.buckets if bucket >= longest)

    @staticmethod
    def advance(batch: tuple[PyTree, ...], by: jax.Array) -> tuple[PyTree, ...]:
        """The same data, further on."""
        data, order, position = batch
        return data, order, position + by


def _gather(
    dataset: Dataset,
    batch_size: int,
    sharding: Any,
    length: int | None,
    batch: PyTree,
    key: jax.Array,
) -> tuple[PyTree, jax.Array]:
    """The rows of the batch at a position of an order, augmented, cut and prepared."""
    (x, y), rows, position = batch
    rows = jax.lax.dynamic_slice_in_dim(rows, position * batch_size, batch_size)
    if sharding is not None:
        rows = jax.lax.with_sharding_constraint(rows, sharding)
    x = jax.tree.map(lambda a: jnp.take(a, rows, axis=0, mode="clip"), x)
    if dataset.augment is not None:
        x = dataset.augment(key, x)
    x = x if length is None else trim(x, length)  # after the augmentation, whose draws are by shape
    return dataset.prepare(x), y[rows]


@functools.partial(jax.jit, static_argnums=(2, 3))
def _draw_order(keys: jax.Array, epoch: int, examples: int, rows: int) -> jax.Array:
    """The rows of every member's bag in the order of the epoch, int32 [W, rows]."""

    def one(key: jax.Array) -> jax.Array:
        order = jax.random.permutation(
            jax.random.fold_in(jax.random.fold_in(key, ORDER), epoch), rows
        )
        if rows < examples:
            order = jax.random.permutation(jax.random.fold_in(key, BAG), examples)[:rows][order]
        return order.astype(jnp.int32)

    return jax.vmap(one)(keys)


class HostFeed:
    """A `Stream`: every member reads its own, seeded by its key. The host reads ahead while the
    device works. Of several hosts each reads what its own devices train on.
    """

    mapped = (True, True)
    scans = False

    def __init__(self, stream: Stream, batch_size: int, layout: Layout, check: Check) -> None:
        self.steps_per_epoch = len(stream) // batch_size
        self.rows = len(stream)
        self.dataset: Dataset | None = None
        self._check = check
        self._stream, self._batch_size, self._layout = stream, batch_size, layout
        self._seeds: list[int] = []
        self._epoch, self._next = -1, 0
        self._own: dict[int, slice] = {}  # the rows to read, by member
        self._iterators: list[Iterator[tuple[PyTree, np.ndarray]]] = []

    def for_members(self, keys: jax.Array, layout: Layout, bag: float = 1.0) -> Self:
        """The same stream, read with the seeds that those keys give. It has no bags
        (`checks.check_data` says so).
        """
        feed = copy.copy(self)
        feed._layout = layout
        bits = jax.vmap(
            lambda key: jax.random.bits(jax.random.fold_in(key, ORDER), (), jnp.uint32)
        )(keys)
        feed._seeds = [int(seed) for seed in members.fetch(bits)]
        feed._own = members.own_rows(layout, len(feed._seeds), self._batch_size)
        feed._epoch, feed._next, feed._iterators = -1, 0, []
        return feed

    @staticmethod
    def gather(length: int | None = None) -> Gather:
        """Batches come ready."""
        return _as_it_comes

    @staticmethod
    def bucket_length(epoch: int, position: int, batches: int = 1) -> int | None:
        """They are as long as they come."""
        return None

    def batch(self, epoch: int, position: int) -> tuple[PyTree, ...]:
        """The members' next batches; goes to `position` first where it is not next (after a
        resume).
        """
        if epoch != self._epoch or position < self._next:
            self._epoch, self._next = (
                epoch,
                position if isinstance(self._stream, SeekableStream) else 0,
            )
            self._iterators = [self._open(*one) for one in self._own.items()]
        parts: dict[int, PyTree] = {}
        while self._next <= position:
            read = zip(self._own.items(), self._iterators, strict=True)
            parts = {one: self._read(iterator, rows) for (one, rows), iterator in read}
            self._next += 1
        shape = (len(self._seeds), self._batch_size)
        return members.place_rows(parts, self._own, *shape, self._layout)

    @staticmethod
    def advance(batch: tuple[PyTree, ...], by: jax.Array) -> tuple[PyTree, ...]:
        """Streams advance on the host, so they run one step per call."""
        raise NotImplementedError

    def _open(self, member: int, rows: slice) -> Iterator[tuple[PyTree, np.ndarray]]:
        stream, at = self._stream, (self._seeds[member], self._epoch, self._batch_size)
        if self._reads_alone(rows):
            assert isinstance(stream, SplitStream)
            return iter(stream.rows_from(*at, self._next, rows))
        if isinstance(stream, SeekableStream):
            return iter(stream.batches_from(*at, self._next))
        return iter(stream.batches(*at))

    def _reads_alone(self, rows: slice) -> bool:
        """Whether the stream is asked for those rows only."""
        return isinstance(self._stream, SplitStream) and rows != slice(0, self._batch_size)

    def _read(
        self, iterator: Iterator[tuple[PyTree, np.ndarray]], rows: slice
    ) -> tuple[PyTree, np.ndarray]:
        """The next batch, checked: those rows of it."""
        where = f"batch {self._next + 1} of epoch {self._epoch + 1} of {self._stream.name}"
        alone = self._reads_alone(rows)
        wanted = rows.stop - rows.start if alone else self._batch_size
        batch = next(iterator, None)
        if batch is None:
            raise DataError(
                f"{where} is missing: a stream of {len(self._stream)} examples yields"
                f" {self.steps_per_epoch} batches of {self._batch_size}."
            )
        x, y = batch
        lengths = {len(leaf) for leaf in jax.tree.leaves(batch)}
        if lengths != {wanted}:
            why = f"batch_size={wanted}; drop the last one if it is short."
            if alone:
                why = f"the {wanted} from row {rows.start} on that rows_from was asked for."
            raise DataError(f"{where} holds {sorted(lengths)} examples, not {why}")
        classes = self._stream.num_classes
        if classes is not None and (np.min(y) < 0 or np.max(y) >= classes):
            raise DataError(
                f"{where} has labels {np.min(y)} to {np.max(y)}; those of {classes} classes are 0"
                f" to {classes - 1}."
            )
        self._check(x, where)
        return (x, y) if alone else jax.tree.map(lambda a: a[rows], (x, y))


def _as_it_comes(batch: PyTree, key: jax.Array) -> tuple[PyTree, jax.Array]:
    return batch
