"""Ticket files: one safetensors file per ensemble. Nothing in it is executed, and nothing in it is believed.

For every member and leaf of the params: the surviving values, row-major, and for prunable leaves the mask, eight weights
a byte. Batch statistics are stored whole. The metadata is one JSON text under the key "jaxtickets": format, the tree of
the input, plan, info, and a SHA-256 over all tensors and the rest of the metadata. The same ensemble gives the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxtickets import masks
from jaxtickets.ensemble import Ticket, TicketEnsemble
from jaxtickets.errors import TicketFileError
from jaxtickets.plan import Plan
from jaxtickets.task import Task

PyTree = Any
FORMAT = 1


def write(ensemble: TicketEnsemble, path: Path) -> None:
    """Write `ensemble` to `path`, through a temporary file beside it."""
    from safetensors.numpy import save

    tensors: dict[str, np.ndarray] = {}
    for i, ticket in enumerate(jax.device_get(ensemble.tickets)):
        leaves = zip(masks.leaf_paths(ticket.params), jax.tree.leaves(ticket.params), jax.tree.leaves(ticket.mask), strict=True)
        for name, values, mask in leaves:
            values = np.asarray(values)
            if mask.ndim:
                tensors[f"{i}/mask/{name}"] = masks.pack(mask)
                values = values[mask]
            tensors[f"{i}/params/{name}"] = np.ascontiguousarray(values).view(_stored(values.dtype))
        for name, leaf in zip(masks.leaf_paths(ticket.model_state), jax.tree.leaves(ticket.model_state), strict=True):
            # (ascontiguousarray would give a number an axis)
            tensors[f"{i}/state/{name}"] = np.array(leaf, order="C").view(_stored(leaf.dtype))
    about = {
        "format": FORMAT,
        "task": ensemble.task.name,
        "x": _spec_to_json(ensemble.x_spec),
        "plan": ensemble.plan.to_json() if ensemble.plan else None,
        "info": [ticket.info for ticket in ensemble.tickets],
    }
    about["sha256"] = _digest(tensors, about)
    # One metadata key only: safetensors does not order them, and equal ensembles are to give equal bytes.
    data = save(tensors, metadata={"jaxtickets": json.dumps(about, sort_keys=True)})
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())  # a name that outlives a power cut should have its bytes
    os.replace(temporary, path)


def load(path: str | Path, task: Task) -> TicketEnsemble:
    """The ensemble in a ticket file.

    Args:
      path: what `TicketEnsemble.save` wrote.
      task: the network that they are tickets of; its params must have the file's tree, shapes and dtypes.

    Returns:
      A `TicketEnsemble` of numpy arrays.

    Raises:
      FileNotFoundError: there is no such file.
      TicketFileError: not a ticket file, damaged, tampered with, or of another network; says which leaf.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no ticket file {path}.")
    try:
        with safe_open(path, framework="numpy") as file:
            about = json.loads((file.metadata() or {})["jaxtickets"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no __iter__)
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, OverflowError, MemoryError, RecursionError, AttributeError) as error:
        raise TicketFileError(f"{path} is not a ticket file, or is damaged: {error}.") from None
    try:
        expected = about.pop("sha256")
        if about["format"] != FORMAT:
            raise TicketFileError(f"{path} is of format {about['format']!r}; this version reads format {FORMAT}.")
        if _digest(tensors, about) != expected:
            raise TicketFileError(f"{path} is damaged or was changed: its SHA-256 does not match.")
        x_spec = _spec_from_json(about["x"])
        plan = Plan.from_json(about["plan"]) if about["plan"] else None
        info = [dict(one) for one in about["info"]]
    except TicketFileError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
        raise TicketFileError(f"{path}: its metadata is not a ticket file's ({type(error).__name__}: {error}).") from None
    one_example = jax.tree.map(lambda s: jax.ShapeDtypeStruct((1, *s.shape), s.dtype), x_spec)
    try:
        params, state = jax.eval_shape(task.init, jax.random.key(0), one_example)
    except Exception as error:  # every framework has its own kinds for an input that does not fit
        raise TicketFileError(f"{path} holds tickets of {about.get('task')}, not of {task.name}: {error}") from None
    may = jax.tree.leaves(masks.prunable(params, task.prunable))
    tickets = tuple(_ticket(path, tensors, i, one, params, state, may) for i, one in enumerate(info))
    if tensors:
        raise TicketFileError(f"{path} holds {len(tensors)} tensors that {task.name} has no use for: {masks._some(sorted(tensors))}.")
    if not tickets:
        raise TicketFileError(f"{path} holds no tickets.")
    return TicketEnsemble(task, tickets, x_spec, plan)


def _ticket(
    path: Path, tensors: dict[str, np.ndarray], i: int, info: dict[str, Any], params: PyTree, state: PyTree, may: list[bool]
) -> Ticket:
    def take(name: str, dtype: Any, shape: tuple[int, ...]) -> np.ndarray:
        tensor = tensors.pop(f"{i}/{name}", None)
        if tensor is None:
            raise TicketFileError(f"{path}: member {i} has no {name!r}; these are tickets of another network.")
        if tensor.dtype != _stored(dtype) or tensor.shape != shape:
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


def _stored(dtype: Any) -> np.dtype[Any]:
    """bfloat16 and the like, which safetensors does not give to numpy, are stored as their bits."""
    dtype = np.dtype(dtype)
    return np.dtype(f"uint{8 * dtype.itemsize}") if dtype.kind == "V" else dtype


def _digest(tensors: dict[str, np.ndarray], about: dict[str, Any]) -> str:
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    for name in sorted(tensors):
        array = np.ascontiguousarray(tensors[name])
        digest.update(f"{name}{array.dtype}{array.shape}".encode())
        digest.update(array.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def _spec_to_json(spec: PyTree) -> Any:
    if isinstance(spec, dict):
        return {"tree": {name: _spec_to_json(one) for name, one in spec.items()}}
    if isinstance(spec, list | tuple):
        return {"list" if isinstance(spec, list) else "tuple": [_spec_to_json(one) for one in spec]}
    return {"shape": list(spec.shape), "dtype": str(spec.dtype)}


def _spec_from_json(data: Any) -> PyTree:
    if "tree" in data:
        return {name: _spec_from_json(one) for name, one in data["tree"].items()}
    if "list" in data:
        return [_spec_from_json(one) for one in data["list"]]
    if "tuple" in data:
        return tuple(_spec_from_json(one) for one in data["tuple"])
    shape, dtype = tuple(data["shape"]), jnp.dtype(data["dtype"])
    if not all(isinstance(n, int) and n >= 0 for n in shape) or not (jnp.issubdtype(dtype, jnp.number) or dtype.kind == "b"):
        raise ValueError(f"x of shape {list(shape)} and dtype {dtype}")
    return jax.ShapeDtypeStruct(shape, dtype)
