"""Reads MATLAB files of version 5.

They are not read by SciPy, whose compiled reader ends the process on some damaged ones.

Numbers, texts and structures of them are read, which is what the published data sets hold. A file
is a row of elements, each a type and a number of bytes; every number is held against what is there
before it is used, and nothing is unpacked beyond it.

References:
  MathWorks, MAT-File Format, version 5.
"""

from __future__ import annotations

import dataclasses
import math
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from jaxtickets.errors import DataError
from jaxtickets.messages.quoting import shown, told

_MATRIX, _COMPRESSED = 14, 15
_NUMBERS = {
    1: "i1",
    2: "u1",
    3: "i2",
    4: "u2",
    5: "i4",
    6: "u4",
    7: "f4",
    9: "f8",
    12: "i8",
    13: "u8",
}
_TEXTS = {1: "utf-8", 2: "utf-8", 16: "utf-8", 4: "utf-16", 17: "utf-16", 18: "utf-32"}
_KINDS = {
    6: "f8",
    7: "f4",
    8: "i1",
    9: "u1",
    10: "i2",
    11: "u2",
    12: "i4",
    13: "u4",
    14: "i8",
    15: "u8",
}
_OTHERS = {
    1: "cell",
    2: "struct",
    3: "object",
    4: "char",
    5: "sparse",
    16: "function",
    17: "opaque",
}
_COMPLEX = 0x0800
_MOST_DEPTH, _MOST_AXES, _MOST_VARIABLES, _MOST_HEADER = 4, 32, 64, 2**13


class _Damaged(Exception):
    """The error of a damaged file, whose text says what is wrong."""


@dataclasses.dataclass(frozen=True)
class Variable:
    """A variable of a file, not yet read.

    Args:
      name: its name.
      kind: a dtype such as "uint8", or "char", "struct", "cell" and the like.
      shape: its shape.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    _file: _File
    _start: int
    _size: int
    _packed: bool

    def read(self) -> Any:
        """The variable's value: an array in Fortran order, a text, or a list of dictionaries.

        The last stands for a structure.

        Raises:
          DataError: damaged, or of a kind that is not read here.
        """
        file = self._file
        with file.guarded(), file.path.open("rb") as opened:
            raw = _bytes(opened, self._start, self._size)
            body = _inflate(raw, self._most()) if self._packed else raw
            return _matrix(memoryview(body), file.order, 0)[3]

    def _most(self) -> int:
        """The most bytes that the variable can have when it is unpacked.

        Numbers of eight bytes, and what stands before them.

        A structure says nothing of its size.
        """
        return (
            8 * math.prod(self.shape) + _MOST_HEADER
            if self.kind in _NUMPY or self.kind == "char"
            else _MOST_STRUCTURE
        )


_MOST_STRUCTURE = 2**24
_NUMPY = {str(np.dtype(code)) for code in _KINDS.values()}


@dataclasses.dataclass(frozen=True)
class _File:
    path: Path
    order: str

    def guarded(self) -> _Guard:
        return _Guard(self.path)


@dataclasses.dataclass
class _Guard:
    """A context that makes errors inside a `DataError` that names the file."""

    path: Path

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, OSError):
            raise DataError(f"{self.path}: cannot be read: {told(error)}") from error
        if isinstance(
            error, _Damaged | struct.error | zlib.error | ValueError | RecursionError
        ) and not isinstance(error, DataError):
            raise DataError(f"{self.path}: damaged: {told(error)}. Fetch it again") from None


def variables(path: Path) -> Iterator[Variable]:
    """The variables of a file; of each only the beginning is read.

    Args:
      path: the file.

    Raises:
      DataError: it cannot be read, is of another version, or damaged.
    """
    with _Guard(path), path.open("rb") as opened:
        head = opened.read(128)
        order = {b"IM": "<", b"MI": ">"}.get(head[126:128], "")
        if head.startswith(b"\x89HDF") or head[124:126] in (b"\x00\x02", b"\x02\x00"):
            raise _Damaged("it is of MATLAB's version 7.3, and version 5 was expected")
        if not order or struct.unpack(order + "H", head[124:126])[0] != 0x0100:
            raise _Damaged(f"it is no MATLAB file of version 5; it begins with {shown(head[:20])}")
        file, end = _File(path, order), path.stat().st_size
        at = 128
        for _ in range(_MOST_VARIABLES):
            if at >= end:
                return
            kind, size = struct.unpack(order + "II", _bytes(opened, at, 8))
            if kind not in (_MATRIX, _COMPRESSED):
                raise _Damaged(f"an element at byte {at:,} is of the type {kind}")
            if size > end - at - 8:
                raise _Damaged(
                    f"it ends early: an element at byte {at:,} has {size:,} bytes, and"
                    f" {end - at - 8:,} are there"
                )
            packed = kind == _COMPRESSED
            raw = _bytes(opened, at + 8, min(size, _MOST_HEADER))
            beginning = memoryview(
                zlib.decompressobj().decompress(raw, _MOST_HEADER) if packed else raw
            )
            kind, shape, name, _ = _matrix(
                beginning[8:] if packed else beginning, order, 0, header=True
            )
            yield Variable(name, kind, shape, file, at + 8, size, packed)
            at += 8 + size
        raise _Damaged(f"it has more than {_MOST_VARIABLES} variables")


def _bytes(file: BinaryIO, start: int, size: int) -> bytes:
    file.seek(start)
    contents = file.read(size)
    if len(contents) != size:
        raise _Damaged(f"it ends early: {size:,} bytes from byte {start:,} on were expected")
    return contents


def _inflate(raw: bytes, most: int) -> bytes:
    """The one element in compressed bytes, without its type and size."""
    unpack = zlib.decompressobj()
    body = unpack.decompress(raw, most + 8)
    if not unpack.eof:
        body += unpack.decompress(unpack.unconsumed_tail, 1)
    if not unpack.eof or len(body) > most + 8:
        raise _Damaged(
            f"a variable is cut short, or larger than the {most:,} bytes that it can have"
        )
    return body[8:]


def _element(raw: memoryview, at: int, order: str) -> tuple[int, memoryview, int]:
    """The type and content of the element at `at`, and where the next one begins."""
    if at + 8 > len(raw):
        raise _Damaged("a variable ends early")
    kind, size = struct.unpack_from(order + "II", raw, at)
    if kind >> 16:  # up to four bytes stand in the tag itself
        kind, size = kind & 0xFFFF, kind >> 16
        if size > 4:
            raise _Damaged(f"a short element of {size:,} bytes")
        return kind, raw[at + 4 : at + 4 + size], at + 8
    if size > len(raw) - at - 8:
        raise _Damaged(f"an element has {size:,} bytes, and {len(raw) - at - 8:,} are there")
    return kind, raw[at + 8 : at + 8 + size], at + 8 + (size + 7) // 8 * 8


def _matrix(
    raw: memoryview, order: str, depth: int, header: bool = False
) -> tuple[str, tuple[int, ...], str, Any]:
    """Kind, shape, name and value of a matrix element's content.

    The value is None where only the header is asked for.
    """
    if not raw and depth:
        return "double", (0, 0), "", np.zeros((0, 0))
    _, flags, at = _element(raw, 0, order)
    _, dims, at = _element(raw, at, order)
    _, name, at = _element(raw, at, order)
    if len(flags) < 4 or len(dims) % 4 or not 8 <= len(dims) <= 4 * _MOST_AXES:
        raise _Damaged(f"a variable has {len(flags)} bytes of flags and {len(dims)} of lengths")
    flag = struct.unpack_from(order + "I", flags)[0]
    shape = tuple(np.frombuffer(dims, order + "i4").tolist())
    if min(shape) < 0:
        raise _Damaged(f"a variable has the shape {shown(shape)}")
    number = flag & 0xFF
    kind = (
        str(np.dtype(_KINDS[number]))
        if number in _KINDS
        else _OTHERS.get(number, f"class {number}")
    )
    called = bytes(name).decode("latin-1")
    if header:
        return kind, shape, called, None
    if (
        flag & _COMPLEX
        or depth > _MOST_DEPTH
        or not (number in _KINDS or kind in ("char", "struct"))
    ):
        raise _Damaged(
            f"{shown(called)} is a {'complex' if flag & _COMPLEX else kind}, which is not read here"
        )
    if kind == "struct":
        return kind, shape, called, _structure(raw, at, order, depth, math.prod(shape))
    stored, content, _ = _element(raw, at, order)
    if kind == "char":
        if stored not in _TEXTS:
            raise _Damaged(f"a text is of the type {stored}")
        code = _TEXTS[stored] + {"<": "-le", ">": "-be"}[order] * (_TEXTS[stored] != "utf-8")
        return kind, shape, called, bytes(content).decode(code)
    if stored not in _NUMBERS:
        raise _Damaged(f"numbers are of the type {stored}")
    dtype = np.dtype(order + _NUMBERS[stored])
    if math.prod(shape) * dtype.itemsize != len(content):
        raise _Damaged(
            f"{shown(called)} of shape {list(shape)} has {len(content):,} bytes of {dtype.name}"
        )
    return (
        kind,
        shape,
        called,
        np.ndarray(shape, dtype, content, order="F").astype(kind, copy=False),
    )


def _structure(
    raw: memoryview, at: int, order: str, depth: int, count: int
) -> list[dict[str, Any]]:
    _, length, at = _element(raw, at, order)
    _, names, at = _element(raw, at, order)
    width = struct.unpack(order + "i", length)[0] if len(length) == 4 else 0
    if width < 1 or len(names) % width:
        raise _Damaged(f"a structure has {len(names)} bytes of names, each of {width}")
    fields = [
        bytes(names[i : i + width]).partition(b"\0")[0].decode("latin-1")
        for i in range(0, len(names), width)
    ]
    if count * len(fields) * 8 > len(raw):
        raise _Damaged(f"a structure of {count:,} by {len(fields)} values has {len(raw):,} bytes")
    rows = []
    for _ in range(count if fields else 0):
        row = {}
        for field in fields:
            kind, content, at = _element(raw, at, order)
            if kind != _MATRIX:
                raise _Damaged(f"a value of a structure is of the type {kind}")
            row[field] = _matrix(content, order, depth + 1)[3]
        rows.append(row)
    return rows
