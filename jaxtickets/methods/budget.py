"""Plans that fit into a budget: how many tickets of which length, method by method."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from jaxtickets.dataset import Dataset, Stream
from jaxtickets.ledger import PlanCost, cost
from jaxtickets.masks.sparsity import check_sparsity
from jaxtickets.messages import checks
from jaxtickets.messages.printing import printed
from jaxtickets.methods.baselines import bagged, dense, static_sparse
from jaxtickets.methods.free_tickets import dst, edst
from jaxtickets.methods.pruned import ltr
from jaxtickets.methods.random_children import prune_and_tune
from jaxtickets.methods.temporal import snapshot
from jaxtickets.plan import Length, Plan, PlanError, Train
from jaxtickets.task import Task

check = checks.Checks(PlanError)

# A plan of so many members at that sparsity, in the paper's proportions; the budget stretches or
# shrinks all its lengths.
FAMILIES: Mapping[str, Callable[[int, float], Plan]] = {
    "dense": lambda members, sparsity: dense(members),
    "bagged": lambda members, sparsity: bagged(members, 25),
    "snapshot": lambda members, sparsity: snapshot(members, 40 * members),
    "prune_and_tune": lambda members, sparsity: prune_and_tune(
        members, masks="random", sparsity=sparsity
    ),
    "static_sparse": lambda members, sparsity: static_sparse(members, sparsity),
    "dst": lambda members, sparsity: dst(members, sparsity),
    "edst": lambda members, sparsity: edst(members, sparsity),
    "ltr": lambda members, sparsity: ltr(members, sparsity),
}


@dataclasses.dataclass(frozen=True)
class Budget:
    """The plans that fit into a budget, one per method and number of members; prints as a table.

    Args:
      options: plans that cost what the budget allows, with their ledgers.
      training: the budget, in dense training runs of `reference`.
      reference: length of that dense run.
      left_out: methods and numbers of members whose shortest training would be shorter than
        `shortest`.
      shortest: what a training is at least worth.
    """

    options: tuple[PlanCost, ...]
    training: float
    reference: Length
    left_out: tuple[tuple[str, int], ...]
    shortest: Length

    def __rich__(self) -> Group:
        table = Table(
            title=(
                f"{self.training:g}x of a dense training run of {self.reference} (theoretical"
                " FLOPs)"
            ),
            title_justify="left",
        )
        table.add_column("method", overflow="fold")
        for name in ("tickets", "cost", "epochs in all", "each training", "density", "prediction"):
            table.add_column(name, justify="right")
        name = None
        for ledger in self.options:
            plan = ledger.plan
            if name not in (None, plan.name):
                table.add_section()
            name = plan.name
            lengths = " + ".join(
                dict.fromkeys(
                    f"{phase.length.amount:g}" for phase in plan.phases if isinstance(phase, Train)
                )
            )
            row = (
                f"{ledger.training:.2f}x",
                f"{plan.epochs() * plan.width:g}",
                lengths,
                f"{ledger.density:.2f}",
                f"{ledger.inference:.2f}x",
            )
            table.add_row(plan.name, str(plan.members), *row)
        left_out = ", ".join(f"{method} with {members}" for method, members in self.left_out)
        return Group(
            table,
            Text(
                f"Left out, as a training would be shorter than {self.shortest}: {left_out}."
                if left_out
                else ""
            ),
        )

    def __str__(self) -> str:
        return printed(self)


def within_budget(
    task: Task,
    data: Dataset | Stream | tuple[Any, Any],
    training: float = 1.0,
    *,
    sparsity: float = 0.8,
    reference: float = 250,
    members: Sequence[int] = (2, 3, 4, 5, 6, 8),
    methods: Sequence[str] = tuple(FAMILIES),
    shortest: float = 1.0,
) -> Budget:
    """Plans that a budget pays for, one for every method and number of members.

    It finds how long their trainings may be.

    Every method keeps the proportions of its paper (EDST explores half as long again as it refines,
    Prune and Tune's parent has seven tenths of the epochs) and is stretched or shrunk until its
    theoretical FLOPs are the budget's. Nothing is trained.

    Args:
      task: the network.
      data: what it would be trained on; only its size and one example are looked at.
      training: the budget, in dense training runs of `reference`.
      sparsity: share of zeros of sparse tickets, in (0, 1).
      reference: epochs of the dense run that is the unit.
      members: numbers of tickets to ask for.
      methods: which methods, of `FAMILIES`.
      shortest: epochs below which a training is not worth its name; what would need a shorter one
        is left out.

    Returns:
      A `Budget`; `budget.options[i].plan` is a plan to `fit`.

    Raises:
      PlanError: a budget that is not positive, an unknown method.
      MaskError: a sparsity that the network's layers cannot meet.

    >>> import jaxtickets as jt
    >>> train, _ = jt.data.pair("digits")
    >>> task = jt.classification(jt.models.WideResNet(10, 1))
    >>> found = within_budget(task, train, 1.0, members=(4,), methods=("dense", "dst"))
    >>> [(o.plan.name, o.plan.epochs(), round(o.training, 2)) for o in found.options]
    [('dense', 62, 0.99), ('dst', 196, 1.0)]
    """
    training, sparsity, reference, shortest, members = checks.plain(
        (training, sparsity, reference, shortest, members)
    )
    if not all(checks.is_number(number) and number > 0 for number in (training, reference)):
        runs, epochs = checks.shown(training), checks.shown(reference)
        raise PlanError(
            f"a budget is a positive number of dense runs of a positive length; got training={runs}"
            f" runs of reference={epochs} epochs."
        )
    if not (checks.is_number(shortest) and shortest > 0):
        raise PlanError(f"shortest is a positive number of epochs; got {checks.shown(shortest)}.")
    for name, sequence, example in (("methods", methods, ["dst"]), ("members", members, [3])):
        if isinstance(sequence, str) or not isinstance(sequence, Sequence):
            raise PlanError(
                f"{name} is a list, such as {name}={example!r}; got {checks.shown(sequence)}."
            )
    for number in members:
        check.positive_int("each of members", number, most=checks.MOST)
    unknown = [name for name in methods if not isinstance(name, str) or name not in FAMILIES]
    if unknown:
        raise PlanError(f"methods are of {', '.join(FAMILIES)}; got {unknown[0]!r}.")
    check_sparsity(sparsity)
    unit = Length(reference)
    options, left_out = [], []
    for name in methods:
        for number in members:
            plan = dataclasses.replace(FAMILIES[name](number, sparsity), reference=unit)
            ledger = _fitted(plan, task, data, training, shortest)
            if ledger is None:
                left_out.append((name, number))
            else:
                options.append(ledger)
    return Budget(tuple(options), training, unit, tuple(left_out), Length(shortest))


def _fitted(plan: Plan, task: Task, data: Any, training: float, shortest: float) -> PlanCost | None:
    """The cost of the plan, made as long as the budget lets it be; None if that is too short.

    Where masks evolve every so many steps, cost is not quite linear in length.
    """
    factor = training / cost(plan, task, data).training
    for _ in range(8):
        candidate = scaled(plan, factor, shortest)
        if candidate is None:
            return None
        ledger = cost(candidate, task, data)
        # an escape, or a look at the dense gradient, is not worth an epoch
        if ledger.training <= training * 1.0005:
            return ledger
        factor *= 0.999 * training / ledger.training
    return None


def scaled(plan: Plan, factor: float, shortest: float = 1.0) -> Plan | None:
    """The plan with all its trainings `factor` times as long, in whole epochs rounded down.

    None if one falls below `shortest`.

    >>> print(scaled(dense(), 0.1))
    dense: 1 ticket, 25 epochs, batch 128
      1. Start(width=1, sparsity=0)
      2. Train(25 epochs, lr=(0.1, 0.01 from 50%, 0.001 from 74.8%), \
optimizer=SGD(weight_decay=0.0005))
      3. Collect()
    """
    phases = []
    for phase in plan.phases:
        if isinstance(phase, Train):
            amount = phase.length.amount * factor
            amount = float(int(amount + 1e-9)) if amount >= 1 else amount
            if amount < shortest:
                return None
            phase = dataclasses.replace(
                phase, length=Length(int(amount) if amount == int(amount) else amount)
            )
        phases.append(phase)
    return dataclasses.replace(plan, phases=tuple(phases))
