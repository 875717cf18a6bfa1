"""How W members lie on the hardware: one after another, unrolled into one program, vmapped, mapped
one after another inside one program, or sharded over a mesh.

Member i computes the same thing in every layout, from its own key: the same draws, the same data in
the same order. To the bit it is the same within a layout: where `across` and the size of its group
are, it does not matter which the others are. A group of another size is another program, which the
compiler may fuse otherwise; vmapped, a batched product adds up in another order as well. So results
of different layouts agree but for rounding at first; after a while a weight near a threshold falls
on its other side, a mask differs, and the networks are different draws of the same experiment.

What differs besides is speed, and it differs by backend and network: vmapped, a convolution becomes
a grouped one, which is several times slower per member on a CPU and on a GPU alike, while many
small matrix products become one large one; mapped, every member has plain convolutions and the
memory of one member's activations, but XLA's CPU backend is slow inside its loops. On a CPU members
run one after another.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxtickets.errors import PlanError
from jaxtickets.messages import checks

check = checks.Checks(PlanError)

PyTree = Any
Across = Literal["unroll", "vmap", "map"]
ACROSS: tuple[Across, ...] = get_args(Across)


@dataclasses.dataclass(frozen=True)
class Layout:
    """Where members go.

    Args:
      group: how many members train at a time; the groups follow one another through the whole plan.
      across: how a group's members share a step: "unroll" (copies of the step in one program),
        "vmap" (one batched step) or "map" (one after another in a loop of one program, in the
        memory of one member's activations). A result is the same to the bit where `across` and
        `group` are; between layouts it differs by rounding, and in time by more.
      steps_per_call: training steps scanned per call of the compiled program. 1 on a CPU, where a
        convolution inside a scan is many times slower; more on an accelerator, where it saves
        launches.
      mesh: devices as axes "member" and "data"; None for one device. With a mesh the members are
        vmapped, or mapped: those of one row of devices one after another, the rows side by side.
    """

    group: int
    across: Across = "vmap"
    steps_per_call: int = 1
    mesh: Mesh | None = None

    def __post_init__(self) -> None:
        checks.plain_fields(self)
        counts = (self.group, self.steps_per_call)
        if not all(checks.is_int(count) and 1 <= count <= checks.LONGEST for count in counts):
            kind = (
                "at least 1"
                if all(map(checks.is_int, counts)) and min(counts) < 1
                else f"whole numbers, 1 to {checks.LONGEST:,}"
            )
            given = " and ".join(map(checks.shown, counts))
            raise PlanError(f"Layout: group and steps_per_call are {kind}; got {given}.")
        if not isinstance(self.across, str) or self.across not in ACROSS:
            raise PlanError(
                f"Layout: across is 'unroll', 'vmap' or 'map'; got {checks.shown(self.across)}."
            )
        if self.mesh is not None:
            if not isinstance(self.mesh, Mesh):
                raise PlanError(
                    "Layout: mesh is a jax.sharding.Mesh of axes 'member' and 'data', or None; got"
                    f" {checks.shown(self.mesh)}."
                )
            if tuple(self.mesh.axis_names) != ("member", "data"):
                raise PlanError(
                    "Layout: the mesh has the axes 'member' and 'data', in this order; got"
                    f" {self.mesh.axis_names}."
                )
            if self.across == "unroll":
                raise PlanError(
                    "Layout: members over a mesh are vmapped or mapped; use across='vmap' or 'map'."
                )
            if self.group % self.mesh.shape["member"]:
                raise PlanError(
                    f"Layout: a group of {self.group} members does not divide over"
                    f" {self.mesh.shape['member']} member devices."
                )


def default_layout(
    members: int,
    backend: str | None = None,
    devices: Sequence[Any] | None = None,
    lineages: int = 1,
    across: Across = "vmap",
) -> Layout:
    """A layout for a backend, before anything is known of the network.

    CPU: one member at a time, one step per call. Accelerators: as many members together as
    `group_sizes` allows, several steps per call; several devices form a mesh with as many member
    rows as divide both. CPUs of several hosts form one as well, of one step per call. `fit` goes on
    from there (see `AutoLayout`).

    Args:
      members: how many networks there are: lineages, or all their children.
      backend: JAX's if None.
      devices: JAX's if None.
      lineages: how many of them there were before a Fork.
      across: how they share a step on an accelerator.

    >>> default_layout(3, "cpu").group
    1
    """
    if one_cpu(backend):
        return Layout(group=1, across="unroll")
    return on_all_devices(group_sizes(members, lineages)[0], across, backend, devices)


def group_sizes(members: int, lineages: int = 1) -> list[int]:
    """How many members may train together on an accelerator, the most first.

    More than eight at a time gain nothing and need memory. A group divides the members, as it must
    over a mesh, and their parents too, unless it holds them all.

    >>> group_sizes(12), group_sizes(20, lineages=4)
    ([6, 4, 3, 2, 1], [5, 4, 2, 1])
    """
    return [
        size
        for size in range(min(members, 8), 0, -1)
        if members % size == 0 and (lineages <= size or lineages % size == 0)
    ]


def one_cpu(backend: str | None = None) -> bool:
    """Whether networks train on the CPU of one machine."""
    return (backend or jax.default_backend()) == "cpu" and jax.process_count() == 1


def on_all_devices(
    group: int,
    across: Across,
    backend: str | None = None,
    devices: Sequence[Any] | None = None,
) -> Layout:
    """The layout of groups of that many on everything that a backend has: a mesh of several
    devices, and on accelerators several steps per call.
    """
    backend = backend or jax.default_backend()
    if one_cpu(backend):
        return Layout(group, across)
    devices = jax.devices() if devices is None else devices
    mesh = member_mesh(group, devices) if len(devices) > 1 else None
    return Layout(group, across, steps_per_call=1 if backend == "cpu" else 16, mesh=mesh)


def for_members(layout: Layout, members: int) -> Layout:
    """The layout for a group of that many members, who may be fewer than its own group: a mesh's
    member axis fits them.
    """
    mesh = layout.mesh
    if mesh is not None and members % mesh.shape["member"]:
        mesh = member_mesh(members, mesh.devices.flatten().tolist())
    return dataclasses.replace(layout, group=members, mesh=mesh)


def member_mesh(members: int, devices: Sequence[Any]) -> Mesh:
    """A mesh of axes "member" and "data" over all `devices`, the member axis as long as divides
    both.
    """
    rows = math.gcd(members, len(devices))
    return Mesh(np.asarray(devices).reshape(rows, -1), ("member", "data"))


def groups(members: int, layout: Layout) -> list[range]:
    """Members by group; the last group takes what is left.

    >>> groups(5, Layout(group=2))
    [range(0, 2), range(2, 4), range(4, 5)]
    """
    return [
        range(first, min(first + layout.group, members))
        for first in range(0, members, layout.group)
    ]


def member_keys(key: int | jax.Array, members: int) -> jax.Array:
    """One key per member, [W]. Member i's is `fold_in(key, i)`, so it does not depend on how many
    others there are.

    Args:
      key: an int or one key, or an array of W keys to take as they are (a lone run of member i:
        `keys[i:i+1]`).
      members: W.

    Raises:
      PlanError: no key, an int outside [0, 2^32), fewer than one member.
      ValueError: an array of keys of another length.

    >>> member_keys(0, 3).shape
    (3,)
    """
    check.positive_int("members", members)
    keys = _keys(key, members)
    if keys.ndim == 0:
        return jax.vmap(jax.random.fold_in, (None, 0))(keys, jnp.arange(members))
    if keys.shape != (members,):
        raise ValueError(
            f"key is an int, one key, or one key for each of the {members} members; got keys of"
            f" shape {keys.shape}."
        )
    return keys


def _keys(key: Any, members: int) -> jax.Array:
    """A seed, a key or keys as typed keys."""
    dtype = getattr(key, "dtype", None)
    if checks.is_int(key) or (
        dtype is not None and np.ndim(key) == 0 and jnp.issubdtype(dtype, jnp.integer)
    ):
        if not 0 <= int(key) < 2**32:
            raise PlanError(
                "key as an int is in [0, 2^32), so that no two give the same draws; got"
                f" {checks.shown(int(key))}."
            )
        # threefry, whatever the default is: rbg keys under vmap draw from the first member's key
        # only.
        return jax.random.key(int(key), impl="threefry2x32")
    if dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key):
        return key
    if dtype != np.uint32 or key.shape[-1:] != (2,):
        given = checks.shown(key) if dtype is None else f"an array {dtype}{list(key.shape)}"
        raise PlanError(
            f"key is an int, a JAX key (jax.random.key(0)), or one key for each of the {members}"
            f" members; got {given}."
        )
    return jax.random.wrap_key_data(key)


def over_members(
    step: Callable[..., PyTree],
    mapped: Sequence[bool],
    across: Across,
    mesh: Mesh | None = None,
) -> Callable[..., PyTree]:
    """`step`, written for one member, for arguments and results with a leading member axis.

    Args:
      step: a pure function of one member.
      mapped: for every argument, whether it has a member axis; the others are shared.
      across: "unroll", "vmap" or "map".
      mesh: over whose axis "member" the members lie; None for one device.
    """
    if across == "vmap":
        stepped = jax.vmap(step, in_axes=tuple(0 if m else None for m in mapped))
    else:
        stepped = (_unrolled if across == "unroll" else _in_a_loop)(step, mapped)
    if mesh is None:
        return stepped
    # Every row of devices takes its own members and knows of no others. Left to itself XLA
    # computes a grouped convolution, which is one over all members, on every device in full. The
    # data axis stays its own affair. Unchecked, because a network's scan may begin with zeros.
    member = PartitionSpec("member")
    return jax.shard_map(
        stepped,
        mesh=mesh,
        in_specs=tuple(member if m else PartitionSpec() for m in mapped),
        out_specs=member,
        axis_names={"member"},
        check_vma=False,
    )


def _unrolled(step: Callable[..., PyTree], mapped: Sequence[bool]) -> Callable[..., PyTree]:
    """A copy of the step for every member, in one program."""

    def unrolled(*args: PyTree) -> PyTree:
        count = next(
            jax.tree.leaves(arg)[0].shape[0] for arg, m in zip(args, mapped, strict=True) if m
        )
        outs = [
            step(*(member(arg, i) if m else arg for arg, m in zip(args, mapped, strict=True)))
            for i in range(count)
        ]
        return stack(outs) if count > 1 else jax.tree.map(lambda a: a[None], outs[0])

    return unrolled


def _in_a_loop(step: Callable[..., PyTree], mapped: Sequence[bool]) -> Callable[..., PyTree]:
    """One member after another in a loop of the program.

    A member's branches stay branches: their predicates have no member axis.
    """

    def looped(*args: PyTree) -> PyTree:
        def one(own: list[PyTree]) -> PyTree:
            rest = iter(own)
            return step(*(next(rest) if m else arg for arg, m in zip(args, mapped, strict=True)))

        return jax.lax.map(one, [arg for arg, m in zip(args, mapped, strict=True) if m])

    return looped


def member(tree: PyTree, index: int) -> PyTree:
    """Member `index` of a tree whose leaves have a leading member axis."""
    return jax.tree.map(lambda a: a[index], tree)


def stack(trees: Sequence[PyTree]) -> PyTree:
    """Trees of single members as one tree with a leading member axis."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


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
