"""Labels of array indices: which belong together, and which must stay."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

Labels = np.ndarray  # int64 [n], one label per index of an axis

ANY = -1  # the same value all along the axis, or an axis of size 1: goes with every label
FIXED = 0  # an index that stays: inputs, constants, positions in space

INPUTS = "they meet an axis of fixed size, such as the network's inputs"
OUTPUTS = "they are the network's outputs"
TAPS = "they are taps of a convolution"
MIXED = "a reshape lays them along one axis with others"
MOST_PAIRS = 100_000


@dataclasses.dataclass(frozen=True)
class Value:
    """What is known of an array: the labels of its axes, and what it is made of.

    Args:
      labels: one vector per axis.
      kind: "weights": the elements of one parameter, rearranged or multiplied; "constant":
        otherwise not dependent on an input; "data".
    """

    labels: tuple[Labels, ...]
    kind: str


def stays(aval: Any, kind: str) -> Value:
    """An array all of whose indices must stay."""
    return Value(tuple(np.full(n, FIXED if n != 1 else ANY) for n in aval.shape), kind)


def kind_of(ins: Sequence[Value]) -> str:
    """The kind of a value computed from others, unless it is weights rearranged."""
    return "data" if any(value.kind == "data" for value in ins) else "constant"


class Forest:
    """The classes of labels, as the trees of a forest of parents."""

    def __init__(self) -> None:
        self.parent = np.zeros(1, np.int64)
        self.fixed: dict[int, str] = {FIXED: INPUTS}
        self.read: set[int] = set()
        self.written: set[int] = set()
        self.pairs: dict[tuple[int, int], int] = {}

    def extend(self, size: int) -> None:
        """Add labels up to `size`, each new one a class of its own."""
        self.parent = np.append(self.parent, np.arange(len(self.parent), size))

    def roots(self, labels: Labels) -> Labels:
        """The classes of labels, by the label at their root; ANY stays ANY."""
        roots = np.maximum(labels, FIXED)
        while not np.array_equal(up := self.parent[roots], roots):
            roots = up
        self.parent[np.maximum(labels, FIXED)] = roots
        return np.where(labels == ANY, ANY, roots)

    def root(self, label: int) -> int:
        """The class of one label, as the label at its root."""
        while (up := int(self.parent[label])) != label:
            label = up
        return label

    def live(self, labels: Labels) -> np.ndarray:
        """Which labels may still be removed, bool."""
        roots = self.roots(labels)
        if (roots <= FIXED).all():
            return np.zeros(len(labels), bool)
        return (roots > FIXED) & ~np.isin(roots, list(self.fixed))

    def fix(self, labels: Labels, why: str) -> None:
        """Mark the classes of labels as ones that must stay."""
        for root in np.unique(self.roots(labels)[self.live(labels)]).tolist():
            self.fixed[root] = why

    def unite(self, a: Labels, b: Labels, why: str = INPUTS) -> Labels:
        """Joins two axes index by index and returns the labels of the result.

        `why` is for what meets FIXED.
        """
        a = np.full(len(b), ANY) if len(a) == 1 else a
        b = np.full(len(a), ANY) if len(b) == 1 else b
        distinct = (a != ANY) & (b != ANY) & (self.roots(a) != self.roots(b))
        for label, other_label in np.unique(
            np.stack([a[distinct], b[distinct]], 1), axis=0
        ).tolist():
            self.merge(label, other_label, why)
        return np.where(a == ANY, b, a)

    def merge(self, a: int, b: int, why: str = INPUTS) -> None:
        """Join the classes of two labels."""
        low, high = sorted((self.root(a), self.root(b)))
        if low == FIXED:
            self.fixed.setdefault(high, why)
        elif low != high:
            self.parent[high] = low
            if (reason := self.fixed.pop(high, None)) is not None:
                self.fixed.setdefault(low, reason)

    def pair(self, a: Labels, b: Labels) -> Labels:
        """Labels of indices that go if `a` goes or `b` goes."""
        live_a, live_b = self.live(a), self.live(b)
        both_live = live_a & live_b
        out = np.where(
            live_a, a, np.where(live_b, b, np.where((a == ANY) & (b == ANY), ANY, FIXED))
        )
        if both_live.sum() > MOST_PAIRS:
            self.fix(a, MIXED)
            self.fix(b, MIXED)
        elif both_live.any():
            couples = list(zip(a[both_live].tolist(), b[both_live].tolist(), strict=True))
            new = [couple for couple in dict.fromkeys(couples) if couple not in self.pairs]
            self.pairs.update(
                zip(new, range(len(self.parent), len(self.parent) + len(new)), strict=True)
            )
            self.extend(len(self.parent) + len(new))
            out[both_live] = [self.pairs[couple] for couple in couples]
        return out

    def settle_pairs(self) -> None:
        """Decides which labels of coupled pairs are channels, and which must stay.

        A kernel whose taps were moved to its channels meets, at every tap, the same inputs: the
        factor that all pairs of a class share is the channel, and the other factors stay.
        """
        # The newest first: only they are made of others.
        for (a, b), label in reversed(self.pairs.items()):
            for marks in (self.read, self.written):
                if label in marks:
                    marks.update((a, b))
        while True:
            classes: dict[int, set[int]] = {}
            factors: dict[int, set[int]] = {}
            for couple, label in self.pairs.items():
                root, root_a, root_b = map(self.root, (label, *couple))
                if root not in (root_a, root_b):
                    classes[root] = classes.get(root, {root_a, root_b}) & {root_a, root_b}
                    factors.setdefault(root, set()).update((root_a, root_b))
            changed = False
            for root, shared in classes.items():
                if root in self.fixed:
                    loose, reason = factors[root], self.fixed[root]
                elif len(shared) == 1:
                    self.merge(root, next(iter(shared)))
                    loose, reason, changed = factors[root] - shared, TAPS, True
                else:
                    loose, reason = factors[root] | {root}, MIXED
                loose = np.array(sorted(loose), np.int64)
                changed |= bool(self.live(loose).any())
                self.fix(loose, reason)
            if not changed:
                return
