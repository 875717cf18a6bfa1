"""The tickets of a run, as they are collected: in memory, or in the run folder's files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax

from jaxtickets.engine.run_folder import RunFolder, position_of
from jaxtickets.plan import Plan
from jaxtickets.task import Task
from jaxtickets.tickets.stored import StoredTickets
from jaxtickets.tickets.ticket import Ticket

PyTree = Any


class TicketLog:
    """Tickets in the order of their collection.

    A run folder may hold more of them than memory does: of those only the info is kept here.

    Args:
      task: whose they are.
      x_spec: shape and dtype of one example.
      plan: what produces them.
      folder: where they are written; None keeps them in memory.
    """

    def __init__(self, task: Task, x_spec: PyTree, plan: Plan, folder: RunFolder | None) -> None:
        self._task, self._x_spec, self._plan, self._folder = task, x_spec, plan, folder
        self._in_files = folder is not None and jax.process_count() == 1
        self._kept: list[Ticket | dict[str, Any]] = []

    def __len__(self) -> int:
        return len(self._kept)

    def add(self, ticket: Ticket) -> None:
        """One more."""
        if self._folder is not None:
            self._folder.save_ticket(self._task, ticket, self._x_spec, self._plan, len(self))
        self._kept.append(ticket.info if self._in_files else ticket)

    def read_back(self, count: int) -> None:
        """Those that were collected before a run was stopped."""
        for index in range(count):
            ticket = self._read(index)
            self._kept.append(ticket.info if self._in_files else ticket)

    def masks_before(self, lineage: int) -> list[PyTree]:
        """The masks of the last tickets of all lineages before one."""
        last: dict[int, int] = {}
        for index, info in enumerate(self._infos()):
            if info["lineage"] < lineage:
                last[info["lineage"]] = index
        return [self._ticket(index).mask for index in last.values()]

    def in_order(self) -> Sequence[Ticket]:
        """All of them: lineage by lineage, child by child, and within each as collected.

        Groups of any size give one order.
        """
        infos = self._infos()
        order = sorted(range(len(infos)), key=lambda index: position_of(infos[index]))
        if self._folder is not None and self._in_files:
            return StoredTickets([self._folder.ticket(index) for index in order], self._task)
        return tuple(self._ticket(index) for index in order)

    def _infos(self) -> list[dict[str, Any]]:
        return [one.info if isinstance(one, Ticket) else one for one in self._kept]

    def _ticket(self, index: int) -> Ticket:
        kept = self._kept[index]
        return kept if isinstance(kept, Ticket) else self._read(index)

    def _read(self, index: int) -> Ticket:
        assert self._folder is not None
        return self._folder.read_ticket(index, self._task).tickets[0]
