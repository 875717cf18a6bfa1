"""Differences between the layers of an ensemble's networks: a part of an evaluation."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxtickets.dataset import Dataset
from jaxtickets.dataset.conversion import as_inputs
from jaxtickets.errors import EvaluationError
from jaxtickets.evaluation.diversity import kl_matrix, pair_mean
from jaxtickets.tickets.ensemble import TicketEnsemble
from jaxtickets.tracing.precision import in_32_bits

PyTree = Any
# examples whose reduced maps are held at a time, for all tickets: of WRN-28-10 about 80 MB a ticket
_BLOCK = 2000


@dataclasses.dataclass(frozen=True)
class Features:
    """The part "features" of an evaluation: KL divergence between feature maps, layer by layer.

    A layer's map is averaged over all axes between the examples and the channels, and a softmax
    makes a distribution over the channels of it. Of two tickets' distributions the KL divergence is
    taken, in nats, averaged over examples, and over both directions of all pairs of tickets. Layers
    are those that `Task.features` names: of a Linen network each with a kernel of its own, before
    its activation.

    References:
      Liu et al. 2022, arXiv:2106.14568, figure 2, left.

    Differs:
      The paper says "KL divergence across intermediate feature maps [...] averaged among M = 3
      subnetworks" and not how a map becomes a distribution, which layers there are, or of which
      direction; the above is ours, so numbers compare within this library only.
      Channels of networks that were drawn apart do not correspond, and nothing here matches them:
        tickets of one run (EDST) are
      compared channel by channel, others as they come. Where texts are padded the average is over
      the padding, too.
    """

    name = "features"

    def __call__(
        self,
        tickets: TicketEnsemble,
        test: Any,
        *,
        bins: int = 15,
        batch_size: int | None = None,
        combine: str = "proba",
    ) -> dict[str, Any]:
        """Compare every layer of every pair of tickets.

        Args:
          tickets: the ensemble.
          test: a `Dataset`, an `EvaluationStream`, or a pair (x, y) as the network takes it. Labels
            are not read.
          bins: not used.
          batch_size: examples per forward pass; None for 100.
          combine: not used.

        Returns:
          `{"layers": [names in order of depth], "kl": [L], "kl_matrices": [L, T, T]}` as lists.
          "kl" is the mean over ordered pairs, None for one ticket; row i, column j of a matrix is
          the divergence from ticket i to ticket j.

        Raises:
          EvaluationError: a task that does not know its layers; tickets whose layers have different
            widths; no examples; NaN in a map.
        """
        task = tickets.task
        if task.features is None:
            raise EvaluationError(
                f"tickets: {task.name} does not name its layers: its task has features=None. Those"
                " of a Linen network with one head do; of others give dataclasses.replace(task,"
                " features=...), (params, model_state, x) -> {layer: [B, ..., channels]}."
            )
        size = 100 if batch_size is None else batch_size
        if size < 1:
            raise EvaluationError(f"batch_size: got {batch_size}, wanted 1 or more.")
        prepare = test.prepare if isinstance(test, Dataset) else _as_is
        total, examples, layers = np.zeros(()), 0, []
        for x in _blocks(test, size):
            maps_by_ticket = []
            for ticket in tickets.tickets:
                layer_names, maps = _reduced(task, prepare, ticket, x, size)
                layers = layers or layer_names
                maps_by_ticket.append(maps)
            if not examples:
                _check_widths(layers, maps_by_ticket)
            count = len(maps_by_ticket[0][0])
            total = total + count * np.stack(
                [
                    _divergence(name, maps)
                    for name, maps in zip(layers, zip(*maps_by_ticket, strict=True), strict=True)
                ]
            )
            examples += count
        if not examples:
            raise EvaluationError("test: got no examples, wanted at least one.")
        matrices = total / examples
        means = [pair_mean(matrix) for matrix in matrices]
        return {
            "layers": layers,
            "kl": [None if np.isnan(mean) else mean for mean in means],
            "kl_matrices": matrices.tolist(),
        }


def _blocks(test: Any, size: int) -> Iterator[PyTree]:
    """The inputs of a test set in blocks."""
    if hasattr(test, "in_order"):
        yield from test.in_order(size)
        return
    if not isinstance(test, Dataset) and not (isinstance(test, (tuple, list)) and len(test) == 2):
        raise EvaluationError(
            f"test: got {type(test).__name__}, wanted a Dataset, an EvaluationStream or a pair"
            " (x, y)."
        )
    x = as_inputs(test.x if isinstance(test, Dataset) else test[0])
    for first in range(0, len(jax.tree.leaves(x)[0]), _BLOCK):
        yield jax.tree.map(lambda a, first=first: a[first : first + _BLOCK], x)


@in_32_bits
def _reduced(
    task: Any, prepare: Any, ticket: Any, x: PyTree, size: int
) -> tuple[list[str], list[np.ndarray]]:
    """Names of a ticket's layers, and the log of each one's distribution over channels [B, C]."""
    names, run = _program(task.features, prepare)
    params, model_state = jax.device_put((ticket.params, ticket.model_state))
    examples = len(jax.tree.leaves(x)[0])
    rows = []
    for first in range(0, examples, size):
        # the last batch is filled up, so that there is one program
        take = np.arange(first, first + size) % examples
        rows.append(
            jax.device_get(
                run(params, model_state, jax.tree.map(lambda a, t=take: jnp.asarray(a[t]), x))
            )
        )
    if not names:
        raise EvaluationError(
            "tickets: the task's features name no layer, wanted {layer: [B, ..., channels]}."
        )
    return list(names), [np.concatenate(parts)[:examples] for parts in zip(*rows, strict=True)]


@functools.lru_cache(maxsize=16)
def _program(features: Any, prepare: Any) -> tuple[list[str], Any]:
    """The layers' names and the compiled function of their distributions.

    The names are there once it has been traced.
    """
    names: list[str] = []

    @jax.jit
    def run(params: PyTree, model_state: PyTree, x: PyTree) -> list[jax.Array]:
        maps = features(params, model_state, prepare(x))
        names[:] = maps  # here, since jit returns a dictionary in order of the alphabet
        return [
            jax.nn.log_softmax(a.astype(jnp.float32).mean(tuple(range(1, a.ndim - 1))))
            for a in maps.values()
        ]

    return names, run


def _check_widths(layers: list[str], maps_by_ticket: list[list[np.ndarray]]) -> None:
    for number, maps in enumerate(maps_by_ticket):
        for name, first, other in zip(layers, maps_by_ticket[0], maps, strict=True):
            if first.shape != other.shape:
                raise EvaluationError(
                    f"tickets: layer {name} has {other.shape[-1]} channels in ticket {number} and"
                    f" {first.shape[-1]} in ticket 0; wanted networks of one shape. Compare them"
                    " before shrink."
                )


def _divergence(name: str, maps: tuple[np.ndarray, ...]) -> np.ndarray:
    try:
        return kl_matrix(np.stack(maps))
    except EvaluationError as error:
        raise EvaluationError(f"tickets: the features of layer {name}: {error}") from error


def _as_is(x: PyTree) -> PyTree:
    return x
