"""A layout: how many members train at a time, how they share a step, and on which devices."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, Literal, get_args

import jax
import numpy as np
from jax.sharding import Mesh

from jaxtickets.errors import PlanError
from jaxtickets.messages import checks

check = checks.Checks(PlanError)

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
