"""The function that an ensemble is: from a batch of raw inputs to probabilities."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxtickets.task import Task
from jaxtickets.tickets.inputs import check_shapes
from jaxtickets.tickets.ticket import Ticket

PyTree = Any
Weights = tuple[tuple[PyTree, PyTree], ...]


@dataclasses.dataclass(frozen=True, eq=False)
class PredictiveFunction:
    """What an ensemble predicts, as a pure function of a batch of raw inputs.

    Called with a batch it closes over the weights; `apply` takes them as an argument, for programs
    that are to be compiled once for several ensembles, and for derivatives by weights. Both run
    under `jax.jit`, `jax.vmap`, `jax.grad` and `jax.export`; by inputs they can be derived where
    those are floats.

    Args:
      apply: `(weights, x [B, ...]) -> probabilities`.
      weights: params and model state of each ticket.
    """

    apply: Callable[[Weights, PyTree], jax.Array]
    weights: Weights

    def __call__(self, x: PyTree) -> jax.Array:
        """Probabilities, float32 [B, C], or [M, B, C] of every member; of a regression [B] or
        [M, B].

        Raises:
          DataError: x of another shape or dtype than the ensemble takes.
        """
        return self.apply(self.weights, x)


def predictive_function(
    task: Task,
    tickets: Sequence[Ticket],
    x_spec: PyTree,
    prepare: Callable[[PyTree], PyTree],
    members: bool,
) -> PredictiveFunction:
    """The function of these tickets; see `TicketEnsemble.function`."""

    def apply(weights: Weights, x: PyTree) -> jax.Array:
        check_shapes(x, prepare, x_spec, f"{task.name} was trained on")
        inputs = prepare(x)
        each = []
        for params, model_state in weights:
            outputs, _ = task.apply(params, model_state, inputs, False, None)
            one = task.log_proba(outputs)
            each.append(one if task.heads > 1 else one[None])
        found = jnp.concatenate(each)
        if task.num_classes is not None:
            found = jnp.exp(found)
        return found if members else jnp.mean(found, 0)

    weights = tuple((ticket.params, ticket.model_state) for ticket in tickets)
    return PredictiveFunction(apply, weights)
