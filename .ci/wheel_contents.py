"""Checks that a wheel has the package and nothing else: `python .ci/wheel_contents.py FILE.whl`."""

import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
NOT_CODE = {"py.typed", "__init__.pyi"}


def differences(names: set[str], package: set[str]) -> list[str]:
    """What the wheel lacks, and what it should not have.

    >>> differences({"p/a.py", "p-1.dist-info/METADATA", "tests/b.py"}, {"p/a.py", "p/py.typed"})
    ['lacks p/py.typed', 'has tests/b.py']
    """
    found = {name for name in names if ".dist-info/" not in name}
    lacking = [f"lacks {name}" for name in sorted(package - found)]
    return lacking + [f"has {name}" for name in sorted(found - package)]


def package_files() -> set[str]:
    """The files of the package that a wheel has: code, types, and the report's templates."""
    files = (path for path in (ROOT / "jaxtickets").rglob("*") if path.is_file())
    return {
        path.relative_to(ROOT).as_posix()
        for path in files
        if path.suffix == ".py" or path.name in NOT_CODE or path.parent.name == "templates"
    }


if __name__ == "__main__":
    wrong = differences(set(zipfile.ZipFile(sys.argv[1]).namelist()), package_files())
    print("\n".join(wrong) or f"{sys.argv[1]} has the package and nothing else")
    sys.exit(bool(wrong))
