"""Multi-Ticket ensembles on GLUE: winning tickets of one pretrained BERT or RoBERTa.

Fine-tuning and bagging stand beside them.

Paper: Kobayashi, Kiyono, Suzuki and Inui, Diverse Lottery Tickets Boost Ensemble from a Single
Pretrained Model, 2022, arXiv:2205.11833.

    python experiments/multi_ticket_glue.py  # demo: made-up language, minutes on two CPU cores
    python experiments/multi_ticket_glue.py --preset small --model DIR --data-dir DIR \\
        --scheme baseline base_lt random_lt
    python experiments/multi_ticket_glue.py --preset paper --task mrpc \\
        --model bert-base-uncased --scheme random_lt
    python experiments/multi_ticket_glue.py --preset paper --cost  # what it would take
    python experiments/multi_ticket_glue.py --preset paper_roberta_stsb
    python experiments/multi_ticket_glue.py --preset paper_stsb \\
        --beside runs/multi-ticket-mrpc-paper  # the paper's figure 3
    python experiments/multi_ticket_glue.py --scheme random_lt --tau-sweep 1e-6 1e-5 1e-4
    python experiments/multi_ticket_glue.py --scheme base_lt --structure connections units

Each scheme has a run folder of its own under --out: what is finished is loaded, what was
interrupted goes on. results.json, tables and figures of all schemes are made anew every time.
"""

from __future__ import annotations

import dataclasses
import functools
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from support import command, hosts, running, texts
from support.text_flags import PRESETS, SCHEMES, Config

import jaxtickets as jt
from jaxtickets import engine, evaluation, report
from jaxtickets.errors import ReportError
from jaxtickets.plan import Plan


def main() -> None:
    """Parse the flags and run the schemes that they name."""
    command.main(run_and_report, PRESETS, __doc__)


def run_and_report(config: Config) -> None:
    """Check the flags and plans, then show the costs, sweep the penalty or run the schemes."""
    check(config)
    neighbours(config)
    if not config.cost:
        command.out_folder(
            config.folder,
            "results.json",
            ("tables.md", "gains.png", "gains.csv", "overlaps.png", "overlaps.csv"),
        )
    task, blank = texts.blank(config)
    ledgers = [running.priced(config, plan, task, blank) for plan in plans(config).values()]
    if config.cost:
        for ledger in ledgers:
            running.show_cost(ledger)
        return
    if config.tau_sweep:
        sweep(config)
    else:
        run(config, config.folder)


def check(config: Config) -> None:
    """Raise `PlanError` for flags that do not fit each other, which no plan can notice."""
    if config.seeds % config.groups or config.groups < 1:
        raise jt.PlanError(
            f"--groups: {config.seeds} seeds do not divide into {config.groups} groups; take"
            " --groups 1."
        )
    most = config.seeds // config.groups
    if not config.sizes or not all(2 <= size <= most for size in config.sizes):
        allowed = (
            f"from 2 to {most}, the seeds of a group"
            if most > 1
            else "not to be had from one seed: take more --seeds"
        )
        raise jt.PlanError(f"--sizes: sizes of ensembles are {allowed}; got {config.sizes}.")
    if not config.scheme:
        raise jt.PlanError(f"--scheme: one or more of {', '.join(SCHEMES)}, or all.")
    if config.side_by_side and config.distributed:
        raise jt.PlanError("--side-by-side measures one host; leave out --distributed, or it.")
    if not config.structure:
        raise jt.PlanError("--structure: connections, units, or both.")
    if config.tau_sweep and len(config.structure) > 1:
        raise jt.PlanError("--tau-sweep: of one --structure.")
    if config.tau_sweep and config.scheme not in (("active_lt",), ("random_lt",)):
        raise jt.PlanError(
            "--tau-sweep: of a scheme with a penalty: --scheme random_lt or active_lt; got"
            f" {' '.join(config.scheme)}."
        )
    if (config.task == "paraphrases") != (config.preset == "demo"):
        raise jt.PlanError(
            "--task: paraphrases is the demo's task and its only one; take --preset small or paper"
            " for GLUE."
        )


def neighbours(config: Config) -> list[dict[str, Any]]:
    """The results of the runs that stand beside this one's in its figure.

    Raises:
      ReportError: a folder without results of this script.
    """
    records = []
    for folder in config.beside:
        record = running.read_json(folder / "results.json")
        if record is None or not {"rows", "metric", "groups"} <= record.keys():
            raise ReportError(
                f"--beside {folder}: no results.json of this script; give what --out of a finished"
                " run was."
            )
        records.append(record)
    return records


def plans(config: Config) -> dict[str, Plan]:
    """The plan of every row that the flags name."""
    with command.planning():
        return {name: config.plan(name) for name in config.rows}


def run(config: Config, folder: Path) -> dict[str, Any]:
    """Train or load the schemes, measure and compare them, and write the tables and figures."""
    console = Console()
    running.share_programs(config.folder / "programs")
    prepared = texts.prepare(config, console)
    task, train, validation = prepared.task, prepared.train, prepared.validation
    console.print(
        f"{task.name} on {train.name}, {len(train):,} training and {len(validation):,} validation"
        " examples",
        highlight=False,
    )
    rows, predictions, gains = [], {}, {}
    for name, plan in plans(config).items():
        console.print(f"{texts.title(name)}: {folder / name}", highlight=False, soft_wrap=True)
        tickets = jt.fit(
            plan,
            task,
            train,
            key=config.seed,
            out=folder / name,
            **config.fit_kwargs(plan.width),
        )
        if config.export and hosts.writes():
            texts.export(tickets, prepared.sizes, folder / name / "tickets")
        file = folder / name / "predictions.npz"
        probabilities = hosts.together(
            functools.partial(texts.stored_predictions, tickets, validation, file)
        )
        gain = evaluation.ensemble_gain(
            probabilities,
            validation.y,
            texts.metric(config),
            sizes=config.sizes,
            groups=config.groups,
        )
        cost = jt.cost(plan, task, train)
        rows.append(
            texts.row(config, name, tickets, probabilities, gain, validation, cost, folder / name)
        )
        predictions[name], gains[name] = probabilities, gain
    texts.compare(config, rows, predictions, gains, validation.y)
    record = report.finite(
        {
            "command": command.shown_command(sys.argv),
            "preset": config.preset,
            "synthetic": prepared.synthetic,
            "dataset": running.data_record(train, validation, "validation"),
            "network": task.name,
            "metric": texts.metric(config),
            "seeds": config.seeds,
            "groups": config.groups,
            "size": max(config.sizes),
            "tau": config.tau,
            "rows": rows,
            "versions": engine.versions(),
        }
    )
    engine.write_json(folder / "results.json", record)  # the timing may be broken off
    if config.side_by_side:
        record |= texts.timed(config, prepared, record["rows"])
        engine.write_json(folder / "results.json", record)
    tables = (report.gains_table(record), report.members_table(record))
    markdown = [report.markdown_table(table, notes=False) for table in tables]
    if hosts.writes():
        (folder / "tables.md").write_text("\n\n".join(markdown) + "\n", encoding="utf-8")
    Console(width=max(console.width, 130)).print(*tables)
    figures = ()
    if hosts.writes():
        figures = (
            report.draw_gains([*neighbours(config), record], folder / "gains.png"),
            report.draw_overlaps(record, folder / "overlaps.png"),
        )
    console.print(
        "wrote " + ", ".join(str(file) for file in (folder / "results.json", *figures) if file),
        highlight=False,
        soft_wrap=True,
    )
    return record


def sweep(config: Config) -> None:
    """Run the scheme at several strengths of its penalty, beside one without (base_lt)."""
    points, comparison = [], {}
    for tau in (0.0, *config.tau_sweep):
        scheme: Any = config.scheme if tau else ("base_lt",)
        comparison = run(
            dataclasses.replace(config, scheme=scheme, tau=tau or config.tau, tau_sweep=()),
            config.folder / f"tau-{tau:g}",
        )
        (row,) = comparison["rows"]
        points.append(
            {"tau": tau}
            | {
                name: row[name]
                for name in ("gain", "mask_iou", "oracle", "prediction_disagreement")
            }
        )
    provenance = {
        name: comparison[name]
        for name in ("preset", "dataset", "network", "metric", "seeds", "size", "versions")
    }
    swept = {
        "command": command.shown_command(sys.argv),
        "scheme": config.scheme[0],
        **provenance,
        "points": points,
    }
    engine.write_json(config.folder / "tau.json", swept)
    console = Console()
    console.print(report.strengths_table(swept))
    console.print(f"wrote {config.folder / 'tau.json'}", highlight=False)


if __name__ == "__main__":
    main()
