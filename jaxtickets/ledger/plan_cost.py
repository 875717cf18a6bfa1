"""What a plan costs, by reading it: FLOPs and bytes, without training anything."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from typing import Any

import jax
import numpy as np
from rich.console import Group
from rich.table import Table
from rich.text import Text

from jaxtickets.dataset import Dataset, Stream
from jaxtickets.dataset.arrays import as_dataset
from jaxtickets.errors import PlanError
from jaxtickets.ledger import packed_layers as packed_layers  # registers what Pack leaves
from jaxtickets.ledger.layers import Kept, Layers
from jaxtickets.ledger.phase_costs import BeforePhase, executed_flops, phase_cost
from jaxtickets.masks.sparsity import prunable_shapes
from jaxtickets.masks.trees import leaf_paths
from jaxtickets.messages.printing import printed
from jaxtickets.plan import Length, NetworkShapes, Plan
from jaxtickets.plan.parts import short_name
from jaxtickets.plan.plan import check_plan_and_task
from jaxtickets.task import Task
from jaxtickets.tracing.flops import ForwardFlops, forward_flops
from jaxtickets.tracing.precision import in_32_bits

PyTree = Any
MOST_STEPS = 2**31 - 1
ALIKE = 1e-3
"""Density by which tickets of one plan may differ: counts are floors of shares of layers."""
MOST_ROWS = 100


@dataclasses.dataclass(frozen=True)
class PhaseCost:
    """Cost of one phase over all lineages.

    Args:
      name: what it is, in a few words.
      steps: of training.
      flops: theoretical, zeros left out.
      executed: FLOPs that dense hardware multiplies.
    """

    name: str
    steps: int
    flops: float
    executed: float


@dataclasses.dataclass(frozen=True)
class PlanCost:
    """The ledger of a plan. Print it.

    FLOPs are twice the multiply-adds of convolutions and products. *Theoretical* ones leave out the
    zeros. Masks simulate sparsity: dense hardware multiplies by the zeros, and what it *executes*
    falls only where a `Shrink` cuts units out or a `Pack` leaves out blocks; seconds follow these.

    Args:
      plan: what was read.
      phases: cost of every phase that trains or looks at gradients.
      training: ratio of the whole plan to one dense training run of `plan.reference`.
      inference: ratio of one prediction by all members to one forward pass of the dense network.
      training_executed: `training` in executed FLOPs.
      inference_executed: `inference` in executed FLOPs.
      density: surviving share of the prunable weights.
      forward_dense: FLOPs of the dense network (`Task.plain`, where there is one) for one example.
      forward_sparse: FLOPs of one ticket for one example, all its heads.
      dense_bytes: float32 bytes of the dense network's params.
      ticket_bytes: bytes of all tickets as stored: surviving values, and one bit per prunable
        weight.
      reference: the dense run that `training` is a multiple of: its `network`, its `length` in
        words, the `flops` of its training, and the `forward` FLOPs of one prediction.
      unmoved: a sentence where no mask would be updated (see `Plan.unmoved`).
    """

    plan: Plan
    phases: tuple[PhaseCost, ...]
    training: float
    inference: float
    training_executed: float
    inference_executed: float
    density: float
    forward_dense: float
    forward_sparse: float
    dense_bytes: int
    ticket_bytes: int
    reference: dict[str, Any]
    unmoved: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers for `results.json`."""
        names = (
            "training",
            "inference",
            "training_executed",
            "inference_executed",
            "density",
            "forward_dense",
            "forward_sparse",
            "dense_bytes",
            "ticket_bytes",
            "reference",
        )
        return {name: getattr(self, name) for name in names} | {
            "phases": [dataclasses.asdict(phase) for phase in self.phases]
        }

    def __rich__(self) -> Group:
        reference = f" ({self.plan.reference})" if self.plan.reference else ""
        head = f"{self.plan.name}: {self.training:.2f}x of one dense training run{reference}"
        total = sum(phase.flops for phase in self.phases)
        scale, prefix = _prefix(total)
        table = Table()
        table.add_column("phase", overflow="fold")
        for name in ("steps", f"{prefix}FLOP", "share", f"executed {prefix}FLOP"):
            table.add_column(name, justify="right")
        rows, left_out = (
            (len(self.phases), 0)
            if len(self.phases) <= MOST_ROWS
            else (MOST_ROWS - 1, len(self.phases) - MOST_ROWS)
        )
        for phase in self.phases[:rows]:
            table.add_row(*_row(phase, total, scale))
        if left_out:
            table.add_row(f"... {left_out:,} more")
            table.add_row(*_row(self.phases[-1], total, scale))
        table.add_section()
        table.add_row(
            "total",
            f"{sum(phase.steps for phase in self.phases):,}",
            f"{total / scale:.4g}",
            "",
            f"{sum(phase.executed for phase in self.phases) / scale:.4g}",
        )
        members = self.plan.members
        tickets = f"{members} tickets" if members > 1 else "1 ticket"
        scale, prefix = _prefix(self.forward_dense)
        below = (
            f"{tickets} of density {self.density:.3f}: {_bytes(self.ticket_bytes)} stored; one"
            f" dense network: {_bytes(self.dense_bytes)}.\nA prediction by"
            f" {'all of them' if members > 1 else 'it'} is {self.inference:.2f}x of one by the"
            f" dense network, {self.forward_dense / scale:.4g} {prefix}FLOP an example.\nThese"
            " FLOPs are theoretical: masks simulate sparsity with dense compute. Executed are"
            f" {self.training_executed:.2f}x in training and {self.inference_executed:.2f}x in a"
            " prediction; seconds follow them."
        )
        if self.unmoved:
            below += f"\nNote: {self.unmoved}"
        return Group(Text(head), table, Text(below))

    def __str__(self) -> str:
        return printed(self)


@in_32_bits
def cost(
    plan: Plan,
    task: Task,
    data: Dataset | Stream | tuple[Any, Any],
    *,
    masks: Iterable[PyTree] | None = None,
) -> PlanCost:
    """Theoretical cost of `plan` on that network and data; nothing is trained or compiled.

    With f_D and f_S the FLOPs of a dense and a sparse forward pass, a step costs 3 f_D dense, 3 f_S
    sparse, and with RigL every Delta T steps (3 f_S Delta T + 2 f_S + f_D) / (Delta T + 1) on
    average; SET 3 f_S; gradual pruning 3 f of the moment's density. Masks that the weights decide
    are assumed to keep the same share of every layer; `masks` of the finished run tell it. The
    model is traced and each parameter followed to the convolution or product that uses it
    (`jaxtickets.tracing.flops`). Training steps are counted from the network in training mode (MIMO
    repeats the batch there), predictions from evaluation mode, and both are compared with the
    ordinary network, `task.plain`, where the task names one.

    Args:
      plan: the method.
      task: the network.
      data: what it would be trained on; only its size and one example are looked at.
      masks: of the tickets that the plan gave (`TicketEnsemble.masks`), to count what each layer
        keeps, the mean over them; while they are pruned, every layer has lost the same share of
        what it loses. None: before the run.

    Returns:
      A `PlanCost`.

    Raises:
      MaskError: a sparsity that the network's layers cannot meet.
      PlanError: more steps of one network than 32 bits count; `masks` of a plan that cuts units
        out, or of tickets that differ in their density.

    >>> import jaxtickets as jt
    >>> train, _ = jt.data.pair("digits")
    >>> ledger = cost(jt.dense(members=4), jt.classification(jt.models.WideResNet(10, 1)), train)
    >>> ledger.training, ledger.inference
    (4.0, 4.0)

    References:
      Evci et al., 2020, arXiv:1911.11134, appendix H (RigL's FLOPs).
    """
    check_plan_and_task("cost", plan, task)
    data = data if isinstance(data, Stream) else as_dataset(data, task.num_classes)
    x = _one_example(data)
    params, state = jax.eval_shape(task.init, _key(), x)
    shapes = prunable_shapes(params, task.prunable)
    sizes = {path: int(np.prod(shape)) for path, shape in shapes.items()}
    ordinary = task.plain or task
    reference_params, reference_state = jax.eval_shape(ordinary.init, _key(), x)
    reference_dense = float(_forward(ordinary, reference_params, reference_state, x, False).total)
    steps_per_epoch = max(1, len(data) // plan.batch_size)
    _check_steps(plan, steps_per_epoch)
    x_spec = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape[1:], a.dtype), x)
    network = NetworkShapes(task, params, state, x_spec, shapes)
    ends = None if masks is None else _ends(plan, sizes, masks)
    end = {"ends": ends, "end_sparsity": plan.sparsity_before(len(plan.phases))}
    layers = dataclasses.replace(_layers(network, x, True, sizes), **end)
    before = BeforePhase(network, layers, dict(sizes), steps_per_epoch, network)
    predicting = _layers(network, x, False, sizes)
    phases: list[PhaseCost] = []
    tickets: list[tuple[int, Kept, Layers]] = []
    for index, phase in enumerate(plan.phases):
        costs, executed = phase_cost(phase, before), executed_flops(phase, before)
        copies, steps = plan.copies(index), phase.steps(steps_per_epoch)
        if costs.flops is not None:
            flops, executed = (copies * plan.batch_size * (n or 0) for n in (costs.flops, executed))
            phases.append(PhaseCost(short_name(phase), copies * steps, flops, executed))
        before = before._replace(kept=costs.kept, widths=costs.widths or before.widths)
        if costs.network is not None:
            before = _in(costs.network, before, x, sizes)
            predicting = _layers(costs.network, x, False, sizes)
        tickets += [(copies, ends or before.kept, predicting)] * phase.tickets
    reference_steps = (
        plan.reference.steps(steps_per_epoch) if plan.reference else plan.all_steps(steps_per_epoch)
    )
    one_dense_run = 3 * reference_dense * plan.batch_size * reference_steps
    members = sum(copies for copies, _, _ in tickets)
    forward = sum(copies * layers.forward(kept) for copies, kept, layers in tickets)
    whole = sum(sizes.values())
    ticket_bytes = _bytes_of(params)
    masked = plan.masked_at(len(plan.phases))
    bits = sum((n + 7) // 8 for n in sizes.values())
    return PlanCost(
        plan=plan,
        phases=tuple(phases),
        training=sum(phase.flops for phase in phases) / one_dense_run,
        inference=forward / reference_dense,
        training_executed=sum(phase.executed for phase in phases) / one_dense_run,
        inference_executed=sum(copies * layers.flops.total for copies, _, layers in tickets)
        / reference_dense,
        density=sum(copies * sum(kept.values()) for copies, kept, _ in tickets) / (members * whole),
        forward_dense=reference_dense,
        forward_sparse=forward / members,
        dense_bytes=_bytes_of(reference_params),
        ticket_bytes=round(
            sum(
                copies * (ticket_bytes - (4 * (whole - sum(kept.values())) - bits if masked else 0))
                for copies, kept, _ in tickets
            )
        ),
        reference={
            "network": ordinary.name,
            "length": str(plan.reference or Length(max(1, reference_steps), "steps")),
            "flops": one_dense_run,
            "forward": reference_dense,
        },
        unmoved=plan.unmoved(steps_per_epoch),
    )


def _ends(plan: Plan, sizes: dict[str, int], tickets: Iterable[PyTree]) -> dict[str, float]:
    """How many weights of each prunable layer the tickets with these masks keep, their mean."""
    if any(phase.shrinks for phase in plan.phases):
        raise PlanError(
            f"masks: {plan.name} cuts units out, and masks of the smaller networks do not say of"
            " which layers they were; leave masks out."
        )
    counts = [_kept(sizes, mask) for mask in tickets]
    if not counts:
        raise PlanError("masks: got none; give those of the tickets, or leave them out.")
    shares = [sum(kept.values()) / sum(sizes.values()) for kept in counts]
    if max(shares) - min(shares) > ALIKE:
        raise PlanError(
            f"masks: the tickets keep from {min(shares):.3g} to {max(shares):.3g} of the weights;"
            " only tickets of one density are counted."
        )
    return {path: sum(kept[path] for kept in counts) / len(counts) for path in sizes}


def _kept(sizes: dict[str, int], mask: PyTree) -> dict[str, int]:
    """How many weights of each prunable layer a mask keeps."""
    leaves = dict(zip(leaf_paths(mask), jax.tree.leaves(mask), strict=True))
    kept = {}
    for path, size in sizes.items():
        leaf = np.asarray(leaves.get(path))
        if leaf.dtype != bool or leaf.size not in (1, size):
            raise PlanError(
                f"masks: {path} of the network has {size:,} weights, and there it is"
                f" {leaf.dtype}{list(leaf.shape)}; give the masks of this plan's tickets."
            )
        kept[path] = size if leaf.size == 1 and leaf.all() else int(np.count_nonzero(leaf))
    return kept


def _layers(network: NetworkShapes, x: PyTree, train: bool, whole: dict[str, int]) -> Layers:
    """FLOPs by layer of a network that had so many weights before units were cut out."""
    flops = _forward(network.task, network.params, network.model_state, x, train)
    sizes = {path: int(np.prod(shape)) for path, shape in network.prunable.items()}
    return Layers(flops, sizes, whole)


def _in(
    network: NetworkShapes, before: BeforePhase, x: PyTree, whole: dict[str, int]
) -> BeforePhase:
    """What there is before a phase that follows a Shrink or a Pack to that network."""
    known = before.layers
    layers = dataclasses.replace(
        _layers(network, x, True, whole), ends=known.ends, end_sparsity=known.end_sparsity
    )
    kept = {path: min(n, layers.sizes[path]) for path, n in before.kept.items()}
    return before._replace(network=network, layers=layers, kept=kept, widths=None)


def _check_steps(plan: Plan, steps_per_epoch: int) -> None:
    try:
        steps = float(plan.steps(steps_per_epoch))
    except OverflowError:
        steps = math.inf
    if steps > MOST_STEPS:
        raise PlanError(
            f"{plan.name} trains a network for {steps:.3g} steps, and at most {MOST_STEPS:,} can be"
            " counted; make it shorter."
        )


def _row(phase: PhaseCost, total: float, scale: float) -> tuple[str, str, str, str, str]:
    return (
        phase.name,
        f"{phase.steps:,}",
        f"{phase.flops / scale:.4g}",
        f"{phase.flops / (total or 1):.1%}",
        f"{phase.executed / scale:.4g}",
    )


def _key() -> jax.ShapeDtypeStruct:
    """What a key is like; a real one would be compiled."""
    return jax.eval_shape(lambda: jax.random.key(0))


def _forward(task: Task, params: PyTree, state: PyTree, x: PyTree, train: bool) -> ForwardFlops:
    """FLOPs of one example, in training or in evaluation mode."""

    def outputs(params: PyTree, given: tuple[PyTree, jax.Array]) -> PyTree:
        return task.apply(params, _zeros(state), given[0], train, given[1] if train else None)[0]

    return forward_flops(outputs, params, (x, _key()), batch=1)


def _prefix(number: float) -> tuple[float, str]:
    """The unit in which `number` is easy to read.

    >>> _prefix(10.5e9)
    (1000000000.0, 'G')
    """
    units = ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
    return next(((scale, prefix) for scale, prefix in units if number >= scale), (1.0, ""))


def _bytes(number: int) -> str:
    scale, prefix = _prefix(number)
    return f"{number / scale:.1f} {prefix}B" if prefix else f"{number} bytes"


def _bytes_of(params: PyTree) -> int:
    return sum(int(np.prod(leaf.shape)) * leaf.dtype.itemsize for leaf in jax.tree.leaves(params))


def _zeros(shapes: PyTree) -> PyTree:
    """Zeros for a model state known by its shapes: constants of the trace."""
    return jax.tree.map(lambda s: np.zeros(s.shape, s.dtype), shapes)


def _one_example(data: Dataset | Stream) -> PyTree:
    if isinstance(data, Dataset):
        return jax.eval_shape(data.prepare, jax.tree.map(lambda a: np.asarray(a[:1]), data.x))
    return next(iter(data.batches(0, 0, 1)))[0]
