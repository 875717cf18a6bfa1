"""Packing: of a kernel made of blocks, those that keep any weight and nothing else.

A kernel of R x C blocks of r x c weights, [R r, C c], becomes [S, K, r, c]: S strips of K blocks. A
strip is of one column of blocks, a column has as many strips as its blocks fill, and columns follow
one another. What fills up a column's last strip, and strips beyond the last column's, are zeros
that the mask prunes. Which blocks exist says a table in the network's model state, bool [R, C]: all
else follows from it and from the kernel's shape, so a table of any content is some network's.

The tables are a collection of their own, `COLLECTION`, under the names of the layers. NumPy's
arrays are packed as NumPy's, and JAX's under a trace too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxtickets.errors import MaskError
from jaxtickets.messages.pytrees import leaf_paths

PyTree = Any

COLLECTION, TABLE, KERNEL = "packed_blocks", "stored", "kernel"


class Strips(NamedTuple):
    """Where the blocks of strips come from.

    Args:
      rows: of every block of every strip, int [S, K]; some row where there is none.
      columns: of every strip, int [S], ascending.
      there: whether there is such a block, bool [S, K].
    """

    rows: Any
    columns: Any
    there: Any


def strips(stored: Any, count: int, length: int) -> Strips:
    """`count` strips of `length` blocks of a table, bool [R, C].

    >>> rows, columns, there = strips(np.array([[1, 0], [1, 0], [1, 1]], bool), 3, 2)
    >>> columns.tolist(), rows.tolist(), there.tolist()
    ([0, 0, 1], [[0, 1], [2, 2], [2, 2]], [[True, True], [True, False], [True, False]])
    """
    xp = _numpy_of(stored)
    height, width = stored.shape
    ranks, last, first = _ranks(stored, length)
    strip = xp.arange(count)
    column = xp.sum(last[None] <= strip[:, None], -1)
    some = xp.minimum(column, width - 1)
    nth = (strip - first[some])[:, None] * length + xp.arange(length)[None]
    row = xp.sum(ranks[:, some][:, :, None] <= nth[None], 0)
    there = (row < height) & (column < width)[:, None]
    return Strips(xp.minimum(row, height - 1), some, there)


def pack(kernel: Any, stored: Any, count: int, length: int) -> Any:
    """The blocks that a table names: [R r, C c] to [S, K, r, c], 0 (False) where there is none."""
    height, width = stored.shape
    blocks = kernel.reshape(height, kernel.shape[0] // height, width, -1).swapaxes(1, 2)
    rows, columns, there = strips(stored, count, length)
    chosen = blocks[rows, columns[:, None]]
    return _numpy_of(kernel).where(there[:, :, None, None], chosen, chosen.dtype.type(0))


def unpack(packed: Any, stored: Any) -> Any:
    """The inverse of `pack`: [S, K, r, c] to [R r, C c], 0 (False) where no block is stored.

    >>> table = np.array([[True, False], [True, True]])
    >>> unpack(pack(np.arange(16).reshape(4, 4), table, 2, 2), table).tolist()
    [[0, 1, 0, 0], [4, 5, 0, 0], [8, 9, 10, 11], [12, 13, 14, 15]]
    """
    xp = _numpy_of(packed)
    count, length, *block = packed.shape
    ranks, _, first = _ranks(stored, length)
    rank = xp.maximum(ranks - 1, 0)
    blocks = packed[xp.minimum(first[None] + rank // length, count - 1), rank % length]
    whole = xp.where(stored[:, :, None, None], blocks, blocks.dtype.type(0))
    return whole.swapaxes(1, 2).reshape(whole_shape((count, length, *block), stored.shape))


def whole_shape(packed: Sequence[int], stored: Sequence[int]) -> tuple[int, ...]:
    """The shape of the kernel that is packed so."""
    return stored[0] * packed[2], stored[1] * packed[3]


def fewest(counts: Sequence[np.ndarray]) -> tuple[int, int]:
    """How many strips of which length hold networks with so many blocks in their columns, int [C]
    each, at the least cost: every block counts, and every strip as one more.

    >>> fewest([np.array([4, 4, 4])]), fewest([np.array([9, 3, 2, 3])])
    ((3, 4), (6, 3))
    """
    most = max(1, *(int(count.max()) for count in counts))

    def needed(length: int) -> int:
        return max(1, *(int((-(-count // length)).sum()) for count in counts))

    best = min(range(1, most + 1), key=lambda length: needed(length) * (length + 1))
    return needed(best), best


def table_of(mask: Any, rows: int, columns: int) -> np.ndarray:
    """Which blocks a mask [R r, C c] keeps weights of, bool [R, C]."""
    blocks = np.asarray(mask).reshape(mask.shape[0] // rows, rows, -1, columns)
    return np.asarray(blocks.any((1, 3)))


class Packing(NamedTuple):
    """How one network is packed.

    Args:
      paths: of its leaves.
      tables: path of a kernel to which of its blocks exist, bool [R, C].
      shapes: path of a kernel to how many strips of how many blocks.
    """

    paths: Sequence[str]
    tables: dict[str, np.ndarray]
    shapes: dict[str, tuple[int, int]]

    def leaf(self, number: int, array: Any) -> Any:
        """What takes the place of an array like leaf `number` of the params."""
        path = self.paths[number]
        if path not in self.tables or not np.ndim(array):
            return array
        return pack(np.asarray(array), self.tables[path], *self.shapes[path])

    def tree(self, tree: PyTree) -> PyTree:
        """What takes the place of a tree like the params, or of a mask."""
        return map_leaves(self.leaf, tree)


def map_leaves(function: Callable[[int, Any], Any], tree: PyTree) -> PyTree:
    """The tree of what `function` makes of each leaf and its number."""
    leaves, structure = jax.tree.flatten(tree)
    return structure.unflatten([function(i, leaf) for i, leaf in enumerate(leaves)])


def tables_in(model_state: PyTree) -> dict[str, Any]:
    """Path of every packed kernel to its table; nothing where nothing is packed."""
    if not isinstance(model_state, Mapping) or COLLECTION not in model_state:
        return {}
    tables = model_state[COLLECTION]
    paths = (path.removesuffix(TABLE) + KERNEL for path in leaf_paths(tables))
    return dict(zip(paths, jax.tree.leaves(tables), strict=True))


def with_tables(model_state: PyTree, tables: Mapping[str, Any]) -> PyTree:
    """The model state with those tables and no others."""
    if not tables and not tables_in(model_state):
        return model_state
    state = {name: part for name, part in model_state.items() if name != COLLECTION}
    collection: dict[str, Any] = {}
    for path, table in tables.items():
        at = collection
        for name in path.split("/")[:-1]:
            at = at.setdefault(name, {})
        at[TABLE] = table
    return state | ({COLLECTION: collection} if tables else {})


def unpacked(tree: PyTree, tables: Mapping[str, Any]) -> PyTree:
    """A tree like the params, or a mask, with whole kernels in place of those packed by tables."""
    return _each_packed(unpack, tree, tables)


def unpacked_shapes(params: PyTree, model_state: PyTree) -> tuple[PyTree, PyTree]:
    """Shapes and dtypes of params and model state, with whole kernels and without tables."""

    def whole(kernel: Any, table: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(whole_shape(kernel.shape, table.shape), kernel.dtype)

    shapes = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), (params, model_state))
    params = _each_packed(whole, shapes[0], tables_in(shapes[1]))
    return params, with_tables(shapes[1], {})


def in_shapes(
    params: PyTree, model_state: PyTree, shapes: Sequence[Sequence[int]]
) -> tuple[PyTree, PyTree]:
    """Shapes and dtypes of a network whose leaves have those shapes, params before model state: it
    is packed where a kernel has four axes in place of two.

    Args:
      params: shapes and dtypes of the whole network.
      model_state: likewise.
      shapes: of the other one, leaf by leaf.
    """
    leaves, tree = jax.tree.flatten(params)
    own = zip(leaf_paths(params), leaves, shapes[: len(leaves)], strict=True)
    tables = {
        path: jax.ShapeDtypeStruct((), bool)
        for path, leaf, shape in own
        if (len(leaf.shape), len(shape)) == (2, 4)
    }
    state, state_tree = jax.tree.flatten(with_tables(model_state, tables))
    each = [
        jax.ShapeDtypeStruct(tuple(shape), leaf.dtype)
        for leaf, shape in zip((*leaves, *state), shapes, strict=True)
    ]
    return tree.unflatten(each[: len(leaves)]), state_tree.unflatten(each[len(leaves) :])


def counts(whole: PyTree, params: PyTree) -> dict[str, list[int]]:
    """What a ticket's `info` says: "packed", the weights of its packed layers before and after;
    nothing where there are none.
    """
    leaves = [jax.tree.leaves(tree) for tree in (whole, params)]
    pairs = [both for both in zip(*leaves, strict=True) if both[0].shape != both[1].shape]
    before, after = (sum(math.prod(pair[i].shape) for pair in pairs) for i in (0, 1))
    return {"packed": [before, after]} if pairs else {}


def check_packed(params: PyTree, mask: PyTree, model_state: PyTree) -> None:
    """Raise `MaskError` where a packed kernel does not hold what its table says, or its mask keeps
    what is no block.
    """
    leaves = dict(zip(leaf_paths(params), jax.tree.leaves(params), strict=True))
    kept = dict(zip(leaf_paths(params), jax.tree.leaves(mask), strict=True))
    for path, table in tables_in(model_state).items():
        shape = np.shape(leaves[path]) if path in leaves else ()
        table = np.asarray(table)
        if len(shape) != 4 or table.ndim != 2 or table.dtype != bool:
            raise MaskError(
                f"{path} is packed by a table {table.dtype}{list(table.shape)} and is of shape"
                f" {list(shape)}; a packed kernel is [strips, length, inputs, outputs], its table"
                " bool [rows, columns]."
            )
        needed = int((-(-table.sum(0) // shape[1])).sum())
        if needed > shape[0]:
            raise MaskError(
                f"{path} is packed into {shape[0]} strips of {shape[1]} blocks; its table of"
                f" {int(table.sum())} blocks needs {needed}."
            )
        mask_of = np.asarray(kept[path])
        if mask_of.shape != shape:
            raise MaskError(
                f"{path} is packed, and its mask is {list(mask_of.shape)}, not {list(shape)}."
            )
        if mask_of[~strips(table, *shape[:2]).there].any():
            raise MaskError(f"the mask of {path} keeps weights where its table has no block.")


def _each_packed(
    change: Callable[[Any, Any], Any], tree: PyTree, tables: Mapping[str, Any]
) -> PyTree:
    if not tables:
        return tree
    leaves, structure = jax.tree.flatten(tree)
    each = zip(leaf_paths(tree), leaves, strict=True)
    return structure.unflatten(
        [change(a, tables[path]) if path in tables and len(a.shape) else a for path, a in each]
    )


def _ranks(stored: Any, length: int) -> tuple[Any, Any, Any]:
    """Of every block how many there are in its column as far as it, [R, C]; of every column the
    strip behind its last and its first, [C].
    """
    ranks = stored.astype(np.int32).cumsum(0)
    own = -(-ranks[-1] // length)
    last = own.cumsum(0)
    return ranks, last, last - own


def _numpy_of(array: Any) -> Any:
    return np if isinstance(array, np.ndarray) else jnp
