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
import numpy as np

from jaxtickets.errors import MaskError
from jaxtickets.masks import kernels, trees
from jaxtickets.masks.counting import as_written
from jaxtickets.masks.counting import exact_floor as exact_floor
from jaxtickets.masks.counting import num_kept as num_kept
from jaxtickets.masks.kernels import Channels, KernelShape
from jaxtickets.masks.rules import KERNELS, Rules
from jaxtickets.masks.structure import (
    UNSTRUCTURED,
    Structure,
    Unstructured,
    arrange,
    arrange_back,
    structured,
)
from jaxtickets.messages import checks
from jaxtickets.messages.pytrees import some

check = checks.Checks(MaskError, arrays=True)

PyTree = Any
Distribution = Literal["uniform", "er", "erk"]
Schedule = Callable[[Any], Any]


def check_sparsity(sparsity: float, name: str = "sparsity") -> None:
    """Raise `MaskError` unless 0 <= sparsity < 1, or it is traced."""
    hint = " A sparsity of 0.8 keeps a fifth of the weights."
    if checks.is_number(sparsity) and 1 < sparsity < 100:
        hint = f" Is {sparsity / 100:g} meant? It keeps {1 - sparsity / 100:.3g} of the weights."
    check.fraction(name, sparsity, "the share of zeros, ", ends="[)", hint=hint)


def layer_budgets(
    shapes: Mapping[str, tuple[int, ...]],
    sparsity: float,
    distribution: Distribution = "erk",
    dense: Sequence[str] = (),
) -> dict[str, int]:
    """How many weights every layer keeps.

    `uniform`: the same sparsity everywhere. `er`, `erk` (Erdos-Renyi, and its kernel form): the
    density of layer l is eps * sum(shape_l) / prod(shape_l); ER takes only two axes, input and
    output. eps solves for the total; while a layer's density would exceed 1, all layers with the
    largest raw score become dense and eps is solved again.

    Args:
      shapes: path to shape, of the prunable leaves. `prunable_shapes` makes them, and knows which
        axes of a kernel are input and output, and which count layers in a stack; of a plain tuple
        the last two are input and output, and of one with a path that ends in "weight"
        (PyTorch, Equinox) the first two. Every layer of a stack has a budget of its own.
      sparsity: share of zeros over all of them, in [0, 1).
      distribution: "uniform", "er" or "erk".
      dense: path patterns of layers to leave dense; they count towards the budget for ER and ERK
        and not for uniform (as RigL leaves the first layer dense on ImageNet).

    Raises:
      MaskError: a sparsity outside [0, 1), an unknown distribution, a pattern that matches nothing,
        or a budget that cannot be met: less than one weight per layer, or less than the dense
        layers alone need.

    >>> layer_budgets({"a": (8, 8), "b": (64, 64)}, 0.8)
    {'a': 64, 'b': 768}

    References:
      Mocanu et al., 2018, Nature Communications 9 (ER); Evci et al., 2020, arXiv:1911.11134,
      section 3 (ERK).
    """
    check_sparsity(sparsity)
    check.choice("distribution", distribution, get_args(Distribution))
    check.patterns("dense", dense)
    if not isinstance(shapes, Mapping):
        raise MaskError(f"shapes is a dict, path to shape; got {checks.shown(shapes)}.")
    for path, shape in shapes.items():
        if not isinstance(shape, Sequence) or not all(
            isinstance(n, int | np.integer) and n >= 0 for n in shape
        ):
            raise MaskError(
                f"the shape of {path!r} is a tuple of whole numbers, at least 0; got"
                f" {checks.shown(shape)}."
            )
    for pattern in dense:
        if not any(re.search(pattern, path) for path in shapes):
            raise MaskError(f"dense={pattern!r} matches none of the layers {', '.join(shapes)}.")
    known = {path: _known(path, shape) for path, shape in shapes.items()}
    # of one layer, of which there may be a stack
    sizes = {path: math.prod(shape.layer) for path, shape in known.items()}
    many = {path: shape.layers for path, shape in known.items()}
    left_dense = {path for path in shapes if any(re.search(pattern, path) for pattern in dense)}
    total = sum(n * many[path] for path, n in sizes.items())
    share = as_written(sparsity)
    if distribution == "uniform" or share == 0:
        return {
            path: many[path] * (n if path in left_dense else num_kept(n, float(share)))
            for path, n in sizes.items()
        }

    # in rationals: floats would put a layer off by one
    budget = (1 - share) * total
    # a layer without weights has no density
    there = [path for path, n in sizes.items() if n and many[path]]
    layers = sum(many[path] for path in there)
    if budget < layers:
        raise MaskError(
            f"sparsity {sparsity} leaves {float(budget):.1f} of {total} weights to {layers} layers:"
            " not one each. Lower it."
        )
    needed = sum(many[path] * (sizes[path] if path in left_dense else 1) for path in there)
    if budget < needed:
        raise MaskError(
            f"sparsity {sparsity} leaves {float(budget):.1f} weights; the layers left dense,"
            f" {sorted(left_dense)}, and one weight in every other layer are {needed}. Lower it."
        )
    axes = {path: known[path].fans if distribution == "er" else known[path].layer for path in there}
    raw = {path: Fraction(sum(shape), math.prod(shape)) for path, shape in axes.items()}
    while True:
        open_ = [path for path in there if path not in left_dense]
        if not open_:
            break
        left = budget - sum(many[path] * sizes[path] for path in left_dense)
        eps = left / sum(many[path] * raw[path] * sizes[path] for path in open_)
        largest = max(raw[path] for path in open_)
        if eps * largest <= 1:
            break
        left_dense |= {path for path in open_ if raw[path] == largest}

    def keeps(path: str, n: int) -> int:
        return (
            n
            if path in left_dense or path not in raw
            else n - math.floor((1 - eps * raw[path]) * n)
        )

    return {path: many[path] * keeps(path, n) for path, n in sizes.items()}


def _known(path: str, shape: Sequence[int]) -> KernelShape:
    if isinstance(shape, KernelShape):
        return shape
    return kernels.shape_of(
        kernels.NamedLeaf(path, jax.ShapeDtypeStruct(tuple(shape), jnp.float32), {}, {})
    )


def prunable_shapes(
    params: PyTree,
    rules: Rules = KERNELS,
    stacked: Sequence[str] | None = None,
    channels: Channels = "auto",
) -> dict[str, KernelShape]:
    """Path to shape of the leaves that may be masked, each with what its axes are.

    Args:
      params: a tree of arrays, or of anything with a shape.
      rules: see `jaxtickets.masks.prunable`.
      stacked: path patterns of leaves whose first axis counts layers, as `nn.scan`, `nnx.vmap` and
        `eqx.filter_vmap` make them: each layer has its own budget. None recognises them where that
        can be told: Equinox' own modules know their axes, and elsewhere a bias [L, out] beside a
        kernel [L, ..., in, out], alone with it, tells. A stacked kernel without a bias does not:
        name it. [] says that there are none.
      channels: where a kernel's input and output axes stand: "last" (Flax, Haiku), "first"
        (PyTorch, Equinox), or "auto": first in leaves called "weight". ER's budgets and
        structures depend on it, and nothing else.
    """
    if stacked is not None:
        check.patterns("stacked", stacked)
    check.choice("channels", channels, get_args(Channels))
    there = zip(
        kernels.named_leaves(params), jax.tree.leaves(trees.prunable(params, rules)), strict=True
    )
    shapes = {named.path: kernels.shape_of(named, stacked, channels) for named, may in there if may}
    for pattern in stacked or ():
        if not any(re.search(pattern, path) and shape.stack for path, shape in shapes.items()):
            raise MaskError(
                f"stacked={pattern!r} matches no prunable leaf of two axes or more; those are"
                f" {some(list(shapes))}."
            )
    return shapes


def random_mask(
    key: jax.Array,
    params: PyTree,
    sparsity: float,
    distribution: Distribution = "erk",
    rules: Rules = KERNELS,
    dense: Sequence[str] = (),
    stacked: Sequence[str] | None = None,
    channels: Channels = "auto",
    structure: Structure = UNSTRUCTURED,
) -> PyTree:
    """A random mask with exact layer-wise counts: that many ones, shuffled; no Bernoulli draw.

    Args:
      key: members need different keys to get different trees.
      params: the tree to mask; only shapes are read.
      sparsity: share of zeros, in [0, 1).
      distribution: see `layer_budgets`.
      rules: see `jaxtickets.masks.prunable`.
      dense: see `layer_budgets`.
      stacked: see `prunable_shapes`.
      channels: see `prunable_shapes`.
      structure: what the mask may look like (see `jaxtickets.masks.structure`). Where it cannot
        have a layer's count, it has fewer.

    Raises:
      MaskError: what `layer_budgets` raises; a structure that leaves a layer nothing.

    Returns:
      A mask tree like `params`. Layers that the budget leaves whole are all True, not dense
        markers: they count.

    >>> params = {"kernel": jnp.ones((10, 10)), "bias": jnp.ones(10)}
    >>> mask = random_mask(jax.random.key(0), params, 0.8, "uniform")
    >>> trees.count(mask), mask["bias"].shape
    (20, ())

    Differs:
      FreeTickets' code draws Bernoulli masks, whose counts wander.
    """
    check.key("key", key)
    shapes = prunable_shapes(params, rules, stacked, channels)
    budgets = layer_budgets(shapes, sparsity, distribution, dense)

    leaves, tree = jax.tree.flatten(params)
    paths = trees.leaf_paths(params)
    covered = [i for i, path in enumerate(paths) if path in budgets]
    known = [shapes[paths[i]] for i in covered]
    draws = random_bits(key, [leaves[i] for i in covered])
    draws = arrange(structured(structure), draws, known, rows=True)
    counts: list[Any] = []
    for i, shape in zip(covered, known, strict=True):
        count = budgets[paths[i]]
        each = count // max(shape.layers, 1)
        counts.append(np.full(shape.layers, each, np.int32) if shape.stack else count)
    if not isinstance(structure, Unstructured):
        _check_counts(structure, draws, counts, [paths[i] for i in covered])
    # one buffer each, or a donated mask would be donated twice
    drawn = [jnp.ones((), bool) for _ in leaves]
    chosen = arrange_back(structure, structure.keep(draws, counts), known)
    for i, mask in zip(covered, chosen, strict=True):
        drawn[i] = mask
    return jax.tree.unflatten(tree, drawn)


def _check_counts(
    structure: Structure, draws: list[jax.Array], counts: list[Any], paths: list[str]
) -> None:
    """Raise `MaskError` where a structure would leave nothing of a layer that has a budget."""
    with jax.ensure_compile_time_eval():  # counts are known, and the same for every draw
        kept = structure.keep([jnp.zeros(d.shape, d.dtype) for d in draws], counts)
        for path, mask, count in zip(paths, kept, counts, strict=True):
            if np.any(count) and not np.asarray(mask).any():
                raise MaskError(
                    f"{structure} leaves nothing of {path}: its budget is {np.max(count)} of"
                    f" {mask.size} weights. Lower the sparsity, leave the layer dense by dense= or"
                    " prunable=, or take a finer structure."
                )


def random_bits(key: jax.Array, leaves: Sequence[Any]) -> list[jax.Array]:
    """uint32 random bits in the shapes of `leaves`: one draw for all of them.

    A threefry for each leaf takes longer to compile than to run.
    """
    bits = jax.random.bits(key, (sum(math.prod(leaf.shape) for leaf in leaves),), jnp.uint32)
    draws, first = [], 0
    for leaf in leaves:
        size = math.prod(leaf.shape)
        draws.append(bits[first : first + size].reshape(leaf.shape))
        first += size
    return draws


def constant(value: float) -> Schedule:
    """The same at every step: FreeTickets on CIFAR keeps its drop fraction."""
    _check_schedule("constant", value)
    return lambda step: value


def cosine(value: float, steps: int) -> Schedule:
    """From `value` to 0 along half a cosine: RigL's drop fraction (Evci et al., 2020, eq. 1).

    >>> round(float(cosine(0.5, 100)(50)), 6)
    0.25
    """
    _check_schedule("cosine", value, steps)
    return lambda step: value / 2 * (1 + jnp.cos(jnp.pi * jnp.clip(step / steps, 0, 1)))


def linear(value: float, steps: int) -> Schedule:
    """From `value` to 0 along a line."""
    _check_schedule("linear", value, steps)
    return lambda step: value * (1 - jnp.clip(step / steps, 0, 1))


def _check_schedule(name: str, value: Any, steps: Any = 1) -> None:
    check.number(f"{name}: value", value, "a finite number")
    check.integer(f"{name}: steps", steps, "how many steps the way takes, ", least=1)


def cubic(final: float, begin: int, end: int, initial: float = 0.0) -> Schedule:
    """Sparsity of gradual pruning: s_t = s_f + (s_i - s_f) (1 - (t - t_0) / (t_n - t_0))^3.

    >>> [round(float(cubic(0.8, 0, 100)(t)), 3) for t in (0, 50, 100, 200)]
    [0.0, 0.7, 0.8, 0.8]

    References:
      Zhu and Gupta, 2017, arXiv:1710.01878, equation 1.
    """
    check_sparsity(final, "final")
    check_sparsity(initial, "initial")
    check.number("begin", begin, "the step at which the schedule starts, a finite number")
    check.number("end", end, "the step from which the final sparsity holds, a finite number")
    if not (checks.is_traced(begin) or checks.is_traced(end)) and end <= begin:
        raise MaskError(f"gradual pruning needs begin < end; got begin={begin}, end={end} steps.")
    return lambda step: (
        final + (initial - final) * (1 - jnp.clip((step - begin) / (end - begin), 0, 1)) ** 3
    )
