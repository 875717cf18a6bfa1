"""Which channels dynamic sparse training removes: those whose weights are the smallest on the mean.

Yin et al., 2023, arXiv:2305.19454 ("Chase").
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxtickets.errors import MaskError
from jaxtickets.masks.counting import exact_floor
from jaxtickets.masks.selection import order_bits
from jaxtickets.masks.units import UnitTable
from jaxtickets.masks.whole_units import joined, positions, rank_in_group, unit_means

PyTree = Any


@dataclasses.dataclass(frozen=True)
class Channels:
    """The channels of a network that can be removed: those that one layer alone writes. (Residual
    streams, to which several layers add up, stay as wide as they are.)

    Args:
      units: of the network as it is.
      begins: of the network when it started, of which shares are counted.
    """

    units: UnitTable
    begins: UnitTable

    def __post_init__(self) -> None:
        if not any(len(group) == 1 for group in self.units.groups):
            raise MaskError(
                "this network has no channels that could be removed: every one is a sum of what"
                " several layers write. Leave out channels=."
            )

    def widths_at(self, share: float) -> tuple[int, ...]:
        """How many units of every group are left if every layer loses the same share of its own."""
        began = self._began()
        return tuple(
            min(size, began[group] - int(share * began[group])) if len(group) == 1 else size
            for group, size in zip(self.units.groups, self.units.sizes, strict=True)
        )

    def _began(self) -> dict[tuple[str, ...], int]:
        """How many units every group had, by the layers that write it."""
        began: dict[tuple[str, ...], int] = {}
        for group, size in zip(self.begins.groups, self.begins.sizes, strict=True):
            began[group] = began.get(group, 0) + size
        return began

    def removed(self, params: Sequence[jax.Array], share: jax.Array | float) -> jax.Array:
        """Which channels are gone when that share of all is: bool [U].

        They are those of the smallest mean magnitude of what writes them, over the whole network;
        but every layer keeps at least half, or 1 - share (rounded down, at least one channel) where
        that is less. A channel without any weight is among the first.

        Args:
          params: the leaves of the params, in tree order, 0 where pruned.
          share: of the channels that the network started with, in [0, 1).
        """
        units, began = self.units, self._began()
        inner = np.array([len(group) == 1 for group in units.groups])
        covered = [(leaf, p) for leaf, p in zip(units.params, params, strict=True) if leaf.prunable]
        leaves = [leaf for leaf, _ in covered]
        sizes = [jnp.abs(p.astype(jnp.float32)) for _, p in covered]
        means = unit_means(units, leaves, sizes, [jnp.ones(p.shape, bool) for p in sizes])
        smallest_first = order_bits(means)
        may_go = jnp.stack(
            [
                size - began[group] + _most(share, began[group]) if own else jnp.int32(0)
                for group, size, own in zip(units.groups, units.sizes, inner, strict=True)
            ]
        )
        of_group = np.repeat(np.arange(len(units.sizes)), units.sizes)
        eligible = rank_in_group(units, smallest_first) < may_go[of_group]
        total = sum(n for group, n in began.items() if len(group) == 1)
        now = int(np.array(units.sizes)[inner].sum())
        target = exact_floor(share, total) - (total - now)
        return eligible & (positions(~eligible, smallest_first) < target)

    def allowed(self, removed: jax.Array) -> list[jax.Array]:
        """For every leaf of the params: where no removed channel is written or read, bool."""
        stays = jnp.where(removed, 1, 0)
        return [joined(leaf, stays) < 1 for leaf in self.units.params]


def _most(share: jax.Array | float, size: int) -> jax.Array:
    """How many of a layer's channels may go, at most, when that share of all does."""
    own_share = size - exact_floor(1 - jnp.asarray(share, jnp.float32), size)
    return jnp.maximum(size // 2, jnp.minimum(own_share, size - 1))
