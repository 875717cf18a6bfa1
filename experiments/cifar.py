"""What the image experiments share: their flags, and the way from flags to tickets, tables and files.

Not a script. `edst_cifar.py`, `dst_cifar.py` and `baselines_cifar.py` each add the flags of their method and a plan.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import jax.numpy as jnp
import numpy as np
import tyro
from rich.console import Console

import jaxtickets as jt
from jaxtickets import engine, report
from jaxtickets.plan import SGD, Collect, Plan

PRESETS = ("demo", "small", "paper")
SHAPES = {"digits": (1347, (8, 8, 1), 10), "cifar10": (50_000, (32, 32, 3), 10), "cifar100": (50_000, (32, 32, 3), 100)}


@dataclasses.dataclass(frozen=True)
class Config:
    """Flags of every image experiment."""

    preset: Literal["demo", "small", "paper"] = "demo"
    """What the other flags start from. demo: digits, no download, a minute. small: CIFAR-10 on a CPU. paper: as published."""
    dataset: Literal["digits", "cifar10", "cifar100"] = "cifar10"
    """digits comes with scikit-learn; CIFAR is looked for in --data-dir and downloaded if it is nowhere."""
    data_dir: Path | None = None
    """Where CIFAR lies: the official binary or python folder or archive, or a prepared tensorflow-datasets folder."""
    model: Literal["wide_resnet", "lenet"] = "wide_resnet"
    """Network."""
    depth: int = 28
    """Layers of a wide_resnet, 6 n + 4."""
    width: int = 10
    """Width factor of a wide_resnet."""
    size: Literal["S", "M", "L"] = "M"
    """Size of a lenet."""
    dropout: float = 0.0
    """Dropout rate inside the network."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Precision of computation; parameters, scores and statistics stay float32."""
    batch_size: int = 128
    """Examples per step and member."""
    momentum: float = 0.9
    """Momentum of SGD."""
    weight_decay: float = 5e-4
    """L2 weight decay of SGD."""
    nesterov: bool = False
    """Nesterov momentum."""
    collect: Literal["last", "best"] = "last"
    """Take the last iterate, or the best on --validation held-out training images."""
    validation: int = 0
    """Training images held out."""
    bins: int = 15
    """Bins of the expected calibration error."""
    seed: int = 0
    """Every member's key is derived from it."""
    out: Path | None = None
    """Run folder; runs/EXPERIMENT-PRESET-seedN if not given. The same command resumes an interrupted run."""
    cost: bool = False
    """Print what the run would cost in theoretical FLOPs, and end."""
    compare_dense: bool = False
    """Also train one dense network on the same schedule, up to the first ticket."""
    checkpoint_every: float = 60.0
    """Seconds between checkpoints."""
    layout: Literal["auto", "one_by_one", "unroll", "vmap"] = "auto"
    """How members lie on the hardware; auto chooses what was fastest for the backend."""

    @property
    def optimizer(self) -> SGD:
        """SGD as the flags say."""
        return SGD(self.momentum, self.nesterov, self.weight_decay)

    def shared(self) -> dict[str, Any]:
        """Arguments that all methods take."""
        names = ("batch_size", "collect", "validation")
        return {"optimizer": self.optimizer} | {name: getattr(self, name) for name in names}

    def own(self) -> dict[str, Any]:
        """The flags that the method's script added."""
        shared = {field.name for field in dataclasses.fields(Config)}
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self) if field.name not in shared}


@dataclasses.dataclass(frozen=True)
class EvolvingConfig(Config):
    """Flags of the methods whose masks evolve."""

    sparsity: float = 0.8
    """Share of zeros among the kernels' weights."""
    distribution: Literal["uniform", "er", "erk"] = "erk"
    """Layer-wise sparsities."""
    update_every: int = 1000
    """Steps between mask updates (Delta T)."""
    drop_fraction: float = 0.5
    """Share of active weights replaced by a mask update."""
    decay: Literal["constant", "cosine", "linear"] = "constant"
    """Schedule of the drop fraction over each training phase."""
    growth: Literal["gradient", "random"] = "gradient"
    """Grow by the largest gradients (RigL) or at random (SET)."""
    regrown: Literal["keep", "zero"] = "keep"
    """Whether a weight dropped and regrown in one update keeps its value."""
    weight_update: bool = True
    """Also update the weights on a step that updates the mask."""


C = TypeVar("C", bound=Config)


def small_network(config: C) -> C:
    """A network that two CPU cores train on CIFAR-10 in minutes per ten epochs."""
    return dataclasses.replace(config, preset="small", model="lenet", size="M")


def demo_network(config: C) -> C:
    """A network that two CPU cores train on digits in seconds."""
    return dataclasses.replace(config, preset="demo", dataset="digits", depth=10, width=1, batch_size=64)


def parse(presets: Mapping[str, C], description: str) -> C:
    """The command line: `--preset` chooses the defaults, every other flag replaces one."""
    chooser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    chooser.add_argument("--preset", default="demo")
    chosen = chooser.parse_known_args()[0].preset
    default = presets.get(chosen, presets["demo"])
    return tyro.cli(type(default), default=default, description=description)


def main(name: str, presets: Mapping[str, C], make_plan: Callable[[C], Plan], description: str) -> None:
    """Parse, run, and turn the errors that are the user's to mend into one line."""
    config = parse(presets, description)
    try:
        run(name, config, make_plan(config))
    except (jt.DataError, jt.MaskError, jt.PlanError, jt.RunError, jt.TicketFileError, jt.NonFiniteLoss, ImportError) as error:
        Console(stderr=True).print(f"[bold red]{type(error).__name__}[/]: ", end="", highlight=False)
        Console(stderr=True).print(str(error), markup=False, highlight=False, soft_wrap=True)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        Console(stderr=True).print("stopped; the same command resumes from the last checkpoint.")
        raise SystemExit(130) from None


def make_task(config: Config, num_classes: int) -> jt.Task:
    """The network that the flags name, as a task."""
    dtype = jnp.dtype(config.precision)
    if config.model == "lenet":
        return jt.classification(jt.models.LeNet(config.size, num_classes=num_classes, dropout=config.dropout, dtype=dtype))
    return jt.classification(jt.models.WideResNet(config.depth, config.width, num_classes=num_classes, dropout=config.dropout, dtype=dtype))


def blank(dataset: str) -> jt.Dataset:
    """A data set of the right shapes that holds nothing: enough to count FLOPs."""
    examples, shape, classes = SHAPES[dataset]
    return jt.Dataset(np.broadcast_to(np.float32(0), (examples, *shape)), np.broadcast_to(np.int32(0), examples), classes, name=dataset)


def make_layout(config: Config, members: int) -> jt.Layout | None:
    """The layout that the flag names; None for the backend's own."""
    choices = {"one_by_one": jt.Layout(1, "unroll"), "unroll": jt.Layout(members, "unroll"), "vmap": jt.Layout(members, "vmap")}
    return choices.get(config.layout)


def run(name: str, config: Config, plan: Plan) -> None:
    """Train, evaluate, write and show."""
    console = Console()
    out = config.out or Path("runs") / f"{name}-{config.preset}-seed{config.seed}"
    try:
        task = make_task(config, SHAPES[config.dataset][2])
    except ValueError as error:  # a depth that is not 6 n + 4, a dropout rate of 2
        raise jt.PlanError(str(error)) from None
    if config.cost:
        console.print(str(plan), highlight=False, soft_wrap=True)
        console.print(jt.cost(plan, task, blank(config.dataset)))
        return
    began = time.perf_counter()
    train, test = jt.data.pair(config.dataset, data_dir=config.data_dir)
    console.print(str(plan), highlight=False, soft_wrap=True)
    console.print(
        f"{task.name} on {train.name}, {len(train):,} training and {len(test):,} test examples; run folder {out}",
        highlight=False,
        soft_wrap=True,
    )

    def fit(plan: Plan, folder: Path) -> tuple[jt.TicketEnsemble, dict[str, Any]]:
        layout = make_layout(config, plan.width)
        tickets = jt.fit(plan, task, train, key=config.seed, out=folder, layout=layout, checkpoint_every=config.checkpoint_every)
        return tickets, report.results(tickets, jt.evaluate(tickets, test, bins=config.bins), jt.cost(plan, task, train), folder)

    about = {
        "command": shown_command(sys.argv),
        "dataset": {"name": train.name, "train": len(train), "test": len(test)},
        "model": task.name,
        "seed": config.seed,
    }
    _, results = fit(plan, out)
    rows = {plan.name: results}
    if config.compare_dense:
        dense = dense_counterpart(plan)
        console.print(str(dense), highlight=False, soft_wrap=True)
        _, rows["single dense"] = fit(dense, out / "dense")
        results["single_dense"] = rows["single dense"]
    engine.write_json(out / "results.json", about | results)
    console.print(report.results_table(rows))
    figure = report.draw_run(out)
    console.print(f"wrote {out / 'results.json'}, {out / 'tickets.safetensors'}" + (f", {figure}" if figure else ""), highlight=False)
    console.print(f"{time.perf_counter() - began:.0f} s in all", highlight=False)


def shown_command(argv: Sequence[str]) -> str:
    """The command as somebody else would type it: the script from the root of a clone, no folders of this machine.

    >>> shown_command(["/home/me/jaxtickets/experiments/edst_cifar.py", "--data-dir", "/data", "--seed", "1", "--out=/tmp/x"])
    'python experiments/edst_cifar.py --data-dir DIR --seed 1'
    """
    shown = ["python", f"experiments/{Path(argv[0]).name}"]
    words = iter(argv[1:])
    for word in words:
        flag, _, value = word.partition("=")
        if flag in ("--out", "--data-dir"):
            if not value:
                next(words, None)
            shown += ["--data-dir", "DIR"] if flag == "--data-dir" else []
        else:
            shown.append(word)
    return " ".join(shown)


def dense_counterpart(plan: Plan) -> Plan:
    """One dense network on the schedule of `plan` up to its first ticket."""
    first = next(i for i, phase in enumerate(plan.phases) if isinstance(phase, Collect))
    phases = [dataclasses.replace(plan.start, width=1, sparsity=0.0)]
    phases += [dataclasses.replace(phase, evolve=None) for phase in plan.phases[1:first] if hasattr(phase, "evolve")]
    return dataclasses.replace(plan, name="dense", phases=(*phases, plan.phases[first]))
