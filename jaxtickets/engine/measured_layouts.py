"""Layouts that were measured: a small file in the user's cache folder, never trusted blindly.

An entry says which of the candidates was fastest for a network, batch, device and versions. It is a
hint: what is not one of today's candidates is measured again, and what fits is tried in any case.
"""

from __future__ import annotations

import contextlib
import json
import math
from pathlib import Path
from typing import Any

from jaxtickets.engine.atomic import write_json
from jaxtickets.members import ACROSS, Across

FILE = "~/.cache/jaxtickets/layouts.json"
_LARGEST = 2**20  # bytes; a thousand entries are a quarter of that
_MOST = 1000  # entries


def read_measured(key: str) -> dict[Across, float] | None:
    """Seconds of one step of one member by the way across members, the fastest first; None where
    nothing is known, or what is written there cannot be that.
    """
    found = _entries().get(key)
    if not isinstance(found, dict) or not found:
        return None
    for across, seconds in found.items():
        good = isinstance(seconds, int | float) and not isinstance(seconds, bool)
        if across not in ACROSS or not good or not 0 < seconds < math.inf:
            return None
    return dict(sorted(found.items(), key=lambda item: item[1]))


def keep_measured(key: str, seconds: dict[Across, float]) -> None:
    """Keep them; where that cannot be, the next run measures again."""
    entries = {**_entries(), key: seconds}
    newest = dict(list(entries.items())[-_MOST:])
    with contextlib.suppress(OSError, RuntimeError, ValueError):
        path = Path(FILE).expanduser()
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, newest)


def _entries() -> dict[str, Any]:
    with contextlib.suppress(OSError, RuntimeError, ValueError, RecursionError):
        path = Path(FILE).expanduser()
        if path.is_file() and path.stat().st_size <= _LARGEST:
            found = json.loads(path.read_bytes())
            return found if isinstance(found, dict) else {}
    return {}
