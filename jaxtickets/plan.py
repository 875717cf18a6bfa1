"""A method is a plan: a short list of phases. Data, not code; nothing here computes with JAX.

A `Plan` prints readably, compares equal, goes to JSON and back, and is checked when it is made: an impossible one is an
error that names the phase and the fix before anything is compiled.
"""

from __future__ import annotations

import dataclasses
import json
from typing import Any, Self

from jaxtickets import schedules
from jaxtickets.phases import SGD as SGD
from jaxtickets.phases import Adam as Adam
from jaxtickets.phases import Collect as Collect
from jaxtickets.phases import Escape as Escape
from jaxtickets.phases import Evolve as Evolve
from jaxtickets.phases import Length as Length
from jaxtickets.phases import Optimizer as Optimizer
from jaxtickets.phases import Phase as Phase
from jaxtickets.phases import PlanError as PlanError
from jaxtickets.phases import Start as Start
from jaxtickets.phases import Train as Train
from jaxtickets.phases import as_length as as_length
from jaxtickets.phases import describe as describe
from jaxtickets.phases import is_int


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
        if not (is_int(self.batch_size) and self.batch_size >= 1):
            raise PlanError(f"batch_size is at least 1; got {self.batch_size!r}.")
        if not (is_int(self.validation) and self.validation >= 0):
            raise PlanError(f"validation is a number of examples, 0 for none; got {self.validation!r}.")
        if self.reference is not None and not isinstance(self.reference, Length):
            raise PlanError(f"reference is a Length or None; got {self.reference!r}.")
        object.__setattr__(self, "phases", tuple(self.phases))
        for number, phase in enumerate(self.phases, 1):
            if not isinstance(phase, Phase):
                raise PlanError(f"phase {number} is Start(...), Train(...), Escape(...) or Collect(...); got {phase!r}.")
        if not self.phases or not isinstance(self.phases[0], Start):
            raise PlanError("the first phase of a plan is Start(...).")
        sparse = False
        trained = False
        for number, phase in enumerate(self.phases, 1):
            where = f"phase {number}, {describe(phase)}"
            if isinstance(phase, Start):
                if number > 1:
                    raise PlanError(f"{where}: a plan starts once; remove it.")
                sparse = phase.sparsity > 0
            evolves = isinstance(phase, Escape) or (isinstance(phase, Train) and phase.evolve is not None)
            if evolves and not sparse:
                raise PlanError(f"{where}: there is no mask to evolve; give Start a sparsity above 0.")
            if isinstance(phase, Collect) and phase.which == "best":
                if not self.validation:
                    raise PlanError(f"{where}: the best needs a validation split; set validation=5000, or collect the last.")
                if not trained:
                    raise PlanError(f"{where}: the best of nothing; put a Train right before it.")
            trained = isinstance(phase, Train)
        if not any(isinstance(phase, Collect) for phase in self.phases):
            raise PlanError("nothing is collected: end the plan with Collect().")

    @property
    def start(self) -> Start:
        """The first phase."""
        first = self.phases[0]
        assert isinstance(first, Start)
        return first

    @property
    def width(self) -> int:
        """Lineages trained."""
        return self.start.width

    @property
    def members(self) -> int:
        """Tickets that come out."""
        return self.width * sum(isinstance(phase, Collect) for phase in self.phases)

    def steps(self, steps_per_epoch: int) -> int:
        """Training steps of one lineage."""
        return sum(phase.length.steps(steps_per_epoch) for phase in self.phases if isinstance(phase, Train))

    def epochs(self, steps_per_epoch: int = 1) -> float:
        """Epochs of one lineage; `steps_per_epoch` matters only where lengths are in steps."""
        return sum(phase.length.epochs(steps_per_epoch) for phase in self.phases if isinstance(phase, Train))

    def collects_best(self, index: int) -> bool:
        """Whether the phase after `index` collects the best of phase `index`."""
        following = self.phases[index + 1] if index + 1 < len(self.phases) else None
        return isinstance(following, Collect) and following.which == "best"

    def __str__(self) -> str:
        trains = [phase.length for phase in self.phases if isinstance(phase, Train)]
        alike = len({length.unit for length in trains}) == 1
        how_long = str(Length(sum(length.amount for length in trains), trains[0].unit)) if alike else f"{len(trains)} trainings"
        head = f"{self.name}: {self.members} ticket{'s' if self.members != 1 else ''}, {how_long}"
        head += f" x {self.width} lineages" if self.width > 1 else ""
        head += f", batch {self.batch_size}" + (f", {self.validation} held out" if self.validation else "")
        return "\n".join([head, *(f"  {i}. {describe(phase)}" for i, phase in enumerate(self.phases, 1))])

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


def _kinds() -> dict[str, type]:
    kinds = [Plan, Length, SGD, Adam, Evolve, Start, Train, Escape, Collect, *schedules.KINDS]
    return {kind.__name__: kind for kind in kinds}


def _to_json(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {"kind": type(value).__name__} | {f.name: _to_json(getattr(value, f.name)) for f in dataclasses.fields(value)}
    return [_to_json(item) for item in value] if isinstance(value, tuple) else value


def _from_json(data: Any) -> Any:
    if isinstance(data, list):
        return tuple(_from_json(item) for item in data)
    if not isinstance(data, dict):
        return data
    kind = _kinds().get(str(data.get("kind", "")))
    fields = {name: _from_json(item) for name, item in data.items() if name != "kind"}
    if kind is None or fields.keys() != {field.name for field in dataclasses.fields(kind)}:
        raise PlanError(f"not a part of a plan: {data.get('kind')!r} with fields {sorted(fields)}.")
    return kind(**fields)
