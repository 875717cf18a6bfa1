"""Lineages whose arrays become smaller, or others: what a Shrink and a Pack have in common."""

from __future__ import annotations

from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from jaxtickets.engine.optimizer import optax_optimizer
from jaxtickets.engine.state import Lineage, Weights
from jaxtickets.plan import Optimizer
from jaxtickets.transforms import map_moments

PyTree = Any


class Change(Protocol):
    """What becomes of one network's arrays."""

    def leaf(self, number: int, array: Any) -> Any:
        """Of an array like leaf `number` of the params."""
        ...

    def params(self, tree: PyTree) -> PyTree:
        """Of a tree like the params, or of a mask."""
        ...

    def ever_active(self, tree: PyTree) -> PyTree:
        """Of the weights that were ever active."""
        ...

    def weights(self, weights: Weights) -> Weights:
        """Of params and model state."""
        ...


def resized(lineage: Lineage, optimizer: Optimizer, change: Change) -> Lineage:
    """One lineage, in numpy, with its arrays changed; its moments go on as they would have.

    Moments that belong to no single weight (Adafactor's, SM3's) begin afresh.
    """
    params, model_state = change.weights(lineage.weights)
    tx = optax_optimizer(optimizer, 0.0)
    moments = map_moments(change.leaf, tx, lineage.moments, lineage.params)
    fresh = jax.eval_shape(tx.init, params)
    shapes = [jax.tree.map(jnp.shape, tree) for tree in (moments, fresh)]
    if shapes[0] != shapes[1]:
        moments = jax.device_get(tx.init(params))
    return lineage._replace(
        params=params,
        model_state=model_state,
        mask=change.params(lineage.mask),
        ever_active=change.ever_active(lineage.ever_active),
        moments=moments,
    )


def stacked(trees: list[PyTree]) -> PyTree:
    """Trees of networks in numpy as one tree, with a leading member axis."""
    return jax.tree.map(lambda *leaves: np.stack(leaves), *trees)
