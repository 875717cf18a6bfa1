"""Prints the lowest versions that pyproject.toml allows, as constraints for pip: `python
.ci/lowest.py > lowest.txt`.
"""

import re
import tomllib
from pathlib import Path


def lowest(project: dict) -> list[str]:
    """`name==version` of every requirement with a lower bound; of two for one package the higher,
    as pip must take it.
    """
    found: dict[str, str] = {}
    for requirement in (
        *project["dependencies"],
        *(r for extra in project["optional-dependencies"].values() for r in extra),
    ):
        if match := re.fullmatch(r"([\w.-]+)(?:\[[\w,-]*\])?(?:>=|==)([\w.]+)", requirement):
            name, version = match.groups()
            found[name] = max(
                found.get(name, version), version, key=lambda v: [int(n) for n in v.split(".")]
            )
    return [f"{name}=={version}" for name, version in found.items()]


if __name__ == "__main__":
    print(
        "\n".join(
            lowest(
                tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
            )
        )
    )
