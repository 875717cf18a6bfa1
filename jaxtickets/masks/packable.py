"""Which layers of a network can run packed (`jaxtickets.masks.packing`), and how small they get."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import numpy as np

from jaxtickets.masks import packing
from jaxtickets.masks.packing import Packing
from jaxtickets.masks.rules import Rules, prunable
from jaxtickets.masks.structure import Blocks
from jaxtickets.messages.pytrees import leaf_paths

PyTree = Any
Shapes = dict[str, tuple[int, int]]
Apply = Callable[..., tuple[PyTree, PyTree]]


def packable(
    apply: Apply,
    params: PyTree,
    model_state: PyTree,
    x_spec: PyTree,
    rules: Rules,
    structure: Blocks,
) -> dict[str, str]:
    """Why each dense layer's kernel cannot be packed, by its path; "" where it can.

    Shapes are looked at, and the network is traced with packed kernels; nothing is computed.

    Args:
      apply: `Task.apply`.
      params: of one network, or their shapes. Packed kernels count as whole.
      model_state: likewise.
      x_spec: shape and dtype of one example.
      rules: which leaves a mask may cover.
      structure: the blocks.
    """
    params, model_state = packing.unpacked_shapes(params, model_state)
    may = jax.tree.leaves(prunable(params, rules))
    each = zip(leaf_paths(params), jax.tree.leaves(params), may, strict=True)
    matrices = {path: tuple(leaf.shape) for path, leaf, ok in each if ok and len(leaf.shape) == 2}
    why = {path: _no_blocks(path, shape, structure) for path, shape in matrices.items()}
    fits = [path for path, reason in why.items() if not reason]
    network = (apply, params, model_state, x_spec, structure)
    if not isinstance(model_state, dict):
        alone = "only Linen modules run packed layers"
        return {path: reason or alone for path, reason in why.items()}
    # All at once; only where that fails, layer by layer.
    if fits and _problem(*network, fits):
        why |= {path: _problem(*network, [path]) for path in fits}
    return why


def packings(
    masks: Sequence[PyTree], paths: Iterable[str], structure: Blocks, at_most: float
) -> tuple[list[Packing], dict[str, str]]:
    """How networks that keep one shape are packed, and why other layers are not.

    Args:
      masks: of each network, with whole kernels.
      paths: kernels that can be packed.
      structure: the blocks.
      at_most: the share of a kernel that its packed form may be.
    """
    names = leaf_paths(masks[0])
    leaves = [dict(zip(names, jax.tree.leaves(mask), strict=True)) for mask in masks]
    tables: list[dict[str, np.ndarray]] = [{} for _ in masks]
    shapes: Shapes = {}
    why: dict[str, str] = {}
    for path in paths:
        own = [leaf[path] for leaf in leaves]
        if not all(mask.ndim for mask in own):
            why[path] = "nothing is pruned"
            continue
        found = [packing.table_of(mask, structure.rows, structure.columns) for mask in own]
        count, length = packing.fewest([table.sum(0) for table in found])
        if count * length > at_most * found[0].size:
            share = count * length / found[0].size
            why[path] = f"it would be {share:.0%} of itself, beyond {at_most:.0%}"
            continue
        shapes[path] = count, length
        for table, one in zip(found, tables, strict=True):
            one[path] = table
    return [Packing(names, one, shapes) for one in tables], why


def _no_blocks(path: str, shape: tuple[int, ...], structure: Blocks) -> str:
    inputs, outputs = shape
    if path.rpartition("/")[2] != packing.KERNEL:
        return "only Linen's dense layers, of a kernel [inputs, outputs], run packed"
    if inputs % structure.rows or outputs % structure.columns:
        return f"{inputs} x {outputs} weights do not divide into {structure}"
    return ""


def _problem(
    apply: Apply,
    params: PyTree,
    model_state: PyTree,
    x_spec: PyTree,
    structure: Blocks,
    paths: list[str],
) -> str:
    """What goes wrong where those kernels are one strip of one block; "" if nothing."""
    rows, columns = structure.rows, structure.columns
    leaves, tree = jax.tree.flatten(params)
    tables, packed = {}, []
    for path, leaf in zip(leaf_paths(params), leaves, strict=True):
        if path in paths:
            inputs, outputs = leaf.shape
            tables[path] = jax.ShapeDtypeStruct((inputs // rows, outputs // columns), bool)
            leaf = jax.ShapeDtypeStruct((1, 1, rows, columns), leaf.dtype)
        packed.append(leaf)
    x = jax.tree.map(lambda s: jax.ShapeDtypeStruct((1, *s.shape), s.dtype), x_spec)

    def outputs_of(params: PyTree, state: PyTree) -> PyTree:
        run = lambda p, s, x: apply(p, s, x, False, None)[0]  # noqa: E731
        return jax.tree.map(np.shape, jax.eval_shape(run, params, state, x))

    try:
        small = outputs_of(tree.unflatten(packed), packing.with_tables(model_state, tables))
    except Exception as error:  # every framework has its own kinds for params that do not fit
        return f"its layer does not run packed ({str(error).split(chr(10))[0]})"
    return "" if small == outputs_of(params, model_state) else "its outputs get another shape"
