"""One self-contained HTML page over run folders: no network, no scripts, everything that comes from files escaped.

`read_found` reads run folders and result files, `sections` makes the report's sections of them, `render` the page.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from jaxtickets.report.html.curves import timelines as timelines
from jaxtickets.report.html.evaluated import evaluation_section
from jaxtickets.report.html.found import Found as Found
from jaxtickets.report.html.found import read_found as read_found
from jaxtickets.report.html.page import render as render
from jaxtickets.report.html.page import write as write
from jaxtickets.report.html.papers import PaperRow as PaperRow
from jaxtickets.report.html.papers import papers_section
from jaxtickets.report.html.parts import Figure as Figure
from jaxtickets.report.html.parts import Section as Section
from jaxtickets.report.html.parts import Table as Table
from jaxtickets.report.html.runs import again_section, cost_section, doubts, runs_section
from jaxtickets.report.html.scores import results_section


def sections(
    found: Found,
    published: Iterable[PaperRow] = (),
    figures: Sequence[Figure] = (),
    timelines: Mapping[str, Figure] | None = None,
    command: str = "",
) -> list[Section]:
    """The report's sections, in order; those with nothing to say are left out.

    Args:
      found: what `read_found` found.
      published: rows of the papers' tables.
      figures: pictures to show beside the timelines.
      timelines: a run's timeline by its name, as `timelines` draws them.
      command: the report's own.

    Raises:
      ReportError: a field of another kind than wanted; names file and field.

    >>> [section.title for section in sections(Found())]
    ['Results', 'Run it again']
    """
    warnings = doubts(found)
    several = len(found.evaluations) > 1
    evaluations = [evaluation_section(record, number if several else None) for number, record in enumerate(found.evaluations, 1)]
    made = [
        Section("What does not fit", warnings) if warnings else None,
        results_section(found),
        papers_section(found, published),
        *evaluations,
        Section("Figures", figures) if figures else None,
        cost_section(found),
        runs_section(found, timelines or {}),
        again_section(found, command),
    ]
    return [section for section in made if section is not None]


def tables(found: Found, published: Iterable[PaperRow] = ()) -> list[Table]:
    """Every table of the report, in order: what a rendering in Markdown or LaTeX starts from."""
    return [table for section in sections(found, published) for table in section.tables()]
