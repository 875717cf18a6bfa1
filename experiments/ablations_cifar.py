"""The papers' ablations: a sweep varies one setting, trains its points and draws a figure.

    # digits, a minute or two on two CPU cores
    python experiments/ablations_cifar.py --sweep sparsity
    python experiments/ablations_cifar.py --sweep ensemble_size --preset small --data-dir DIR
    python experiments/ablations_cifar.py --sweep structure --preset paper --seeds 0 1 2 --cost

Of Prune and Tune (figure 3): sparsity, structure (connections or neurons), masks_and_schedule,
ensemble_size; scope, which it says makes little difference; bagging. Of FreeTickets (tables 5, 9
and 10, figures 4 and 5): exploration, q, growth, ticket_sparsity, members; the correlations over
the points of ticket_sparsity are its table 8.

What is finished is loaded, so a sweep goes on point by point; children of equal parents share one
that is trained once.
"""

from __future__ import annotations

import csv
import dataclasses
import json
import math
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from support import cifar, command, hosts, running
from support.flags import SeedsConfig
from support.published import swept
from support.sweeps import SCALES, SWEEPS, Point

import jaxtickets as jt
from jaxtickets import engine, evaluation, report
from jaxtickets.ledger import PlanCost


@dataclasses.dataclass(frozen=True)
class Config(SeedsConfig):
    """Flags of ablations_cifar.py: which sweep, and on what."""

    preset: Literal["demo", "small", "paper"] = "demo"
    """demo: digits, no download, a minute or two a sweep. small: CIFAR-10 with LeNet on a CPU.
    paper: as published.
    """
    sweep: Literal[
        "sparsity",
        "structure",
        "scope",
        "bagging",
        "masks_and_schedule",
        "ensemble_size",
        "exploration",
        "q",
        "growth",
        "ticket_sparsity",
        "members",
    ] = "sparsity"
    """What is swept."""
    out: Path | None = None
    """Folder of the run folders; runs/ablation-SWEEP-PRESET if not given. The same command
    resumes.
    """


def main() -> None:
    """Parse the flags and run the sweep that they name."""
    command.main(sweep, presets(), __doc__)


def presets() -> dict[str, Config]:
    """The default flags of each preset."""
    return {name: Config(preset=name) for name in SCALES}  # pyright: ignore[reportArgumentType]


def sweep(config: Config) -> None:
    """Train or load every point of a sweep, write the results, show a table and draw a figure."""
    console = Console()
    figure_spec = SWEEPS[config.sweep]
    points = figure_spec.points(SCALES[config.preset])
    first = config.override(points[0].experiment, 0)
    # Every plan is made before anything is trained, so that what is wrong is said at once.
    ledgers = [priced(config, point) for point in points]
    flops = [sum(phase.flops for phase in ledger.phases) for ledger in ledgers]
    if config.cost:
        runs = len({point.run for point in points})
        console.print(
            f"{figure_spec.title} on {first.dataset}: {len(points)} points, {runs} runs a seed.",
            highlight=False,
        )
        for point, flop in zip(points, flops, strict=True):
            plan_line = str(point.plan()).splitlines()[0]
            console.print(
                f"{point.series:24} {point.x!s:20} {flop:.3g} FLOP {paper(config, point):>14}"
                f"  {plan_line}",
                highlight=False,
                soft_wrap=True,
            )
        console.print(
            "FLOPs are theoretical. A point's include its parent's training, which points with"
            " equal parents share. In per cent: the paper's accuracy."
        )
        return
    folder_name = config.out or f"runs/ablation-{config.sweep}-{config.preset}"
    out = command.out_folder(folder_name, "results.json", ("points.csv", "sweep.png", "sweep.csv"))
    running.share_programs(out / "programs")
    data = hosts.together(lambda: cifar.make_data(first))
    rows = []
    for point, ledger, flop in zip(points, ledgers, flops, strict=True):
        console.print(f"{point.series}, {point.x}", highlight=False)
        seed_scores = [measure(config, point, seed, data, out, points) for seed in config.seeds]
        rows.append(
            {
                "series": point.series,
                "x": point.x,
                "run": point.run,
                **together(seed_scores),
                "training_flops": flop,
                "paper_method": point.paper_method,
                "members": ledger.plan.members,
                "density": ledger.density,
                "model": cifar.make_task(config.override(point.experiment, 0)).name,
                "plan": ledger.plan.to_json(),
            }
        )
    result = {
        "command": command.shown_command(sys.argv),
        "preset": config.preset,
        "sweep": config.sweep,
        "title": figure_spec.title,
        "label": figure_spec.label,
        "log": figure_spec.log,
        "dataset": running.data_record(*data),
        "seeds": list(config.seeds),
        "points": rows,
        "correlations": correlations(rows, figure_spec.correlated),
        "versions": engine.versions(),
    }
    engine.write_json(out / "results.json", result)
    figure = write_points(rows, result, out) if hosts.writes() else None
    for point, spec in zip(rows, points, strict=True):
        spread = (
            "" if point["standard_error"] is None else f" ± {100 * point['standard_error']:.2f}"
        )
        scores = (
            f"{100 * point['accuracy']:6.2f}{spread} %, members"
            f" {100 * point['members_accuracy']:.2f} % {paper(config, spec)}"
        )
        console.print(
            f"{point['series']:24} {point['x']!s:20} {scores}", highlight=False, soft_wrap=True
        )
    for correlation in result["correlations"]:
        console.print(
            f"{correlation['series']}: accuracy of members and ensemble over"
            f" {correlation['runs']} points: Pearson {shown(correlation['pearson'])}, Spearman"
            f" {shown(correlation['spearman'])}{papers_correlation(first, correlation)}",
            highlight=False,
        )
    console.print(
        f"wrote {out / 'results.json'}, {out / 'points.csv'}" + (f", {figure}" if figure else ""),
        highlight=False,
    )


def write_points(rows: list[dict[str, Any]], result: dict[str, Any], out: Path) -> Path | None:
    """Write the points as a table, and draw them."""
    with (out / "points.csv").open("w", newline="", encoding="utf-8") as file:
        names = [name for name in rows[0] if name != "plan"]
        writer = csv.DictWriter(file, names, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    return report.draw_sweep(result, out / "sweep.png")


def paper(config: Config, point: Point) -> str:
    """The accuracy that a paper prints of a point in this setting, in words; "" if it has none."""
    experiment = config.override(point.experiment, 0)
    network = cifar.make_task(experiment).name
    accuracy = swept(experiment.dataset, network, point.paper_method, "accuracy")
    return "" if accuracy is None else f"paper {100 * accuracy:.2f} %"


def correlations(
    rows: Sequence[Mapping[str, Any]], paper_methods: Mapping[str, str]
) -> list[dict[str, Any]]:
    """Correlation of the members' mean accuracy with the ensemble's over each series' points.

    Of series of three points or more (FreeTickets, table 8).
    """
    found = []
    for series in dict.fromkeys(row["series"] for row in rows):
        points = [row for row in rows if row["series"] == series]
        if len(points) > 2:
            scores = ([row[name] for row in points] for name in ("members_accuracy", "accuracy"))
            correlation = report.finite(evaluation.accuracy_correlation(*scores).to_dict())
            names = {"series": series, "paper_method": paper_methods.get(series, "")}
            found.append(names | correlation)
    return found


def papers_correlation(experiment: cifar.Config, correlation: Mapping[str, Any]) -> str:
    """What a paper prints of a correlation in this setting, in words; "" if nothing."""
    network, method = cifar.make_task(experiment).name, correlation["paper_method"]
    printed = [
        swept(experiment.dataset, network, method, f"accuracy_{name}")
        for name in ("pearson", "spearman")
    ]
    return "" if None in printed else f"; paper {shown(printed[0])}, {shown(printed[1])}"


def shown(number: float | None) -> str:
    """A coefficient of correlation as it is printed."""
    return "undefined" if number is None else f"{number:.3f}"


def training_flops(config: Config, point: Point) -> float:
    """Theoretical training FLOPs of the members that a point counts, and of their parent."""
    return sum(phase.flops for phase in priced(config, point).phases)


def priced(config: Config, point: Point) -> PlanCost:
    """The cost of the members that a point counts, and of their parent."""
    experiment = config.override(point.experiment, 0)
    with command.planning():
        plan, task = point.plan(), cifar.make_task(experiment)
    return running.priced(experiment, plan, task, cifar.blank(experiment.dataset))


def measure(
    config: Config,
    point: Point,
    seed: int,
    data: tuple[jt.Dataset, jt.Dataset],
    out: Path,
    points: list[Point],
) -> dict[str, Any]:
    """Scores of a point from one seed: read where they are written, else measured after training.

    A run that was interrupted goes on from its last checkpoint.
    """
    folder = out / f"{point.run}-seed{seed}"
    sizes = {str(p.first): p.first for p in points if p.run == point.run}
    file = folder / "scores.json"
    stored = running.read_json(file) or {}
    tickets = train(config, point, seed, data[0], out, folder)
    if stored.get("bins") != config.bins or not sizes.keys() <= stored["sizes"].keys():
        log_proba = tickets.member_log_proba(data[1])
        evaluated = {
            name: (
                evaluation.evaluate_predictions(
                    log_proba[:size], data[1].y, bins=config.bins
                ).to_dict()
            )
            for name, size in sizes.items()
        }
        seconds = json.loads((folder / "timing.json").read_bytes())["seconds"]["train"]
        stored = {"bins": config.bins, "sizes": evaluated, "seconds": seconds}
        engine.write_json(file, stored)
    scores = stored["sizes"][str(point.first)]
    diversity, ensemble = scores["diversity"], scores["ensemble"]
    return {
        **{name: ensemble[name] for name in ("accuracy", "nll", "ece")},
        "members_accuracy": scores["members_mean"]["accuracy"],
        "disagreement": diversity["disagreement"],
        "kl": diversity["kl"],
        "seconds": stored["seconds"],
    }


def train(
    config: Config, point: Point, seed: int, train: jt.Dataset, out: Path, folder: Path
) -> jt.TicketEnsemble:
    """The tickets of a point's run, trained or loaded, after its parent where it has one."""
    experiment = config.override(point.experiment, seed)
    if not experiment.augment:
        train = dataclasses.replace(train, augment=None)
    if point.parent is not None:
        parent = config.override(point.parent, seed)
        task = cifar.make_task(parent)
        at = out / f"parent-{task.name.replace(' ', '')}-seed{seed}"
        running.fit(parent, parent.plan(), task, train, at)
        experiment = dataclasses.replace(experiment, parent=at / "tickets.safetensors")
    return running.fit(
        experiment,
        point.change(experiment.plan()),
        cifar.make_task(experiment),
        train,
        folder,
        experiment.start_from,
    )


def together(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Means over the runs of several seeds, and the standard error of the accuracy."""
    means = {}
    for name in runs[0]:
        values = [run[name] for run in runs]
        means[name] = (
            None
            if None in values or any(math.isinf(v) for v in values)
            else statistics.fmean(values)
        )
    accuracies = [run["accuracy"] for run in runs]
    return means | {
        "standard_error": (
            statistics.stdev(accuracies) / math.sqrt(len(accuracies))
            if len(accuracies) > 1
            else None
        )
    }


if __name__ == "__main__":
    main()
