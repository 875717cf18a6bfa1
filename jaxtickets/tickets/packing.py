"""Packing tickets: dense layers made of whole blocks hold those that exist, and run faster."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import numpy as np

from jaxtickets.errors import MaskError
from jaxtickets.masks import packing
from jaxtickets.masks.packable import packable, packings
from jaxtickets.masks.structure import Blocks
from jaxtickets.messages import checks
from jaxtickets.messages.quoting import shown
from jaxtickets.plan.packing import BLOCKS, check_blocks
from jaxtickets.tickets.ensemble import TicketEnsemble
from jaxtickets.tickets.ticket import Ticket
from jaxtickets.tracing.precision import in_32_bits

PyTree = Any

check = checks.Checks(MaskError)


@in_32_bits
def pack(
    tickets: TicketEnsemble, structure: Blocks = BLOCKS, at_most: float = 0.5
) -> TicketEnsemble:
    """The same ensemble with dense layers that hold the blocks that exist and nothing else;
    predictions stay what they were, in a share of the time.

    For masks of `structure=Blocks(32, 32)` (see `jaxtickets.plan.Pack`, which packs while it
    trains). Outputs are those of the masked network but for the order in which floats are added up.
    Packed tickets predict, are saved and loaded, recalibrated, and trained on (`start_from`) as
    others are; `unpack` gives the masked ones back.

    Args:
      tickets: an ensemble of Linen modules.
      structure: the blocks that layers are cut into; masks may be made of multiples of them.
      at_most: the share of a layer that its packed form may be, in (0, 1]; others stay masked.

    Returns:
      An ensemble of numpy arrays. `info` of each ticket has a new entry "packed": weights of the
      packed layers before and after.

    Raises:
      MaskError: of a ticket no layer can be packed; says why of each.

    >>> import jax.numpy as jnp
    >>> import jaxtickets as jt
    >>> task = jt.classification(jt.models.LeNet((8, 8, 64, 32)))
    >>> spec = jax.ShapeDtypeStruct((16, 16, 1), jnp.float32)
    >>> params, state = task.init(jax.random.key(0), jnp.zeros((1, 16, 16, 1)))
    >>> key, blocks = jax.random.key(1), Blocks(8, 8)
    >>> mask = jt.sparsity.random_mask(key, params, 0.8, "uniform", structure=blocks)
    >>> masked = jt.Ticket(jt.masks.apply(mask, params), mask, state, {})
    >>> small = pack(jt.TicketEnsemble(task, (masked,), spec), blocks).tickets[0]
    >>> small.info["packed"], small.params["dense2"]["kernel"].shape
    ([2560, 448], (6, 1, 8, 8))
    """
    if not isinstance(tickets, TicketEnsemble):
        raise MaskError(f"tickets is an ensemble, such as fit returns; got {shown(tickets)}.")
    check_blocks(structure, MaskError)
    check.fraction("at_most", at_most, "a share of a layer, ", ends="(]")
    packed = (_packed(tickets, i, ticket, structure, at_most) for i, ticket in enumerate(tickets))
    return dataclasses.replace(tickets, tickets=tuple(packed))


@in_32_bits
def unpack(tickets: TicketEnsemble) -> TicketEnsemble:
    """The ensemble with whole, masked layers in place of packed ones: what `pack` was given.

    What was not packed stays as it is.

    Raises:
      MaskError: not an ensemble.
    """
    if not isinstance(tickets, TicketEnsemble):
        raise MaskError(f"tickets is an ensemble, such as fit returns; got {shown(tickets)}.")
    return dataclasses.replace(tickets, tickets=tuple(unpacked(ticket) for ticket in tickets))


def unpacked(ticket: Ticket) -> Ticket:
    """The ticket with whole, masked layers; itself if it has no others."""
    if not packing.tables_in(ticket.model_state):
        return ticket
    params, mask, state = jax.device_get(ticket[:3])
    tables = packing.tables_in(state)
    return Ticket(
        packing.unpacked(params, tables),
        packing.unpacked(mask, tables),
        packing.with_tables(state, {}),
        {name: value for name, value in ticket.info.items() if name != "packed"},
    )


def _packed(
    tickets: TicketEnsemble, number: int, ticket: Ticket, structure: Blocks, at_most: float
) -> Ticket:
    params, mask, state, info = unpacked(ticket)
    params, mask, state = jax.device_get((params, mask, state))
    task = tickets.task
    why = packable(task.apply, params, state, tickets.x_spec, task.prunable, structure)
    fits = [path for path, reason in why.items() if not reason]
    (how,), others = packings([mask], fits, structure, at_most)
    if not how.tables:
        layers = "; ".join(f"{path}: {reason}" for path, reason in (why | others).items() if reason)
        raise MaskError(
            f"member {number} has no layer that can be packed. {layers or 'It has no matrices'}."
            f" Packing is for masks of structure={structure}."
        )
    small = how.tree(params)
    return Ticket(
        small,
        how.tree(mask),
        packing.with_tables(state, how.tables),
        info | packing.counts(jax.tree.map(np.asarray, params), small),
    )
