"""Runs an image experiment from its flags to tickets, tables and files."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
from rich.console import Console
from support import cifar, command, hosts
from support.command import one_line_errors as one_line_errors
from support.command import parse as parse
from support.flags import Hardware

import jaxtickets as jt
from jaxtickets import engine, report
from jaxtickets.engine.candidates import check_asked
from jaxtickets.ledger import PlanCost
from jaxtickets.plan import Collect, Plan


def main(presets: Mapping[str, cifar.Config], description: str | None) -> None:
    """Parse the flags and run one experiment."""
    command.main(run, presets, description)


def run(config: cifar.Config) -> None:
    """Train, evaluate, write and show the experiment that the flags name."""
    plan, task = planned(config)
    ledger = priced(config, plan, task, cifar.blank(config.dataset))
    if config.cost:
        show_cost(ledger)
        return
    out = command.out_folder(config.out or f"runs/{config.name}-{config.preset}-seed{config.seed}")
    dense = dense_counterpart(plan) if config.compare_dense else None
    data = hosts.together(lambda: cifar.make_data(config))
    probe = cifar.make_probe(config, data[1])
    run_and_report(
        config, config.name, plan, task, data, out, dense, start_from=config.start_from, probe=probe
    )


def planned(config: cifar.Config) -> tuple[Plan, jt.Task]:
    """The plan and the task that the flags name."""
    with command.planning():
        return config.plan(), cifar.make_task(config)


def priced(config: Hardware, plan: Plan, task: jt.Task, data: Any) -> PlanCost:
    """The cost of a plan, after a check that layout, data and network allow it.

    What cannot be is said now, and not after another's training.
    """
    with command.planning():
        asked = config.fit_kwargs(plan.width)["layout"]
        check_asked(asked, plan, len(data) - plan.validation)
        return jt.cost(plan, task, data)


def show_cost(ledger: PlanCost) -> None:
    """Print a plan and what it would cost."""
    console = Console()
    console.print(str(ledger.plan), highlight=False, soft_wrap=True)
    console.print(ledger)


def run_and_report(
    config: cifar.RunConfig,
    name: str,
    plan: Plan,
    task: jt.Task,
    data: tuple[Any, Any],
    out: Path,
    dense: Plan | None = None,
    also: Mapping[str, Any] | None = None,
    **fit_kwargs: Any,
) -> None:
    """Train a plan, evaluate its tickets, write the results and show them.

    Args:
      config: flags of how.
      name: what the table calls it.
      plan, task: what.
      data: training data, and what the tickets are evaluated on.
      out: the run folder.
      dense: a second plan to compare with, in the folder `dense` of the first.
      also: more sets to evaluate on, by the name that `results.json` gives their scores.
      fit_kwargs: as `fit_and_score` takes it.
    """
    console = Console()
    began = time.perf_counter()
    console.print(str(plan), highlight=False, soft_wrap=True)
    console.print(
        f"{task.name} on {data[0].name}, {len(data[0]):,} training and {len(data[1]):,} test"
        f" examples; run folder {out}",
        highlight=False,
        soft_wrap=True,
    )
    tickets, results = fit_and_score(config, plan, task, data, out, **fit_kwargs)
    rows = {name: results}
    for other, test in (also or {}).items():
        rows[f"{name}, {other}"] = scores = score(
            config, tickets, plan, (data[0], test), out, fit_kwargs.get("predict_batch")
        )
        part_names = ("ensemble", "members", "members_mean", "diversity", "ece_bins", "examples")
        results[other] = {part: scores[part] for part in part_names}
    if dense is not None:
        console.print(str(dense), highlight=False, soft_wrap=True)
        _, rows["single dense"] = fit_and_score(
            config, dense, task.plain or task, data, out / "dense"
        )
        results["single_dense"] = rows["single dense"]
    write_results(config, task, data, out, results)
    console.print(report.results_table(rows))
    figure = report.draw_run(out) if hosts.writes() else None
    console.print(
        f"wrote {out / 'results.json'}, {out / 'tickets.safetensors'}"
        + (f", {figure}" if figure else ""),
        highlight=False,
    )
    console.print(f"{time.perf_counter() - began:.0f} s in all", highlight=False)


def fit_and_score(
    config: cifar.RunConfig,
    plan: Plan,
    task: jt.Task,
    data: tuple[Any, Any],
    folder: Path,
    start_from: Path | None = None,
    predict_batch: int | None = None,
    probe: Mapping[str, Any] | None = None,
) -> tuple[jt.TicketEnsemble, dict[str, Any]]:
    """Tickets of a plan, trained or loaded, and what a results file says of them.

    `predict_batch` examples are predicted at a time.
    """
    tickets = fit(config, plan, task, data[0], folder, start_from, probe)
    return tickets, score(config, tickets, plan, data, folder, predict_batch)


def fit(
    config: cifar.RunConfig,
    plan: Plan,
    task: jt.Task,
    train: Any,
    folder: Path,
    start_from: Path | None = None,
    probe: Mapping[str, Any] | None = None,
) -> jt.TicketEnsemble:
    """The tickets of `jt.fit` with what the flags say; a finished folder is loaded."""
    return jt.fit(
        plan,
        task,
        train,
        key=config.seed,
        out=folder,
        start_from=start_from,
        **config.fit_kwargs(plan.width),
        **(probe or {}),
    )


def score(
    config: cifar.RunConfig,
    tickets: jt.TicketEnsemble,
    plan: Plan,
    data: tuple[Any, Any],
    folder: Path,
    predict_batch: int | None = None,
) -> dict[str, Any]:
    """What a results file says of tickets on a test set."""
    evaluation = jt.evaluate(tickets, data[1], bins=config.bins, batch_size=predict_batch)
    ledger, counted = jt.cost(plan, tickets.task, data[0]), None
    if not any(phase.shrinks for phase in plan.phases):
        counted = jt.cost(plan, tickets.task, data[0], masks=(t.mask for t in tickets))
    return report.results(tickets, evaluation, ledger, folder, counted)


def share_programs(folder: Path) -> None:
    """Keep compiled programs in `folder`, or where JAX_COMPILATION_CACHE_DIR says.

    Runs that differ in their masks or schedules share them, and so do later calls.
    """
    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        jax.config.update("jax_compilation_cache_dir", str(folder.resolve()))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


def scored(
    config: cifar.Config, data: tuple[jt.Dataset, jt.Dataset], folder: Path, unit: Mapping[str, Any]
) -> dict[str, Any]:
    """Results of the experiment in a folder, read from its file or after the training that is left.

    Its cost is told as multiples of `unit`, the dense run of the comparison (`PlanCost.reference`),
    there as in the comparison's table.
    """
    (plan, task), file = planned(config), folder / "results.json"
    probe = cifar.make_probe(config, data[1])
    if (folder / "tickets.safetensors").exists():
        results = read_json(file)
        if results is not None and results.get("ece_bins") == config.bins:
            # trains nothing: says if the folder holds another run
            fit(config, plan, task, data[0], folder, config.start_from, probe)
            return (
                results
                if results["cost"].get("reference") == unit
                else rewritten(results, unit, folder)
            )
    _, results = fit_and_score(config, plan, task, data, folder, config.start_from, probe=probe)
    results["cost"] = in_unit(results["cost"], unit)
    return write_results(config, task, data, folder, results)


def in_unit(cost: Mapping[str, Any], unit: Mapping[str, Any]) -> dict[str, Any]:
    """The cost of a run as multiples of another dense run."""
    ratios = report.cost_ratios(cost, unit["flops"], unit["forward"])
    return dict(cost) | ratios | {"reference": dict(unit)}


def rewritten(results: dict[str, Any], unit: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """The results with their cost in another unit, written anew."""
    record = results | {"cost": in_unit(results["cost"], unit)}
    engine.write_json(folder / "results.json", record)
    return record


def read_json(file: Path) -> dict[str, Any] | None:
    """The contents of a JSON file; None where it is missing or damaged.

    A damaged one has to be made again.
    """
    try:
        contents = json.loads(file.read_bytes())
    except (FileNotFoundError, ValueError, RecursionError):
        return None
    return contents if isinstance(contents, dict) else None


def write_results(
    config: cifar.RunConfig,
    task: jt.Task,
    data: tuple[Any, Any],
    folder: Path,
    results: dict[str, Any],
) -> dict[str, Any]:
    """Write `results.json` of a run folder, and return what is in it."""
    train, test = data
    provenance = {
        "command": command.shown_command(sys.argv),
        "dataset": data_record(train, test),
        "model": task.name,
        "seed": config.seed,
    }
    engine.write_json(folder / "results.json", provenance | results)
    return provenance | results


def data_record(train: Any, test: Any, scored: str = "test") -> dict[str, Any]:
    """What a results file says of its data.

    `scored`: the name of the set that is scored, "test" or "validation".
    """
    return {
        "name": train.name,
        "train": len(train),
        scored: len(test),
        "test_fingerprint": test.fingerprint(),
    }


def dense_counterpart(plan: Plan) -> Plan:
    """One dense network on the schedule of `plan` up to its first ticket."""
    first = next(i for i, phase in enumerate(plan.phases) if isinstance(phase, Collect))
    phases = [dataclasses.replace(plan.start, width=1, sparsity=0.0)]
    phases += [
        dataclasses.replace(phase, evolve=None)
        for phase in plan.phases[1:first]
        if hasattr(phase, "evolve")
    ]
    return dataclasses.replace(plan, name="dense", phases=(*phases, plan.phases[first]))
