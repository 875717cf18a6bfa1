"""Writes one self-contained HTML file on runs: results beside the papers', cost and curves.

python experiments/report.py runs/edst -o report.html
python experiments/report.py runs/compare-table1 -o report.html    # a folder of run folders
python experiments/report.py runs/*-seed0 evaluation.json -o report.html
python experiments/report.py experiments/results/compare-digits.json -o report.html

RUN is a run folder (what --out of an experiment was), a folder of run folders, whose comparison
stands above them, or a JSON file that an experiment wrote: results.json, evaluation.json, a
comparison, a sweep, tau.json. An evaluation.json in a run folder or beside it is found by itself. A
run that is not finished is reported as such. Results on different test sets are an error: they
cannot stand in one table.

The file needs no network and runs no script; figures carry their data as CSV. Nothing is trained,
compiled or written into run folders.
"""

from __future__ import annotations

import dataclasses
import datetime
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console
from support import command
from support.drawing import beside
from support.published import paper_rows

from jaxtickets import report
from jaxtickets.engine import versions
from jaxtickets.errors import ReportError
from jaxtickets.files import paths
from jaxtickets.report import html


@dataclasses.dataclass(frozen=True)
class Config:
    """Flags of report.py: what is reported, and to which file."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN...")]
    """Run folders, folders of run folders, or result files."""
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])] = Path("report.html")
    """The file to write."""
    title: str = ""
    """Its heading; made from the runs' names if not given."""
    timelines: bool = True
    """Draw the training curves of every run."""
    figures: bool = True
    """Show the pictures that lie beside an evaluation.json."""
    markdown: Path | None = None
    """Write the tables in Markdown too, to this file."""
    latex: Path | None = None
    """Write the tables in LaTeX too, to this file; it needs the package booktabs."""


def main() -> None:
    """Parse the flags and write the report."""
    command.main(write, Config, __doc__)


def write(config: Config) -> None:
    """Read the runs, draw their figures and write the report."""
    if not config.runs:
        raise ReportError("nothing to report: give a run folder, what --out of an experiment was.")
    written = {
        name: file and paths.given(file, f"--{name}")
        for name in ("out", "markdown", "latex")
        if (file := getattr(config, name))
    }
    config = dataclasses.replace(config, **written)
    for file, flag in (
        (config.out, "--out"),
        (config.markdown, "--markdown"),
        (config.latex, "--latex"),
    ):
        command.writable_file(file, flag)
    inputs = html.read_inputs(config.runs)
    pictures = (
        [figure for record in inputs.evaluations for figure in beside(record.file)]
        if config.figures
        else []
    )
    with tempfile.TemporaryDirectory() as scratch:
        curves = html.timelines(inputs, Path(scratch)) if config.timelines else {}
        sections = html.sections(
            inputs,
            paper_rows(),
            pictures,
            timelines=curves,
            command=command.shown_command(sys.argv),
        )
        page = html.render(config.title or heading(inputs), about(inputs), sections)
    html.write(config.out, page)
    console = Console()
    counts = {"run": inputs.runs, "evaluation": inputs.evaluations, "section": sections}
    console.print(
        ", ".join(
            f"{len(items)} {kind}{'' if len(items) == 1 else 's'}" for kind, items in counts.items()
        ),
        highlight=False,
    )
    unfinished = [run.name for run in inputs.runs if not run.finished]
    if unfinished:
        console.print(f"[bold yellow]not finished[/]: {len(unfinished)}", highlight=False)
    console.print(
        f"wrote {config.out}, {config.out.stat().st_size / 2**20:.1f} MB",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )
    tables = html.tables(inputs, paper_rows())
    markdown = (report.markdown_table(table, title=True) for table in tables)
    latex = (report.latex_table(table, caption=table.title) for table in tables)
    for file, texts in ((config.markdown, markdown), (config.latex, latex)):
        if file is not None:
            file.write_text("\n\n".join(texts) + "\n", encoding="utf-8")
            console.print(f"wrote {file}", markup=False, highlight=False, soft_wrap=True)


def heading(inputs: html.ReportInputs) -> str:
    """The report's title, made from the runs' names."""
    names = [run.name for run in inputs.runs]
    if not names:
        return "Report of result files"
    return f"Report: {names[0]}" + (f" and {len(names) - 1} more" if len(names) > 1 else "")


def about(inputs: html.ReportInputs) -> str:
    """A line on the report itself: how many runs, written when and by which version."""
    installed = versions()
    date = datetime.datetime.now(datetime.UTC).isoformat(timespec="minutes")
    finished = sum(run.finished for run in inputs.runs)
    runs = (
        f"{len(inputs.runs)} run{'s' if len(inputs.runs) > 1 else ''}, {finished} finished. "
        if inputs.runs
        else ""
    )
    return f"{runs}Written {date} with jaxtickets {installed['jaxtickets']}."


if __name__ == "__main__":
    main()
