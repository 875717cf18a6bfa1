"""A network trained elsewhere, for a plan to start from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxtickets import masks
from jaxtickets.dataset.conversion import as_arrays
from jaxtickets.engine.state import Network
from jaxtickets.errors import DataError, MaskError, TicketError
from jaxtickets.masks import packing
from jaxtickets.masks.sparsity import prunable_shapes
from jaxtickets.task import Task
from jaxtickets.tickets import load
from jaxtickets.tickets.ensemble import TicketEnsemble
from jaxtickets.tickets.ticket import Ticket

PyTree = Any


def given_network(
    source: PyTree | Ticket | TicketEnsemble | str | Path | None,
    task: Task,
    params: PyTree,
    model_state: PyTree,
) -> Network | None:
    """The network that `fit(start_from=...)` names, checked against the task's.

    Args:
      source: a tree of params, `(params, model_state)`, a ticket, an ensemble of one, a ticket
        file, or None.
      task: what it should be a network of.
      params: shapes of the task's params.
      model_state: shapes of its state.

    Raises:
      TicketError: it does not fit.
    """
    if source is None:
        return None
    if isinstance(source, str | Path):
        source = load(source, task)
    if isinstance(source, TicketEnsemble):
        if len(source) != 1:
            raise TicketError(
                f"start_from holds {len(source)} tickets and a plan starts from one: take"
                " tickets[0]."
            )
        source = source.tickets[0]
    state, mask, shrunk = None, None, False
    if isinstance(source, Ticket):
        found, state, mask = source.params, source.model_state, source.mask
        shrunk = "shrunk" in source.info
    elif isinstance(source, tuple) and len(source) == 2:
        found, state = source
    else:
        found = source
    try:
        found, state, mask = jax.tree.map(
            lambda a: as_arrays(a, "a leaf") if hasattr(a, "dtype") else a, (found, state, mask)
        )
    except DataError as error:
        raise TicketError(f"start_from is no network of {task.name}: {error}.") from error
    whole, whole_state = _unpacked(task, found, mask, state)
    _check("params", task, whole, params, shrunk)
    if not jax.tree.leaves(state):
        if jax.tree.leaves(model_state):
            raise TicketError(
                f"{task.name} has batch statistics, which start_from lacks: give (params,"
                " model_state), or a ticket."
            )
        state = whole_state = model_state  # no statistics, whatever kind of tree has none
    _check("model state", task, whole_state, model_state, shrunk)
    for path, leaf in zip(
        masks.leaf_paths((found, state)), jax.tree.leaves((found, state)), strict=True
    ):
        if (
            jax.numpy.issubdtype(leaf.dtype, jax.numpy.floating)
            and not np.isfinite(np.asarray(leaf)).all()
        ):
            raise TicketError(
                f"start_from: {path.split('/', 1)[-1]!r} holds NaN or infinite values."
            )
    if mask is None:
        mask = masks.dense(params)
    masks.check(mask, found)
    masked = [
        path
        for path, leaf in zip(masks.leaf_paths(mask), jax.tree.leaves(mask), strict=True)
        if leaf.ndim
    ]
    stray = sorted(
        set(masked) - (prunable_shapes(params, task.prunable).keys() if masked else set())
    )
    if stray:
        raise TicketError(
            f"start_from masks {', '.join(stray)}, which {task.name} does not prune (see its"
            " `prunable`)."
        )
    return jax.tree.map(jax.numpy.asarray, Network(found, mask, state))


def _unpacked(
    task: Task, params: PyTree, mask: PyTree | None, state: PyTree
) -> tuple[PyTree, PyTree]:
    """Params and state as they would be unpacked: themselves, or their shapes.

    Raises:
      TicketError: it is packed in a way that cannot be.
    """
    if not packing.tables_in(state):
        return params, state
    try:
        mask = masks.dense(params) if mask is None else mask
        masks.check(mask, params)
        packing.check_packed(params, mask, state)
    except MaskError as error:
        raise TicketError(f"start_from is no network of {task.name}: {error}") from None
    return packing.unpacked_shapes(params, state)


def _check(what: str, task: Task, found: PyTree, wanted: PyTree, shrunk: bool) -> None:
    """Raise `TicketError` unless the trees are alike; a shrunk ticket may be narrower."""
    there, here = (
        dict(zip(masks.leaf_paths(tree), jax.tree.leaves(tree), strict=True))
        for tree in (found, wanted)
    )
    missing, extra = sorted(here.keys() - there.keys()), sorted(there.keys() - here.keys())
    if missing or extra or jax.tree.structure(found) != jax.tree.structure(wanted):
        parts = [
            f"{word} {', '.join(paths[:5])}"
            for word, paths in (("lacks", missing), ("has besides", extra))
            if paths
        ]
        raise TicketError(
            f"start_from is no network of {task.name}: its {what}"
            f" {' and '.join(parts) or 'are another kind of tree'}."
        )
    for path, leaf in here.items():
        given = there[path]
        if not hasattr(given, "shape") or not hasattr(given, "dtype"):
            raise TicketError(
                f"start_from is no network of {task.name}: {path!r} is a {type(given).__name__}"
                " there, not an array."
            )
        fits = tuple(given.shape) == tuple(leaf.shape)
        if shrunk and len(given.shape) == len(leaf.shape):
            fits = all(n <= m for n, m in zip(given.shape, leaf.shape, strict=True))
        if not fits or given.dtype != leaf.dtype:
            there_is, here_is = (f"{a.dtype}{list(a.shape)}" for a in (given, leaf))
            raise TicketError(
                f"start_from is no network of {task.name}: {path!r} is {there_is} there and"
                f" {here_is} here."
            )
