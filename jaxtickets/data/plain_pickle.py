"""Reads pickles of plain values and numpy arrays without executing them.

Unpickling runs whatever the file names. This reader never does: it walks the instructions (`pickletools.genops`, which
only parses), keeps its own stack, and knows four names (numpy's array and dtype constructors, and the codec that
Python 3 uses for bytes in old protocols). It does not call even those: they are marks that tell which bytes are an
array. Any other name or instruction is an error, so there is no gadget to build from allowed parts.
"""

from __future__ import annotations

import dataclasses
import pickletools
import struct
import warnings
from typing import Any

import numpy as np

from jaxtickets.data.errors import DataError

_NAMES = {
    "numpy.core.multiarray _reconstruct": "array",
    "numpy._core.multiarray _reconstruct": "array",
    "numpy ndarray": "ndarray",
    "numpy dtype": "dtype",
    "_codecs encode": "encode",
}
_DTYPES = ("u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8")


@dataclasses.dataclass(eq=False)
class _Global:
    """A name the pickle mentions. Never called."""

    name: str


@dataclasses.dataclass(eq=False)
class _DType:
    """What a pickle says of a dtype: its code, then the byte order."""

    code: str
    order: str = "|"


@dataclasses.dataclass(eq=False)
class _Array:
    """An array that the pickle has begun; `value` comes with its state."""

    value: np.ndarray | None = None


class _Refused(Exception):
    """The pickle asks for something that plain data does not need."""


def read_plain_pickle(raw: bytes, where: str) -> dict[Any, Any]:
    """The dictionary in a pickle of protocol 0 to 4, its arrays one level deep made real.

    Args:
      raw: the file's bytes. Python 2 strings come out as bytes.
      where: the file's name, for messages.

    Returns:
      the dictionary; values are None, booleans, integers, floats, bytes, text, lists, tuples, dictionaries or arrays.

    Raises:
      DataError: the pickle names a function or class, uses an instruction that plain data does not need, is cut
        short, or holds no dictionary. Nothing in it was executed.

    >>> import pickle
    >>> read_plain_pickle(pickle.dumps({"labels": [3, 1]}, protocol=2), "a.pkl")
    {'labels': [3, 1]}
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # a damaged protocol 0 string has odd escapes
            result = _walk(raw)
    except _Refused as error:
        raise DataError(
            f"{where}: refused, nothing in it was executed: {error}. A CIFAR file holds lists, text and arrays only; "
            "this one is not the published file. Delete it and fetch the archive again"
        ) from None
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, OverflowError, struct.error) as error:
        raise DataError(f"{where}: not a complete pickle ({len(raw)} bytes): {error}. Delete it and fetch it again") from error
    if not isinstance(result, dict):
        raise DataError(f"{where}: holds a {type(result).__name__}, a dictionary was expected")
    return {key: value.value if isinstance(value, _Array) else value for key, value in result.items()}


def _walk(raw: bytes) -> Any:
    arg: Any
    stack: list[Any] = []
    outer: list[list[Any]] = []
    memo: dict[int, Any] = {}
    for op, arg, _ in pickletools.genops(raw):
        match op.name:
            case "BININT1" | "BININT" | "BININT2" | "INT" | "LONG" | "LONG1" | "BINFLOAT" | "FLOAT":
                stack.append(arg)
            case "BINUNICODE" | "SHORT_BINUNICODE" | "UNICODE" | "BINUNICODE8" | "BINBYTES" | "SHORT_BINBYTES" | "BINBYTES8":
                stack.append(arg)
            case "SHORT_BINSTRING" | "BINSTRING" | "STRING":
                stack.append(arg.encode("latin-1"))
            case "BINPUT" | "LONG_BINPUT" | "PUT":
                memo[arg] = stack[-1]
            case "MEMOIZE":
                memo[len(memo)] = stack[-1]
            case "BINGET" | "LONG_BINGET" | "GET":
                stack.append(memo[arg])
            case "MARK":
                outer.append(stack)
                stack = []
            case "NONE" | "NEWTRUE" | "NEWFALSE":
                stack.append({"NONE": None, "NEWTRUE": True, "NEWFALSE": False}[op.name])
            case "EMPTY_LIST" | "EMPTY_DICT" | "EMPTY_TUPLE":
                stack.append({"EMPTY_LIST": list, "EMPTY_DICT": dict, "EMPTY_TUPLE": tuple}[op.name]())
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                count = int(op.name[-1])
                stack[-count:] = [tuple(_last(stack, count))]
            case "TUPLE" | "LIST" | "DICT":
                items, stack = stack, outer.pop()
                stack.append(tuple(items) if op.name == "TUPLE" else items if op.name == "LIST" else _fill({}, items))
            case "APPEND":
                item = stack.pop()
                _list(stack[-1]).append(item)
            case "APPENDS":
                items, stack = stack, outer.pop()
                _list(stack[-1]).extend(items)
            case "SETITEM":
                value, key = stack.pop(), stack.pop()
                _fill(stack[-1], [key, value])
            case "SETITEMS":
                items, stack = stack, outer.pop()
                _fill(stack[-1], items)
            case "GLOBAL":
                stack.append(_global(arg))
            case "STACK_GLOBAL":
                name, module = stack.pop(), stack.pop()
                stack.append(_global(f"{module} {name}"))
            case "REDUCE":
                arguments, function = stack.pop(), stack.pop()
                stack.append(_reduce(function, arguments))
            case "BUILD":
                state = stack.pop()
                _build(stack[-1], state)
            case "PROTO" | "FRAME":
                pass
            case "STOP":
                return stack.pop()
            case other:
                raise _Refused(f"it uses the instruction {other}")
    raise ValueError("it has no end")


def _last(stack: list[Any], count: int) -> list[Any]:
    if len(stack) < count:
        raise IndexError("its stack runs empty")
    return stack[-count:]


def _list(value: Any) -> list[Any]:
    if type(value) is not list:
        raise _Refused(f"it appends to a {type(value).__name__}")
    return value


def _fill(target: Any, items: list[Any]) -> dict[Any, Any]:
    if type(target) is not dict or len(items) % 2:
        raise _Refused(f"it sets items of a {type(target).__name__}")
    for key, value in zip(items[::2], items[1::2], strict=True):
        if not isinstance(key, (bytes, str, int)):
            raise _Refused(f"a dictionary key is a {type(key).__name__}")
        target[key] = value
    return target


def _global(name: str) -> _Global:
    if name not in _NAMES:
        raise _Refused(f"it names {name.replace(' ', '.')!r}")
    return _Global(_NAMES[name])


def _reduce(function: Any, arguments: Any) -> Any:
    if not isinstance(function, _Global) or type(arguments) is not tuple:
        raise _Refused("it calls something that is not a name")
    match function.name, arguments:
        case "array", (_Global("ndarray"), *_):
            return _Array()
        case "dtype", (bytes() | str() as code, *_):
            code = code.decode("latin-1") if isinstance(code, bytes) else code
            if code not in _DTYPES:
                raise _Refused(f"an array is of dtype {code!r}")
            return _DType(code)
        case "encode", (str() as text, "latin1" | "latin-1"):
            return text.encode("latin-1")
    raise _Refused(f"it calls {function.name} in a way that no array needs")


def _build(target: Any, state: Any) -> None:
    match target, state:
        case _DType(), (int(), (str() | bytes()) as order, *_):
            order = order.decode("latin-1") if isinstance(order, bytes) else order
            if order not in ("<", ">", "|", "="):
                raise _Refused(f"a byte order is {order!r}")
            target.order = order
        case _Array(), (int(), tuple() as shape, _DType() as dtype, bool() | int() as fortran, bytes() as raw):
            if not all(isinstance(n, int) and n >= 0 for n in shape):
                raise _Refused(f"an array has the shape {shape}")
            order = "F" if fortran else "C"
            target.value = np.frombuffer(raw, np.dtype(dtype.order + dtype.code)).reshape(shape, order=order)
        case _:
            raise _Refused(f"it sets the state of a {type(target).__name__}")
