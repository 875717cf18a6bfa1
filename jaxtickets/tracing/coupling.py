"""Which channels of a network belong together, read off its jaxpr.

The function is traced abstractly. Every axis of every value carries one *label* per index. An axis
of a parameter starts with labels of its own; operations carry them on and join those that must live
and go together: a matrix product joins the input's channels with the kernel's rows and hands on the
labels of its columns, an addition joins both sides, a concatenation lays labels side by side. What
no rule here understands *fixes* the labels that it meets, with a reason: such channels cannot be
removed. So what is left free can be, whatever the network is.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.extend import core as jex

from jaxtickets.tracing.coupling_labels import (
    ANY,
    INPUTS,
    OUTPUTS,
    TAPS,
    Forest,
    Labels,
    Value,
    kind_of,
    stays,
)
from jaxtickets.tracing.coupling_reshapes import concatenate, rearranged
from jaxtickets.tracing.jaxprs import called, trace

PyTree = Any

_ELEMENTWISE = frozenset(
    """
    abs acos acosh add add_any and asin asinh atan atan2 atanh cbrt ceil clamp conj
    convert_element_type copy copy_p cos cosh digamma div eq erf erf_inv erfc exp exp2 expm1 floor
    ge gt imag integer_pow is_finite le lgamma log log1p logistic lt max min mul name ne neg
    nextafter not or population_count pow real reduce_precision rem round rsqrt select_n
    shift_left shift_right_arithmetic shift_right_logical sharding_constraint sign sin sinh sqrt
    stop_gradient
    square sub tan tanh xor
    """.split()  # noqa: SIM905
)
# Operations on weights after which a weight that was 0 still is.
_KEEP_ZEROS = frozenset(
    (
        "convert_element_type",
        "copy",
        "copy_p",
        "mul",
        "name",
        "neg",
        "reduce_precision",
        "reshape",
        "sharding_constraint",
    )
)
_OPERANDWISE = frozenset(("device_put", "optimization_barrier"))


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
    >>> weights = [jnp.ones((4, 3)), jnp.ones(3), jnp.ones((3, 2))]
    >>> found = couple(lambda w, x: jnp.tanh(x @ w[0] + w[1]) @ w[2], weights, jnp.ones((5, 4)))
    >>> [[axis.tolist() for axis in array] for array in found.classes]
    [[[1, 2, 3, 4], [5, 6, 7]], [[5, 6, 7]], [[5, 6, 7], [14, 15]]]
    >>> found.fixed[14]
    "they are the network's outputs"
    """
    program = trace(
        lambda arrays, inputs: jax.tree.leaves(function(arrays, *inputs)), list(arrays), inputs
    )
    walk, values, first = _Walk(), [], 1
    forest = walk.forest
    for array in arrays:
        axes = []
        for n in array.shape:
            axes.append(np.arange(first, first + n) if n != 1 else np.array([ANY]))
            first += n if n != 1 else 0
        values.append(Value(tuple(axes), "weights"))
    forest.extend(first)
    ins = [stays(v.aval, "data") for v in program.invars[len(values) :]]
    for out in walk.jaxpr(program, [*values, *ins]):
        for labels in out.labels:
            forest.fix(labels, OUTPUTS)
    forest.settle_pairs()

    def each(of: Callable[[Labels], np.ndarray]) -> tuple[tuple[np.ndarray, ...], ...]:
        return tuple(tuple(of(labels) for labels in value.labels) for value in values)

    read, written = np.zeros(len(forest.parent), bool), np.zeros(len(forest.parent), bool)
    read[list(forest.read)] = written[list(forest.written)] = True
    return Coupling(
        classes=each(lambda labels: np.where(labels > 0, forest.roots(labels), 0)),
        read=each(lambda labels: (labels > 0) & read[labels]),
        written=each(lambda labels: (labels > 0) & written[labels]),
        fixed=forest.fixed,
    )


class _Walk:
    """The walk through jaxprs that follows labels and joins them."""

    def __init__(self) -> None:
        self.forest = Forest()

    # The jaxpr

    def jaxpr(self, jaxpr: jex.Jaxpr, ins: Sequence[Value]) -> list[Value]:
        env: dict[Any, Value] = {v: stays(v.aval, "constant") for v in jaxpr.constvars}
        env.update(zip(jaxpr.invars, ins, strict=True))

        def read(atom: Any) -> Value:
            return stays(atom.aval, "constant") if isinstance(atom, jex.Literal) else env[atom]

        for eqn in jaxpr.eqns:
            env.update(zip(eqn.outvars, self.eqn(eqn, [read(v) for v in eqn.invars]), strict=True))
        return [read(v) for v in jaxpr.outvars]

    def eqn(self, eqn: Any, ins: list[Value]) -> list[Value]:
        name = eqn.primitive.name
        if (inner := called(eqn, ins)) is not None:
            return self.jaxpr(*inner)
        if name in _OPERANDWISE and len(ins) == len(eqn.outvars):
            return ins
        labels = rearranged(self.forest, eqn, name, ins)
        if labels is not None:
            return [Value(labels, ins[0].kind)]
        if name in ("dot_general", "conv_general_dilated"):
            return [Value(getattr(self, name)(eqn, *ins), kind_of(ins))]
        if name == "concatenate":
            kinds = {value.kind for value in ins}
            return [
                Value(
                    concatenate(self.forest, ins, eqn.params["dimension"]),
                    kinds.pop() if len(kinds) == 1 else kind_of(ins),
                )
            ]
        if name in _ELEMENTWISE:
            keeps = name in _KEEP_ZEROS or (name == "div" and ins[1].kind != "weights")
            kind = (
                "weights"
                if keeps and kind_of(ins) == "constant" and any(v.kind == "weights" for v in ins)
                else kind_of(ins)
            )
            return [Value(self.join(ins, len(eqn.outvars[0].aval.shape)), kind)]
        reason = (
            f"the operation {name!r} uses them, of which it is not known what it would do without"
            " some"
        )
        first = self.give_up(eqn, ins, reason)
        return [first, *(stays(v.aval, first.kind) for v in eqn.outvars[1:])]

    # Products

    def dot_general(self, eqn: Any, a: Value, b: Value) -> tuple[Labels, ...]:
        (sum_a, sum_b), (batch_a, batch_b) = eqn.params["dimension_numbers"]
        for i, j in zip(sum_a, sum_b, strict=True):
            self.contract(a, i, b, j)
        batch = [
            self.forest.unite(a.labels[i], b.labels[j])
            for i, j in zip(batch_a, batch_b, strict=True)
        ]
        free = [
            (v, i)
            for v, removed_axes in ((a, {*sum_a, *batch_a}), (b, {*sum_b, *batch_b}))
            for i in range(len(v.labels))
            if i not in removed_axes
        ]
        return (*batch, *(self.hand_on(v, i) for v, i in free))

    def conv_general_dilated(self, eqn: Any, x: Value, kernel: Value) -> tuple[Labels, ...]:
        (batch, channels, *space), (out, kernel_in, *taps), spec = eqn.params["dimension_numbers"]
        if (
            eqn.params["feature_group_count"] != 1
            or eqn.params["batch_group_count"] != 1
            or kernel.kind == "data"
        ):
            return self.give_up(
                eqn,
                [x, kernel],
                "a convolution in groups, or with a kernel that depends on the input, uses them",
            ).labels
        self.contract(x, channels, kernel, kernel_in)
        for value, axes in ((x, space), (kernel, taps)):
            for axis in axes:
                self.forest.fix(value.labels[axis], TAPS)
        labels = list(stays(eqn.outvars[0].aval, "data").labels)
        labels[spec[0]], labels[spec[1]] = x.labels[batch], self.hand_on(kernel, out)
        return tuple(labels)

    def contract(self, a: Value, axis_a: int, b: Value, axis_b: int) -> None:
        """Join the labels of the two axes that a product sums over.

        A unit ends here if weights read it, since they can be 0.
        """
        axes = a.labels[axis_a], b.labels[axis_b]
        if {a.kind, b.kind} != {"weights", "data"}:
            for labels in axes:
                self.forest.fix(
                    labels, "a product sums over them in which no kernel meets them as it is"
                )
            return
        for labels, other in (axes, axes[::-1]):
            self.forest.fix(labels[other == ANY], INPUTS)
        self.forest.unite(*axes)
        self.forest.read.update(axes[a.kind == "data"].tolist())

    def hand_on(self, value: Value, axis: int) -> Labels:
        """The labels of an axis that a product leaves, marked as written where it is of weights."""
        if value.kind == "weights":
            self.forest.written.update(value.labels[axis].tolist())
        return value.labels[axis]

    # What is left

    def join(self, ins: Sequence[Value], rank: int) -> tuple[Labels, ...]:
        """The labels of a value computed element by element.

        Those of weights first, of which products make marks.
        """
        arrays = sorted(
            (v for v in ins if v.labels),
            key=lambda v: -sum(int((axis > 0).any()) for axis in v.labels),
        )
        out = list(arrays[0].labels) if arrays else [np.array([ANY])] * rank
        for value in arrays[1:]:
            out = [
                self.forest.unite(labels, other_labels)
                for labels, other_labels in zip(out, value.labels, strict=True)
            ]
        return tuple(out)

    def give_up(self, eqn: Any, ins: Sequence[Value], why: str) -> Value:
        for value in ins:
            for labels in value.labels:
                self.forest.fix(labels, why)
        return stays(eqn.outvars[0].aval, kind_of(ins))
