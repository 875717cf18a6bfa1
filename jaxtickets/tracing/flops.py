"""Forward FLOPs of every parameter, read off a model's jaxpr.

A mask thins out leaves of the parameter tree, so the cost of a sparse network needs the FLOPs of
each leaf, whatever framework made it. The function is traced abstractly (nothing is computed) and
every parameter is followed to the convolutions and matrix products that use it. What is known of a
value is its *origin*: it is data (it depends on an input), or made of parameters and constants
only, and then of which ones, in which shares. Reshaping, casting, masking and scaling keep an
origin; as soon as data takes part, the result is data.
"""

from __future__ import annotations

import collections
import dataclasses
import itertools
import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core as jex

from jaxtickets.tracing.jaxprs import (
    called,
    read_branches,
    read_scan,
    read_shards,
    read_while,
    subjaxprs,
    trace,
)

PyTree = Any

# None: data. (): a constant. Otherwise pieces laid side by side, each its share of the value
# (shares sum to 1) and the leaves mixed into it: kernel * mask is one piece of two leaves,
# concatenate([query, key]) two pieces of one leaf.
Origin = tuple[tuple[Fraction, frozenset[int]], ...] | None

# Operations on several operands whose i-th result comes from the i-th operand alone.
_OPERANDWISE = frozenset(
    {
        "optimization_barrier",
        "device_put",
        "psum",
        "psum_invariant",
        "pmax",
        "pmin",
        "pvary",
        "pcast",
        "reshard",
    }
)


@dataclasses.dataclass(frozen=True)
class LayerFlops:
    """Forward FLOPs of one parameter leaf.

    Args:
      path: the leaf's path, as mask rules see it: `"Dense_0/kernel"`.
      shape: the leaf's shape.
      flops: 2 x multiply-adds, for one example, in the convolutions and products that use the leaf;
        0 for biases, norms and embedding tables.
    """

    path: str
    shape: tuple[int, ...]
    flops: int


@dataclasses.dataclass(frozen=True)
class ForwardFlops:
    """Forward FLOPs of one example, split over the parameters.

    Args:
      layers: one entry for every array among the parameters, in tree order.
      other: FLOPs of products and convolutions that no parameter enters (attention scores).
      inexact: empty in the usual case; otherwise the names of operations with products inside that
        run nobody knows how often (`"while"`, `"pallas_call"`). They are counted once, so the
        numbers are lower bounds.
    """

    layers: tuple[LayerFlops, ...]
    other: int
    inexact: tuple[str, ...] = ()

    @property
    def total(self) -> int:
        """FLOPs of one example: all layers and `other`."""
        return sum(layer.flops for layer in self.layers) + self.other

    @property
    def by_path(self) -> dict[str, int]:
        """FLOPs of each leaf by its path."""
        return {layer.path: layer.flops for layer in self.layers}


def forward_flops(
    apply: Callable[..., Any], params: PyTree, *args: Any, batch: int
) -> ForwardFlops:
    """Counts the forward FLOPs of `apply(params, *args)` and credits them to the parameters.

    Counted are convolutions (output positions x kernel window x input channels / groups x output
    channels, with padding counted as if it were data, and without the taps that meet the zeros that
    `lhs_dilation` puts between inputs) and products, two FLOPs a multiply-add. Element-wise
    operations, norms, pooling and look-ups are ignored, as in the literature.

    A product of a parameter is credited to it, also when it arrives reshaped, cast, masked, scaled,
    sliced or inside `jit`, `remat`, `vmap`, `scan`, `cond` (the dearest branch) or a custom
    derivative. Where several leaves are mixed (kernel * outer(r, s), a product of two factors), the
    one with the most elements gets it; where leaves are concatenated, each gets its share. A leaf
    used twice gets the sum.

    Args:
      apply: any function of `params` and `args`. What it closes over counts as constant.
      params: the parameters, arrays or `jax.ShapeDtypeStruct`s; leaves that are neither (Equinox
        keeps functions among its leaves) reach `apply` as they are.
      *args: the inputs, likewise; every array among them is *data*. Close over masks and statistics
        that kernels are multiplied with, or make them part of `params`: otherwise those kernels
        become data and land in `other`.
      batch: how many examples `args` hold; FLOPs are divided by it and rounded. Work done once per
        batch, such as multiplying two factors, is spread over the batch.

    Returns:
      The FLOPs of one example, by leaf, of the operations as written: XLA may drop some whose
        result is unused.

    Raises:
      ValueError: `batch` is not a positive integer.

    >>> import jax.numpy as jnp
    >>> def mlp(params, x):
    ...     return jnp.tanh(x @ params["w1"] + params["b"]) @ params["w2"]
    >>> params = {"b": jnp.zeros(16), "w1": jnp.zeros((8, 16)), "w2": jnp.zeros((16, 4))}
    >>> count = forward_flops(mlp, params, jax.ShapeDtypeStruct((32, 8), jnp.float32), batch=32)
    >>> count.by_path, count.total
    ({'b': 0, 'w1': 256, 'w2': 128}, 384)

    References:
      Evci et al. 2020, "Rigging the Lottery", arXiv:1911.11134, appendix: which operations count.
    """
    if isinstance(batch, bool) or not isinstance(batch, int | np.integer) or batch < 1:
        raise ValueError(
            "forward_flops: batch must be the number of examples in args, an integer of at least"
            f" 1, got {batch!r}. The usual cause is an unbatched input: add x[None] and pass"
            " batch=1."
        )
    leaves_with_path = jax.tree_util.tree_leaves_with_path(params)
    leaves, treedef = jax.tree.flatten((params, args))
    traced = [
        i for i, leaf in enumerate(leaves) if hasattr(leaf, "shape") and hasattr(leaf, "dtype")
    ]

    def flat(*values: Any) -> Any:
        full = list(leaves)
        for i, value in zip(traced, values, strict=True):
            full[i] = value
        params, args = jax.tree.unflatten(treedef, full)
        return [leaf for leaf in jax.tree.leaves(apply(params, *args)) if hasattr(leaf, "dtype")]

    program = trace(flat, *[leaves[i] for i in traced])
    owned = [i for i in traced if i < len(leaves_with_path)]
    origins: list[Origin] = [((Fraction(1), frozenset({n})),) for n in range(len(owned))]
    origins += [None] * (len(traced) - len(owned))
    # Of leaves mixed into one value the largest is its kernel; of equally large ones a floating one
    # (another may be a mask).
    rank = [
        (math.prod(leaves[i].shape), jnp.issubdtype(leaves[i].dtype, np.inexact), -n)
        for n, i in enumerate(owned)
    ]
    _, tally = _Walk(rank).jaxpr(program, origins)

    def per_example(index: int | None) -> int:
        return math.floor(tally.flops[index] / int(batch) + Fraction(1, 2))

    # NNX's Param adds "/value" to a path; mask rules do not see it either.
    paths = [
        jax.tree_util.keystr(leaves_with_path[i][0], simple=True, separator="/").removesuffix(
            "/value"
        )
        for i in owned
    ]
    layers = tuple(
        LayerFlops(paths[n], tuple(leaves[i].shape), per_example(n)) for n, i in enumerate(owned)
    )
    return ForwardFlops(layers, per_example(None), tuple(sorted(tally.inexact)))


@dataclasses.dataclass
class _Tally:
    """FLOPs by leaf index, exact, and the operations that could only be bounded.

    The index None is of no parameter.
    """

    flops: dict[int | None, Fraction] = dataclasses.field(
        default_factory=lambda: collections.defaultdict(Fraction)
    )
    inexact: set[str] = dataclasses.field(default_factory=set)

    def add(self, other: _Tally, times: int = 1) -> None:
        for index, flops in other.flops.items():
            self.flops[index] += flops * times
        self.inexact |= other.inexact

    def add_bound(self, name: str, other: _Tally) -> None:
        self.add(other)
        if other.total():
            self.inexact.add(name)

    def total(self) -> Fraction:
        return sum(self.flops.values(), Fraction(0))


def _join(origins: Sequence[Origin]) -> Origin:
    """The origin of a value computed element by element from others."""
    if any(origin is None for origin in origins):
        return None
    known_origins = [origin for origin in origins if origin]
    layouts = {tuple(share for share, _ in origin) for origin in known_origins if len(origin) > 1}
    # single pieces; or laid out differently, and then only what is in it can be said, not where
    if len(layouts) != 1:
        return _blend(tuple(itertools.chain.from_iterable(known_origins)))
    (layout,) = layouts
    columns = [origin if len(origin) > 1 else origin * len(layout) for origin in known_origins]
    return tuple(
        (share, frozenset().union(*(c[i][1] for c in columns))) for i, share in enumerate(layout)
    )


def _blend(origin: Origin) -> Origin:
    """One piece made of everything in `origin`; data stays data, a constant a constant."""
    return (
        ((Fraction(1), frozenset().union(*(leaves for _, leaves in origin))),) if origin else origin
    )


def _concatenate(origins: Sequence[Origin], sizes: Sequence[int]) -> Origin:
    """The origin of values laid side by side.

    Constants among them (zero blocks) belong to the rest.
    """
    if any(origin is None for origin in origins):
        return None
    weights: dict[frozenset[int], Fraction] = collections.defaultdict(Fraction)
    for origin, size in zip(origins, sizes, strict=True):
        for share, leaves in origin or ():
            weights[leaves] += share * size
    total = sum(weights.values())
    return tuple((weight / total, leaves) for leaves, weight in weights.items() if weight)


def _mul_adds(eqn: Any) -> int:
    """Multiply-adds of a product or convolution over the whole batch."""
    lhs, rhs, out = (
        eqn.invars[0].aval.shape,
        eqn.invars[1].aval.shape,
        math.prod(eqn.outvars[0].aval.shape),
    )
    if eqn.primitive.name == "dot_general":
        (contracted, _), _ = eqn.params["dimension_numbers"]
        return out * math.prod(lhs[d] for d in contracted)
    if eqn.primitive.name == "ragged_dot_general":  # every row of lhs meets one group's matrix
        numbers = eqn.params["ragged_dot_dimension_numbers"]
        (_, contracted), (_, batched) = numbers.dot_dimension_numbers
        inner = {*contracted, *batched, *numbers.rhs_group_dimensions}
        return math.prod(lhs) * math.prod(n for d, n in enumerate(rhs) if d not in inner)
    # taps x input channels / groups
    return out * (math.prod(rhs) // max(1, rhs[eqn.params["dimension_numbers"].rhs_spec[0]]))


def _taps_on_data(eqn: Any) -> Fraction:
    """Share of a convolution's taps that meet inputs and not the zeros between them.

    It is 1 without `lhs_dilation`.
    """
    share = Fraction(1)
    dilations = eqn.params.get("lhs_dilation", ())
    for axis, dilation in enumerate(dilations):
        kernel = eqn.invars[1].aval.shape[eqn.params["dimension_numbers"].rhs_spec[2 + axis]]
        stride, spread, (low, _) = (
            eqn.params[name][axis] for name in ("window_strides", "rhs_dilation", "padding")
        )
        taps_met = sum(
            (o * stride + k * spread - low) % dilation == 0
            for o in range(dilation)
            for k in range(kernel)
        )
        share *= Fraction(taps_met, dilation * kernel)
    return share


class _Walk:
    """The walk through jaxprs that follows origins; `rank` orders leaves by claim to a product."""

    def __init__(self, rank: Sequence[tuple]) -> None:
        self.rank = rank

    def jaxpr(self, jaxpr: jex.Jaxpr, ins: Sequence[Origin]) -> tuple[list[Origin], _Tally]:
        tally = _Tally()
        env: dict[Any, Origin] = dict.fromkeys(jaxpr.constvars, ())
        env.update(zip(jaxpr.invars, ins, strict=True))

        def read(atom: Any) -> Origin:
            return () if isinstance(atom, jex.Literal) else env[atom]

        for eqn in jaxpr.eqns:
            env.update(
                zip(eqn.outvars, self.eqn(eqn, [read(v) for v in eqn.invars], tally), strict=True)
            )
        return [read(v) for v in jaxpr.outvars], tally

    def eqn(self, eqn: Any, ins: list[Origin], tally: _Tally) -> list[Origin]:
        name, width = eqn.primitive.name, len(eqn.outvars)
        if name in ("dot_general", "conv_general_dilated", "ragged_dot_general"):
            self.credit(ins[0], ins[1], 2 * _mul_adds(eqn) * _taps_on_data(eqn), tally)
            return [_blend(_join(ins))]
        if name in ("concatenate", "stack"):
            return [_concatenate(ins, [math.prod(v.aval.shape) for v in eqn.invars])]
        if name in _OPERANDWISE and width == len(ins):
            return ins
        if (inner := called(eqn, ins)) is not None:
            outs, inner_tally = self.jaxpr(*inner)
            tally.add(inner_tally)
            return outs
        if name == "cond":
            runs = [self.jaxpr(branch, ins[1:]) for branch in read_branches(eqn)]
            tally.add(max((t for _, t in runs), key=_Tally.total))
            tally.inexact.update(*(t.inexact for _, t in runs))
            decides = None if ins[0] is None else ()
            return [
                _join([decides, *outs]) for outs in zip(*(outs for outs, _ in runs), strict=True)
            ]
        if name == "scan":
            scan = read_scan(eqn)
            n, m = itertools.accumulate((scan.consts, scan.carry))
            outs, inner = self.loop(scan.body, ins[:n], ins[n:m], ins[m:])
            tally.add(inner, scan.length)
            return outs
        if name == "while":
            loop = read_while(eqn)
            n, m = itertools.accumulate((loop.test_consts, loop.body_consts))
            outs, inner = self.loop(loop.body, ins[n:m], ins[m:], [])
            (decides,), test = self.jaxpr(loop.test, [*ins[:n], *outs])
            inner.add(test)
            tally.add_bound(name, inner)
            kept = (
                a is b for a, b in zip(loop.body.invars[m - n :], loop.body.outvars, strict=True)
            )
            return [
                out if keep or decides is not None else None
                for out, keep in zip(outs, kept, strict=True)
            ]
        if name == "shard_map":
            body, shards = read_shards(eqn)
            outs, inner = self.jaxpr(body, ins)
            tally.add(inner, shards)
            return outs
        joined = _join(ins)
        # a kernel or a solver: it is not known how often this runs, nor on which operand
        for sub in subjaxprs(eqn):
            tally.add_bound(name, self.jaxpr(sub, [_blend(joined)] * len(sub.invars))[1])
        return [joined] * width

    def loop(
        self, body: jex.Jaxpr, consts: list[Origin], carry: list[Origin], xs: list[Origin]
    ) -> tuple[list[Origin], _Tally]:
        """The results of a loop's body and the FLOPs of one turn.

        Repeated until the origins of what it carries no longer change.
        """
        carry = [_blend(c) for c in carry]
        while True:
            outs, tally = self.jaxpr(body, [*consts, *carry, *xs])
            next_carry = [_blend(_join([origin, out])) for origin, out in zip(carry, outs)]
            if next_carry == carry:
                return carry + outs[len(carry) :], tally
            carry = next_carry

    def credit(self, lhs: Origin, rhs: Origin, flops: Fraction, tally: _Tally) -> None:
        """Credit a product to the leaves behind the operand that is no data.

        To the largest of both if neither is.
        """
        origin = _blend(lhs + rhs) if lhs and rhs else lhs or rhs
        for share, leaves in origin or ():
            tally.flops[max(leaves, key=self.rank.__getitem__)] += share * flops
        if not origin:
            tally.flops[None] += flops
