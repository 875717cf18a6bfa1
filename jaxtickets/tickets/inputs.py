"""Whether a network can predict what it is given: shapes, dtypes, and values that mean nothing."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxtickets.errors import DataError

PyTree = Any


def check_inputs(x: PyTree, prepare: Any, x_spec: PyTree, wants: str, name: str = "x") -> None:
    """Raise `DataError` unless a network that takes `x_spec` per example can predict `prepare(x)`.

    Args:
      x: arrays [N, ...], as they are stored.
      prepare: what makes inputs of them.
      x_spec: shape (without the batch axis) and dtype of what the network takes.
      wants: the words before that in an error.
      name: what an error calls x.
    """
    check_shapes(x, prepare, x_spec, wants, name)
    for leaf in jax.tree.leaves(x):
        if jnp.issubdtype(leaf.dtype, jnp.floating) and not np.isfinite(leaf).all():
            raise DataError(
                f"{name} holds NaN or infinite values; predictions of them mean nothing."
            )


def check_shapes(x: PyTree, prepare: Any, x_spec: PyTree, wants: str, name: str = "x") -> None:
    """`check_inputs` as far as shapes and dtypes tell, which are known while tracing."""
    leaves = jax.tree.leaves(x)
    if not leaves or any(np.ndim(leaf) == 0 for leaf in leaves) or leaves[0].shape[0] == 0:
        lists = (
            " Lists are trees of their items: pass numpy.array(x)."
            if leaves and np.ndim(leaves[0]) == 0
            else ""
        )
        raise DataError(
            f"{name} holds no examples; it is a Dataset, or arrays with the example axis"
            f" first.{lists}"
        )
    if len({leaf.shape[0] for leaf in leaves}) > 1:
        raise DataError(
            f"the arrays of {name} hold {sorted({leaf.shape[0] for leaf in leaves})} examples; row"
            " i of each is example i."
        )
    stored = jax.tree.map(
        lambda a: jax.ShapeDtypeStruct(a.shape, jax.dtypes.canonicalize_dtype(a.dtype)), x
    )
    try:
        got = jax.eval_shape(prepare, stored)
    except Exception as error:  # the caller's function, which may raise anything
        raise DataError(
            f"{name} is {described(stored, 1)} per example, which its `prepare` does not take:"
            f" {error}"
        ) from error
    same_tree = jax.tree.structure(got) == jax.tree.structure(x_spec)
    if not same_tree or any(
        (g.shape[1:], g.dtype) != (s.shape, s.dtype)
        for g, s in zip(jax.tree.leaves(got), jax.tree.leaves(x_spec))
    ):
        raise DataError(
            f"{name} is {described(got, 1)} per example; {wants} {described(x_spec, 0)}."
            f" {_fix(got, x_spec)}"
        )


def _fix(got: PyTree, x_spec: PyTree) -> str:
    fix = "Pass the data set itself, or dataset.prepare(x)."
    pixels = [leaf.dtype for leaf in jax.tree.leaves(got)] == [np.uint8] and [
        leaf.dtype for leaf in jax.tree.leaves(x_spec)
    ] == [np.float32]
    return (
        f"{fix} Where `fit` was given uint8 pixels as a pair, they are numpy.float32(x) / 255."
        if pixels
        else fix
    )


def described(tree: PyTree, batch_axes: int) -> str:
    """Dtypes and shapes of a tree of arrays, without so many first axes, for a message."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    named = (
        (f"{jax.tree_util.keystr(path)}: " if len(leaves) > 1 else "", leaf)
        for path, leaf in leaves
    )
    return ", ".join(f"{name}{leaf.dtype}{list(leaf.shape[batch_axes:])}" for name, leaf in named)
