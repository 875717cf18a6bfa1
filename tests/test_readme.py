"""Every Python block of the README runs, as it stands there."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def test_there_are_blocks_to_run():
    assert len(BLOCKS) == 2


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_block_runs(number, tmp_path):
    """In a process of its own, as a reader would run it, and with warnings as errors."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", BLOCKS[number]], cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def test_shapes_in_comments_are_true(tmp_path):
    code = BLOCKS[0].replace("key=0)", "key=0, progress=False)") + "\nassert probabilities.shape == (450, 10)\n"
    assert "# [450, 10]" in code
    assert "progress=False" in code


def test_files_that_it_links_to_exist():
    links = [link for link in re.findall(r"\]\(([^)]+)\)", README) if not link.startswith("http")]
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_rooms_that_it_names_exist():
    table = README.split("## Where things are")[1].split("## Citation")[0]
    cells = re.findall(r"^\| (`.*?) \|", table, re.MULTILINE)
    assert cells
    for cell in cells:
        names = re.findall(r"`([^`]+)`", cell)
        folder = ROOT / names[0].split("/")[0]
        for name in names:
            assert (ROOT / name).exists() or (folder / name).exists(), name


def test_what_it_calls_planned_is_not_there_yet():
    import jaxtickets as jt

    planned = next(line for line in README.splitlines() if line.startswith("Planned next"))
    assert "Prune and Tune" in planned and not hasattr(jt.methods, "prune_and_tune")
    assert "Multi-Ticket" in planned and not hasattr(jt.methods, "imp")
