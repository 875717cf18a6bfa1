"""What writing and reading ticket files agree on: names, dtypes and shapes of what is stored, and
its digest.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxtickets import masks
from jaxtickets.messages.quoting import shown
from jaxtickets.task import Task
from jaxtickets.tracing.precision import in_32_bits

PyTree = Any
FORMAT = 1
METADATA = "jaxtickets"
"""Under which name of a safetensors file a ticket file's metadata is."""

DTYPES = {"float64": "F64", "float32": "F32", "float16": "F16", "bool": "BOOL"} | {
    f"{kind}int{bits}": f"{letter}{bits}"
    for kind, letter in (("", "I"), ("u", "U"))
    for bits in (8, 16, 32, 64)
}
"""What the format calls the dtypes that are stored."""

CODES = {code: np.dtype(name) for name, code in DTYPES.items()}
"""And back."""

_MOST_AXES = 32


def one_example(x_spec: PyTree) -> PyTree:
    """A batch of one."""
    return jax.tree.map(lambda s: jax.ShapeDtypeStruct((1, *s.shape), s.dtype), x_spec)


def specs(task: Task, x_spec: PyTree) -> tuple[PyTree, PyTree]:
    """Shapes and dtypes of the task's params and model state."""
    leaves, tree = jax.tree.flatten(x_spec)
    return _specs_of(task, tuple(leaves), tree)


# tracing a deep network takes a second, and tickets are read one by one
@functools.lru_cache(maxsize=16)
@in_32_bits
def _specs_of(task: Task, leaves: tuple[Any, ...], tree: Any) -> tuple[PyTree, PyTree]:
    return jax.eval_shape(
        task.init, jax.random.key(0), one_example(jax.tree.unflatten(tree, leaves))
    )


def named(params: PyTree, state: PyTree) -> list[tuple[str, Any]]:
    """The leaves of both, by what a file calls them."""
    trees = zip(("params", "state"), (params, state))
    return [
        (f"{kind}/{name}", leaf)
        for kind, tree in trees
        for name, leaf in zip(masks.leaf_paths(tree), jax.tree.leaves(tree))
    ]


def stored(dtype: Any) -> np.dtype[Any]:
    """bfloat16 and the like, which safetensors does not give to numpy, are stored as their bits."""
    dtype = np.dtype(dtype)
    return np.dtype(f"uint{8 * dtype.itemsize}") if dtype.kind == "V" else dtype


def digest(
    sizes: dict[str, tuple[np.dtype[Any], tuple[int, ...]]],
    tensor: Callable[[str], np.ndarray],
    about: dict[str, Any],
) -> str:
    """SHA-256 of the metadata and of every tensor, asked for one by one in the order of their
    names.
    """
    found = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    for name in sorted(sizes):
        dtype, shape = sizes[name]
        found.update(f"{name}{dtype}{shape}".encode())
        found.update(np.ascontiguousarray(tensor(name)).reshape(-1).view(np.uint8).data)
    return found.hexdigest()


def header(
    sizes: dict[str, tuple[np.dtype[Any], tuple[int, ...]]], key: str, about: dict[str, Any]
) -> bytes:
    """The beginning of a safetensors file: the length of a JSON text, and the text, filled up with
    spaces to eight bytes; `about` is the metadata `key`.

    Written here and not by the library, which wants all tensors in memory.
    """
    # One metadata key only: safetensors does not order them, and equal ensembles are to give equal
    # bytes.
    described: dict[str, Any] = {"__metadata__": {key: json.dumps(about, sort_keys=True)}}
    at = 0
    for name, (dtype, shape) in sizes.items():
        end = at + dtype.itemsize * int(np.prod(shape, dtype=np.int64))
        described[name] = {
            "dtype": DTYPES[dtype.name],
            "shape": list(shape),
            "data_offsets": [at, end],
        }
        at = end
    text = json.dumps(described, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def spec_to_json(spec: PyTree) -> Any:
    """The tree of an input as JSON."""
    if isinstance(spec, dict):
        return {"tree": {name: spec_to_json(one) for name, one in spec.items()}}
    if isinstance(spec, list | tuple):
        return {"list" if isinstance(spec, list) else "tuple": [spec_to_json(one) for one in spec]}
    return {"shape": list(spec.shape), "dtype": str(spec.dtype)}


def spec_from_json(data: Any) -> PyTree:
    """The tree of an input from JSON, which may be anything.

    Raises:
      KeyError, TypeError, ValueError: it is something else.
    """
    if "tree" in data:
        return {name: spec_from_json(one) for name, one in data["tree"].items()}
    if "list" in data:
        return [spec_from_json(one) for one in data["list"]]
    if "tuple" in data:
        return tuple(spec_from_json(one) for one in data["tuple"])
    shape, dtype = tuple(data["shape"]), jnp.dtype(data["dtype"])
    fits = len(shape) <= _MOST_AXES and all(isinstance(n, int) and 0 <= n < 2**63 for n in shape)
    if not fits or not (jnp.issubdtype(dtype, jnp.number) or dtype.kind == "b"):
        raise ValueError(f"x of shape {shown(list(shape))} and dtype {dtype}")
    return jax.ShapeDtypeStruct(shape, dtype)
