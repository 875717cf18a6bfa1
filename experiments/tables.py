"""Write the tables of README.md and experiments/README.md from the committed files in experiments/results.

python experiments/tables.py            # rewrites the tables
python experiments/tables.py --check    # only says whether they are up to date (exit status 1 if not)
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import tyro

from jaxtickets import report

HERE = Path(__file__).resolve().parent
BENCHMARKS = {
    "benchmark": "benchmark-cpu.json",
    "shrinking": "benchmark-shrinking-cpu.json",
    "memory": "benchmark-memory-cpu.json",
    "texts": "benchmark-texts-cpu.json",
    "speed-of-evaluation": "benchmark-evaluation-cpu.json",
}


SCORES = {
    "evaluation": ("evaluation-cifar10.json", report.evaluation_table),
    "mrpc-tau": ("multi-ticket-mrpc-tau.json", report.strengths_table),
}


@dataclasses.dataclass(frozen=True)
class Config:
    """Which way."""

    check: bool = False
    """Change nothing; end with status 1 if a table is not what the result files say."""


def main(config: Config) -> None:
    """Rewrite or compare."""
    tables = {"results": report.markdown_results(report.read_results(HERE / "results"))}
    for name, file in BENCHMARKS.items():
        measured = HERE / "results" / file
        if measured.exists():
            tables[name] = report.markdown_benchmark(json.loads(measured.read_text()))
    for name in ("digits", "table1", "table1-lecun"):
        compared = HERE / "results" / f"compare-{name}.json"
        if compared.exists():
            tables[name] = report.markdown_comparison(json.loads(compared.read_text()))
    for name in ("demo", "mrpc"):
        compared = HERE / "results" / f"multi-ticket-{name}.json"
        if compared.exists():
            tables[f"multi-ticket-{name}"] = report.markdown_schemes(json.loads(compared.read_text()))
    for name, (file, table) in SCORES.items():
        measured = HERE / "results" / file
        if measured.exists():
            tables[name] = report.markdown_table(table(json.loads(measured.read_text())))
    stale = []
    for file in (HERE / "README.md", HERE.parent / "README.md"):
        kept = file.read_text()
        for name, table in tables.items():
            if f"<!-- {name} -->" in kept and report.replace_block(file, name, table):
                stale.append(f"{name} in {file.name}")
        if config.check:
            file.write_text(kept)
    if config.check and stale:
        raise SystemExit(f"not up to date: {', '.join(stale)}; run python experiments/tables.py")
    print("rewrote " + ", ".join(stale) if stale else "all tables are up to date")


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
