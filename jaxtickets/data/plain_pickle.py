"""Reads pickles of plain values and numpy arrays without executing them.

Unpickling runs whatever the file names. This reader never does: it walks the instructions
(`jaxtickets.pickles`) and knows five names (numpy's array and dtype constructors, and the codec
that Python 3 uses for bytes in old protocols). It does not call even those: they are marks that
tell which bytes are an array. Any other name or instruction is an error, so there is no gadget to
build from allowed parts.
"""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from jaxtickets.errors import DataError
from jaxtickets.messages.quoting import shown, told
from jaxtickets.pickles import DAMAGE, Name, Refused, walk

_NAMES = {
    "numpy.core.multiarray _reconstruct": "array",
    "numpy._core.multiarray _reconstruct": "array",
    "numpy.core.numeric _frombuffer": "frombuffer",
    "numpy._core.numeric _frombuffer": "frombuffer",
    "numpy ndarray": "ndarray",
    "numpy dtype": "dtype",
    "_codecs encode": "encode",
}
_DTYPES = ("u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8")
_MOST_AXES = 32


@dataclasses.dataclass(eq=False)
class _DType:
    """A dtype in a pickle: its code, then the byte order."""

    code: str
    order: str = "|"


@dataclasses.dataclass(eq=False)
class _Array:
    """An array that the pickle has begun; `value` comes with its state."""

    value: np.ndarray | None = None


def read_plain_pickle(raw: bytes, where: str) -> dict[Any, Any]:
    """The dictionary in a pickle of protocol 0 to 5, its arrays one level deep made real.

    Args:
      raw: the file's bytes. Python 2 strings and byte arrays come out as bytes.
      where: the file's name, for messages.

    Returns:
      the dictionary; values are None, booleans, integers, floats, bytes, text, lists, tuples,
      dictionaries or arrays.

    Raises:
      DataError: the pickle names a function or class, uses an instruction that plain data does not
        need, is cut short, or holds no dictionary. Nothing in it was executed.

    >>> import pickle
    >>> read_plain_pickle(pickle.dumps({"labels": [3, 1]}, protocol=2), "a.pkl")
    {'labels': [3, 1]}
    """
    try:
        with warnings.catch_warnings():
            # a damaged protocol 0 string has odd escapes
            warnings.simplefilter("ignore", DeprecationWarning)
            result = walk(raw, _NAMES, _reducer(len(raw)), _build)
    except Refused as error:
        raise DataError(
            f"{where}: refused, nothing in it was executed: {error}. A CIFAR file holds lists, text"
            " and arrays only; this one is not the published file. Fetch the archive again"
        ) from None
    except DAMAGE as error:
        raise DataError(
            f"{where}: not a complete pickle ({len(raw):,} bytes): {told(error)}. Fetch it again"
        ) from None
    if not isinstance(result, dict):
        raise DataError(f"{where}: holds a {type(result).__name__}, a dictionary was expected")
    return {
        key: value.value if isinstance(value, _Array) else value for key, value in result.items()
    }


def _reducer(size: int) -> Callable[[str, tuple[Any, ...]], Any]:
    """A function that makes the value of a call, for a pickle of so many bytes."""
    left = size  # one text that is encoded again and again would be more than the pickle has

    def reduce(function: str, arguments: tuple[Any, ...]) -> Any:
        nonlocal left
        match function, arguments:
            case "array", (Name(name="ndarray"), *_):
                return _Array()
            case "frombuffer", (
                bytes() as raw,
                _DType() as dtype,
                tuple() as shape,
                "C" | "F" as order,
            ):
                return _Array(_array(raw, dtype, shape, order))
            case "dtype", (bytes() | str() as code, *_):
                code = code.decode("latin-1") if isinstance(code, bytes) else code
                if code not in _DTYPES:
                    raise Refused(f"an array is of dtype {shown(code)}")
                return _DType(code)
            case "encode", (str() as text, "latin1" | "latin-1") if len(text) <= left:
                left -= len(text)
                return text.encode("latin-1")
        raise Refused(f"it calls {function} in a way that no array needs")

    return reduce


def _build(target: Any, state: Any) -> None:
    match target, state:
        case _DType(), (int(), (str() | bytes()) as order, *_):
            order = order.decode("latin-1") if isinstance(order, bytes) else order
            if order not in ("<", ">", "|", "="):
                raise Refused(f"a byte order is {shown(order)}")
            target.order = order
        case _Array(), (
            int(),
            tuple() as shape,
            _DType() as dtype,
            bool() | int() as fortran,
            bytes() as raw,
        ):
            target.value = _array(raw, dtype, shape, "F" if fortran else "C")
        case _:
            raise Refused(f"it sets the state of a {type(target).__name__}")


def _array(raw: bytes, dtype: _DType, shape: tuple[Any, ...], order: str) -> np.ndarray:
    if len(shape) > _MOST_AXES or not all(type(n) is int and 0 <= n < 2**31 for n in shape):
        raise Refused(f"an array of {len(raw):,} bytes has the shape {shown(shape)}")
    kind = np.dtype(dtype.order + dtype.code)
    if math.prod(shape) * kind.itemsize != len(raw):
        raise Refused(f"an array of shape {shown(shape)} and dtype {kind} has {len(raw):,} bytes")
    return np.ndarray(shape, kind, raw, order="F" if order == "F" else "C")
