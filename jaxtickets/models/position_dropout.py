"""Dropout whose draws belong to places in a text, not to places in an array.

The draw of (example, token, channel) is a hash of exactly that and of the key, with fixed strides,
so a batch padded to 128 tokens drops what it drops padded to 64: results do not depend on how texts
were put into buckets, in training neither. A hash costs a few integer operations an element and
fuses into what it drops; `jax.random.bits` draws by the shape of the array, and threefry takes
twenty rounds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp


class Words(NamedTuple):
    """A key as two uint32 numbers, as the hash takes it (or two arrays, one pair an example)."""

    first: jax.Array
    second: jax.Array


def mix(n: jax.Array) -> jax.Array:
    """A bijection of uint32 in which every bit of `n` flips every bit of the result half the time.

    References:
      Wellons 2018, "Prospecting for Hash Functions" (nullprogram.com), lowbias32: the shifts and
      the two factors.
    """
    n = (n ^ (n >> 16)) * jnp.uint32(0x7FEB352D)
    n = (n ^ (n >> 15)) * jnp.uint32(0x846CA68B)
    return n ^ (n >> 16)


def fold(words: Words, n: jax.Array | int) -> Words:
    """A key made of a key and a number: both of its words differ for any two `n`."""
    first = mix(words.first ^ jnp.asarray(n).astype(jnp.uint32))
    return Words(first, mix(words.second ^ first))


def key_words(key: jax.Array) -> Words:
    """The two words of a JAX key of any implementation.

    Different keys have different words (of two numbers: all of them).
    """
    # the fraction of pi: nothing up the sleeve
    words = Words(jnp.uint32(0x243F6A88), jnp.uint32(0x85A308D3))
    data = jax.random.key_data(key).reshape(-1)
    for i in range(data.size):
        words = fold(words, data[i])
    return words


def position_bits(
    words: Words, site: int, shape: Sequence[int], strides: Sequence[int]
) -> jax.Array:
    """Random bits for every place of an array, 32 each.

    Args:
      words: the key, scalars.
      site: which draw of the network this is; other sites have other bits.
      shape: [B, n1, n2, ...], examples first.
      strides: a number for each axis but the first: the place (b, i1, i2, ...) is number `i1
        strides[0] + i2 strides[1] + ...` of example b. Strides that do not follow from `shape` make
        bits that do not depend on it.

    Returns:
      uint32 of `shape`. Places of one example never repeat each other's hash.

    Raises:
      ValueError: more than 2^32 places in an example.

    >>> words = key_words(jax.random.key(0))
    >>> short, long = (position_bits(words, 0, (2, tokens, 8), (8, 1)) for tokens in (64, 128))
    >>> bool((short == long[:, :64]).all())
    True
    """
    if sum((n - 1) * stride for n, stride in zip(shape[1:], strides, strict=True)) >= 2**32:
        raise ValueError(
            f"position_bits: an example of shape {list(shape[1:])} has places beyond 2^32 with"
            f" strides {list(strides)}."
        )
    axes = (*shape[:1], *(1 for _ in shape[1:]))
    words = fold(fold(words, site), jax.lax.broadcasted_iota(jnp.uint32, axes, 0))
    number = jnp.zeros(axes, jnp.uint32)
    for axis, stride in enumerate(strides, 1):
        along = tuple(n if i == axis else 1 for i, n in enumerate(shape))
        number = number + jax.lax.broadcasted_iota(jnp.uint32, along, axis) * jnp.uint32(stride)
    # Two rounds: one of them keyed by an exclusive or alone would give keys that differ in a bit
    # each other's bits, swapped.
    return mix(mix(number ^ words.first) + words.second)


def dropout(
    x: jax.Array, rate: float, words: Words | None, site: int, strides: Sequence[int]
) -> jax.Array:
    """`x` [B, ...] with a share of `rate` of its values 0 and the others divided by `1 - rate`.

    Args:
      x: values of any floating dtype.
      rate: in [0, 1), kept to 2^-32.
      words: the key; None for no dropout, as in evaluation.
      site: as `position_bits`.
      strides: as `position_bits`.

    References:
      Srivastava et al. 2014, "Dropout", JMLR 15, in the form that needs no change at evaluation.

    >>> x = jnp.ones((1, 4, 4))
    >>> dropout(x, 0.5, key_words(jax.random.key(0)), 0, (4, 1))[0, 0].tolist()
    [2.0, 0.0, 2.0, 0.0]
    """
    if words is None or rate == 0:
        return x
    kept = position_bits(words, site, x.shape, strides) >= jnp.uint32(
        min(round(rate * 2**32), 2**32 - 1)
    )
    # 0.9 in bfloat16 is 0.2 % off
    scaled = (x.astype(jnp.float32) / jnp.float32(1 - rate)).astype(x.dtype)
    return jnp.where(kept, scaled, jnp.zeros((), x.dtype))
