"""Searches for data sets in the places where they may lie.

The folder that is given and no other, or the one of the variable, then the cache.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from jaxtickets.errors import DataError
from jaxtickets.files import paths

ENVIRONMENT = "JAXTICKETS_DATA"
"""The variable that names the folder with data sets."""

CACHE = "~/.cache/jaxtickets"
"""Looked in last, and where downloads go."""

StrPath = str | os.PathLike[str]
T = TypeVar("T")


def search(
    given: StrPath | None,
    find: Callable[[Path, list[str]], T | None],
    nothing: Callable[[Path], str],
    argument: str = "data_dir",
) -> tuple[T | None, str]:
    """Look in one place after another for what `find` finds; why not, where no place has it.

    Args:
      given: the only folder to look in; None: the one that JAXTICKETS_DATA names, then
        ~/.cache/jaxtickets.
      find: `(folder, remarks) -> found or None`; it appends to the list what is there but lacks a
        part.
      nothing: of a folder that left no remark, what was not in it.
      argument: what the caller calls `given`, for the message.

    Returns:
      `(found, looked)`: None where no place has it; then `looked` says of every place, a line each,
      why not.

    >>> search("/nowhere", lambda folder, remarks: None, lambda folder: "no such folder")
    (None, '  data_dir: /nowhere: no such folder')
    """
    places = (
        {argument: given}
        if given is not None
        else {ENVIRONMENT: os.environ.get(ENVIRONMENT), f"cache ({CACHE})": CACHE}
    )
    looked = []
    for label, place in places.items():
        if not place:
            looked.append(f"  {label}: not set")
            continue
        folder, remarks = paths.in_home(CACHE) if place == CACHE else paths.given(place, label), []
        if folder is None:
            looked.append(f"  {label}: there is no home folder")
            continue
        try:
            result = find(folder, remarks)
        except DataError:
            raise
        except OSError as error:  # a name too long, a folder that may not be looked into
            result, remarks = None, [f"cannot be looked into: {error.strerror}"]
        if result is not None:
            return result, ""
        looked.append(f"  {label}: {folder}: " + ("; ".join(remarks) or nothing(folder)))
    return None, "\n".join(looked)
