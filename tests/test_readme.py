"""Every Python block of the README runs, as it stands there."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
AFTERWARDS = (
    "assert probabilities.shape == (450, 10)",
    "assert jt.masks.count(state.mask) == 64 * 21 - int(0.8 * 64 * 21)",
    "assert Plan.from_json(Plan('mine', (start, train, Halve(), Collect())).to_json()).phases[2] == Halve()",
    "assert len(found.parts['corrupted']['sets']) == len(corrupted) == 17 and set(found.parts) == {'corrupted', 'diversity', 'adversarial'}",
    "before, after = small.tickets[0].info['shrunk']; assert after < before; assert small.predict_proba(test).shape == (450, 10)",
)
GOES_ON = {2: 1, 3: 0, 4: 0}  # a block that takes up another's names
BLOCKS = re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def test_there_are_blocks_to_run():
    assert len(BLOCKS) == len(AFTERWARDS)


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_block_runs(number, tmp_path):
    """In a process of its own, as a reader would run it, and with warnings as errors."""
    before = BLOCKS[GOES_ON[number]] if number in GOES_ON else ""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", f"{before}\n{BLOCKS[number]}\n{AFTERWARDS[number]}"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def test_files_that_it_links_to_exist():
    links = [link for link in re.findall(r"\]\(([^)]+)\)", README) if not link.startswith("http")]
    headings = {
        f"#{heading.lower().replace(' ', '-')}"
        for heading in re.findall(r"^#+ (.*)$", README, re.MULTILINE)
    }
    assert set(links) - headings
    assert {link for link in links if link.startswith("#")} <= headings
    links = [link for link in links if not link.startswith("#")]
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
