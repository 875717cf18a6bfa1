"""Walks a pickle's instructions without executing any.

Unpickling runs whatever the file names. `walk` never does: it only parses (`pickletools.genops`),
keeps its own stack, and knows plain values. What a name means, if anything, its caller says; a name
is a mark on the stack and is never called.
"""

from __future__ import annotations

import dataclasses
import pickletools
import struct
from collections.abc import Callable, Mapping
from typing import Any

from jaxtickets.messages.quoting import shown

DAMAGE = (
    ValueError,
    KeyError,
    IndexError,
    TypeError,
    AttributeError,
    OverflowError,
    RecursionError,
    struct.error,
)
"""What reading damaged bytes may raise, besides `Refused`."""

MOST_INSTRUCTIONS = 2**19
"""Of one pickle. The largest of CIFAR-100 has 250,000; weights have some 30 for each tensor."""

# integers that are equal modulo 2^61 - 1 fall into one place of a dictionary, which then takes
# quadratic time
_MOST_KEY = 2**32


@dataclasses.dataclass(eq=False)
class Name:
    """A name the pickle mentions, by what the caller calls it. Never called."""

    name: str


class Refused(Exception):
    """The pickle asks for something that plain data does not need."""


def walk(
    raw: bytes,
    names: Mapping[str, str],
    reduce: Callable[[str, tuple[Any, ...]], Any],
    build: Callable[[Any, Any], None],
    persistent: Callable[[Any], Any] | None = None,
) -> Any:
    """The value in a pickle of protocol 0 to 5.

    Work and memory are bounded by the pickle's size: values are kept once, however often the pickle
    refers to them. So do not write out or copy what comes back without a limit: one list that holds
    another twice, and so on, has no size that can be waited for.

    Args:
      raw: the pickle's bytes.
      names: the names it may mention, `"module name"`, and what to call them; any other is refused.
      reduce: `(called name, arguments) -> value`: what stands for a call. Raises `Refused` for
        calls that no data needs.
      build: `(value, state)`: gives a value its state; refuses likewise.
      persistent: `identity -> value`: what stands for something stored beside the pickle; None
        where nothing is.

    Returns:
      the value: None, booleans, numbers, bytes, text, lists, tuples, dictionaries, and what
        `reduce` made.

    Raises:
      Refused: another name, an instruction that plain data does not need (buffers beside the pickle
        among them), or too many of them.
      ValueError: and KeyError, IndexError, TypeError, AttributeError, OverflowError, struct.error:
        damaged or cut short.

    >>> import pickle
    >>> walk(pickle.dumps([1, {"a": None}], protocol=2), {}, never, never)
    [1, {'a': None}]
    """
    arg: Any
    stack: list[Any] = []
    outer: list[list[Any]] = []
    memo: dict[int, Any] = {}
    for count, (op, arg, _) in enumerate(pickletools.genops(raw)):
        if count >= MOST_INSTRUCTIONS:
            raise Refused(f"it has more than {MOST_INSTRUCTIONS:,} instructions")
        match op.name:
            case "BININT1" | "BININT" | "BININT2" | "INT" | "LONG" | "LONG1" | "BINFLOAT" | "FLOAT":
                stack.append(arg)
            case (
                "BINUNICODE"
                | "SHORT_BINUNICODE"
                | "UNICODE"
                | "BINUNICODE8"
                | "BINBYTES"
                | "SHORT_BINBYTES"
                | "BINBYTES8"
            ):
                stack.append(arg)
            case "SHORT_BINSTRING" | "BINSTRING" | "STRING":
                stack.append(arg.encode("latin-1"))
            case "BYTEARRAY8":
                stack.append(bytes(arg))
            case "BINPUT" | "LONG_BINPUT" | "PUT":
                memo[_small(arg)] = stack[-1]
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
                stack.append(
                    {"EMPTY_LIST": list, "EMPTY_DICT": dict, "EMPTY_TUPLE": tuple}[op.name]()
                )
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                size = int(op.name[-1])
                stack[-size:] = [tuple(_last(stack, size))]
            case "TUPLE" | "LIST" | "DICT":
                items, stack = stack, outer.pop()
                stack.append(
                    tuple(items)
                    if op.name == "TUPLE"
                    else items
                    if op.name == "LIST"
                    else _fill({}, items)
                )
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
                stack.append(_name(arg, names))
            case "STACK_GLOBAL":
                name, module = stack.pop(), stack.pop()
                if type(name) is not str or type(module) is not str:
                    raise Refused(f"it names {shown((module, name))}")
                stack.append(_name(f"{module} {name}", names))
            case "REDUCE":
                arguments, function = stack.pop(), stack.pop()
                if not isinstance(function, Name) or type(arguments) is not tuple:
                    raise Refused("it calls something that is not a name")
                stack.append(reduce(function.name, arguments))
            case "BUILD":
                state = stack.pop()
                build(stack[-1], state)
            case "BINPERSID" if persistent is not None:
                stack.append(persistent(stack.pop()))
            case "PROTO" | "FRAME":
                pass
            case "STOP":
                return stack.pop()
            case other:
                raise Refused(f"it uses the instruction {other}")
    raise ValueError("it has no end")


def _last(stack: list[Any], count: int) -> list[Any]:
    if len(stack) < count:
        raise IndexError("its stack runs empty")
    return stack[-count:]


def _list(value: Any) -> list[Any]:
    if type(value) is not list:
        raise Refused(f"it appends to a {type(value).__name__}")
    return value


def _fill(target: Any, items: list[Any]) -> dict[Any, Any]:
    if type(target) is not dict or len(items) % 2:
        raise Refused(f"it sets items of a {type(target).__name__}")
    for key, value in zip(items[::2], items[1::2], strict=True):
        if not isinstance(key, (bytes, str, int)):
            raise Refused(f"a dictionary key is a {type(key).__name__}")
        target[_small(key) if isinstance(key, int) else key] = value
    return target


def _small(number: int) -> int:
    if abs(number) >= _MOST_KEY:
        raise Refused(f"a key or a place is {shown(number)}")
    return number


def _name(name: str, names: Mapping[str, str]) -> Name:
    if name not in names:
        raise Refused(f"it names {shown(name.replace(' ', '.'))}")
    return Name(names[name])


def never(*arguments: Any) -> Any:
    """A `reduce` or `build` for pickles of plain values, which need neither."""
    raise Refused(
        f"it makes or changes {', '.join(type(one).__name__ for one in arguments)} by a call"
    )
