"""Finds inputs of a network that are row numbers of a table, and of how many rows.

Found by reading the traced network.

An accelerator has no error for a row that is not there: it gives NaN, the last row, or the nearest
one. So the numbers are compared on the host with the tables they are meant for, before they get
there.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np
from jax.core import Tracer
from jax.extend import core as jex

from jaxtickets.errors import DataError
from jaxtickets.messages.pytrees import leaf_paths
from jaxtickets.tracing import jaxprs

PyTree = Any

_ROWS = 8192  # prepared at a time, for a task's own check
_LARGEST = 2**20  # numbers; what is moved about in larger arrays is not followed
_HIGHEST = np.iinfo(np.int64).max
_LOWEST = np.iinfo(np.int64).min


class Range(NamedTuple):
    """The values that a leaf of x may have, per element of an example, each end included."""

    path: str
    low: np.ndarray
    high: np.ndarray


class _Moved(NamedTuple):
    """An array whose elements are elements of the inputs, by number, plus an offset.

    The number is -1 for something else.

    `wrapped`: negative ones have been counted from the end, as Python's indexing does.
    """

    at: np.ndarray
    offset: np.ndarray
    wrapped: bool = False


class _Negative(NamedTuple):
    """An array that says whether elements of the inputs plus an offset are negative."""

    at: np.ndarray
    offset: np.ndarray


class _Known(NamedTuple):
    """An array that is a constant of the program."""

    value: np.ndarray


class Predicts(Protocol):
    """The part of a task that says which inputs it takes."""

    @property
    def apply(self) -> Callable[..., tuple[PyTree, PyTree]]:
        """The network, `(params, model_state, x, train, key) -> (outputs, model_state)`."""
        ...

    @property
    def check(self) -> Callable[[PyTree, str, int], None] | None:
        """The network's own check of prepared inputs on the host; None if it has none."""
        ...


def check_values(
    network: Predicts,
    prepare: Callable[[PyTree], PyTree],
    params: PyTree,
    model_state: PyTree,
    x: PyTree,
    name: str,
) -> None:
    """Raise `DataError` where x holds a row number that no table has, or is refused.

    What else is refused is up to `network.check`.

    Args:
      network: a `jaxtickets.Task`: its `apply` is traced, in evaluation.
      prepare: what makes its inputs of x.
      params: its weights, or their shapes.
      model_state: its state, or the shapes.
      x: arrays [N, ...] as they are stored.
      name: what an error calls x.
    """
    if network.check is not None:
        for first in range(0, len(jax.tree.leaves(x)[0]), _ROWS):
            rows = prepare(jax.tree.map(lambda a, i=first: a[i : i + _ROWS], x))
            network.check(jax.tree.map(np.asarray, rows), name, first)
    leaves, tree = jax.tree.flatten(x)
    weights, weights_tree = jax.tree.flatten((params, model_state))
    shapes = tuple((leaf.shape[1:], str(leaf.dtype)) for leaf in leaves)
    ranges = _ranges(
        network.apply,
        prepare,
        weights_tree,
        tuple((w.shape, w.dtype) for w in weights),
        tree,
        shapes,
    )
    for leaf_range, leaf in zip(ranges, leaves, strict=True):
        if leaf_range is not None:
            _check(leaf_range, np.asarray(leaf), name)


def _check(allowed: Range, values: np.ndarray, name: str) -> None:
    low, high = allowed.low, allowed.high
    if values.min() >= low.max(initial=_LOWEST) and values.max() <= high.min(initial=_HIGHEST):
        return
    wrong_places = np.argwhere((values < low) | (values > high))
    if len(wrong_places):
        place = tuple(wrong_places[0])
        first, last = low[place[1:]], high[place[1:]]
        more = f", and {len(wrong_places) - 1:,} more like it" if len(wrong_places) > 1 else ""
        raise DataError(
            f"{name}{'/' if allowed.path else ''}{allowed.path}, {at(place)}, is"
            f" {values[place]}{more}; the network looks that up in a table of {last - first + 1}"
            f" rows: {first} to {last} are allowed."
        )


def at(place: Sequence[int]) -> str:
    """A place in an array [N, ...], in words: the row, then the column.

    >>> at((3, 5)), at((3,)), at((3, 5, 7))
    ('row 3, column 5', 'row 3', 'row 3, column (5, 7)')
    """
    row, *columns = (int(n) for n in place)
    column = (
        "" if not columns else f", column {columns[0] if len(columns) == 1 else tuple(columns)}"
    )
    return f"row {row}{column}"


@functools.lru_cache(maxsize=64)
def _ranges(
    apply: Any, prepare: Any, weights_tree: Any, weights: Any, tree: Any, shapes: Any
) -> tuple[Range | None, ...]:
    """The range of every leaf of x, None for a leaf whose elements are no row numbers.

    Of two examples, which are alike.

    Floating values with two axes or more (pictures, signals) are not followed.
    """
    structs = [jax.ShapeDtypeStruct(shape, dtype) for shape, dtype in weights]
    params, state = jax.tree.unflatten(weights_tree, structs)
    x = jax.tree.unflatten(
        tree,
        [
            jax.ShapeDtypeStruct((2, *shape), jax.dtypes.canonicalize_dtype(dtype))
            for shape, dtype in shapes
        ],
    )
    prepared_leaves = jax.tree.leaves(jax.eval_shape(prepare, x))
    if all(
        struct.ndim > 2 and np.issubdtype(struct.dtype, np.inexact) for struct in prepared_leaves
    ):
        return (None,) * len(shapes)
    program = jax.make_jaxpr(lambda p, s, x: apply(p, s, prepare(x), False, None))(params, state, x)
    known_inputs: list[Any] = [None] * len(structs)
    first = 0
    for leaf in jax.tree.leaves(x):
        known_inputs.append(
            _Moved(first + np.arange(leaf.size).reshape(leaf.shape), np.zeros(leaf.shape, np.int64))
        )
        first += leaf.size
    reader = _Reader(first)
    reader.read(program.jaxpr, [_known(const) for const in program.consts], known_inputs)
    ranges, first = [], 0
    for path, leaf in zip(leaf_paths(x), jax.tree.leaves(x), strict=True):
        part = slice(first, first + leaf.size)
        low, high = (
            reader.low[part].reshape(leaf.shape).max(0),
            reader.high[part].reshape(leaf.shape).min(0),
        )
        ranges.append(Range(path, low, high) if (high < _HIGHEST).any() else None)
        first += leaf.size
    return tuple(ranges)


def _known(value: Any) -> _Known | None:
    """A `_Known` of a small plain number or array of them; None for others, such as keys."""
    if (
        isinstance(value, Tracer)
        or np.size(value) > _LARGEST
        or jax.numpy.issubdtype(jax.numpy.result_type(value), jax.dtypes.extended)
    ):
        return None
    return _Known(np.asarray(value))


class _Reader:
    """A walk that follows elements through a program and keeps the narrowest range of each."""

    def __init__(self, elements: int) -> None:
        self.low = np.full(elements, _LOWEST)
        self.high = np.full(elements, _HIGHEST)

    def read(self, jaxpr: jex.Jaxpr, consts: Sequence[Any], given: Sequence[Any]) -> list[Any]:
        """The values that a program gives: `_Moved`, `_Negative`, `_Known`, or None for others."""
        env: dict[Any, Any] = dict(
            zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *given], strict=True)
        )

        def value(atom: Any) -> Any:
            return _known(atom.val) if isinstance(atom, jex.Literal) else env.get(atom)

        for eqn in jaxpr.eqns:
            operands = [value(atom) for atom in eqn.invars]
            if eqn.primitive.name != "iota" and all(operand is None for operand in operands):
                continue
            outs: Any = zip(eqn.outvars, self._apply(eqn, operands), strict=False)
            env |= {
                out: result
                for out, result in outs
                if result is not None and math.prod(out.aval.shape) <= _LARGEST
            }
        return [value(atom) for atom in jaxpr.outvars]

    def _apply(self, eqn: Any, operands: list[Any]) -> list[Any]:
        name = eqn.primitive.name
        subs = jaxprs.subjaxprs(eqn)
        if name == "scan":
            return self._scan(jaxprs.read_scan(eqn), operands)
        if (inner := jaxprs.called(eqn, operands)) is not None:
            closed_jaxprs = [v for v in eqn.params.values() if isinstance(v, jex.ClosedJaxpr)]
            consts = closed_jaxprs[0].consts if closed_jaxprs else ()
            return self.read(inner[0], [_known(const) for const in consts], inner[1])
        if subs:
            return []
        if name in ("gather", "dynamic_slice"):
            self._look_up(eqn, operands)
            return []
        if name == "iota" or (
            name in ("add", "sub", "mul")
            and all(isinstance(operand, _Known) for operand in operands)
        ):
            return [_counted(name, eqn, operands)]
        moved = operands[0]
        if name == "lt" and isinstance(moved, _Moved) and _is_zero(operands[1]):
            return [_Negative(moved.at, moved.offset)]
        if name in ("add", "sub"):
            return [_shifted(name, *operands)]
        if name == "select_n":
            return [_wrapped(*operands)] if len(operands) == 3 else []
        return _rearranged(name, eqn, operands)

    def _look_up(self, eqn: Any, operands: list[Any]) -> None:
        """Narrow the ranges of the elements that an operation reads rows by."""
        shape, sizes = eqn.invars[0].aval.shape, eqn.params["slice_sizes"]
        # of a single index, counted from the end like Python's; others clamp on purpose
        if eqn.primitive.name == "dynamic_slice":
            for axis, moved in enumerate(operands[1:]):
                if isinstance(moved, _Moved) and moved.wrapped:
                    self._narrow(moved.at, moved.offset, shape[axis] - sizes[axis])
            return
        moved, mode, fill = operands[1], eqn.params["mode"], eqn.params["fill_value"]
        clips = mode == jax.lax.GatherScatterMode.CLIP
        fills = (
            mode == jax.lax.GatherScatterMode.FILL_OR_DROP
            and fill is not None
            and not np.isnan(fill)
        )
        # asked for the nearest row, or for a value
        if not isinstance(moved, _Moved) or (clips and not moved.wrapped) or fills:
            return
        for column, axis in enumerate(eqn.params["dimension_numbers"].start_index_map):
            self._narrow(
                moved.at[..., column], moved.offset[..., column], shape[axis] - sizes[axis]
            )

    def _narrow(self, elements: np.ndarray, offset: np.ndarray, last: int) -> None:
        real = elements >= 0
        np.maximum.at(self.low, elements[real], -offset[real])
        np.minimum.at(self.high, elements[real], last - offset[real])

    def _scan(self, scan: jaxprs.Scan, operands: list[Any]) -> list[Any]:
        """Find the ranges of a loop's elements from one turn.

        What it sees is numbered anew, and its ranges are those of every turn.
        """
        body, fixed, carried = scan.body, scan.consts, scan.carry
        known_inputs: list[Any] = [
            op if number < fixed and isinstance(op, _Known) else None
            for number, op in enumerate(operands)
        ]
        # Numbers and offsets, [turns, elements], and where they are in the inner ones.
        parts: list[tuple[np.ndarray, np.ndarray, slice]] = []
        size = 0
        for number, operand in enumerate(operands):
            if (
                isinstance(operand, _Moved)
                and operand.at.size
                and not fixed <= number < fixed + carried
            ):
                shape = operand.at.shape if number < fixed else operand.at.shape[1:]
                turns = (1 if number < fixed else operand.at.shape[0], -1)
                part = slice(size, size + math.prod(shape))
                known_inputs[number] = _Moved(
                    np.arange(part.start, part.stop).reshape(shape),
                    np.zeros(shape, np.int64),
                    operand.wrapped,
                )
                parts.append((operand.at.reshape(turns), operand.offset.reshape(turns), part))
                size = part.stop
        inner = _Reader(size)
        inner.read(body, [None] * len(body.constvars), known_inputs)
        for at_turns, offset, part in parts:
            real = (at_turns >= 0) & (inner.high[part] < _HIGHEST)
            turns, column = np.nonzero(real)
            np.maximum.at(self.low, at_turns[real], inner.low[part][column] - offset[real])
            np.minimum.at(self.high, at_turns[real], inner.high[part][column] - offset[real])
        return []


def _is_zero(operand: Any) -> bool:
    return isinstance(operand, _Known) and not operand.value.any()


def _counted(name: str, eqn: Any, operands: list[_Known]) -> _Known | None:
    """A constant that a program makes, such as where each column's part of a table begins."""
    out = eqn.outvars[0].aval
    if out.size > _LARGEST or not np.issubdtype(out.dtype, np.integer):
        return None
    if name == "iota":
        along = [1] * out.ndim
        along[eqn.params["dimension"]] = -1
        return _Known(
            np.broadcast_to(np.arange(out.shape[eqn.params["dimension"]]).reshape(along), out.shape)
        )
    a, b = (operand.value.astype(np.int64) for operand in operands)
    return _Known({"add": np.add, "sub": np.subtract, "mul": np.multiply}[name](a, b))


def _shifted(name: str, a: Any, b: Any) -> _Moved | None:
    """Elements plus or minus a constant; None where they are not that."""
    if name == "add" and isinstance(b, _Moved):
        a, b = b, a
    if not isinstance(a, _Moved) or not isinstance(b, _Known) or b.value.dtype.kind not in "iu":
        return None
    by = np.broadcast_to(b.value.astype(np.int64), a.offset.shape)
    return _Moved(a.at, a.offset + (by if name == "add" else -by), a.wrapped)


def _wrapped(which: Any, otherwise: Any, negative: Any) -> _Moved | None:
    """Elements whose negative values are counted from the end: `where(i < 0, i + n, i)`.

    Any other choice is not followed.
    """
    same = (
        isinstance(which, _Negative)
        and isinstance(otherwise, _Moved)
        and isinstance(negative, _Moved)
        and np.array_equal(which.at, otherwise.at)
        and np.array_equal(which.at, negative.at)
        and np.array_equal(which.offset, otherwise.offset)
    )
    return otherwise._replace(wrapped=True) if same else None


def _rearranged(name: str, eqn: Any, operands: list[Any]) -> list[Any]:
    """The results of an operation that moves elements about and does not change them."""
    if name == "concatenate":
        if not any(isinstance(operand, _Moved) for operand in operands):
            return []
        shapes = [atom.aval.shape for atom in eqn.invars]
        moved = [
            (
                piece
                if isinstance(piece, _Moved)
                else _Moved(np.full(shape, -1), np.zeros(shape, np.int64))
            )
            for piece, shape in zip(operands, shapes, strict=True)
        ]
        axis = eqn.params["dimension"]
        at, offset = (
            np.concatenate(parts, axis)
            for parts in zip(*((piece.at, piece.offset) for piece in moved), strict=True)
        )
        return [_Moved(at, offset, any(piece.wrapped for piece in moved))]
    move = _MOVES.get(name)
    first = operands[0]
    if move is None or any(operand is not None for operand in operands[1:]):
        return []
    if isinstance(first, _Known):
        return [_Known(part) for part in move(first.value, eqn)]
    if isinstance(first, _Negative):
        return [
            _Negative(*parts)
            for parts in zip(move(first.at, eqn), move(first.offset, eqn), strict=True)
        ]
    if name == "convert_element_type" and jax.numpy.issubdtype(eqn.params["new_dtype"], np.bool_):
        return []
    return [
        _Moved(*parts, first.wrapped)
        for parts in zip(move(first.at, eqn), move(first.offset, eqn), strict=True)
    ]


def _broadcast(a: np.ndarray, eqn: Any) -> list[np.ndarray]:
    shape, dims = eqn.params["shape"], eqn.params["broadcast_dimensions"]
    if (
        any(not isinstance(n, int | np.integer) for n in shape)
        or np.prod(shape, dtype=np.float64) > _LARGEST
    ):
        return []
    wide = [1] * len(shape)
    for size, dim in zip(a.shape, dims, strict=True):
        wide[dim] = size
    return [np.broadcast_to(a.reshape(wide), shape)]


def _slice(a: np.ndarray, eqn: Any) -> list[np.ndarray]:
    p = eqn.params
    steps = p["strides"] or (1,) * a.ndim
    return [a[tuple(map(slice, p["start_indices"], p["limit_indices"], steps))]]


def _split(a: np.ndarray, eqn: Any) -> list[np.ndarray]:
    return np.split(a, np.cumsum(eqn.params["sizes"])[:-1], eqn.params["axis"])


_MOVES: dict[str, Callable[[np.ndarray, Any], list[np.ndarray]]] = {
    "convert_element_type": lambda a, eqn: [a],
    "copy": lambda a, eqn: [a],
    "copy_p": lambda a, eqn: [a],
    "sharding_constraint": lambda a, eqn: [a],
    "optimization_barrier": lambda a, eqn: [a],
    "reshape": lambda a, eqn: (
        [a.reshape(eqn.params["new_sizes"])] if eqn.params.get("dimensions") is None else []
    ),
    "squeeze": lambda a, eqn: [np.squeeze(a, tuple(eqn.params["dimensions"]))],
    "expand_dims": lambda a, eqn: [np.expand_dims(a, tuple(eqn.params["dimensions"]))],
    "transpose": lambda a, eqn: [a.transpose(eqn.params["permutation"])],
    "rev": lambda a, eqn: [np.flip(a, tuple(eqn.params["dimensions"]))],
    "broadcast_in_dim": _broadcast,
    "slice": _slice,
    "split": _split,
}
