"""Masks: which weights a sparse subnetwork has.

A mask has exactly the tree of the params that it masks. A *prunable* leaf is a bool array of the leaf's shape, True
where the weight exists. A *dense* leaf is marked by one 0-d `True`, which broadcasts and costs one byte however large
the leaf is. There are no `None` leaves. Functions here are written for one ticket; `jax.vmap` makes them work on many.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

PyTree = Any
Rules = Sequence[tuple[str, bool | Callable[[Any], bool]]]


class MaskError(ValueError):
    """A mask, a rule or a budget that cannot be."""


def is_matrix(leaf: Any) -> bool:
    """Whether a leaf has two axes or more, as kernels have and biases and norms have not."""
    return len(leaf.shape) >= 2


# Convolution and dense kernels by the names that Linen and NNX ("kernel"), Equinox ("weight") and plain dicts ("w",
# "w1") give them; never biases or norms, and no embedding tables of Linen or NNX ("embedding").
KERNELS: Rules = ((r"(^|/)(kernel|weight|w)\d*$", is_matrix), (r".*", False))


def leaf_paths(tree: PyTree) -> list[str]:
    """The path of every leaf, as rules see it: `"Dense_0/kernel"`.

    >>> leaf_paths({"a": {"kernel": 1}, "b": [2, 3]})
    ['a/kernel', 'b/0', 'b/1']
    """
    paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(tree)]
    # NNX's Param adds an attribute "value", which says nothing. (A dict's key "value" stays.)
    paths = [path[:-1] if path[1:] and path[-1] == jax.tree_util.GetAttrKey("value") else path for path in paths]
    return [jax.tree_util.keystr(path, simple=True, separator="/") for path in paths]


def prunable(params: PyTree, rules: Rules = KERNELS) -> PyTree:
    """For every leaf of `params`: may it be masked?

    Args:
      params: a tree of arrays (or of anything with a `shape`).
      rules: ordered pairs `(pattern, verdict)`. `pattern` is searched in the leaf's path; the first match wins.
        `verdict` is True, False, or a predicate on the leaf.

    Returns:
      A tree of bools with the structure of `params`.

    Raises:
      MaskError: a leaf that no rule covers; a rule with verdict True that matches no leaf; nothing prunable at all.

    >>> prunable({"Dense_0": {"kernel": jnp.ones((2, 3)), "bias": jnp.ones(3)}})
    {'Dense_0': {'bias': False, 'kernel': True}}
    """
    leaves, tree = jax.tree.flatten(params)
    paths = leaf_paths(params)
    verdicts: list[bool] = []
    uncovered: list[str] = []
    for path, leaf in zip(paths, leaves, strict=True):
        rule = next((verdict for pattern, verdict in rules if re.search(pattern, path)), None)
        if rule is None:
            uncovered.append(path)
            continue
        verdicts.append(len(leaf.shape) > 0 and (rule(leaf) if callable(rule) else rule))
    if uncovered:
        raise MaskError(
            f"no rule covers {len(uncovered)} of {len(paths)} leaves: {_some(uncovered)}. "
            "End the rules with ('.*', False) to leave the rest dense."
        )
    for pattern, verdict in rules:
        if verdict is True and not any(re.search(pattern, path) for path in paths):
            raise MaskError(f"the rule ({pattern!r}, True) matches no leaf. The leaves are {_some(paths)}.")
    if not any(verdicts):
        raise MaskError(
            f"the rules {[pattern for pattern, _ in rules]} find nothing to prune among {_some(paths)}. "
            "Give rules that do: prunable=[('part of a path', True), ('.*', False)]."
        )
    return jax.tree.unflatten(tree, verdicts)


def _some(names: Sequence[str], most: int = 8) -> str:
    listed = ", ".join(repr(name) for name in names[:most])
    return listed + (f" and {len(names) - most} more" if len(names) > most else "")


def dense(params: PyTree) -> PyTree:
    """The mask of a network that is not sparse: every leaf marked dense."""
    return jax.tree.map(lambda _: jnp.ones((), bool), params)


def full(params: PyTree, rules: Rules = KERNELS) -> PyTree:
    """A mask that keeps every weight but can lose them: all True on prunable leaves, dense markers elsewhere."""
    return jax.tree.map(lambda p, may: jnp.ones(p.shape if may else (), bool), params, prunable(params, rules))


def apply(mask: PyTree, params: PyTree) -> PyTree:
    """`params` with every pruned weight exactly 0 (a NaN too: selected, not multiplied).

    >>> apply({"w": jnp.array([True, False])}, {"w": jnp.array([3.0, jnp.nan])})["w"].tolist()
    [3.0, 0.0]
    """
    return jax.tree.map(lambda m, p: p if m.ndim == 0 else jnp.where(m, p, jnp.zeros((), p.dtype)), mask, params)


def complement(mask: PyTree) -> PyTree:
    """The weights that `mask` prunes, and no others; dense leaves stay dense."""
    return jax.tree.map(lambda m: m if m.ndim == 0 else ~m, mask)


def counts(mask: PyTree) -> PyTree:
    """Surviving weights per prunable leaf, int32; 0 for dense leaves. Works under `jit` and `vmap`."""
    return jax.tree.map(lambda m: jnp.sum(m, dtype=jnp.int32) if m.ndim else jnp.zeros((), jnp.int32), mask)


def size(mask: PyTree) -> int:
    """How many weights the mask covers: all elements of its prunable leaves."""
    return sum(m.size for m in jax.tree.leaves(mask) if m.ndim)


def count(mask: PyTree) -> int:
    """How many of them survive: an exact integer, whatever the size of the network."""
    return sum(int(np.count_nonzero(m)) for m in jax.device_get(jax.tree.leaves(mask)) if m.ndim)


def density(mask: PyTree) -> float:
    """Surviving share of the prunable weights, in (0, 1]; 1.0 where nothing is prunable.

    >>> density({"w": jnp.array([True, False, False, True]), "bias": jnp.ones((), bool)})
    0.5
    """
    return count(mask) / size(mask) if size(mask) else 1.0


def iou(a: PyTree, b: PyTree) -> float:
    """Overlap of two masks: intersection over union of their *surviving* weights; nan where both are empty or dense.

    >>> iou({"w": jnp.array([True, True, False])}, {"w": jnp.array([False, True, False])})
    0.5
    """
    pairs = [(x, y) for x, y in zip(*map(jax.tree.leaves, jax.device_get((a, b))), strict=True) if x.ndim]
    union = sum(int(np.count_nonzero(x | y)) for x, y in pairs)
    return sum(int(np.count_nonzero(x & y)) for x, y in pairs) / union if union else float("nan")


def check(mask: PyTree, params: PyTree) -> None:
    """Raise `MaskError` unless `mask` is a mask of `params`: same tree, bool, each leaf 0-d or of its param's shape."""
    if jax.tree.structure(mask) != jax.tree.structure(params):
        raise MaskError(f"the mask's tree is not the params' tree: {_some(leaf_paths(mask))} against {_some(leaf_paths(params))}.")
    for path, m, p in zip(leaf_paths(params), jax.tree.leaves(mask), jax.tree.leaves(params), strict=True):
        if m.dtype != bool or m.shape not in ((), p.shape):
            raise MaskError(
                f"the mask of {path!r} is {m.dtype}{list(m.shape)}; it must be bool, of shape {list(p.shape)} or [] for a dense leaf."
            )


def pack(mask: jax.Array) -> np.ndarray:
    """Eight weights a byte, the first in the highest bit: uint8 [ceil(N / 8)], spare bits 0.

    >>> pack(jnp.array([True, False, True])).tolist()
    [160]
    """
    return np.packbits(np.asarray(mask).reshape(-1))


def unpack(packed: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The inverse of `pack`.

    Raises:
      MaskError: not exactly the bytes that `shape` needs, or a spare bit that is set.
    """
    n = int(np.prod(shape, dtype=np.int64))
    if packed.dtype != np.uint8 or packed.shape != ((n + 7) // 8,):
        raise MaskError(f"a packed mask of shape {list(shape)} is {(n + 7) // 8} bytes; got {packed.dtype}{list(packed.shape)}.")
    bits = np.unpackbits(packed)
    if bits[n:].any():
        raise MaskError(f"a packed mask of shape {list(shape)} has bits set beyond its {n} weights.")
    return bits[:n].reshape(shape).astype(bool)
