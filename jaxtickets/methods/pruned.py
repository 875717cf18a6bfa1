"""Ensembles pruned by magnitude: lottery ticket rewinding (LTR), and prune and fine-tune (PF)."""

from __future__ import annotations

from typing import Literal

from jaxtickets.errors import PlanError
from jaxtickets.masks.structure import UNSTRUCTURED, Structure
from jaxtickets.messages import checks
from jaxtickets.methods.free_tickets import OPTIMIZER, STEPS, cut_out
from jaxtickets.plan import (
    Collect,
    Fork,
    Gradual,
    Length,
    Optimizer,
    Plan,
    Prune,
    Remember,
    Rewind,
    Start,
    Train,
    as_length,
)
from jaxtickets.schedules import Constant, Part, Schedule, check_schedule

check = checks.Checks(PlanError)

FINETUNE = Constant(0.001)


def ltr(
    members: int = 3,
    sparsity: float = 0.8,
    epochs: float | Length = 250,
    *,
    rewind_to: float = 0.05,
    lr: Schedule = STEPS,
    optimizer: Optimizer = OPTIMIZER,
    end: float = 0.75,
    update_every: int = 1000,
    scope: Literal["layerwise", "global"] = "global",
    structure: Structure = UNSTRUCTURED,
    scores: str = "magnitude",
    batch_size: int = 128,
    collect: Literal["last", "best"] = "last",
    validation: int = 0,
) -> Plan:
    """Lottery ticket rewinding: one mask, trained `members` times from early weights.

    The mask is found by gradual magnitude pruning.

    A dense network is trained and pruned along the cubic schedule. The survivors go back to what
    they were after `rewind_to` of the training, and are trained from there with `members` keys: the
    members share one mask and differ in data order.

    Args:
      members: M, how many tickets.
      sparsity: share of zeros at the end of the pruning, in (0, 1).
      epochs: length of a whole training.
      rewind_to: share of the training to rewind to.
      lr: learning rate over a whole training.
      optimizer: what updates the weights; its moments start at 0 after the rewind.
      end: share of the pruning run from which the sparsity is reached.
      update_every: steps between prunings.
      scope: one threshold for all layers ("global"), or the same share in each ("layerwise").
      structure: what the mask may look like; with `jaxtickets.masks.Units()` whole units go and are
        cut out at once, and what follows trains the smaller network. (Blocks stay masked: put a
        `jaxtickets.plan.Pack` after what prunes them.)
      scores: what is kept, the largest "magnitude" or another score (see `jaxtickets.scores`).
      batch_size: examples per step.
      collect: the "last" iterate, or the "best" on `validation` held-out examples.
      validation: how many training examples are held out.

    Returns:
      A `Plan`; its cost is compared with one dense run of `epochs`.

    Raises:
      PlanError: an impossible value; says which and what would do.

    >>> print(ltr())
    ltr: 3 tickets, 250 epochs + 3 x 237.5 epochs, batch 128
      1. Start(width=1, sparsity=0)
      2. Train(12.5 epochs, lr=(0.1, 0.01 from 50%, 0.001 from 74.8%) from 0% to 5%, \
optimizer=SGD(weight_decay=0.0005))
      3. Remember(name='early')
      4. Train(237.5 epochs, lr=(0.1, 0.01 from 50%, 0.001 from 74.8%) from 5% to 100%, \
optimizer=SGD(weight_decay=0.0005), \
evolve=Gradual(sparsity=0.8, scope='global'))
      5. Fork(members=3, masks='parent')
      6. Rewind(name='early')
      7. Train(237.5 epochs, lr=(0.1, 0.01 from 50%, 0.001 from 74.8%) from 5% to 100%, \
optimizer=SGD(weight_decay=0.0005))
      8. Collect()

    References:
      Frankle et al., 2020, arXiv:1912.05671 (rewinding); Zhu and Gupta, 2017, arXiv:1710.01878
      (pruning); Liu et al., 2021, arXiv:2106.14568, appendix A (this ensemble).

    Differs:
      FreeTickets does not say when its pruning ends or how the sparsity is spread: here at three
        quarters of the run, as RigL's
      comparisons do, by one global threshold.
    """
    rewind_to = checks.plain(rewind_to)
    check.fraction("rewind_to", rewind_to, "a share of the training, ", ends="()")
    check_schedule("lr", lr, but=Part)
    length = as_length(epochs, "epochs")
    early, remaining = _share(length, rewind_to), _share(length, 1 - rewind_to)
    later = Part(lr, rewind_to, 1)
    phases = (
        Start(),
        Train(early, Part(lr, 0, rewind_to), optimizer),
        Remember("early"),
        Train(
            remaining,
            later,
            optimizer,
            Gradual(
                sparsity,
                end=end,
                update_every=update_every,
                scope=scope,
                scores=scores,
                structure=structure,
            ),
        ),
        *cut_out(structure),
        Fork(members, "parent"),
        Rewind("early"),
        Train(remaining, later, optimizer),
        Collect(collect),
    )
    return Plan("ltr", phases, batch_size, reference=length, validation=validation)


def prune_finetune(
    members: int = 3,
    sparsity: float = 0.8,
    epochs: float | Length = 250,
    finetune: float | Length = 250,
    *,
    lr: Schedule = STEPS,
    finetune_lr: Schedule = FINETUNE,
    optimizer: Optimizer = OPTIMIZER,
    scope: Literal["layerwise", "global"] = "global",
    structure: Structure = UNSTRUCTURED,
    scores: str = "magnitude",
    batch_size: int = 128,
    collect: Literal["last", "best"] = "last",
    validation: int = 0,
) -> Plan:
    """Prune and fine-tune (PF): dense networks, pruned by magnitude and trained on.

    Each is trained, pruned once and trained on; their masks differ.

    Args:
      members: M, how many networks.
      sparsity: share of zeros, in (0, 1).
      epochs: length of each dense training.
      finetune: length of each fine-tuning.
      lr: learning rate over a dense training.
      finetune_lr: learning rate over a fine-tuning.
      optimizer: what updates the weights; its moments live on.
      scope: one threshold for all layers ("global"), or the same share in each ("layerwise").
      structure: what the mask may look like; with `jaxtickets.masks.Units()` whole units go and are
        cut out at once, and what follows trains the smaller network. (Blocks stay masked: put a
        `jaxtickets.plan.Pack` after what prunes them.)
      scores: what is kept, the largest "magnitude" or another score (see `jaxtickets.scores`).
      batch_size: examples per step.
      collect: the "last" iterate, or the "best" on `validation` held-out examples.
      validation: how many training examples are held out.

    Returns:
      A `Plan`; its cost is compared with one dense run of `epochs`.

    Raises:
      PlanError: an impossible value; says which and what would do.

    >>> print(prune_finetune())
    prune_finetune: 3 tickets, 500 epochs x 3 lineages, batch 128
      1. Start(width=3, sparsity=0)
      2. Train(250 epochs, lr=(0.1, 0.01 from 50%, 0.001 from 74.8%), \
optimizer=SGD(weight_decay=0.0005))
      3. Prune(sparsity=0.8)
      4. Train(250 epochs, lr=0.001, optimizer=SGD(weight_decay=0.0005))
      5. Collect()

    References:
      Liu et al., 2021, arXiv:2106.14568, appendix A (PF ensemble).
    """
    length = as_length(epochs, "epochs")
    phases = (
        Start(members),
        Train(length, lr, optimizer),
        Prune(sparsity, scores, scope, structure=structure),
        *cut_out(structure),
        Train(as_length(finetune, "finetune"), finetune_lr, optimizer),
        Collect(collect),
    )
    return Plan("prune_finetune", phases, batch_size, reference=length, validation=validation)


def _share(length: Length, share: float) -> Length:
    """A share of a length, in the length's unit."""
    amount = round(length.amount * share, 9)
    return Length(amount) if length.unit == "epochs" else Length(max(1, round(amount)), "steps")
