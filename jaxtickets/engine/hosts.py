"""Several hosts that run one plan: they begin together, with the same, or not at all.

A host is a process here, as in JAX. Where there is one only, nothing is asked and nothing waited
for.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import numpy as np

from jaxtickets.engine.identity import differences
from jaxtickets.errors import RunError

T = TypeVar("T")
_SELDOM = 10_000  # steps between two looks at the clock, at most


def name() -> str:
    """This host, in words."""
    return f"host {jax.process_index()} ({socket.gethostname()})"


def exchange(said: dict[str, Any]) -> list[dict[str, Any]]:
    """What every host says, as JSON, in their order. Each waits for all others."""
    if jax.process_count() == 1:
        return [said]
    from jax.experimental import multihost_utils

    text = np.frombuffer(json.dumps(said).encode(), np.uint8)
    sizes = np.asarray(multihost_utils.process_allgather(np.int32(len(text))))
    padded = np.zeros(sizes.max(), np.uint8)
    padded[: len(text)] = text
    rows = np.asarray(multihost_utils.process_allgather(padded))
    return [json.loads(row[:size].tobytes()) for row, size in zip(rows, sizes, strict=True)]


def everywhere(
    work: Callable[[], T],
    about: Callable[[T], dict[str, Any]] = lambda done: {},
    first_alone: bool = False,
    when: str = "before anything was computed",
) -> T:
    """What `work` returns here, after it was done on every host.

    Args:
      work: what each host does, without computing anything together.
      about: what of its result is the same on every host, as the identity of a run (see
        `jaxtickets.engine.identity`).
      first_alone: host 0 does it before the others: it makes what they find.
      when: it is done, for the error.

    Raises:
      Exception: what `work` raised here.
      RunError: it failed on another host, or hosts differ: named, with what differs.
    """
    if jax.process_count() == 1:
        return work()
    turns = [range(1), range(1, jax.process_count())] if first_alone else [range(10**9)]
    done: list[T] = []
    everybody: list[dict[str, Any]] = [{}] * jax.process_count()
    for turn in turns:
        said: dict[str, Any] = {"host": name()}
        failed = None
        if jax.process_index() in turn:
            try:
                done.append(work())
                said["about"] = about(done[0])
            except Exception as error:
                failed = error
                said["failed"] = f"{type(error).__name__}: {error}"
        told = exchange(said)
        if failed is not None:
            raise failed
        _check_all_did(told, when)
        everybody = [before | now for before, now in zip(everybody, told, strict=True)]
    _check_same(everybody)
    return done[0]


def _check_all_did(everybody: list[dict[str, Any]], when: str) -> None:
    """Raise `RunError` where another host failed."""
    failed = [f"{one['host']}: {one['failed']}" for one in everybody if "failed" in one]
    if failed:
        raise RunError(f"ended {when}, as {failed[0]}")


def _check_same(everybody: list[dict[str, Any]]) -> None:
    """Raise `RunError` where a host has something else than host 0."""
    first = everybody[0]
    different = []
    for other in everybody[1:]:
        at = (f"on {first['host']}", f"on {other['host']}")
        words, doubt = differences(first["about"], other["about"], at)
        more = f" (and {len(words) - 5} more)" if len(words) > 5 else ""
        if words or doubt:
            different.append("; ".join([*words[:5], *([doubt] if doubt else [])]) + more)
    if different:
        raise RunError(
            f"the hosts do not run the same: {'. And '.join(different)}. Start the same command on"
            " every host, with the same code and data."
        )


class Turns:
    """Whether a checkpoint is due. Of several hosts the clock of host 0 decides for all, and as
    asking costs a round of messages, it is asked more seldom the longer it will be until then.
    """

    def __init__(self) -> None:
        self._count, self._next = 0, 1
        self._asked = (0, time.monotonic())

    def due(self, age: float, every: float) -> bool:
        """Asked after every call of the compiled step, on every host.

        Args:
          age: seconds since the last checkpoint, here.
          every: seconds between them.
        """
        if jax.process_count() == 1:
            return age >= every
        self._count += 1
        if self._count < self._next:
            return False
        from jax.experimental import multihost_utils

        taken, now = self._count - self._asked[0], time.monotonic()
        pace = max(now - self._asked[1], 1e-6) / taken
        ahead = min(max((every - age) / 2 / pace, 1), _SELDOM)
        said = np.asarray([age >= every, ahead], np.int32)
        due, ahead = np.asarray(multihost_utils.broadcast_one_to_all(said)).tolist()
        self._asked, self._next = (self._count, now), self._count + ahead
        return bool(due)
