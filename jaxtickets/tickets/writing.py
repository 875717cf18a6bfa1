"""Writing ticket files."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxtickets import masks
from jaxtickets.plan import Plan
from jaxtickets.task import Task
from jaxtickets.tickets.file_layout import (
    FORMAT,
    METADATA,
    digest,
    header,
    named,
    spec_to_json,
    specs,
    stored,
)
from jaxtickets.tickets.ticket import Ticket

PyTree = Any


def write(
    path: Path,
    task: Task,
    tickets: Sequence[Ticket],
    x_spec: PyTree,
    plan: Plan | None,
    made_by: dict[str, Any] | None = None,
) -> None:
    """Write an ensemble to `path`, through a temporary file beside it; holds one ticket at a time.

    Args:
      path: where to.
      task: the network that they are tickets of.
      tickets: in order.
      x_spec: shape and dtype of what the network takes, of one example.
      plan: what produced them, if known.
      made_by: of a run's own files, which run that is, and which of its tickets.
    """
    about: dict[str, Any] = {
        "format": FORMAT,
        "task": task.name,
        "x": spec_to_json(x_spec),
        "plan": plan.to_json() if plan else None,
        "info": [],
    }
    sizes: dict[str, tuple[np.dtype[Any], tuple[int, ...]]] = {}
    shapes = []
    usual = {name: leaf.shape for name, leaf in named(*specs(task, x_spec))}
    for i, ticket in enumerate(tickets):
        about["info"].append(ticket.info)
        shapes.append(_own_shapes(ticket, usual))
        sizes |= {
            name: (tensor.dtype, tensor.shape) for name, tensor in _tensors(i, ticket).items()
        }
    if any(shapes):
        about["shapes"] = shapes
    if made_by is not None:
        about["made_by"] = made_by
    of = _by_ticket(tickets)
    about["sha256"] = digest(sizes, lambda name: of(name)[name], about)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            # Wide numbers first, as the format's own writer puts them, so that all are aligned.
            names = sorted(sizes, key=lambda name: (-sizes[name][0].itemsize, *_number_first(name)))
            file.write(header({name: sizes[name] for name in names}, METADATA, about))
            for name in names:
                file.write(np.ascontiguousarray(of(name)[name]).reshape(-1).view(np.uint8).data)
            file.flush()
            os.fsync(file.fileno())  # a name that outlives a power cut should have its bytes
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _number_first(name: str) -> tuple[int, str]:
    """By ticket, then by name."""
    number, _, rest = name.partition("/")
    return int(number), rest


def _by_ticket(tickets: Sequence[Ticket]) -> Callable[[str], dict[str, np.ndarray]]:
    """The tensors of the ticket that a tensor's name belongs to; the last one asked for is kept."""
    held: tuple[int, dict[str, np.ndarray]] = (-1, {})

    def of(name: str) -> dict[str, np.ndarray]:
        nonlocal held
        i = int(name.partition("/")[0])
        if held[0] != i:
            held = (i, _tensors(i, tickets[i]))
        return held[1]

    return of


def _tensors(i: int, ticket: Ticket) -> dict[str, np.ndarray]:
    """What is stored of member `i`."""
    params, mask, state = jax.device_get((ticket.params, ticket.mask, ticket.model_state))
    tensors: dict[str, np.ndarray] = {}
    for name, values, kept in zip(
        masks.leaf_paths(params), jax.tree.leaves(params), jax.tree.leaves(mask), strict=True
    ):
        values = np.asarray(values)
        if kept.ndim:
            tensors[f"{i}/mask/{name}"] = masks.pack(kept)
            values = values[kept]
        tensors[f"{i}/params/{name}"] = np.ascontiguousarray(values).view(stored(values.dtype))
    for name, leaf in zip(masks.leaf_paths(state), jax.tree.leaves(state), strict=True):
        # (ascontiguousarray would give a number an axis)
        tensors[f"{i}/state/{name}"] = np.array(leaf, order="C").view(stored(leaf.dtype))
    return tensors


def _own_shapes(ticket: Ticket, usual: dict[str, tuple[int, ...]]) -> dict[str, list[int]]:
    """The shapes of a shrunk ticket's leaves, where they are not the usual ones."""
    leaves = named(ticket.params, ticket.model_state)
    return {
        name: list(np.shape(leaf)) for name, leaf in leaves if np.shape(leaf) != usual.get(name)
    }
