"""Reading ticket files."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, overload

import jax
import numpy as np

from jaxtickets import masks
from jaxtickets.ensemble import Ticket, TicketEnsemble
from jaxtickets.errors import TicketFileError
from jaxtickets.plan import Plan
from jaxtickets.task import Task
from jaxtickets.ticket_file.layout import FORMAT, digest, named, one_example, spec_from_json, specs, stored

PyTree = Any


class StoredTickets(Sequence[Ticket]):
    """Tickets that stay in files, one each, and are read when they are asked for: an ensemble larger than memory.

    Args:
      files: ticket files of one member each.
      task: the network that they are tickets of.
    """

    def __init__(self, files: Sequence[Path], task: Task) -> None:
        self._files, self._task = tuple(files), task

    def __len__(self) -> int:
        return len(self._files)

    @overload
    def __getitem__(self, index: int) -> Ticket: ...

    @overload
    def __getitem__(self, index: slice) -> StoredTickets: ...

    def __getitem__(self, index: int | slice) -> Ticket | StoredTickets:
        if isinstance(index, slice):
            return StoredTickets(self._files[index], self._task)
        return load(self._files[index], self._task).tickets[0]


def load(path: str | Path, task: Task) -> TicketEnsemble:
    """The ensemble in a ticket file.

    Args:
      path: what `TicketEnsemble.save` wrote.
      task: the network that they are tickets of; its params must have the file's tree, shapes and dtypes. The leaves of
        shrunk tickets may be smaller, if the network runs with them.

    Returns:
      A `TicketEnsemble` of numpy arrays.

    Raises:
      FileNotFoundError: there is no such file.
      TicketFileError: not a ticket file, damaged, tampered with, or of another network; says which leaf.
    """
    path = Path(path)
    metadata, tensors = _read(path, with_tensors=True)
    with _as_metadata(path):
        expected = metadata.pop("sha256")
        if metadata["format"] != FORMAT:
            raise TicketFileError(f"{path} is of format {metadata['format']!r}; this version reads format {FORMAT}.")
        sizes = {name: (tensor.dtype, tensor.shape) for name, tensor in tensors.items()}
        if digest(sizes, tensors.__getitem__, metadata) != expected:
            raise TicketFileError(f"{path} is damaged or was changed: its SHA-256 does not match.")
        x_spec = spec_from_json(metadata["x"])
        plan = Plan.from_json(metadata["plan"]) if metadata["plan"] else None
        info = [dict(one) for one in metadata["info"]]
        smaller = [{name: tuple(shape) for name, shape in one.items()} for one in metadata.get("shapes", [{}] * len(info))]
        if len(smaller) != len(info):
            raise ValueError(f"shapes of {len(smaller)} tickets for {len(info)}")
    try:
        params, state = specs(task, x_spec)
    except Exception as error:  # every framework has its own kinds for an input that does not fit
        raise TicketFileError(f"{path} holds tickets of {metadata.get('task')}, not of {task.name}: {error}") from None
    may = jax.tree.leaves(masks.prunable(params, task.prunable))
    trees = [_shrunk(path, task, i, (params, state), shapes, x_spec) for i, shapes in enumerate(smaller)]
    tickets = tuple(_ticket(path, tensors, i, one, *trees[i], may) for i, one in enumerate(info))
    if tensors:
        raise TicketFileError(f"{path} holds {len(tensors)} tensors that {task.name} has no use for: {masks._some(sorted(tensors))}.")
    if not tickets:
        raise TicketFileError(f"{path} holds no tickets.")
    return TicketEnsemble(task, tickets, x_spec, plan)


def about(path: str | Path) -> dict[str, Any]:
    """What a ticket file says of itself. No weights are read, and nothing is verified: `load` does both.

    Args:
      path: what `TicketEnsemble.save` wrote.

    Returns:
      `"task"`, the name of the network; `"tickets"`, how many; `"plan"`, a `Plan` or None; `"sha256"`, of all that is in it.

    Raises:
      FileNotFoundError: there is no such file.
      TicketFileError: not a ticket file.
    """
    path = Path(path)
    metadata, _ = _read(path, with_tensors=False)
    with _as_metadata(path):
        plan = Plan.from_json(metadata["plan"]) if metadata["plan"] else None
        found = {"task": str(metadata["task"]), "tickets": len(metadata["info"]), "plan": plan, "sha256": str(metadata["sha256"])}
    return found


def _read(path: Path, with_tensors: bool) -> tuple[Any, dict[str, np.ndarray]]:
    """The metadata, whatever it may be, and the tensors by name."""
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise FileNotFoundError(f"there is no ticket file {path}.")
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = json.loads((file.metadata() or {})["jaxtickets"])
            names = file.keys() if with_tensors else ()
            return metadata, {name: file.get_tensor(name) for name in names}
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, OverflowError, MemoryError, RecursionError, AttributeError) as error:
        raise TicketFileError(f"{path} is not a ticket file, or is damaged: {error}.") from None


@contextlib.contextmanager
def _as_metadata(path: Path) -> Iterator[None]:
    """Whatever goes wrong in reading metadata is the file's fault."""
    try:
        yield
    except TicketFileError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
        raise TicketFileError(f"{path}: its metadata is not a ticket file's ({type(error).__name__}: {error}).") from None


def _ticket(
    path: Path, tensors: dict[str, np.ndarray], i: int, info: dict[str, Any], params: PyTree, state: PyTree, may: list[bool]
) -> Ticket:
    def take(name: str, dtype: Any, shape: tuple[int, ...]) -> np.ndarray:
        tensor = tensors.pop(f"{i}/{name}", None)
        if tensor is None:
            raise TicketFileError(f"{path}: member {i} has no {name!r}; these are tickets of another network.")
        if tensor.dtype != stored(dtype) or tensor.shape != shape:
            raise TicketFileError(
                f"{path}: {name!r} of member {i} is {tensor.dtype}{list(tensor.shape)}; the network needs {dtype}{list(shape)}."
            )
        return tensor.view(dtype)

    values, kept = [], []
    for name, leaf, prunable in zip(masks.leaf_paths(params), jax.tree.leaves(params), may, strict=True):
        if f"{i}/mask/{name}" not in tensors:
            values.append(take(f"params/{name}", leaf.dtype, leaf.shape))
            kept.append(np.ones((), bool))
            continue
        if not prunable:
            raise TicketFileError(f"{path}: member {i} masks {name!r}, which is not prunable in this task.")
        try:
            mask = masks.unpack(tensors.pop(f"{i}/mask/{name}"), leaf.shape)
        except masks.MaskError as error:
            raise TicketFileError(f"{path}: {name!r} of member {i}: {error}") from None
        whole = np.zeros(leaf.shape, leaf.dtype)
        whole[mask] = take(f"params/{name}", leaf.dtype, (int(np.count_nonzero(mask)),))
        values.append(whole)
        kept.append(mask)
    states = [
        take(f"state/{name}", leaf.dtype, leaf.shape) for name, leaf in zip(masks.leaf_paths(state), jax.tree.leaves(state), strict=True)
    ]
    tree = jax.tree.structure(params)
    return Ticket(
        jax.tree.unflatten(tree, values), jax.tree.unflatten(tree, kept), jax.tree.unflatten(jax.tree.structure(state), states), info
    )


def _shrunk(
    path: Path, task: Task, i: int, usual: tuple[PyTree, PyTree], shapes: dict[str, tuple[int, ...]], x_spec: PyTree
) -> tuple[PyTree, PyTree]:
    """The shapes and dtypes of member `i`: the task's, and those the file declares if they are smaller and the network runs."""
    if not shapes:
        return usual
    leaves = []
    for name, leaf in named(*usual):
        shape: tuple[int, ...] = shapes.get(name, tuple(leaf.shape))
        fits = len(shape) == len(leaf.shape) and all(
            isinstance(n, int) and 1 <= n <= most for n, most in zip(shape, leaf.shape, strict=True)
        )
        if not fits:  # a file must not make us allocate more than the task does
            raise TicketFileError(
                f"{path}: {name!r} of member {i} is declared {list(shape)}; the network needs {list(leaf.shape)}, or smaller if shrunk."
            )
        leaves.append(jax.ShapeDtypeStruct(shape, leaf.dtype))
    params, state = jax.tree.unflatten(jax.tree.structure(usual), leaves)
    try:
        outputs = [
            jax.eval_shape(lambda p, s, x: task.apply(p, s, x, False, None)[0], *trees, one_example(x_spec))
            for trees in (usual, (params, state))
        ]
        problem = "" if outputs[0] == outputs[1] else "its outputs have another shape."
    except Exception as error:  # every framework has its own kinds for params that do not fit
        problem = str(error)
    if problem:
        raise TicketFileError(f"{path}: {task.name} does not run with the shrunk params of member {i}: {problem}")
    return params, state
