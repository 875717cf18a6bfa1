"""Benchmarks: speed as ratios, measured side by side in one process.

    python experiments/benchmark.py  # everything, about ten minutes on two CPU cores
    python experiments/benchmark.py --only selection members

Alternatives take turns, round by round, so that a slow moment of the machine hits all of them; a
ratio is that of the medians over rounds. A GPU or TPU is used if JAX sees one. PyTorch rows need
`pip install torch==2.13.0`.
"""

from __future__ import annotations

import dataclasses
import datetime
import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal, get_args

import numpy as np
from benchmarks import children as benchmark_children
from benchmarks import evaluation as benchmark_evaluation
from benchmarks import masking, runs, selecting
from benchmarks import packed as benchmark_packed
from benchmarks import smaller as benchmark_smaller
from benchmarks import texts as benchmark_texts
from benchmarks.networks import NETWORKS, images, optimizer
from benchmarks.timing import Row, row, take_turns
from rich import box
from rich.console import Console
from rich.table import Table
from support import command
from support.flags import Different, There, Within

import jaxtickets as jt
from jaxtickets import engine

Part = Literal[
    "start",
    "selection",
    "vmap",
    "members",
    "masking",
    "torch",
    "shrinking",
    "smaller",
    "packed",
    "memory",
    "texts",
    "evaluation",
    "exports",
]


@dataclasses.dataclass(frozen=True)
class Config:
    """Flags of benchmark.py: what is measured, and how often."""

    only: Annotated[tuple[Part, ...], Different()] = get_args(Part)
    """Parts to run."""
    rounds: Annotated[int, Within(1, 1000)] = 7
    """How often alternatives take turns."""
    batch_size: Annotated[int, Within(1, 65_536)] = 128
    """Examples per training step."""
    data_dir: Annotated[Path | None, There("folder")] = None
    """Where GLUE lies, for the row about MRPC."""
    out: Path | None = None
    """Where to write the JSON; nowhere if not given."""


def shrinking(config: Config) -> list[Row]:
    """A neuron-pruned child of half the units: shrunk against masked and against the parent."""
    rows = []
    for name, calls in benchmark_children.shrunk_children(images(config.batch_size)).items():
        seconds = take_turns(calls, config.rounds)
        for kind in ("forward", "gradient"):
            small = seconds[f"{kind} shrunk"]
            label = f"{name}, half the neurons, {kind}: times faster shrunk than"
            rows.append(row(f"{label} masked", small, seconds[f"{kind} masked"], ">=", 1.5))
            rows.append(row(f"{label} the parent", small, seconds[f"{kind} parent"], ">=", None))
    return rows


def smaller(config: Config) -> list[Row]:
    """Networks without half their channels or heads: training steps, predictions, a whole run."""
    torch_stepper = None
    try:
        import torch
        from benchmarks.torch_networks import TorchStepper as torch_stepper
    except ImportError:
        Console(stderr=True).print("PyTorch is not installed; its rows are left out.")
    else:
        torch.set_num_threads(2)
    rows, batch = [], images(config.batch_size)
    for name, (model, kind) in NETWORKS.items():
        task, theirs = jt.classification(model), None
        if torch_stepper is not None:
            make = functools.partial(torch_stepper, name, kind, batch, channels_last=True)
            theirs = make
        tx = optimizer(kind)
        rows += benchmark_smaller.image_steps(name, task, tx, batch, theirs, config.rounds)
        rows += benchmark_smaller.predictions(name, task, batch[0], config.rounds)
    rows += benchmark_smaller.text_steps(config.rounds)
    return [*rows, *benchmark_smaller.exploring_run(config.rounds)]


def packed(config: Config) -> list[Row]:
    """Dense layers of blocks, packed: training steps against those of the masked networks."""
    return [
        *benchmark_packed.perceptron_steps(config.rounds, config.batch_size),
        *benchmark_packed.text_steps(config.rounds),
    ]


def memory(config: Config) -> list[Row]:
    """Peak memory of 128 children against 8, each in a process of its own.

    The rows have megabytes in place of seconds.
    """
    megabytes_of_128, megabytes_of_8 = (
        benchmark_children.children_megabytes(members) for members in (128, 8)
    )
    return [
        row(
            "LeNet-M, peak memory of a run of 128 children / of 8 (MB)",
            megabytes_of_128,
            megabytes_of_8,
            "<=",
            1.25,
        )
    ]


def texts(config: Config) -> list[Row]:
    """Fine-tuning a BERT of 6 layers, and pruning one of 12.

    With `--data-dir` also what buckets gain on MRPC.
    """
    return [
        *benchmark_texts.fine_tuning_step(config.rounds),
        *benchmark_texts.huge_pages(config.rounds),
        *benchmark_texts.members_in_one_run(config.rounds),
        *benchmark_texts.global_pruning(config.rounds),
        *benchmark_texts.buckets(config.rounds, config.data_dir),
    ]


def evaluating(config: Config) -> list[Row]:
    """Accuracies of all ensembles of 20 members, and what an evaluation costs.

    Its cost is what it takes beside its forward passes.
    """
    return [
        *benchmark_evaluation.all_subsets(config.rounds),
        *benchmark_evaluation.against_forward_passes(config.rounds),
    ]


def exports(config: Config) -> list[Row]:
    """Predictions of exported files against `predict_proba`; needs the extra `export`."""
    from benchmarks import exporting

    return exporting.exports(NETWORKS, np.asarray(images(config.batch_size)[0]), config.rounds)


PARTS: dict[str, Callable[[Config], list[Row]]] = {
    "start": lambda config: runs.first_step(),
    "selection": lambda config: selecting.rows(config.rounds),
    "vmap": lambda config: masking.vmapped_loop(config.rounds),
    "members": lambda config: runs.members_in_one_run(config.batch_size),
    "masking": lambda config: masking.steps(config.batch_size, config.rounds),
    "torch": lambda config: masking.against_torch(config.batch_size, config.rounds),
    "shrinking": shrinking,
    "smaller": smaller,
    "packed": packed,
    "memory": memory,
    "texts": texts,
    "evaluation": evaluating,
    "exports": exports,
}


def main(config: Config) -> None:
    """Measure the parts that the flags name, print the ratios and write them to a file."""
    command.writable_file(config.out, "--out")
    rows: list[Row] = []
    for part in config.only:
        Console(stderr=True).print(f"measuring {part} ...", highlight=False)
        rows += PARTS[part](config)
    table = Table(
        box=box.SIMPLE_HEAD,
        caption="seconds are medians over rounds; counts and megabytes where a row says so",
        caption_justify="left",
    )
    for heading in ("", "ratio", "wanted", "", "measured", "against"):
        table.add_column(heading, justify="left" if not heading else "right")
    for r in rows:
        table.add_row(
            r.what,
            f"{r.ratio:.2f}",
            r.wanted,
            "" if r.met else "missed",
            f"{r.measured:.4g}",
            f"{r.against:.4g}",
        )
    Console(width=None if sys.stdout.isatty() else 140).print(table)
    if config.out:
        provenance = {
            "command": command.shown_command(sys.argv),
            "date": datetime.date.today().isoformat(),
            "versions": engine.versions(),
            "rounds": config.rounds,
        }
        engine.write_json(config.out, provenance | {"rows": [dataclasses.asdict(r) for r in rows]})


if __name__ == "__main__":
    command.main(main, Config, __doc__)
