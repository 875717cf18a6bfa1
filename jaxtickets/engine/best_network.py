"""The best network of a training phase so far, member by member, by accuracy on the validation
split.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxtickets import members
from jaxtickets.dataset import Dataset
from jaxtickets.engine.state import Best, Lineage, Network
from jaxtickets.task import Task
from jaxtickets.tickets.ensemble import TicketEnsemble
from jaxtickets.tickets.ticket import Ticket

PyTree = Any


def initial_best(lineage: Lineage) -> Best:
    """A best that anything beats: accuracy -1, in arrays of its own."""
    zeros = lineage.step * 0
    network = jax.tree.map(lambda a: a.copy(), lineage.network)
    return Best(zeros.astype(jnp.float32) - 1, zeros, network)


def ensemble_of(task: Task, network: Network, width: int, x_spec: PyTree) -> TicketEnsemble:
    """The networks of a group, as an ensemble that predicts."""
    host = members.fetch(network)
    tickets = tuple(Ticket(*members.member(host, i), info={}) for i in range(width))
    return TicketEnsemble(task, tickets, x_spec)


def validation_accuracy(
    task: Task, network: Network, width: int, x_spec: PyTree, held: Dataset
) -> np.ndarray:
    """Every member's accuracy on the validation split, float32 [W]."""
    predicted = ensemble_of(task, network, width, x_spec).ticket_log_proba(held).argmax(-1)
    return (predicted == held.y).mean(1, dtype=np.float32)


@jax.jit
def better(best: Best, now: Best) -> Best:
    """Member by member, the network of higher accuracy; the earlier of equals."""
    wins = now.accuracy > best.accuracy

    def choose(a: jax.Array, b: jax.Array) -> jax.Array:
        return jnp.where(wins.reshape(wins.shape + (1,) * (a.ndim - 1)), b, a)

    return jax.tree.map(choose, best, now)
