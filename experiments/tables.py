"""Write the tables of README.md, experiments/README.md and the documentation.

Ours are written from experiments/results, the papers' from experiments/support/papers.toml.

python experiments/tables.py            # rewrites the tables
python experiments/tables.py --check    # only says whether they are up to date (else status 1)
"""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from support import command
from support.published import printed_tables

from jaxtickets import report

HERE = Path(__file__).resolve().parent

scores = report.markdown_table
# names of our own: nothing to escape, and an empty cell is two spaces wide there
runs = functools.partial(scores, gap="  ", escape=False)
bare = functools.partial(runs, notes=False)


def schemes(record: dict[str, Any]) -> str:
    """Both tables of a comparison of schemes, in Markdown."""
    tables = (report.gains_table(record), report.members_table(record))
    return "\n\n".join(map(bare, tables))


def benchmark(record: dict[str, Any]) -> str:
    """The table of a benchmark in Markdown; its corner alone is one space wide."""
    return runs(report.benchmark_table(record)).replace("|  |", "| |", 1)


def speed(record: dict[str, Any]) -> str:
    """A line about the speed of smaller networks, for a list."""
    what = "WRN-16-4, half the channels cut out, training step: times faster than masked"
    (row,) = (row for row in record["rows"] if row["what"] == what)
    return (
        "- **Smaller networks.** Channels, neurons and attention heads that die are cut out while a"
        f" plan runs. With half the channels gone a training step of WRN-16-4 is {row['ratio']:.1f}"
        " times as fast as masked, measured on two CPU cores."
    )


def smaller_networks(record: dict[str, Any]) -> str:
    """Masked tickets against those whose units were cut out, in few columns."""
    names = ["acc %", "NLL", "training", "executed training", "executed inference", "seconds"]
    names += ["seconds of predicting"] if "timing" in record else []
    return bare(report.comparison_table(record).select(*names))


def units(record: dict[str, Any]) -> str:
    """Tickets of units against those of connections: what ensembling gains, and at what cost."""
    names = ["single", "ensemble", "diff.", "training", "executed training", "seconds"]
    return bare(report.gains_table(record).select(*names, "seconds of predicting"))


PAPERS = {
    "Liu et al. 2022": "free-tickets",
    "Whitaker and Whitley 2022": "prune-and-tune",
    "Kobayashi et al. 2022": "multi-ticket",
}
"""What the papers' tables are called in the markers: free-tickets-table-1."""


def papers() -> dict[str, str]:
    """The papers' own tables in Markdown, by the names of their markers."""
    tables: dict[str, str] = {}
    for source, table in printed_tables():
        authors, _, place = source.partition(", ")
        name = f"{PAPERS[authors]}-{place.replace(' ', '-')}"
        tables[name] = f"{tables[name]}\n\n{runs(table)}" if name in tables else runs(table)
    return tables


BLOCKS: dict[str, tuple[str, Callable[[Any], str]]] = {
    **{
        name: (f"{file}-cpu.json", benchmark)
        for name, file in {
            "benchmark": "benchmark",
            "shrinking": "benchmark-shrinking",
            "smaller": "benchmark-smaller",
            "packed": "benchmark-packed",
            "exports": "benchmark-exports",
            "memory": "benchmark-memory",
            "texts": "benchmark-texts",
            "speed-of-evaluation": "benchmark-evaluation",
        }.items()
    },
    **{
        name: (f"compare-{name}.json", lambda record: bare(report.comparison_table(record)))
        for name in ("digits", "table1", "table1-lecun")
    },
    "smaller-cifar10": ("compare-smaller-cifar10.json", smaller_networks),
    "smaller-wrn-cifar10": ("compare-smaller-wrn-cifar10.json", smaller_networks),
    "multi-ticket-demo": ("multi-ticket-demo.json", schemes),
    "multi-ticket-mrpc": ("multi-ticket-mrpc.json", schemes),
    "multi-ticket-mrpc-units": ("multi-ticket-mrpc-units.json", units),
    "speed": ("benchmark-smaller-cpu.json", speed),
    "evaluation": ("evaluation-cifar10.json", lambda it: scores(report.evaluation_table(it))),
    "mrpc-tau": ("multi-ticket-mrpc-tau.json", lambda it: scores(report.strengths_table(it))),
}
"""By the name of its markers: the result file of a table, and how it is written."""


@dataclasses.dataclass(frozen=True)
class Config:
    """Flags of tables.py: whether the tables are rewritten or only checked."""

    check: bool = False
    """Change nothing; end with status 1 if a table is not what the result files say."""


def main(config: Config) -> None:
    """Rewrite the tables, or say which of them are not up to date."""
    tables = {"results": runs(report.runs_table(report.read_results(HERE / "results")))}
    tables |= papers()
    for name, (file, write) in BLOCKS.items():
        measured = HERE / "results" / file
        if measured.exists():
            tables[name] = write(json.loads(measured.read_bytes()))
    root, stale = HERE.parent, []
    for file in (HERE / "README.md", root / "README.md", *sorted((root / "docs").rglob("*.md"))):
        old_text = file.read_text(encoding="utf-8")
        for name, table in tables.items():
            if f"<!-- {name} -->" in old_text and report.replace_block(file, name, table):
                stale.append(f"{name} in {file.relative_to(root)}")
        if config.check and file.read_text(encoding="utf-8") != old_text:
            file.write_text(old_text, encoding="utf-8")
    if config.check and stale:
        raise SystemExit(f"not up to date: {', '.join(stale)}; run python experiments/tables.py")
    print("rewrote " + ", ".join(stale) if stale else "all tables are up to date")


if __name__ == "__main__":
    command.main(main, Config, __doc__)
