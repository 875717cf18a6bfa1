"""Whether pruned weights are 0, in params or in an optimizer's state."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxtickets.errors import MaskError
from jaxtickets.masks.trees import check
from jaxtickets.messages.pytrees import leaf_paths, some

PyTree = Any


class Revived(NamedTuple):
    """Pruned weights of a leaf that are not 0: how many, and the largest size (NaN if one is)."""

    count: int
    largest: float


class Audit(dict[str, Revived]):
    """What `audit` found: path to `Revived`. Empty, so false, where every pruned weight is 0."""

    def __str__(self) -> str:
        if not self:
            return "Every pruned weight is 0."
        lines = [
            f"{path}: {found.count:,} pruned weights are not 0, the largest {found.largest:.3g}"
            for path, found in self.items()
        ]
        return "\n".join(lines)


def audit(mask: PyTree, tree: PyTree) -> Audit:
    """What is not 0 though the mask prunes it: nothing, if the transforms stand outermost.

    Something outside of them that makes weights of its own, as an average of the params, a
    schedule-free or lookahead optimizer, or a scaling of the updates does, revives pruned weights
    without a word. Look once in a while; nothing is changed.

    Args:
      mask: a mask tree.
      tree: the params; or anything that holds trees like them, as an optimizer's state does: every
        array whose path ends as a mask's does, and whose shape is that mask's, is looked at (bools
        aside: they are masks).

    Returns:
      An `Audit`, a dict: path to `(count, largest)`.

    Raises:
      MaskError: nothing in `tree` is like the mask.

    >>> mask = {"kernel": jnp.array([True, False, False]), "bias": jnp.ones((), bool)}
    >>> found = audit(mask, {"kernel": jnp.array([1.0, 0.0, -0.5]), "bias": jnp.ones(3)})
    >>> print(found, bool(found), found["kernel"].count)
    kernel: 1 pruned weights are not 0, the largest 0.5 True 1
    >>> print(audit(mask, {"kernel": jnp.array([1.0, 0.0, 0.0]), "bias": jnp.ones(3)}))
    Every pruned weight is 0.
    """
    if jax.tree.structure(mask) == jax.tree.structure(tree):
        check(mask, tree)
    covered = {tuple(path): m for path, m in jax.tree_util.tree_leaves_with_path(mask)}
    names = dict(zip(covered, leaf_paths(mask), strict=True))
    leaves, paths = jax.tree_util.tree_leaves_with_path(tree), leaf_paths(tree)
    found, alike = Audit(), False
    for (path, leaf), name in zip(leaves, paths, strict=True):
        ending = next((path[i:] for i in range(len(path) + 1) if path[i:] in covered), None)
        if ending is None or not hasattr(leaf, "dtype"):
            continue
        m = np.asarray(covered[ending])
        alike = alike or m.ndim == 0 or m.shape == leaf.shape
        if (
            m.ndim == 0
            or m.shape != leaf.shape
            or leaf.dtype == bool
            or jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        ):
            continue
        values = np.abs(np.asarray(leaf))[~m]
        values = np.asarray(values, np.float64)
        if values.any():  # a NaN is not 0 either
            found[name or names[ending]] = Revived(
                int(np.count_nonzero(values)), float(values.max())
            )
    if not alike:
        raise MaskError(
            f"nothing in this tree is like the mask: it has {some(paths) or 'no leaves'}, the mask"
            f" {some(list(names.values()))}."
        )
    return found
