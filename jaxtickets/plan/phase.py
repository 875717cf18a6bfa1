"""What every phase of a plan says of itself, in numbers, before anything is computed."""

from __future__ import annotations

from typing import Any, NamedTuple

from jaxtickets.errors import PlanError
from jaxtickets.masks.structure import Structure
from jaxtickets.plan.optimizers import Optimizer
from jaxtickets.plan.parts import Part
from jaxtickets.task import Task

PyTree = Any


class Before(NamedTuple):
    """What the phases before one come to.

    Args:
      sparsity: share of zeros, as they say it.
      remembered: names that can be rewound to.
      forked: whether every lineage has become several children.
      previous: the phase right before; None at the beginning.
      validation: examples that the plan holds out.
      units: whether whole units may be pruned by then.
      packed: whether layers hold their blocks and nothing else.
      structures: of the masks, of every phase that prunes; None of one that does not say.
    """

    sparsity: float = 0.0
    remembered: frozenset[str] = frozenset()
    forked: bool = False
    previous: Phase | None = None
    validation: int = 0
    units: bool = False
    packed: bool = False
    structures: tuple[Structure | None, ...] = ()

    def check_whole(self, why: str) -> None:
        """Raise `PlanError` where networks are packed by then, and a phase needs whole layers."""
        if self.packed:
            raise PlanError(
                f"{why}, and the networks are packed by then; put it before the Pack, or leave the"
                " Pack out."
            )


class NetworkShapes(NamedTuple):
    """A traced network: its task, the shapes of its params and model state, of one example (without
    the batch axis), and path to shape of the leaves that a mask may cover (none in a dense plan).
    """

    task: Task
    params: PyTree
    model_state: PyTree
    x_spec: PyTree
    prunable: dict[str, Any]


class Phase(Part):
    """A step of a method: what happens to every network of a plan before the next phase.

    Subclass it as a frozen dataclass to make one of your own. What it means for the plan are the
    properties and methods below; what it does is a function that `jaxtickets.engine.run_phase`
    registers for the class, and what it costs one that `jaxtickets.ledger.phase_cost` does.
    """

    @property
    def children(self) -> int:
        """How many networks every network becomes."""
        return 1

    @property
    def forks(self) -> bool:
        """Whether the networks after it are children, with keys of their own."""
        return False

    @property
    def tickets(self) -> int:
        """How many tickets every network gives."""
        return 0

    @property
    def may_prune(self) -> bool:
        """Whether weights can be lost in it, or by it."""
        return False

    @property
    def prunes_units(self) -> bool:
        """Whether whole units can be lost in it, or by it."""
        return False

    @property
    def sequential(self) -> bool:
        """Whether a lineage needs the tickets of those before it, so that they go one after
        another.
        """
        return False

    @property
    def shrinks(self) -> bool:
        """Whether the networks after it may have fewer units."""
        return False

    @property
    def packs(self) -> bool:
        """Whether the networks after it may hold some layers' blocks and nothing else of them."""
        return False

    @property
    def remembers(self) -> str | None:
        """The name under which it keeps the weights for a later phase."""
        return None

    @property
    def rewinds_to(self) -> str | None:
        """The name of what it goes back to."""
        return None

    @property
    def wants_best(self) -> bool:
        """Whether it takes the best network of the training before it."""
        return False

    @property
    def trains_with(self) -> Optimizer | None:
        """What updates the weights in it."""
        return None

    @property
    def trains_on(self) -> float | None:
        """The share of the examples that it trains on."""
        return None

    def steps(self, whole: int) -> int:
        """Training steps of one network, where an epoch over all examples has `whole`."""
        return 0

    def epochs(self, whole: int) -> float:
        """Epochs of one network, likewise."""
        return 0

    def sparsity_after(self, sparsity: float) -> float:
        """Share of zeros that it leaves of a network that had this share."""
        return sparsity

    def check_after(self, before: Before) -> None:
        """Raise `PlanError`, naming the fix, where the phase cannot follow those before it."""

    def check_network(self, network: NetworkShapes) -> None:
        """Raise `PlanError` or `MaskError` where the phase cannot be done with that network."""
