"""The lowest versions that CI installs are those that pyproject.toml names."""

import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_every_dependency_has_a_lower_bound_that_is_tested():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    printed = subprocess.run(
        [sys.executable, str(ROOT / ".ci" / "lowest.py")],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    extras = [
        requirement for extra in project["optional-dependencies"].values() for requirement in extra
    ]
    named = {
        requirement.split("[")[0].split(">")[0].split("=")[0]
        for requirement in (*project["dependencies"], *extras)
    }
    assert {line.split("==")[0] for line in printed} == named - {"jaxtickets"}
    assert "jax==0.10.2" in printed
    assert "scipy==1.17" in printed  # of two bounds the higher
