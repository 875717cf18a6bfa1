"""Counts right predictions of all ensembles that a set of members contains, exactly and fast.

An ensemble is right where the sum of its members' margins, p(right class) - p(other class), is at
least 0 for every other class: above 0 for those before the right one, which win ties. An example
has nothing to be computed where one sign holds in all members; the (example, class) pairs that are
left are *contested*. Subsets are walked as a tree: first the members up to the last few, one added
at a time, where pairs that no continuation can turn are dropped; then all subsets of the last few
at once.

Sums are of integers: margins in units of 2^-e, rounded, so that sums are exact and an ensemble's is
off by less than half a unit per member. Where a sum comes that near to 0, it is computed again as
the definition has it, in float64, one member after the other. If no margin needs rounding, the
integers are the definition.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np

LAST = 7  # members whose subsets are made at once: 128 of them
NARROW = 400  # subsets below a node, from which on it pays to look for pairs that are decided
# contested pairs at a time: what the last members' subsets of them need stays in the cache
PAIRS = 2**14
FEW = 2**11  # contested pairs for which a walk of their own does not pay
_CELLS = 2**22  # margins at a time while contested ones are looked for


def right_counts(proba: np.ndarray, y: np.ndarray, sizes: tuple[int, ...]) -> dict[int, np.ndarray]:
    """Numbers of right predictions of every subset of members, by the subset's size.

    Args:
      proba: probabilities [M, B, C], float64, of absolute value at most 2.
      y: labels [B].
      sizes: how many members, rising, each once, from 1 to M.

    Returns:
      By size, int64 [C(M, size)] in the order of `itertools.combinations`.

    >>> proba = np.array([[[0.9, 0.1], [0.4, 0.6]], [[0.4, 0.6], [0.5, 0.5]]])
    >>> right_counts(proba, np.array([0, 0]), (1, 2))
    {1: array([1, 1]), 2: array([1])}
    """
    always, margins, strict, example = _contested(proba, y)
    counts = {size: np.full(math.comb(len(proba), size), always) for size in sizes}
    threads = min(
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1, 8
    )
    blocks = _split(example, threads)
    walks = [_Walk(margins[:, rows], strict[rows], example[rows], sizes) for rows in blocks]
    with ThreadPoolExecutor(threads) as pool:  # NumPy lets other threads run while it computes
        for block_counts in pool.map(_Walk.counts, walks):
            for size in sizes:
                counts[size] += block_counts[size]
    return counts


def _contested(proba: np.ndarray, y: np.ndarray) -> tuple[int, np.ndarray, np.ndarray, np.ndarray]:
    """Examples that every subset has right, and the pairs that subsets differ on.

    Of the pairs: margins [M, P], strictness and example [P].
    """
    members, examples, classes = proba.shape
    always, pieces = 0, []
    step = max(1, _CELLS // (members * classes))
    for start in range(0, examples, step):
        labels = y[start : start + step]
        rows = np.arange(len(labels))
        block = proba[:, start : start + step]
        margins = block[:, rows, labels][..., None] - block
        strict = np.arange(classes) < labels[:, None]
        beats = np.where(strict, margins > 0, margins >= 0)
        beats[:, rows, labels] = True
        lost = np.logical_not(beats.any(0).all(-1))  # to one class in every member
        open_pairs = ~beats.all(0) & ~lost[:, None]
        always += int(np.count_nonzero(~lost & ~open_pairs.any(-1)))
        row, _ = np.nonzero(open_pairs)
        pieces.append((margins[:, open_pairs], strict[open_pairs], row + start))
    margins, strict, example = (
        np.concatenate(parts, axis=-1) for parts in zip(*pieces, strict=True)
    )
    return always, margins, strict, example


def _split(example: np.ndarray, threads: int) -> list[slice]:
    """Blocks of whole examples (their pairs are neighbours), with about equally many pairs.

    One for each thread if there are many.
    """
    count = max(1, min(threads, len(example) // FEW), -(-len(example) // PAIRS))
    targets = np.arange(1, count) * len(example) // count
    firsts = np.flatnonzero(np.diff(example, prepend=-1))
    cuts = (
        firsts[np.minimum(np.searchsorted(firsts, targets), len(firsts) - 1)] if len(firsts) else []
    )
    bounds = sorted({0, len(example), *(int(cut) for cut in cuts)})
    return [slice(a, b) for a, b in itertools.pairwise(bounds)]


@dataclasses.dataclass
class _Node:
    """A prefix of members, and the pairs that its continuations differ on.

    Pairs lie in ranks: the first pair of every example, the second pair of those that have two,
    ..., examples with more pairs first. So rank k is about the first `widths[k]` examples.
    """

    prefix: tuple[int, ...]
    total: np.ndarray  # int32 [P]: sum of the prefix, shifted so that below 0 is lost
    pairs: np.ndarray  # which they are, [P]
    parts: np.ndarray  # int32 [members from `first` on, P]
    first: int
    widths: list[int]
    right: int  # examples that all continuations have right


class _Walk:
    """A walk over all subsets of members, for one block of pairs."""

    def __init__(
        self, margins: np.ndarray, strict: np.ndarray, example: np.ndarray, sizes: tuple[int, ...]
    ) -> None:
        self.margins, self.strict, self.sizes = margins, strict, sizes
        self.members, self.most = len(margins), sizes[-1]
        self.example = np.unique(example, return_inverse=True)[1]
        self.last = min(LAST, self.members)
        self.next_wanted = [
            min(size for size in sizes if size >= depth) for depth in range(self.most + 1)
        ]
        # |margin| <= 2 up to the tolerance of sums, so sums of `most` of them, and a band, stay
        # below 2^31.
        unit = 2.0 ** (29 - math.ceil(math.log2(self.most + 1)))
        scaled = margins * unit
        self.parts = np.rint(scaled).astype(np.int32)
        exact = bool((self.parts == scaled).all())
        # rounding: half a unit per member; of float64 far less than one
        self.band = 0 if exact else self.most // 2 + 2
        self.shift = (
            -strict.astype(np.int32) if exact else np.full(strict.shape, self.band, np.int32)
        )
        self.limits: dict[tuple[int, int], tuple[np.ndarray, np.ndarray]] = {}
        self.orders = [_lexicographic(self.last, size) for size in range(self.last + 1)]
        self.found: dict[int, list[np.ndarray]] = {size: [] for size in sizes}

    def counts(self) -> dict[int, np.ndarray]:
        """Numbers of right predictions among the block's examples, by size of the subset."""
        rows = sum(math.comb(self.last, size) for size in range(min(self.last, self.most) + 1))
        self.sums = np.empty(rows * len(self.strict), np.int32)
        self.flags = np.empty(rows * len(self.strict), bool)
        self.near = np.empty(rows * len(self.strict), bool)
        pairs, widths = _ranked(self.example)
        self._visit(_Node((), self.shift[pairs], pairs, self.parts[:, pairs], 0, widths, 0))
        del self.sums, self.flags, self.near
        return {size: np.concatenate(block_counts) for size, block_counts in self.found.items()}

    def _visit(self, node: _Node) -> None:
        depth, start = len(node.prefix), node.prefix[-1] + 1 if node.prefix else 0
        left = self.most - depth
        if sum(math.comb(self.members - start, size) for size in range(left + 1)) >= NARROW:
            node = self._narrowed(node, start, left)
        if left:
            end = min(
                self.members - self.last, self.members - (self.next_wanted[depth + 1] - depth) + 1
            )
            for member in range(start, end):
                total = node.total + node.parts[member - node.first]
                self._visit(dataclasses.replace(node, prefix=(*node.prefix, member), total=total))
        self._last_members(node, depth)

    def _narrowed(self, node: _Node, start: int, left: int) -> _Node:
        """The node without decided pairs, and without examples that are lost in all."""
        low, high = self._limits(start, left)
        lost = node.total + high[node.pairs] < 0
        sure = node.total + low[node.pairs] >= (2 * self.band + 1 if self.band else 0)
        example = self.example[node.pairs]
        dead = np.zeros(self.example[-1] + 1 if len(self.example) else 0, bool)
        dead[example[lost]] = True
        kept = np.flatnonzero(~(sure | dead[example]))
        order, widths = _ranked(example[kept])
        kept = kept[order]
        examples_before, examples_after = (
            rank_widths[0] if rank_widths else 0 for rank_widths in (node.widths, widths)
        )
        right = node.right + examples_before - int(np.count_nonzero(dead)) - examples_after
        parts = np.take(node.parts[start - node.first :], kept, axis=1)
        return _Node(node.prefix, node.total[kept], node.pairs[kept], parts, start, widths, right)

    def _limits(self, start: int, left: int) -> tuple[np.ndarray, np.ndarray]:
        """The least and the most that up to `left` members from `start` on add, int32 [P]."""
        if (start, left) not in self.limits:
            ordered = np.sort(self.parts[start:], axis=0)
            low = np.minimum(ordered[:left], 0).sum(0, dtype=np.int32)
            high = np.maximum(ordered[::-1][:left], 0).sum(0, dtype=np.int32)
            self.limits[start, left] = low, high
        return self.limits[start, left]

    def _last_members(self, node: _Node, depth: int) -> None:
        """Count for the prefix with every subset of the last members."""
        sizes = [
            size
            for size in range(min(self.last, self.most - depth) + 1)
            if depth + size in self.found
        ]
        if not sizes:
            return
        pairs = len(node.pairs)
        if not pairs:
            for size in sizes:
                self.found[depth + size].append(np.full(math.comb(self.last, size), node.right))
            return
        starts = list(
            itertools.accumulate(
                (math.comb(self.last, size) for size in range(sizes[-1] + 1)), initial=0
            )
        )
        sums = self.sums[: starts[-1] * pairs].reshape(starts[-1], pairs)
        parts = node.parts[self.members - self.last - node.first :]
        sums[0] = node.total
        for size in range(1, sizes[-1] + 1):
            # Subsets by their last member: those that end with it are all smaller ones of the
            # members before, and it.
            for member in range(size - 1, self.last):
                target = starts[size] + math.comb(member, size)
                count = math.comb(member, size - 1)
                smaller = sums[starts[size - 1] : starts[size - 1] + count]
                np.add(smaller, parts[member], out=sums[target : target + count])
        sums = sums[starts[sizes[0]] :]
        flags = self.flags[: sums.size].reshape(sums.shape)
        np.greater_equal(sums, 0, out=flags)
        if self.band:
            near = self.near[: sums.size].reshape(sums.shape)
            np.less_equal(sums.view(np.uint32), np.uint32(2 * self.band), out=near)
            if np.count_nonzero(near):
                self._again(node, flags, near, starts[sizes[0]], starts)
        offset = node.widths[0]
        for width in node.widths[1:]:
            first = flags[:, :width]
            np.logical_and(first, flags[:, offset : offset + width], out=first)
            offset += width
        flags = flags[:, : node.widths[0]]
        right = np.array([np.count_nonzero(row) for row in flags]) + node.right
        for size in sizes:
            begin = starts[size] - starts[sizes[0]]
            self.found[depth + size].append(right[begin + self.orders[size]])

    def _again(
        self, node: _Node, flags: np.ndarray, near: np.ndarray, skipped: int, starts: list[int]
    ) -> None:
        """Decide the sums near 0 again, by the definition."""
        row, column = np.nonzero(near)
        subsets = np.concatenate([_members(self.last, size) for size in range(len(starts) - 1)])[
            skipped:
        ]
        pair = node.pairs[column]
        total = np.zeros(len(row))
        for member in node.prefix:
            total += self.margins[member, pair]
        for member in range(self.last):
            total += np.where(
                subsets[row, member], self.margins[self.members - self.last + member, pair], 0.0
            )
        flags[row, column] = np.where(self.strict[pair], total > 0, total >= 0)


def _ranked(example: np.ndarray) -> tuple[np.ndarray, list[int]]:
    """The order that puts pairs in ranks (see `_Node`), and the ranks' widths."""
    count = np.bincount(example)
    order = np.argsort(example.astype(np.uint16) if len(count) <= 2**16 else example, kind="stable")
    ordered = example[order]
    rank = np.arange(len(ordered)) - (np.cumsum(count) - count)[ordered]
    place = np.empty(len(count), np.int64)
    place[np.argsort(-count, kind="stable")] = np.arange(len(count))
    widths = np.bincount(rank)
    offsets = np.cumsum(widths) - widths
    ranked = np.empty(len(ordered), np.int64)
    ranked[offsets[rank] + place[ordered]] = order
    return ranked, widths.tolist()


def _colexicographic(members: int, size: int) -> Iterator[tuple[int, ...]]:
    return iter(
        sorted(itertools.combinations(range(members), size), key=lambda subset: subset[::-1])
    )


def _lexicographic(members: int, size: int) -> np.ndarray:
    """The places of `itertools.combinations`' subsets in the order of their last members."""
    places = {subset: place for place, subset in enumerate(_colexicographic(members, size))}
    return np.array([places[subset] for subset in itertools.combinations(range(members), size)])


def _members(members: int, size: int) -> np.ndarray:
    """The members of the subsets in the order of their last members, bool [subsets, members]."""
    return np.array(
        [
            [member in subset for member in range(members)]
            for subset in _colexicographic(members, size)
        ]
    )
