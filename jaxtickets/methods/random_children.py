"""Prune and Tune: children cut at random from one trained parent.

Whitaker and Whitley, 2022, arXiv:2202.11782.
"""

from __future__ import annotations

from typing import Literal

from jaxtickets.messages import checks
from jaxtickets.plan import (
    SGD,
    Collect,
    Fork,
    Length,
    Optimizer,
    Phase,
    Plan,
    PlanError,
    Shrink,
    Start,
    Train,
    as_length,
)
from jaxtickets.schedules import Constant, OneCycle, Polyline, Schedule, check_schedule

# 0.1 for half of the parent's training, along a line to 0.001 at 90 %, and on.
PARENT = Polyline((0.1, 0.1, 0.001, 0.001), at=(0, 0.5, 0.9, 1))
NESTEROV = SGD(momentum=0.9, nesterov=True, weight_decay=5e-4)
ONE_CYCLE = OneCycle(low=0.001, high=0.1, final=1e-7, rise=0.1)


def prune_and_tune(
    members: int = 6,
    parent: float | Length = 140,
    tune: float | Length = 10,
    *,
    masks: Literal["random", "anti_random", "partition"] = "anti_random",
    sparsity: float | None = None,
    unit: Literal["connection", "neuron"] = "connection",
    scope: Literal["layerwise", "global"] = "layerwise",
    keep_dense: tuple[str, ...] | None = None,
    shrink: bool = True,
    lr: Schedule = PARENT,
    tune_lr: Schedule | Literal["one_cycle", "constant"] = "one_cycle",
    tune_momentum: Schedule | None = None,
    bag: float = 1.0,
    optimizer: Optimizer = NESTEROV,
    batch_size: int = 128,
    collect: Literal["last", "best"] = "last",
    validation: int = 0,
) -> Plan:
    """Prune and Tune ensemble: copies of one trained parent, pruned at random and tuned.

    Args:
      members: M, how many children.
      parent: length of the parent's training; 0 for a parent trained elsewhere, given as `fit(...,
        start_from=parent)`.
      tune: length of each child's tuning.
      masks: "random", "anti_random" (pairs of a mask at 50 % and its complement: an even number of
        members) or "partition" (each child has its own 1 / members of the weights).
      sparsity: share of zeros of random masks, 0.5 if None; given by the kind of masks otherwise.
      unit: prune "connection" (weights) or "neuron" (whole units).
      scope: "layerwise" (the same share in every layer) or "global".
      keep_dense: path patterns of layers that are not pruned; None for the last, which is found by
        following the network's operations.
      shrink: whether children of whole units are tuned, and collected, as the smaller networks that
        they are (see `jaxtickets.plan.Shrink`); False leaves their units masked. Of connections
        nothing is cut out.
      lr: learning rate over the parent's training.
      tune_lr: learning rate over a tuning: "one_cycle" (0.001 up to 0.1 over the first 10 %, down
        to 1e-7), "constant" (the parent's last one), or a schedule.
      tune_momentum: SGD's momentum over a tuning, such as `OneCycle(0.95, 0.85, 0.95)`; fixed if
        None.
      bag: share of the data that each child is tuned on, its own random sample; the paper's bagging
        takes 0.9.
      optimizer: what updates the weights; a child's moments start at 0.
      batch_size: examples per step.
      collect: the "last" iterate of each child, or the "best" on `validation` held-out examples.
      validation: how many training examples are held out.

    Returns:
      A `Plan`; its cost is compared with one dense run of `parent + members * tune` epochs, 200 in
      the paper. The parent is no member of the ensemble.

    Raises:
      PlanError: an odd number of members for anti-random pairs, or another sparsity than theirs;
        any impossible value.

    >>> print(prune_and_tune())
    prune_and_tune: 6 tickets, 140 epochs + 6 x 10 epochs, batch 128
      1. Start(width=1, sparsity=0)
      2. Train(140 epochs, lr=(0.1 at 0%, 0.1 at 50%, 0.001 at 90%, 0.001 at 100%), \
optimizer=SGD(nesterov=True, weight_decay=0.0005))
      3. Fork(members=6, masks='anti_random')
      4. Train(10 epochs, lr=one cycle (0.001 to 0.1 over 10%, to 1e-07), \
optimizer=SGD(nesterov=True, weight_decay=0.0005))
      5. Collect()

    References:
      Whitaker and Whitley, 2022, "Prune and Tune Ensembles" and "Experimental Configurations".

    Differs:
      Predictions are the mean of the children's probabilities, as in the paper; the authors'
      evaluation averages logits and includes the parent. Momentum stays fixed; their code cycles it
      between .95 and .85, a default of its library.
    """
    check_schedule("lr", lr)
    checks.Checks(PlanError).flag("shrink", shrink)
    members, parent = checks.plain((members, parent))
    if isinstance(tune_lr, str) and tune_lr == "constant":
        tuning: Schedule = Constant(lr(99_999, 100_000))
    elif isinstance(tune_lr, str) and tune_lr == "one_cycle":
        tuning = ONE_CYCLE
    elif not isinstance(tune_lr, Schedule):
        raise PlanError(
            f"tune_lr is 'one_cycle', 'constant' or a schedule; got {checks.shown(tune_lr)}."
        )
    else:
        tuning = tune_lr
    phases: list[Phase] = [Start()]
    length = as_length(tune, "tune")
    reference = (
        Length(members * length.amount, length.unit)
        if checks.is_int(members) and 0 < members <= checks.MOST
        else length
    )
    if not checks.is_zero(parent):
        trained = as_length(parent, "parent")
        phases.append(Train(trained, lr, optimizer))
        if trained.unit == length.unit:
            reference = Length(trained.amount + reference.amount, length.unit)
    fork = Fork(members, masks, sparsity, unit, scope, keep_dense)
    phases += [
        fork,
        *([Shrink()] if unit == "neuron" and shrink else []),
        Train(length, tuning, optimizer, bag=bag, momentum=tune_momentum),
        Collect(collect),
    ]
    return Plan(
        "prune_and_tune", tuple(phases), batch_size, reference=reference, validation=validation
    )
