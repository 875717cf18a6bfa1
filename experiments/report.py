"""One self-contained HTML file over run folders: what was run, results beside the papers', evaluation, cost, curves, commands.

    python experiments/report.py runs/edst -o report.html
    python experiments/report.py runs/compare-table1 -o report.html              # a folder of run folders, and the comparison above them
    python experiments/report.py runs/*-seed0 evaluation.json -o report.html
    python experiments/report.py experiments/results/compare-digits.json -o report.html

RUN is a run folder (what --out of an experiment was), a folder of run folders, or a JSON file that an experiment wrote: results.json,
evaluation.json, a comparison, a sweep, tau.json. An evaluation.json in a run folder or beside it is found by itself. A run that is not
finished is reported as such. Results on different test sets are an error: they cannot stand in one table.

The file needs no network and runs no script; figures carry their data as CSV. Nothing is trained, compiled or written into run folders.
"""

from __future__ import annotations

import dataclasses
import datetime
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import running
import tyro
from drawing import beside
from published import paper_rows
from rich.console import Console

from jaxtickets import report
from jaxtickets.engine import versions
from jaxtickets.errors import ReportError
from jaxtickets.report import html


@dataclasses.dataclass(frozen=True)
class Config:
    """Of what, to where."""

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
    """Parse and report."""
    config = tyro.cli(Config, description=__doc__)
    with running.one_line_errors():
        write(config)


def write(config: Config) -> None:
    """Read, draw, write."""
    if not config.runs:
        raise ReportError("nothing to report: give a run folder, what --out of an experiment was.")
    if config.out.is_dir() or not config.out.absolute().parent.is_dir():
        raise ReportError(f"--out {config.out}: give a file in a folder that is there, such as report.html.")
    found = html.read_found(config.runs)
    pictures = [figure for record in found.evaluations for figure in beside(record.file)] if config.figures else []
    with tempfile.TemporaryDirectory() as scratch:
        curves = html.timelines(found, Path(scratch)) if config.timelines else {}
        sections = html.sections(found, paper_rows(), pictures, timelines=curves, command=running.shown_command(sys.argv))
        page = html.render(config.title or heading(found), about(found), sections)
    html.write(config.out, page)
    console = Console()
    counts = {"run": found.runs, "evaluation": found.evaluations, "section": sections}
    console.print(", ".join(f"{len(them)} {it}{'' if len(them) == 1 else 's'}" for it, them in counts.items()), highlight=False)
    unfinished = [run.name for run in found.runs if not run.finished]
    if unfinished:
        console.print(f"[bold yellow]not finished[/]: {len(unfinished)}", highlight=False)
    console.print(f"wrote {config.out}, {config.out.stat().st_size / 2**20:.1f} MB", markup=False, highlight=False, soft_wrap=True)
    for file, text in ((config.markdown, as_markdown), (config.latex, as_latex)):
        if file is not None:
            file.write_text("\n\n".join(map(text, html.tables(found, paper_rows()))) + "\n")
            console.print(f"wrote {file}", markup=False, highlight=False, soft_wrap=True)


def as_markdown(table: html.Table) -> str:
    """Title, cells and note."""
    grid = report.markdown_grid(table.header, table.rows, table.bold, {0, *table.texts})
    return "\n\n".join([f"**{table.title}**", grid, *([table.note] if table.note else [])])


def as_latex(table: html.Table) -> str:
    """A float."""
    header = [report.latex_escape(cell) for cell in table.header]
    notes = [table.note] if table.note else []
    return report.latex_grid(header, table.rows, table.bold, {0, *table.texts}, caption=table.title, notes=notes)


def heading(found: html.Found) -> str:
    """A title from the runs' names."""
    names = [run.name for run in found.runs]
    if not names:
        return "Report of result files"
    return f"Report: {names[0]}" + (f" and {len(names) - 1} more" if len(names) > 1 else "")


def about(found: html.Found) -> str:
    """One line on this report."""
    here = versions()
    date = datetime.datetime.now(datetime.UTC).isoformat(timespec="minutes")
    finished = sum(run.finished for run in found.runs)
    runs = f"{len(found.runs)} run{'s' if len(found.runs) > 1 else ''}, {finished} finished. " if found.runs else ""
    return f"{runs}Written {date} with jaxtickets {here['jaxtickets']}."


if __name__ == "__main__":
    main()
