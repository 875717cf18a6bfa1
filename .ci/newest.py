"""Prints the newest Python (3.12 or later) that is installed and newer than this, or nothing."""

import os
import re
import shutil
import sys
from pathlib import Path


def newest(root: Path, mine: tuple[int, int]) -> str:
    """Of pyenv's versions below `root` and of those on the path, the newest."""
    found = {}
    for folder in (root / "versions").glob("*"):
        if (match := re.fullmatch(r"(\d+)\.(\d+)\.(\d+)", folder.name)) and (
            folder / "bin" / "python"
        ).is_file():
            found[tuple(map(int, match.groups()))] = str(folder / "bin" / "python")
    for minor in range(12, 30):
        if path := shutil.which(f"python3.{minor}"):
            found.setdefault((3, minor, 0), path)
    later = [version for version in found if version[:2] > mine and version >= (3, 12)]
    return found[max(later)] if later else ""


if __name__ == "__main__":
    print(newest(Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")), sys.version_info[:2]))
