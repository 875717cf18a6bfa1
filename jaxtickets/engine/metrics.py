"""`metrics.jsonl`: one JSON object a report, appended as they come."""

from __future__ import annotations

import contextlib
import json
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from jaxtickets.engine.atomic import replacing
from jaxtickets.engine.failing import read
from jaxtickets.files import paths

NAME = "metrics.jsonl"


class MetricsLog:
    """The metrics of one run folder.

    Args:
      folder: of the run.
      writes: whether this process writes them.
      told: a context in which a failure of the disk becomes one sentence.
    """

    def __init__(
        self,
        folder: Path,
        writes: bool,
        told: Callable[[], contextlib.AbstractContextManager[None]],
    ) -> None:
        self._file, self._writes, self._told = folder / NAME, writes, told

    def append(self, record: dict[str, Any]) -> None:
        """One more record."""
        if self._writes:
            with self._told(), self._file.open("a") as file:
                file.write(json.dumps(record) + "\n")

    def truncate(self, order: tuple[int, int, int, int]) -> None:
        """Drop the records of steps that a resumed run will take again: those after `(group,
        branch, phase, step)`.

        Lines that are no records are kept in `metrics-unreadable.txt`.
        """
        if not self._writes or not self._file.exists():
            return
        kept, strange = [], []
        for _, line, record in _records(self._file):
            try:
                at = (
                    (
                        record["group"],
                        record.get("branch", 0),
                        record["phase"],
                        record["step_in_phase"],
                    )
                    if record
                    else None
                )
                (strange if at is None else kept if at <= order else []).append(line)
            except (KeyError, TypeError):
                strange.append(line)
        with self._told():
            if strange:
                with self._file.with_name("metrics-unreadable.txt").open("ab") as aside:
                    aside.write(b"".join(line + b"\n" for line in strange))
                warnings.warn(
                    f"{self._file} has {len(strange)} lines that are no records of a run; they were"
                    " moved to metrics-unreadable.txt.",
                    stacklevel=4,
                )
            with replacing(self._file) as temporary:
                temporary.write_bytes(b"".join(line + b"\n" for line in kept))


def read_metrics(path: str | Path) -> list[dict[str, Any]]:
    """The records of a run folder's `metrics.jsonl`, in order.

    A line that is no record is passed over, with a warning that has its number; the last one
    without, as a crash cuts it off.
    """
    file = paths.given(path) / NAME
    if not file.exists():
        return []
    lines = list(_records(file))
    for number, _, record in lines:
        if record is None:
            warnings.warn(
                f"{file}, line {number}, is no record of a run; the others are read.", stacklevel=2
            )
    return [record for _, _, record in lines if record is not None]


def _records(file: Path) -> Iterator[tuple[int, bytes, dict[str, Any] | None]]:
    """Number, bytes and record of every line; None of what is no record, and nothing of a last line
    that was cut off.
    """
    *lines, rest = read(file).split(b"\n")
    for number, line in enumerate([*lines, rest] if rest else lines, start=1):
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            record = None
        if isinstance(record, dict):
            yield number, line, record
        elif number <= len(lines):
            yield number, line, None
