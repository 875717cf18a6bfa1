"""Plans of the baselines that the papers compare with: dense, bagged and static sparse."""

from __future__ import annotations

from typing import Literal

from jaxtickets.masks.sparsity import Distribution
from jaxtickets.methods.free_tickets import OPTIMIZER, STEPS
from jaxtickets.plan import Collect, Length, Optimizer, Plan, Start, Train, as_length
from jaxtickets.schedules import Schedule


def dense(
    members: int = 1,
    epochs: float | Length = 250,
    *,
    lr: Schedule = STEPS,
    optimizer: Optimizer = OPTIMIZER,
    batch_size: int = 128,
    collect: Literal["last", "best"] = "last",
    validation: int = 0,
) -> Plan:
    """One dense network, or a dense ensemble of `members`.

    The ensemble is that of Lakshminarayanan et al., 2017, arXiv:1612.01474.

    Args:
      members: how many, each with its own weights and data order.
      epochs: length of each training.
      lr: learning rate over the training.
      optimizer: what updates the weights.
      batch_size: examples per step.
      collect: the "last" iterate, or the "best" on `validation` held-out examples.
      validation: how many training examples are held out.

    >>> print(dense(members=4))
    dense: 4 tickets, 250 epochs x 4 lineages, batch 128
      1. Start(width=4, sparsity=0)
      2. Train(250 epochs, lr=(0.1, 0.01 from 50%, 0.001 from 74.8%), \
optimizer=SGD(weight_decay=0.0005))
      3. Collect()
    """
    length = as_length(epochs, "epochs")
    phases = (Start(members), Train(length, lr, optimizer), Collect(collect))
    return Plan("dense", phases, batch_size, reference=length, validation=validation)


def bagged(
    members: int = 8,
    epochs: float | Length = 2,
    *,
    bag: float = 0.9,
    lr: Schedule = STEPS,
    optimizer: Optimizer = OPTIMIZER,
    batch_size: int = 128,
    collect: Literal["last", "best"] = "last",
    validation: int = 0,
) -> Plan:
    """A bagged ensemble: dense networks, each trained on its own random share of the data.

    Breiman, 1996.

    Args:
      members: how many networks.
      epochs: length of each training; an epoch is one pass over the member's own bag.
      bag: share of the training examples in a bag, drawn without replacement.
      lr: learning rate over the training.
      optimizer: what updates the weights.
      batch_size: examples per step.
      collect: the "last" iterate, or the "best" on `validation` held-out examples.
      validation: how many training examples are held out.

    Returns:
      A `Plan`; its cost is compared with one dense run of `members * epochs`.

    >>> print(bagged())
    bagged: 8 tickets, 2 epochs x 8 lineages, batch 128
      1. Start(width=8, sparsity=0)
      2. Train(2 epochs, lr=(0.1, 0.01 from 50%, 0.001 from 74.8%), \
optimizer=SGD(weight_decay=0.0005), bag=0.9)
      3. Collect()

    References:
      Whitaker and Whitley, 2022, arXiv:2202.11782, "Comparisons for Small Training Budgets": 8
      networks, 90 % samples.
    """
    length = as_length(epochs, "epochs")
    phases = (Start(members), Train(length, lr, optimizer, bag=bag), Collect(collect))
    members = phases[0].width
    return Plan(
        "bagged", phases, batch_size, Length(members * length.amount, length.unit), validation
    )


def static_sparse(
    members: int = 3,
    sparsity: float = 0.8,
    epochs: float | Length = 250,
    *,
    lr: Schedule = STEPS,
    optimizer: Optimizer = OPTIMIZER,
    distribution: Distribution = "erk",
    batch_size: int = 128,
    collect: Literal["last", "best"] = "last",
    validation: int = 0,
) -> Plan:
    """A static sparse ensemble: as `dst`, with the random first mask to the end.

    Args:
      members: how many, each with its own weights, mask and data order.
      sparsity: share of zeros, in [0, 1).
      epochs: length of each training.
      lr: learning rate over the training.
      optimizer: what updates the weights.
      distribution: layer-wise budgets, "erk", "er" or "uniform".
      batch_size: examples per step.
      collect: the "last" iterate, or the "best" on `validation` held-out examples.
      validation: how many training examples are held out.

    References:
      Liu et al., 2021, arXiv:2106.14568, table 1 (static sparse ensemble).
    """
    length = as_length(epochs, "epochs")
    phases = (
        Start(members, sparsity, distribution),
        Train(length, lr, optimizer),
        Collect(collect),
    )
    return Plan("static_sparse", phases, batch_size, reference=length, validation=validation)
