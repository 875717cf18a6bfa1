"""What a plan costs, by reading it: FLOPs and bytes, without training anything."""

from __future__ import annotations

import dataclasses
import io
from typing import Any

import jax
import numpy as np
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from jaxtickets.arrays import as_dataset
from jaxtickets.dataset import Dataset, Stream
from jaxtickets.flops import ForwardFlops, forward_flops
from jaxtickets.plan import Escape, Plan, Train, describe
from jaxtickets.sparsity import layer_budgets, prunable_shapes
from jaxtickets.task import Task

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
      forward_dense: FLOPs of the dense network for one example.
      forward_sparse: FLOPs of one ticket for one example.
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
    RigL every Delta T steps (3 f_S Delta T + 2 f_S + f_D) / (Delta T + 1) on average; SET 3 f_S. The model is traced and
    each parameter followed to the convolution or product that uses it (`jaxtickets.flops`).

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
    key = jax.random.key(0)
    params, state = jax.eval_shape(task.init, key, x)
    flops = forward_flops(lambda p, x: task.apply(p, _zeros(state), x, False, None)[0], params, x, batch=1)
    start = plan.start
    shapes = prunable_shapes(params, task.prunable)
    kept = {path: int(np.prod(shape)) for path, shape in shapes.items()}
    sizes = dict(kept)
    if start.sparsity:
        kept = layer_budgets(shapes, start.sparsity, start.distribution, start.keep_dense)
    dense = float(flops.total)
    sparse = sparse_forward(flops, kept, sizes)
    steps_per_epoch = max(1, len(data) // plan.batch_size)
    phases = []
    for phase in plan.phases:
        if isinstance(phase, Train):
            steps = phase.length.steps(steps_per_epoch)
            flop = steps * _step_flops(phase, dense, sparse)
            name = f"Train {phase.length}" + (", evolving" if phase.evolve else "")
        elif isinstance(phase, Escape):
            steps, flop, name = 0, (2 * sparse + dense if phase.growth == "gradient" else 0.0), describe(phase)
        else:
            continue
        phases.append(PhaseCost(name, plan.width * steps, plan.width * plan.batch_size * flop))
    reference = plan.reference.steps(steps_per_epoch) if plan.reference else plan.steps(steps_per_epoch)
    one_dense_run = 3 * dense * plan.batch_size * reference
    covered = sum(sizes.values())
    dense_bytes = sum(int(np.prod(leaf.shape)) * leaf.dtype.itemsize for leaf in jax.tree.leaves(params))
    masked = start.sparsity > 0
    ticket = dense_bytes - (4 * (covered - sum(kept.values())) - sum((n + 7) // 8 for n in sizes.values()) if masked else 0)
    return PlanCost(
        plan=plan,
        phases=tuple(phases),
        training=sum(phase.flops for phase in phases) / one_dense_run,
        inference=plan.members * sparse / dense,
        density=sum(kept.values()) / covered,
        forward_dense=dense,
        forward_sparse=sparse,
        dense_bytes=dense_bytes,
        ticket_bytes=plan.members * ticket,
    )


def sparse_forward(flops: ForwardFlops, kept: dict[str, int], sizes: dict[str, int]) -> float:
    """Forward FLOPs of a ticket: each layer's by its density; what no parameter takes part in counts in full."""
    layers = sum(layer.flops * kept[layer.path] / sizes[layer.path] if layer.path in kept else layer.flops for layer in flops.layers)
    return float(layers + flops.other)


def _step_flops(phase: Train, dense: float, sparse: float) -> float:
    """FLOPs of one example in one training step, on average over the phase."""
    if phase.evolve is None or phase.evolve.growth == "random":
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


def _zeros(shapes: PyTree) -> PyTree:
    """Zeros for a model state known by its shapes: constants of the trace."""
    return jax.tree.map(lambda s: np.zeros(s.shape, s.dtype), shapes)


def _one_example(data: Dataset | Stream) -> PyTree:
    if isinstance(data, Dataset):
        return jax.eval_shape(data.prepare, jax.tree.map(lambda a: np.asarray(a[:1]), data.x))
    return next(iter(data.batches(0, 0, 1)))[0]
