"""Which channels of a network belong together, read off its jaxpr.

The function is traced abstractly. Every axis of every value carries one *label* per index. An axis of a parameter starts
with labels of its own; operations carry them on and join those that must live and go together: a matrix product joins
the input's channels with the kernel's rows and hands on the labels of its columns, an addition joins both sides, a
concatenation lays labels side by side. What no rule here understands *fixes* the labels that it meets, with a reason: such
channels cannot be removed. So what is left free can be, whatever the network is.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.extend import core as jex

from jaxtickets.jaxprs import is_call, subjaxprs

PyTree = Any
Labels = np.ndarray  # int64 [n], one label per index of an axis

ANY = -1  # the same value all along the axis, or an axis of size 1: goes with every label
FIXED = 0  # an index that stays: inputs, constants, positions in space

_ELEMENTWISE = frozenset(
    "abs acos acosh add add_any and asin asinh atan atan2 atanh cbrt ceil clamp conj convert_element_type copy copy_p cos "  # noqa: SIM905
    "cosh digamma div eq erf erf_inv erfc exp exp2 expm1 floor ge gt imag integer_pow is_finite le lgamma log log1p "
    "logistic lt max min mul name ne neg nextafter not or population_count pow real reduce_precision rem round rsqrt "
    "select_n shift_left shift_right_arithmetic shift_right_logical sharding_constraint sign sin sinh sqrt square sub tan "
    "tanh xor".split()
)
# Operations on weights after which a weight that was 0 still is.
_KEEP_ZEROS = frozenset(
    ("convert_element_type", "copy", "copy_p", "mul", "name", "neg", "reduce_precision", "reshape", "sharding_constraint")
)
_REDUCTIONS = frozenset(
    ("argmax", "argmin", "reduce_and", "reduce_max", "reduce_min", "reduce_or", "reduce_prod", "reduce_sum", "reduce_xor")
)
_WINDOWS = frozenset(("reduce_window", "reduce_window_max", "reduce_window_min", "reduce_window_sum"))
_OPERANDWISE = frozenset(("device_put", "optimization_barrier"))

INPUTS = "they meet an axis of fixed size, such as the network's inputs"
OUTPUTS = "they are the network's outputs"
TAPS = "they are taps of a convolution"
MIXED = "a reshape lays them along one axis with others"
MOST_PAIRS = 100_000


@dataclasses.dataclass(frozen=True)
class Value:
    """What is known of an array: labels per axis, and what it is made of.

    Args:
      labels: one vector per axis.
      kind: "weights": the elements of one parameter, rearranged or multiplied; "constant": otherwise not dependent on
        an input; "data".
    """

    labels: tuple[Labels, ...]
    kind: str


@dataclasses.dataclass(frozen=True)
class Coupling:
    """The classes of coupled indices of some arrays.

    Args:
      classes: per array and axis the class of every index, int64; 0 for axes of size 1.
      read: per array and axis, bool: a product with data sums over this index.
      written: per array and axis, bool: a product with data puts out this index.
      fixed: why the members of a class cannot be removed, by class; free classes are not in it.
    """

    classes: tuple[tuple[Labels, ...], ...]
    read: tuple[tuple[np.ndarray, ...], ...]
    written: tuple[tuple[np.ndarray, ...], ...]
    fixed: dict[int, str]


def couple(function: Callable[..., Any], arrays: Sequence[Any], *inputs: Any) -> Coupling:
    """Traces `function(arrays, *inputs)` and joins the indices of `arrays` that belong together.

    Args:
      function: takes a list of arrays, and inputs; all its outputs are fixed.
      arrays: parameters (and statistics); only shapes and dtypes are read.
      *inputs: trees of arrays, likewise; all their axes are fixed.

    >>> import jax.numpy as jnp
    >>> found = couple(lambda w, x: jnp.tanh(x @ w[0] + w[1]) @ w[2], [jnp.ones((4, 3)), jnp.ones(3), jnp.ones((3, 2))], jnp.ones((5, 4)))
    >>> [[axis.tolist() for axis in array] for array in found.classes]
    [[[1, 2, 3, 4], [5, 6, 7]], [[5, 6, 7]], [[5, 6, 7], [14, 15]]]
    >>> found.fixed[14]
    "they are the network's outputs"
    """
    closed = jax.make_jaxpr(lambda arrays, inputs: jax.tree.leaves(function(arrays, *inputs)))(list(arrays), inputs)
    walk, values, first = _Walk(), [], 1
    for array in arrays:
        axes = []
        for n in array.shape:
            axes.append(np.arange(first, first + n) if n != 1 else np.array([ANY]))
            first += n if n != 1 else 0
        values.append(Value(tuple(axes), "weights"))
    walk.extend(first)
    ins = [_stays(v.aval, "data") for v in closed.jaxpr.invars[len(values) :]]
    for out in walk.jaxpr(closed.jaxpr, [*values, *ins]):
        for labels in out.labels:
            walk.fix(labels, OUTPUTS)
    walk.settle_pairs()

    def each(of: Callable[[Labels], np.ndarray]) -> tuple[tuple[np.ndarray, ...], ...]:
        return tuple(tuple(of(labels) for labels in value.labels) for value in values)

    read, written = np.zeros(len(walk.parent), bool), np.zeros(len(walk.parent), bool)
    read[list(walk.read)] = written[list(walk.written)] = True
    return Coupling(
        classes=each(lambda labels: np.where(labels > 0, walk.roots(labels), 0)),
        read=each(lambda labels: (labels > 0) & read[labels]),
        written=each(lambda labels: (labels > 0) & written[labels]),
        fixed=walk.fixed,
    )


def _stays(aval: Any, kind: str) -> Value:
    return Value(tuple(np.full(n, FIXED if n != 1 else ANY) for n in aval.shape), kind)


class _Walk:
    """Follows labels through jaxprs; `parent` is a forest whose trees are the classes."""

    def __init__(self) -> None:
        self.parent = np.zeros(1, np.int64)
        self.fixed: dict[int, str] = {FIXED: INPUTS}
        self.read: set[int] = set()
        self.written: set[int] = set()
        self.pairs: dict[tuple[int, int], int] = {}

    def extend(self, size: int) -> None:
        self.parent = np.append(self.parent, np.arange(len(self.parent), size))

    def roots(self, labels: Labels) -> Labels:
        """The class of every label; ANY stays."""
        found = np.maximum(labels, FIXED)
        while not np.array_equal(up := self.parent[found], found):
            found = up
        self.parent[np.maximum(labels, FIXED)] = found
        return np.where(labels == ANY, ANY, found)

    def root(self, label: int) -> int:
        """The class of one label."""
        while (up := int(self.parent[label])) != label:
            label = up
        return label

    def live(self, labels: Labels) -> np.ndarray:
        """Which labels may still be removed."""
        roots = self.roots(labels)
        if (roots <= FIXED).all():
            return np.zeros(len(labels), bool)
        return (roots > FIXED) & ~np.isin(roots, list(self.fixed))

    def fix(self, labels: Labels, why: str) -> None:
        for root in np.unique(self.roots(labels)[self.live(labels)]).tolist():
            self.fixed[root] = why

    def unite(self, a: Labels, b: Labels, why: str = INPUTS) -> Labels:
        """Joins two axes index by index and returns the labels of the result; `why` is for what meets FIXED."""
        a = np.full(len(b), ANY) if len(a) == 1 else a
        b = np.full(len(a), ANY) if len(b) == 1 else b
        apart = (a != ANY) & (b != ANY) & (self.roots(a) != self.roots(b))
        for one, other in np.unique(np.stack([a[apart], b[apart]], 1), axis=0).tolist():
            self.merge(one, other, why)
        return np.where(a == ANY, b, a)

    def merge(self, a: int, b: int, why: str = INPUTS) -> None:
        """Joins the classes of two labels."""
        low, high = sorted((self.root(a), self.root(b)))
        if low == FIXED:
            self.fixed.setdefault(high, why)
        elif low != high:
            self.parent[high] = low
            if (reason := self.fixed.pop(high, None)) is not None:
                self.fixed.setdefault(low, reason)

    # Products

    def contract(self, a: Value, axis_a: int, b: Value, axis_b: int) -> None:
        """A sum over one axis of both; a unit ends here if weights read it, since they can be 0."""
        axes = a.labels[axis_a], b.labels[axis_b]
        if {a.kind, b.kind} != {"weights", "data"}:
            for labels in axes:
                self.fix(labels, "a product sums over them in which no kernel meets them as it is")
            return
        for labels, other in (axes, axes[::-1]):
            self.fix(labels[other == ANY], INPUTS)
        self.unite(*axes)
        self.read.update(axes[a.kind == "data"].tolist())

    def hand_on(self, value: Value, axis: int) -> Labels:
        """The labels of an axis that a product leaves."""
        if value.kind == "weights":
            self.written.update(value.labels[axis].tolist())
        return value.labels[axis]

    def dot_general(self, eqn: Any, a: Value, b: Value) -> tuple[Labels, ...]:
        (sum_a, sum_b), (batch_a, batch_b) = eqn.params["dimension_numbers"]
        for i, j in zip(sum_a, sum_b, strict=True):
            self.contract(a, i, b, j)
        batch = [self.unite(a.labels[i], b.labels[j]) for i, j in zip(batch_a, batch_b, strict=True)]
        free = [(v, i) for v, gone in ((a, {*sum_a, *batch_a}), (b, {*sum_b, *batch_b})) for i in range(len(v.labels)) if i not in gone]
        return (*batch, *(self.hand_on(v, i) for v, i in free))

    def conv_general_dilated(self, eqn: Any, x: Value, kernel: Value) -> tuple[Labels, ...]:
        (batch, channels, *space), (out, into, *taps), spec = eqn.params["dimension_numbers"]
        if eqn.params["feature_group_count"] != 1 or eqn.params["batch_group_count"] != 1 or kernel.kind == "data":
            return self.give_up(eqn, [x, kernel], "a convolution in groups, or with a kernel that depends on the input, uses them").labels
        self.contract(x, channels, kernel, into)
        for value, axes in ((x, space), (kernel, taps)):
            for axis in axes:
                self.fix(value.labels[axis], TAPS)
        labels = list(_stays(eqn.outvars[0].aval, "data").labels)
        labels[spec[0]], labels[spec[1]] = x.labels[batch], self.hand_on(kernel, out)
        return tuple(labels)

    # Rearrangements

    def reshape(self, value: Value, shape: Sequence[int]) -> tuple[Labels, ...]:
        old, new = [axis for axis in value.labels if len(axis) != 1], [n for n in shape if n != 1]
        if 0 in new:
            return tuple(np.full(n, ANY) for n in shape)
        out: list[Labels] = []
        while old or new:  # the fewest axes with the same number of elements on both sides
            axes, sizes = [old.pop(0)], [new.pop(0)]
            while (before := int(np.prod([len(axis) for axis in axes]))) != (after := int(np.prod(sizes))):
                axes.append(old.pop(0)) if before < after else sizes.append(new.pop(0))
            merged = axes[0]
            for axis in axes[1:]:
                merged = self.pair(np.repeat(merged, len(axis)), np.tile(axis, len(merged)))
            out += self.split(merged, sizes)
        return tuple(out.pop(0) if n != 1 else np.array([ANY]) for n in shape)

    def pair(self, a: Labels, b: Labels) -> Labels:
        """Labels of indices that go if `a` goes or `b` goes."""
        live_a, live_b = self.live(a), self.live(b)
        both = live_a & live_b
        out = np.where(live_a, a, np.where(live_b, b, np.where((a == ANY) & (b == ANY), ANY, FIXED)))
        if both.sum() > MOST_PAIRS:
            self.fix(a, MIXED)
            self.fix(b, MIXED)
        elif both.any():
            couples = list(zip(a[both].tolist(), b[both].tolist(), strict=True))
            new = [couple for couple in dict.fromkeys(couples) if couple not in self.pairs]
            self.pairs.update(zip(new, range(len(self.parent), len(self.parent) + len(new)), strict=True))
            self.extend(len(self.parent) + len(new))
            out[both] = [self.pairs[couple] for couple in couples]
        return out

    def settle_pairs(self) -> None:
        """Decides what coupled pairs mean. A kernel whose taps were moved to its channels meets, at every tap, the same
        inputs: the factor that all pairs of a class share is the channel, and the other factors stay."""
        # The newest first: only they are made of others.
        for (a, b), label in reversed(self.pairs.items()):
            for marks in (self.read, self.written):
                if label in marks:
                    marks.update((a, b))
        while True:
            classes: dict[int, set[int]] = {}
            factors: dict[int, set[int]] = {}
            for couple, label in self.pairs.items():
                root, one, other = map(self.root, (label, *couple))
                if root not in (one, other):
                    classes[root] = classes.get(root, {one, other}) & {one, other}
                    factors.setdefault(root, set()).update((one, other))
            changed = False
            for root, shared in classes.items():
                if root in self.fixed:
                    loose, why = factors[root], self.fixed[root]
                elif len(shared) == 1:
                    self.merge(root, next(iter(shared)))
                    loose, why, changed = factors[root] - shared, TAPS, True
                else:
                    loose, why = factors[root] | {root}, MIXED
                loose = np.array(sorted(loose), np.int64)
                changed |= bool(self.live(loose).any())
                self.fix(loose, why)
            if not changed:
                return

    def split(self, labels: Labels, sizes: Sequence[int]) -> list[Labels]:
        """An axis cut into several: one of them may have the labels, if they do not depend on the others."""
        if len(sizes) == 1:
            return [labels]
        if (labels == ANY).all():
            return [np.full(n, ANY) for n in sizes]
        live = self.live(labels)
        out = [np.full(n, FIXED) for n in sizes]
        if live.any():
            grid, roots = (np.where(live, each, FIXED).reshape(sizes) for each in (labels, self.roots(labels)))
            for axis, n in enumerate(sizes):
                lines = np.moveaxis(roots, axis, -1).reshape(-1, n)
                if (lines == lines[0]).all():
                    out[axis] = np.moveaxis(grid, axis, -1).reshape(-1, n)[0]
                    return out
            self.fix(labels, "a reshape divides them into groups")
        return out

    def concatenate(self, ins: Sequence[Value], along: int) -> tuple[Labels, ...]:
        out = list(ins[0].labels)
        for value in ins[1:]:
            out = [labels if axis == along else self.unite(out[axis], labels) for axis, labels in enumerate(value.labels)]
        joined = np.concatenate([value.labels[along] for value in ins])
        out[along] = np.where(joined == ANY, FIXED, joined) if len(joined) > 1 else joined
        return tuple(out)

    def cut(self, value: Value, sizes: Sequence[int], kept: Sequence[bool], why: str) -> tuple[Labels, ...]:
        """Axes that are kept whole keep their labels; on others positions count, so their labels are fixed."""
        out = []
        for labels, n, whole in zip(value.labels, sizes, kept, strict=True):
            if not whole:
                self.fix(labels, why)
                uniform = n == 1 or (n < len(labels) and (labels == ANY).all())
                labels = np.full(n, ANY if uniform else FIXED)
            out.append(labels)
        return tuple(out)

    def join(self, ins: Sequence[Value], rank: int) -> tuple[Labels, ...]:
        """The labels of a value computed element by element; those of weights first, of which products make marks."""
        arrays = sorted((v for v in ins if v.labels), key=lambda v: -sum(int((axis > 0).any()) for axis in v.labels))
        out = list(arrays[0].labels) if arrays else [np.array([ANY])] * rank
        for value in arrays[1:]:
            out = [self.unite(one, other) for one, other in zip(out, value.labels, strict=True)]
        return tuple(out)

    def give_up(self, eqn: Any, ins: Sequence[Value], why: str) -> Value:
        for value in ins:
            for labels in value.labels:
                self.fix(labels, why)
        return _stays(eqn.outvars[0].aval, _kind(ins))

    # The walk

    def jaxpr(self, jaxpr: jex.Jaxpr, ins: Sequence[Value]) -> list[Value]:
        env: dict[Any, Value] = {v: _stays(v.aval, "constant") for v in jaxpr.constvars}
        env.update(zip(jaxpr.invars, ins, strict=True))

        def read(atom: Any) -> Value:
            return _stays(atom.aval, "constant") if isinstance(atom, jex.Literal) else env[atom]

        for eqn in jaxpr.eqns:
            env.update(zip(eqn.outvars, self.eqn(eqn, [read(v) for v in eqn.invars]), strict=True))
        return [read(v) for v in jaxpr.outvars]

    def eqn(self, eqn: Any, ins: list[Value]) -> list[Value]:
        name = eqn.primitive.name
        subs = subjaxprs(eqn)
        if is_call(eqn, subs):
            return self.jaxpr(subs[0], ins)
        if name in _OPERANDWISE and len(ins) == len(eqn.outvars):
            return ins
        labels = self.rearranged(eqn, name, ins)
        if labels is not None:
            return [Value(labels, ins[0].kind)]
        if name in ("dot_general", "conv_general_dilated"):
            return [Value(getattr(self, name)(eqn, *ins), _kind(ins))]
        if name == "concatenate":
            kinds = {value.kind for value in ins}
            return [Value(self.concatenate(ins, eqn.params["dimension"]), kinds.pop() if len(kinds) == 1 else _kind(ins))]
        if name in _ELEMENTWISE:
            keeps = name in _KEEP_ZEROS or (name == "div" and ins[1].kind != "weights")
            kind = "weights" if keeps and _kind(ins) == "constant" and any(v.kind == "weights" for v in ins) else _kind(ins)
            return [Value(self.join(ins, len(eqn.outvars[0].aval.shape)), kind)]
        why = f"the operation {name!r} uses them, of which it is not known what it would do without some"
        first = self.give_up(eqn, ins, why)
        return [first, *(_stays(v.aval, first.kind) for v in eqn.outvars[1:])]

    def rearranged(self, eqn: Any, name: str, ins: list[Value]) -> tuple[Labels, ...] | None:
        """The labels after an operation on the axes of its first operand; None for another operation."""
        value, params = ins[0] if ins else None, eqn.params
        shape = eqn.outvars[0].aval.shape if eqn.outvars else ()
        if value is None:
            return None
        before = [len(axis) for axis in value.labels]
        if name == "reshape":
            return self.reshape(value, shape)
        if name == "broadcast_in_dim":
            out = [np.full(n, ANY) for n in shape]
            for axis, to in enumerate(params["broadcast_dimensions"]):
                if before[axis] == shape[to]:
                    out[to] = value.labels[axis]
            return tuple(out)
        if name == "transpose":
            return tuple(value.labels[axis] for axis in params["permutation"])
        if name == "squeeze":
            gone = {d % len(before) for d in params["dimensions"]}
            return tuple(labels for axis, labels in enumerate(value.labels) if axis not in gone)
        if name == "rev":
            return tuple(labels[::-1] if axis in params["dimensions"] else labels for axis, labels in enumerate(value.labels))
        if name in ("slice", "dynamic_slice"):
            return self.cut(value, shape, [n == m for n, m in zip(before, shape, strict=True)], "a slice picks some of them")
        if name == "pad":
            return self.cut(value, shape, [not any(sides) for sides in params["padding_config"]], "they are padded with constants")
        if name in _REDUCTIONS:
            for axis in params["axes"]:
                self.fix(value.labels[axis], f"{name!r} runs over them")
            return tuple(labels for axis, labels in enumerate(value.labels) if axis not in params["axes"])
        if name in _WINDOWS:
            numbers = (params["window_dimensions"], params["window_strides"], params["padding"])
            whole = [w == s == 1 and not any(sides) for w, s, sides in zip(*numbers, strict=True)]
            return self.cut(value, shape, whole, "a window slides over them")
        return None


def _kind(ins: Sequence[Value]) -> str:
    return "data" if any(value.kind == "data" for value in ins) else "constant"
