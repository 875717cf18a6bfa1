"""What a group of networks carries from phase to phase: typed trees, passed and returned."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxtickets.masks import packing

PyTree = Any
Shapes = Sequence[Sequence[int]]


class Network(NamedTuple):
    """What of a network predicts."""

    params: PyTree
    mask: PyTree
    model_state: PyTree


class Weights(NamedTuple):
    """What is remembered, and rewound to. The mask is always the present one."""

    params: PyTree
    model_state: PyTree


def of_network(network: Network) -> Weights:
    """Shapes and dtypes of a network's weights, of whole layers where they are packed."""
    return whole_shapes(Weights(network.params, network.model_state))


def whole_shapes(weights: Weights) -> Weights:
    """Shapes and dtypes of weights, of whole layers where they are packed."""
    return Weights(*packing.unpacked_shapes(*weights))


def of_one(tree: PyTree) -> PyTree:
    """Shapes and dtypes of one member of a tree whose leaves have a leading member axis."""
    return jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape[1:], a.dtype), tree)


class Lineage(NamedTuple):
    """One network in training; of a group, every leaf has a leading member axis [W].

    Args:
      params: weights, exactly 0 where pruned.
      model_state: batch statistics and the like.
      mask: the mask, a tree like params.
      ever_active: weights that were ever active, a tree like the mask; of whole layers where they
        are packed.
      moments: the optimizer's state.
      step: training steps taken since Start, int32.
    """

    params: PyTree
    model_state: PyTree
    mask: PyTree
    ever_active: PyTree
    moments: PyTree
    step: jax.Array

    @property
    def network(self) -> Network:
        """What of it predicts."""
        return Network(self.params, self.mask, self.model_state)

    @property
    def weights(self) -> Weights:
        """What of it is remembered."""
        return Weights(self.params, self.model_state)


class Tally(NamedTuple):
    """Sums over steps since the last report, [W].

    Args:
      loss: of the batches' mean losses, float32.
      correct: of the batches' accuracies, float32.
      steps: how many, int32.
      bad_step: the first step with a loss that was not finite, from 1 over the plan; -1 for none.
    """

    loss: jax.Array
    correct: jax.Array
    steps: jax.Array
    bad_step: jax.Array


class StepHyperparams(NamedTuple):
    """What changes from step to step. Arrays, float32, so that a schedule makes no new program."""

    lr: Any
    drop_fraction: Any
    momentum: Any
    penalty: Any


class Best(NamedTuple):
    """The network of the highest validation accuracy of a training phase so far, and its step."""

    accuracy: jax.Array
    step: jax.Array
    network: Network


class Parents(NamedTuple):
    """What children need of the lineages of their group."""

    network: Network
    step: jax.Array
    remembered: dict[str, Weights]


class GroupState(NamedTuple):
    """Everything that a group of W networks carries, and all that a checkpoint holds.

    Args:
      lineage: the networks.
      tally: since the last report.
      report: loss and accuracy of the last report, float32 [W, 2].
      best: while the best network of a phase is asked for.
      remembered: weights by name, as long as a phase to come goes back to them.
      parents: of children, while more of them follow.
    """

    lineage: Lineage
    tally: Tally
    report: jax.Array
    best: Best | None = None
    remembered: dict[str, Weights] = {}  # noqa: RUF012  (never changed)
    parents: Parents | None = None

    def parts(self) -> dict[str, PyTree]:
        """What is there, by its name: what a checkpoint is written from."""
        return {name: part for name, part in self._asdict().items() if jax.tree.leaves(part)}


def empty_tally(members: int) -> Tally:
    """Nothing yet, [W]."""
    zeros = jnp.zeros(members, jnp.float32)
    none = jnp.full(members, -1, jnp.int32)
    return Tally(zeros, zeros + 0, jnp.zeros(members, jnp.int32), none)


def no_report(members: int) -> np.ndarray:
    """Loss and accuracy before there are any, [W, 2]."""
    return np.zeros((members, 2), np.float32)


def shapes_of(weights: Weights) -> Shapes:
    """The shapes of one network, of weights with a leading member axis."""
    return [list(leaf.shape[1:]) for leaf in jax.tree.leaves(weights)]
