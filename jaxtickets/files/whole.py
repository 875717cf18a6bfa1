"""Files that are there whole or not at all."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO


@contextlib.contextmanager
def whole_file(target: Path) -> Iterator[IO[bytes]]:
    """A file to write to, which gets its name only when all of it has been written.

    It lies beside `target` until then, so a run that is killed, or an error, leaves no half file,
    and two runs at once do not meet.

    Args:
      target: its name; its folder is made.

    Raises:
      OSError: no space or no permission.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(
        prefix=target.name, suffix=".part", dir=target.parent, delete=False
    ) as file:
        try:
            yield file
            file.close()
            os.chmod(file.name, 0o644)
            os.replace(file.name, target)
        finally:
            Path(file.name).unlink(missing_ok=True)
