"""What a run is: its frozen context, its groups of networks in order, and where in it one is."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxtickets import members
from jaxtickets.dataset import Dataset
from jaxtickets.engine.feed import DeviceFeed, Feeds, HostFeed
from jaxtickets.engine.mask_rules import Removing
from jaxtickets.engine.network_units import UnitsOf
from jaxtickets.engine.probes import Probe
from jaxtickets.engine.programs import Programs
from jaxtickets.engine.state import Network, Weights
from jaxtickets.engine.steps import child_key
from jaxtickets.masks.channels import Channels
from jaxtickets.masks.structure import Structure
from jaxtickets.members import Layout
from jaxtickets.plan import SGD, Evolve, Optimizer, Plan
from jaxtickets.task import Task

PyTree = Any


class NetworkId(NamedTuple):
    """A network of a run: its lineage, and which child of it, if it is one."""

    lineage: int
    child: int | None = None

    def __str__(self) -> str:
        return str(self.lineage) if self.child is None else f"{self.lineage}.{self.child}"


@dataclasses.dataclass(frozen=True, eq=False)
class Group:
    """Networks that are trained together, through the phases before a plan's Fork or those from it
    on.

    Args:
      number: which group of lineages, from 0.
      branch: which group of their children, from 1; 0 for the lineages themselves.
      networks: who they are.
      all_lineage_keys: the keys of all lineages of the run.
      layout: of the group's size.
      phases: the indices of its part of the plan.
      first_lineage: the first lineage of its group of lineages.
      more_children: whether groups of children of the same lineages follow.
    """

    number: int
    branch: int
    networks: tuple[NetworkId, ...]
    all_lineage_keys: jax.Array
    layout: Layout
    phases: range
    first_lineage: int
    more_children: bool

    def __len__(self) -> int:
        return len(self.networks)

    # Made when the group begins: a run may have ten thousand of them.

    @functools.cached_property
    def lineage_keys(self) -> jax.Array:
        """For each network the key of its lineage, [W], where the group's members lie."""
        rows = np.asarray([network.lineage for network in self.networks])
        return self.place(self.all_lineage_keys[rows])

    @functools.cached_property
    def keys(self) -> jax.Array:
        """The networks' own keys, [W], where they lie."""
        if not self.branch:
            return self.lineage_keys
        rows = np.asarray([network.lineage for network in self.networks])
        children = jnp.asarray([network.child for network in self.networks], jnp.int32)
        return self.place(jax.vmap(child_key)(self.all_lineage_keys[rows], children))

    def place(self, tree: PyTree) -> PyTree:
        """The tree, of a leading member axis, where the group's members lie."""
        return members.place(tree, self.layout, "member")


@dataclasses.dataclass(frozen=True)
class Position:
    """A position in a run: `step` steps of phase `phase` are done in a group, and `collected`
    tickets of all groups.

    `networks` are trained in that group, `together` at most in any group, `across` all the ways in
    which the run has laid members out. `seconds` and `compile_seconds` are what it took until here.
    `shapes` are those of one network's params and model state, leaf by leaf, and `parent_shapes`
    those of a parent's; a Shrink or a Pack makes them others.
    """

    group: int = 0
    branch: int = 0
    phase: int = 0
    step: int = 0
    collected: int = 0
    networks: Sequence[Sequence[int | None]] = ()
    together: int = 0
    across: Sequence[str] = ()
    seconds: float = 0.0
    compile_seconds: float = 0.0
    shapes: Sequence[Sequence[int]] = ()
    parent_shapes: Sequence[Sequence[int]] = ()


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
    """The context of a run: what was given, checked, and what follows from it. Nothing in it
    changes.

    Args:
      plan: the method.
      task: the network and its loss.
      feeds: the training data, as every group reads them.
      held: the validation split.
      example: one batch of inputs as the network takes them, to draw weights by.
      given: a network trained elsewhere that every lineage starts from.
      begins: shapes of one network's weights when it starts.
      units_of: finds the units of a network of this run.
      x_spec: shape and dtype of one example.
      layout: how members lie on the hardware.
      groups: all groups, in the order in which they are trained.
      programs: compiled programs.
      probe: inputs that are predicted along the way.
      masks_before: the masks of the last tickets of all lineages before one.
    """

    plan: Plan
    task: Task
    feeds: Feeds
    held: Dataset | None
    example: PyTree
    given: Network | None
    begins: Weights
    units_of: UnitsOf
    x_spec: PyTree
    layout: Layout
    groups: tuple[Group, ...]
    programs: Programs
    probe: Probe | None
    masks_before: Callable[[int], list[PyTree]]

    def bound(self, part: PyTree, weights: Weights) -> PyTree:
        """A phase or an evolution, with the units of such a network where it needs them."""
        if isinstance(part, Evolve) and part.channels:
            return Removing(part, Channels(self.units_of(weights), self.units_of(self.begins)))
        structure = getattr(part, "structure", None)
        if not isinstance(structure, Structure) or not structure.needs_units:
            return part
        return dataclasses.replace(part, structure=structure.bound(self.units_of(weights)))

    @functools.cached_property
    def sizes(self) -> tuple[int, ...]:
        """How many weights each leaf of the params had when the network started."""
        return tuple(math.prod(leaf.shape) for leaf in jax.tree.leaves(self.begins.params))

    def steps_before(self, index: int) -> int:
        """Training steps of one network on the way to phase `index`."""
        return self.plan.steps_before(index, self.feeds.steps_per_epoch)

    def epochs_before(self, index: int) -> float:
        """Epochs of one network on the way to phase `index`."""
        return sum(phase.epochs(self.feeds.steps_per_epoch) for phase in self.plan.phases[:index])

    def name(self, group: Group, index: int) -> str:
        """Which networks are in which phase, for a line of progress."""
        everybody, first = self.plan.copies(group.phases.stop), group.networks[0]
        kind = ("member", "members") if first.child is None else ("child", "children")
        number = first.lineage * (everybody // self.plan.width) + (first.child or 0)
        last = number + len(group)
        them = f"{kind[0]} {last}" if len(group) == 1 else f"{kind[1]} {number + 1}-{last}"
        start = f"{them} of {everybody}, " if everybody > len(group) else ""
        return f"{start}phase {index + 1} of {len(self.plan.phases)}:"


def groups_of(plan: Plan, layout: Layout, keys: jax.Array) -> tuple[Group, ...]:
    """All groups of a run: some lineages, then their children if the plan forks, then the next
    lineages.

    Args:
      plan: the method.
      layout: how many train together.
      keys: the lineages' keys, [L].
    """
    groups: list[Group] = []
    fork, end = plan.fork, len(plan.phases)

    def add(number: int, branch: int, networks: list[NetworkId], first: int, more: bool) -> None:
        own = members.for_members(layout, len(networks))
        trunk = end if fork is None else fork
        phases = range(trunk, end) if branch else range(trunk)
        groups.append(Group(number, branch, tuple(networks), keys, own, phases, first, more))

    for number, lineages in enumerate(members.groups(plan.width, layout)):
        add(number, 0, [NetworkId(row) for row in lineages], lineages[0], False)
        if fork is None:
            continue
        each = plan.phases[fork].children
        children = [NetworkId(row, child) for row in lineages for child in range(each)]
        branches = members.groups(len(children), layout)
        for branch, which in enumerate(branches, 1):
            some = [children[i] for i in which]
            add(number, branch, some, lineages[0], branch < len(branches))
    return tuple(groups)


def optimizer_from(plan: Plan, index: int) -> Optimizer:
    """The optimizer of phase `index`, or of the next training after it, or of the last before."""
    phases = (*plan.phases[index:], *reversed(plan.phases[:index]))
    return next((one for phase in phases if (one := phase.trains_with) is not None), SGD())


def optimizer_before(plan: Plan, group: Group, index: int) -> Optimizer | None:
    """The optimizer of the group's last training before phase `index`; None if there is none."""
    phases = reversed(plan.phases[group.phases.start : index])
    return next((one for phase in phases if (one := phase.trains_with) is not None), None)


def optimizer_of_moments(plan: Plan, group: Group, index: int) -> Optimizer:
    """The optimizer that owns the moments at phase `index`: they change hands when another one
    trains.
    """
    return optimizer_before(plan, group, index) or optimizer_from(plan, index)


class RunOfLayout:
    """A run by its layout. Those of the same data share what lies on the device, and all share
    their programs.

    Args:
      run: makes a run of its layout, groups and feeds.
      feed: makes the feed for a layout, streamed or not.
      groups: makes the groups of a layout.
    """

    def __init__(
        self,
        run: Callable[..., Run],
        feed: Callable[..., DeviceFeed | HostFeed],
        groups: Callable[..., tuple[Group, ...]],
    ) -> None:
        self._run, self._feed, self._groups = run, feed, groups
        self._feeds: tuple[bool, Feeds] | None = None

    def __call__(self, layout: Layout, streamed: bool) -> Run:
        """The run with a layout, its data set streamed from the host or not."""
        groups = self._groups(layout=layout)
        if self._feeds is None or self._feeds[0] != streamed:
            self._feeds = None  # what it holds on the device is gone before the other comes
            feed = self._feed(layout=groups[0].layout, streamed=streamed)
            self._feeds = (streamed, Feeds(feed))
        return self._run(layout=layout, groups=groups, feeds=self._feeds[1])
