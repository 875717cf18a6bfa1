"""Write the tables of README.md and experiments/README.md from experiments/results.

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


BLOCKS: dict[str, tuple[str, Callable[[Any], str]]] = {
    **{
        name: (f"{file}-cpu.json", benchmark)
        for name, file in {
            "benchmark": "benchmark",
            "shrinking": "benchmark-shrinking",
            "smaller": "benchmark-smaller",
            "memory": "benchmark-memory",
            "texts": "benchmark-texts",
            "speed-of-evaluation": "benchmark-evaluation",
        }.items()
    },
    **{
        name: (f"compare-{name}.json", lambda record: bare(report.comparison_table(record)))
        for name in ("digits", "table1", "table1-lecun")
    },
    "multi-ticket-demo": ("multi-ticket-demo.json", schemes),
    "multi-ticket-mrpc": ("multi-ticket-mrpc.json", schemes),
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
    for name, (file, write) in BLOCKS.items():
        measured = HERE / "results" / file
        if measured.exists():
            tables[name] = write(json.loads(measured.read_bytes()))
    stale = []
    for file in (HERE / "README.md", HERE.parent / "README.md"):
        old_text = file.read_text(encoding="utf-8")
        for name, table in tables.items():
            if f"<!-- {name} -->" in old_text and report.replace_block(file, name, table):
                stale.append(f"{name} in {file.name}")
        if config.check:
            file.write_text(old_text, encoding="utf-8")
    if config.check and stale:
        raise SystemExit(f"not up to date: {', '.join(stale)}; run python experiments/tables.py")
    print("rewrote " + ", ".join(stale) if stale else "all tables are up to date")


if __name__ == "__main__":
    command.main(main, Config, __doc__)
