"""Masks: which weights a sparse subnetwork has.

A mask has exactly the tree of the params that it masks. A *prunable* leaf is a bool array of the
leaf's shape, True where the weight exists. A *dense* leaf is marked by one 0-d `True`, which
broadcasts and costs one byte however large the leaf is. There are no `None` leaves. Functions here
are written for one ticket; `jax.vmap` makes them work on many.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxtickets.errors import MaskError
from jaxtickets.masks.rules import KERNELS, Rules, prunable
from jaxtickets.messages.pytrees import describe_trees, some
from jaxtickets.messages.pytrees import leaf_paths as leaf_paths

PyTree = Any


def dense(params: PyTree) -> PyTree:
    """The mask of a network that is not sparse: every leaf marked dense."""
    return jax.tree.map(lambda _: jnp.ones((), bool), params)


def full(params: PyTree, rules: Rules = KERNELS) -> PyTree:
    """A mask that keeps every weight but can lose them: all True on prunable leaves."""
    return jax.tree.map(
        lambda p, may: jnp.ones(p.shape if may else (), bool), params, prunable(params, rules)
    )


def apply(mask: PyTree, params: PyTree) -> PyTree:
    """`params` with every pruned weight exactly 0 (a NaN too: selected, not multiplied).

    >>> apply({"w": jnp.array([True, False])}, {"w": jnp.array([3.0, jnp.nan])})["w"].tolist()
    [3.0, 0.0]

    Raises:
      MaskError: trees or shapes that do not go together.
    """

    def leaf(m: jax.Array, p: jax.Array) -> jax.Array:
        if m.dtype != bool or m.shape not in ((), jnp.shape(p)):
            raise ValueError(m)
        return p if m.ndim == 0 else jnp.where(m, p, jnp.zeros((), p.dtype))

    try:
        return jax.tree.map(leaf, mask, params)
    except (ValueError, TypeError, AttributeError) as error:
        if _are_masks(params) and not _are_masks(mask):
            raise MaskError(
                "apply takes the mask first: jaxtickets.masks.apply(mask, params)."
            ) from None
        check(mask, params)  # says what is wrong, if it is the mask
        raise error


def complement(mask: PyTree) -> PyTree:
    """The weights that `mask` prunes, and no others; dense leaves stay dense."""
    _of_masks("complement", mask)
    return jax.tree.map(lambda m: m if m.ndim == 0 else ~m, mask)


def counts(mask: PyTree) -> PyTree:
    """Surviving weights per prunable leaf, int32; 0 for dense leaves."""
    _of_masks("counts", mask)
    return jax.tree.map(
        lambda m: jnp.sum(m, dtype=jnp.int32) if m.ndim else jnp.zeros((), jnp.int32), mask
    )


def size(mask: PyTree) -> int:
    """How many weights the mask covers: all elements of its prunable leaves."""
    _of_masks("size", mask)
    return sum(m.size for m in jax.tree.leaves(mask) if m.ndim)


def count(mask: PyTree) -> int:
    """How many of them survive: an exact integer, whatever the size of the network."""
    _of_masks("count", mask)
    return sum(int(np.count_nonzero(m)) for m in jax.device_get(jax.tree.leaves(mask)) if m.ndim)


def density(mask: PyTree, sizes: Sequence[int] | None = None) -> float:
    """Surviving share of the prunable weights, in (0, 1]; 1.0 where nothing is prunable.

    Args:
      mask: the mask.
      sizes: how many weights each leaf of the params had before units were cut out; None for as
        many as it has.

    >>> density({"w": jnp.array([True, False, False, True]), "bias": jnp.ones((), bool)})
    0.5
    """
    whole = size(mask)
    if sizes is not None:
        whole = sum(n for n, m in zip(sizes, jax.tree.leaves(mask), strict=True) if m.ndim)
    return count(mask) / whole if whole else 1.0


def iou(a: PyTree, b: PyTree) -> float:
    """Overlap of two masks: intersection over union of their *surviving* weights; nan where both
    are empty or dense.

    >>> iou({"w": jnp.array([True, True, False])}, {"w": jnp.array([False, True, False])})
    0.5
    """
    _of_masks("iou", a, b)
    pairs = [
        (x, y) for x, y in zip(*map(jax.tree.leaves, jax.device_get((a, b))), strict=True) if x.ndim
    ]
    union = sum(int(np.count_nonzero(x | y)) for x, y in pairs)
    return sum(int(np.count_nonzero(x & y)) for x, y in pairs) / union if union else float("nan")


def check(mask: PyTree, params: PyTree) -> None:
    """Raise `MaskError` unless `mask` is a mask of `params`: same tree, bool, each leaf 0-d or of
    its param's shape.
    """
    if jax.tree.structure(mask) != jax.tree.structure(params):
        raise MaskError(
            f"the mask's tree is not the params' tree: {some(leaf_paths(mask))} against"
            f" {some(leaf_paths(params))}. {describe_trees(mask, params)}"
        )
    for path, m, p in zip(
        leaf_paths(params), jax.tree.leaves(mask), jax.tree.leaves(params), strict=True
    ):
        if not (hasattr(m, "dtype") and hasattr(m, "shape")):
            raise MaskError(
                f"the mask of {path!r} is {m!r}; it must be a bool array, of shape"
                f" {list(jnp.shape(p))} or [] for a dense leaf."
            )
        if m.dtype != bool or m.shape not in ((), jnp.shape(p)):
            raise MaskError(
                f"the mask of {path!r} is {m.dtype}{list(m.shape)}; it must be bool, of shape"
                f" {list(jnp.shape(p))} or [] for a dense leaf."
            )


def _are_masks(tree: PyTree) -> bool:
    """Whether all leaves are bool arrays."""
    return all(hasattr(m, "dtype") and m.dtype == bool for m in jax.tree.leaves(tree))


def _of_masks(name: str, *trees: PyTree) -> None:
    """Raise `MaskError` unless these are masks of one tree."""
    for tree in trees:
        for path, m in zip(leaf_paths(tree), jax.tree.leaves(tree), strict=True):
            if not (hasattr(m, "dtype") and m.dtype == bool):
                raise MaskError(
                    f"{name} takes masks, trees of bool arrays; {path or 'it'!r} is"
                    f" {getattr(m, 'dtype', repr(m))}."
                )
        if jax.tree.structure(tree) != jax.tree.structure(trees[0]):
            raise MaskError(
                f"{name} takes masks of the same tree. {describe_trees(tree, trees[0])}"
            )


def pack(mask: jax.Array) -> np.ndarray:
    """Eight weights a byte, the first in the highest bit: uint8 [ceil(N / 8)], spare bits 0.

    >>> pack(jnp.array([True, False, True])).tolist()
    [160]
    """
    _of_masks("pack", mask)
    return np.packbits(np.asarray(mask).reshape(-1))


def unpack(packed: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The inverse of `pack`.

    Raises:
      MaskError: not exactly the bytes that `shape` needs, or a spare bit that is set.
    """
    if not isinstance(shape, Sequence) or not all(
        isinstance(n, int | np.integer) and n >= 0 for n in shape
    ):
        raise MaskError(f"a shape is a tuple of whole numbers, at least 0; got {shape!r}.")
    if not isinstance(packed, np.ndarray):
        raise MaskError(f"a packed mask is a numpy array of uint8; got {type(packed).__name__}.")
    n = math.prod(shape)
    if packed.dtype != np.uint8 or packed.shape != ((n + 7) // 8,):
        raise MaskError(
            f"a packed mask of shape {list(shape)} is {(n + 7) // 8} bytes; got"
            f" {packed.dtype}{list(packed.shape)}."
        )
    bits = np.unpackbits(packed)
    if bits[n:].any():
        raise MaskError(
            f"a packed mask of shape {list(shape)} has bits set beyond its {n} weights."
        )
    return bits[:n].reshape(shape).astype(bool)
