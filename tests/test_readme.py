"""The README's Python block runs, and what it and CONTRIBUTING.md point to is there."""

import re
import tomllib
from pathlib import Path

import pytest
import snippets

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
URLS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["urls"]
# Where the repository is seen: what stands before a path of it.
PLACES = (
    f"{URLS['Repository']}/blob/main/",
    f"{URLS['Repository']}/tree/main/",
    f"{URLS['Repository'].replace('github.com', 'raw.githubusercontent.com')}/main/",
    "https://colab.research.google.com/github/jaxtickets/jaxtickets/blob/main/",
)


def links(text):
    """What a page links to or shows."""
    return re.findall(r"\]\(([^)\s]+)\)", text)


def page_of(address):
    """The file of an address of the documentation, without its anchor."""
    path = address.removeprefix(URLS["Documentation"]).partition("#")[0].rstrip("/")
    candidates = [f"{path}.md", f"{path}.ipynb", f"{path}/index.md"] if path else ["index.md"]
    return next((file for name in candidates if (file := ROOT / "docs" / name).exists()), None)


def test_the_block_runs(tmp_path):
    """In a process of its own, as a reader would run it, and with warnings as errors."""
    code = snippets.script(README) + "\nassert probabilities.shape == (450, 10)\n"
    assert "jt.fit(" in code
    assert "members" in snippets.run(code, tmp_path)


@pytest.mark.parametrize("text", [README, CONTRIBUTING], ids=["README", "CONTRIBUTING"])
def test_what_it_links_to_exists(text):
    found = links(text)
    assert found
    for link in found:
        place = next((place for place in PLACES if link.startswith(place)), None)
        if place is not None:
            assert (ROOT / link.removeprefix(place)).exists(), link
        elif link.startswith(URLS["Documentation"]):
            page = page_of(link)
            assert page is not None, link
            if anchor := link.partition("#")[2]:
                assert f"\n## {anchor.title()}\n" in page.read_text(encoding="utf-8"), link
        elif not link.startswith("http"):
            assert (ROOT / link).exists(), link


def test_it_is_short():
    assert len(README.splitlines()) <= 115


def test_rooms_that_are_named_exist():
    table = CONTRIBUTING.split("## Where things are")[1].split("## How a method is added")[0]
    cells = re.findall(r"^\| (`.*?) \|", table, re.MULTILINE)
    assert cells
    for cell in cells:
        names = re.findall(r"`([^`]+)`", cell)
        folder = ROOT / names[0].split("/")[0]
        for name in names:
            assert (ROOT / name).exists() or (folder / name).exists(), name


def test_files_that_contributing_names_exist():
    named = re.findall(r"`((?:tests|jaxtickets|experiments|docs|\.ci)/[\w/.]+)`", CONTRIBUTING)
    assert len(named) > 8
    assert [name for name in named if "NAME" not in name and not (ROOT / name).exists()] == []
