"""Tickets that stay in their files until they are asked for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import overload

from jaxtickets.task import Task
from jaxtickets.tickets.reading import read
from jaxtickets.tickets.ticket import Ticket


class StoredTickets(Sequence[Ticket]):
    """Tickets that stay in files, one each, and are read when they are asked for: an ensemble
    larger than memory.

    Args:
      files: ticket files of one member each.
      task: the network that they are tickets of.
    """

    def __init__(self, files: Sequence[Path], task: Task) -> None:
        self._files, self._task = tuple(files), task

    def __len__(self) -> int:
        return len(self._files)

    @overload
    def __getitem__(self, index: int) -> Ticket: ...

    @overload
    def __getitem__(self, index: slice) -> StoredTickets: ...

    def __getitem__(self, index: int | slice) -> Ticket | StoredTickets:
        if isinstance(index, slice):
            return StoredTickets(self._files[index], self._task)
        return read(self._files[index], self._task)[0][0]
