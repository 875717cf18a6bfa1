"""What a plan costs, by reading it: FLOPs and bytes, without training anything."""

from __future__ import annotations

import dataclasses
import io
import re
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from jaxtickets.arrays import as_dataset
from jaxtickets.children import units_for
from jaxtickets.dataset import Dataset, Stream
from jaxtickets.flops import ForwardFlops, forward_flops
from jaxtickets.phases import Phase
from jaxtickets.plan import Collect, Escape, Evolve, Fork, Gradual, Plan, Prune, Start, Train, describe
from jaxtickets.sparsity import cubic, layer_budgets, prunable_shapes
from jaxtickets.sparsity import kept as kept_of
from jaxtickets.task import Task
from jaxtickets.units import Units

PyTree = Any


@dataclasses.dataclass(frozen=True)
class PhaseCost:
    """Cost of one phase over all lineages: training steps and theoretical FLOPs."""

    name: str
    steps: int
    flops: float


@dataclasses.dataclass(frozen=True)
class PlanCost:
    """The ledger of a plan. Print it.

    FLOPs are *theoretical*: twice the multiply-adds of convolutions and products, zeros left out. Masks simulate
    sparsity, the hardware multiplies by the zeros, so measured seconds do not fall with them.

    Args:
      plan: what was read.
      phases: cost of every phase that trains or looks at gradients.
      training: ratio of the whole plan to one dense training run of `plan.reference`.
      inference: ratio of one prediction by all members to one forward pass of the dense network.
      density: surviving share of the prunable weights.
      forward_dense: FLOPs of the dense network (`Task.plain`, where there is one) for one example.
      forward_sparse: FLOPs of one ticket for one example, all its heads.
      dense_bytes: float32 bytes of the dense network's params.
      ticket_bytes: bytes of all tickets as stored: surviving values, and one bit per prunable weight.
    """

    plan: Plan
    phases: tuple[PhaseCost, ...]
    training: float
    inference: float
    density: float
    forward_dense: float
    forward_sparse: float
    dense_bytes: int
    ticket_bytes: int

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers for `results.json`."""
        names = ("training", "inference", "density", "forward_dense", "forward_sparse", "dense_bytes", "ticket_bytes")
        return {name: getattr(self, name) for name in names} | {"phases": [dataclasses.asdict(phase) for phase in self.phases]}

    def __rich__(self) -> Group:
        reference = f" ({self.plan.reference})" if self.plan.reference else ""
        head = f"{self.plan.name}: {self.training:.2f}x of one dense training run{reference}"
        total = sum(phase.flops for phase in self.phases)
        scale, prefix = _prefix(total)
        table = Table()
        table.add_column("phase")
        for name in ("steps", f"{prefix}FLOP", "share"):
            table.add_column(name, justify="right")
        for phase in self.phases:
            table.add_row(phase.name, f"{phase.steps:,}", f"{phase.flops / scale:.4g}", f"{phase.flops / (total or 1):.1%}")
        table.add_section()
        table.add_row("total", f"{sum(phase.steps for phase in self.phases):,}", f"{total / scale:.4g}", "")
        members = self.plan.members
        tickets = f"{members} tickets" if members > 1 else "1 ticket"
        scale, prefix = _prefix(self.forward_dense)
        below = (
            f"{tickets} of density {self.density:.3f}: {_bytes(self.ticket_bytes)} stored; one dense network: {_bytes(self.dense_bytes)}.\n"
            f"A prediction by {'all of them' if members > 1 else 'it'} is {self.inference:.2f}x of one by the dense network, "
            f"{self.forward_dense / scale:.4g} {prefix}FLOP an example.\n"
            "FLOPs are theoretical: masks simulate sparsity with dense compute, and seconds do not fall with them."
        )
        return Group(Text(head), table, Text(below))

    def __str__(self) -> str:
        console = Console(file=io.StringIO(), width=100, color_system=None, force_terminal=False, force_jupyter=False)
        with console.capture() as captured:
            console.print(self)
        return "\n".join(line.rstrip() for line in captured.get().splitlines())


def cost(plan: Plan, task: Task, data: Dataset | Stream | tuple[Any, Any]) -> PlanCost:
    """Theoretical cost of `plan` on that network and data; nothing is trained or compiled.

    With f_D and f_S the FLOPs of a dense and a sparse forward pass, a step costs 3 f_D dense, 3 f_S sparse, and with
    RigL every Delta T steps (3 f_S Delta T + 2 f_S + f_D) / (Delta T + 1) on average; SET 3 f_S; gradual pruning 3 f of the
    moment's density. Masks that the weights decide are assumed to keep the same share of every layer. The model is traced and
    each parameter followed to the convolution or product that uses it (`jaxtickets.flops`). Training steps are counted
    from the network in training mode (MIMO repeats the batch there), predictions from evaluation mode, and both are
    compared with the ordinary network, `task.plain`, where the task names one.

    Args:
      plan: the method.
      task: the network.
      data: what it would be trained on; only its size and one example are looked at.

    Returns:
      A `PlanCost`.

    Raises:
      MaskError: a sparsity that the network's layers cannot meet.

    >>> import jaxtickets as jt
    >>> train, _ = jt.data.pair("digits")
    >>> ledger = cost(jt.dense(members=4), jt.classification(jt.models.WideResNet(10, 1)), train)
    >>> ledger.training, ledger.inference
    (4.0, 4.0)

    References:
      Evci et al., 2020, arXiv:1911.11134, appendix H (RigL's FLOPs).
    """
    if isinstance(data, tuple):
        data = as_dataset(data)
    x = _one_example(data)
    params, state = jax.eval_shape(task.init, _key(), x)
    shapes = prunable_shapes(params, task.prunable)
    sizes = {path: int(np.prod(shape)) for path, shape in shapes.items()}
    layers, predicting = (_Layers(_forward(task, params, state, x, train), sizes) for train in (True, False))
    ordinary = task.plain or task
    reference_params, reference_state = jax.eval_shape(ordinary.init, _key(), x)
    reference_dense = float(_forward(ordinary, reference_params, reference_state, x, False).total)
    dense, steps_per_epoch = float(layers.flops.total), max(1, len(data) // plan.batch_size)
    kept = dict(sizes)
    phases: list[PhaseCost] = []
    tickets: list[tuple[int, dict[str, int]]] = []
    for index, phase in enumerate(plan.phases):
        copies, steps, flop = plan.copies(index), 0, None
        if isinstance(phase, Start) and phase.sparsity:
            kept = layer_budgets(shapes, phase.sparsity, phase.distribution, phase.keep_dense)
        elif isinstance(phase, Prune):
            kept = layers.pruned(kept, phase.sparsity, phase.keep_dense)
        elif isinstance(phase, Fork) and phase.child_sparsity is not None:
            if phase.unit == "neuron":
                spec = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape[1:], a.dtype), x)
                units = units_for(task.apply, params, state, spec, task.prunable, phase.keep_dense)
                kept = layers.without_units(kept, units, phase.child_sparsity)
            else:
                kept = layers.pruned(kept, phase.child_sparsity, phase.keep_dense)
        elif isinstance(phase, Train):
            steps = phase.steps(steps_per_epoch)
            flop = steps * _step_flops(phase, dense, layers.forward(kept))
            if isinstance(phase.evolve, Gradual):
                flop, kept = layers.gradually(kept, phase.evolve, steps)
        elif isinstance(phase, Escape):
            flop = 2 * layers.forward(kept) + dense if phase.growth == "gradient" else 0.0
        elif isinstance(phase, Collect):
            tickets.append((copies, kept))
        if flop is not None:
            phases.append(PhaseCost(_name(phase), copies * steps, copies * plan.batch_size * flop))
    reference_steps = plan.reference.steps(steps_per_epoch) if plan.reference else plan.all_steps(steps_per_epoch)
    one_dense_run = 3 * reference_dense * plan.batch_size * reference_steps
    members = sum(copies for copies, _ in tickets)
    ticket_bytes = _bytes_of(params)
    masked = plan.masked_at(len(plan.phases))
    bits = sum((n + 7) // 8 for n in layers.sizes.values())
    return PlanCost(
        plan=plan,
        phases=tuple(phases),
        training=sum(phase.flops for phase in phases) / one_dense_run,
        inference=sum(copies * predicting.forward(kept) for copies, kept in tickets) / reference_dense,
        density=sum(copies * sum(kept.values()) for copies, kept in tickets) / (members * layers.total),
        forward_dense=reference_dense,
        forward_sparse=sum(copies * predicting.forward(kept) for copies, kept in tickets) / members,
        dense_bytes=_bytes_of(reference_params),
        ticket_bytes=sum(
            copies * (ticket_bytes - (4 * (layers.total - sum(kept.values())) - bits if masked else 0)) for copies, kept in tickets
        ),
    )


@dataclasses.dataclass(frozen=True)
class _Layers:
    """FLOPs by layer, and how many weights each layer of a ticket keeps.

    Where a threshold or a draw runs over all layers together, or the weights decide, nobody knows beforehand what each layer
    keeps: the same share is assumed.
    """

    flops: ForwardFlops
    sizes: dict[str, int]

    @property
    def total(self) -> int:
        """All prunable weights."""
        return sum(self.sizes.values())

    def forward(self, kept: dict[str, int]) -> float:
        """FLOPs of one example."""
        return sparse_forward(self.flops, kept, self.sizes)

    def pruned(self, before: dict[str, int], sparsity: float, keep_dense: Sequence[str] = ()) -> dict[str, int]:
        """What is kept at that sparsity of the original count."""
        whole = {path for path in before if any(re.search(pattern, path) for pattern in keep_dense)}
        return {path: n if path in whole else min(n, kept_of(self.sizes[path], sparsity)) for path, n in before.items()}

    def without_units(self, before: dict[str, int], units: Units, sparsity: float) -> dict[str, int]:
        """What is kept where that share of every group of units goes, with all that writes or reads it."""
        alive = np.concatenate([np.full(size, kept_of(size, sparsity) / size) for size in units.sizes] + [np.ones(1)])
        left = dict(before)
        for leaf in units.params:
            if leaf.path in left:
                share = np.prod([alive[axis].mean() for axis in leaf.units])
                left[leaf.path] = min(left[leaf.path], round(self.sizes[leaf.path] * float(share)))
        return left

    def gradually(self, before: dict[str, int], how: Gradual, steps: int) -> tuple[float, dict[str, int]]:
        """FLOPs of one example in each of the steps of a gradual pruning, added up, and what is kept in the end.

        Weight gradients are taken of the surviving weights only.
        """
        begin, end = how.steps(steps)
        initial = 1 - sum(before.values()) / self.total
        sparsity_at = cubic(how.sparsity, begin, end, initial)
        updates = sorted({*range(max(begin, 1), end + 1, how.update_every), end})
        kept, since, flop = before, 0, 0.0
        for step in updates:
            flop += 3 * self.forward(kept) * (step - since)
            kept, since = self.pruned(before, round(float(sparsity_at(step)), 6)), step
        return flop + 3 * self.forward(kept) * (steps - since), kept


def sparse_forward(flops: ForwardFlops, kept: dict[str, int], sizes: dict[str, int]) -> float:
    """Forward FLOPs of a ticket: each layer's by its density; what no parameter takes part in counts in full."""
    layers = sum(layer.flops * kept[layer.path] / sizes[layer.path] if layer.path in kept else layer.flops for layer in flops.layers)
    return float(layers + flops.other)


def _name(phase: Phase) -> str:
    if not isinstance(phase, Train):
        return describe(phase)
    how = ", evolving" if isinstance(phase.evolve, Evolve) else ", pruning" if phase.evolve else ""
    return f"Train {phase.length}{how}"


def _key() -> jax.ShapeDtypeStruct:
    """What a key is like; a real one would be compiled."""
    return jax.eval_shape(lambda: jax.random.key(0))


def _forward(task: Task, params: PyTree, state: PyTree, x: PyTree, train: bool) -> ForwardFlops:
    """FLOPs of one example, in training or in evaluation mode."""

    def outputs(params: PyTree, given: tuple[PyTree, jax.Array]) -> PyTree:
        return task.apply(params, _zeros(state), given[0], train, given[1] if train else None)[0]

    return forward_flops(outputs, params, (x, _key()), batch=1)


def _step_flops(phase: Train, dense: float, sparse: float) -> float:
    """FLOPs of one example in one training step, on average over the phase."""
    if not isinstance(phase.evolve, Evolve) or phase.evolve.growth == "random":
        return 3 * sparse
    every = phase.evolve.update_every
    evolving = (3 * sparse * every + 2 * sparse + dense) / (every + 1)
    return phase.evolve.end * evolving + (1 - phase.evolve.end) * 3 * sparse


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
