"""What all groups of a run share, and where in a run one is."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax

from jaxtickets.dataset import Dataset
from jaxtickets.engine.checkpoints import Checkpoints
from jaxtickets.engine.feed import DeviceFeed, HostFeed
from jaxtickets.engine.lineage import Network
from jaxtickets.engine.probes import Probe
from jaxtickets.engine.programs import Programs
from jaxtickets.engine.progress import ProgressLine
from jaxtickets.engine.run_folder import RunFolder
from jaxtickets.members import Layout
from jaxtickets.plan import Plan
from jaxtickets.task import Task
from jaxtickets.units import Units

PyTree = Any


@dataclasses.dataclass(frozen=True)
class Run:
    """What all groups of a run share."""

    plan: Plan
    task: Task
    feed: DeviceFeed | HostFeed
    held: Dataset | None
    example: PyTree
    given: Network | None
    units: Units | None
    x_spec: PyTree
    layout: Layout
    programs: Programs
    line: ProgressLine
    folder: RunFolder | None
    checkpoints: Checkpoints | None
    checkpoint_every: float
    probe: Probe | None = None

    @property
    def keeps_tickets_in_files(self) -> bool:
        """Whether collected tickets are left on disk: a run folder may hold more of them than memory does."""
        return self.folder is not None and jax.process_count() == 1


class Who(NamedTuple):
    """A network of a run: its lineage, and which child of it, if it is one."""

    lineage: int
    child: int | None = None

    def __str__(self) -> str:
        return str(self.lineage) if self.child is None else f"{self.lineage}.{self.child}"


@dataclasses.dataclass(frozen=True)
class Place:
    """A place in a run: `step` steps of phase `phase` are done in group `group`, and `collected` tickets of all groups.

    `branch` counts the groups of children after a Fork from 1; 0 is before it. `who` is trained in that group, `together` at most in
    any group. `seconds` and `compile_seconds` are what the run took until here.
    """

    group: int = 0
    branch: int = 0
    phase: int = 0
    step: int = 0
    collected: int = 0
    who: Sequence[Sequence[int | None]] = ()
    together: int = 0
    seconds: float = 0.0
    compile_seconds: float = 0.0
