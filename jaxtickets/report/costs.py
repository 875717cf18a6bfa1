"""Costs of several runs in one unit.

One dense training run, and one prediction by its network, which the table names.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from jaxtickets.report.table import Column


class DenseRun(NamedTuple):
    """The one dense training run that costs are multiples of.

    Args:
      network: its name.
      length: in words, "250 epochs".
      flops: of its training.
      forward: of one prediction.
    """

    network: str
    length: str
    flops: float
    forward: float

    @property
    def note(self) -> str:
        """The note that a table has on its columns of costs."""
        return (
            f"FLOPs are theoretical: training as multiples of one dense run of {self.network} over"
            f" {self.length}, predictions of one by that network. Masks simulate sparsity with"
            " dense compute."
        )


COST_COLUMNS = {
    "training": Column("training", "x", short="train"),
    "inference": Column("inference", "x", short="infer"),
    "training_executed": Column("executed training", "x", short="exec. train"),
    "inference_executed": Column("executed inference", "x", short="exec. infer"),
    "training_counted": Column("counted training", "x", short="counted train"),
    "inference_counted": Column("counted inference", "x", short="counted infer"),
}
PREDICTING = Column("seconds of predicting", digits=2, short="predict s")
NOTE_EXECUTED = (
    "Executed FLOPs are those that dense hardware multiplies by, in the same units; seconds follow"
    " them."
)
NOTE_COUNTED = (
    "Counted FLOPs are the theoretical ones of the finished runs' masks; beforehand a mask that the"
    " weights decide is assumed to keep the same share of every layer."
)


class Costs(NamedTuple):
    """Costs of several runs as multiples of a dense run's, and what is said of them.

    Attributes:
      ratios: by the names of `COST_COLUMNS` a number for each run, None where it tells none.
      note: what the numbers mean.
      unit: the dense run that all are multiples of; None where each row has its own.
    """

    ratios: dict[str, list[float | None]]
    note: str
    unit: DenseRun | None = None

    @property
    def columns(self) -> dict[str, list[float | None]]:
        """The ratios that a table shows: executed and counted FLOPs only where a run tells them."""
        return {
            name: values
            for name, values in self.ratios.items()
            if name in ("training", "inference") or any(value is not None for value in values)
        }


def dense_run(run: Mapping[str, Any]) -> DenseRun | None:
    """The dense run that a run is compared with by itself; None where it does not tell.

    Args:
      run: the contents of a `results.json`.

    >>> cost = {"training": 0.5, "inference": 1.0, "forward_dense": 7.0}
    >>> cost["phases"] = [{"flops": 30.0}]
    >>> reference = {"kind": "Length", "amount": 20.0}
    >>> dense_run({"model": "LeNet(S)", "cost": cost, "plan": {"reference": reference}})
    DenseRun(network='LeNet(S)', length='20 epochs', flops=60.0, forward=7.0)
    """
    cost = run.get("cost") or {}
    if isinstance(reference := cost.get("reference"), Mapping):
        return DenseRun(
            str(reference["network"]),
            str(reference["length"]),
            float(reference["flops"]),
            float(reference["forward"]),
        )
    training, forward, phases = cost.get("training"), cost.get("forward_dense"), cost.get("phases")
    length = (run.get("plan") or {}).get("reference")
    if not training or not forward or not phases or not isinstance(length, Mapping):
        return None
    words = f"{length['amount']:g} {length.get('unit', 'epochs')}"
    return DenseRun(
        str(run.get("model", "the network")), words, _flops(cost) / training, float(forward)
    )


def in_one_unit(runs: Sequence[Mapping[str, Any] | None]) -> Costs:
    """Every run's cost as multiples of one dense run.

    It is the longest, of the largest network, that one of them is compared with by itself.

    Methods have references of their own (a method that trains 200 epochs is compared with 200 dense
    ones), which in one column would be as many units. Where some run does not tell its FLOPs the
    ratios are each run's own, and the note says so.

    Args:
      runs: contents of `results.json` files; None for a row without a run.
    """
    costs = [run["cost"] for run in runs if run and run.get("cost")]
    references = [dense_run(run) for run in runs if run and run.get("cost")]
    known_references = [reference for reference in references if reference is not None]
    if len(known_references) < len(references) or not known_references:
        note = (
            "FLOPs are theoretical, as multiples of the dense run that each row's own method is"
            " compared with; masks simulate sparsity."
        )
        own_costs = [(run or {}).get("cost") or {} for run in runs]
        return Costs(
            {name: [cost.get(name) for cost in own_costs] for name in COST_COLUMNS},
            note if costs else "",
        )
    # Of equally long runs the one whose name says least: a plain network, and not one that is
    # wrapped.
    unit = min(
        known_references,
        key=lambda reference: (-round(math.log(reference.flops), 6), len(reference.network)),
    )
    ratios: dict[str, list[float | None]] = {name: [] for name in COST_COLUMNS}
    for run in runs:
        own_unit = dense_run(run) if run and run.get("cost") else None
        if run is None or own_unit is None:
            in_unit = dict.fromkeys(COST_COLUMNS)
        else:
            in_unit = cost_ratios(run["cost"], unit.flops, unit.forward, own_unit.forward)
        for name, values in ratios.items():
            values.append(in_unit[name])
    note = unit.note
    if any(value is not None for value in ratios["training_executed"]):
        note = f"{note} {NOTE_EXECUTED}"
    if any(value is not None for value in ratios["training_counted"]):
        note = f"{note} {NOTE_COUNTED}"
    return Costs(ratios, note, unit)


def cost_ratios(
    cost: Mapping[str, Any], flops: float, forward: float, own_forward: float | None = None
) -> dict[str, float | None]:
    """The cost of a run as multiples of a dense run; None for what the run does not tell.

    Args:
      cost: as `PlanCost.to_dict` gives it.
      flops: of that dense run's training.
      forward: of one prediction of its network.
      own_forward: of one prediction of the network that the run's own inference is a multiple of;
        its `forward_dense` if not given.
    """
    scale = (cost["forward_dense"] if own_forward is None else own_forward) / forward
    executed, per_prediction = _executed(cost), cost.get("inference_executed")
    counted, counted_prediction = (
        cost.get(f"{name}_counted") for name in ("training", "inference")
    )
    return {
        "training": _flops(cost) / flops,
        "inference": cost["inference"] * scale,
        "training_executed": None if executed is None else executed / flops,
        "inference_executed": None if per_prediction is None else per_prediction * scale,
        "training_counted": None
        if counted is None
        else _flops(cost) / flops * counted / cost["training"],
        "inference_counted": None if counted_prediction is None else counted_prediction * scale,
    }


def _flops(cost: Mapping[str, Any]) -> float:
    return float(sum(phase["flops"] for phase in cost["phases"]))


def _executed(cost: Mapping[str, Any]) -> float | None:
    every = [phase.get("executed") for phase in cost["phases"]]
    return None if None in every else float(sum(every))
