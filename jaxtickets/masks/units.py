"""Units: what neuron pruning prunes.

A unit is a set of channels that live and go together: an output of one layer, or of several layers
whose outputs are added up (a residual stream), with everything that belongs to it: biases, batch
statistics, and the rows of the kernels that read it. A mask that prunes a unit covers kernels only:
with every weight that reads it at 0 a unit contributes nothing, whatever its bias or its batch
statistics are. So the masked network computes what a network without the unit does
(`jaxtickets.shrink` makes that one).

Units are found once, from shapes, as a static `UnitTable`. `keep`, bool [U], says which of them
live; it is an array like any other, so that everything here that takes or returns it works under
`jit` and `vmap`.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np

from jaxtickets.errors import MaskError
from jaxtickets.masks import trees
from jaxtickets.masks.counting import num_kept
from jaxtickets.masks.rules import KERNELS, Rules
from jaxtickets.masks.selection import keep_largest
from jaxtickets.masks.sparsity import check_sparsity
from jaxtickets.messages import checks
from jaxtickets.tracing.coupling import couple
from jaxtickets.tracing.coupling_labels import OUTPUTS

check = checks.Checks(MaskError, arrays=True)

PyTree = Any
Scope = Literal["layerwise", "global"]


@dataclasses.dataclass(frozen=True)
class Leaf:
    """One leaf of the params or of the model state.

    Args:
      path: as mask rules see it.
      shape: its shape.
      prunable: whether a mask may cover it.
      units: per axis the unit of every index, int64, -1 where there is none.
      read: per axis and index, bool: a product sums over it, so that zeros there silence its unit.
      fixed: per axis and index of outputs that are no unit: why not; "" elsewhere.
    """

    path: str
    shape: tuple[int, ...]
    prunable: bool
    units: tuple[np.ndarray, ...]
    read: tuple[np.ndarray, ...]
    fixed: tuple[tuple[str, ...], ...]


@dataclasses.dataclass(frozen=True, eq=False)
class UnitTable:
    """The units of a network, numbered group by group. A group is the units of one layer, or of
    layers added up.

    Args:
      groups: per group the paths of the kernels that write it.
      sizes: units per group.
      names: per unit, for people: "unit 5 of conv1".
      params: one `Leaf` for each leaf of the params, in tree order.
      model_state: likewise.
      tree: the params' tree.
    """

    groups: tuple[tuple[str, ...], ...]
    sizes: tuple[int, ...]
    names: tuple[str, ...]
    params: tuple[Leaf, ...]
    model_state: tuple[Leaf, ...]
    tree: Any

    def __len__(self) -> int:
        return sum(self.sizes)

    def __repr__(self) -> str:
        listed = ", ".join(
            f"{' + '.join(map(_layer, group))}: {size}"
            for group, size in zip(self.groups, self.sizes, strict=True)
        )
        return f"UnitTable({listed})"

    def largest(self, scores: jax.Array, counts: Any) -> jax.Array:
        """In every group the units with the largest scores, as many as `counts` [groups] says: bool
        [U].
        """
        sizes, columns = np.array(self.sizes)[:, None], np.arange(max(self.sizes))
        there = columns < sizes
        rows = scores[np.minimum(np.cumsum(sizes, 0) - sizes + columns, len(self) - 1)]
        # One search for all groups: a search for each of DenseNet's 120 would take seconds to
        # compile.
        return jax.vmap(keep_largest)(rows, jnp.asarray(counts, jnp.int32), there).reshape(-1)[
            np.flatnonzero(there)
        ]


def find_units(
    apply: Callable[..., Any],
    params: PyTree,
    model_state: PyTree,
    x_spec: PyTree,
    rules: Rules = KERNELS,
    keep_dense: Sequence[str] = (),
) -> UnitTable:
    """Finds the units of a network by following channels through its operations; nothing is
    computed.

    Channels of the inputs, outputs of the network, and channels of which an operation makes more
    than a sum with weights (layer normalisation, attention heads, grouped convolutions) are no
    units.

    Args:
      apply: as `Task.apply`; called as `apply(params, model_state, x, False, None)`.
      params: arrays or `jax.ShapeDtypeStruct`s.
      model_state: likewise.
      x_spec: shape (without the batch axis) and dtype of what the network takes, a tree of
        `jax.ShapeDtypeStruct`.
      rules: what a mask may cover (`Task.prunable`). A unit is read by prunable kernels only.
      keep_dense: path patterns of layers whose outputs are not to be units.

    Returns:
      A `UnitTable`, for the functions of this module.

    Raises:
      MaskError: there are no units; or a pattern of `keep_dense` that matches no kernel that has
        any.

    >>> def mlp(params, state, x, train, key):
    ...     return jnp.tanh(x @ params["w1"] + params["b"]) @ params["w2"], state
    >>> params = {"b": jnp.zeros(3), "w1": jnp.zeros((4, 3)), "w2": jnp.zeros((3, 2))}
    >>> units = find_units(mlp, params, {}, jax.ShapeDtypeStruct((4,), jnp.float32))
    >>> units, [axis.tolist() for axis in units.params[2].units]
    (UnitTable(w1: 3), [[0, 1, 2], [-1, -1]])
    """
    if not callable(apply):
        raise MaskError(f"apply is a function, as Task.apply; got {checks.shown(apply)}.")
    if not all(
        hasattr(leaf, "shape") and hasattr(leaf, "dtype") for leaf in jax.tree.leaves(x_spec)
    ):
        raise MaskError(
            "x_spec is of jax.ShapeDtypeStruct((4,), jnp.float32), without the batch axis; got"
            f" {checks.shown(x_spec)}."
        )
    keep_dense = check.patterns("keep_dense", keep_dense)
    leaves, states = jax.tree.leaves(params), jax.tree.leaves(model_state)
    paths, may = trees.leaf_paths(params), jax.tree.leaves(trees.prunable(params, rules))
    structure = jax.tree.structure((params, model_state))

    def outputs(arrays: list[Any], x: PyTree) -> Any:
        return apply(*jax.tree.unflatten(structure, arrays), x, False, None)[0]

    batch = jax.tree.map(lambda s: jax.ShapeDtypeStruct((2, *s.shape), s.dtype), x_spec)
    found = couple(
        outputs, [jax.ShapeDtypeStruct(jnp.shape(a), a.dtype) for a in (*leaves, *states)], batch
    )

    reads: dict[int, bool] = {}  # by class: whether every kernel that reads it is prunable
    writers: dict[int, list[tuple[int, int, int]]] = {}  # by class: leaf, axis, index
    for leaf, ok in enumerate(may):
        for axis, classes in enumerate(found.classes[leaf]):
            for c in np.unique(classes[found.read[leaf][axis]]).tolist():
                reads[c] = reads.get(c, True) and ok
            for index in np.flatnonzero(found.written[leaf][axis]).tolist():
                writers.setdefault(int(classes[index]), []).append((leaf, axis, index))
    unmatched = [
        p
        for p in keep_dense
        if not any(
            re.search(p, paths[w[0]]) for c in writers if c not in found.fixed for w in writers[c]
        )
    ]
    if unmatched:
        raise MaskError(
            f"keep_dense={unmatched[0]!r} matches no layer that has units. Those are"
            f" {_layers(writers, found.fixed, paths)}."
        )
    why = dict(found.fixed)
    for c, places in writers.items():
        if any(re.search(pattern, paths[leaf]) for pattern in keep_dense for leaf, _, _ in places):
            why.setdefault(c, f"keep_dense={tuple(keep_dense)} keeps them")
        if c not in reads:
            why.setdefault(c, "no kernel reads them")
        elif not reads[c]:
            why.setdefault(c, "a kernel reads them that the task's rules do not let a mask cover")

    members: dict[tuple[tuple[int, int], ...], list[int]] = {}  # by group, its kernels' axes
    for c, places in writers.items():
        if c not in why:
            members.setdefault(
                tuple(dict.fromkeys((leaf, axis) for leaf, axis, _ in places)), []
            ).append(c)
    if not members:
        reasons = sorted({why[c] for c in writers} - {OUTPUTS})
        raise MaskError(
            "this network has no units that could be pruned:"
            f" {'; '.join(reasons) or 'no layer is read by another'}."
        )
    classes = [c for group in members.values() for c in group]
    number = np.full(max(classes) + 2, -1)  # the last for every class beyond
    number[classes] = np.arange(len(classes))

    def describe(i: int, path: str, array: Any, prunable: bool) -> Leaf:
        units = tuple(number[np.minimum(axis, len(number) - 1)] for axis in found.classes[i])
        fixed = tuple(
            tuple(
                why[c] if put and c in why else ""
                for c, put in zip(axis.tolist(), written.tolist(), strict=True)
            )
            for axis, written in zip(found.classes[i], found.written[i], strict=True)
        )
        return Leaf(path, tuple(array.shape), prunable, units, found.read[i], fixed)

    first = [writers[c][0] for c in classes]
    return UnitTable(
        groups=tuple(tuple(dict.fromkeys(paths[leaf] for leaf, _ in axes)) for axes in members),
        sizes=tuple(map(len, members.values())),
        names=tuple(f"unit {index} of {_layer(paths[leaf])}" for leaf, _, index in first),
        params=tuple(
            describe(i, *each) for i, each in enumerate(zip(paths, leaves, may, strict=True))
        ),
        model_state=tuple(
            describe(len(leaves) + i, path, array, False)
            for i, (path, array) in enumerate(
                zip(trees.leaf_paths(model_state), states, strict=True)
            )
        ),
        tree=jax.tree.structure(params),
    )


def _layer(path: str) -> str:
    """A kernel's path without its last name, if others are left."""
    return path.rpartition("/")[0] or path


def _layers(
    writers: dict[int, list[tuple[int, int, int]]], fixed: dict[int, str], paths: Sequence[str]
) -> str:
    return (
        ", ".join(
            dict.fromkeys(
                repr(_layer(paths[leaf]))
                for c in writers
                if c not in fixed
                for leaf, _, _ in writers[c]
            )
        )
        or "none"
    )


def unit_mask(units: UnitTable, keep: jax.Array) -> PyTree:
    """The mask that prunes every unit with `keep` False: in kernels, all that writes it and all
    that reads it.

    Args:
      units: see `find_units`.
      keep: bool [U].

    Returns:
      A mask tree like the params: prunable leaves bool of their shape, others dense markers.

    >>> def mlp(params, state, x, train, key):
    ...     return jnp.tanh(x @ params["w1"] + params["b"]) @ params["w2"], state
    >>> params = {"b": jnp.zeros(2), "w1": jnp.zeros((1, 2)), "w2": jnp.zeros((2, 3))}
    >>> units = find_units(mlp, params, {}, jax.ShapeDtypeStruct((1,), jnp.float32))
    >>> {path: m.tolist() for path, m in unit_mask(units, jnp.array([True, False])).items()}
    {'b': True, 'w1': [[True, False]], 'w2': [[True, True, True], [False, False, False]]}
    """
    if keep.shape != (len(units),):
        raise MaskError(
            f"keep has the shape {list(keep.shape)}; {units} needs one bool per unit,"
            f" [{len(units)}]."
        )
    alive = jnp.append(keep.astype(bool), True)  # the last for what is no unit
    leaves = []
    for leaf in units.params:
        mask = jnp.ones(leaf.shape if leaf.prunable else (), bool)
        for axis, ids in enumerate(leaf.units):
            if leaf.prunable and (ids >= 0).any():
                mask &= alive[ids].reshape([-1 if d == axis else 1 for d in range(len(leaf.shape))])
        leaves.append(mask)
    return jax.tree.unflatten(units.tree, leaves)


def random_units(
    key: jax.Array, units: UnitTable, sparsity: float, scope: Scope = "layerwise"
) -> jax.Array:
    """Which units live, at random and in exact numbers.

    `layerwise`: N - floor(S * N) of the N units of every group, so at least one. `global`: U -
    floor(S * U) of all U; one of every group, drawn first, always lives, since a network without
    any is cut in two.

    The complement of a draw is `~keep`. At 50 %, anti-random pairs, it has as many units where N is
    even, and one less where N is odd.

    Args:
      key: members need different keys to get different units.
      units: see `find_units`.
      sparsity: S, share of units that go, in [0, 1); a Python number.
      scope: "layerwise" or "global".

    Returns:
      keep, bool [U].

    Raises:
      MaskError: a sparsity outside [0, 1); an unknown scope; a global count below one unit for each
        group.
    """
    check.key("key", key)
    if not isinstance(units, UnitTable):
        raise MaskError(f"units are what find_units returns; got {checks.shown(units)}.")
    check_sparsity(sparsity)
    check.choice("scope", scope, get_args(Scope))
    bits = jax.random.bits(key, (len(units),), jnp.uint32)
    if scope == "layerwise":
        return units.largest(bits, [num_kept(size, sparsity) for size in units.sizes])
    count = num_kept(len(units), sparsity)
    if count < len(units.sizes):
        most = math.floor((1 - len(units.sizes) / len(units)) * 100) / 100
        raise MaskError(
            f"a global sparsity of {sparsity} leaves {count} of {len(units)} units, but"
            f" {len(units.sizes)} groups of units need one each. Take a sparsity of at most {most}."
        )
    spared = units.largest(bits, [1] * len(units.sizes))
    return keep_largest(jnp.where(spared, jnp.uint32(0xFFFFFFFF), bits >> 1), count)


def partition_units(
    key: jax.Array, units: UnitTable, members: int, index: jax.Array | int
) -> jax.Array:
    """Member `index`'s share of the units: `members` disjoint sets that together have every unit
    once.

    Each group of N units is shuffled and cut into pieces of floor(N / M) or one more.

    Args:
      key: the same for all members, or the sets would not be disjoint.
      units: see `find_units`.
      members: M; a Python number.
      index: which of them, in 0..M - 1; may be traced.

    Returns:
      keep, bool [U].

    Raises:
      MaskError: more members than a group has units.
    """
    scarce = min(range(len(units.sizes)), key=units.sizes.__getitem__)
    if members < 1 or units.sizes[scarce] < members:
        names = " + ".join(map(_layer, units.groups[scarce]))
        raise MaskError(
            f"a partition among {members} members gives each at least one unit of every layer, but"
            f" {names} has {units.sizes[scarce]}. Take 1 to {units.sizes[scarce]} members, a wider"
            f" network, or keep_dense={(names.split(' + ')[0],)}."
        )
    bits, sizes = jax.random.bits(key, (len(units),), jnp.uint32), np.array(units.sizes, np.int32)
    index = jnp.asarray(index, jnp.int32)
    up_to, before = (units.largest(bits, i * sizes // members) for i in (index + 1, index))
    return up_to & ~before
