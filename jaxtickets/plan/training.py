"""The phase that trains."""

from __future__ import annotations

import dataclasses

from jaxtickets.errors import PlanError
from jaxtickets.masks.counting import exact_floor
from jaxtickets.messages import checks
from jaxtickets.plan.evolving import MaskEvolution
from jaxtickets.plan.lengths import Length, as_length
from jaxtickets.plan.optimizers import SGD, Optimizer
from jaxtickets.plan.parts import describe
from jaxtickets.plan.penalties import L1
from jaxtickets.plan.phase import Before, NetworkShapes, Phase
from jaxtickets.plan.phases import check_patterns_match
from jaxtickets.schedules import Constant, Schedule, check_schedule


@dataclasses.dataclass(frozen=True)
class Train(Phase):
    """Train for `length`.

    Args:
      length: an epoch is one pass over the examples that the lineage trains on.
      lr: learning rate, a function of the phase's own progress.
      optimizer: what updates the weights.
      evolve: how the mask evolves meanwhile: `Evolve` (prune-grow), `Gradual` (gradual magnitude
        pruning), or None.
      bag: share of the training examples that every lineage sees: its own random sample, drawn once
        from its key.
      momentum: SGD's momentum as a function of the phase's progress, in place of the optimizer's
        number.
      penalty: what is added to the loss: `L1`, or None. (The loss that is reported is the one
        without it.)
    """

    length: Length
    lr: Schedule = dataclasses.field(default_factory=lambda: Constant(0.1))
    optimizer: Optimizer = dataclasses.field(default_factory=SGD)
    evolve: MaskEvolution | None = None
    bag: float = 1.0
    momentum: Schedule | None = None
    penalty: L1 | None = None

    def __post_init__(self) -> None:
        checks.plain_fields(self)
        object.__setattr__(self, "length", as_length(self.length, "Train's length"))
        check_schedule("Train's lr", self.lr)
        if self.momentum is not None:
            check_schedule("Train's momentum, where it is not None,", self.momentum)
        for name, value, kind, allowed in (
            (
                "optimizer",
                self.optimizer,
                Optimizer,
                'SGD, Adam, or any of optax\'s by name, Optax("lion")',
            ),
            ("evolve", self.evolve, MaskEvolution | None, "Evolve, Gradual, None"),
            ("penalty", self.penalty, L1 | None, "L1, None"),
        ):
            if not isinstance(value, kind):
                raise PlanError(f"Train's {name} is one of {allowed}; got {checks.shown(value)}.")
        if not (checks.is_number(self.bag) and 0 < self.bag <= 1):
            raise PlanError(
                "Train's bag is the share of the examples that a lineage sees, in (0, 1]; got"
                f" {self.bag!r}."
            )
        if self.momentum is not None:
            if not isinstance(self.optimizer, SGD):
                raise PlanError(
                    f"Train's momentum moves SGD's; {describe(self.optimizer)} has none. Leave it"
                    " out."
                )
            if not self.optimizer.momentum:
                raise PlanError(
                    "Train's momentum moves SGD's, and SGD(momentum=0) keeps no moments; give it"
                    " any other momentum."
                )
            if not all(0 <= self.momentum(step, 100) < 1 for step in range(100)):
                raise PlanError(f"Train's momentum is in [0, 1) throughout; got {self.momentum}.")

    def steps_per_epoch(self, whole: int) -> int:
        """Steps of one epoch of this phase, where one over all examples has `whole`."""
        return max(1, exact_floor(self.bag, whole))

    def steps(self, whole: int) -> int:
        """Steps of the phase, where an epoch over all examples has `whole`."""
        return self.length.steps(self.steps_per_epoch(whole))

    def epochs(self, whole: int) -> float:
        """Epochs of the phase, over what it trains on."""
        return self.length.epochs(self.steps_per_epoch(whole))

    @property
    def trains_with(self) -> Optimizer:
        """The optimizer."""
        return self.optimizer

    @property
    def trains_on(self) -> float:
        """The bag."""
        return self.bag

    @property
    def may_prune(self) -> bool:
        """Whether its mask loses weights on the way."""
        return self.evolve is not None and self.evolve.sparsity_after(0.0) > 0

    @property
    def prunes_units(self) -> bool:
        """Whether its mask loses whole units on the way."""
        return self.evolve is not None and self.evolve.prunes_units

    @property
    def sequential(self) -> bool:
        """Whether its penalty is made of earlier tickets."""
        return self.penalty is not None and self.penalty.on == "earlier"

    def sparsity_after(self, sparsity: float) -> float:
        """What the evolution of the mask leaves."""
        return sparsity if self.evolve is None else self.evolve.sparsity_after(sparsity)

    def check_after(self, before: Before) -> None:
        """There is a mask to evolve, or more to prune."""
        if self.evolve is not None:
            self.evolve.check_after(before)

    def check_network(self, network: NetworkShapes) -> None:
        """What the optimizer's overrides name is there."""
        check_patterns_match((one.pattern for one in self.optimizer.overrides), network)

    def short_name(self) -> str:
        """In a few words."""
        if self.evolve is None:
            return f"Train {self.length}"
        return f"Train {self.length}, {'pruning' if self.may_prune else 'evolving'}"
