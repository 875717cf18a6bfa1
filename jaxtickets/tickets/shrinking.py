"""Shrinking: neuron-pruned tickets as smaller dense networks with the same outputs."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import numpy as np

from jaxtickets.errors import MaskError
from jaxtickets.masks.cutting import (
    cut,
    dead_units,
    lines_left,
    masks_by_path,
    staying_units,
)
from jaxtickets.masks.packing import tables_in
from jaxtickets.masks.units import Leaf, UnitTable, find_units
from jaxtickets.messages.quoting import shown
from jaxtickets.tickets.ensemble import TicketEnsemble
from jaxtickets.tickets.ticket import Ticket
from jaxtickets.tracing.precision import in_32_bits

PyTree = Any


@in_32_bits
def shrink(tickets: TicketEnsemble) -> TicketEnsemble:
    """The same ensemble with dead units cut out of params, masks and batch statistics; predictions
    stay what they were.

    A unit is dead where the *mask* prunes every weight that reads it (zeros among the weights say
    nothing: a regrown weight is 0 until its first update). Units that only dead units read are dead
    too. Of a layer whose units are all dead one is left, since a network cannot do without.
    Connection-pruned weights that remain stay masked; where there are none, every leaf of the new
    mask is a dense marker. (Masks of shrunk members are not to be compared: the same index is
    another unit in each.)

    Members may come out with different widths. Outputs are those of the masked network but for the
    order in which floats are added up. The smaller network is run by the same `Task.apply`, so its
    layers must take their widths from the params that they are given, as those of
    `jaxtickets.models` do. In training mode too it is the same network, but for what dropout draws.

    Args:
      tickets: an ensemble of which at least one member is neuron-pruned (see
        `jaxtickets.masks.units.unit_mask`).

    Returns:
      An ensemble of numpy arrays. `info` of each ticket has a new entry "shrunk": units before and
      after.

    Raises:
      MaskError: every unit is alive; a unit is masked in some places and alive in others, or masked
        where it is written and alive where it is read (then it is a constant, not 0); a masked
        output that is no unit; a model of fixed widths.

    >>> import jax.numpy as jnp
    >>> import jaxtickets as jt
    >>> task = jt.classification(jt.models.LeNet((8, 8, 16, 8)))
    >>> params, state = task.init(jax.random.key(0), jnp.zeros((1, 16, 16, 1)))
    >>> spec = jax.ShapeDtypeStruct((16, 16, 1), jnp.float32)
    >>> units = jt.units.find_units(task.apply, params, state, spec)
    >>> mask = jt.units.unit_mask(units, jt.units.random_units(jax.random.key(1), units, 0.5))
    >>> ticket = jt.Ticket(jt.masks.apply(mask, params), mask, state, {})
    >>> small = shrink(jt.TicketEnsemble(task, (ticket,), spec)).tickets[0]
    >>> small.info["shrunk"], small.params["dense1"]["kernel"].shape
    ([40, 20], (4, 8))
    """
    if not isinstance(tickets, TicketEnsemble):
        raise MaskError(f"tickets is an ensemble, such as fit returns; got {shown(tickets)}.")
    if any(tables_in(ticket.model_state) for ticket in tickets):
        raise MaskError(
            "packed tickets have no whole units: shrink(unpack(tickets)), and pack them again."
        )
    found: dict[Any, UnitTable] = {}
    smaller, removed, rest = [], 0, []
    for i, ticket in enumerate(tickets):
        ticket = jax.device_get(ticket)
        shapes = tuple(
            np.shape(leaf) for leaf in jax.tree.leaves((ticket.params, ticket.model_state))
        )
        if shapes not in found:
            found[shapes] = find_units(
                tickets.task.apply,
                ticket.params,
                ticket.model_state,
                tickets.x_spec,
                tickets.task.prunable,
            )
        units = found[shapes]
        dead = dead_units(units, ticket.mask)
        if (reason := _in_part(units, masks_by_path(units, ticket.mask), dead)) is not None:
            raise MaskError(f"member {i} cannot be shrunk: {reason}")
        (stays,) = staying_units(units, [dead])
        removed += int((~stays).sum())
        rest.append([len(units), int(stays.sum())])
        smaller.append(_without(units, ticket, stays))
    if not removed:
        raise MaskError(
            "there is nothing to remove: every unit is alive. Shrinking is for neuron pruning"
            " (jaxtickets.masks.units.unit_mask); connection-pruned tickets are not made smaller by"
            " it, since some weight of nearly every unit survives."
        )
    spec = tickets.x_spec
    for before, after in zip(tickets, smaller, strict=True):
        _check_runs(tickets.task, before, after, spec)
    named = [
        t._replace(info={**t.info, "shrunk": numbers})
        for t, numbers in zip(smaller, rest, strict=True)
    ]
    return dataclasses.replace(tickets, tickets=tuple(named))


def _in_part(units: UnitTable, mask: dict[str, np.ndarray], dead: np.ndarray) -> str | None:
    """What is neuron-pruned but does not follow the units; None if nothing is.

    Neurons and nothing else were pruned if every mask is a product of one vector per axis.
    Otherwise connections were pruned too, and a row that is empty may be so by chance, which is no
    mistake.
    """
    lines: dict[tuple[str, int], np.ndarray] = {}
    for path, m in mask.items():
        each = [lines_left(m, axis) for axis in range(m.ndim)]
        if int(m.sum()) != int(np.prod([vector.sum() for vector in each])):
            return None
        if m.any():
            lines.update({(path, axis): vector for axis, vector in enumerate(each)})
    for leaf in units.params:
        for axis, ids in enumerate(leaf.units):
            vector = lines.get((leaf.path, axis))
            for index in [] if vector is None else np.flatnonzero(~vector).tolist():
                unit, why = int(ids[index]), leaf.fixed[axis][index]
                if why:
                    return f"output {index} of {leaf.path} is masked, but cannot be removed: {why}."
                if unit >= 0 and not dead[unit]:
                    return _alive_elsewhere(units, mask, leaf, axis, index)
    return None


def _alive_elsewhere(
    units: UnitTable, mask: dict[str, np.ndarray], leaf: Leaf, axis: int, index: int
) -> str:
    unit = int(leaf.units[axis][index])
    reads = bool(leaf.read[axis].any())
    here = (
        f"{leaf.path} has its {'input' if reads else 'output'} {index} masked, which is"
        f" {units.names[unit]}"
    )
    fix = (
        "Mask all that writes and reads a unit, or none of it: jaxtickets.masks.units.unit_mask"
        " does."
    )
    readers, writers = [], []
    for other in units.params:
        m = mask[other.path]
        for d, ids in enumerate(other.units):
            places = np.flatnonzero(ids == unit) if other.prunable else np.array([], int)
            if (
                len(places)
                and lines_left(np.broadcast_to(m, other.shape), d)[places].any()
                and (other.path, d) != (leaf.path, axis)
            ):
                (readers if other.read[d].any() else writers).append(other.path)
    if not reads and writers:
        return f"{here}, but it is added to that of {' and '.join(writers)}, which is alive. {fix}"
    if not reads:
        return (
            f"{here}, but {' and '.join(readers)} reads it, and gets a constant (of bias or batch"
            f" norm), not 0. {fix}"
        )
    if readers:
        return f"{here}, but it is alive where {' and '.join(readers)} reads it. {fix}"
    return f"{here}, but not everywhere that it is read. {fix}"


def _without(units: UnitTable, ticket: Ticket, stays: np.ndarray) -> Ticket:
    mask = cut(units.params, ticket.mask, stays)
    whole = all(m.all() for m in jax.tree.leaves(mask))
    return ticket._replace(
        params=cut(units.params, ticket.params, stays),
        mask=jax.tree.map(lambda _: np.ones((), bool), mask) if whole else mask,
        model_state=cut(units.model_state, ticket.model_state, stays),
    )


def _check_runs(task: Any, before: Ticket, after: Ticket, x_spec: PyTree) -> None:
    x = jax.tree.map(lambda s: jax.ShapeDtypeStruct((1, *s.shape), s.dtype), x_spec)

    def shapes(ticket: Ticket) -> PyTree:
        out = jax.eval_shape(
            lambda p, s, x: task.apply(p, s, x, False, None)[0],
            ticket.params,
            ticket.model_state,
            x,
        )
        return jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), out)

    try:
        fits = shapes(before) == shapes(after)
        problem = "its outputs have another shape"
    except Exception as error:  # every framework has its own kinds for params that do not fit
        fits, problem = False, str(error)
    if not fits:
        raise MaskError(
            f"{task.name} does not run with fewer units: {problem}. Its layers must take their"
            " widths from the params that they are given, as those of jaxtickets.models do."
        )
