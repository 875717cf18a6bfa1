"""What a mask may look like: any weights, or only such as hardware likes.

A structure of your own is a frozen dataclass with one method:

    @dataclasses.dataclass(frozen=True)
    class WholeInputs(jaxtickets.masks.Structure):
        def keep(self, scores, count, where=None):
            ...

It then works wherever ours do: in the transforms, for first masks, for pruning and for children.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxtickets.errors import MaskError
from jaxtickets.masks.counting import exact_floor
from jaxtickets.masks.kernels import KernelShape
from jaxtickets.masks.selection import keep_largest, order_bits
from jaxtickets.messages import checks

PyTree = Any
check = checks.Checks(MaskError, arrays=True)


class Structure:
    """What a mask may look like. A subclass is a frozen dataclass with a `keep` of its own.

    Its fields are numbers, so that it can be part of a plan.

    Attributes:
      reads_axes: whether leaves must come as `[..., input, output]`, in whatever order a framework
        stores them. False takes them as they are.
      closed_under_complement: whether what a mask of it leaves out could be another, so that
        anti-random children and partitions are possible.
      can_grow: whether a mask of it may evolve: what is grown, from 0, can learn.
      needs_units: whether it is of one network: `bound` to its units before it is used.
    """

    reads_axes: ClassVar[bool] = True
    closed_under_complement: ClassVar[bool] = False
    can_grow: ClassVar[bool] = True
    needs_units: ClassVar[bool] = False

    def bound(self, units: Any) -> Structure:
        """The structure of one network, whose units these are (`jaxtickets.units.find_units`)."""
        return self

    def keep(self, scores: PyTree, count: PyTree, where: PyTree | None = None) -> PyTree:
        """The mask of the largest scores that looks as it may; the contract of `keep_largest`.

        Args:
          scores: one array, or a tree of arrays, `[..., input, output]`; floating or uint32. What
            must be kept has the score inf.
          count: at most how many weights are kept: over all leaves, or a tree of counts, of which
            one may be [L] for a leaf of L layers, [L, ..., input, output].
          where: bool arrays like `scores`: only these are candidates.

        Returns:
          Bool arrays like `scores`. Where the structure cannot have `count` weights it has fewer,
          as many as it can.
        """
        raise NotImplementedError(f"{type(self).__name__} has no keep(scores, count, where).")

    def replace(
        self,
        mask: list[jax.Array],
        kept: list[jax.Array],
        grown: list[jax.Array],
        fraction: jax.Array | float,
        stacked: Sequence[bool],
    ) -> tuple[list[jax.Array], list[jax.Array]]:
        """Drops a share of each leaf's weights and grows as many others.

        Args:
          mask: per leaf the present mask, `[..., input, output]` if the structure reads axes.
          kept: scores by which weights stay.
          grown: scores by which others come.
          fraction: share of the active weights to drop.
          stacked: per leaf, whether its first axis counts layers, each with a count of its own.

        Returns:
          `(stay, new)`: what stays, and the new mask, of as many weights.
        """
        active, dropped = _to_drop(mask, fraction, stacked)
        stay = self.keep(kept, [n - d for n, d in zip(active, dropped, strict=True)], mask)
        # What stays stands first, so that what is grown fits to it.
        ranked = [jnp.where(s, jnp.inf, _as_floats(g)) for s, g in zip(stay, grown, strict=True)]
        new: list[jax.Array] = self.keep(ranked, active)
        return stay, new


@dataclasses.dataclass(frozen=True)
class Unstructured(Structure):
    """Any weights: `keep_largest`.

    >>> Unstructured().keep(jnp.array([1.0, 3.0, 2.0]), 2).tolist()
    [False, True, True]
    """

    reads_axes: ClassVar[bool] = False
    closed_under_complement: ClassVar[bool] = True

    def keep(self, scores: PyTree, count: PyTree, where: PyTree | None = None) -> PyTree:
        """The mask of the `count` largest scores; see `jaxtickets.masks.selection.keep_largest`."""
        return keep_largest(scores, count, where)

    def replace(
        self,
        mask: list[jax.Array],
        kept: list[jax.Array],
        grown: list[jax.Array],
        fraction: jax.Array | float,
        stacked: Sequence[bool],
    ) -> tuple[list[jax.Array], list[jax.Array]]:
        """See `Structure.replace`; what is grown is one more selection, of uint32 as they are."""
        active, dropped = _to_drop(mask, fraction, stacked)
        stay = keep_largest(kept, [n - d for n, d in zip(active, dropped, strict=True)], mask)
        new = keep_largest(grown, dropped, where=[~s for s in stay])
        return stay, [jnp.logical_or(s, n) for s, n in zip(stay, new, strict=True)]


UNSTRUCTURED = Unstructured()


@dataclasses.dataclass(frozen=True)
class NM(Structure):
    """At most `n` of every `m` consecutive weights along the input axis, as 2:4 on some hardware.

    In a convolution they are consecutive input channels at one position of the window. What is left
    over where the inputs are no multiple of `m` keeps at most `n` too. A count beyond what the
    pattern allows gives all that it allows, so a first mask has at most n / m of every layer: take
    the distribution "uniform".

    >>> NM(1, 2).keep(jnp.array([[1.0], [3.0], [5.0], [4.0]]), 2).tolist()
    [[False], [True], [True], [False]]

    References:
      Mishra et al., 2021, arXiv:2104.08378 (2:4); Zhou et al., 2021, arXiv:2102.04010 (N:M).
    """

    n: int
    m: int

    def __post_init__(self) -> None:
        check.integer("NM's m", self.m, "how many consecutive inputs a group has, ", least=1)
        check.integer("NM's n", self.n, "how many of a group are kept, ", least=1)
        if self.n > self.m:
            raise MaskError(f"NM keeps at most all of a group; got n={self.n} of m={self.m}.")

    def keep(self, scores: PyTree, count: PyTree, where: PyTree | None = None) -> PyTree:
        """The largest of those that are among the `n` largest of their group; see `Structure`."""
        # As many as fit and no more is a matroid, in which to take the best first is best of all.
        where = _all_of(scores) if where is None else where
        fits = jax.tree.map(lambda s, ok: self._first_of_group(s, ok) & ok, scores, where)
        return keep_largest(scores, count, fits)

    def _first_of_group(self, scores: jax.Array, where: jax.Array) -> jax.Array:
        _needs_two_axes(self, scores)
        *lead, inputs, outputs = scores.shape
        order = jnp.where(where, jnp.maximum(order_bits(scores), 1), jnp.uint32(0))
        padded = jnp.pad(order, [(0, 0)] * len(lead) + [(0, -inputs % self.m), (0, 0)])
        groups = padded.reshape(*lead, -1, self.m, outputs)
        mine, other = groups[..., :, None, :], groups[..., None, :, :]  # [..., groups, m, m, out]
        earlier = jnp.asarray(np.tri(self.m, k=-1, dtype=bool)[:, :, None])
        earlier = earlier.reshape(*[1] * (len(lead) + 1), self.m, self.m, 1)
        # XLA makes one loop of comparing and adding up: nothing of m x m is stored.
        better = (other > mine) | ((other == mine) & earlier)
        first = jnp.sum(better, axis=-2, dtype=jnp.int32) < self.n
        return first.reshape(*lead, -1, outputs)[..., :inputs, :]


class Grouped(Structure):
    """Groups of weights that are kept or pruned whole, without overlap.

    A subclass says how scores become one per group (`pool`) and how groups become weights
    (`expand`).
    """

    closed_under_complement: ClassVar[bool] = True

    def pool(self, scores: jax.Array) -> jax.Array:
        """One score per group, of the scores of a leaf `[..., input, output]`."""
        raise NotImplementedError

    def expand(self, groups: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        """The weights, in a leaf's shape, of groups of it: what belongs to one, has its value."""
        raise NotImplementedError

    def keep(self, scores: PyTree, count: PyTree, where: PyTree | None = None) -> PyTree:
        """The groups of the largest scores: of count of N weights in B groups floor(count B / N).

        Where all groups are of one size that is the largest multiple of it that is not above the
        count. Where some are smaller, at ragged edges, the number of groups is exact and that of
        weights follows from which they are. A group is a candidate where one of its weights is.
        """
        leaves, tree = jax.tree.flatten(scores)
        if not leaves:
            return scores
        flags, candidates = [jnp.ones((), bool)] * len(leaves), None
        if where is not None:
            given = zip(tree.flatten_up_to(where), leaves, strict=True)
            flags = [jnp.broadcast_to(ok, leaf.shape) for ok, leaf in given]
            candidates = [self._any(flag) for flag in flags]
        pooled = [
            self.pool(jnp.where(flag, leaf, jnp.zeros((), leaf.dtype)))
            if jnp.issubdtype(leaf.dtype, jnp.floating)
            else self.pool(leaf)
            for flag, leaf in zip(flags, leaves, strict=True)
        ]
        if jax.tree.structure(count) == tree:
            counts = []
            for c, leaf, pool in zip(jax.tree.leaves(count), leaves, pooled, strict=True):
                layers = max(len(leaf), 1) if jnp.ndim(c) else 1
                counts.append(_of_groups(c, leaf.size // layers, pool.size // layers))
            counts = jax.tree.unflatten(tree, counts)
        else:
            counts = _of_groups(count, *(sum(a.size for a in of) for of in (leaves, pooled)))
        pooled = jax.tree.unflatten(tree, pooled)
        if candidates is not None:
            candidates = jax.tree.unflatten(tree, candidates)
        chosen = keep_largest(pooled, counts, candidates)
        kept = [
            self.expand(groups, leaf.shape) & flag
            for groups, leaf, flag in zip(jax.tree.leaves(chosen), leaves, flags, strict=True)
        ]
        return jax.tree.unflatten(tree, kept)

    def replace(
        self,
        mask: list[jax.Array],
        kept: list[jax.Array],
        grown: list[jax.Array],
        fraction: jax.Array | float,
        stacked: Sequence[bool],
    ) -> tuple[list[jax.Array], list[jax.Array]]:
        """See `Structure.replace`: whole groups go and come, and their number stays what it was."""
        old = [self._any(m) for m in mask]
        stay, new = Unstructured().replace(
            old, [self.pool(s) for s in kept], [self.pool(s) for s in grown], fraction, stacked
        )
        shapes = [m.shape for m in mask]
        stay = [self.expand(s, shape) & m for s, shape, m in zip(stay, shapes, mask, strict=True)]
        return stay, [self.expand(n, shape) for n, shape in zip(new, shapes, strict=True)]

    def _any(self, flags: jax.Array) -> jax.Array:
        return self.pool(flags.astype(jnp.float32)) > 0


@dataclasses.dataclass(frozen=True)
class Blocks(Grouped):
    """Whole blocks of `rows` inputs by `columns` outputs, ranked by the mean of their scores.

    The mean, so that the smaller blocks at ragged edges rank as the others do. In a convolution
    each position of the window has blocks of its own. Random scores (uint32) rank a block by its
    first weight's.

    >>> scores = jnp.array([[1.0, 2.0, 9.0], [1.0, 2.0, 0.0]])
    >>> Blocks(2, 1).keep(scores, 5).tolist()
    [[False, True, True], [False, True, True]]

    References:
      Gray et al., 2017, "GPU Kernels for Block-Sparse Weights".
    """

    rows: int
    columns: int

    def __post_init__(self) -> None:
        check.integer("Blocks' rows", self.rows, "how many inputs a block has, ", least=1)
        check.integer("Blocks' columns", self.columns, "how many outputs a block has, ", least=1)

    def pool(self, scores: jax.Array) -> jax.Array:
        """[..., blocks of inputs, blocks of outputs]: the mean of each block's scores."""
        _needs_two_axes(self, scores)
        if scores.dtype == jnp.uint32:
            return scores[..., :: self.rows, :: self.columns]
        *lead, inputs, outputs = scores.shape
        edges = [(0, -inputs % self.rows), (0, -outputs % self.columns)]
        padded = jnp.pad(scores.astype(jnp.float32), [(0, 0)] * len(lead) + edges)
        down, across = padded.shape[-2] // self.rows, padded.shape[-1] // self.columns
        blocks = padded.reshape(*lead, down, self.rows, across, self.columns)
        high = np.minimum(self.rows, inputs - self.rows * np.arange(down))
        wide = np.minimum(self.columns, outputs - self.columns * np.arange(across))
        sizes = np.outer(high, wide).astype(np.float32).reshape(*[1] * len(lead), down, across)
        return jnp.sum(blocks, axis=(-3, -1)) / sizes

    def expand(self, groups: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        """The weights of blocks."""
        tall = jnp.repeat(groups, self.rows, axis=-2)
        wide = jnp.repeat(tall, self.columns, axis=-1)
        return wide[..., : shape[-2], : shape[-1]]


def structured(structure: Any, *, grows: bool = False) -> Structure:
    """`structure`, if it is one, of a mask that `grows` or not.

    Raises:
      MaskError: it is not.
    """
    if not isinstance(structure, Structure):
        hint = ""
        if isinstance(structure, type) and issubclass(structure, Structure):
            hint = f" Call it: {structure.__name__}(...)."
        raise MaskError(
            "structure says what a mask may look like, such as jaxtickets.masks.NM(2, 4); got"
            f" {checks.shown(structure)}.{hint}"
        )
    if grows and not structure.can_grow:
        hint = ""
        if structure.needs_units:
            hint = (
                " In a plan whole units come with fresh weights: Evolve(structure=Units()); in a"
                " loop of your own by jaxtickets.transforms.exchange_units."
            )
        raise MaskError(
            f"what {structure} grows begins with zeros before and behind it, and no gradient would"
            f" ever reach it. Prune with it, or take another structure.{hint}"
        )
    return structure


def arrange(
    structure: Structure, leaves: Sequence[jax.Array], shapes: Sequence[KernelShape], rows: bool
) -> list[jax.Array]:
    """Leaves as a structure takes them: `[..., input, output]` if it reads axes.

    Args:
      structure: for whom.
      leaves: in the order in which they are stored.
      shapes: what their axes are.
      rows: whether a stack of layers gets one leading axis of them, for a count each.
    """
    out = []
    for leaf, shape in zip(leaves, shapes, strict=True):
        if structure.reads_axes and shape.channels == "first" and len(shape.layer) > 1:
            leaf = jnp.moveaxis(leaf, (shape.stack + 1, shape.stack), (-2, -1))
        if rows and shape.stack > 1:
            leaf = leaf.reshape(shape.layers, *leaf.shape[shape.stack :])
        out.append(leaf)
    return out


def arrange_back(
    structure: Structure, leaves: Sequence[jax.Array], shapes: Sequence[KernelShape]
) -> list[jax.Array]:
    """The inverse of `arrange`: leaves as they are stored."""
    out = []
    for leaf, shape in zip(leaves, shapes, strict=True):
        if structure.reads_axes and shape.channels == "first" and len(shape.layer) > 1:
            outputs, inputs, *spatial = shape.layer
            leaf = leaf.reshape(*shape[: shape.stack], *spatial, inputs, outputs)
            leaf = jnp.moveaxis(leaf, (-2, -1), (shape.stack + 1, shape.stack))
        out.append(leaf.reshape(tuple(shape)))
    return out


def _to_drop(
    mask: list[jax.Array], fraction: jax.Array | float, stacked: Sequence[bool]
) -> tuple[list[jax.Array], list[jax.Array]]:
    """Per leaf, or per layer of a stack: how many are active, and how many of them go.

    Where all are active none could come, and none goes.
    """
    active, dropped = [], []
    for m, in_rows in zip(mask, stacked, strict=True):
        n = jnp.sum(m, tuple(range(1, m.ndim)) if in_rows else None, dtype=jnp.int32)
        size = m.size // max(len(m), 1) if in_rows else m.size
        active.append(n)
        dropped.append(jnp.where(n == size, 0, exact_floor(fraction, n)))
    return active, dropped


def _of_groups(count: Any, n: int, groups: int) -> Any:
    """floor(count * groups / n): how many groups so many of n weights are; exact, and in int32."""
    if n % max(groups, 1) == 0:
        return count // max(n // max(groups, 1), 1)
    if isinstance(count, int):
        return count * groups // n
    # Long multiplication, in which nothing leaves uint32: count * groups = whole * n + rest.
    count = jnp.minimum(jnp.asarray(count), n).astype(jnp.uint32)
    whole, rest, size = jnp.zeros_like(count), jnp.zeros_like(count), jnp.uint32(n)
    for bit in f"{groups:b}":
        over = rest + rest >= size
        whole, rest = whole + whole + over, rest + rest - jnp.where(over, size, jnp.uint32(0))
        if bit == "1":
            over = rest + count >= size
            whole, rest = whole + over, rest + count - jnp.where(over, size, jnp.uint32(0))
    return whole.astype(jnp.int32)


def _as_floats(scores: jax.Array) -> jax.Array:
    """Scores in float32; random bits as numbers in [0, 1)."""
    if scores.dtype == jnp.uint32:
        return (scores >> 8).astype(jnp.float32) * jnp.float32(2.0**-24)
    return scores.astype(jnp.float32)


def _all_of(scores: PyTree) -> PyTree:
    return jax.tree.map(lambda s: jnp.ones(s.shape, bool), scores)


def _needs_two_axes(structure: Structure, scores: jax.Array) -> None:
    if scores.ndim < 2:
        raise MaskError(
            f"{structure} needs leaves of an input and an output axis; got the shape"
            f" {list(scores.shape)}. Leave it dense by the rules in prunable."
        )
