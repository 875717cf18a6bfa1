"""What a group reports while it trains: means since the last report, and its pace."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from jaxtickets import masks, members
from jaxtickets.engine.state import Tally

PyTree = Any


def read_tally(tally: Tally) -> tuple[list[float], list[float], list[int]]:
    """Mean loss, accuracy and first bad step (or -1) of every network; waits for the device."""
    host = members.fetch(tally)
    taken = np.maximum(host.steps, 1)
    losses, accuracies = host.loss / taken, host.correct / taken
    return [float(v) for v in losses], [float(v) for v in accuracies], host.bad_step.tolist()


class Meter:
    """The pace since the last `reset`, and the density when it was last counted.

    Args:
      compiling: seconds spent compiling so far, which do not count.
    """

    def __init__(self, compiling: Callable[[], float]) -> None:
        self.densities: list[float] = []
        self._compiling = compiling
        self.reset()

    def reset(self) -> None:
        """Start the clock anew."""
        self._began, self.examples = time.monotonic() - self._compiling(), 0

    def count(self, mask: PyTree, width: int, sizes: Sequence[int]) -> None:
        """Count the density of every member of a mask tree with a leading member axis, of leaves
        that had so many weights when the networks started.
        """
        host = members.fetch(mask)
        self.densities = [masks.density(members.member(host, i), sizes) for i in range(width)]

    def numbers(self, losses: list[float], accuracies: list[float]) -> dict[str, float]:
        """What a line of progress shows."""
        seconds = max(time.monotonic() - self._compiling() - self._began, 1e-9)
        return {
            "loss": float(np.mean(losses)),
            "accuracy": float(np.mean(accuracies)),
            "density": float(np.mean(self.densities)),
            "examples_per_second": self.examples / seconds,
        }
