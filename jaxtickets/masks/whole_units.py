"""Whole units as a structure: a mask in which a channel or neuron lives with all its weights or not
at all.
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxtickets.errors import MaskError
from jaxtickets.masks.selection import order_bits, same_on_the_mesh
from jaxtickets.masks.structure import Structure
from jaxtickets.masks.units import Leaf, UnitTable

PyTree = Any
UNIT_GROWTHS = ("random", "gradient")  # which of the units that are not there come


@dataclasses.dataclass(frozen=True)
class Units(Structure):
    """Whole units: an output channel goes with all weights that write it and all that read it.

    In a plan it is `Units()`, and the units are those of the run's network. Where masks are made
    without a plan they are found first: `Units(jaxtickets.units.find_units(...))`.

    A unit's score is the mean over the weights that write it, zeros counted (Yin et al., 2023,
    arXiv:2305.19454: a channel's mean magnitude); of a random choice that of its first weight. With
    one count for all layers the units of the largest scores live, wherever they are. With a count
    for each layer every layer keeps such a share of its units as stands to those of the others as
    their densities do (the same share, if these are equal). As many live as the weights of all
    layers together allow, and at least one of every layer.

    >>> from jaxtickets.masks.units import find_units
    >>> def mlp(params, state, x, train, key):
    ...     return jnp.tanh(x @ params["w1"]) @ params["w2"], state
    >>> params = {"w1": jnp.array([[1.0, -5.0, 3.0]]), "w2": jnp.ones((3, 1))}
    >>> units = find_units(mlp, params, {}, jax.ShapeDtypeStruct((1,), jnp.float32))
    >>> kept = Units(units).keep(jax.tree.map(jnp.abs, params), 5)  # a unit has 2 of the 6 weights
    >>> kept["w1"].tolist(), kept["w2"].tolist()
    ([[False, True, True]], [[False], [True], [True]])

    Differs:
      The counts of single layers are not kept: a layer loses rows with the units of the layer
      before it, so that of equal densities the first one has more and the inner ones less.
    """

    table: UnitTable | None = None

    reads_axes: ClassVar[bool] = False
    can_grow: ClassVar[bool] = False
    needs_units: ClassVar[bool] = True

    def __repr__(self) -> str:
        return "Units()"

    @property
    def known(self) -> UnitTable:
        """The units.

        Raises:
          MaskError: they are not found yet.
        """
        if self.table is None:
            raise MaskError(
                "Units() knows no network here: in a plan it is told of it; elsewhere give"
                " Units(jaxtickets.units.find_units(task.apply, params, model_state, x_spec))."
            )
        return self.table

    def bound(self, units: UnitTable) -> Units:
        """The structure of one network, whose units these are."""
        return Units(units)

    def keep(self, scores: PyTree, count: PyTree, where: PyTree | None = None) -> PyTree:
        """The mask of the best units; see `Structure.keep`.

        Args:
          scores: of all leaves of the network that a mask covers, in tree order, in their own
            shapes; a stack's may have one leading axis of layers.
          count: see `Structure.keep`; those of single layers are added up.
          where: see `Structure.keep`.

        Raises:
          MaskError: units that are not found yet; other leaves than the network's.
        """
        leaves, tree = jax.tree.flatten(scores)
        table, covered = self._of(leaves)
        flags = [jnp.ones((), bool)] * len(leaves) if where is None else tree.flatten_up_to(where)
        shaped = [a.reshape(leaf.shape) for a, leaf in zip(leaves, covered, strict=True)]
        flags = [
            jnp.broadcast_to(ok, a.shape).reshape(leaf.shape)
            for ok, a, leaf in zip(flags, leaves, covered, strict=True)
        ]
        best_first = positions(~order_bits(unit_means(table, covered, shaped, flags)))
        together = jax.tree.structure(count) != tree or tree == jax.tree.structure(0)
        if together:
            turn, total = jnp.zeros_like(best_first), jnp.asarray(count, jnp.int32)
        else:
            counts = [jnp.sum(jnp.asarray(c, jnp.int32)) for c in jax.tree.leaves(count)]
            turn, total = _turns(table, covered, counts, best_first), sum(counts)
        # The first of every group lives whatever its score: without it the network is cut in two.
        turn = jnp.where(rank_in_group(table, best_first) == 0, -1, turn)
        position = positions(turn, best_first)
        joins = [joined(leaf, position) for leaf in covered]
        lives = _most_that_fit(table, joins, flags, total + same_on_the_mesh((shaped, flags)))
        kept = [(join < lives) & ok for join, ok in zip(joins, flags, strict=True)]
        return jax.tree.unflatten(
            tree, [mask.reshape(a.shape) for mask, a in zip(kept, leaves, strict=True)]
        )

    def _of(self, leaves: list[jax.Array]) -> tuple[UnitTable, list[Leaf]]:
        covered = [leaf for leaf in self.known.params if leaf.prunable]
        if [leaf.size for leaf in leaves] != [int(np.prod(leaf.shape)) for leaf in covered]:
            raise MaskError(
                f"the mask covers leaves of {[leaf.size for leaf in leaves]} weights, and"
                f" the units are of {', '.join(f'{c.path} {list(c.shape)}' for c in covered)}."
                " Find the units of this network, with the same rules of what is prunable."
            )
        return self.known, covered


def _writes(leaf: Leaf) -> list[tuple[int, np.ndarray]]:
    """The axes along which a leaf writes units, each with the unit of every index."""
    axes = []
    for axis, (ids, read) in enumerate(zip(leaf.units, leaf.read, strict=True)):
        if ((own := np.where(read, -1, ids)) >= 0).any():
            axes.append((axis, own))
    return axes


def unit_means(
    table: UnitTable, covered: list[Leaf], scores: list[jax.Array], flags: list[jax.Array]
) -> jax.Array:
    """[U]: a unit's mean over the weights that write it; of random bits those of the first."""
    bits = scores[0].dtype == jnp.uint32
    total = jnp.zeros(len(table) + 1, jnp.uint32 if bits else jnp.float32)  # the last for the rest
    number, alive = np.zeros(len(table) + 1), jnp.zeros(len(table) + 1, jnp.int32)
    for leaf, score, ok in zip(covered, scores, flags, strict=True):
        for axis, ids in _writes(leaf):
            score_lines = jnp.moveaxis(score, axis, 0).reshape(score.shape[axis], -1)
            ok_lines = jnp.moveaxis(ok, axis, 0).reshape(score.shape[axis], -1)
            alive = alive.at[ids].max(ok_lines.any(1).astype(jnp.int32))
            if bits:
                first = number[ids] == 0
                total = total.at[np.where(first, ids, -1)].set(score_lines[:, 0])
            else:
                kept = jnp.where(ok_lines, score_lines.astype(jnp.float32), 0.0)
                total = total.at[ids].add(kept.sum(1))
            np.add.at(number, ids, score_lines.shape[1])
    found = total if bits else total / np.maximum(number, 1).astype(np.float32)
    rest = jnp.zeros((), found.dtype) if bits else jnp.float32(jnp.nan)  # ranks last
    return jnp.where(alive > 0, found, rest)[:-1]


def positions(*by: jax.Array | np.ndarray) -> jax.Array:
    """Where each unit stands when they are put in order; of a tie the lower number first."""
    order = jnp.lexsort(by[::-1])
    place = jnp.arange(len(order), dtype=jnp.int32)
    return jnp.zeros(len(order), jnp.int32).at[order].set(place)


def _groups(table: UnitTable) -> np.ndarray:
    return np.repeat(np.arange(len(table.sizes)), table.sizes)


def rank_in_group(table: UnitTable, ranks: jax.Array) -> jax.Array:
    """0 for the best of its group; `ranks` of the whole network."""
    groups = _groups(table)
    starts = (np.cumsum(table.sizes) - table.sizes)[groups]
    return positions(groups, ranks) - starts.astype(np.int32)


def _turns(
    table: UnitTable, covered: list[Leaf], counts: list[jax.Array], ranks: jax.Array
) -> jax.Array:
    """[U], int32: when a unit's turn is, if all groups fill at once, as fast as they are dense."""
    groups = _groups(table)
    budget, size = jnp.zeros(len(table.sizes)), np.zeros(len(table.sizes))
    for leaf, count in zip(covered, counts, strict=True):
        for _, ids in _writes(leaf):
            for group in np.unique(groups[ids[ids >= 0]]):
                budget = budget.at[group].add(count.astype(jnp.float32))
                size[group] += np.prod(leaf.shape)
    # (a group whose only writers no mask covers fills as a whole one)
    density = jnp.where(size > 0, budget / np.maximum(size, 1), 1.0)
    share = (rank_in_group(table, ranks) + 1) / np.asarray(table.sizes)[groups]
    turn = share.astype(jnp.float32) / jnp.maximum(density, 1e-9)[groups]
    # In cells of 2^-15, shifted by half of one: what is a tie is one however it was rounded.
    return lax.bitcast_convert_type(turn * (1 + 2**-16), jnp.int32) >> 8


def joined(leaf: Leaf, position: jax.Array) -> jax.Array:
    """Like the leaf: the largest position of a unit that a weight writes or reads; -1 for none."""
    padded = jnp.append(position, -1)
    joins = jnp.full(leaf.shape, -1, jnp.int32)
    for axis, ids in enumerate(leaf.units):
        if (ids >= 0).any():
            along = [-1 if d == axis else 1 for d in range(len(leaf.shape))]
            joins = jnp.maximum(joins, padded[ids].reshape(along))
    return joins


def _most_that_fit(
    table: UnitTable, joins: list[jax.Array], flags: list[jax.Array], total: jax.Array
) -> jax.Array:
    """How many units, in order, have at most `total` weights; by bisection. At least the first of
    every group.
    """

    def weights(lives: jax.Array) -> jax.Array:
        kept = [
            jnp.sum((join < lives) & ok, dtype=jnp.int32)
            for join, ok in zip(joins, flags, strict=True)
        ]
        return sum(kept, jnp.int32(0))

    def halve(_: jax.Array, ends: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        low, high = ends  # `low` fits; what is above `high` does not
        middle = (low + high + 1) // 2
        fits = weights(middle) <= total
        return jnp.where(fits, middle, low), jnp.where(fits, high, middle - 1)

    ends = (total * 0 + len(table.sizes), total * 0 + len(table))
    return lax.fori_loop(0, len(table).bit_length(), halve, ends)[0]
