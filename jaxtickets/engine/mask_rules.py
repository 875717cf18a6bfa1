"""How a mask changes inside a training step: one function for every kind of evolution.

    @mask_rule.register
    def _(evolve: MyEvolution, step): ...

makes a plan's `Train(evolve=MyEvolution(...))` work; `evolve` is what `compiled_for` leaves of it.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxtickets.engine.state import Lineage, StepHyperparams
from jaxtickets.masks.channels import Channels
from jaxtickets.masks.scores import ScoreInputs
from jaxtickets.masks.scores import get as get_score
from jaxtickets.masks.sparsity import cubic
from jaxtickets.masks.whole_units import Units
from jaxtickets.plan import Evolve, Gradual, MaskEvolution
from jaxtickets.transforms import evolve_if, exchange_units_if, prune_if, remove_channels_if

PyTree = Any


class EvolvingStep(NamedTuple):
    """What a mask rule looks at, of one network in one training step.

    Args:
      lineage: the network before the step.
      grads: gradient of the batch's loss with respect to all weights.
      key: the network's own key for drawing, to be folded with the step.
      hyper: what changes from step to step.
      loss: params to the mean loss of the batch, for scores that ask for it.
      fresh: a key to the params and model state of a network at its beginning.
      sizes: how many weights each leaf of the params had when the network started; None for as many
        as now.
    """

    lineage: Lineage
    grads: PyTree
    key: jax.Array
    hyper: StepHyperparams
    loss: Callable[[PyTree], jax.Array]
    fresh: Callable[[jax.Array], tuple[PyTree, PyTree]]
    sizes: tuple[int, ...] | None = None


class MaskRule(NamedTuple):
    """What happens to a mask in a training step.

    Args:
      next_mask: as `masked_step` asks for it: takes a function that computes the weights after the
        update, and its argument; gives `(mask, survivors)`.
      no_update: a traced bool: leave the weights as they are in this step.
      grows: whether weights can come that were never active before.
      renewed: takes the network after the step, and its optimizer; gives what becomes of it, where
        not weights alone go and come.
    """

    next_mask: Callable[[Callable[[PyTree], PyTree], PyTree], tuple[PyTree, PyTree]] | None = None
    no_update: jax.Array | None = None
    grows: bool = False
    renewed: Callable[[Lineage, optax.GradientTransformation], Lineage] | None = None


class Removing(NamedTuple):
    """An evolution that removes channels, of one network whose channels these are."""

    how: Evolve
    channels: Channels


class GradualSteps(NamedTuple):
    """A gradual pruning in steps of the lineage, counted from 1; `initial` is the sparsity before
    it.
    """

    how: Gradual
    begin: int
    end: int
    initial: float


class RemovingSteps(NamedTuple):
    """A prune-grow that removes channels, in a phase of `steps` steps after `before` others."""

    how: Evolve
    channels: Channels
    before: int
    steps: int


@functools.singledispatch
def compiled_for(evolve: MaskEvolution | None, steps: int, before: int, sparsity: float) -> Any:
    """What of an evolution a program is compiled for: not what enters as a number.

    Args:
      evolve: of a training phase.
      steps: of the phase.
      before: steps that the network has taken before it.
      sparsity: share of zeros before it.
    """
    return evolve


@compiled_for.register
def _(evolve: Evolve, steps: int, before: int, sparsity: float) -> Evolve:
    return dataclasses.replace(evolve, drop_fraction=0.0, decay="constant", end=1.0)


@compiled_for.register
def _(evolve: Removing, steps: int, before: int, sparsity: float) -> RemovingSteps:
    how = dataclasses.replace(evolve.how, drop_fraction=0.0, decay="constant", end=1.0)
    return RemovingSteps(how, evolve.channels, before, steps)


@compiled_for.register
def _(evolve: Gradual, steps: int, before: int, sparsity: float) -> GradualSteps:
    begin, end = evolve.steps(steps)
    return GradualSteps(evolve, before + begin, before + end, sparsity)


@functools.singledispatch
def mask_rule(evolve: Any, step: EvolvingStep) -> MaskRule:
    """The rule of an evolution; a mask that does not evolve stays as it is."""
    if evolve is not None:
        kind = type(evolve).__name__
        raise NotImplementedError(
            f"{kind}: register what it does with jaxtickets.engine.mask_rule."
        )
    return MaskRule()


@mask_rule.register
def _(evolve: Evolve, step: EvolvingStep) -> MaskRule:
    """Prune-grow every so many steps of the lineage: transforms.prune_grow counts them alike."""
    taken = step.lineage.step + 1
    due = taken % evolve.update_every == 0
    fraction = jnp.clip(jnp.asarray(step.hyper.drop_fraction, jnp.float32), 0, 1)
    if isinstance(evolve.structure, Units):
        return _unit_rule(evolve, evolve.structure, step, due, fraction)
    loss = step.loss if "loss" in get_score(evolve.growth).needs else None
    how = (evolve.growth, evolve.regrown, None, evolve.structure, "auto", loss)
    key = (step.key, taken)
    next_mask = functools.partial(evolve_if, due, step.lineage.mask, step.grads, fraction, key, how)
    return MaskRule(next_mask, None if evolve.weight_update else due, grows=True)


def _unit_rule(
    evolve: Evolve, structure: Units, step: EvolvingStep, due: jax.Array, fraction: jax.Array
) -> MaskRule:
    """After a step that is due some units go and others come, with all that is theirs."""
    how = (structure.known, step.fresh, evolve.growth, step.loss)
    key = (step.key, step.lineage.step + 1)

    def renewed(after: Lineage, tx: optax.GradientTransformation) -> Lineage:
        network = (after.mask, after.params, after.model_state, after.moments)
        mask, params, state, moments = exchange_units_if(due, network, tx, fraction, key, how)
        return after._replace(mask=mask, params=params, model_state=state, moments=moments)

    return MaskRule(None, None if evolve.weight_update else due, grows=True, renewed=renewed)


@mask_rule.register
def _(evolve: RemovingSteps, step: EvolvingStep) -> MaskRule:
    """As `Evolve`; every update removes what is due until the next one."""
    how, taken = evolve.how, step.lineage.step + 1
    due = taken % how.update_every == 0
    fraction = jnp.clip(jnp.asarray(step.hyper.drop_fraction, jnp.float32), 0, 1)
    then = jnp.minimum(taken + how.update_every, evolve.before + evolve.steps)
    share = how.channels_at((then - evolve.before).astype(jnp.float32) / evolve.steps)
    loss = step.loss if "loss" in get_score(how.growth).needs else None
    options = (evolve.channels, get_score(how.growth), how.regrown, loss)
    moving = (step.lineage.mask, step.grads, fraction, share, (step.key, taken), options)
    next_mask = functools.partial(remove_channels_if, due, *moving)
    return MaskRule(next_mask, None if how.weight_update else due, grows=True)


@mask_rule.register
def _(evolve: GradualSteps, step: EvolvingStep) -> MaskRule:
    """Magnitude pruning to the sparsity of the moment, transforms.gradual_pruning's schedule."""
    how, now = evolve.how, step.lineage.step + 1  # counted from 1 here
    at_end = now == evolve.end
    due = (now <= evolve.end) & ((now - evolve.begin) % how.update_every == 0)
    due = (now >= evolve.begin) & (due | at_end)
    sparsity = cubic(how.sparsity, evolve.begin, evolve.end, evolve.initial)(now)
    target = jnp.asarray(sparsity, jnp.float32)
    score, key = get_score(how.scores), jax.random.fold_in(step.key, now)

    def scored(params: PyTree) -> PyTree:
        return score(ScoreInputs(params, step.lineage.mask, step.grads, key, step.loss))

    next_mask = functools.partial(
        prune_if,
        due,
        step.lineage.mask,
        target,
        how.scope,
        None,
        structure=how.structure,
        scores=scored,
        sizes=step.sizes,
    )
    return MaskRule(next_mask)
