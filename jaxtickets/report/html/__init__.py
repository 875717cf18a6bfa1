"""One self-contained HTML page over run folders.

No network, no scripts, everything that comes from files escaped.

`read_inputs` reads run folders and result files, `sections` makes the report's sections of them,
`render` the page.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from jaxtickets.report.html.blocks import Figure as Figure
from jaxtickets.report.html.blocks import Section as Section
from jaxtickets.report.html.curves import timelines as timelines
from jaxtickets.report.html.evaluated import evaluation_section
from jaxtickets.report.html.inputs import ReportInputs as ReportInputs
from jaxtickets.report.html.inputs import read_inputs as read_inputs
from jaxtickets.report.html.page import render as render
from jaxtickets.report.html.page import write as write
from jaxtickets.report.html.papers import PaperRow as PaperRow
from jaxtickets.report.html.papers import papers_section
from jaxtickets.report.html.runs import again_section, cost_section, doubts, runs_section
from jaxtickets.report.html.scores import results_section
from jaxtickets.report.table import ScoreTable


def sections(
    inputs: ReportInputs,
    published: Iterable[PaperRow] = (),
    figures: Sequence[Figure] = (),
    timelines: Mapping[str, Figure] | None = None,
    command: str = "",
) -> list[Section]:
    """The report's sections, in order; those with nothing to say are left out.

    Args:
      found: what `read_inputs` inputs.
      published: rows of the papers' tables.
      figures: pictures to show beside the timelines.
      timelines: a run's timeline by its name, as `timelines` draws them.
      command: the report's own.

    Raises:
      ReportError: a field of another kind than wanted; names file and field.

    >>> [section.title for section in sections(ReportInputs())]
    ['Results', 'Run it again']
    """
    warnings = doubts(inputs)
    several = len(inputs.evaluations) > 1
    evaluations = [
        evaluation_section(record, number if several else None)
        for number, record in enumerate(inputs.evaluations, 1)
    ]
    candidates = [
        Section("What does not fit", warnings) if warnings else None,
        results_section(inputs),
        papers_section(inputs, published),
        *evaluations,
        Section("Figures", figures) if figures else None,
        cost_section(inputs),
        runs_section(inputs, timelines or {}),
        again_section(inputs, command),
    ]
    return [section for section in candidates if section is not None]


def tables(inputs: ReportInputs, published: Iterable[PaperRow] = ()) -> list[ScoreTable]:
    """Every table of the report, in order: what a rendering in Markdown or LaTeX starts from."""
    return [table for section in sections(inputs, published) for table in section.tables()]
