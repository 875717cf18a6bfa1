"""What a group reports while it trains: means since the last report, and whether they are finite."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxtickets import masks, members
from jaxtickets.engine.lineage import Tally
from jaxtickets.engine.run_folder import RunFolder
from jaxtickets.errors import NonFiniteLoss
from jaxtickets.plan import Plan, describe

PyTree = Any


class Meter:
    """Loss, accuracy and pace since the last `reset`, and the density when it was last counted.

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

    def count(self, mask: PyTree, width: int) -> None:
        """Count the density of every member of a mask tree with a leading member axis."""
        host = members.fetch(mask)
        self.densities = [masks.density(members.member(host, i)) for i in range(width)]

    def read(self, tally: Tally) -> dict[str, Any]:
        """The tally as means; waits for the device."""
        host: Tally = members.fetch(tally)
        taken = np.maximum(host.steps, 1)
        losses, accuracies = host.loss / taken, host.correct / taken
        return {
            "loss": float(losses.mean()),
            "accuracy": float(accuracies.mean()),
            "losses": [float(v) for v in losses],
            "accuracies": [float(v) for v in accuracies],
            "density": float(np.mean(self.densities)),
            "examples_per_second": self.examples / max(time.monotonic() - self._compiling() - self._began, 1e-9),
            "bad_steps": host.bad_step.tolist(),
        }


def check_finite(plan: Plan, phase: int, who: Sequence[Any], bad_steps: Sequence[int], folder: RunFolder | None) -> None:
    """Raise `NonFiniteLoss` if a member's loss was not finite at some step (counted from 1 over the plan; -1 for none)."""
    for member, bad in zip(who, bad_steps, strict=True):
        if bad >= 0:
            kept = f" Tickets collected before are in {folder.tickets}." if folder else ""
            raise NonFiniteLoss(
                f"the loss of member {member} became NaN or infinite at step {bad}, in phase {phase + 1}, "
                f"{describe(plan.phases[phase])}. A lower learning rate or a warm-up is the usual cure.{kept}"
            )


def is_finite(tree: PyTree) -> bool:
    """Whether every number in arrays on the host is finite."""
    return all(bool(np.isfinite(leaf).all()) for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.floating))
