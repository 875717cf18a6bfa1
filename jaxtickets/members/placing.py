"""Arrays with a member axis on the devices, those of several hosts too, and back."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from jaxtickets.members.layout import Layout

PyTree = Any


def sharding(layout: Layout, *axes: str | None) -> NamedSharding | None:
    """The sharding of an array whose axes lie along those mesh axes; None without a mesh."""
    return None if layout.mesh is None else NamedSharding(layout.mesh, PartitionSpec(*axes))


def place(tree: PyTree, layout: Layout, *axes: str | None) -> PyTree:
    """`tree` on the devices, its leading axes along the mesh axes named.

    Where the mesh spans several processes, each holds the whole of what is not on the mesh yet, and
    gives its part.
    """
    target = sharding(layout, *axes)
    if target is None:
        return jax.tree.map(jnp.asarray, tree)
    if target.is_fully_addressable:
        return jax.device_put(tree, target)
    return jax.tree.map(lambda leaf: _place_globally(leaf, target), tree)


def _place_globally(leaf: Any, target: NamedSharding) -> jax.Array:
    if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
        return leaf if leaf.sharding == target else jax.jit(lambda a: a, out_shardings=target)(leaf)
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        data = np.asarray(jax.random.key_data(leaf))
        return jax.random.wrap_key_data(
            _place_globally(data, target), impl=jax.random.key_impl(leaf)
        )
    host = np.asarray(leaf)
    return jax.make_array_from_callback(host.shape, target, lambda index: host[index])


def own_rows(layout: Layout, members: int, rows: int) -> dict[int, slice]:
    """Of a batch [members, rows] of each member, what the devices of this process train on.

    Args:
      layout: how members lie.
      members: W of the group.
      rows: of each member's batch.

    Returns:
      Rows by member; without a mesh, all of them.
    """
    target = sharding(layout, "member", "data")
    if target is None:
        return {one: slice(0, rows) for one in range(members)}
    own: dict[int, slice] = {}
    for index in target.addressable_devices_indices_map((members, rows)).values():
        assert index is not None
        whose, which = index
        begin, end, _ = which.indices(rows)
        for one in range(members)[whose]:
            before = own.get(one, slice(begin, end))
            own[one] = slice(min(before.start, begin), max(before.stop, end))
    return dict(sorted(own.items()))


def place_rows(
    parts: dict[int, PyTree], own: dict[int, slice], members: int, rows: int, layout: Layout
) -> PyTree:
    """The members' batches on the devices, [members, rows, ...], each shard from its own rows.

    Args:
      parts: of every member in `own` those rows of its batch.
      own: as `own_rows` says.
      members: W of the group.
      rows: of each member's whole batch.
      layout: how members lie.
    """
    target = sharding(layout, "member", "data")
    if target is None:
        return jax.tree.map(lambda *leaves: jnp.asarray(np.stack(leaves)), *parts.values())

    def placed(*leaves: np.ndarray) -> jax.Array:
        dtype = jax.dtypes.canonicalize_dtype(leaves[0].dtype)
        by_member = dict(zip(parts, leaves, strict=True))

        def shard(index: Any) -> np.ndarray:
            begin, end, _ = index[1].indices(rows)
            some = [
                by_member[one][begin - own[one].start : end - own[one].start]
                for one in range(members)[index[0]]
            ]
            return np.stack(some).astype(dtype, copy=False)

        shape = (members, rows, *leaves[0].shape[1:])
        return jax.make_array_from_callback(shape, target, shard)

    return jax.tree.map(placed, *parts.values())


def own(tree: PyTree) -> PyTree:
    """Of a tree with a leading member axis those members that this host's devices hold, as numpy;
    no other host is asked.
    """

    def parts(leaf: Any) -> np.ndarray:
        if getattr(leaf, "is_fully_addressable", True):
            return np.asarray(leaf)
        shards = {shard.index[0].indices(len(leaf)): shard for shard in leaf.addressable_shards}
        return np.concatenate([np.asarray(shards[index].data) for index in sorted(shards)])

    return jax.tree.map(parts, tree)


def fetch(tree: PyTree) -> PyTree:
    """`tree` as numpy on every host, also where its devices belong to several."""
    if all(getattr(leaf, "is_fully_addressable", True) for leaf in jax.tree.leaves(tree)):
        return jax.device_get(tree)
    from jax.experimental import multihost_utils

    return multihost_utils.process_allgather(tree, tiled=True)
