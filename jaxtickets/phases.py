"""The phases of a plan, and what they are made of: frozen dataclasses that check themselves when they are made."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Literal, get_args

from jaxtickets import checks
from jaxtickets.errors import PlanError
from jaxtickets.evolving import Evolve, Gradual
from jaxtickets.masks import MaskError
from jaxtickets.optimizers import SGD, Optimizer
from jaxtickets.penalties import L1
from jaxtickets.schedules import Constant, Schedule
from jaxtickets.sparsity import check_sparsity, part

Scope = Literal["layerwise", "global"]


@dataclasses.dataclass(frozen=True)
class Length:
    """How long: an amount of epochs (may be fractional) or of steps (an integer)."""

    amount: float
    unit: Literal["epochs", "steps"] = "epochs"

    def __post_init__(self) -> None:
        if self.unit not in ("epochs", "steps"):
            raise PlanError(f"a length is in epochs or steps; got unit {self.unit!r}.")
        number = isinstance(self.amount, int | float) and not isinstance(self.amount, bool) and math.isfinite(self.amount)
        if not number or self.amount <= 0 or (self.unit == "steps" and self.amount != int(self.amount)):
            raise PlanError(
                f"a length is a positive number of epochs or a positive whole number of steps; got {self.amount!r} {self.unit}."
            )

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
        checks.at_least_1("members (the width of Start)", self.width)
        object.__setattr__(self, "keep_dense", checks.patterns("keep_dense", self.keep_dense))
        checks.one_of("distribution", self.distribution, ("uniform", "er", "erk"))
        try:
            check_sparsity(self.sparsity)
        except MaskError as error:
            raise PlanError(str(error)) from None


@dataclasses.dataclass(frozen=True)
class Train:
    """Train for `length`.

    Args:
      length: an epoch is one pass over the examples that the lineage trains on.
      lr: learning rate, a function of the phase's own progress.
      optimizer: what updates the weights.
      evolve: how the mask evolves meanwhile: `Evolve` (prune-grow), `Gradual` (gradual magnitude pruning), or None.
      bag: share of the training examples that every lineage sees: its own random sample, drawn once from its key.
      momentum: SGD's momentum as a function of the phase's progress, in place of the optimizer's number.
      penalty: what is added to the loss: `L1`, or None. (The loss that is reported is the one without it.)
    """

    length: Length
    lr: Schedule = dataclasses.field(default_factory=lambda: Constant(0.1))
    optimizer: Optimizer = dataclasses.field(default_factory=SGD)
    evolve: Evolve | Gradual | None = None
    bag: float = 1.0
    momentum: Schedule | None = None
    penalty: L1 | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "length", as_length(self.length))
        kinds_of = {"lr": Schedule, "optimizer": Optimizer, "evolve": Evolve | Gradual | None, "momentum": Schedule | None}
        for name, kinds in (kinds_of | {"penalty": L1 | None}).items():
            if not isinstance(getattr(self, name), kinds):
                allowed = ", ".join(kind.__name__ for kind in get_args(kinds))
                raise PlanError(f"Train's {name} is one of {allowed}; got {getattr(self, name)!r}.")
        if not (checks.is_number(self.bag) and 0 < self.bag <= 1):
            raise PlanError(f"Train's bag is the share of the examples that a lineage sees, in (0, 1]; got {self.bag!r}.")
        if self.momentum is not None:
            if not isinstance(self.optimizer, SGD):
                raise PlanError(f"Train's momentum moves SGD's; {describe(self.optimizer)} has none. Leave it out.")
            if not self.optimizer.momentum:
                raise PlanError("Train's momentum moves SGD's, and SGD(momentum=0) keeps no moments; give it any other momentum.")
            if not all(0 <= self.momentum(step, 100) < 1 for step in range(100)):
                raise PlanError(f"Train's momentum is in [0, 1) throughout; got {self.momentum}.")

    def steps_per_epoch(self, whole: int) -> int:
        """Steps of one epoch of this phase, where one over all examples has `whole`."""
        return max(1, part(whole, self.bag))

    def steps(self, whole: int) -> int:
        """Steps of the phase, where an epoch over all examples has `whole`."""
        return self.length.steps(self.steps_per_epoch(whole))


@dataclasses.dataclass(frozen=True)
class Escape:
    """EDST's global exploration: one prune-grow with a large drop fraction q, to leave the basin."""

    drop_fraction: float = 0.8
    growth: Literal["gradient", "random"] = "gradient"
    regrown: Literal["keep", "zero"] = "keep"

    def __post_init__(self) -> None:
        checks.one_of("growth", self.growth, ("gradient", "random"))
        checks.one_of("regrown", self.regrown, ("keep", "zero"))
        if not (checks.is_number(self.drop_fraction) and 0 <= self.drop_fraction <= 1):
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
        checks.one_of("which", self.which, ("last", "best"))


@dataclasses.dataclass(frozen=True)
class Prune:
    """Prune once, to a sparsity of the *original* count, among the weights that survive; pruned ones stay pruned.

    Args:
      sparsity: share of zeros afterwards, in (0, 1): N - floor(sparsity * N) survive.
      scores: what is kept: the largest "magnitude", or a "random" choice from the lineage's key.
      scope: "global" (one threshold over all prunable weights, no normalisation) or "layerwise".
      keep_dense: path patterns of layers that lose nothing and do not count.
    """

    sparsity: float
    scores: Literal["magnitude", "random"] = "magnitude"
    scope: Scope = "global"
    keep_dense: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _sparsity("Prune's sparsity", self.sparsity)
        checks.one_of("scores", self.scores, ("magnitude", "random"))
        checks.one_of("scope", self.scope, get_args(Scope))
        object.__setattr__(self, "keep_dense", checks.patterns("keep_dense", self.keep_dense))


@dataclasses.dataclass(frozen=True)
class Remember:
    """Keep a copy of the present weights and batch statistics, for a `Rewind` to it."""

    name: str


@dataclasses.dataclass(frozen=True)
class Rewind:
    """Back to the weights and batch statistics remembered as `name`, under the present mask, with fresh moments.

    Args:
      name: what a `Remember` before it called them.
      keep: path patterns of leaves that stay as they are.
    """

    name: str
    keep: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "keep", checks.patterns("keep", self.keep))


@dataclasses.dataclass(frozen=True)
class Fork:
    """Every lineage becomes `members` children: copies of it with masks and keys of their own, and fresh moments.

    What comes before is done once per parent, what comes after once per child, in groups.

    Args:
      members: children of each lineage.
      masks: "random" (each child an independent random mask), "anti_random" (pairs of a mask at 50 % and its
        complement), "partition" (disjoint masks, each 1 / members of the weights), or "parent" (the parent's own).
      sparsity: share of zeros of a random mask; 0.5 if None, and given by the kind of masks where it is not random.
      unit: what is pruned, "connection" (weights) or "neuron" (whole units; see `jaxtickets.units`).
      scope: "layerwise" (the same share in every layer) or "global".
      keep_dense: path patterns of layers that lose nothing: the classifier.
    """

    members: int
    masks: Literal["random", "anti_random", "partition", "parent"]
    sparsity: float | None = None
    unit: Literal["connection", "neuron"] = "connection"
    scope: Scope = "layerwise"
    keep_dense: tuple[str, ...] = ("classifier",)

    def __post_init__(self) -> None:
        checks.at_least_1("members (the children of a Fork)", self.members)
        checks.one_of("masks", self.masks, ("random", "anti_random", "partition", "parent"))
        checks.one_of("unit", self.unit, ("connection", "neuron"))
        checks.one_of("scope", self.scope, get_args(Scope))
        object.__setattr__(self, "keep_dense", checks.patterns("keep_dense", self.keep_dense))
        if self.masks == "anti_random":
            if self.members % 2:
                raise PlanError(f"anti_random masks come in pairs: members is even; got {self.members}. Take {self.members + 1}.")
            if self.sparsity not in (None, 0.5):
                raise PlanError(
                    f"anti_random masks are at sparsity 0.5, half and half; got {self.sparsity!r}. Use masks='random' for another."
                )
        elif self.masks == "random":
            if self.sparsity is not None:
                _sparsity("Fork's sparsity", self.sparsity)
        elif self.sparsity is not None:
            given = f"1 - 1/{self.members}" if self.masks == "partition" else "the parent's"
            raise PlanError(f"the sparsity of {self.masks} masks is {given}; leave it out (got {self.sparsity!r}).")
        if self.masks == "partition" and self.members < 2:
            raise PlanError("a partition has at least 2 members; got 1.")

    @property
    def child_sparsity(self) -> float | None:
        """Share of zeros of a child's mask where it is pruned; None where it is the parent's."""
        given = 0.5 if self.sparsity is None else self.sparsity
        return {"random": given, "anti_random": 0.5, "partition": 1 - 1 / self.members, "parent": None}[self.masks]


Phase = Start | Train | Escape | Collect | Prune | Remember | Rewind | Fork


def describe(phase: Any) -> str:
    """A phase in one line: only what differs from the defaults.

    >>> describe(Train(Length(3), Constant(0.01), evolve=Evolve(drop_fraction=0.3)))
    'Train(3 epochs, lr=0.01, evolve=Evolve(drop_fraction=0.3))'
    """
    if isinstance(phase, Start):
        rest = f", {phase.distribution}" if phase.sparsity else ""
        rest += f", keep_dense={phase.keep_dense!r}" if phase.keep_dense else ""
        return f"Start(width={phase.width}, sparsity={phase.sparsity:g}{rest})"
    parts = []
    for field in dataclasses.fields(phase):
        value = getattr(phase, field.name)
        if field.name == "length":
            parts.append(str(value))
        elif isinstance(value, Schedule):
            parts.append(f"{field.name}={value}")
        elif value != default_of(field):
            parts.append(f"{field.name}={describe(value) if dataclasses.is_dataclass(value) else f'{value!r}'}")
    return f"{type(phase).__name__}({', '.join(parts)})"


def _sparsity(name: str, value: Any) -> None:
    if not (checks.is_number(value) and 0 < value < 1):
        raise PlanError(f"{name} is the share of zeros, in (0, 1); got {value!r}.")


def default_of(field: dataclasses.Field[Any]) -> Any:
    """What the field is if nothing is said; `dataclasses.MISSING` if something must be."""
    return field.default_factory() if field.default_factory is not dataclasses.MISSING else field.default
