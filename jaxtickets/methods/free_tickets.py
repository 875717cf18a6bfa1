"""FreeTickets: tickets grown by dynamic sparse training (Liu et al., 2021, arXiv:2106.14568)."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Literal

from jaxtickets.errors import PlanError
from jaxtickets.masks.sparsity import Distribution
from jaxtickets.masks.structure import UNSTRUCTURED, Structure
from jaxtickets.messages import checks
from jaxtickets.plan import (
    SGD,
    Collect,
    Escape,
    Evolve,
    Length,
    Optimizer,
    Phase,
    Plan,
    Shrink,
    Start,
    Train,
    as_length,
)
from jaxtickets.schedules import Constant, Part, Piecewise, Schedule

check = checks.Checks(PlanError)

# Learning rate x 0.1 at epochs 125 and 187 of 250.
STEPS = Piecewise((0.1, 0.01, 0.001), until=(125 / 250, 187 / 250))
OPTIMIZER = SGD(momentum=0.9, weight_decay=5e-4)


def dst(
    members: int = 3,
    sparsity: float = 0.8,
    epochs: float | Length = 250,
    *,
    lr: Schedule = STEPS,
    optimizer: Optimizer = OPTIMIZER,
    distribution: Distribution = "erk",
    update_every: int = 1000,
    drop_fraction: float = 0.5,
    decay: Literal["constant", "cosine", "linear"] = "constant",
    growth: Literal["gradient", "random"] = "gradient",
    regrown: Literal["keep", "zero"] = "keep",
    weight_update: bool = True,
    end: float = 1.0,
    channels: float = 0.0,
    structure: Structure = UNSTRUCTURED,
    batch_size: int = 128,
    collect: Literal["last", "best"] = "last",
    validation: int = 0,
) -> Plan:
    """DST ensemble: `members` sparse networks from scratch that move their masks as they train.

    Each has its own weights, mask and data order.

    Args:
      members: M, how many tickets.
      sparsity: share of zeros, in [0, 1).
      epochs: length of each training; a number of epochs or a `Length`.
      lr: learning rate over the training.
      optimizer: what updates the weights.
      distribution: layer-wise budgets, "erk", "er" or "uniform".
      update_every: Delta T, in steps.
      drop_fraction: share of active weights replaced per mask update.
      decay: its schedule over the training; FreeTickets keeps it constant on CIFAR, and cosine on
        ImageNet.
      growth: "gradient" (RigL) or "random" (SET).
      regrown: whether a weight dropped and grown in one update keeps its value ("keep") or restarts
        ("zero").
      weight_update: also update the weights on such a step.
      end: share of the training after which the mask stays.
      channels: share of the channels that are removed by 80 % of the training, those of the
        smallest mean magnitude, while what they had grows again in those that stay; in two stages
        each network is cut down to what is left, and trains on as that (Yin et al., 2023). The
        tickets are smaller networks.
      structure: what masks may look like; with `jaxtickets.masks.Units()` whole units go and come
        (see `jaxtickets.plan.Evolve`), and the tickets of the last iterates are the smaller
        networks of those that live in the end. Take the distribution "uniform" with them, the same
        share of every layer: by ERK, which is made for single weights, wide layers keep few units.
      batch_size: examples per step.
      collect: the "last" iterate, or the "best" on `validation` held-out examples.
      validation: how many training examples are held out.

    Returns:
      A `Plan`; its cost is compared with one dense run of `epochs`.

    Raises:
      PlanError: an impossible value; says which and what would do.

    >>> print(dst(members=3))
    dst: 3 tickets, 250 epochs x 3 lineages, batch 128
      1. Start(width=3, sparsity=0.8, erk)
      2. Train(250 epochs, lr=(0.1, 0.01 from 50%, 0.001 from 74.8%), \
optimizer=SGD(weight_decay=0.0005), evolve=Evolve(update_every=1000))
      3. Collect()

    References:
      Liu et al., 2021, section 3.2.1 and appendix A.

    Differs:
      The authors' code collects the best checkpoint on a validation split; that is `collect="best",
      validation=5000`.
    """
    length = as_length(epochs, "epochs")
    how = (update_every, drop_fraction, decay, growth, regrown, weight_update, end, structure)
    evolve = Evolve(*how, channels=channels)
    phases = (
        Start(members, sparsity, distribution, structure=structure),
        *in_stages(Train(length, lr, optimizer, evolve)),
        # The best is that of the training right before it.
        *(cut_out(structure) if collect == "last" else []),
        Collect(collect),
    )
    return Plan("dst", phases, batch_size, reference=length, validation=validation)


def edst(
    members: int = 3,
    sparsity: float = 0.8,
    explore: float | Length = 150,
    refine: float | Length = 100,
    *,
    lr: float | Schedule = 0.1,
    refine_lr: tuple[float, float] | Schedule = (0.01, 0.001),
    escape: float = 0.8,
    optimizer: Optimizer = OPTIMIZER,
    distribution: Distribution = "erk",
    update_every: int = 1000,
    drop_fraction: float = 0.5,
    decay: Literal["constant", "cosine", "linear"] = "constant",
    growth: Literal["gradient", "random"] = "gradient",
    regrown: Literal["keep", "zero"] = "keep",
    weight_update: bool = True,
    channels: float = 0.0,
    structure: Structure = UNSTRUCTURED,
    batch_size: int = 128,
    collect: Literal["last", "best"] = "last",
    validation: int = 0,
) -> Plan:
    """EDST ensemble: several tickets from one sparse run.

    The run explores, then refines, collects and escapes `members` times.

    Args:
      members: M, how many tickets come out of the run.
      sparsity: share of zeros, in [0, 1).
      explore: length of the exploration at the large learning rate; 0 leaves it out (the paper's
        ablation).
      refine: length of each refinement.
      lr: learning rate of the exploration, or its schedule.
      refine_lr: learning rates of the first and the second half of a refinement, or the schedule of
        each.
      escape: q, the drop fraction of the global exploration between two refinements (M - 1 times).
      optimizer: what updates the weights; its moments live on from phase to phase.
      distribution: layer-wise budgets, "erk", "er" or "uniform".
      update_every: Delta T, in steps of the whole run.
      drop_fraction: share of active weights replaced per mask update.
      decay: its schedule over each phase.
      growth: "gradient" (RigL) or "random" (SET), for mask updates and escapes.
      regrown: whether a weight dropped and grown in one update keeps its value ("keep") or restarts
        ("zero").
      weight_update: also update the weights on such a step.
      channels: share of the channels that are removed during the exploration (see `dst`), which
        refinements go on without: the run explores wide, and refines small networks.
      structure: what masks may look like; with `jaxtickets.masks.Units()` whole units go and come,
        in escapes too. The tickets are as wide as the run, whose units they share:
        `jaxtickets.shrink` makes each the smaller network that it is. As for the distribution, see
        `dst`.
      batch_size: examples per step.
      collect: the "last" iterate of each refinement, or the "best" on `validation` held-out
        examples.
      validation: how many training examples are held out.

    Returns:
      A `Plan`; its cost is compared with one dense run of `explore + refine`, 250 epochs in the
      paper.

    Raises:
      PlanError: an impossible value; says which and what would do.

    >>> print(edst(members=2))
    edst: 2 tickets, 350 epochs, batch 128
      1. Start(width=1, sparsity=0.8, erk)
      2. Train(150 epochs, lr=0.1, optimizer=SGD(weight_decay=0.0005), \
evolve=Evolve(update_every=1000))
      3. Train(100 epochs, lr=(0.01, 0.001 from 50%), optimizer=SGD(weight_decay=0.0005), \
evolve=Evolve(update_every=1000))
      4. Collect()
      5. Escape()
      6. Train(100 epochs, lr=(0.01, 0.001 from 50%), optimizer=SGD(weight_decay=0.0005), \
evolve=Evolve(update_every=1000))
      7. Collect()

    References:
      Liu et al., 2021, section 3.2.2 and algorithm 2.

    Differs:
      The authors' code collects the best checkpoint on a validation split; that is `collect="best",
      validation=5000`.
    """
    members, refine_lr, lr, explore = map(checks.plain, (members, refine_lr, lr, explore))
    check.positive_int("members", members, most=checks.MOST)
    how = (update_every, drop_fraction, decay, growth, regrown, weight_update)
    evolve = Evolve(*how, structure=structure)
    if not isinstance(lr, Schedule):
        check.non_negative("lr, a learning rate or a schedule,", lr)
    if not isinstance(refine_lr, Schedule):
        pair = refine_lr if isinstance(refine_lr, tuple | list) and len(refine_lr) == 2 else (None,)
        if not all(rate is not None and checks.is_number(rate) and rate >= 0 for rate in pair):
            raise PlanError(
                "refine_lr is a pair of learning rates, one for each half, or a schedule; got"
                f" {checks.shown(refine_lr)}."
            )
    refine_rates = (
        refine_lr if isinstance(refine_lr, Schedule) else Piecewise(refine_lr, until=(0.5,))
    )
    refining = Train(as_length(refine, "refine"), refine_rates, optimizer, evolve)
    phases: list[Phase] = [Start(1, sparsity, distribution, structure=structure)]
    reference = refining.length
    if not checks.is_zero(explore):
        exploring = dataclasses.replace(
            refining,
            length=as_length(explore, "explore"),
            lr=lr if isinstance(lr, Schedule) else Constant(lr),
        )
        if channels:
            removing = dataclasses.replace(evolve, channels=channels)
            phases += in_stages(dataclasses.replace(exploring, evolve=removing))
        else:
            phases.append(exploring)
        if exploring.length.unit == refining.length.unit:
            reference = Length(
                exploring.length.amount + refining.length.amount, refining.length.unit
            )
    elif channels:
        raise PlanError("channels are removed during the exploration, and explore=0 has none.")
    for ticket in range(members):
        if ticket:
            phases.append(Escape(escape, growth, regrown, structure))
        phases += [refining, Collect(collect)]
    return Plan("edst", tuple(phases), batch_size, reference=reference, validation=validation)


def cut_out(structure: Structure) -> list[Phase]:
    """What follows a mask of that structure: units that it leaves dead are cut out, where it prunes
    whole ones.
    """
    return [Shrink()] if isinstance(structure, Structure) and structure.needs_units else []


def in_stages(training: Train) -> list[Phase]:
    """A training whose evolution removes channels, with what is dead cut out half way there, and
    when all are gone; any other as it is.

    >>> stages = in_stages(Train(Length(10), evolve=Evolve(channels=0.4)))
    >>> [str(stage.length) for stage in stages if isinstance(stage, Train)]
    ['4 epochs', '4 epochs', '2 epochs']
    """
    evolve = training.evolve
    if not isinstance(evolve, Evolve) or not evolve.channels:
        return [training]
    ends = [evolve.channels_by / 2, evolve.channels_by, 1.0]
    stages: list[Phase] = []
    for begin, end in itertools.pairwise(dict.fromkeys([0.0, *ends])):
        stage = dataclasses.replace(
            training,
            length=_between(training.length, begin, end),
            lr=training.lr if isinstance(training.lr, Constant) else Part(training.lr, begin, end),
            evolve=dataclasses.replace(evolve, span=(begin, end)),
        )
        stages += [stage, Shrink()] if end <= evolve.channels_by else [stage]
    return stages


def _between(length: Length, begin: float, end: float) -> Length:
    """The part of a length between two shares of it; parts add up to the whole."""
    if length.unit == "steps":
        return Length(round(end * length.amount) - round(begin * length.amount), "steps")
    return Length(round((end - begin) * length.amount, 9))
