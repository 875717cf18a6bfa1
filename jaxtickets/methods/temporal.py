"""Ensembles collected along one dense run: Snapshot, and fast geometric ensembling (FGE)."""

from __future__ import annotations

from typing import Literal

from jaxtickets.errors import PlanError
from jaxtickets.messages import checks
from jaxtickets.methods.random_children import NESTEROV, PARENT
from jaxtickets.plan import (
    Collect,
    Length,
    Optimizer,
    Phase,
    Plan,
    Remember,
    Rewind,
    Start,
    Train,
    as_length,
)
from jaxtickets.schedules import Cosine, Linear, Part, Schedule, check_schedule

check = checks.Checks(PlanError)


def snapshot(
    members: int = 5,
    epochs: float | Length = 200,
    *,
    cycle: float | Length | None = None,
    lr: float = 0.1,
    optimizer: Optimizer = NESTEROV,
    batch_size: int = 128,
    collect: Literal["last", "best"] = "last",
    validation: int = 0,
) -> Plan:
    """Snapshot ensemble: the networks at the ends of the cosine cycles of one run.

    At step t (from 1) of T, in a cycle of n = T / M steps, the learning rate is
    lr / 2 (cos(pi mod(t - 1, n) / n) + 1): it restarts at `lr` and comes near 0 at the cycle's last
    step.

    Args:
      members: M, how many cycles.
      epochs: T, the budget: all cycles together.
      cycle: length of a cycle; `epochs / members` if None. What the budget has left after `members`
        of them is not used.
      lr: learning rate at the start of each cycle.
      optimizer: what updates the weights; its moments live on from cycle to cycle.
      batch_size: examples per step.
      collect: the "last" iterate of each cycle, or the "best" on `validation` held-out examples.
      validation: how many training examples are held out.

    Returns:
      A `Plan`; its cost is compared with one dense run of `epochs`.

    Raises:
      PlanError: cycles longer than the budget; any impossible value.

    >>> print(snapshot(members=2, epochs=80))
    snapshot: 2 tickets, 80 epochs, batch 128
      1. Start(width=1, sparsity=0)
      2. Train(40 epochs, lr=0.1 to 0 (cosine), optimizer=SGD(nesterov=True, weight_decay=0.0005))
      3. Collect()
      4. Train(40 epochs, lr=0.1 to 0 (cosine), optimizer=SGD(nesterov=True, weight_decay=0.0005))
      5. Collect()

    References:
      Huang et al., 2017, arXiv:1704.00109, equation 2.
    """
    members = checks.plain(members)
    check.positive_int("members", members, most=checks.MOST)
    check.non_negative("lr, the learning rate at the start of each cycle,", lr)
    budget = as_length(epochs, "epochs")
    cycle_length = _divide(budget, members) if cycle is None else as_length(cycle, "cycle")
    _within(cycle_length, members, budget, "cycle")
    phases: list[Phase] = [Start()]
    for _ in range(members):
        phases += [Train(cycle_length, Cosine(lr, 0.0, reached=False), optimizer), Collect(collect)]
    return Plan("snapshot", tuple(phases), batch_size, reference=budget, validation=validation)


def fge(
    members: int = 12,
    epochs: float | Length = 200,
    *,
    starts: tuple[float, ...] = (0.6, 0.78),
    cycle: float | Length = 4,
    high: float = 0.05,
    low: float = 0.0005,
    lr: Schedule = PARENT,
    optimizer: Optimizer = NESTEROV,
    batch_size: int = 128,
    collect: Literal["last", "best"] = "last",
    validation: int = 0,
) -> Plan:
    """Fast geometric ensembling: the minima of short triangular cycles from points of one run.

    A run is trained along `lr`, whose whole is `epochs`, to the last of `starts`. From each of
    those points the learning rate falls from `high` to `low` over half a cycle, where the network
    is collected, and rises again.

    Args:
      members: M, shared equally among the starts.
      epochs: the budget, of which the pre-training takes the share up to the last start.
      starts: shares of the budget at which the pre-training's network is taken, in rising order:
        epochs 120 and 156 of 200.
      cycle: c, the length of a cycle.
      high: learning rate at a cycle's ends.
      low: learning rate at its middle.
      lr: learning rate of the pre-training, over the whole budget.
      optimizer: what updates the weights; its moments live on, and start at 0 at an earlier start.
      batch_size: examples per step.
      collect: the "last" iterate, or the "best" on `validation` held-out examples, of each falling
        half.
      validation: how many training examples are held out.

    Returns:
      A `Plan`; its cost is compared with one dense run of `epochs`.

    Raises:
      PlanError: more cycles than the budget has room for; members that the starts cannot share; any
        impossible value.

    >>> plan = fge()
    >>> plan.members, plan.epochs()
    (12, 200.0)
    >>> print(fge(members=2, epochs=20, starts=(0.5,), cycle=2))
    fge: 2 tickets, 13 epochs, batch 128
      1. Start(width=1, sparsity=0)
      2. Train(10 epochs, lr=(0.1 at 0%, 0.1 at 50%, 0.001 at 90%, \
0.001 at 100%) from 0% to 50%, optimizer=SGD(nesterov=True, \
weight_decay=0.0005))
      3. Train(1 epoch, lr=0.05 to 0.0005 (linear), optimizer=SGD(nesterov=True, \
weight_decay=0.0005))
      4. Collect()
      5. Train(1 epoch, lr=0.0005 to 0.05 (linear), optimizer=SGD(nesterov=True, \
weight_decay=0.0005))
      6. Train(1 epoch, lr=0.05 to 0.0005 (linear), optimizer=SGD(nesterov=True, \
weight_decay=0.0005))
      7. Collect()

    References:
      Garipov et al., 2018, arXiv:1802.10026, section 5; Whitaker and Whitley, 2022,
      arXiv:2202.11782 (epochs 120 and 156, 22 epochs from each in cycles of 4).

    Differs:
      A falling half reaches `low` at its last step and the rising half begins there, one step apart
      from Garipov's formula.
    """
    members, starts = checks.plain((members, starts))
    check.positive_int("members", members, most=checks.MOST)
    check.non_negative("high, a learning rate,", high)
    check.non_negative("low, a learning rate,", low)
    check_schedule("lr", lr, but=Part)
    budget, cycle_length = as_length(epochs, "epochs"), as_length(cycle, "cycle")
    if not isinstance(starts, tuple | list) or not starts or not all(map(checks.is_number, starts)):
        raise PlanError(
            "starts are shares of the budget, rising, in (0, 1], such as (0.6, 0.78); got"
            f" {checks.shown(starts)}."
        )
    if not all(a < b for a, b in zip((0.0, *starts), (*starts, 1.0000001), strict=True)):
        raise PlanError(
            f"starts are shares of the budget, rising, in (0, 1]; got {checks.shown(starts)}."
        )
    if members % len(starts):
        raise PlanError(
            f"{members} members cannot be shared equally by {len(starts)} starts; take"
            f" {-(-members // len(starts)) * len(starts)}."
        )
    members_per_start, half = members // len(starts), _divide(cycle_length, 2)
    cycles = Length((2 * members_per_start - 1) * len(starts) * half.amount, half.unit)
    _within(
        Length(half.amount, half.unit),
        (2 * members_per_start - 1) * len(starts),
        _left(budget, starts[-1], cycles),
        "cycle",
    )
    fall, rise = (
        Train(half, Linear(high, low), optimizer),
        Train(half, Linear(low, high), optimizer),
    )
    cycling: list[Phase] = [
        fall,
        Collect(collect),
        *[rise, fall, Collect(collect)] * (members_per_start - 1),
    ]
    phases: list[Phase] = [Start()]
    for begin, end in zip((0.0, *starts), starts, strict=False):
        length = round((end - begin) * budget.amount, 9)
        phases.append(
            Train(
                Length(length if budget.unit == "epochs" else round(length), budget.unit),
                Part(lr, begin, end),
                optimizer,
            )
        )
        if end != starts[-1]:
            phases.append(Remember(f"{100 * end:g}%"))
    phases += cycling
    for begin in starts[:-1]:
        phases += [Rewind(f"{100 * begin:g}%"), *cycling]
    return Plan("fge", tuple(phases), batch_size, reference=budget, validation=validation)


def _divide(length: Length, parts: int) -> Length:
    """The length of one of `parts` equal parts."""
    if length.unit == "epochs":
        return Length(length.amount / parts)
    if length.amount < parts:
        raise PlanError(
            f"{length} cannot be divided into {parts} cycles of at least one step; take fewer"
            " members or more steps."
        )
    return Length(length.amount // parts, "steps")


def _left(budget: Length, share: float, cycles: Length) -> Length:
    """The length that the pre-training leaves of the budget."""
    remaining = round(budget.amount * (1 - share), 9)
    if remaining <= 0:
        raise PlanError(
            f"the pre-training takes all of {budget}, and {cycles} of cycles follow; take earlier"
            " starts or more epochs."
        )
    return Length(remaining if budget.unit == "epochs" else max(1, int(remaining)), budget.unit)


def _within(part: Length, times: int, budget: Length, name: str) -> None:
    """Raise `PlanError` where `times` parts are longer than the budget."""
    if part.unit == budget.unit and part.amount * times > budget.amount * (1 + 1e-9):
        total = Length(part.amount * times, part.unit)
        raise PlanError(
            f"a {name} longer than the budget: {times} times {part} are {total}, and there are"
            f" {budget}. Shorten it, or take fewer members."
        )
