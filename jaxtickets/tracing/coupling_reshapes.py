"""Labels of axes that are reshaped, cut, laid side by side or summed over."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxtickets.tracing.coupling_labels import ANY, FIXED, Forest, Labels, Value

_REDUCTIONS = frozenset(
    (
        "argmax",
        "argmin",
        "reduce_and",
        "reduce_max",
        "reduce_min",
        "reduce_or",
        "reduce_prod",
        "reduce_sum",
        "reduce_xor",
    )
)
_WINDOWS = frozenset(
    ("reduce_window", "reduce_window_max", "reduce_window_min", "reduce_window_sum")
)


def rearranged(forest: Forest, eqn: Any, name: str, ins: list[Value]) -> tuple[Labels, ...] | None:
    """The labels after an operation on the axes of its first operand; None for others."""
    value, params = ins[0] if ins else None, eqn.params
    shape = eqn.outvars[0].aval.shape if eqn.outvars else ()
    if value is None:
        return None
    old_sizes = [len(axis) for axis in value.labels]
    if name == "reshape":
        return _reshape(forest, value, shape)
    if name == "broadcast_in_dim":
        out = [np.full(n, ANY) for n in shape]
        for axis, to in enumerate(params["broadcast_dimensions"]):
            if old_sizes[axis] == shape[to]:
                out[to] = value.labels[axis]
        return tuple(out)
    if name == "transpose":
        return tuple(value.labels[axis] for axis in params["permutation"])
    if name == "squeeze":
        dropped_axes = {d % len(old_sizes) for d in params["dimensions"]}
        return tuple(labels for axis, labels in enumerate(value.labels) if axis not in dropped_axes)
    if name == "rev":
        return tuple(
            labels[::-1] if axis in params["dimensions"] else labels
            for axis, labels in enumerate(value.labels)
        )
    if name in ("slice", "dynamic_slice"):
        return _cut(
            forest,
            value,
            shape,
            [n == m for n, m in zip(old_sizes, shape, strict=True)],
            "a slice picks some of them",
        )
    if name == "pad":
        return _cut(
            forest,
            value,
            shape,
            [not any(sides) for sides in params["padding_config"]],
            "they are padded with constants",
        )
    if name in _REDUCTIONS:
        for axis in params["axes"]:
            forest.fix(value.labels[axis], f"{name!r} runs over them")
        return tuple(
            labels for axis, labels in enumerate(value.labels) if axis not in params["axes"]
        )
    if name in _WINDOWS:
        numbers = (params["window_dimensions"], params["window_strides"], params["padding"])
        kept_axes = [w == s == 1 and not any(sides) for w, s, sides in zip(*numbers, strict=True)]
        return _cut(forest, value, shape, kept_axes, "a window slides over them")
    return None


def concatenate(forest: Forest, ins: Sequence[Value], along: int) -> tuple[Labels, ...]:
    """Labels side by side along one axis, joined along the others.

    What is the same all along an axis is not beside something else.
    """
    out = list(ins[0].labels)
    for value in ins[1:]:
        out = [
            labels if axis == along else forest.unite(out[axis], labels)
            for axis, labels in enumerate(value.labels)
        ]
    joined = np.concatenate([value.labels[along] for value in ins])
    out[along] = np.where(joined == ANY, FIXED, joined) if len(joined) > 1 else joined
    return tuple(out)


def _reshape(forest: Forest, value: Value, shape: Sequence[int]) -> tuple[Labels, ...]:
    old, new = [axis for axis in value.labels if len(axis) != 1], [n for n in shape if n != 1]
    if 0 in new:
        return tuple(np.full(n, ANY) for n in shape)
    out: list[Labels] = []
    while old or new:  # the fewest axes with the same number of elements on both sides
        axes, sizes = [old.pop(0)], [new.pop(0)]
        while (old_size := int(np.prod([len(axis) for axis in axes]))) != (
            new_size := int(np.prod(sizes))
        ):
            axes.append(old.pop(0)) if old_size < new_size else sizes.append(new.pop(0))
        merged = axes[0]
        for axis in axes[1:]:
            merged = forest.pair(np.repeat(merged, len(axis)), np.tile(axis, len(merged)))
        out += _split(forest, merged, sizes)
    return tuple(out.pop(0) if n != 1 else np.array([ANY]) for n in shape)


def _split(forest: Forest, labels: Labels, sizes: Sequence[int]) -> list[Labels]:
    """The labels of the axes that an axis is cut into.

    One of them may have the old labels, if they do not depend on the others. Where an axis is cut
    into groups of neighbours, as the heads of an attention are, those of a group go together.
    """
    if len(sizes) == 1:
        return [labels]
    if (labels == ANY).all():
        return [np.full(n, ANY) for n in sizes]
    live = forest.live(labels)
    out = [np.full(n, FIXED) for n in sizes]
    if live.any():
        grid, roots = (
            np.where(live, values, FIXED).reshape(sizes)
            for values in (labels, forest.roots(labels))
        )
        for axis, n in enumerate(sizes):
            lines = np.moveaxis(roots, axis, -1).reshape(-1, n)
            if (lines == lines[0]).all():
                out[axis] = np.moveaxis(grid, axis, -1).reshape(-1, n)[0]
                return out
        if len(sizes) == 2 and live.all():
            for group in grid.tolist():
                for label in group[1:]:
                    forest.merge(group[0], label)
            return [grid[:, 0], np.full(sizes[1], ANY)]
        forest.fix(labels, "a reshape divides them into groups")
    return out


def _cut(
    forest: Forest, value: Value, sizes: Sequence[int], kept: Sequence[bool], why: str
) -> tuple[Labels, ...]:
    """The labels after cutting axes: those that are kept whole keep theirs.

    On others positions count, so their labels are fixed.
    """
    out = []
    for labels, n, whole in zip(value.labels, sizes, kept, strict=True):
        if not whole:
            forest.fix(labels, why)
            uniform = n == 1 or (n < len(labels) and (labels == ANY).all())
            labels = np.full(n, ANY if uniform else FIXED)
        out.append(labels)
    return tuple(out)
