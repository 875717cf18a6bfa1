"""Everything the papers measure, from stored tickets: one table with a row for each run, and the pictures.

    python experiments/evaluate.py runs/edst runs/dst --suite clean,diversity
    python experiments/evaluate.py runs/edst tickets.safetensors predictions.npz --dataset cifar10 --data-dir DIR
    python experiments/evaluate.py runs/edst --data-dir DIR --suite clean,corrupted,ood,adversarial,diversity,features,landscape

A source is a run folder (what --out of an experiment was), a folder of run folders, a ticket file, or an .npz of predictions from
elsewhere: `log_proba` or `proba` [M, B, C], and the labels `y` [B], in the order of the test set. Predictions have no networks: of the
suite they take clean and diversity. Networks are made from the names in the ticket files.

The same command goes on where it stopped: every part of every row, and every corrupted set, is written as soon as it is there.
"""

from __future__ import annotations

import dataclasses
import datetime
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import running
import sources
import suites
import tyro
from drawing import draw_all
from measuring import Row
from rich.console import Console
from rich.progress import Progress

import jaxtickets as jt
from jaxtickets import engine, evaluation, report
from jaxtickets.errors import ReportError

NO_SETS: Any = jt.data.CorruptedSets("none", (), lambda corruption, severity: None, generated=False)


@dataclasses.dataclass(frozen=True)
class Config:
    """Of what, on what, what to measure."""

    sources: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="SOURCE...")]
    """Run folders, folders of run folders, ticket files, .npz files of predictions."""
    suite: str = "clean,diversity"
    """Parts, with commas between them: clean (always made), corrupted, ood, adversarial, diversity, features, landscape; or all."""
    dataset: Literal["digits", "cifar10", "cifar100"] | None = None
    """Test set; that of the runs if not given."""
    data_dir: Path | None = None
    """Where the data sets lie: CIFAR, CIFAR-10-C, SVHN."""
    examples: int | None = None
    """Only the first so many test images, for a quick look; the tables say so."""
    combine: Literal["proba", "logits", "vote"] = "proba"
    """How members become one: the mean of their probabilities, of their logits, or a majority vote."""
    bins: int = 15
    """Bins of the calibration errors."""
    corrupted: Literal["auto", "published", "generated"] = "auto"
    """The published corrupted sets, or ones that are made here without a download; auto: the published ones if they are there."""
    corruptions: tuple[str, ...] = ()
    """Which of the corruptions; all that there are if not given."""
    severities: tuple[int, ...] = (1, 2, 3, 4, 5)
    """Which of the severities."""
    ood: tuple[str, ...] = ()
    """Out-of-distribution sets: svhn, cifar10, cifar100, noise. Those of the papers if not given."""
    noise: float = 0.2
    """Standard deviation of the noise, the largest pixel value being 1. (FreeTickets does not say which it takes.)"""
    attack: Literal["fgsm", "pgd"] = "fgsm"
    """How adversarial examples are made."""
    step: float | None = None
    """Step of the attack, as a share of the pixels' range; 8/255 of fgsm and 2/255 of pgd if not given."""
    steps: int = 10
    """Steps of pgd."""
    radius: float = 8 / 255
    """Radius of pgd."""
    recalibrate: bool = False
    """Estimate batch statistics anew, from training images, along the lines of landscape."""
    batch_size: int = 500
    """Images predicted at a time; memory, not results."""
    seed: int = 0
    """Of what is generated: corruptions and noise."""
    figures: bool = True
    """Draw the pictures, each with its data as CSV."""
    out: Path = Path("runs/evaluation")
    """Folder of evaluation.json, the tables and the pictures."""

    @property
    def parts(self) -> tuple[str, ...]:
        """What the suite asks beside the clean scores."""
        asked = [part.strip() for part in self.suite.split(",") if part.strip()]
        if "all" in asked:
            return suites.PARTS[1:]
        if strange := [part for part in asked if part not in suites.PARTS]:
            raise ReportError(f"--suite: got {strange[0]!r}; parts are {', '.join(suites.PARTS)}, with commas between them, or all.")
        return tuple(part for part in suites.PARTS[1:] if part in asked)


def main() -> None:
    """Parse and evaluate."""
    config = tyro.cli(Config, description=__doc__)
    with running.one_line_errors():
        evaluate(config)


def evaluate(config: Config) -> dict[str, Any]:
    """Measure what is not measured yet, write, show and draw."""
    console, parts = Console(), config.parts
    if not config.sources:
        raise ReportError("nothing to evaluate: give a run folder, what --out of an experiment was.")
    found = sources.name_apart([source for path in config.sources for source in sources.read(path)])
    test = suites.test_set(config, found)
    wanted = suites.make_parts(config, test, parts)
    (config.out / "rows").mkdir(parents=True, exist_ok=True)
    running.share_programs(config.out / "programs")
    console.print(f"{len(found)} sources on {test.name}, {len(test):,} examples: {', '.join(('clean', *parts))}", highlight=False)
    rows = [Row(config, source, test) for source in found]
    with Progress(console=console, transient=True) as progress:
        sets = wanted["corrupted"].sets if "corrupted" in wanted else NO_SETS
        each = ("clean", *(part for part in wanted if part != "corrupted"))
        bar = progress.add_task("", total=len(rows) * (len(each) + len(sets)))
        for row in rows:
            for part in each:
                progress.update(bar, description=f"{row.source.name}: {part}")
                row.measure(part, wanted.get(part))
                progress.advance(bar)
        for number, (corruption, severity) in enumerate(sets.pairs):
            lacking = [row for row in rows if row.lacks(corruption, severity, sets.generated)]
            one = sets[number] if lacking else None  # each set is made once, for all rows
            for row in lacking:
                progress.update(bar, description=f"{row.source.name}: {corruption}, severity {severity}")
                row.corrupted(one)
            progress.advance(bar, len(rows))
    result = report.finite(
        {
            "command": running.shown_command(sys.argv),
            "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
            "versions": engine.versions(),
            "test": {"name": test.name, "examples": len(test), "fingerprint": test.fingerprint()},
            "rows": (results := [row.result() for row in rows]),
            "correlation": correlation(results),
        }
    )
    engine.write_json(config.out / "evaluation.json", result)
    table = report.evaluation_table(result)
    (config.out / "table.md").write_text(report.markdown_table(table) + "\n")
    (config.out / "table.tex").write_text(report.latex_table(table, caption=f"Evaluation on {test.name}.", label="tab:evaluation") + "\n")
    console.print(table)
    for row in rows:
        for part, why in row.left_out.items():
            console.print(f"{row.source.name}: no {part}: {why}", markup=False, highlight=False)
    drawn = draw_all(result, {row.source.name: row.source for row in rows}, config.out) if config.figures else []
    wrote = [config.out / name for name in ("evaluation.json", "table.md", "table.tex")]
    console.print(f"wrote {', '.join(map(str, wrote))} and {len(drawn)} figures", markup=False, highlight=False, soft_wrap=True)
    return result


def correlation(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """How the members' mean accuracy and the ensemble's go together over the rows of several members (FreeTickets, table 8)."""
    several = [row["evaluation"] for row in rows if len(row["evaluation"]["members"]) > 1]
    if len(several) < 3:
        return None
    means, ensembles = ([one[who]["accuracy"] for one in several] for who in ("members_mean", "ensemble"))
    return evaluation.accuracy_correlation(means, ensembles).to_dict()


if __name__ == "__main__":
    main()
