"""Evaluates stored tickets by all that the papers measure: a table of the runs, and pictures.

    python experiments/evaluate.py runs/edst runs/dst --suite clean,diversity
    python experiments/evaluate.py runs/edst t.safetensors p.npz --dataset cifar10 --data-dir DIR
    python experiments/evaluate.py runs/edst --data-dir DIR --suite all
    python experiments/evaluate.py runs/edst --data-dir DIR --suite ood,adversarial --first 1
    python experiments/evaluate.py runs/imagenet-edst --data-dir DIR \\
        --suite corrupted,shifted --shifted DIR/imagenet-a
    python experiments/evaluate.py runs/pat --suite landscape --plane 15 --parent PARENT.safetensors
    python experiments/evaluate.py t.safetensors --dataset digits --model my_networks.py:make

A source is a run folder (what --out of an experiment was), a folder of run folders, a ticket file,
or an .npz of predictions from elsewhere: `log_proba` or `proba` [M, B, C], and the labels `y` [B],
in the order of the test set. Predictions have no networks: of the suite they take clean and
diversity. Networks are made from the names in the ticket files; those of your own by --model.

The same command goes on where it stopped: every part of every row, and every corrupted set, is
written as soon as it is there.
"""

from __future__ import annotations

import dataclasses
import datetime
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.progress import Progress
from support import command, own_networks, running, sources, suites
from support.drawing import draw_all
from support.evaluation_flags import Config
from support.measuring import Row

import jaxtickets as jt
from jaxtickets import engine, evaluation, report
from jaxtickets.errors import ReportError

NO_SETS: Any = jt.data.CorruptedSets("none", (), lambda corruption, severity: None, generated=False)


def main() -> None:
    """Parse the flags and evaluate the sources that they name."""
    command.main(evaluate, Config, __doc__)


def evaluate(config: Config) -> dict[str, Any]:
    """Measure what is not measured yet, write it, show the table and draw the pictures."""
    console, parts = Console(), config.parts
    suites.check_names(config)
    if not config.sources:
        raise ReportError(
            "nothing to evaluate: give a run folder, what --out of an experiment was."
        )
    networks = [own_networks.load(name) for name in config.model]
    source_list = sources.name_apart(
        [source for path in config.sources for source in sources.read(path, networks)]
    )
    if config.first is not None:
        source_list = [sources.only_first(source, config.first) for source in source_list]
    test = suites.test_set(config, source_list)
    part_by_name = suites.make_parts(config, test, parts)
    config = dataclasses.replace(
        config, out=command.out_folder(config.out, "evaluation.json", ("table.md", "table.tex"))
    )
    (config.out / "rows").mkdir(parents=True, exist_ok=True)
    running.share_programs(config.out / "programs")
    console.print(
        f"{len(source_list)} sources on {test.name}, {len(test):,} examples:"
        f" {', '.join(('clean', *part_by_name))}",
        highlight=False,
    )
    rows = [Row(config, source, test) for source in source_list]
    with Progress(console=console, transient=True) as progress:
        sets = part_by_name["corrupted"].sets if "corrupted" in part_by_name else NO_SETS
        part_names = ("clean", *(part for part in part_by_name if part != "corrupted"))
        bar = progress.add_task("", total=len(rows) * (len(part_names) + len(sets)))
        for row in rows:
            for part in part_names:
                progress.update(bar, description=f"{row.source.name}: {part}")
                row.measure(part, part_by_name.get(part))
                progress.advance(bar)
        for number, (corruption, severity) in enumerate(sets.pairs):
            lacking = [row for row in rows if row.lacks(corruption, severity, sets.generated)]
            corrupted_set = sets[number] if lacking else None  # each set is made once, for all rows
            for row in lacking:
                progress.update(
                    bar, description=f"{row.source.name}: {corruption}, severity {severity}"
                )
                row.corrupted(corrupted_set)
            progress.advance(bar, len(rows))
    result = report.finite(
        {
            "command": command.shown_command(sys.argv),
            "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
            "versions": engine.versions(),
            "test": {"name": test.name, "examples": len(test), "fingerprint": test.fingerprint()},
            "rows": (results := [row.result() for row in rows]),
            "correlation": correlation(results),
            "correlations": by_method(results),
        }
    )
    engine.write_json(config.out / "evaluation.json", result)
    table = report.evaluation_table(result)
    (config.out / "table.md").write_text(report.markdown_table(table) + "\n", encoding="utf-8")
    latex = report.latex_table(table, caption=f"Evaluation on {test.name}.", label="tab:evaluation")
    (config.out / "table.tex").write_text(latex + "\n", encoding="utf-8")
    console.print(table)
    for row in rows:
        for part, reason in row.left_out.items():
            console.print(f"{row.source.name}: no {part}: {reason}", markup=False, highlight=False)
    pictures = (
        draw_all(result, {row.source.name: row.source for row in rows}, config.out)
        if config.figures
        else []
    )
    wrote = [config.out / name for name in ("evaluation.json", "table.md", "table.tex")]
    console.print(
        f"wrote {', '.join(map(str, wrote))} and {len(pictures)} figures",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )
    return result


def correlation(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Correlation of the members' mean accuracy with the ensemble's, over the rows.

    Of several members (FreeTickets, table 8).
    """
    scores = [row["evaluation"] for row in rows if len(row["evaluation"]["members"]) > 1]
    if len(scores) < 3:
        return None
    means, ensembles = (
        [row_scores[predictor]["accuracy"] for row_scores in scores]
        for predictor in ("members_mean", "ensemble")
    )
    return evaluation.accuracy_correlation(means, ensembles).to_dict()


def by_method(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """The same over the rows of each method that has three or more, by its name."""
    methods = dict.fromkeys(str(row["method"]) for row in rows if row["method"] is not None)
    found = {
        method: correlation([row for row in rows if row["method"] == method]) for method in methods
    }
    return {method: value for method, value in found.items() if value is not None}


if __name__ == "__main__":
    main()
