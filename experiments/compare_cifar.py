"""The papers' tables with ours beside them: methods at one budget, each with a plan of its own.

    python experiments/compare_cifar.py  # every method on digits, minutes on two CPU cores
    python experiments/compare_cifar.py --preset table1 --data-dir DIR --seeds 0 1 2
    python experiments/compare_cifar.py --preset table1 --dataset cifar100 --model resnet
    python experiments/compare_cifar.py --preset paper --cost

Each method and seed has a run folder of its own under --out, METHOD-seedN: what is finished is
loaded, what was interrupted goes on.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import baselines_cifar
import dst_cifar
import edst_cifar
import prune_and_tune_cifar
from rich.console import Console
from support import canary, cifar, command, hosts, running
from support.flags import Count, Different, SeedsConfig, Within
from support.published import published

import jaxtickets as jt
from jaxtickets import engine, report

PAT = prune_and_tune_cifar.PRESETS
PATS = {
    "pat_r": "Prune and Tune (R)",
    "pat_ar": "Prune and Tune (AR)",
    "pat_partition": "Prune and Tune (partition)",
}
MASKS = {
    "pat_r": {"masks": "random", "sparsity": 0.5},
    "pat_ar": {"masks": "anti_random"},
    "pat_partition": {"masks": "partition"},
}
TITLES = {name: method.title for name, method in baselines_cifar.METHODS.items() if name != "dense"}
TITLES |= {"dst": "DST ensemble", "edst": "EDST ensemble", **PATS}
TITLES |= {
    "edst_channels": "EDST ensemble, 40 % of the channels cut out",
    "pat_units": "Prune and Tune (AR), half of the units cut out",
}
ALL = tuple(TITLES)


@dataclasses.dataclass(frozen=True)
class Config(SeedsConfig):
    """Flags of compare_cifar.py: which methods, on what, from which seeds."""

    preset: Literal["digits", "small", "smaller", "table1", "paper"] = "digits"
    """digits: no method costs more theoretical FLOPs than one dense network of 24 epochs. table1:
    Prune and Tune's small budget, 16 epochs of LeNet-L in all. small: LeNet-M on a CPU. smaller:
    masked networks against those whose units are cut out, LeNet-M. paper: WRN-28-10, each method as
    published.
    """
    methods: Annotated[tuple[str, ...], Different(empty=True)] = ()
    """Which methods; all that the preset has if not given."""
    model: Literal["wide_resnet", "lenet", "resnet", "densenet"] | None = None
    """Another network than the preset's."""
    depth: Annotated[int | None, Within(1, 1300)] = None
    """Its layers."""
    width: Annotated[int | None, Within(1, 1024)] = None
    """Width factor of a wide_resnet."""
    initial: Literal["lecun", "torch"] | None = None
    """How a lenet's weights are drawn, if not as the preset has it."""
    batch_size: Annotated[int | None, Count] = None
    """Another batch size than the preset's."""
    shorter: Annotated[float, Within(above=0)] = 1
    """Divide every length in epochs, and the steps between mask updates, by this."""
    out: Path | None = None
    """Folder of the run folders; runs/compare-PRESET if not given. The same command resumes."""

    def experiment(self, method: str, seed: int) -> cifar.Config:
        """The experiment of one method and seed."""
        experiment = self.override(
            PRESETS[self.preset].methods[method](),
            seed,
            *("model", "depth", "width", "initial", "batch_size"),
        )
        return cifar.shortened(experiment, self.shorter) if self.shorter != 1 else experiment


@dataclasses.dataclass(frozen=True)
class Preset:
    """The methods of a table, all at one budget.

    It says how to make the experiment of each, and the dense run that costs are compared with.
    """

    budget: str
    dense_epochs: float
    methods: Annotated[Mapping[str, Callable[[], cifar.Config]], Different(empty=True)]


def pat(
    base: prune_and_tune_cifar.Config, **settings: Any
) -> dict[str, Callable[[], cifar.Config]]:
    """Experiments of Prune and Tune with each of the three kinds of masks."""
    return {
        name: lambda masks=masks: dataclasses.replace(base, **masks, **settings)
        for name, masks in MASKS.items()
    }


def baselines(
    preset: str, names: tuple[str, ...] = tuple(baselines_cifar.DEMO), **settings: Any
) -> dict[str, Callable[[], cifar.Config]]:
    """Experiments of those baselines, as that preset of their script has them."""
    return {
        name: lambda name=name: dataclasses.replace(
            baselines_cifar.default(preset, name), **settings
        )
        for name in names
    }


def table1() -> dict[str, Callable[[], cifar.Config]]:
    """Experiments of Prune and Tune's table 1.

    All are trained by Adam at a fixed rate, without augmentation.
    """
    shared = {
        field.name: getattr(PAT["table1"], field.name)
        for field in dataclasses.fields(cifar.ScheduledConfig)
    } | {"preset": "paper"}
    own_flags: dict[str, dict[str, Any]] = {
        "independent": {"epochs": 16},
        "dropout": {"epochs": 16, "dropout": 0.5},
        "bagged": {"epochs": 2, "members": 8, "bag": 0.9},
    }
    config = baselines_cifar.Config
    rows = {
        name: lambda name=name: config(**{**shared, **own_flags[name], "method": name})
        for name in own_flags
    }
    return {
        **rows,
        **{name: make for name, make in pat(PAT["table1"]).items() if name != "pat_partition"},
    }


def smaller() -> dict[str, Callable[[], cifar.Config]]:
    """Experiments of tickets that stay masked against those whose dead units are cut out.

    As the small presets, at a fifth of their length.
    """
    edst = dataclasses.replace(edst_cifar.SMALL, explore=4, refine=1.5, update_every=100)
    pat_ar = dataclasses.replace(PAT["small"], members=4, parent_epochs=4, tune_epochs=0.5)
    return baselines("small", ("independent",), epochs=6) | {
        "edst": lambda: edst,
        "edst_channels": lambda: dataclasses.replace(edst, channels=0.4),
        "pat_ar": lambda: pat_ar,
        "pat_units": lambda: dataclasses.replace(pat_ar, unit="neuron"),
    }


PRESETS: Mapping[str, Preset] = {
    "digits": Preset(
        "Budget: the theoretical FLOPs of one dense network of 24 epochs, or less.",
        24,
        baselines("demo")
        | {
            "dst": lambda: dataclasses.replace(dst_cifar.DEMO, epochs=24),
            "edst": lambda: dataclasses.replace(
                edst_cifar.DEMO,
                members=4,
                sparsity=0.8,
                explore=15,
                refine=10,
                refine_lr=(0.05, 0.005),
            ),
        }
        | pat(PAT["demo"]),
    ),
    "table1": Preset("Budget: 16 epochs in all.", 16, table1()),
    "small": Preset(
        "As each script's small preset; costs are compared with one dense network of 30 epochs.",
        30,
        baselines("small")
        | {"dst": lambda: dst_cifar.SMALL, "edst": lambda: edst_cifar.SMALL}
        | pat(PAT["small"]),
    ),
    "smaller": Preset(
        "As each script's small preset, a fifth as long; costs are compared with one dense network"
        " of 6 epochs.",
        6,
        smaller(),
    ),
    "paper": Preset(
        "Each method as published; costs are compared with one dense network of 250 epochs,"
        " FreeTickets' unit.",
        250,
        baselines("paper")
        | {"dst": lambda: dst_cifar.PAPER, "edst": lambda: edst_cifar.PAPER}
        | pat(PAT["paper"]),
    ),
}


def main() -> None:
    """Parse the flags and compare the methods that they name."""
    command.main(compare, presets(), __doc__)


def presets() -> dict[str, Config]:
    """The default flags of each preset."""
    return {name: Config(preset=name) for name in PRESETS}  # pyright: ignore[reportArgumentType]


def compare(config: Config) -> None:
    """Train or load every method, write the results, show the table and draw the figure."""
    console = Console()
    preset = PRESETS[config.preset]
    budget = preset.budget
    if config.shorter != 1:
        budget += f" Every length is divided by {config.shorter:g}."
    unknown = [name for name in config.methods if name not in preset.methods]
    if unknown:
        raise jt.PlanError(
            f"--methods: preset {config.preset} has {', '.join(preset.methods)}; got {unknown[0]}."
        )
    methods = config.methods or tuple(preset.methods)
    # Everything is planned before anything is trained, so that what is wrong is said at once.
    experiments = {
        name: [config.experiment(name, seed) for seed in config.seeds] for name in methods
    }
    first = next(iter(experiments.values()))[0]
    blank = cifar.blank(first.dataset)
    ledgers = {
        name: running.priced(by_seed[0], *running.planned(by_seed[0]), blank)
        for name, by_seed in experiments.items()
    }
    plain = cifar.make_task(plain_network(first))
    dense_epochs = preset.dense_epochs / config.shorter
    dense = jt.cost(jt.dense(1, dense_epochs, batch_size=first.batch_size), plain, blank)
    unit = dense.reference
    if config.cost:
        console.print(f"{plain.name} on {first.dataset}. {budget}", highlight=False)
        for name, ledger in ledgers.items():
            ratio = sum(phase.flops for phase in ledger.phases) / unit["flops"]
            console.print(
                f"{name:16} {ratio:5.2f}x  {str(ledger.plan).splitlines()[0]}",
                highlight=False,
                soft_wrap=True,
            )
        console.print(report.cost_note({"reference": unit}), highlight=False, soft_wrap=True)
        return
    out = command.out_folder(
        config.out or f"runs/compare-{config.preset}",
        "results.json",
        ("comparison.png", "comparison.csv"),
    )
    running.share_programs(out / "programs")
    data = hosts.together(lambda: cifar.make_data(first))
    rows, failed = [], []
    for name, by_seed in experiments.items():
        runs = []
        for experiment in by_seed:
            folder = out / f"{name}-seed{experiment.seed}"
            console.print(
                f"{TITLES[name]}, seed {experiment.seed}: {folder}", highlight=False, soft_wrap=True
            )
            try:
                runs.append(
                    running.scored(
                        experiment, (augmented(data[0], experiment), data[1]), folder, unit
                    )
                )
            except jt.NonFiniteLoss as error:
                failed.append(f"{name}, seed {experiment.seed}: {error}")
        if runs:
            rows.append(row(config, name, plain.name, runs, unit["flops"]))
            if config.preset == "digits":
                rows[-1]["canary"] = canary.sing(by_seed[0])
    if not rows:
        raise jt.RunError(f"no run came to an end: {'; '.join(failed)}")
    comparison = {
        "command": command.shown_command(sys.argv),
        "preset": config.preset,
        "budget": budget,
        "dataset": running.data_record(*data),
        "network": plain.name,
        "reference": unit,
        "seeds": list(config.seeds),
        "rows": rows,
        "failed": failed,
        "versions": engine.versions(),
    }
    engine.write_json(out / "results.json", comparison)
    Console(width=max(console.width, 120)).print(report.comparison_table(comparison))
    for line in failed:
        console.print(f"[bold red]left out[/]: {line}", highlight=False)
    draw = report.draw_comparison if hosts.writes() else lambda *_: None
    figure = draw(comparison, out / "comparison.png")
    console.print(
        f"wrote {out / 'results.json'}" + (f", {figure}" if figure else ""), highlight=False
    )


def row(
    config: Config, name: str, network: str, runs: list[dict[str, Any]], dense_run: float
) -> dict[str, Any]:
    """One row of the table as JSON: what the runs of a method come to."""
    paper = published(config.preset, runs[0]["dataset"]["name"], network, name)
    return {
        "method": name,
        "title": TITLES[name],
        "model": runs[0]["model"],
        "members": len(runs[0]["members"]),
        "density": runs[0]["cost"]["density"],
        "seeds": [run["seed"] for run in runs],
        "scores": report.summary(runs, dense_run),
        "published": None if paper is None else dataclasses.asdict(paper),
        "plan": runs[0]["plan"],
    }


def plain_network(config: cifar.Config) -> cifar.Config:
    """One plain network of that kind, without dropout."""
    shared = {field.name: getattr(config, field.name) for field in dataclasses.fields(cifar.Config)}
    return baselines_cifar.Config(
        **shared | {"preset": "paper", "dropout": 0.0, "method": "independent"}
    )


def augmented(train: jt.Dataset, experiment: cifar.Config) -> jt.Dataset:
    """The training data, without their augmentation if the experiment wants none."""
    return train if experiment.augment else dataclasses.replace(train, augment=None)


if __name__ == "__main__":
    main()
