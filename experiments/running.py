"""From flags to tickets, tables and files: the one way that all image experiments go. Not a script."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import cifar
import jax
import tyro
from rich.console import Console

import jaxtickets as jt
from jaxtickets import engine, report
from jaxtickets.errors import ReportError
from jaxtickets.plan import Collect, Plan

C = TypeVar("C", bound=Any)
# Errors that are the user's to mend.
MENDABLE = (
    jt.CheckpointError,
    jt.DataError,
    jt.MaskError,
    jt.PlanError,
    jt.RunError,
    ReportError,
    jt.TicketError,
    jt.TicketFileError,
    jt.NonFiniteLoss,
    ImportError,
    FileNotFoundError,
)


def chosen(flag: str, default: str) -> str:
    """What the command line says for a flag that the other flags' defaults hang on."""
    chooser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    chooser.add_argument(f"--{flag}", default=default)
    return getattr(chooser.parse_known_args()[0], flag)


def parse(presets: Mapping[str, C], description: str) -> C:
    """The command line: `--preset` chooses the defaults (the first if not given), every other flag replaces one."""
    first = next(iter(presets))
    default = presets.get(chosen("preset", first), presets[first])
    return tyro.cli(type(default), default=default, description=description)


def main(presets: Mapping[str, cifar.Config], description: str) -> None:
    """Parse and run one experiment."""
    config = parse(presets, description)
    with one_line_errors():
        run(config)


@contextlib.contextmanager
def one_line_errors() -> Iterator[None]:
    """Turns the errors that are the user's to mend into one line, and an interruption into a word on resuming."""
    try:
        yield
    except MENDABLE as error:
        Console(stderr=True).print(f"[bold red]{type(error).__name__}[/]: ", end="", highlight=False)
        Console(stderr=True).print(str(error), markup=False, highlight=False, soft_wrap=True)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        Console(stderr=True).print("stopped; the same command resumes from the last checkpoint.")
        raise SystemExit(130) from None


def run(config: cifar.Config) -> None:
    """Train, evaluate, write and show."""
    plan, task = config.plan(), cifar.make_task(config)
    if config.cost:
        show_cost(plan, task, cifar.blank(config.dataset))
        return
    out = config.out or Path("runs") / f"{config.name}-{config.preset}-seed{config.seed}"
    dense = dense_counterpart(plan) if config.compare_dense else None
    data = cifar.make_data(config)
    probe = cifar.make_probe(config, data[1])
    carry_out(config, config.name, plan, task, data, out, dense, start_from=config.start_from, probe=probe)


def show_cost(plan: Plan, task: jt.Task, data: Any) -> None:
    """The plan and what it would cost."""
    console = Console()
    console.print(str(plan), highlight=False, soft_wrap=True)
    console.print(jt.cost(plan, task, data))


def carry_out(
    config: cifar.RunConfig,
    name: str,
    plan: Plan,
    task: jt.Task,
    data: tuple[Any, Any],
    out: Path,
    dense: Plan | None = None,
    also: Mapping[str, Any] | None = None,
    **how: Any,
) -> None:
    """Train, evaluate, write and show.

    Args:
      config: flags of how.
      name: what the table calls it.
      plan, task: what.
      data: training data, and what the tickets are evaluated on.
      out: the run folder.
      dense: a second plan to compare with, in the folder `dense` of the first.
      also: more sets to evaluate on, by the name that `results.json` gives their scores.
      how: as `fit_and_score` takes it.
    """
    console = Console()
    began = time.perf_counter()
    console.print(str(plan), highlight=False, soft_wrap=True)
    console.print(
        f"{task.name} on {data[0].name}, {len(data[0]):,} training and {len(data[1]):,} test examples; run folder {out}",
        highlight=False,
        soft_wrap=True,
    )
    tickets, results = fit_and_score(config, plan, task, data, out, **how)
    rows = {name: results}
    for other, test in (also or {}).items():
        rows[f"{name}, {other}"] = found = score(config, tickets, plan, (data[0], test), out, how.get("predict_batch"))
        kept = ("ensemble", "members", "members_mean", "diversity", "ece_bins", "examples")
        results[other] = {part: found[part] for part in kept}
    if dense is not None:
        console.print(str(dense), highlight=False, soft_wrap=True)
        _, rows["single dense"] = fit_and_score(config, dense, task.plain or task, data, out / "dense")
        results["single_dense"] = rows["single dense"]
    write_results(config, task, data, out, results)
    console.print(report.results_table(rows))
    figure = report.draw_run(out)
    console.print(f"wrote {out / 'results.json'}, {out / 'tickets.safetensors'}" + (f", {figure}" if figure else ""), highlight=False)
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
    """Tickets of a plan, trained or loaded, and what a results file says of them; `predict_batch` examples at a time."""
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
    """`jt.fit` as the flags say; a finished folder is loaded."""
    return jt.fit(plan, task, train, key=config.seed, out=folder, start_from=start_from, **config.how(plan.width), **(probe or {}))


def score(
    config: cifar.RunConfig, tickets: jt.TicketEnsemble, plan: Plan, data: tuple[Any, Any], folder: Path, predict_batch: int | None = None
) -> dict[str, Any]:
    """What a results file says of tickets on a test set."""
    evaluation = jt.evaluate(tickets, data[1], bins=config.bins, batch_size=predict_batch)
    return report.results(tickets, evaluation, jt.cost(plan, tickets.task, data[0]), folder)


def share_programs(folder: Path) -> None:
    """Keep compiled programs in `folder`, or where JAX_COMPILATION_CACHE_DIR says.

    Runs that differ in their masks or schedules share them, and so do later calls.
    """
    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        jax.config.update("jax_compilation_cache_dir", str(folder.resolve()))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


def scored(config: cifar.Config, data: tuple[jt.Dataset, jt.Dataset], folder: Path) -> dict[str, Any]:
    """Results of the experiment in a folder: read where they have been written, else after training what is left of it."""
    plan, task, file = config.plan(), cifar.make_task(config), folder / "results.json"
    probe = cifar.make_probe(config, data[1])
    if file.exists() and (folder / "tickets.safetensors").exists():
        results = json.loads(file.read_text())
        if results["ece_bins"] == config.bins:
            fit(config, plan, task, data[0], folder, config.start_from, probe)  # trains nothing: says if the folder holds another run
            return results
    _, results = fit_and_score(config, plan, task, data, folder, config.start_from, probe=probe)
    return write_results(config, task, data, folder, results)


def write_results(config: cifar.RunConfig, task: jt.Task, data: tuple[Any, Any], folder: Path, results: dict[str, Any]) -> dict[str, Any]:
    """`results.json` of a run folder."""
    train, test = data
    about = {
        "command": shown_command(sys.argv),
        "dataset": data_record(train, test),
        "model": task.name,
        "seed": config.seed,
    }
    engine.write_json(folder / "results.json", about | results)
    return about | results


def data_record(train: Any, test: Any, scored: str = "test") -> dict[str, Any]:
    """What a results file says of its data. `scored`: the name of the set that is scored, "test" or "validation"."""
    return {"name": train.name, "train": len(train), scored: len(test), "test_fingerprint": test.fingerprint()}


def shown_command(argv: Sequence[str]) -> str:
    """The command as somebody else would type it: the script from the root of a clone, no folders of this machine.

    Paths that matter keep their last part: which network, which vocabulary.

    >>> shown_command(["/home/me/jaxtickets/experiments/edst_cifar.py", "--data-dir", "/data", "--seed", "1", "--out=/tmp/x"])
    'python experiments/edst_cifar.py --data-dir DIR --seed 1'
    >>> shown_command(["multi_ticket_glue.py", "--model", "/models/bert-mini", "--tokenizer=/models/vocab.txt"])
    'python experiments/multi_ticket_glue.py --model bert-mini --tokenizer=vocab.txt'
    """
    shown = ["python", f"experiments/{Path(argv[0]).name}"]
    hidden = {"--out": "", "--data-dir": "DIR", "--imagenet-a": "DIR", "--parent": "FILE"}
    words = iter(argv[1:])
    for word in words:
        flag, _, value = word.partition("=")
        if flag in hidden:
            if not value:
                next(words, None)
            shown += [flag, hidden[flag]] if hidden[flag] else []
        else:
            path = value or word
            shown.append(word.removesuffix(path) + Path(path).name if path.startswith("/") else word)
    return " ".join(shown)


def dense_counterpart(plan: Plan) -> Plan:
    """One dense network on the schedule of `plan` up to its first ticket."""
    first = next(i for i, phase in enumerate(plan.phases) if isinstance(phase, Collect))
    phases = [dataclasses.replace(plan.start, width=1, sparsity=0.0)]
    phases += [dataclasses.replace(phase, evolve=None) for phase in plan.phases[1:first] if hasattr(phase, "evolve")]
    return dataclasses.replace(plan, name="dense", phases=(*phases, plan.phases[first]))
