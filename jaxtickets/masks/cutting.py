"""Cutting: dead units taken out of a network's arrays, which leaves a smaller dense network.

Arrays are numpy's here: which units are dead decides shapes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from jaxtickets.masks.units import Leaf, UnitTable

PyTree = Any


def masks_by_path(units: UnitTable, mask: PyTree) -> dict[str, np.ndarray]:
    """Path to mask, of all leaves of the params."""
    paths = (leaf.path for leaf in units.params)
    return dict(zip(paths, map(np.asarray, jax.tree.leaves(mask)), strict=True))


def lines_left(mask: np.ndarray, axis: int) -> np.ndarray:
    """Per index along `axis`: is any weight left?"""
    return np.asarray(mask.any(tuple(d for d in range(mask.ndim) if d != axis)))


def dead_units(units: UnitTable, mask: PyTree) -> np.ndarray:
    """Which units contribute nothing to the outputs: bool [U].

    Those whose every reading weight the mask prunes, and those that only dead units read.
    """
    left_of = masks_by_path(units, mask)
    reading = [
        (leaf, axis)
        for leaf in units.params
        for axis, ids in enumerate(leaf.units)
        if (leaf.read[axis] & (ids >= 0)).any()
    ]
    dead = np.zeros(len(units), bool)
    while True:
        alive = np.zeros(len(units) + 1, bool)
        for leaf, axis in reading:
            left = np.broadcast_to(left_of[leaf.path], leaf.shape)
            for d, ids in enumerate(leaf.units):  # what writes dead units needs nothing
                if not leaf.read[d].any():
                    left = left & ~(np.append(dead, False)[ids]).reshape(
                        [-1 if e == d else 1 for e in range(left.ndim)]
                    )
            alive[leaf.units[axis][lines_left(left, axis) & leaf.read[axis]]] = True
        if np.array_equal(dead, ~alive[:-1]):
            return dead
        dead = ~alive[:-1]


def staying_units(
    units: UnitTable, dead: Sequence[np.ndarray], multiple: int = 1
) -> list[np.ndarray]:
    """Which units each of some networks keeps, so that all come out in one shape: bool [U] each.

    Every group of units is as wide as the widest of the networks needs it, at least 1, rounded up
    to a multiple of channels where it has so many. (A unit of several, as the head of an attention
    is, counts as so many.) A network with fewer living ones keeps dead ones too, the first of them:
    they are masked, and change nothing.

    >>> table = UnitTable((("w",),), (6,), (), (), (), None)
    >>> alive = np.array([[0, 1, 0, 0, 0, 1], [0, 0, 0, 1, 0, 0]], bool)
    >>> [stays.astype(int).tolist() for stays in staying_units(table, ~alive)]
    [[0, 1, 0, 0, 0, 1], [1, 0, 0, 1, 0, 0]]
    >>> staying_units(table, ~alive, multiple=4)[0].astype(int).tolist()
    [1, 1, 1, 0, 0, 1]
    """
    stays = [~each for each in dead]
    first = 0
    for size in units.sizes:
        group = slice(first, first + size)
        needed = max(1, *(int(each[group].sum()) for each in stays))
        step = max(1, multiple // _channels_of(units, first))
        width = min(size, -(-needed // step) * step)
        for each in stays:
            fillers = np.flatnonzero(~each[group])[: width - int(each[group].sum())]
            each[group][fillers] = True
        first += size
    return stays


def _channels_of(units: UnitTable, unit: int) -> int:
    """How many outputs of one layer a unit is."""
    axes = (
        int((ids == unit).sum())
        for leaf in units.params
        for ids, read in zip(leaf.units, leaf.read, strict=True)
        if not read.any()
    )
    return max(1, *axes, 1)


def cut(leaves: Sequence[Leaf], tree: PyTree, stays: np.ndarray) -> PyTree:
    """The tree, one array for each of `leaves`, without the units that do not stay (bool [U]).

    A dense marker of a mask, which has no axes, stays as it is.
    """
    kept = np.append(stays, True)  # the last for what is no unit

    def cut_leaf(leaf: Leaf, array: np.ndarray) -> np.ndarray:
        for axis, ids in enumerate(leaf.units if np.ndim(array) else ()):
            if not kept[ids].all():
                array = np.compress(kept[ids], array, axis)
        return array

    arrays, structure = jax.tree.flatten(tree)
    return structure.unflatten([cut_leaf(*pair) for pair in zip(leaves, arrays, strict=True)])


def cut_shape(leaf: Leaf, stays: np.ndarray) -> tuple[int, ...]:
    """The shape that a leaf has without the units that do not stay."""
    kept = np.append(stays, True)
    return tuple(int(kept[ids].sum()) for ids in leaf.units)


def cut_shapes(leaves: Sequence[Leaf], tree: PyTree, stays: np.ndarray) -> PyTree:
    """`cut` for shapes and dtypes alone."""
    arrays, structure = jax.tree.flatten(tree)
    return structure.unflatten(
        [
            jax.ShapeDtypeStruct(cut_shape(leaf, stays), array.dtype)
            for leaf, array in zip(leaves, arrays, strict=True)
        ]
    )


def widths(units: UnitTable, stays: np.ndarray) -> tuple[int, ...]:
    """How many units stay, group by group."""
    ends = np.cumsum(units.sizes)
    return tuple(int(part.sum()) for part in np.split(stays, ends[:-1]))
