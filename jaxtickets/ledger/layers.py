"""FLOPs by layer, and what a ticket keeps of each."""

from __future__ import annotations

import bisect
import dataclasses
import re
from collections.abc import Mapping, Sequence

import numpy as np

from jaxtickets.masks.counting import num_kept
from jaxtickets.masks.sparsity import cubic
from jaxtickets.masks.units import UnitTable
from jaxtickets.plan import Gradual
from jaxtickets.tracing.flops import ForwardFlops

Kept = Mapping[str, float]
"""How many weights of each prunable layer survive, by path: of several networks the mean."""


@dataclasses.dataclass(frozen=True)
class Layers:
    """FLOPs by layer, and how many weights each layer of a ticket keeps.

    Where a threshold or a draw runs over all layers together, or the weights decide, nobody knows
    beforehand what each layer keeps: the same share is assumed. A finished run's masks tell it.

    Args:
      flops: of the network as it is.
      sizes: how many weights each prunable layer of it has.
      whole: how many each had before units were cut out, of which sparsities are shares.
      ends: what each layer of the finished tickets keeps, their mean; None for an assumption.
      end_sparsity: the sparsity of the original count that the plan ends with.
    """

    flops: ForwardFlops
    sizes: dict[str, int]
    whole: dict[str, int]
    ends: dict[str, float] | None = None
    end_sparsity: float = 0.0

    @property
    def total(self) -> int:
        """All prunable weights of the whole network."""
        return sum(self.whole.values())

    def forward(self, kept: Kept) -> float:
        """FLOPs of one example."""
        return sparse_forward(self.flops, kept, self.sizes)

    def pruned(self, before: Kept, sparsity: float, keep_dense: Sequence[str] = ()) -> Kept:
        """What is kept at that sparsity of the original count.

        Where the finished tickets tell what they keep, this is it; on the way there every layer has
        lost the same share of what it loses.
        """
        if self.ends is not None:
            way = min(1.0, sparsity / self.end_sparsity) if self.end_sparsity else 1.0
            return {
                path: min(self.sizes[path], n - way * (n - self.ends[path]))
                for path, n in self.whole.items()
            }
        whole = {path for path in before if any(re.search(pattern, path) for pattern in keep_dense)}
        return {
            path: n if path in whole else min(n, num_kept(self.whole[path], sparsity))
            for path, n in before.items()
        }

    def without_units(self, before: Kept, units: UnitTable, widths: Sequence[int]) -> Kept:
        """What is kept where so many units of every group live, with all that writes and reads
        them.
        """
        alive = _alive(units, widths)
        left = dict(before)
        for leaf in units.params:
            if leaf.path in left:
                share = np.prod([alive[axis].mean() for axis in leaf.units])
                left[leaf.path] = min(left[leaf.path], round(self.sizes[leaf.path] * float(share)))
        return left

    def gradually(self, before: Kept, how: Gradual, steps: int) -> tuple[float, Kept]:
        """FLOPs of one example in each of the steps of a gradual pruning, added up, and what is
        kept in the end.

        Weight gradients are taken of the surviving weights only.
        """
        begin, end = how.steps(steps)
        initial = 1 - sum(before.values()) / self.total
        sparsity_at = cubic(how.sparsity, begin, end, initial)
        first = max(begin, 1)
        # Of very many updates 10,000, evenly spaced, stand for all: between two of them density
        # hardly moves.
        apart = max(1, (end - first) // how.update_every // 10_000)
        updates = sorted({*range(first, end + 1, apart * how.update_every), end})
        kept, since, flop = before, 0, 0.0
        for step in updates:
            flop += 3 * self.forward(kept) * (step - since)
            kept, since = self.pruned(before, round(float(sparsity_at(step)), 6)), step
        return flop + 3 * self.forward(kept) * (steps - since), kept


def _alive(units: UnitTable, widths: Sequence[int]) -> np.ndarray:
    """The share of every unit's group that lives, [U + 1]; 1 for what is no unit."""
    shares = [np.full(size, n / size) for size, n in zip(units.sizes, widths, strict=True)]
    return np.concatenate([*shares, np.ones(1)])


def widths_that_fit(
    units: UnitTable, count: int, budgets: Mapping[str, int] | None = None
) -> tuple[int, ...]:
    """How many units of every group live if they have at most that many prunable weights together
    (`jaxtickets.masks.Units`); at least one.

    Args:
      units: of the network.
      count: how many weights at most.
      budgets: how many weights every prunable layer should have: of the group that it writes such a
        share lives, as it stands to those of others. None for the same share of all.
    """
    rank = np.concatenate([np.arange(size) for size in units.sizes])
    group = np.repeat(np.arange(len(units.sizes)), units.sizes)
    shares = (rank + 1) / np.asarray(units.sizes)[group]
    if budgets is not None:
        shares = shares / np.maximum(group_densities(units, budgets), 1e-9)[group]
    # Of every group one, whatever it has; then in turn.
    in_order = group[np.lexsort((group, shares.astype(np.float32), rank > 0))]
    first = len(units.sizes)

    def widths(lives: int) -> list[int]:
        return np.bincount(in_order[:lives], minlength=first).tolist()

    def weights(lives: int) -> float:
        alive = _alive(units, widths(lives))
        covered = (leaf for leaf in units.params if leaf.prunable)
        return sum(float(np.prod([alive[axis].sum() for axis in leaf.units])) for leaf in covered)

    fits = bisect.bisect_right(range(first, len(group) + 1), count + 0.5, key=weights)
    return tuple(widths(first + max(fits - 1, 0)))


def group_densities(units: UnitTable, budgets: Mapping[str, int]) -> np.ndarray:
    """The share of weights that the layers which write a group of units should have, [groups]."""
    group = np.append(np.repeat(np.arange(len(units.sizes)), units.sizes), len(units.sizes))
    budget, size = np.zeros(len(units.sizes) + 1), np.zeros(len(units.sizes) + 1)
    for leaf in units.params:
        for ids, read in zip(leaf.units, leaf.read, strict=True):
            if leaf.path in budgets:
                written = np.unique(group[np.where(read, -1, ids)])
                budget[written] += budgets[leaf.path]
                size[written] += np.prod(leaf.shape)
    return np.where(size > 0, budget / np.maximum(size, 1), 1.0)[:-1]


def sparse_forward(flops: ForwardFlops, kept: Kept, sizes: dict[str, int]) -> float:
    """Forward FLOPs of a ticket: each layer's by its density; what no parameter takes part in
    counts in full.
    """
    layers = sum(
        layer.flops * kept[layer.path] / sizes[layer.path] if layer.path in kept else layer.flops
        for layer in flops.layers
    )
    return float(layers + flops.other)
