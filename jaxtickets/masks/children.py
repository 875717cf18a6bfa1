"""Masks of the children of one parent: random, complementary pairs, partitions (Prune and Tune)."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp

from jaxtickets.errors import MaskError
from jaxtickets.masks import sparsity, trees
from jaxtickets.masks.counting import num_kept
from jaxtickets.masks.rules import KERNELS, Rules
from jaxtickets.masks.structure import (
    UNSTRUCTURED,
    Structure,
    arrange,
    arrange_back,
    structured,
)
from jaxtickets.masks.units import UnitTable, find_units, partition_units, random_units
from jaxtickets.tracing.last_layer import last_layers

PyTree = Any
Kind = Literal["random", "anti_random", "partition"]


def child_mask(
    key: jax.Array,
    params: PyTree,
    child: jax.Array | int,
    *,
    members: int,
    kind: Kind = "random",
    share: float = 0.5,
    scope: Literal["layerwise", "global"] = "layerwise",
    prunable: Rules = KERNELS,
    keep_dense: Sequence[str] = ("classifier",),
    structure: Structure = UNSTRUCTURED,
) -> PyTree:
    """The connection mask of one child, made from the parent's key and the child's number alone.

    So 128 children need no more memory than those that are tuned together, and each is the same in
    any group.

    Args:
      key: the parent's; the same for all its children.
      params: the parent's weights; only shapes are read.
      child: which one, 0 <= child < members; may be traced.
      members: M, how many children there are.
      kind: "random": every child draws its own mask. "anti_random": child 2j draws a mask at 50 %,
        child 2j + 1 has its complement. "partition": one draw deals the weights out to M disjoint
        masks, |kept| differing by at most 1.
      share: sparsity of a random mask; the others have theirs.
      scope: "layerwise": exact counts in every leaf; "global": over all leaves together.
      prunable: path rules (see `jaxtickets.masks.prunable`).
      keep_dense: path patterns of leaves that every child has whole.
      structure: what the mask may look like (see `jaxtickets.masks.structure`).

    Returns:
      A mask tree; kept-dense leaves are all True.

    >>> params = {"a": jnp.ones((5, 5)), "classifier": jnp.ones((2, 2))}
    >>> halves = {"members": 2, "kind": "anti_random", "prunable": ((".*", True),)}
    >>> pair = [child_mask(jax.random.key(0), params, i, **halves) for i in (0, 1)]
    >>> [trees.count(child) for child in pair], bool((pair[0]["a"] ^ pair[1]["a"]).all())
    ([17, 16], True)

    References:
      Whitaker and Whitley, 2022, arXiv:2202.11782, "Creating the Ensemble Members".
    """
    shapes = sparsity.prunable_shapes(params, prunable)
    check_patterns(shapes, keep_dense)
    if not structured(structure).closed_under_complement and kind != "random":
        raise MaskError(
            f"{kind} children divide a network's weights, and what {structure} leaves out has"
            " another structure. Take random children, or whole blocks, Blocks(rows, columns)."
        )
    leaves, tree = jax.tree.flatten(params)
    covered = pruned_leaves(params, prunable, keep_dense)
    paths = trees.leaf_paths(params)
    known = [shapes[paths[i]] for i in covered]
    sizes = [leaves[i].size for i in covered]
    whole: int | list[int] = sum(sizes) if scope == "global" else sizes

    def largest(bits: list[jax.Array], count: Any) -> list[jax.Array]:
        return structure.keep(bits, jax.tree.map(count, whole))

    def drawn(key: jax.Array) -> list[jax.Array]:
        bits = sparsity.random_bits(key, [leaves[i] for i in covered])
        return arrange(structure, bits, known, rows=False)

    child = jnp.asarray(child, jnp.int32)
    if kind == "random":
        chosen = largest(drawn(jax.random.fold_in(key, child)), lambda n: num_kept(n, share))
    elif kind == "anti_random":
        first = largest(drawn(jax.random.fold_in(key, child // 2)), lambda n: num_kept(n, 0.5))
        chosen = [m ^ (child % 2 == 1) for m in first]
    else:
        bits = drawn(key)
        until = largest(bits, lambda n: _dealt(n, child + 1, members))
        before = largest(bits, lambda n: _dealt(n, child, members))
        chosen = [a & ~b for a, b in zip(until, before, strict=True)]

    out = [
        jnp.ones(p.shape if may else (), bool)
        for p, may in zip(leaves, jax.tree.leaves(trees.prunable(params, prunable)), strict=True)
    ]
    for i, mask in zip(covered, arrange_back(structure, chosen, known), strict=True):
        out[i] = mask
    return jax.tree.unflatten(tree, out)


def child_units(
    key: jax.Array,
    units: UnitTable,
    child: jax.Array | int,
    *,
    members: int,
    kind: Kind = "random",
    share: float = 0.5,
    scope: Literal["layerwise", "global"] = "layerwise",
) -> jax.Array:
    """Which units one child has, bool [U]: as `child_mask`, with units in place of weights.

    Args:
      key: the parent's; the same for all its children.
      units: the network's (see `jaxtickets.masks.units.find_units`).
      child: which one, 0 <= child < members; may be traced.
      members: M, how many children there are.
      kind: as in `child_mask`. Of an odd number of units of a layer one child of a pair has one
        more.
      share: sparsity of random children.
      scope: "layerwise" or "global".

    Raises:
      MaskError: more members of a partition than a layer has units; a pair, and a layer of one
        unit; a global sparsity that leaves a layer none.
    """
    child = jnp.asarray(child, jnp.int32)
    if kind == "partition":
        return partition_units(key, units, members, child)
    if kind == "random":
        return random_units(jax.random.fold_in(key, child), units, share, scope)
    lonely = [group[0] for group, size in zip(units.groups, units.sizes, strict=True) if size < 2]
    if lonely or scope == "global":
        what = (
            f"{lonely[0]} has one unit, which"
            if lonely
            else "a global draw may take all units of a layer, and its complement"
        )
        raise MaskError(
            f"anti_random children of neurons halve every layer: {what} cannot be halved. Take"
            " scope='layerwise' or random trees."
        )
    return random_units(jax.random.fold_in(key, child // 2), units, 0.5) ^ (child % 2 == 1)


def kept_dense(
    keep_dense: Sequence[str] | None,
    apply: Any,
    params: PyTree,
    model_state: PyTree,
    x_spec: PyTree,
    prunable: Rules,
) -> tuple[str, ...]:
    """Path patterns of layers that children have whole: those named, or of None the last.

    Raises:
      MaskError: the last layer cannot be found, or there is no other.
    """
    if keep_dense is not None:
        return tuple(keep_dense)
    paths = [
        path
        for path, may in zip(
            trees.leaf_paths(params), jax.tree.leaves(trees.prunable(params, prunable)), strict=True
        )
        if may
    ]
    last = last_layers(apply, params, model_state, x_spec)
    found = [path for path in paths if path in last]
    if not last:
        raise MaskError(
            "which layer is this network's last cannot be seen from its operations. Name it,"
            f" keep_dense=({paths[-1]!r},) or another of {', '.join(paths)}; or give keep_dense=()"
            " to prune all of them."
        )
    if len(found) == len(paths):
        raise MaskError(
            f"all that is prunable, {', '.join(paths)}, is this network's last layer. Give"
            " keep_dense=() to prune that too."
        )
    return tuple(f"^{re.escape(path)}$" for path in found)


def units_for(
    apply: Any,
    params: PyTree,
    model_state: PyTree,
    x_spec: PyTree,
    prunable: Rules,
    keep_dense: Sequence[str] | None,
) -> UnitTable:
    """The network's units, without those of the layers that `keep_dense` names."""
    units = find_units(apply, params, model_state, x_spec, prunable)
    if keep_dense is None:
        return units
    named = [
        pattern
        for pattern in keep_dense
        if any(re.search(pattern, path) for group in units.groups for path in group)
    ]
    return find_units(apply, params, model_state, x_spec, prunable, named) if named else units


def _dealt(size: int, children: jax.Array, members: int) -> jax.Array:
    """floor(size * children / members) without leaving int32."""
    each, rest = divmod(size, members)
    return each * children + rest * children // members


def pruned_leaves(params: PyTree, prunable: Rules, keep_dense: Sequence[str]) -> list[int]:
    """Which leaves of `params`, by number, lose weights."""
    paths, may = trees.leaf_paths(params), jax.tree.leaves(trees.prunable(params, prunable))
    return [
        i
        for i, path in enumerate(paths)
        if may[i] and not any(re.search(pattern, path) for pattern in keep_dense)
    ]


def check_children(
    shapes: Mapping[str, tuple[int, ...]],
    members: int,
    kind: str,
    scope: str,
    keep_dense: Sequence[str],
) -> None:
    """Raise `MaskError` unless layers of those shapes can be dealt out so.

    Args:
      shapes: path to shape of the prunable leaves.
      members: children.
      kind: of trees.
      scope: "layerwise" or "global".
      keep_dense: patterns of layers that are not pruned.
    """
    check_patterns(shapes, keep_dense)
    pruned = {
        path: math.prod(shape)
        for path, shape in shapes.items()
        if not any(re.search(p, path) for p in keep_dense)
    }
    if not pruned:
        raise MaskError(
            f"keep_dense={tuple(keep_dense)} leaves nothing to prune among {', '.join(shapes)}."
        )
    shares = {"partition": members, "anti_random": 2}.get(kind, 1)
    small = {path: n for path, n in pruned.items() if n < shares} if scope == "layerwise" else {}
    if small or sum(pruned.values()) < shares:
        path, n = next(iter(small.items()), ("all layers together", sum(pruned.values())))
        fewer = (
            f"take at most {n} members" if kind == "partition" and n > 1 else "take random masks"
        )
        whole = (
            f", or leave the layer whole with keep_dense={(*keep_dense, path)!r}" if small else ""
        )
        raise MaskError(
            f"{n} weights of {path} cannot be dealt out to {shares} members, one each:"
            f" {fewer}{whole}."
        )


def check_patterns(shapes: Mapping[str, tuple[int, ...]], keep_dense: Sequence[str]) -> None:
    """Raise `MaskError` unless every pattern matches a layer."""
    for pattern in keep_dense:
        if not any(re.search(pattern, path) for path in shapes):
            raise MaskError(
                f"keep_dense={pattern!r} matches none of the layers {', '.join(shapes)}. Name those"
                " that lose nothing (of children: the last layer), or leave it out, or give"
                " keep_dense=()."
            )
