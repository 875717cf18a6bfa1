"""A method is a plan: a short list of phases. Data, not code; nothing here computes with JAX.

A `Plan` prints readably, compares equal, goes to JSON and back, and is checked when it is made: an
impossible one is an error that names the phase and the fix before anything is compiled.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
import operator
from typing import Any, Self

from jaxtickets.errors import PlanError
from jaxtickets.masks.structure import Structure
from jaxtickets.messages import checks
from jaxtickets.plan.evolving import Evolve
from jaxtickets.plan.lengths import Length
from jaxtickets.plan.packing import Pack
from jaxtickets.plan.parts import Part, check_kind, describe, from_json, to_json
from jaxtickets.plan.phase import Before, Phase
from jaxtickets.plan.phases import Collect, Escape, Fork, Prune, Remember, Rewind, Shrink, Start
from jaxtickets.plan.training import Train
from jaxtickets.task import Task

OURS = (Start, Train, Escape, Collect, Prune, Shrink, Pack, Remember, Rewind, Fork)

MANY_STEPS = 1_000_000
"""Of an epoch: so many that whatever trains at all takes one."""

check = checks.Checks(PlanError)


@dataclasses.dataclass(frozen=True)
class Plan(Part):
    """A method: what happens to a network from its first weights to the collected tickets.

    Args:
      name: what tables call it.
      phases: in order; the first is a Start.
      batch_size: examples per step and member.
      reference: length of the one dense run that costs are compared with; None for the length of
        this plan.
      validation: how many training examples are held out (evenly spaced rows); never augmented,
        never trained on.

    Raises:
      PlanError: naming the phase and the fix.

    >>> plan = Plan("dense", (Start(), Train(Length(2)), Collect()), batch_size=32)
    >>> print(plan)
    dense: 1 ticket, 2 epochs, batch 32
      1. Start(width=1, sparsity=0)
      2. Train(2 epochs, lr=0.1)
      3. Collect()
    >>> Plan.from_json(plan.to_json()) == plan
    True
    """

    name: str
    phases: tuple[Phase, ...]
    batch_size: int = 128
    reference: Length | None = None
    validation: int = 0

    def __post_init__(self) -> None:
        checks.plain_fields(self)
        check.text("name", self.name)
        check.positive_int("batch_size", self.batch_size)
        if not (checks.is_int(self.validation) and self.validation >= 0):
            raise PlanError(
                "validation is a number of examples, 0 for none; got"
                f" {checks.shown(self.validation)}."
            )
        if self.reference is not None and not isinstance(self.reference, Length):
            raise PlanError(f"reference is a Length or None; got {checks.shown(self.reference)}.")
        if not isinstance(self.phases, tuple | list):
            raise PlanError(
                "phases is a tuple of Start(...), Train(...), Collect() and so on; got"
                f" {checks.shown(self.phases)}."
            )
        if len(self.phases) > 4 * checks.MOST:
            raise PlanError(
                f"phases are at most {4 * checks.MOST:,} of a plan; got {len(self.phases):,}."
            )
        object.__setattr__(self, "phases", tuple(self.phases))
        for number, phase in enumerate(self.phases, 1):
            if not isinstance(phase, Phase):
                kinds = ", ".join(f"{kind.__name__}(...)" for kind in OURS)
                raise PlanError(f"phase {number} is one of {kinds}; got {checks.shown(phase)}.")
        for kind in dict.fromkeys(map(type, self.phases)):
            check_kind(kind)
        for structure in self.structures:
            if structure != structure.bound(None):
                raise PlanError(
                    f"a plan has {structure} without units: they are those of the run's network."
                )
        if not self.phases or not isinstance(self.phases[0], Start):
            raise PlanError("the first phase of a plan is Start(...).")
        if self.copies(len(self.phases)) > checks.MOST:
            children = self.copies(len(self.phases)) // self.width
            raise PlanError(
                f"a plan has at most {checks.MOST:,} members at a time; got {self.width} x"
                f" {children}."
            )
        self.check_order(Before(validation=self.validation))
        smaller = [phase for phase in self.phases if phase.shrinks or phase.packs]
        if self.sequential and smaller:
            raise PlanError(
                "a penalty on='earlier' counts how often every weight survived in earlier tickets,"
                f" which have fewer weights after a {type(smaller[0]).__name__}; leave out one of"
                " them."
            )
        if not any(phase.tickets for phase in self.phases):
            raise PlanError("nothing is collected: end the plan with Collect().")

    def check_order(self, before: Before) -> None:
        """Raise `PlanError` where a phase cannot follow those before it.

        Args:
          before: what the network comes with.
        """
        for number, phase in enumerate(self.phases, 1):
            try:
                phase.check_after(before)
            except PlanError as error:
                raise PlanError(f"phase {number}, {describe(phase)}: {error}") from None
            before = before._replace(
                sparsity=phase.sparsity_after(before.sparsity),
                remembered=before.remembered | {phase.remembers} - {None},
                forked=before.forked or phase.forks,
                units=before.units or phase.prunes_units,
                previous=phase,
                packed=before.packed or phase.packs,
                structures=(*before.structures, *([_structure(phase)] * phase.may_prune)),
            )

    @property
    def start(self) -> Start:
        """The first phase."""
        first = self.phases[0]
        assert isinstance(first, Start)
        return first

    @property
    def structures(self) -> list[Structure]:
        """What masks may look like, of all phases and of how masks evolve in them."""
        parts = (part for phase in self.phases for part in (phase, getattr(phase, "evolve", None)))
        all_of = (getattr(part, "structure", None) for part in parts)
        return [structure for structure in all_of if isinstance(structure, Structure)]

    @property
    def width(self) -> int:
        """Lineages that start."""
        return self.start.width

    @property
    def sequential(self) -> bool:
        """Whether a lineage needs the tickets of those before it, so that they go one after
        another.
        """
        return any(phase.sequential for phase in self.phases)

    @functools.cached_property
    def fork(self) -> int | None:
        """Where the plan forks, an index of `phases`; None if it does not."""
        return next((i for i, phase in enumerate(self.phases) if phase.forks), None)

    def copies(self, index: int) -> int:
        """How many networks go through phase `index`: lineages, or all their children."""
        return self._copies[index]

    @functools.cached_property
    def _copies(self) -> tuple[int, ...]:
        """Of every phase and of the end."""
        children = (phase.children for phase in self.phases)
        return tuple(itertools.accumulate(children, operator.mul, initial=self.width))

    @property
    def members(self) -> int:
        """Tickets that come out."""
        return sum(self.copies(i) * phase.tickets for i, phase in enumerate(self.phases))

    @property
    def training_runs(self) -> int:
        """How often a network is trained: a run begins where one starts, and where trained weights
        are copied, pruned or rewound and trained again.

        Networks that are collected along one run, as snapshots and EDST's tickets are, take one.

        >>> import jaxtickets as jt
        >>> jt.edst(members=7).training_runs, jt.dst(3).training_runs, jt.ltr(3).training_runs
        (1, 3, 4)
        """
        runs, begins = 0, True
        for index, phase in enumerate(self.phases):
            if phase.steps(MANY_STEPS):
                runs += self.copies(index) if begins else 0
                begins = False
            elif phase.forks or phase.rewinds_to is not None or phase.may_prune:
                begins = True
        return runs

    def steps(self, steps_per_epoch: int) -> int:
        """Training steps of one lineage, and of one child of it where the plan forks."""
        return self.steps_before(len(self.phases), steps_per_epoch)

    def steps_before(self, index: int, steps_per_epoch: int) -> int:
        """Training steps on the way to phase `index`."""
        return sum(phase.steps(steps_per_epoch) for phase in self.phases[:index])

    def all_steps(self, steps_per_epoch: int) -> int:
        """Training steps of all networks together."""
        each = enumerate(self.phases)
        return sum(self.copies(i) * phase.steps(steps_per_epoch) for i, phase in each)

    def unmoved(self, steps_per_epoch: int) -> str:
        """A sentence where masks are to evolve and all training ends before their first update."""
        evolving = [
            (phase.evolve, self.steps_before(index, steps_per_epoch), steps)
            for index, phase in enumerate(self.phases)
            if isinstance(phase, Train) and isinstance(phase.evolve, Evolve)
            if (steps := phase.steps(steps_per_epoch))
        ]
        if not evolving or any(evolve.updates(before, steps) for evolve, before, steps in evolving):
            return ""
        every, steps = evolving[0][0].update_every, self.steps(steps_per_epoch)
        return (
            f"no mask is updated while it trains: update_every={every} and a network takes"
            f" {steps} steps; give fewer, such as update_every={max(1, steps // 20)}."
        )

    def epochs(self, steps_per_epoch: int = 1) -> float:
        """Epochs of one lineage and all its children; `steps_per_epoch` matters only where lengths
        are in steps.
        """
        each = enumerate(self.phases)
        return sum(self.copies(i) // self.width * p.epochs(steps_per_epoch) for i, p in each)

    def sparsity_before(self, index: int) -> float:
        """Share of zeros that the phases before `index` leave, as they say it."""
        return functools.reduce(lambda s, phase: phase.sparsity_after(s), self.phases[:index], 0.0)

    def masked_at(self, index: int) -> bool:
        """Whether weights have been pruned, or begin to be, by phase `index`."""
        return any(phase.may_prune for phase in self.phases[: index + 1])

    def collects_best(self, index: int) -> bool:
        """Whether the phase after `index` collects the best of phase `index`."""
        return any(phase.wants_best for phase in self.phases[index + 1 : index + 2])

    def __str__(self) -> str:
        head = (
            f"{self.name}: {self.members} ticket{'s' if self.members != 1 else ''},"
            f" {self._how_long()}"
        )
        head += f" x {self.width} lineages" if self.width > 1 else ""
        head += f", batch {self.batch_size}" + (
            f", {self.validation} held out" if self.validation else ""
        )
        return "\n".join(
            [head, *(f"  {i}. {describe(phase)}" for i, phase in enumerate(self.phases, 1))]
        )

    def _how_long(self) -> str:
        fork = len(self.phases) if self.fork is None else self.fork
        parts = [
            [p.length for p in part if isinstance(p, Train)]
            for part in (self.phases[:fork], self.phases[fork:])
        ]
        lengths = [_together(part) for part in parts if part]
        children = self.copies(len(self.phases)) // self.width
        return (
            " + ".join([*lengths[:-1], f"{children} x {lengths[-1]}"] if parts[1] else lengths)
            or "no training"
        )

    def to_json(self) -> dict[str, Any]:
        """Plain dicts, lists and numbers; `Plan.from_json` reads them."""
        return to_json(self)

    @classmethod
    def from_json(cls, data: dict[str, Any] | str) -> Self:
        """The plan that `to_json` wrote, as a dict or as text; checked as any plan is.

        Raises:
          PlanError: not JSON, not a plan, or one that cannot be run.
        """
        try:
            plan = from_json(json.loads(data) if isinstance(data, str) else data)
        except PlanError:
            raise
        except (
            ValueError,
            TypeError,
            RecursionError,
            OverflowError,
        ) as error:  # not JSON; a schedule's own check; nested without end
            raise PlanError(f"not a plan: {error}") from None
        if not isinstance(plan, cls):
            raise PlanError(
                f"not a plan but a {type(plan).__name__}; Plan.to_json writes what is read here."
            )
        return plan


def _structure(phase: Phase) -> Structure | None:
    """Of the masks that a phase makes; None where it does not say."""
    for part in (phase, getattr(phase, "evolve", None)):
        if isinstance(structure := getattr(part, "structure", None), Structure):
            return structure
    return None


def _together(lengths: list[Length]) -> str:
    """Their sum, if they are in one unit."""
    alike = len({length.unit for length in lengths}) == 1
    return (
        str(Length(sum(length.amount for length in lengths), lengths[0].unit))
        if alike
        else f"{len(lengths)} trainings"
    )


def check_plan_and_task(name: str, plan: Any, task: Any) -> None:
    """Raise `PlanError` unless these are a plan and a task, in that order."""
    for what, value, kind in (("plan", plan, Plan), ("task", task, Task)):
        if not isinstance(value, kind):
            made = "jt.dst(...)" if kind is Plan else "jt.classification(model)"
            raise PlanError(
                f"{name}: {what} is a {kind.__name__}, such as {made} makes; got"
                f" {checks.shown(value)}."
            )
