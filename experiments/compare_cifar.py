"""The papers' tables with ours beside them: methods at one budget, each with a plan of its own.

    python experiments/compare_cifar.py  # every method on digits, minutes on two CPU cores
    python experiments/compare_cifar.py --preset table1 --data-dir DIR --seeds 0 1 2
    python experiments/compare_cifar.py --preset table1 --dataset cifar100 --model resnet
    python experiments/compare_cifar.py --preset paper --cost
    python experiments/compare_cifar.py --preset table6 --data-dir DIR

Each method and seed has a run folder of its own under --out, METHOD-seedN: what is finished is
loaded, what was interrupted goes on.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import baselines_cifar
from rich.console import Console
from support import canary, cifar, command, hosts, running, side_by_side
from support.comparisons import PRESETS, SAME_METHOD, TITLES
from support.flags import Count, Count0, Different, SeedsConfig, Within
from support.published import published

import jaxtickets as jt
from jaxtickets import engine, evaluation, report
from jaxtickets.ledger import PlanCost


@dataclasses.dataclass(frozen=True)
class Config(SeedsConfig):
    """Flags of compare_cifar.py: which methods, on what, from which seeds."""

    preset: Literal["digits", "small", "smaller", "table1", "table6", "paper"] = "digits"
    """digits: no method costs more theoretical FLOPs than one dense network of 24 epochs. table1:
    Prune and Tune's small budget, 16 epochs of LeNet-L in all. small: LeNet-M on a CPU. smaller:
    masked networks against those whose units are cut out, LeNet-M. paper: WRN-28-10, each method as
    published. table6: those of FreeTickets' table 6.
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
    against: Annotated[tuple[str, ...], Different(empty=True)] = ()
    """Methods that every other is tested against over the seeds, by Student's t-test of the
    accuracies; of table1 the two Prune and Tune ensembles if not given.
    """
    side_by_side: Annotated[int, Count0] = 0
    """Measure the seconds apart from the runs: all methods in turns, so often, each at a thirteenth
    of its length, when nothing else runs on the machine. 0: the runs' own seconds.
    """
    out: Path | None = None
    """Folder of the run folders; runs/compare-PRESET if not given, with the data set and network
    behind it where they are not the preset's. The same command resumes.
    """

    def experiment(self, method: str, seed: int) -> cifar.Config:
        """The experiment of one method and seed."""
        experiment = self.override(
            PRESETS[self.preset].methods[method](),
            seed,
            *("model", "depth", "width", "initial", "batch_size"),
        )
        return cifar.shortened(experiment, self.shorter) if self.shorter != 1 else experiment


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
    methods, against = chosen_methods(config)
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
        show_costs(config, ledgers, plain, first, unit, console)
        return
    out = command.out_folder(
        config.out or default_folder(config),
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
            rows[-1]["training_runs"] = ledgers[name].plan.training_runs
            if config.preset == "digits":
                rows[-1]["canary"] = canary.sing(by_seed[0])
    if not rows:
        raise jt.RunError(f"no run came to an end: {'; '.join(failed)}")
    add_tests(rows, against)
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
    engine.write_json(out / "results.json", comparison)  # the timing may be broken off
    if config.side_by_side:
        comparison |= timed(config, experiments, data, rows)
        engine.write_json(out / "results.json", comparison)
    Console(width=max(console.width, 120)).print(report.comparison_table(comparison))
    for line in failed:
        console.print(f"[bold red]left out[/]: {line}", highlight=False)
    figure = None
    if hosts.writes():
        against = "seconds" if config.side_by_side else "training"
        figure = report.draw_comparison(comparison, out / "comparison.png", against=against)
    console.print(
        f"wrote {out / 'results.json'}" + (f", {figure}" if figure else ""), highlight=False
    )


def default_folder(config: Config) -> str:
    """Where a comparison lies if nothing is said: other data and other networks lie elsewhere."""
    words = [word for word in (config.dataset, config.model) if word]
    numbers = {"depth": config.depth, "width": config.width, "batch": config.batch_size}
    words += [f"{name}{number}" for name, number in numbers.items() if number is not None]
    words += [f"initial-{config.initial}"] if config.initial else []
    words += [f"shorter{config.shorter:g}"] if config.shorter != 1 else []
    return "-".join(["runs/compare", config.preset, *words])


def chosen_methods(config: Config) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The methods to compare, and those of them that the others are tested against.

    Raises:
      PlanError: a method that the preset has not; flags that exclude each other.
    """
    preset = PRESETS[config.preset]
    unknown = [name for name in config.methods if name not in preset.methods]
    if unknown:
        raise jt.PlanError(
            f"--methods: preset {config.preset} has {', '.join(preset.methods)}; got {unknown[0]}."
        )
    methods = config.methods or tuple(preset.methods)
    against = config.against or tuple(name for name in preset.against if name in methods)
    if unknown := [name for name in against if name not in methods]:
        raise jt.PlanError(f"--against: methods here are {', '.join(methods)}; got {unknown[0]}.")
    if config.side_by_side and config.distributed:
        raise jt.PlanError("--side-by-side measures one host; leave out --distributed, or it.")
    if config.against and len(config.seeds) < 2:
        raise jt.PlanError("--against tests over seeds: give two or more, as --seeds 0 1 2.")
    return methods, against


def timed(
    config: Config,
    experiments: Mapping[str, list[cifar.Config]],
    data: tuple[jt.Dataset, jt.Dataset],
    rows: list[dict[str, Any]],
) -> dict[str, Any]:
    """Put seconds that were measured in turns into the rows, and return how they were measured."""
    first = {row["method"]: experiments[row["method"]][0] for row in rows}
    seconds = side_by_side.measured(
        first,
        {name: (augmented(data[0], experiment), data[1]) for name, experiment in first.items()},
        config.side_by_side,
    )
    for row in rows:
        row["scores"] |= {
            name: {"mean": value, "standard_error": None}
            for name, value in seconds[row["method"]].items()
        }
    return {"timing": side_by_side.told(config.side_by_side, len(data[1]))}


def row(
    config: Config, name: str, network: str, runs: list[dict[str, Any]], dense_run: float
) -> dict[str, Any]:
    """One row of the table as JSON: what the runs of a method come to."""
    members = len(runs[0]["members"])
    return {
        "method": name,
        "paper_method": SAME_METHOD.get(name, name),
        "title": TITLES[name],
        "model": runs[0]["model"],
        "members": members,
        "density": runs[0]["cost"]["density"],
        "seeds": [run["seed"] for run in runs],
        "accuracies": [run["ensemble"]["accuracy"] for run in runs],
        "scores": report.summary(runs, dense_run),
        "published": printed(config, name, runs[0]["dataset"]["name"], network, members),
        "plan": runs[0]["plan"],
    }


def printed(
    config: Config, name: str, dataset: str, network: str, members: int
) -> dict[str, Any] | None:
    """What a paper prints of a method, its costs in this table's unit; None if nothing."""
    paper = published(config.preset, dataset, network, SAME_METHOD.get(name, name), members)
    if paper is None:
        return None
    if paper.training is not None and paper.reference is not None:
        times = paper.reference / PRESETS[config.preset].dense_epochs
        paper = dataclasses.replace(paper, training=round(paper.training * times, 4))
    return dataclasses.asdict(paper)


def add_tests(rows: list[dict[str, Any]], against: tuple[str, ...]) -> None:
    """Add to every row the p-values of its accuracies against those of the methods named.

    Where there are two runs or more of both.
    """
    accuracies = {row["method"]: row["accuracies"] for row in rows}
    for record in rows:
        record["tests"] = {
            other: report.finite(
                evaluation.student_t(record["accuracies"], accuracies[other]).pvalue
            )
            for other in against
            if other != record["method"]
            and min(len(accuracies.get(other, ())), len(record["accuracies"])) > 1
        }


def show_costs(
    config: Config,
    ledgers: Mapping[str, PlanCost],
    plain: jt.Task,
    first: cifar.Config,
    unit: Mapping[str, Any],
    console: Console,
) -> None:
    """Print what every method costs, and what a paper prints of that, with the reason."""
    reasons = []
    for name, ledger in ledgers.items():
        plan, ratio = ledger.plan, sum(phase.flops for phase in ledger.phases) / unit["flops"]
        heads = cifar.make_task(config.experiment(name, config.seeds[0])).heads
        paper = printed(config, name, first.dataset, plain.name, plan.members * heads) or {}
        theirs = ""
        if (training := paper.get("training")) is not None:
            runs = paper["training_runs"]
            theirs = f"paper {training:.2f}x" + ("" if runs is None else f" in {runs:g}")
            reasons.append((TITLES[name], paper["counted"]))
        line = f"{name:16} {ratio:5.2f}x in {plan.training_runs:2}   {theirs:20}"
        console.print(f"{line} {str(plan).splitlines()[0]}", highlight=False, soft_wrap=True)
    notes = [f"0.50x in 2: two training runs. {report.cost_note({'reference': unit})}"]
    notes += report.counted_otherwise(reasons)
    for note in notes:
        console.print(note, highlight=False, soft_wrap=True)


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
