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
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import jax
import numpy as np
import optax
from benchmarks import children as benchmark_children
from benchmarks import evaluation as benchmark_evaluation
from benchmarks import packed as benchmark_packed
from benchmarks import selecting
from benchmarks import smaller as benchmark_smaller
from benchmarks import texts as benchmark_texts
from benchmarks.timing import Row, Stepper, row, take_turns
from rich import box
from rich.console import Console
from rich.table import Table
from support import command
from support.flags import Different, There, Within

import jaxtickets as jt
from jaxtickets import engine
from jaxtickets.masks import sparsity
from jaxtickets.plan import SGD, Length
from jaxtickets.transforms import keep_masked, prune_grow

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
NETWORKS = {
    "LeNet-L": (jt.models.LeNet("L"), "adam"),
    "WRN-16-4": (jt.models.WideResNet(16, 4), "sgd"),
}


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


def images(batch_size: int) -> tuple[jax.Array, jax.Array]:
    """Random images and labels, since the speed does not depend on them."""
    x = jax.random.normal(jax.random.key(1), (batch_size, 32, 32, 3))
    return x, jax.random.randint(jax.random.key(2), (batch_size,), 0, 10)


def optimizer(kind: str) -> optax.GradientTransformation:
    """The optimizer of the papers for a kind of network.

    Adam for LeNet, SGD with momentum and weight decay for WideResNet.
    """
    return (
        optax.adam(1e-3)
        if kind == "adam"
        else optax.chain(optax.add_decayed_weights(5e-4), optax.sgd(0.1, momentum=0.9))
    )


def masking(config: Config) -> list[Row]:
    """A masked network's step against the same network and optimizer without masks."""
    rows = []
    batch = images(config.batch_size)
    for name, (model, kind) in NETWORKS.items():
        task, key = jt.classification(model), jax.random.key(0)
        params, _ = jax.eval_shape(task.init, key, batch[0][:1])
        mask = sparsity.random_mask(key, params, 0.8)
        growing = Stepper(
            task, prune_grow(optimizer(kind), mask=mask, update_every=100, key=key), batch
        )
        alternatives = {
            "plain": Stepper(task, optimizer(kind), batch),
            "keep": Stepper(task, keep_masked(optimizer(kind), mask), batch),
            "off": growing.at(0),
            "update": growing.at(99),
        }
        seconds = take_turns(alternatives, config.rounds)
        evolving = (99 * seconds["off"] + seconds["update"]) / 100
        rows.append(
            row(
                f"{name}: keep_masked step / plain step",
                seconds["keep"],
                seconds["plain"],
                "<=",
                1.05,
            )
        )
        rows.append(
            row(
                f"{name}: prune_grow step (Delta T 100, updates counted in) / plain step",
                evolving,
                seconds["plain"],
                "<=",
                1.10,
            )
        )
    return rows


def exact_selection(config: Config) -> list[Row]:
    """The exact mask of a leaf of 3.7 M weights, by bisection and by `lax.top_k`."""
    seconds = selecting.seconds(3_686_400, config.rounds)["seconds"]
    return [
        row(
            "exact mask of 3.7 M weights, k = 20 %: times faster than lax.top_k",
            seconds["bisect"],
            seconds["top_k"],
            ">=",
            5,
        )
    ]


def vmapped_loop(config: Config) -> list[Row]:
    """Four vmapped members in a user's own loop, with prune_grow and with keep_masked.

    What is timed is a step between mask updates.
    """
    keys = jax.random.split(jax.random.key(0), 4)
    params = jax.vmap(lambda key: {"kernel": jax.random.normal(key, (1024, 1024))})(keys)
    inner = optax.sgd(0.1, momentum=0.9)
    steps = {}
    for name in ("prune_grow", "keep_masked"):

        def transform(key: jax.Array, name: str = name) -> optax.GradientTransformationExtraArgs:
            mask = sparsity.random_mask(key, {"kernel": params["kernel"][0]}, 0.8)
            return (
                prune_grow(inner, mask=mask, update_every=1000, key=key)
                if name == "prune_grow"
                else keep_masked(inner, mask)
            )

        state = jax.vmap(lambda key, p, make=transform: make(key).init(p))(keys, params)

        @jax.jit
        def step(params: Any, state: Any, make: Any = transform) -> Any:
            return jax.vmap(lambda key, p, s: make(key).update(p, s, p))(keys, params, state)

        steps[name] = lambda step=step, state=state: step(params, state)
    seconds = take_turns(steps, 3 * config.rounds)
    return [
        row(
            "4 vmapped members, step between mask updates: prune_grow / keep_masked",
            seconds["prune_grow"],
            seconds["keep_masked"],
            "<=",
            1.10,
        )
    ]


def members_in_one_run(config: Config) -> list[Row]:
    """Four members in one `fit` against four lone `fit`s.

    Training seconds per member, without compilation.
    """
    x, y = images(1280)
    task = jt.classification(jt.models.LeNet("M"))
    data = (np.asarray(x), np.asarray(y))
    keys = jt.member_keys(0, 4)
    together, alone = [], []
    for _ in range(3):
        for width, key, timings in (
            (4, keys, together),
            *((1, keys[i : i + 1], alone) for i in range(4)),
        ):
            plan = jt.dst(
                width,
                epochs=Length(30, "steps"),
                batch_size=config.batch_size,
                update_every=10,
                optimizer=SGD(),
            )
            with tempfile.TemporaryDirectory() as folder:
                jt.fit(plan, task, data, key=key, out=folder, progress=False)
                timings.append(json.loads((Path(folder) / "timing.json").read_bytes())["seconds"])
    train = [
        sum(s["train"] for s in alone) / len(alone),
        sum(s["train"] for s in together) / len(together) / 4,
    ]
    total = [
        sum(s["total"] for s in alone) / len(alone),
        sum(s["total"] for s in together) / len(together) / 4,
    ]
    return [
        row(
            "LeNet-M, 4 members in one run: times faster per member than 4 lone runs (training)",
            train[1],
            train[0],
            ">=",
            0.95,
        ),
        row(
            "LeNet-M, 4 members in one run: times faster per member than 4 lone runs (with"
            " compiling)",
            total[1],
            total[0],
            ">=",
            1.0,
        ),
    ]


def first_step(config: Config) -> list[Row]:
    """Seconds from the start of the demo to its first step.

    And how often EDST with 3 and with 7 tickets compiles.
    """
    script = str(Path(__file__).with_name("edst_cifar.py"))
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        command = [sys.executable, script, "--preset", "demo", "--out", folder]
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as process:
            first = float("nan")
            for line in process.stdout or ():
                if " steps " in line and first != first:
                    first = time.perf_counter() - began
        total = time.perf_counter() - began
    data, task = jt.data.load("digits"), jt.classification(jt.models.WideResNet(10, 1))
    counts = []
    for members in (3, 7):
        plan = jt.edst(
            members, explore=Length(2, "steps"), refine=Length(2, "steps"), batch_size=64
        )
        with tempfile.TemporaryDirectory() as folder:
            jt.fit(plan, task, data, key=0, out=folder, progress=False)
            counts.append(json.loads((Path(folder) / "timing.json").read_bytes())["compilations"])
    return [
        row("demo: seconds to the first step / seconds in all", first, total, "<=", None),
        row(
            "EDST with 7 tickets: programs compiled / with 3 tickets",
            counts[1],
            counts[0],
            "<=",
            1.0,
        ),
    ]


def against_torch(config: Config) -> list[Row]:
    """A masked training step against the same in PyTorch eager; above 1 is faster than PyTorch."""
    try:
        import torch
        from benchmarks.torch_networks import TorchStepper
    except ImportError:
        Console(stderr=True).print("PyTorch is not installed; its rows are left out.")
        return []
    torch.set_num_threads(2)
    rows = []
    batch = images(config.batch_size)
    for name, (model, kind) in NETWORKS.items():
        task, key = jt.classification(model), jax.random.key(0)
        params, _ = jax.eval_shape(task.init, key, batch[0][:1])
        ours = Stepper(
            task, keep_masked(optimizer(kind), sparsity.random_mask(key, params, 0.8)), batch
        )
        alternatives = {
            "jax": ours,
            "torch": TorchStepper(name, kind, batch),
            "last": TorchStepper(name, kind, batch, channels_last=True),
        }
        seconds = take_turns(alternatives, config.rounds)
        bound = {"LeNet-L": 0.7, "WRN-16-4": 0.6}[name]
        rows.append(
            row(
                f"{name} masked step: speed relative to PyTorch eager",
                seconds["jax"],
                seconds["torch"],
                ">=",
                bound,
            )
        )
        rows.append(
            row(
                f"{name} masked step: relative to PyTorch eager, channels_last",
                seconds["jax"],
                seconds["last"],
                ">=",
                None,
            )
        )
    return rows


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
    "start": first_step,
    "selection": exact_selection,
    "vmap": vmapped_loop,
    "members": members_in_one_run,
    "masking": masking,
    "torch": against_torch,
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
