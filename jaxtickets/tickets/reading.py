"""Reading ticket files."""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxtickets import masks
from jaxtickets.errors import TicketFileError
from jaxtickets.files import paths
from jaxtickets.masks import packing
from jaxtickets.messages.pytrees import some
from jaxtickets.messages.quoting import cut, shown, told
from jaxtickets.plan import Plan
from jaxtickets.task import Task
from jaxtickets.tickets.file_layout import (
    CODES,
    FORMAT,
    METADATA,
    digest,
    named,
    one_example,
    spec_from_json,
    specs,
    stored,
)
from jaxtickets.tickets.ticket import Ticket
from jaxtickets.tracing.precision import in_32_bits

PyTree = Any
# lists, objects and values of the tree of an input, and of a plan
_MOST_INPUTS, _MOST_PLAN = 2**12, 2**16


@in_32_bits
def read(path: Path, task: Task) -> tuple[tuple[Ticket, ...], PyTree, Plan | None]:
    """Tickets, the spec of their inputs and the plan of a ticket file; see `jaxtickets.load`."""
    with _opened(path) as (file, metadata):
        with _as_metadata(path):
            expected = metadata.pop("sha256")
            if metadata["format"] != FORMAT:
                raise TicketFileError(
                    f"{path} is of format {shown(metadata['format'])}; this version reads format"
                    f" {FORMAT}."
                )
            x_spec = spec_from_json(_few(metadata["x"], _MOST_INPUTS, "x"))
            plan = _plan(metadata)
            info = [dict(one) for one in metadata["info"]]
            smaller = [
                {name: tuple(shape) for name, shape in one.items()}
                for one in metadata.get("shapes", [{}] * len(info))
            ]
            if len(smaller) != len(info):
                raise ValueError(f"shapes of {len(smaller)} tickets for {len(info)}")
        try:
            params, state = specs(task, x_spec)
        except (
            Exception
        ) as error:  # every framework has its own kinds for an input that does not fit
            of = cut(str(metadata.get("task")), 100)
            raise TicketFileError(
                f"{path} holds tickets of {of}, not of {task.name}: {told(error)}"
            ) from None
        may = jax.tree.leaves(masks.prunable(params, task.prunable))
        # What is there is held against what the network needs before any of it is read.
        most = len(info) * (2 * len(jax.tree.leaves(params)) + len(jax.tree.leaves(state)))
        most += sum(len(_tables(params, state, shapes)) for shapes in smaller)
        sizes = _sizes(path, file, most)
        left = dict(sizes)
        trees = []
        for i, shapes in enumerate(smaller):
            own_params, own_state = _declared(path, task, i, (params, state), shapes, x_spec)
            trees.append((own_params, own_state))
            _check(path, left, i, own_params, own_state, may)
        if left:
            raise TicketFileError(
                f"{path} holds {len(left)} tensors that {task.name} has no use for:"
                f" {_some(sorted(left))}."
            )
        if not info:
            raise TicketFileError(f"{path} holds no tickets.")
        with _as_file(path):
            tensors = {name: file.get_tensor(name) for name in sizes}
    with _as_metadata(path):
        if digest(sizes, tensors.__getitem__, metadata) != expected:
            raise TicketFileError(f"{path} is damaged or was changed: its SHA-256 does not match.")
    tickets = tuple(_ticket(path, tensors, i, one, *trees[i]) for i, one in enumerate(info))
    return tickets, x_spec, plan


def about(path: str | Path) -> dict[str, Any]:
    """What a ticket file says of itself. No weights are read, and nothing is verified: `load` does
    both.

    Args:
      path: what `TicketEnsemble.save` wrote.

    Returns:
      `"task"`, the name of the network; `"tickets"`, how many; `"plan"`, a `Plan` or None;
      `"sha256"`, of all that is in it; `"made_by"`, which run wrote it, and which ticket of it, of
      a run's own files.

    Raises:
      FileNotFoundError: there is no such file.
      TicketFileError: not a ticket file.
    """
    path = paths.given(path)
    with _opened(path) as (_, metadata), _as_metadata(path):
        return {
            "task": str(metadata["task"]),
            "tickets": len(metadata["info"]),
            "plan": _plan(metadata),
            "sha256": str(metadata["sha256"]),
            "made_by": metadata.get("made_by"),
        }


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, Any]]:
    """The file, of which the library has checked that its header describes all of it and no more;
    and the metadata, whatever it may be.
    """
    from safetensors import safe_open

    if not os.path.isfile(path):
        raise FileNotFoundError(f"there is no ticket file {path}.")
    with path.open("rb") as file:
        file.read(1)
    with _as_file(path):
        opened = safe_open(path, framework="numpy")
    with opened as file:
        with _as_file(path):
            metadata = json.loads((file.metadata() or {})[METADATA])
        yield file, metadata


@contextlib.contextmanager
def _as_file(path: Path) -> Iterator[None]:
    """Whatever the library finds wrong is damage; but not what the system says, nor a lack of
    memory: those are left as they are.
    """
    from safetensors import SafetensorError

    try:
        yield
    except (
        SafetensorError,
        OSError,
        ValueError,
        KeyError,
        TypeError,
        OverflowError,
        RecursionError,
        AttributeError,
    ) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise TicketFileError(
            f"{path} is not a ticket file, or is damaged: {told(error)}."
        ) from None


def _sizes(path: Path, file: Any, most: int) -> dict[str, tuple[np.dtype[Any], tuple[int, ...]]]:
    """Dtype and shape of every tensor, of which the network needs at most so many."""
    names = file.keys()
    if len(names) > most:
        raise TicketFileError(
            f"{path} holds {len(names):,} tensors; the network needs at most {most:,}:"
            f" {_some(sorted(names))}."
        )
    sizes = {}
    for name in names:
        about = file.get_slice(name)
        if about.get_dtype() not in CODES:
            raise TicketFileError(
                f"{path}: {shown(name)} is of dtype {shown(about.get_dtype())}, which no ticket"
                " file has."
            )
        sizes[name] = CODES[about.get_dtype()], tuple(about.get_shape())
    return sizes


def _some(names: Sequence[str]) -> str:
    return some([cut(name, 100) for name in names[:9]], 8)


def _few(data: Any, most: int, what: str) -> Any:
    """The JSON, if it has at most so many lists, objects and values."""
    rest, count = [data], 0
    while rest:
        one = rest.pop()
        inner = (
            list(one.values()) if isinstance(one, dict) else one if isinstance(one, list) else []
        )
        count += 1 + len(inner)
        if count > 2 * most:
            raise ValueError(f"its {what} has more than {most:,} parts")
        rest += inner
    return data


def _plan(metadata: Any) -> Plan | None:
    return Plan.from_json(_few(metadata["plan"], _MOST_PLAN, "plan")) if metadata["plan"] else None


@contextlib.contextmanager
def _as_metadata(path: Path) -> Iterator[None]:
    """Whatever goes wrong in reading metadata is the file's fault."""
    try:
        yield
    except TicketFileError:
        raise
    except (
        KeyError,
        TypeError,
        ValueError,
        AttributeError,
        OverflowError,
        RecursionError,
    ) as error:
        raise TicketFileError(
            f"{path}: its metadata is not a ticket file's ({told(error)})."
        ) from None


def _check(
    path: Path, left: dict[str, Any], i: int, params: PyTree, state: PyTree, may: list[bool]
) -> None:
    """Take the tensors of member `i` from what is left, each of which must have the dtype and shape
    that the network needs.
    """

    def take(name: str, dtype: Any, shape: tuple[int, ...], most: bool = False) -> None:
        found = left.pop(f"{i}/{name}", None)
        if found is None:
            raise TicketFileError(
                f"{path}: member {i} has no {name!r}; these are tickets of another network."
            )
        fits = found[1] == shape or (
            most and len(found[1]) == 1 and found[1][0] <= math.prod(shape)
        )
        if found[0] != stored(dtype) or not fits:
            raise TicketFileError(
                f"{path}: {name!r} of member {i} is {found[0]}{list(found[1])}; the network needs"
                f" {dtype}{list(shape)}{', or fewer' if most else ''}."
            )

    for name, leaf, prunable in zip(
        masks.leaf_paths(params), jax.tree.leaves(params), may, strict=True
    ):
        masked = left.pop(f"{i}/mask/{name}", None)
        if masked is not None and not prunable:
            raise TicketFileError(
                f"{path}: member {i} masks {name!r}, which is not prunable in this task."
            )
        size = (math.prod(leaf.shape) + 7) // 8
        if masked is not None and masked != (np.uint8, (size,)):
            raise TicketFileError(
                f"{path}: {name!r} of member {i}: a packed mask of shape {list(leaf.shape)} is"
                f" {size} bytes; got {masked[0]}{list(masked[1])}."
            )
        take(f"params/{name}", leaf.dtype, leaf.shape, most=masked is not None)
    for name, leaf in zip(masks.leaf_paths(state), jax.tree.leaves(state), strict=True):
        take(f"state/{name}", leaf.dtype, leaf.shape)


def _ticket(
    path: Path,
    tensors: dict[str, np.ndarray],
    i: int,
    info: dict[str, Any],
    params: PyTree,
    state: PyTree,
) -> Ticket:
    """Member `i` from its tensors, whose dtypes and shapes were checked."""
    values, kept = [], []
    for name, leaf in zip(masks.leaf_paths(params), jax.tree.leaves(params), strict=True):
        given = tensors.pop(f"{i}/params/{name}").view(leaf.dtype)
        packed = tensors.pop(f"{i}/mask/{name}", None)
        if packed is None:
            values.append(given)
            kept.append(np.ones((), bool))
            continue
        try:
            mask = masks.unpack(packed, leaf.shape)
        except masks.MaskError as error:
            raise TicketFileError(f"{path}: {name!r} of member {i}: {error}") from None
        survivors = int(np.count_nonzero(mask))
        if len(given) != survivors:
            raise TicketFileError(
                f"{path}: 'params/{name}' of member {i} is {given.dtype}{list(given.shape)}; the"
                f" network needs {leaf.dtype}{[survivors]}."
            )
        whole = np.zeros(leaf.shape, leaf.dtype)
        whole[mask] = given
        values.append(whole)
        kept.append(mask)
    states = [
        tensors.pop(f"{i}/state/{name}").view(leaf.dtype)
        for name, leaf in zip(masks.leaf_paths(state), jax.tree.leaves(state), strict=True)
    ]
    tree = jax.tree.structure(params)
    ticket = Ticket(
        jax.tree.unflatten(tree, values),
        jax.tree.unflatten(tree, kept),
        jax.tree.unflatten(jax.tree.structure(state), states),
        info,
    )
    try:
        packing.check_packed(*ticket[:3])
    except masks.MaskError as error:
        raise TicketFileError(f"{path}: member {i}: {error}") from None
    return ticket


def _declared(
    path: Path,
    task: Task,
    i: int,
    usual: tuple[PyTree, PyTree],
    shapes: dict[str, tuple[int, ...]],
    x_spec: PyTree,
) -> tuple[PyTree, PyTree]:
    """The shapes and dtypes of member `i`: the task's, and those the file declares if they are
    smaller, or packed, and the network runs.
    """
    if not shapes:
        return usual
    leaves, tables = [], _tables(*usual, shapes)
    for name, leaf in named(*usual):
        shape: tuple[int, ...] = shapes.get(name, tuple(leaf.shape))
        whole = shape
        if (kernel := name.removeprefix("params/")) in tables and _is_packed(shape, tables[kernel]):
            whole = packing.whole_shape(shape, tables[kernel])
        fits = len(whole) == len(leaf.shape) and all(
            _is_size(n) and n <= most for n, most in zip(whole, leaf.shape, strict=True)
        )
        if not fits:  # a file must not make us allocate more than the task does
            raise TicketFileError(
                f"{path}: {name!r} of member {i} is declared {shown(list(shape))}; "
                f"the network needs {list(leaf.shape)}, or smaller if shrunk or packed."
            )
        leaves.append(jax.ShapeDtypeStruct(shape, leaf.dtype))
    params, state = jax.tree.unflatten(jax.tree.structure(usual), leaves)
    state = packing.with_tables(
        state, {kernel: jax.ShapeDtypeStruct(shape, bool) for kernel, shape in tables.items()}
    )
    try:
        outputs = [
            jax.eval_shape(
                lambda p, s, x: task.apply(p, s, x, False, None)[0], *trees, one_example(x_spec)
            )
            for trees in (usual, (params, state))
        ]
        problem = "" if outputs[0] == outputs[1] else "its outputs have another shape."
    except Exception as error:  # every framework has its own kinds for params that do not fit
        problem = told(error)
    if problem:
        raise TicketFileError(
            f"{path}: {task.name} does not run with the {'packed' if tables else 'shrunk'} params"
            f" of member {i}: {problem}"
        )
    return params, state


def _tables(
    params: PyTree, state: PyTree, shapes: dict[str, tuple[int, ...]]
) -> dict[str, tuple[int, ...]]:
    """The shapes that a file declares of tables of packed kernels, by the kernel's path."""
    found = {}
    for kernel in masks.leaf_paths(params) if isinstance(state, dict) else ():
        name = f"state/{packing.COLLECTION}/{kernel.removesuffix(packing.KERNEL)}{packing.TABLE}"
        if name in shapes:
            found[kernel] = shapes[name]
    return found


def _is_packed(kernel: tuple[int, ...], table: tuple[int, ...]) -> bool:
    """Whether those can be shapes of a packed kernel and its table, that takes no more than all."""
    if (len(kernel), len(table)) != (4, 2) or not all(map(_is_size, (*kernel, *table))):
        return False
    return kernel[0] * kernel[1] <= table[0] * table[1]


def _is_size(n: Any) -> bool:
    return isinstance(n, int) and n >= 1
