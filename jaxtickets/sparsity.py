"""How many weights each layer keeps, and how sparsity and drop fraction move over time.

Budgets are integers: a layer of N weights at sparsity S keeps exactly N - floor(S * N).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp

from jaxtickets import masks
from jaxtickets.masks import KERNELS, MaskError, Rules
from jaxtickets.selection import keep_largest

PyTree = Any
Distribution = Literal["uniform", "er", "erk"]
Schedule = Callable[[Any], Any]


def check_sparsity(sparsity: float, name: str = "sparsity") -> None:
    """Raise `MaskError` unless 0 <= sparsity < 1."""
    if not (isinstance(sparsity, int | float) and 0 <= sparsity < 1):
        raise MaskError(f"{name} is the share of zeros, in [0, 1): got {sparsity!r}. A sparsity of 0.8 keeps a fifth of the weights.")


def _as_written(number: float) -> Fraction:
    return Fraction(repr(float(number)))


def kept(size: int, sparsity: float) -> int:
    """N - floor(S * N), with S as it is written: 0.29 of 100 is 29, whatever its float is.

    >>> kept(100, 0.29)
    71
    """
    return size - part(size, sparsity)


def part(size: int, share: float) -> int:
    """floor(share * N), with the share as it is written.

    >>> part(100, 0.29), int(0.29 * 100)
    (29, 28)
    """
    return math.floor(_as_written(share) * size)


def layer_budgets(
    shapes: Mapping[str, tuple[int, ...]],
    sparsity: float,
    distribution: Distribution = "erk",
    dense: Sequence[str] = (),
) -> dict[str, int]:
    """How many weights every layer keeps.

    `uniform`: the same sparsity everywhere. `er`, `erk` (Erdos-Renyi, and its kernel form): the density of layer l is
    eps * sum(shape_l) / prod(shape_l); ER takes only the last two axes, input and output. eps solves for the total;
    while a layer's density would exceed 1, all layers with the largest raw score become dense and eps is solved again.

    Args:
      shapes: path to shape, of the prunable leaves.
      sparsity: share of zeros over all of them, in [0, 1).
      distribution: "uniform", "er" or "erk".
      dense: path patterns of layers to leave dense; they count towards the budget for ER and ERK and not for uniform
        (as RigL leaves the first layer dense on ImageNet).

    Raises:
      MaskError: a sparsity outside [0, 1), an unknown distribution, a pattern that matches nothing, or a budget that
        cannot be met: less than one weight per layer, or less than the dense layers alone need.

    >>> layer_budgets({"a": (8, 8), "b": (64, 64)}, 0.8)
    {'a': 64, 'b': 768}

    References:
      Mocanu et al., 2018, Nature Communications 9 (ER); Evci et al., 2020, arXiv:1911.11134, section 3 (ERK).
    """
    check_sparsity(sparsity)
    if distribution not in get_args(Distribution):
        raise MaskError(f"distribution is one of {', '.join(get_args(Distribution))}; got {distribution!r}.")
    for pattern in dense:
        if not any(re.search(pattern, path) for path in shapes):
            raise MaskError(f"dense={pattern!r} matches none of the layers {', '.join(shapes)}.")
    sizes = {path: math.prod(shape) for path, shape in shapes.items()}
    left_dense = {path for path in shapes if any(re.search(pattern, path) for pattern in dense)}
    total = sum(sizes.values())
    if distribution == "uniform" or sparsity == 0:
        return {path: n if path in left_dense else kept(n, sparsity) for path, n in sizes.items()}

    budget = (1 - _as_written(sparsity)) * total  # in rationals: floats would put a layer off by one
    if budget < len(sizes):
        raise MaskError(
            f"sparsity {sparsity} leaves {float(budget):.1f} of {total} weights to {len(sizes)} layers: not one each. Lower it."
        )
    needed = sum(sizes[path] if path in left_dense else 1 for path in sizes)
    if budget < needed:
        raise MaskError(
            f"sparsity {sparsity} leaves {float(budget):.1f} weights; the layers left dense, {sorted(left_dense)}, and one weight in "
            f"every other layer are {needed}. Lower it."
        )
    axes = {path: shape[-2:] if distribution == "er" else shape for path, shape in shapes.items()}
    raw = {path: Fraction(sum(shape), math.prod(shape)) for path, shape in axes.items()}
    while True:
        open_ = [path for path in shapes if path not in left_dense]
        if not open_:
            break
        left = budget - sum(sizes[path] for path in left_dense)
        eps = left / sum(raw[path] * sizes[path] for path in open_)
        largest = max(raw[path] for path in open_)
        if eps * largest <= 1:
            break
        left_dense |= {path for path in open_ if raw[path] == largest}
    return {path: n if path in left_dense else n - math.floor((1 - eps * raw[path]) * n) for path, n in sizes.items()}


def prunable_shapes(params: PyTree, rules: Rules = KERNELS) -> dict[str, tuple[int, ...]]:
    """Path to shape of the leaves that may be masked."""
    leaves = zip(masks.leaf_paths(params), jax.tree.leaves(params), jax.tree.leaves(masks.prunable(params, rules)), strict=True)
    return {path: tuple(leaf.shape) for path, leaf, may in leaves if may}


def random_mask(
    key: jax.Array,
    params: PyTree,
    sparsity: float,
    distribution: Distribution = "erk",
    rules: Rules = KERNELS,
    dense: Sequence[str] = (),
) -> PyTree:
    """A random mask with exact layer-wise counts: a shuffle of that many ones, not a Bernoulli draw.

    Args:
      key: members need different keys to get different masks.
      params: the tree to mask; only shapes are read.
      sparsity: share of zeros, in [0, 1).
      distribution: see `layer_budgets`.
      rules: see `masks.prunable`.
      dense: see `layer_budgets`.

    Returns:
      A mask tree like `params`. Layers that the budget leaves whole are all True, not dense markers: they count.

    >>> params = {"kernel": jnp.ones((10, 10)), "bias": jnp.ones(10)}
    >>> mask = random_mask(jax.random.key(0), params, 0.8, "uniform")
    >>> masks.count(mask), mask["bias"].shape
    (20, ())

    Differs:
      FreeTickets' code draws Bernoulli masks, whose counts wander.
    """
    budgets = layer_budgets(prunable_shapes(params, rules), sparsity, distribution, dense)

    leaves, tree = jax.tree.flatten(params)
    covered = [
        (i, leaf, budgets[path]) for i, (path, leaf) in enumerate(zip(masks.leaf_paths(params), leaves, strict=True)) if path in budgets
    ]
    draws = random_bits(key, [leaf for _, leaf, _ in covered])
    drawn = [jnp.ones((), bool) for _ in leaves]  # one buffer each, or a donated mask would be donated twice
    for (i, _, _), mask in zip(covered, keep_largest(draws, [count for _, _, count in covered]), strict=True):
        drawn[i] = mask
    return jax.tree.unflatten(tree, drawn)


def random_bits(key: jax.Array, leaves: Sequence[Any]) -> list[jax.Array]:
    """uint32 random bits in the shapes of `leaves`: one draw for all, as a threefry per leaf takes longer to compile than to run."""
    bits = jax.random.bits(key, (sum(math.prod(leaf.shape) for leaf in leaves),), jnp.uint32)
    draws, first = [], 0
    for leaf in leaves:
        size = math.prod(leaf.shape)
        draws.append(bits[first : first + size].reshape(leaf.shape))
        first += size
    return draws


def constant(value: float) -> Schedule:
    """The same at every step: FreeTickets on CIFAR keeps its drop fraction."""
    return lambda step: value


def cosine(value: float, steps: int) -> Schedule:
    """From `value` to 0 along half a cosine: RigL's drop fraction (Evci et al., 2020, eq. 1).

    >>> round(float(cosine(0.5, 100)(50)), 6)
    0.25
    """
    return lambda step: value / 2 * (1 + jnp.cos(jnp.pi * jnp.clip(step / steps, 0, 1)))


def linear(value: float, steps: int) -> Schedule:
    """From `value` to 0 along a line."""
    return lambda step: value * (1 - jnp.clip(step / steps, 0, 1))


def cubic(final: float, begin: int, end: int, initial: float = 0.0) -> Schedule:
    """Sparsity of gradual pruning: s_t = s_f + (s_i - s_f) (1 - (t - t_0) / (t_n - t_0))^3.

    >>> [round(float(cubic(0.8, 0, 100)(t)), 3) for t in (0, 50, 100, 200)]
    [0.0, 0.7, 0.8, 0.8]

    References:
      Zhu and Gupta, 2017, arXiv:1710.01878, equation 1.
    """
    check_sparsity(final, "final")
    if end <= begin:
        raise MaskError(f"gradual pruning needs begin < end; got begin={begin}, end={end} steps.")
    return lambda step: final + (initial - final) * (1 - jnp.clip((step - begin) / (end - begin), 0, 1)) ** 3
