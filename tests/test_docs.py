"""The documentation: its snippets run, its reference is whole, its commands have the flags that they name."""

import importlib
import inspect
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import snippets
from others import others

import jaxtickets as jt

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = {
    path.relative_to(DOCS).as_posix(): path.read_text(encoding="utf-8")
    for path in sorted(DOCS.rglob("*.md"))
}
WITH_CODE = [name for name, text in PAGES.items() if "```python" in text]
REFERENCE = "\n".join(text for name, text in PAGES.items() if name.startswith("reference/"))
ROOMS = (
    *("data", "engine", "evaluation", "ledger", "masks", "methods", "models", "plan", "report"),
    *("schedules", "tickets", "transforms", "errors"),
    *(f"masks.{name}" for name in ("scores", "saliency", "selection", "sparsity", "units")),
)


def public_names(room):
    """What a room offers: its `__all__`, else what it imports for others, else what it defines."""
    module = importlib.import_module(f"jaxtickets.{room}".rstrip("."))
    if hasattr(module, "__all__"):
        return list(module.__all__)
    package = hasattr(module, "__path__")
    return [
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and not inspect.ismodule(value)
        and (package or getattr(value, "__module__", None) == module.__name__)
    ]


def commands():
    """Every command of an experiment that a page or a README shows: page, script, flags."""
    texts = PAGES | {
        name: (ROOT / name).read_text(encoding="utf-8")
        for name in ("README.md", "CONTRIBUTING.md", "experiments/README.md")
    }
    pattern = re.compile(r"\b(\w+\.py)((?:[ \t]+(?:\\\n[ \t]*)?[^\s`#|]+)*)")
    for page, text in texts.items():
        for script, flags in pattern.findall(text):
            if (ROOT / "experiments" / script).exists():
                yield page, script, re.findall(r"(?<!\S)--[\w-]+", flags)


@pytest.mark.parametrize("page", WITH_CODE)
@pytest.mark.usefixtures("programs_are_compiled_once")
def test_a_page_runs_and_prints_what_it_shows(page, tmp_path):
    """All of its Python blocks one after another; blocks of `text` are what they print."""
    text = PAGES[page]
    printed = [line.rstrip() for line in snippets.run(snippets.script(text), tmp_path).splitlines()]
    assert [line for line in snippets.outputs(text) if line.rstrip() not in printed] == []


def test_pages_are_read_as_they_should_be():
    tab = '=== "Tab"\n\n    ```python\n    x = [\n        1]\n    ```\n\n'
    text = f"One.\n\n{tab}```python\nprint(x)\n```\n```text\n[1]\n```\n"
    code = snippets.script(text)
    assert code.splitlines()[5:7] == ["x = [", "    1]"]  # on the page's own lines
    assert code.splitlines()[10] == "print(x)"
    assert snippets.outputs(text) == ["[1]"]
    assert len(WITH_CODE) > 12


def entries():
    """What the reference has an entry for: name to what it is."""
    found = re.findall(r"^::: (\S+)$", REFERENCE, re.MULTILINE)
    assert len(found) == len(set(found)) > 200
    holders = ((entry, *entry.rsplit(".", 1)) for entry in found)
    return {entry: getattr(importlib.import_module(of), name) for entry, of, name in holders}


@pytest.mark.parametrize("room", ["", *ROOMS])
def test_every_public_name_is_in_the_reference(room):
    there = {id(value) for value in entries().values()}
    names = set(public_names(room)) - {"cut"}  # of the errors: a helper
    module = importlib.import_module(f"jaxtickets.{room}".rstrip("."))
    values = {name: getattr(module, name) for name in names}
    assert values
    missing = {n for n, v in values.items() if not inspect.ismodule(v) and id(v) not in there}
    assert missing == set()


def test_commands_have_the_flags_that_they_are_shown_with():
    found = list(commands())
    scripts = {script for _, script, flags in found if flags}
    assert len(scripts) > 6
    for script in sorted(scripts):
        done = subprocess.run(
            [sys.executable, ROOT / "experiments" / script, "--help"],
            capture_output=True,
            text=True,
            timeout=300,
            check=True,
        )
        known = set(re.findall(r"--[\w-]+", done.stdout)) | {"--help"}
        for page, other, flags in found:
            if other == script:
                assert set(flags) <= known, (page, script, flags)


def test_every_table_of_the_papers_has_its_place(experiments_are_importable):
    import tables

    shown = "\n".join(text for name, text in PAGES.items() if name.startswith("papers/"))
    for name in tables.papers():
        assert f"<!-- {name} -->\n|" in shown, f"no place, or an empty one, for {name}"
    # numbers as they are printed there
    assert "| Bagged, 16 epochs | LeNet-L | cifar100 | 32.40 ± 0.11 |\n" in shown
    assert (
        "| Monte Carlo Dropout* | 95.9 | 0.160 | 0.024 | 68.8 | 1.270 | 0.166 | 1.00 | 1.0 |\n"
        in shown
    )


def test_the_repository_is_called_by_one_name():
    """It, its documentation and its notebooks are where pyproject.toml says."""
    urls = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["urls"]
    repository = urls["Repository"].removeprefix("https://github.com")
    paths = {
        "github.com": repository,
        "raw.githubusercontent.com": repository,
        "colab.research.google.com": f"/github{repository}",
        "github.io": urls["Documentation"].partition("github.io")[2].rstrip("/"),
    }
    files = [
        *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CITATION.cff", "mkdocs.yml")),
        *DOCS.rglob("*.md"),
        *(ROOT / "colabs").glob("*.ipynb"),
        *(ROOT / ".github").rglob("*.yml"),
    ]
    seen = 0
    for file in files:
        for host, address in re.findall(
            r"https://(?:\w+\.)?(github\.com|raw\.githubusercontent\.com|colab\.research\.google\.com|github\.io)(/[\w./-]*jaxtickets[\w./-]*)",
            file.read_text(encoding="utf-8"),
        ):
            assert address.startswith(paths[host]), (file.name, host + address)
            seen += 1
    assert seen > 20


def test_the_hooks_run_the_ruff_that_the_tests_do():
    (pinned,) = set(
        re.findall(r"ruff==([\d.]+)", (ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    )
    hooks = (ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8")
    assert re.findall(r"rev: v([\d.]+)", hooks) == [pinned]


def test_one_version_everywhere():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    cited = re.search(
        r"^version: (\S+)$", (ROOT / "CITATION.cff").read_text(encoding="utf-8"), re.M
    )
    assert project["version"] == jt.__version__ == cited[1]


def test_the_quick_selection_is_of_files_that_exist():
    files = (ROOT / "tests" / "quick.txt").read_text(encoding="utf-8").split()
    assert len(files) > 10
    assert [file for file in files if not (ROOT / file).exists()] == []


def test_what_a_wheel_should_not_have_is_named(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / ".ci"))
    import wheel_contents

    files = wheel_contents.package_files()
    assert {
        "jaxtickets/py.typed",
        "jaxtickets/__init__.pyi",
        "jaxtickets/report/templates/page.css",
    } <= files
    assert wheel_contents.differences(files | {"tests/conftest.py"}, files) == [
        "has tests/conftest.py"
    ]
    assert wheel_contents.differences(files - {"jaxtickets/py.typed"}, files) == [
        "lacks jaxtickets/py.typed"
    ]


def test_links_that_lead_nowhere_are_found(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / ".ci"))
    import links

    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "index.html").write_text('<h1 id="top">A</h1><a href="../">home</a>')
    (tmp_path / "index.html").write_text(
        '<a href="a/#top"></a><a href="a/#bottom"></a><img src="b.png"><a href="https://c.d/e"></a>'
    )
    assert links.broken(tmp_path) == ["index.html: a/#bottom", "index.html: b.png"]


def test_doctests_of_docstrings_are_shown_as_code(monkeypatch):
    others("griffe")
    monkeypatch.syspath_prepend(str(DOCS))
    import doctests

    text = "One.\n\n>>> f(\n...     1)\n2\n\n>>> g()  # doctest: +ELLIPSIS\n3\n\nReferences:\n  A."
    code = "```pycon\n>>> f(\n...     1)\n2\n\n>>> g()\n3\n```"
    assert doctests.fenced(text) == f"One.\n\n{code}\n\nReferences:\n  A."
    assert doctests.fenced("No code > here.") == "No code > here."
