"""Batches: gathered on the device by index, or streamed from the host. One protocol for both.

A feed gives `steps_per_epoch`, a `gather` that runs inside the compiled step, and a batch for every position.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from jaxtickets import members
from jaxtickets.dataset import Dataset, Stream
from jaxtickets.errors import DataError
from jaxtickets.engine.lineage import ORDER
from jaxtickets.members import Layout

PyTree = Any


class Feed(Protocol):
    """What the training loop asks of data."""

    steps_per_epoch: int
    gather: Callable[[PyTree, jax.Array], tuple[PyTree, jax.Array]]
    mapped: tuple[bool, ...]

    def batch(self, epoch: int, position: int) -> tuple[PyTree, ...]:
        """The argument of the compiled step for that place."""
        ...

    def advance(self, batch: tuple[PyTree, ...], by: jax.Array) -> tuple[PyTree, ...]:
        """Inside the compiled program: the batch `by` steps further in the same epoch."""
        ...


def hold_out(dataset: Dataset, examples: int) -> tuple[Dataset, Dataset | None]:
    """Training rows and `examples` validation rows: evenly spaced ones, the same for every member and seed.

    Raises:
      DataError: fewer than one row would be left to train on.
    """
    if not examples:
        return dataset, None
    if examples >= len(dataset):
        raise DataError(f"validation={examples} examples cannot be held out of {len(dataset)}.")
    held = np.zeros(len(dataset), bool)
    held[np.arange(examples) * len(dataset) // examples] = True
    return dataset.take(~held), dataclasses.replace(dataset.take(held), augment=None)


def check_batch(batch_size: int, examples: int, layout: Layout) -> None:
    """Raise `DataError` unless at least one full batch is there and divides over the mesh's data axis."""
    if batch_size > examples:
        raise DataError(f"batch_size={batch_size} is more than the {examples} training examples; take at most {examples}.")
    if layout.mesh is not None and batch_size % layout.mesh.shape["data"]:
        raise DataError(f"batch_size={batch_size} does not divide over {layout.mesh.shape['data']} data devices.")


class DeviceFeed:
    """A `Dataset` on the device; every member has its own order, a permutation per epoch from its key."""

    mapped = (False, True, False)  # data shared, order by member, position shared

    def __init__(self, dataset: Dataset, batch_size: int, keys: jax.Array, layout: Layout) -> None:
        check_batch(batch_size, len(dataset), layout)
        self.steps_per_epoch = len(dataset) // batch_size
        self._data = members.place((dataset.x, dataset.y), layout)
        self._keys = keys
        self._layout = layout
        self._epoch = -1
        self._order: jax.Array | None = None
        examples = len(dataset)
        batch_sharding = members.sharding(layout, "data")

        @jax.jit
        def order(keys: jax.Array, epoch: int) -> jax.Array:
            def one(key: jax.Array) -> jax.Array:
                key = jax.random.fold_in(jax.random.fold_in(key, ORDER), epoch)
                return jax.random.permutation(key, examples).astype(jnp.int32)

            return jax.vmap(one)(keys)

        def gather(batch: PyTree, key: jax.Array) -> tuple[PyTree, jax.Array]:
            (x, y), rows, position = batch
            rows = jax.lax.dynamic_slice_in_dim(rows, position * batch_size, batch_size)
            if batch_sharding is not None:
                rows = jax.lax.with_sharding_constraint(rows, batch_sharding)
            x = jax.tree.map(lambda a: jnp.take(a, rows, axis=0, mode="clip"), x)
            if dataset.augment is not None:
                x = dataset.augment(key, x)
            return dataset.prepare(x), y[rows]

        self._draw_order = order
        self.gather = gather

    def batch(self, epoch: int, position: int) -> tuple[PyTree, ...]:
        """All data, the members' orders, and the place."""
        if epoch != self._epoch:
            self._order = members.place(self._draw_order(self._keys, epoch), self._layout, "member")
            self._epoch = epoch
        return self._data, self._order, jnp.int32(position)

    def advance(self, batch: tuple[PyTree, ...], by: jax.Array) -> tuple[PyTree, ...]:
        """The same data, further on."""
        data, order, position = batch
        return data, order, position + by


class HostFeed:
    """A `Stream`: every member reads its own, seeded by its key; one batch ahead while the device works."""

    mapped = (True, True)

    def __init__(self, stream: Stream, batch_size: int, keys: jax.Array, layout: Layout) -> None:
        check_batch(batch_size, len(stream), layout)
        self.steps_per_epoch = len(stream) // batch_size
        self._stream, self._batch_size, self._layout = stream, batch_size, layout
        self._seeds = [int(jax.random.bits(jax.random.fold_in(key, ORDER), (), jnp.uint32)) for key in keys]
        self._epoch, self._next = -1, 0
        self._iterators: list[Iterator[tuple[PyTree, np.ndarray]]] = []

    @staticmethod
    def gather(batch: PyTree, key: jax.Array) -> tuple[PyTree, jax.Array]:
        """Batches come ready."""
        return batch

    def batch(self, epoch: int, position: int) -> tuple[PyTree, ...]:
        """The members' next batches; goes to `position` first where it is not next (after a resume)."""
        if epoch != self._epoch or position < self._next:
            self._iterators = [iter(self._stream.batches(seed, epoch, self._batch_size)) for seed in self._seeds]
            self._epoch, self._next = epoch, 0
        while self._next < position:
            for iterator in self._iterators:
                next(iterator)
            self._next += 1
        self._next += 1
        stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *[next(iterator) for iterator in self._iterators])
        return members.place(stacked, self._layout, "member", "data")

    def advance(self, batch: tuple[PyTree, ...], by: jax.Array) -> tuple[PyTree, ...]:
        """Streams advance on the host, so they run one step per call."""
        raise NotImplementedError


def make_feed(data: Dataset | Stream, batch_size: int, keys: jax.Array, layout: Layout) -> DeviceFeed | HostFeed:
    """The feed that fits the data."""
    kind = DeviceFeed if isinstance(data, Dataset) else HostFeed
    return kind(data, batch_size, keys, layout)  # type: ignore[arg-type]
