"""What a phase tells the driver while it runs; the driver writes all of it down."""

from __future__ import annotations

from typing import Any, NamedTuple

from jaxtickets.tickets.ticket import Ticket


class Message(NamedTuple):
    """Something to say, on a line of its own."""

    text: str


class Began(NamedTuple):
    """A training begins, or goes on after `done` of its `steps`."""

    name: str
    steps: int
    done: int


class Report(NamedTuple):
    """Means since the last report, at the end of an epoch or of the phase.

    Args:
      losses: of every network.
      accuracies: of every network, in [0, 1].
      bad_steps: of every network the first step with a loss that is not finite, or -1.
      record: what `metrics.jsonl` says besides.
    """

    losses: list[float]
    accuracies: list[float]
    bad_steps: list[int]
    record: dict[str, Any]


class Stepped(NamedTuple):
    """Some training steps were taken.

    Args:
      name: of the training, in a few words.
      taken: how many, by every network.
      done: how many of the phase by now.
      last: whether it was the last of them.
      epochs: whole epochs of the networks' training by now; None in the middle of one.
      epoch: the same as a fraction.
      report: if one is due.
    """

    name: str
    taken: int
    done: int
    last: bool
    epochs: int | None
    epoch: float
    report: Report | None = None


class Collected(NamedTuple):
    """Tickets, one of every network, in the order of the group."""

    tickets: list[Ticket]


Event = Message | Began | Stepped | Collected
