"""The Python blocks of a Markdown page, run as its reader would run them."""

import re
import subprocess
import sys
from pathlib import Path

FENCE = re.compile(r"( *)```(\w*)")


def blocks(text: str) -> list[tuple[str, list[str]]]:
    """Every fenced block of a page: its language, and for each line of the page the block's line.

    Lines that are not of the block are empty, so that a traceback names the page's own line.
    """
    found: list[tuple[str, list[str]]] = []
    indent = None
    lines = text.splitlines()
    for number, line in enumerate(lines):
        if indent is None:
            if fence := FENCE.match(line):
                indent = fence[1]
                found.append((fence[2], [""] * len(lines)))
        elif line.startswith(f"{indent}```"):
            indent = None
        else:
            found[-1][1][number] = line.removeprefix(indent)
    return found


def script(text: str) -> str:
    """The page's Python blocks, one after another, on the page's own lines."""
    python = [lines for language, lines in blocks(text) if language == "python"]
    return "\n".join("".join(of) for of in zip(*python, strict=True))


def outputs(text: str) -> list[str]:
    """Lines that the page shows as output: of blocks of `text`."""
    shown = [lines for language, lines in blocks(text) if language == "text"]
    return [line for lines in shown for line in lines if line.strip()]


def run(code: str, folder: Path) -> str:
    """What a script prints, in a process of its own, with warnings as errors."""
    file = folder / "page.py"
    file.write_text(code, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-W", "error", file],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=550,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout
