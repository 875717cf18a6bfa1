"""Whole units that come and go: which of them, and which of a network's numbers are theirs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxtickets.masks.counting import exact_floor
from jaxtickets.masks.selection import order_bits
from jaxtickets.masks.units import Leaf, UnitTable


class Lines(NamedTuple):
    """The numbers of one leaf that belong to some units; bool like the leaf, 0-d where none do.

    Args:
      own: incoming weights, biases, batch statistics: whatever is theirs, or writes them.
      outgoing: the weights that read them, but for those that write another of them.
    """

    own: jax.Array
    outgoing: jax.Array

    @property
    def all(self) -> jax.Array:
        """Own and outgoing."""
        return self.own | self.outgoing


def lines_of(leaf: Leaf, chosen: jax.Array) -> Lines:
    """What of a leaf belongs to the units that are `chosen`, bool [U]."""
    padded = jnp.append(chosen, False)  # the last for what is no unit
    own = read = jnp.zeros((), bool)
    for axis, (ids, reads) in enumerate(zip(leaf.units, leaf.read, strict=True)):
        along = [-1 if d == axis else 1 for d in range(len(leaf.shape))]
        for some, reading in ((np.where(reads, -1, ids), False), (np.where(reads, ids, -1), True)):
            if (some >= 0).any():
                line = jnp.broadcast_to(padded[some].reshape(along), leaf.shape)
                own, read = (own, read | line) if reading else (own | line, read)
    return Lines(own, read & ~own)


def readers(leaf: Leaf) -> list[tuple[int, np.ndarray]]:
    """The axes along which a leaf reads units, each with the unit of every index, -1 for none."""
    axes = enumerate(zip(leaf.units, leaf.read, strict=True))
    found = [(axis, np.where(read, ids, -1)) for axis, (ids, read) in axes]
    return [(axis, ids) for axis, ids in found if (ids >= 0).any()]


def active_units(units: UnitTable, masks: Sequence[jax.Array]) -> jax.Array:
    """Which units are read by a weight that a mask keeps: bool [U].

    Args:
      units: of the network.
      masks: for every leaf of its params, in tree order.
    """
    found = jnp.zeros(len(units) + 1, jnp.int32)
    for leaf, mask in zip(units.params, masks, strict=True):
        for axis, ids in readers(leaf):
            lines = jnp.moveaxis(jnp.broadcast_to(mask, leaf.shape), axis, 0)
            found = found.at[ids].max(lines.reshape(len(ids), -1).any(1).astype(jnp.int32))
    return found[:-1] > 0


def outgoing_norms(units: UnitTable, sizes: Sequence[jax.Array]) -> jax.Array:
    """The sum of squares over the weights that read a unit, float32 [U].

    A unit of which one is negative, which says that it was no number, has -inf.
    """
    total = jnp.zeros(len(units) + 1, jnp.float32)
    for leaf, size in zip(units.params, sizes, strict=True):
        squares = jnp.where(size < 0, -jnp.inf, size * size)
        for axis, ids in readers(leaf):
            lines = jnp.moveaxis(squares, axis, 0).reshape(len(ids), -1)
            total = total.at[ids].add(lines.sum(1))
    return total[:-1]


def to_exchange(units: UnitTable, active: jax.Array, fraction: jax.Array | float) -> jax.Array:
    """How many units of every group go, and as many come: int32 [groups].

    floor(fraction * active), but no more than there are others to come, and never all.
    """
    count = _count(units, active)
    sizes = jnp.asarray(units.sizes, jnp.int32)
    wanted = exact_floor(jnp.asarray(fraction, jnp.float32), count)
    return jnp.maximum(jnp.minimum(wanted, jnp.minimum(sizes - count, count - 1)), 0)


def staying(units: UnitTable, active: jax.Array, scores: jax.Array, going: jax.Array) -> jax.Array:
    """Which of the active units stay if those of the smallest scores go: bool [U].

    Args:
      units: of the network.
      active: bool [U].
      scores: [U]; NaN goes first.
      going: how many of every group.
    """
    return units.largest(_ranked(scores, active), _count(units, active) - going)


def coming(units: UnitTable, active: jax.Array, scores: jax.Array, count: jax.Array) -> jax.Array:
    """Of the units that are not active those of the largest scores, so many of every group."""
    return units.largest(_ranked(scores, ~active), count)


def _count(units: UnitTable, chosen: jax.Array) -> jax.Array:
    """How many units of every group are chosen."""
    groups = np.repeat(np.arange(len(units.sizes)), units.sizes)
    return jnp.zeros(len(units.sizes), jnp.int32).at[groups].add(chosen.astype(jnp.int32))


def _ranked(scores: jax.Array, candidates: jax.Array) -> jax.Array:
    """uint32 in the order of the scores; what is no candidate comes last."""
    return jnp.where(candidates, jnp.maximum(order_bits(scores), 1), jnp.uint32(0))
