"""Checks that the committed files in experiments/results are what this commit gives.

It takes a second or two a file; nothing is trained in full.

    # every file: plans, networks, data and costs as the present code has them
    python experiments/results.py
    # and a few steps of these rows of the digits table, trained anew
    python experiments/results.py --canaries static_sparse dst edst

A canary is a handful of training steps of a row's plan, from its seed, and the loss on the test set
that they end with: written with the table when it is made, computed anew here. Where masks, draws,
optimizers or networks have changed since, it differs. Ends with status 1 where something does not
fit; then run the command again that the line names.
"""

from __future__ import annotations

import dataclasses
import json
import math
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import ablations_cifar
import baselines_cifar
import compare_cifar
import dst_cifar
import edst_cifar
import multi_ticket_glue
import prune_and_tune_cifar
from rich.console import Console
from support import canary, cifar, command, running, texts
from support.flags import Different

import jaxtickets as jt
from jaxtickets import engine, report
from jaxtickets.ledger import PlanCost
from jaxtickets.plan import Plan

HERE = Path(__file__).resolve().parent / "results"
TOLERANCE = 1e-9
"""Relative: costs are counted, not measured."""


@dataclasses.dataclass(frozen=True)
class Config:
    """Flags of results.py: whose canaries are computed anew."""

    canaries: Annotated[tuple[str, ...], Different(empty=True)] = ()
    """Rows of the digits table whose canary is computed anew; or all."""
    recount: bool = False
    """Write the FLOPs of comparisons and runs anew: they are counted from plans, not measured."""


def main(config: Config) -> None:
    """Check every results file and print what does not fit."""
    console = Console()
    stale_files = []
    for file in sorted(HERE.glob("*.json")):
        record = json.loads(file.read_bytes())
        if config.recount and recount(record):
            engine.write_json(file, record)
        complaints = check(record)
        if record.get("preset") == "digits" and "rows" in record:
            complaints += check_canaries(record, config.canaries)
        for line in complaints:
            console.print(f"{file.name}: {line}", markup=False, highlight=False, soft_wrap=True)
        if complaints:
            stale_files.append(file.name)
            console.print(
                f"  made by: {record['command']}", markup=False, highlight=False, soft_wrap=True
            )
    if stale_files:
        raise SystemExit(1)
    console.print("all result files are what this commit gives")


def check(found: Mapping[str, Any]) -> list[str]:
    """What the present code would write otherwise than a results file has it, in words.

    An empty list where nothing differs, or where nothing can be told.

    Args:
      found: its contents.
    """
    if "points" in found and "sweep" in found:
        return _check_sweep(found)
    if "rows" in found and "budget" in found:
        return _check_comparison(found)
    if "rows" in found and "groups" in found:
        return _check_schemes(found)
    if "rows" in found and "test" in found:
        return [
            f"{row['name']}: {line}"
            for row in found["rows"]
            if row.get("run")
            for line in _check_run(row["run"])
        ]
    return _check_run(found) if "ensemble" in found else []


def recount(record: dict[str, Any]) -> bool:
    """Put the FLOPs that the present code counts into a comparison or a run; False for others."""
    if "rows" in record and "budget" in record and (unit := record.get("reference")):
        config = _flags(record["command"])
        for row in record["rows"]:
            cost = _ledger(config.experiment(row["method"], record["seeds"][0])).to_dict()
            error = row["scores"]["training"]["standard_error"]
            for name, ratio in report.cost_ratios(cost, unit["flops"], unit["forward"]).items():
                row["scores"][name] = {"mean": ratio, "standard_error": error}
        return True
    if "ensemble" in record and isinstance(experiment := _flags(record["command"]), cifar.Config):
        cost, unit = _ledger(experiment).to_dict(), record["cost"].get("reference")
        record["cost"] = cost if unit is None else running.in_unit(cost, unit)
        return True
    return False


def check_canaries(found: Mapping[str, Any], methods: tuple[str, ...]) -> list[str]:
    """Rows of a comparison on digits whose canary is missing or has changed, in words.

    Args:
      found: what `compare_cifar.py` writes.
      methods: whose are computed anew; "all" for all.
    """
    config, complaints = _flags(found["command"]), []
    for row in found["rows"]:
        recorded_loss = row.get("canary")
        if recorded_loss is None:
            complaints.append(
                f"{row['method']}: tells no canary, so that nobody sees whether it is stale; run it"
                " again"
            )
        elif row["method"] in methods or "all" in methods:
            loss = canary.sing(config.experiment(row["method"], found["seeds"][0]))
            if not math.isclose(loss, recorded_loss, rel_tol=canary.TOLERANCE):
                complaints.append(
                    f"{row['method']}: the loss after a few steps was {recorded_loss:.6g} and is"
                    f" {loss:.6g}; run it again"
                )
    return complaints


def _check_comparison(record: Mapping[str, Any]) -> list[str]:
    config, complaints = _flags(record["command"]), []
    for row in record["rows"]:
        experiment = config.experiment(row["method"], record["seeds"][0])
        complaints += [
            f"{row['method']}: {line}"
            for line in _differences(row, experiment.plan(), cifar.make_task(experiment).name)
        ]
        # A table's unit is its own; that of an older one is not told.
        if (unit := record.get("reference")) is not None:
            complaints += [
                f"{row['method']}: {line}"
                for line in _costs(row["scores"]["training"]["mean"] * unit["flops"], experiment)
            ]
    return complaints


def _check_run(run: Mapping[str, Any]) -> list[str]:
    experiment = _flags(run["command"])
    if not isinstance(experiment, cifar.Config):
        return []
    complaints = _differences(run, experiment.plan(), cifar.make_task(experiment).name)
    return complaints + _costs(sum(phase["flops"] for phase in run["cost"]["phases"]), experiment)


def _check_schemes(record: Mapping[str, Any]) -> list[str]:
    config = _flags(record["command"])
    complaints = [
        f"{row['scheme']}: {line}"
        for row in record["rows"]
        for line in _differences(row, config.plan(row["scheme"]), None)
    ]
    if config.task == "paraphrases":
        task, blank = texts.blank(config)
        for row in record["rows"]:
            training = jt.cost(config.plan(row["scheme"]), task, blank).training
            if not math.isclose(training, row["training"], rel_tol=TOLERANCE):
                complaints.append(
                    f"{row['scheme']}: its training FLOPs were {row['training']:.8g}x and are"
                    f" {training:.8g}x"
                )
    return complaints


def _check_sweep(record: Mapping[str, Any]) -> list[str]:
    config = _flags(record["command"])
    points = ablations_cifar.SWEEPS[config.sweep].points(ablations_cifar.SCALES[config.preset])
    if [(point["series"], point["x"]) for point in record["points"]] != [
        (point.series, point.x) for point in points
    ]:
        return ["its points are others now"]
    complaints = []
    for recorded_point, point in zip(record["points"], points, strict=True):
        flops = ablations_cifar.training_flops(config, point)
        if not math.isclose(flops, recorded_point["training_flops"], rel_tol=TOLERANCE):
            complaints.append(
                f"{point.series}, {point.x}: its training FLOPs were"
                f" {recorded_point['training_flops']:.8g} and are {flops:.8g}"
            )
    return complaints


def _differences(row: Mapping[str, Any], plan: Plan, network: str | None) -> list[str]:
    complaints = [] if Plan.from_json(row["plan"]) == plan else ["its plan is another now"]
    return complaints + (
        []
        if network is None or row["model"] == network
        else [f"its network was {row['model']} and is {network}"]
    )


def _ledger(experiment: cifar.Config) -> PlanCost:
    return jt.cost(experiment.plan(), cifar.make_task(experiment), cifar.blank(experiment.dataset))


def _costs(flops: float, experiment: cifar.Config) -> list[str]:
    present_flops = sum(phase.flops for phase in _ledger(experiment).phases)
    return (
        []
        if math.isclose(present_flops, flops, rel_tol=TOLERANCE)
        else [f"its training FLOPs were {flops:.8g} and are {present_flops:.8g}"]
    )


def _flags(shown: str) -> Any:
    """The parsed flags of a command as a results file shows it, without its folders."""
    script, *words = shlex.split(shown)[1:]
    for flag in ("--data-dir", "--parent"):
        if flag in words:
            del words[words.index(flag) : words.index(flag) + 2]
    presets: Mapping[str, Callable[[], Mapping[str, Any]]] = {
        "edst_cifar": lambda: edst_cifar.PRESETS,
        "dst_cifar": lambda: dst_cifar.PRESETS,
        "prune_and_tune_cifar": lambda: prune_and_tune_cifar.PRESETS,
        "baselines_cifar": lambda: baselines_cifar.presets(words),
        "compare_cifar": compare_cifar.presets,
        "ablations_cifar": ablations_cifar.presets,
        "multi_ticket_glue": lambda: multi_ticket_glue.PRESETS,
    }
    return command.parse(presets[Path(script).stem](), "", words)


if __name__ == "__main__":
    command.main(main, Config, __doc__)
