"""A method is a plan: a short list of phases. Data, not code; nothing here computes with JAX.

A `Plan` prints readably, compares equal, goes to JSON and back, and is checked when it is made: an impossible one is an
error that names the phase and the fix before anything is compiled.
"""

from __future__ import annotations

import dataclasses
import json
from typing import Any, Self, get_args

from jaxtickets import checks, schedules
from jaxtickets.errors import PlanError as PlanError
from jaxtickets.evolving import Evolve as Evolve
from jaxtickets.evolving import Gradual as Gradual
from jaxtickets.optimizers import SGD as SGD
from jaxtickets.optimizers import Adam as Adam
from jaxtickets.optimizers import Optimizer as Optimizer
from jaxtickets.optimizers import Override as Override
from jaxtickets.penalties import L1 as L1
from jaxtickets.phases import Collect as Collect
from jaxtickets.phases import Escape as Escape
from jaxtickets.phases import Fork as Fork
from jaxtickets.phases import Length as Length
from jaxtickets.phases import Phase as Phase
from jaxtickets.phases import Prune as Prune
from jaxtickets.phases import Remember as Remember
from jaxtickets.phases import Rewind as Rewind
from jaxtickets.phases import Start as Start
from jaxtickets.phases import Train as Train
from jaxtickets.phases import as_length as as_length
from jaxtickets.phases import default_of
from jaxtickets.phases import describe as describe


@dataclasses.dataclass(frozen=True)
class Plan:
    """A method: what happens to a network from its first weights to the collected tickets.

    Args:
      name: what tables call it.
      phases: in order; the first is a Start.
      batch_size: examples per step and member.
      reference: length of the one dense run that costs are compared with; None for the length of this plan.
      validation: how many training examples are held out (evenly spaced rows); never augmented, never trained on.

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
        if not isinstance(self.name, str):
            raise PlanError(f"name is a text; got {self.name!r}.")
        if not (checks.is_int(self.batch_size) and self.batch_size >= 1):
            raise PlanError(f"batch_size is at least 1; got {self.batch_size!r}.")
        if not (checks.is_int(self.validation) and self.validation >= 0):
            raise PlanError(f"validation is a number of examples, 0 for none; got {self.validation!r}.")
        if self.reference is not None and not isinstance(self.reference, Length):
            raise PlanError(f"reference is a Length or None; got {self.reference!r}.")
        object.__setattr__(self, "phases", tuple(self.phases))
        for number, phase in enumerate(self.phases, 1):
            if not isinstance(phase, Phase):
                kinds = ", ".join(f"{kind.__name__}(...)" for kind in get_args(Phase))
                raise PlanError(f"phase {number} is one of {kinds}; got {phase!r}.")
        if not self.phases or not isinstance(self.phases[0], Start):
            raise PlanError("the first phase of a plan is Start(...).")
        seen: list[Phase] = []
        for number, phase in enumerate(self.phases, 1):
            self._check_after(seen, phase, f"phase {number}, {describe(phase)}")
            seen.append(phase)
        if not any(isinstance(phase, Collect) for phase in self.phases):
            raise PlanError("nothing is collected: end the plan with Collect().")

    def _check_after(self, seen: list[Phase], phase: Phase, where: str) -> None:
        """Whether `phase` can follow those `seen`."""
        if isinstance(phase, Start) and seen:
            raise PlanError(f"{where}: a plan starts once; remove it.")
        evolves = isinstance(phase, Escape) or (isinstance(phase, Train) and isinstance(phase.evolve, Evolve))
        if evolves and not _sparsity_after(seen):
            raise PlanError(f"{where}: there is no mask to evolve; give Start a sparsity above 0.")
        to = phase.sparsity if isinstance(phase, Prune) else _gradual_to(phase)
        if to is not None and to <= _sparsity_after(seen):
            raise PlanError(f"{where}: the network is at sparsity {_sparsity_after(seen):g} by then; prune to more.")
        if isinstance(phase, Rewind) and phase.name not in [p.name for p in seen if isinstance(p, Remember)]:
            raise PlanError(f"{where}: nothing is remembered as {phase.name!r} by then; put Remember({phase.name!r}) before it.")
        if isinstance(phase, Remember) and phase.name in [p.name for p in seen if isinstance(p, Remember)]:
            raise PlanError(f"{where}: {phase.name!r} is remembered already; take another name.")
        if isinstance(phase, Fork) and any(isinstance(p, Fork) for p in seen):
            raise PlanError(f"{where}: a plan forks once; put all children into one Fork.")
        if isinstance(phase, Collect) and phase.which == "best":
            if not self.validation:
                raise PlanError(f"{where}: the best needs a validation split; set validation=5000, or collect the last.")
            if not isinstance(seen[-1], Train):
                raise PlanError(f"{where}: the best of nothing; put a Train right before it.")

    @property
    def start(self) -> Start:
        """The first phase."""
        first = self.phases[0]
        assert isinstance(first, Start)
        return first

    @property
    def width(self) -> int:
        """Lineages that start."""
        return self.start.width

    @property
    def sequential(self) -> bool:
        """Whether a lineage needs the tickets of those before it, so that they are trained one after another."""
        return any(isinstance(p, Train) and p.penalty is not None and p.penalty.on == "earlier" for p in self.phases)

    @property
    def fork(self) -> int | None:
        """Where the plan forks, an index of `phases`; None if it does not."""
        return next((i for i, phase in enumerate(self.phases) if isinstance(phase, Fork)), None)

    def copies(self, index: int) -> int:
        """How many networks go through phase `index`: lineages, or all their children."""
        fork = self.fork
        forked = self.phases[fork] if fork is not None and index > fork else None
        return self.width * (forked.members if isinstance(forked, Fork) else 1)

    @property
    def members(self) -> int:
        """Tickets that come out."""
        return sum(self.copies(i) for i, phase in enumerate(self.phases) if isinstance(phase, Collect))

    def steps(self, steps_per_epoch: int) -> int:
        """Training steps of one lineage, and of one child of it where the plan forks."""
        return self.steps_before(len(self.phases), steps_per_epoch)

    def steps_before(self, index: int, steps_per_epoch: int) -> int:
        """Training steps on the way to phase `index`."""
        return sum(phase.steps(steps_per_epoch) for phase in self.phases[:index] if isinstance(phase, Train))

    def all_steps(self, steps_per_epoch: int) -> int:
        """Training steps of all networks together."""
        trains = ((i, phase) for i, phase in enumerate(self.phases) if isinstance(phase, Train))
        return sum(self.copies(i) * phase.steps(steps_per_epoch) for i, phase in trains)

    def epochs(self, steps_per_epoch: int = 1) -> float:
        """Epochs of one lineage and all its children; `steps_per_epoch` matters only where lengths are in steps."""
        trains = ((i, phase) for i, phase in enumerate(self.phases) if isinstance(phase, Train))
        return sum(self.copies(i) // self.width * phase.length.epochs(phase.steps_per_epoch(steps_per_epoch)) for i, phase in trains)

    def sparsity_before(self, index: int) -> float:
        """Share of zeros that the phases before `index` leave, as they say it."""
        return _sparsity_after(list(self.phases[:index]))

    def masked_at(self, index: int) -> bool:
        """Whether weights have been pruned, or begin to be, by phase `index`."""
        return self.start.sparsity > 0 or any(map(_prunes, self.phases[: index + 1]))

    def collects_best(self, index: int) -> bool:
        """Whether the phase after `index` collects the best of phase `index`."""
        following = self.phases[index + 1] if index + 1 < len(self.phases) else None
        return isinstance(following, Collect) and following.which == "best"

    def __str__(self) -> str:
        head = f"{self.name}: {self.members} ticket{'s' if self.members != 1 else ''}, {self._how_long()}"
        head += f" x {self.width} lineages" if self.width > 1 else ""
        head += f", batch {self.batch_size}" + (f", {self.validation} held out" if self.validation else "")
        return "\n".join([head, *(f"  {i}. {describe(phase)}" for i, phase in enumerate(self.phases, 1))])

    def _how_long(self) -> str:
        fork = len(self.phases) if self.fork is None else self.fork
        parts = [[p.length for p in part if isinstance(p, Train)] for part in (self.phases[:fork], self.phases[fork:])]
        lengths = [_together(part) for part in parts if part]
        children = self.copies(len(self.phases)) // self.width
        return " + ".join([*lengths[:-1], f"{children} x {lengths[-1]}"] if parts[1] else lengths) or "no training"

    def to_json(self) -> dict[str, Any]:
        """Plain dicts, lists and numbers; `Plan.from_json` reads them."""
        return _to_json(self)

    @classmethod
    def from_json(cls, data: dict[str, Any] | str) -> Self:
        """The plan that `to_json` wrote, as a dict or as text; checked as any plan is.

        Raises:
          PlanError: not JSON, not a plan, or one that cannot be run.
        """
        try:
            plan = _from_json(json.loads(data) if isinstance(data, str) else data)
        except PlanError:
            raise
        except (ValueError, TypeError, RecursionError) as error:  # not JSON; a schedule's own check; nested without end
            raise PlanError(f"not a plan: {error}") from None
        if not isinstance(plan, cls):
            raise PlanError(f"not a plan but a {type(plan).__name__}; Plan.to_json writes what is read here.")
        return plan


def _gradual_to(phase: Phase) -> float | None:
    """Where a gradual pruning ends, if the phase is one."""
    return phase.evolve.sparsity if isinstance(phase, Train) and isinstance(phase.evolve, Gradual) else None


def _prunes(phase: Phase) -> bool:
    return isinstance(phase, Prune) or _gradual_to(phase) is not None or (isinstance(phase, Fork) and phase.masks != "parent")


def _sparsity_after(phases: list[Phase]) -> float:
    """Share of zeros after those phases, as they say it."""
    sparsity = 0.0
    for phase in phases:
        if isinstance(phase, Start | Prune):
            sparsity = phase.sparsity
        elif isinstance(phase, Train) and isinstance(phase.evolve, Gradual):
            sparsity = phase.evolve.sparsity
        elif isinstance(phase, Fork) and phase.child_sparsity is not None:
            sparsity = max(sparsity, phase.child_sparsity)
    return sparsity


def _together(lengths: list[Length]) -> str:
    """Their sum, if they are in one unit."""
    alike = len({length.unit for length in lengths}) == 1
    return str(Length(sum(length.amount for length in lengths), lengths[0].unit)) if alike else f"{len(lengths)} trainings"


def _kinds() -> dict[str, type]:
    kinds = [Plan, Length, SGD, Adam, Override, Evolve, Gradual, L1, *get_args(Phase), *schedules.KINDS]
    return {kind.__name__: kind for kind in kinds}


def _to_json(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        # Defaults are left out, so that a plan written before a field was there is read as the plan that it was.
        told = {f.name: getattr(value, f.name) for f in dataclasses.fields(value) if getattr(value, f.name) != default_of(f)}
        return {"kind": type(value).__name__} | {name: _to_json(field) for name, field in told.items()}
    return [_to_json(item) for item in value] if isinstance(value, tuple) else value


def _from_json(data: Any) -> Any:
    if isinstance(data, list):
        return tuple(_from_json(item) for item in data)
    if not isinstance(data, dict):
        return data
    kind = _kinds().get(str(data.get("kind", "")))
    fields = {name: _from_json(item) for name, item in data.items() if name != "kind"}
    known = {field.name: default_of(field) for field in dataclasses.fields(kind)} if kind else {}
    needed = {name for name, default in known.items() if default is dataclasses.MISSING}
    if kind is None or not needed <= fields.keys() <= known.keys():
        raise PlanError(f"not a part of a plan: {data.get('kind')!r} with fields {sorted(fields)}.")
    return kind(**fields)
