"""Trees of arrays: the paths of their leaves, and how two of them differ."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax

PyTree = Any


def leaf_paths(tree: PyTree) -> list[str]:
    """The path of every leaf, as rules see it: `"Dense_0/kernel"`.

    >>> leaf_paths({"a": {"kernel": 1}, "b": [2, 3]})
    ['a/kernel', 'b/0', 'b/1']
    """
    paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(tree)]
    # NNX's Param adds an attribute "value", which says nothing. (A dict's key "value" stays.)
    paths = [
        path[:-1] if path[1:] and path[-1] == jax.tree_util.GetAttrKey("value") else path
        for path in paths
    ]
    return [jax.tree_util.keystr(path, simple=True, separator="/") for path in paths]


def some(names: Sequence[str], most: int = 8) -> str:
    """The first names of a list, for a message."""
    listed = ", ".join(repr(name) for name in names[:most])
    return listed + (f" and {len(names) - most} more" if len(names) > most else "")


def describe_trees(a: PyTree, b: PyTree) -> str:
    """How two trees differ, for a message: in their leaves, or else in shapes or kinds of nodes."""
    there, here = leaf_paths(a), leaf_paths(b)
    if there == here:
        shapes = [[getattr(x, "shape", None) for x in jax.tree.leaves(tree)] for tree in (a, b)]
        for path, one, other in zip(here, *shapes, strict=True):
            if one is not None and other is not None and one and other and one != other:
                return f"{path!r} is {list(one)} in it, and {list(other)} in the other."
        return (
            "Their leaves have the same paths, but the nodes are of other kinds:"
            f" {jax.tree.structure(a)} against {jax.tree.structure(b)}."
        )
    only, missing = (
        [p for p in there if p not in set(here)],
        [p for p in here if p not in set(there)],
    )
    return f"It has {some(only) or 'nothing more'}, and lacks {some(missing) or 'nothing'}."
