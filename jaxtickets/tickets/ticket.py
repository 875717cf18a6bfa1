"""A ticket: one sparse subnetwork, the params and the mask that says which of them exist."""

from __future__ import annotations

from typing import Any, NamedTuple

PyTree = Any


class Ticket(NamedTuple):
    """A sparse subnetwork.

    Args:
      params: weights, exactly 0 where pruned.
      mask: which weights exist, a tree like `params` (see `jaxtickets.masks`).
      model_state: batch statistics and the like.
      info: where it comes from: lineage, phase, step, training loss and accuracy, density.
    """

    params: PyTree
    mask: PyTree
    model_state: PyTree
    info: dict[str, Any]
