"""The notice that the machine is wanted back: SIGTERM, which clouds and schedulers send before they
take it.
"""

from __future__ import annotations

import contextlib
import itertools
import signal
import threading
from collections.abc import Iterator
from typing import Any, Protocol

import jax

# Of this process, over all its runs: several hosts agree on a count, which may never come twice.
_asked = itertools.count()


class Notice(Protocol):
    """Whether the run is to end where it is."""

    def __call__(self) -> bool:
        """Asked at every state of a training that can be gone on with."""
        ...


@contextlib.contextmanager
def preemption(kept: bool) -> Iterator[Notice]:
    """Hears SIGTERM, for the time of the block, and says so when it is asked.

    One process hears it by a handler of its own, which is there for the first signal only: a second
    one ends the process at once, as it does outside of the block. What came and was not answered by
    an end of the run is delivered at the end of the block. Of several processes one notice is
    enough: JAX's preemption service, which `jax.distributed.initialize` starts, tells all of them
    and has them agree on one place in the run.

    Nothing is done where the signal has a handler of somebody else's, and outside of the main
    thread, where Python has none.

    Args:
      kept: whether the run is kept in a folder; another one cannot be gone on with, and is ended by
        the signal as any process.

    Yields:
      The notice. Every process asks it at the same places.
    """
    if not kept:
        yield _never
    elif jax.process_count() > 1:
        yield _agreed
    elif threading.current_thread() is not threading.main_thread() or _has_a_handler():
        yield _never
    else:
        heard = _Heard()
        signal.signal(signal.SIGTERM, heard.signal)
        try:
            yield heard
        finally:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            if heard.came and not heard.answered:
                signal.raise_signal(signal.SIGTERM)


class _Heard:
    """What one process heard."""

    def __init__(self) -> None:
        self.came = self.answered = False

    def signal(self, number: int, frame: Any) -> None:
        """The first signal. Another one that arrives before Python has called this, because a
        program is compiled, is not told from it.
        """
        self.came = True
        signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def __call__(self) -> bool:
        self.answered = self.came
        return self.came


def _never() -> bool:
    return False


def _agreed() -> bool:
    """Whether some process was told to end and this is the place that all have agreed on."""
    from jax.experimental import multihost_utils

    try:
        return multihost_utils.reached_preemption_sync_point(next(_asked))
    except RuntimeError:  # jax_enable_preemption_service is off: SIGTERM ends a process
        return False


def _has_a_handler() -> bool:
    return signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
