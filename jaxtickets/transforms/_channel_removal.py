"""Prune-grow on a network that loses channels: what they had grows in those that stay."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxtickets.masks.channels import Channels
from jaxtickets.masks.counting import exact_floor
from jaxtickets.masks.scores import Score, ScoreInputs, magnitude
from jaxtickets.masks.selection import keep_largest
from jaxtickets.transforms._prune_grow import masks_if

PyTree = Any


def remove_channels(
    mask: PyTree,
    params: PyTree,
    grads: PyTree,
    drop_fraction: jax.Array,
    share: jax.Array,
    key: jax.Array,
    channels: Channels,
    growth: Score,
    regrown: str,
    loss: Callable[[PyTree], jax.Array] | None,
) -> tuple[PyTree, PyTree]:
    """One prune-grow (see `evolve_mask`) after which that share of the channels is gone.

    First the channels of the smallest mean magnitude lose all weights that write or read them. Then
    every leaf drops its share of those that are left, and grows as many as it has lost in all, in
    the channels that stay. Where a leaf has no room for them, they grow in whatever leaf the score
    is largest. So the number of active weights of the network stays what it was, while there is
    room.

    Args:
      mask: the present mask.
      params: weights, 0 where pruned.
      grads: gradient by all weights.
      drop_fraction: share of the active weights to replace.
      share: of the channels that the network started with.
      key: for random growth.
      channels: which can be removed.
      growth: what grows.
      regrown: "keep" or "zero".
      loss: params to the mean loss of the batch, for a growth that needs it.

    Returns:
      `(mask, survivors)`, as `evolve_mask`.

    References:
      Yin et al., 2023, arXiv:2305.19454, section 3.

    Differs:
      Layers keep their numbers of weights, as in RigL; theirs are pruned and grown over the whole
      network, with a few more weights than the budget early on.
    """
    leaves, tree = jax.tree.flatten(mask)
    sparse = [i for i, m in enumerate(leaves) if m.ndim]
    old = [leaves[i] for i in sparse]
    removed = channels.removed(jax.tree.leaves(params), share)
    everywhere = channels.allowed(removed)
    allowed = [everywhere[i] for i in sparse]
    left = [m & ok for m, ok in zip(old, allowed, strict=True)]

    had, active, room = ([jnp.sum(m, dtype=jnp.int32) for m in of] for of in (old, left, allowed))
    dropped = [
        jnp.where(n == r, 0, exact_floor(drop_fraction, n))
        for n, r in zip(active, room, strict=True)
    ]
    by_size = jax.tree.leaves(magnitude(params))
    largest = [by_size[i] for i in sparse]
    stay = keep_largest(largest, [n - d for n, d in zip(active, dropped, strict=True)], left)

    scores = jax.tree.leaves(growth(ScoreInputs(params, mask, grads, key, loss)))
    ranks = [scores[i] for i in sparse]
    if growth.name == "gradient":  # of those without a number the just dropped come first
        ranks = [
            jnp.where((s < 0) & ~m, jnp.float32(-2), s) for s, m in zip(ranks, left, strict=True)
        ]
    free = [ok & ~s for ok, s in zip(allowed, stay, strict=True)]
    wanted = [
        jnp.minimum(n, r) - (a - d) for n, r, a, d in zip(had, room, active, dropped, strict=True)
    ]
    grown = keep_largest(ranks, wanted, free)
    homeless = sum((jnp.maximum(n - r, 0) for n, r in zip(had, room, strict=True)), jnp.int32(0))
    rest = [f & ~g for f, g in zip(free, grown, strict=True)]
    elsewhere = keep_largest(ranks, homeless, rest)

    new_leaves, survivors = list(leaves), list(leaves)
    for i, s, g, e, m in zip(sparse, stay, grown, elsewhere, left, strict=True):
        new_leaves[i] = s | g | e
        survivors[i] = new_leaves[i] & m if regrown == "keep" else s
    return tree.unflatten(new_leaves), tree.unflatten(survivors)


def remove_channels_if(
    due: jax.Array,
    mask: PyTree,
    grads: PyTree,
    drop_fraction: jax.Array,
    share: jax.Array,
    key: tuple[jax.Array, jax.Array],
    how: tuple[Any, ...],
    moved: Callable[[PyTree], PyTree],
    given: PyTree,
) -> tuple[PyTree, PyTree]:
    """`remove_channels` where it is due, as `masked_step` asks for it: a real branch under `vmap`.

    `how` are its arguments from `channels` on.
    """

    def evolve(operand: PyTree) -> tuple[PyTree, PyTree]:
        mask, given, grads, fraction, share, key, taken = operand
        draw = jax.random.fold_in(key, taken)
        return remove_channels(mask, moved(given), grads, fraction, share, draw, *how)

    operand = (mask, given, grads, drop_fraction, share, *key)
    return masks_if(due, evolve, operand, mask, how[2])
