"""What every phase costs, and what it leaves of the network: one rule for each class of phase.

    @phase_cost.register
    def _(phase: MyPhase, before): return Costs(before.kept, flops=...)

gives a phase of a user's own its rule. Without one a phase keeps what there is, costs nothing, and
where it trains 3 forward passes a step.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numpy as np

from jaxtickets.ledger.layers import Kept, Layers, widths_that_fit
from jaxtickets.masks import scores
from jaxtickets.masks.channels import Channels
from jaxtickets.masks.children import kept_dense, units_for
from jaxtickets.masks.counting import num_kept
from jaxtickets.masks.cutting import cut_shapes, staying_units
from jaxtickets.masks.sparsity import layer_budgets, prunable_shapes
from jaxtickets.masks.units import UnitTable, find_units
from jaxtickets.plan import (
    Escape,
    Evolve,
    Fork,
    Gradual,
    MaskEvolution,
    NetworkShapes,
    Phase,
    Prune,
    Shrink,
    Start,
    Train,
)

PyTree = Any


class BeforePhase(NamedTuple):
    """A network right before a phase.

    Args:
      network: its shapes.
      layers: FLOPs by layer.
      kept: how many weights of each prunable layer survive, by path.
      steps_per_epoch: of an epoch over all examples.
      begins: the shapes of the network when it started.
      widths: how many units of every group live, as far as one knows; None for all.
    """

    network: NetworkShapes
    layers: Layers
    kept: Kept
    steps_per_epoch: int
    begins: NetworkShapes
    widths: tuple[int, ...] | None = None

    @property
    def units(self) -> UnitTable:
        """The network's units."""
        return units_of(self.network)

    @property
    def dense(self) -> float:
        """FLOPs of one example in the dense network."""
        return float(self.layers.flops.total)

    @property
    def sparse(self) -> float:
        """FLOPs of one example in the network as it is."""
        return self.layers.forward(self.kept)


def units_of(network: NetworkShapes) -> UnitTable:
    """The units of a network."""
    task, params, model_state, x_spec, _ = network
    return find_units(task.apply, params, model_state, x_spec, task.prunable)


class Costs(NamedTuple):
    """What a phase leaves, and what it takes.

    Args:
      kept: how many weights of each prunable layer survive it.
      flops: of one example of every batch, added up over the phase, for one network; None where the
        phase is not worth a line.
      widths: how many units of every group live; None for as many as before.
      network: the smaller network that it leaves; None for the one before.
    """

    kept: Kept
    flops: float | None = None
    widths: tuple[int, ...] | None = None
    network: NetworkShapes | None = None


@functools.singledispatch
def phase_cost(phase: Phase, before: BeforePhase) -> Costs:
    """The costs of a phase; those registered for its class."""
    steps = phase.steps(before.steps_per_epoch)
    return Costs(before.kept, 3 * before.sparse * steps if steps else None)


@phase_cost.register
def _(phase: Start, before: BeforePhase) -> Costs:
    if not phase.sparsity:
        return Costs(before.kept)
    if phase.scores != "random":
        how = {"keep_dense": phase.keep_dense, "structure": phase.structure}
        return phase_cost(Prune(phase.sparsity, phase.scores, **how), before)
    how = (phase.sparsity, phase.distribution, phase.keep_dense)
    budgets = layer_budgets(before.network.prunable, *how)
    if not phase.structure.needs_units:
        return Costs(budgets)
    widths = widths_that_fit(before.units, sum(budgets.values()), budgets)
    return Costs(before.layers.without_units(before.kept, before.units, widths), widths=widths)


@phase_cost.register
def _(phase: Train, before: BeforePhase) -> Costs:
    return evolution_cost(phase.evolve, before, phase.steps(before.steps_per_epoch))


@phase_cost.register
def _(phase: Prune, before: BeforePhase) -> Costs:
    """Where scores look at a batch: a gradient of all weights a round."""
    score = scores.get(phase.scores)
    rounds = 3 * before.dense * (phase.rounds or score.rounds)
    looks = rounds if score.needs_batch else None
    if phase.structure.needs_units:
        return _by_units(before, phase.sparsity)._replace(flops=looks)
    return Costs(before.layers.pruned(before.kept, phase.sparsity, phase.keep_dense), looks)


def _by_units(before: BeforePhase, sparsity: float) -> Costs:
    """What is left where whole units go, the same share of every layer's."""
    if before.layers.ends is not None:
        return Costs(before.layers.pruned(before.kept, sparsity))
    units = before.units
    widths = widths_that_fit(units, num_kept(before.layers.total, sparsity))
    return Costs(before.layers.without_units(before.kept, units, widths), widths=widths)


@phase_cost.register
def _(phase: Shrink, before: BeforePhase) -> Costs:
    """The smaller network, as far as one knows which units are dead."""
    if before.widths is None:
        return Costs(before.kept)
    units, network = before.units, before.network
    alive = np.concatenate(
        [np.arange(size) < width for size, width in zip(units.sizes, before.widths, strict=True)]
    )
    (stays,) = staying_units(units, [~alive], phase.multiple)

    params = cut_shapes(units.params, network.params, stays)
    model_state = cut_shapes(units.model_state, network.model_state, stays)
    prunable = prunable_shapes(params, network.task.prunable)
    smaller = network._replace(params=params, model_state=model_state, prunable=prunable)
    return Costs(before.kept, network=smaller)


@phase_cost.register
def _(phase: Fork, before: BeforePhase) -> Costs:
    if phase.child_sparsity is None:
        return Costs(before.kept)
    task, params, state, x_spec, _ = before.network
    network = (task.apply, params, state, x_spec, task.prunable)
    if phase.unit == "neuron" and before.layers.ends is None:
        units = units_for(*network, phase.keep_dense)
        widths = tuple(num_kept(size, phase.child_sparsity) for size in units.sizes)
        return Costs(before.layers.without_units(before.kept, units, widths), widths=widths)
    keep = kept_dense(phase.keep_dense, *network)
    return Costs(before.layers.pruned(before.kept, phase.child_sparsity, keep))


@phase_cost.register
def _(phase: Escape, before: BeforePhase) -> Costs:
    """One gradient of all weights, where growth looks at it."""
    looks = scores.get(phase.growth).needs_batch
    if phase.structure.needs_units:  # of the network in which all that could come are there
        return Costs(before.kept, 3 * before.dense if looks else 0.0)
    return Costs(before.kept, 2 * before.sparse + before.dense if looks else 0.0)


@functools.singledispatch
def evolution_cost(evolve: MaskEvolution | None, before: BeforePhase, steps: int) -> Costs:
    """The costs of a training whose mask evolves like that: 3 forward passes a step."""
    return Costs(before.kept, 3 * before.sparse * steps)


@evolution_cost.register
def _(evolve: Evolve, before: BeforePhase, steps: int) -> Costs:
    """Evci et al., 2020, appendix H: on the step that grows, the gradient of all weights."""
    sparse, dense = before.sparse, before.dense
    widths = None
    if evolve.channels:
        widths = Channels(before.units, units_of(before.begins)).widths_at(evolve.channels_at(1.0))
    if not scores.get(evolve.growth).needs_batch:
        return Costs(before.kept, 3 * sparse * steps, widths)
    every = evolve.update_every
    if evolve.exchanges_units:
        looks = _looks_at_units(evolve, before, steps)
        return Costs(before.kept, 3 * sparse * steps + looks, widths)
    evolving = (3 * sparse * every + 2 * sparse + dense) / (every + 1)
    mean = evolve.end * evolving + (1 - evolve.end) * 3 * sparse
    return Costs(before.kept, mean * steps, widths)


def _looks_at_units(evolve: Any, before: BeforePhase, steps: int) -> float:
    """FLOPs of the gradients that say which units come: each one of a network that has them all."""
    if not getattr(evolve, "exchanges_units", False):
        return 0.0
    looks = scores.get(evolve.growth).needs_batch
    return 3 * before.dense * evolve.end * steps / evolve.update_every if looks else 0.0


@evolution_cost.register
def _(evolve: Gradual, before: BeforePhase, steps: int) -> Costs:
    flops, kept = before.layers.gradually(before.kept, evolve, steps)
    widths = _by_units(before, evolve.sparsity).widths if evolve.structure.needs_units else None
    return Costs(kept, flops, widths)


def executed_flops(phase: Phase, before: BeforePhase) -> float | None:
    """FLOPs of one example of every batch, added up over the phase, of which none are left out for
    zeros: what dense hardware multiplies.
    """
    if steps := phase.steps(before.steps_per_epoch):
        looks = _looks_at_units(getattr(phase, "evolve", None), before, steps)
        return 3 * before.dense * steps + looks
    return phase_cost(phase, before._replace(kept=dict(before.layers.sizes))).flops
