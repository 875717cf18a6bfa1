"""The best network of a training phase so far, member by member, by accuracy on the validation split."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxtickets import members
from jaxtickets.engine.lineage import Lineage, Network
from jaxtickets.engine.run import Run
from jaxtickets.ensemble import Ticket, TicketEnsemble

PyTree = Any


def network_of(lineage: Lineage) -> Network:
    """What of a lineage predicts."""
    return Network(lineage.params, lineage.mask, lineage.model_state)


def none_yet(lineage: Lineage) -> dict[str, PyTree]:
    """A best that anything beats: accuracy -1, in arrays of its own."""
    zeros = lineage.step * 0
    return {"accuracy": zeros - jnp.float32(1), "step": zeros, "network": jax.tree.map(lambda a: a.copy(), network_of(lineage))}


def validation_accuracy(run: Run, network: Network, width: int) -> np.ndarray:
    """Every member's accuracy on the validation split, float32 [W]."""
    assert run.held is not None
    host = members.fetch(network)
    tickets = tuple(Ticket(*members.member(host, i), info={}) for i in range(width))
    right = TicketEnsemble(run.task, tickets, run.x_spec).ticket_log_proba(run.held).argmax(-1) == run.held.y
    return right.mean(1, dtype=np.float32)


@jax.jit
def better(best: PyTree, now: PyTree) -> PyTree:
    """Member by member, the network of higher accuracy; the earlier of equals."""
    wins = now["accuracy"] > best["accuracy"]
    return jax.tree.map(lambda a, b: jnp.where(wins.reshape(wins.shape + (1,) * (a.ndim - 1)), b, a), best, now)
