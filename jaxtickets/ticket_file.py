"""Ticket files: one safetensors file per ensemble. Nothing in it is executed, and nothing in it is believed.

For every member and leaf of the params: the surviving values, row-major, and for prunable leaves the mask, eight weights
a byte. Batch statistics are stored whole. The metadata is one JSON text under the key "jaxtickets": format, the tree of
the input, plan, info, of shrunk tickets the shapes that are not the task's, and a SHA-256 over all tensors and the rest of
the metadata. The same ensemble gives the same bytes.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, overload

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
    """Write `ensemble` to `path`, through a temporary file beside it; holds one ticket at a time."""
    about: dict[str, Any] = {
        "format": FORMAT,
        "task": ensemble.task.name,
        "x": _spec_to_json(ensemble.x_spec),
        "plan": ensemble.plan.to_json() if ensemble.plan else None,
        "info": [],
    }
    sizes: dict[str, tuple[np.dtype[Any], tuple[int, ...]]] = {}
    shapes = []
    usual = {name: leaf.shape for name, leaf in _named(*_specs(ensemble.task, ensemble.x_spec))}
    for i, ticket in enumerate(ensemble.tickets):
        about["info"].append(ticket.info)
        shapes.append(_own_shapes(ticket, usual))
        sizes |= {name: (tensor.dtype, tensor.shape) for name, tensor in _tensors(i, ticket).items()}
    if any(shapes):
        about["shapes"] = shapes
    of = _by_ticket(ensemble)
    about["sha256"] = _digest(sizes, lambda name: of(name)[name], about)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("wb") as file:
        # Wide numbers first, as the format's own writer puts them, so that all are aligned.
        names = sorted(sizes, key=lambda name: (-sizes[name][0].itemsize, *_number_first(name)))
        file.write(_header({name: sizes[name] for name in names}, about))
        for name in names:
            file.write(np.ascontiguousarray(of(name)[name]).reshape(-1).view(np.uint8).data)
        file.flush()
        os.fsync(file.fileno())  # a name that outlives a power cut should have its bytes
    os.replace(temporary, path)


def _number_first(name: str) -> tuple[int, str]:
    """By ticket, then by name."""
    number, _, rest = name.partition("/")
    return int(number), rest


def _by_ticket(ensemble: TicketEnsemble) -> Callable[[str], dict[str, np.ndarray]]:
    """The tensors of the ticket that a tensor's name belongs to; the last one asked for is kept."""
    held: tuple[int, dict[str, np.ndarray]] = (-1, {})

    def of(name: str) -> dict[str, np.ndarray]:
        nonlocal held
        i = int(name.partition("/")[0])
        if held[0] != i:
            held = (i, _tensors(i, ensemble.tickets[i]))
        return held[1]

    return of


def _tensors(i: int, ticket: Ticket) -> dict[str, np.ndarray]:
    """What is stored of member `i`."""
    params, mask, state = jax.device_get((ticket.params, ticket.mask, ticket.model_state))
    tensors: dict[str, np.ndarray] = {}
    for name, values, kept in zip(masks.leaf_paths(params), jax.tree.leaves(params), jax.tree.leaves(mask), strict=True):
        values = np.asarray(values)
        if kept.ndim:
            tensors[f"{i}/mask/{name}"] = masks.pack(kept)
            values = values[kept]
        tensors[f"{i}/params/{name}"] = np.ascontiguousarray(values).view(_stored(values.dtype))
    for name, leaf in zip(masks.leaf_paths(state), jax.tree.leaves(state), strict=True):
        # (ascontiguousarray would give a number an axis)
        tensors[f"{i}/state/{name}"] = np.array(leaf, order="C").view(_stored(leaf.dtype))
    return tensors


def _header(sizes: dict[str, tuple[np.dtype[Any], tuple[int, ...]]], about: dict[str, Any]) -> bytes:
    """The beginning of a safetensors file: the length of a JSON text, and the text, filled up with spaces to eight bytes.

    Written here and not by the library, which wants all tensors in memory.
    """
    # One metadata key only: safetensors does not order them, and equal ensembles are to give equal bytes.
    header: dict[str, Any] = {"__metadata__": {"jaxtickets": json.dumps(about, sort_keys=True)}}
    at = 0
    for name, (dtype, shape) in sizes.items():
        end = at + dtype.itemsize * int(np.prod(shape, dtype=np.int64))
        header[name] = {"dtype": _DTYPES[dtype.name], "shape": list(shape), "data_offsets": [at, end]}
        at = end
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


_DTYPES = {"float64": "F64", "float32": "F32", "float16": "F16", "bool": "BOOL"} | {
    f"{kind}int{bits}": f"{letter}{bits}" for kind, letter in (("", "I"), ("u", "U")) for bits in (8, 16, 32, 64)
}


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
        sizes = {name: (tensor.dtype, tensor.shape) for name, tensor in tensors.items()}
        if _digest(sizes, tensors.__getitem__, about) != expected:
            raise TicketFileError(f"{path} is damaged or was changed: its SHA-256 does not match.")
        x_spec = _spec_from_json(about["x"])
        plan = Plan.from_json(about["plan"]) if about["plan"] else None
        info = [dict(one) for one in about["info"]]
        smaller = [{name: tuple(shape) for name, shape in one.items()} for one in about.get("shapes", [{}] * len(info))]
        if len(smaller) != len(info):
            raise ValueError(f"shapes of {len(smaller)} tickets for {len(info)}")
    except TicketFileError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
        raise TicketFileError(f"{path}: its metadata is not a ticket file's ({type(error).__name__}: {error}).") from None
    try:
        params, state = _specs(task, x_spec)
    except Exception as error:  # every framework has its own kinds for an input that does not fit
        raise TicketFileError(f"{path} holds tickets of {about.get('task')}, not of {task.name}: {error}") from None
    may = jax.tree.leaves(masks.prunable(params, task.prunable))
    trees = [_shrunk(path, task, i, (params, state), shapes, x_spec) for i, shapes in enumerate(smaller)]
    tickets = tuple(_ticket(path, tensors, i, one, *trees[i], may) for i, one in enumerate(info))
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


def _one_example(x_spec: PyTree) -> PyTree:
    return jax.tree.map(lambda s: jax.ShapeDtypeStruct((1, *s.shape), s.dtype), x_spec)


def _specs(task: Task, x_spec: PyTree) -> tuple[PyTree, PyTree]:
    """Shapes and dtypes of the task's params and model state."""
    leaves, tree = jax.tree.flatten(x_spec)
    return _specs_of(task, tuple(leaves), tree)


@functools.lru_cache(maxsize=16)  # tracing a deep network takes a second, and tickets are read one by one
def _specs_of(task: Task, leaves: tuple[Any, ...], tree: Any) -> tuple[PyTree, PyTree]:
    return jax.eval_shape(task.init, jax.random.key(0), _one_example(jax.tree.unflatten(tree, leaves)))


def _named(params: PyTree, state: PyTree) -> list[tuple[str, Any]]:
    trees = zip(("params", "state"), (params, state))
    return [(f"{kind}/{name}", leaf) for kind, tree in trees for name, leaf in zip(masks.leaf_paths(tree), jax.tree.leaves(tree))]


def _own_shapes(ticket: Ticket, usual: dict[str, tuple[int, ...]]) -> dict[str, list[int]]:
    """The shapes of a shrunk ticket's leaves, where they are not the usual ones."""
    leaves = _named(ticket.params, ticket.model_state)
    return {name: list(np.shape(leaf)) for name, leaf in leaves if np.shape(leaf) != usual.get(name)}


def _shrunk(
    path: Path, task: Task, i: int, usual: tuple[PyTree, PyTree], shapes: dict[str, tuple[int, ...]], x_spec: PyTree
) -> tuple[PyTree, PyTree]:
    """The shapes and dtypes of member `i`: the task's, and those the file declares if they are smaller and the network runs."""
    if not shapes:
        return usual
    leaves = []
    for name, leaf in _named(*usual):
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
            jax.eval_shape(lambda p, s, x: task.apply(p, s, x, False, None)[0], *trees, _one_example(x_spec))
            for trees in (usual, (params, state))
        ]
        problem = "" if outputs[0] == outputs[1] else "its outputs have another shape."
    except Exception as error:  # every framework has its own kinds for params that do not fit
        problem = str(error)
    if problem:
        raise TicketFileError(f"{path}: {task.name} does not run with the shrunk params of member {i}: {problem}")
    return params, state


def _stored(dtype: Any) -> np.dtype[Any]:
    """bfloat16 and the like, which safetensors does not give to numpy, are stored as their bits."""
    dtype = np.dtype(dtype)
    return np.dtype(f"uint{8 * dtype.itemsize}") if dtype.kind == "V" else dtype


def _digest(sizes: dict[str, tuple[np.dtype[Any], tuple[int, ...]]], tensor: Callable[[str], np.ndarray], about: dict[str, Any]) -> str:
    """SHA-256 of the metadata and of every tensor, asked for one by one in the order of their names."""
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    for name in sorted(sizes):
        dtype, shape = sizes[name]
        digest.update(f"{name}{dtype}{shape}".encode())
        digest.update(np.ascontiguousarray(tensor(name)).reshape(-1).view(np.uint8).data)
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
