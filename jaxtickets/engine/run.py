"""What all groups of a run share, and where in a run one is."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax

from jaxtickets.dataset import Dataset
from jaxtickets.engine.checkpoints import Checkpoints
from jaxtickets.engine.feed import DeviceFeed, HostFeed
from jaxtickets.engine.programs import Programs
from jaxtickets.engine.progress import ProgressLine
from jaxtickets.engine.run_folder import RunFolder
from jaxtickets.members import Layout
from jaxtickets.plan import Plan
from jaxtickets.task import Task

PyTree = Any


@dataclasses.dataclass(frozen=True)
class Run:
    """What all groups of a run share."""

    plan: Plan
    task: Task
    feed: DeviceFeed | HostFeed
    held: Dataset | None
    example: PyTree
    x_spec: PyTree
    keys: jax.Array
    layout: Layout
    programs: Programs
    line: ProgressLine
    folder: RunFolder | None
    checkpoints: Checkpoints | None
    checkpoint_every: float


@dataclasses.dataclass(frozen=True)
class Place:
    """A place in a run: `step` steps of phase `phase` are done in group `group`, and `collected` tickets of all groups.

    `lineages` are trained together in that group. `seconds` and `compile_seconds` are what the run took until here.
    """

    group: int = 0
    phase: int = 0
    step: int = 0
    collected: int = 0
    lineages: int = 0
    seconds: float = 0.0
    compile_seconds: float = 0.0
