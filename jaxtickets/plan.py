"""A method is a plan: a short list of phases. Data, not code; nothing here computes with JAX.

A `Plan` prints readably, compares equal, goes to JSON and back, and is checked when it is made: an impossible one is an
error that names the phase and the fix before anything is compiled.
"""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any, Literal, Self

from jaxtickets.masks import MaskError
from jaxtickets.schedules import Constant, Schedule
from jaxtickets.sparsity import check_sparsity


class PlanError(ValueError):
    """A plan that cannot be run."""


@dataclasses.dataclass(frozen=True)
class Length:
    """How long: an amount of epochs (may be fractional) or of steps (an integer)."""

    amount: float
    unit: Literal["epochs", "steps"] = "epochs"

    def __post_init__(self) -> None:
        if self.unit not in ("epochs", "steps"):
            raise PlanError(f"a length is in epochs or steps; got unit {self.unit!r}.")
        if not math.isfinite(self.amount) or self.amount <= 0 or (self.unit == "steps" and self.amount != int(self.amount)):
            raise PlanError(f"a length is a positive number of epochs or a positive whole number of steps; got {self}.")

    def steps(self, steps_per_epoch: int) -> int:
        """In steps, at least one."""
        return max(1, round(self.amount * steps_per_epoch)) if self.unit == "epochs" else int(self.amount)

    def epochs(self, steps_per_epoch: int) -> float:
        """In epochs."""
        return self.amount if self.unit == "epochs" else self.amount / steps_per_epoch

    def __str__(self) -> str:
        return f"{self.amount:g} {self.unit if self.amount != 1 else self.unit[:-1]}"


def as_length(length: float | Length) -> Length:
    """A bare number means epochs."""
    return length if isinstance(length, Length) else Length(length)


@dataclasses.dataclass(frozen=True)
class SGD:
    """Stochastic gradient descent. `weight_decay` is added to the gradient (L2), on all params, as in PyTorch."""

    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 0.0


@dataclasses.dataclass(frozen=True)
class Adam:
    """Adam; `weight_decay` is decoupled (AdamW). `clip_norm` clips the gradient's global norm first."""

    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 0.0
    clip_norm: float | None = None


Optimizer = SGD | Adam


@dataclasses.dataclass(frozen=True)
class Evolve:
    """Prune-grow while training (see `jaxtickets.transforms.prune_grow`).

    Args:
      update_every: Delta T, in steps of the whole plan.
      drop_fraction: share of active weights replaced per update.
      decay: how the drop fraction moves over the phase: "constant", "cosine" or "linear" to 0.
      growth: "gradient" (RigL) or "random" (SET).
      regrown: "keep" or "zero".
      weight_update: also update the weights on such a step.
      end: share of the phase after which updates stop (RigL: 0.75).
    """

    update_every: int = 1000
    drop_fraction: float = 0.5
    decay: Literal["constant", "cosine", "linear"] = "constant"
    growth: Literal["gradient", "random"] = "gradient"
    regrown: Literal["keep", "zero"] = "keep"
    weight_update: bool = True
    end: float = 1.0

    def __post_init__(self) -> None:
        _one_of("decay", self.decay, ("constant", "cosine", "linear"))
        _one_of("growth", self.growth, ("gradient", "random"))
        _one_of("regrown", self.regrown, ("keep", "zero"))
        if not (isinstance(self.update_every, int) and self.update_every >= 1):
            raise PlanError(f"update_every is a number of steps, at least 1; got {self.update_every!r}.")
        if not 0 <= self.drop_fraction <= 1:
            raise PlanError(f"drop_fraction is a share of the active weights, in [0, 1]; got {self.drop_fraction!r}.")
        if not 0 <= self.end <= 1:
            raise PlanError(f"end is a share of the phase, in [0, 1]; got {self.end!r}.")

    def fraction_at(self, step: int, steps: int) -> float:
        """The drop fraction at `step` (from 0) of a phase of `steps`; 0 once updates have ended."""
        share = step / steps
        if share > self.end:
            return 0.0
        factor = {"constant": 1.0, "linear": 1 - share, "cosine": (1 + math.cos(math.pi * share)) / 2}[self.decay]
        return self.drop_fraction * factor


@dataclasses.dataclass(frozen=True)
class Start:
    """Fresh weights and fresh masks: `width` lineages, each from its own key.

    Args:
      width: how many lineages start.
      sparsity: share of zeros of the random first mask; 0 starts dense.
      distribution: "erk", "er" or "uniform".
      keep_dense: path patterns of layers to leave dense.
    """

    width: int = 1
    sparsity: float = 0.0
    distribution: Literal["uniform", "er", "erk"] = "erk"
    keep_dense: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not (isinstance(self.width, int) and self.width >= 1):
            raise PlanError(f"members (the width of Start) is at least 1; got {self.width!r}.")
        _one_of("distribution", self.distribution, ("uniform", "er", "erk"))
        try:
            check_sparsity(self.sparsity)
        except MaskError as error:
            raise PlanError(str(error)) from None


@dataclasses.dataclass(frozen=True)
class Train:
    """Train for `length`. The learning rate is a function of the phase's own progress."""

    length: Length
    lr: Schedule = dataclasses.field(default_factory=lambda: Constant(0.1))
    optimizer: Optimizer = dataclasses.field(default_factory=SGD)
    evolve: Evolve | None = None


@dataclasses.dataclass(frozen=True)
class Escape:
    """EDST's global exploration: one prune-grow with a large drop fraction q, to leave the basin."""

    drop_fraction: float = 0.8
    growth: Literal["gradient", "random"] = "gradient"
    regrown: Literal["keep", "zero"] = "keep"

    def __post_init__(self) -> None:
        _one_of("growth", self.growth, ("gradient", "random"))
        _one_of("regrown", self.regrown, ("keep", "zero"))
        if not 0 <= self.drop_fraction <= 1:
            raise PlanError(f"Escape's drop_fraction q is in [0, 1]; got {self.drop_fraction!r}.")


@dataclasses.dataclass(frozen=True)
class Collect:
    """Take every lineage's present network as a ticket.

    Args:
      which: "last" (the last iterate) or "best" (of the training phase before, by accuracy on the validation split at
        the end of each epoch; needs `Plan.validation`).
    """

    which: Literal["last", "best"] = "last"

    def __post_init__(self) -> None:
        _one_of("which", self.which, ("last", "best"))


Phase = Start | Train | Escape | Collect


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
        if not (isinstance(self.batch_size, int) and self.batch_size >= 1):
            raise PlanError(f"batch_size is at least 1; got {self.batch_size!r}.")
        if not (isinstance(self.validation, int) and self.validation >= 0):
            raise PlanError(f"validation is a number of examples, 0 for none; got {self.validation!r}.")
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
        units = {length.unit for length in trains}
        how_long = str(Length(sum(length.amount for length in trains), units.pop())) if len(units) == 1 else f"{len(trains)} trainings"
        head = f"{self.name}: {self.members} ticket{'s' if self.members != 1 else ''}, {how_long}"
        head += f" x {self.width} lineages" if self.width > 1 else ""
        head += f", batch {self.batch_size}" + (f", {self.validation} held out" if self.validation else "")
        return "\n".join([head, *(f"  {i}. {describe(phase)}" for i, phase in enumerate(self.phases, 1))])

    def to_json(self) -> dict[str, Any]:
        """Plain dicts, lists and numbers; `Plan.from_json` reads them."""
        return _to_json(self)

    @classmethod
    def from_json(cls, data: dict[str, Any] | str) -> Self:
        """The plan that `to_json` wrote, as a dict or as text; checked as any plan is."""
        plan = _from_json(json.loads(data) if isinstance(data, str) else data)
        if not isinstance(plan, cls):
            raise PlanError(f"not a plan: {type(plan).__name__}.")
        return plan


def describe(phase: Any) -> str:
    """A phase in one line: only what differs from the defaults.

    >>> describe(Train(Length(3), Constant(0.01), evolve=Evolve(drop_fraction=0.3)))
    'Train(3 epochs, lr=0.01, evolve=Evolve(drop_fraction=0.3))'
    """
    if isinstance(phase, Start):
        rest = f", {phase.distribution}" if phase.sparsity else ""
        return f"Start(width={phase.width}, sparsity={phase.sparsity:g}{rest})"
    parts = []
    for field in dataclasses.fields(phase):
        value = getattr(phase, field.name)
        if field.name == "length":
            parts.append(str(value))
        elif field.name == "lr":
            parts.append(f"lr={value}")
        elif value != _default(field):
            parts.append(f"{field.name}={describe(value) if dataclasses.is_dataclass(value) else f'{value!r}'}")
    return f"{type(phase).__name__}({', '.join(parts)})"


def _default(field: dataclasses.Field[Any]) -> Any:
    return field.default_factory() if field.default_factory is not dataclasses.MISSING else field.default


def _one_of(name: str, value: Any, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise PlanError(f"{name} is one of {', '.join(allowed)}; got {value!r}.")


def _kinds() -> dict[str, type]:
    from jaxtickets import schedules

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
    kind = _kinds().get(data.get("kind", ""))
    fields = {name: _from_json(item) for name, item in data.items() if name != "kind"}
    if kind is None or fields.keys() != {field.name for field in dataclasses.fields(kind)}:
        raise PlanError(f"not a part of a plan: {data.get('kind')!r} with fields {sorted(fields)}.")
    return kind(**fields)
