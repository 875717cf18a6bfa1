"""The units of a run's networks, found once for every shape that they come to."""

from __future__ import annotations

from typing import Any

import jax

from jaxtickets.engine.state import Weights
from jaxtickets.errors import MaskError
from jaxtickets.masks.children import units_for
from jaxtickets.masks.units import UnitTable
from jaxtickets.task import Task

PyTree = Any


class UnitsOf:
    """Finds the units of a network; one table for all of one shape, since programs are known by it.

    Args:
      task: the networks' task.
      x_spec: shape and dtype of one example.
    """

    def __init__(self, task: Task, x_spec: PyTree) -> None:
        self._task, self._x_spec = task, x_spec
        self._tables: dict[Any, UnitTable] = {}

    def __call__(self, weights: Weights, keep_dense: tuple[str, ...] | None = None) -> UnitTable:
        """The units of a network, of whose weights only shapes are looked at.

        Args:
          weights: of one network, without a member axis.
          keep_dense: path patterns of layers whose outputs are no units.

        Raises:
          MaskError: a network without units.
        """
        shapes = tuple(tuple(leaf.shape) for leaf in jax.tree.leaves(weights))
        key = (shapes, keep_dense)
        if key not in self._tables:
            task = self._task
            network = (weights.params, weights.model_state, self._x_spec, task.prunable)
            self._tables[key] = units_for(task.apply, *network, keep_dense)
        return self._tables[key]

    def left(self, weights: Weights, begins: Weights) -> int:
        """How many units a network has that began with others.

        A layer that was cut down to one could lose none, so that it is not found: it has that one.
        """
        whole = self(begins)
        try:
            now = self(weights)
        except MaskError:
            return len(whole.sizes)
        return len(now) + max(0, len(whole.sizes) - len(now.sizes))
