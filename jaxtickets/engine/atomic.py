"""Files that are written in one step: whole, or not at all."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax

from jaxtickets.files import paths


def write_json(path: str | Path, data: Any) -> None:
    """JSON in one atomic step. Of several hosts the first one writes it."""
    if jax.distributed.is_initialized() and jax.process_index():
        return
    with replacing(paths.given(path)) as temporary:
        temporary.write_text(json.dumps(data, indent=2, allow_nan=False) + "\n")


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A file beside `path` that gets its name when it is whole, and is gone when it does not become
    so.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield temporary
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
