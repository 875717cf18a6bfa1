"""Reads JSON and other files of runs, with limits on size and depth.

JSON objects whose fields are checked as they are taken, and bytes as `data:` addresses.

Nothing that a file says is believed: not its size, not the kind of a field, not that a text is
printable.
"""

from __future__ import annotations

import base64
import dataclasses
import json
import os
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxtickets.errors import ReportError
from jaxtickets.messages import quoting

MOST_JSON = 32 * 2**20
MOST_METRICS = 64 * 2**20
MOST_PICTURE = 8 * 2**20
MOST_TEXT = 2_000


def read_bytes(file: Path, most: int) -> bytes:
    """The contents of a file that is not larger than `most` bytes.

    Args:
      file: where.
      most: bytes that are read at most.

    Raises:
      ReportError: it is no plain file, cannot be read, or is larger.
    """
    if not os.path.isfile(file):
        raise ReportError(f"{file}: no such file.")
    try:
        with file.open("rb") as opened:
            contents = opened.read(most + 1)
    except OSError as error:
        raise ReportError(f"{file}: cannot be read ({error.strerror}).") from None
    if len(contents) > most:
        raise ReportError(
            f"{file}: larger than the {most // 2**20} MiB that are read of such a file; it is not"
            " what a run writes."
        )
    return contents


def printable(text: str, most: int = MOST_TEXT) -> str:
    """The text without what cannot be printed, and not longer than `most`.

    That is control characters, and marks that turn the direction.

    >>> printable("a\\x00b\\u202ec")
    'a�b�c'
    """
    shown = "".join(
        letter if letter.isprintable() or letter in "\n\t" else "\ufffd"
        for letter in text[: most + 1]
    )
    return shown if len(shown) <= most else shown[: most - 1] + "…"


@dataclasses.dataclass(frozen=True)
class Record:
    """A JSON object of a file, or a part of one.

    What is taken from it is of the wanted kind, or an error that names file and field.

    Args:
      file: where it was read.
      data: the object.
      where: the way to it within the file, empty for the whole.

    >>> Record(Path("results.json"), {"ensemble": {"nll": "low"}}).part("ensemble").number("nll")
    Traceback (most recent call last):
    ...
    jaxtickets.errors.ReportError: results.json: ensemble.nll is 'low', wanted a number.
    """

    file: Path
    data: dict[str, Any]
    where: str = ""

    def __contains__(self, name: str) -> bool:
        return self.data.get(name) is not None

    def number(self, name: str) -> float | None:
        """A field as a finite number; None where it is null or not there."""
        return self._number(self.data.get(name), name)

    def numbers(self, name: str) -> list[float | None]:
        """A field as a list of numbers; empty where it is null or not there."""
        return [self._number(value, f"{name}[{i}]") for i, value in enumerate(self._list(name))]

    def count(self, name: str) -> int:
        """A field as a whole number from 0."""
        value = self.data.get(name)
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**63:
            raise self.wrong(name, "a whole number from 0")
        return value

    def text(self, name: str, default: str | None = None) -> str:
        """A field as a text, made printable."""
        value = self.data.get(name, default)
        if value is None and default is not None:
            return default
        if not isinstance(value, str):
            raise self.wrong(name, "a text")
        return printable(value)

    def texts(self, name: str) -> list[str]:
        """A field as a list of texts, made printable; empty where it is null or not there."""
        values = self._list(name)
        for i, value in enumerate(values):
            if not isinstance(value, str):
                raise self.wrong(f"{name}[{i}]", "a text", value)
        return [printable(value) for value in values]

    def flag(self, name: str) -> bool:
        """A field as true or false; false where it is null or not there."""
        value = self.data.get(name)
        if value is not None and not isinstance(value, bool):
            raise self.wrong(name, "true or false")
        return bool(value)

    def part(self, name: str) -> Record:
        """A field as an object, which is a `Record` again."""
        value = self.data.get(name)
        if not isinstance(value, dict):
            raise self.wrong(name, "an object")
        return Record(self.file, value, self._way(name))

    def maybe(self, name: str) -> Record | None:
        """A field as an object, or None where it is null or not there."""
        return self.part(name) if name in self else None

    def parts(self, name: str) -> list[Record]:
        """A field as a list of objects; empty where it is null or not there."""
        records = []
        for i, value in enumerate(self._list(name)):
            if not isinstance(value, dict):
                raise self.wrong(f"{name}[{i}]", "an object", value)
            records.append(Record(self.file, value, self._way(f"{name}[{i}]")))
        return records

    def wrong(self, name: str, wanted: str, *value: Any) -> ReportError:
        """The error that says what a field is and what is wanted."""
        got = value[0] if value else self.data.get(name)
        shown = quoting.shown(got)
        shown = (
            "missing"
            if name not in self.data and not value
            else shown
            if len(shown) < 60
            else type(got).__name__
        )
        return ReportError(
            f"{self.file}: {printable(self._way(name), 300)} is {printable(shown, 100)}, wanted"
            f" {wanted}."
        )

    def _way(self, name: str) -> str:
        return f"{self.where}.{name}" if self.where else name

    def _list(self, name: str) -> list[Any]:
        value = self.data.get(name)
        if value is not None and not isinstance(value, list):
            raise self.wrong(name, "a list")
        return value or []

    def _number(self, value: Any, name: str) -> float | None:
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e300:
            raise self.wrong(name, "a number", value)
        return float(value)


def as_record(value: Mapping[str, Any] | Record) -> Record:
    """A JSON object as a `Record`; a `Record` is returned as it is."""
    return value if isinstance(value, Record) else Record(Path("results"), dict(value))


def read_json(file: Path) -> Record:
    """The JSON object in a file.

    Raises:
      ReportError: not JSON (names the line), not an object, NaN or Infinity in it, or too large.
    """
    contents = _parsed(read_bytes(file, MOST_JSON), str(file))
    if not isinstance(contents, dict):
        raise ReportError(f"{file}: holds a {type(contents).__name__}, wanted a JSON object.")
    return Record(file, contents)


def read_lines(file: Path) -> list[Record]:
    """The objects of a file with one a line; a last line that was cut off is passed over.

    Raises:
      ReportError: another line is no JSON object (names it), or the file is too large.
    """
    lines = [line for line in read_bytes(file, MOST_METRICS).split(b"\n") if line.strip()]
    records = []
    for number, line in enumerate(lines, 1):
        try:
            record = _parsed(line, f"{file}, line {number}")
        except ReportError:
            if number == len(lines):
                break
            raise
        if not isinstance(record, dict):
            raise ReportError(
                f"{file}, line {number}: holds a {type(record).__name__}, wanted a JSON object."
            )
        records.append(Record(file, record, f"line {number}"))
    return records


def _parsed(text: bytes, where: str) -> Any:
    def refuse(constant: str) -> None:
        raise ReportError(f"{where}: {constant} is no JSON; an undefined number is null.")

    try:
        return json.loads(text, parse_constant=refuse)
    except json.JSONDecodeError as error:
        raise ReportError(
            f"{where}: damaged, no JSON at line {error.lineno}, column {error.colno}: {error.msg}."
        ) from None
    except UnicodeDecodeError as error:
        raise ReportError(f"{where}: damaged, no text at byte {error.start}.") from None
    except RecursionError:
        raise ReportError(f"{where}: nested without end.") from None
    except ReportError:
        raise
    except ValueError as error:  # an integer of thousands of digits
        raise ReportError(f"{where}: {error}.") from None


def picture_address(file: Path) -> tuple[str, int, int]:
    """A PNG file as a `data:` address, its width and its height in pixels.

    Raises:
      ReportError: it is no PNG, or too large.
    """
    contents = read_bytes(file, MOST_PICTURE)
    if (
        not contents.startswith(b"\x89PNG\r\n\x1a\n")
        or contents[12:16] != b"IHDR"
        or len(contents) < 33
    ):
        raise ReportError(f"{file}: no PNG picture.")
    width, height = struct.unpack(">II", contents[16:24])
    if not (0 < width <= 20_000 and 0 < height <= 20_000):
        raise ReportError(
            f"{file}: a picture of {width} x {height} pixels; up to 20,000 a side are shown."
        )
    return address("image/png", contents), width, height


def address(kind: str, contents: bytes) -> str:
    """Contents as a `data:` address.

    >>> address("text/plain", b"hello")
    'data:text/plain;base64,aGVsbG8='
    """
    return f"data:{kind};base64,{base64.b64encode(contents).decode()}"
