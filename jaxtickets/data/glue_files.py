"""GLUE's examples as texts and labels, from TSV files or somebody's rows, all of them checked."""

from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxtickets.data.files import read_folder
from jaxtickets.data.glue_tasks import GlueTask
from jaxtickets.errors import DataError

_LIMIT = 2**30
"""Bytes that no file of GLUE has; the largest, MNLI's train.tsv, has 79 million."""


@dataclasses.dataclass(frozen=True, eq=False)
class Texts:
    """The texts and labels of a split, before they are tokenised.

    Args:
      first: N texts.
      second: N texts, or None where the task has one each.
      y: labels int32 [N], or targets float32 [N].
    """

    first: list[str]
    second: list[str] | None
    y: np.ndarray

    def __len__(self) -> int:
        return len(self.y)


def read_tsv(task: GlueTask, path: Path) -> Texts:
    r"""The examples of a TSV file, in its order.

    GLUE's files are not quoted: a quotation mark is a letter of the text, and a field ends at a
    tab, a row at a newline and nowhere else (not at U+0085 or U+2028, which occur in texts).

    Args:
      task: what the file is of.
      path: the file. UTF-8, with or without a byte order mark; lines end in "\n" or "\r\n", or all
        of them in "\r".

    Returns:
      the texts. Rows of QQP with too few or too many columns (texts with line breaks or tabs, cut
      apart) are left out, and how many is printed on stderr.

    Raises:
      DataError: a row has another number of columns than the header, or another label than the
        task's, the header lacks a column or has it twice, the file is not UTF-8 or has no rows; the
        message has the file and the line.
    """
    ((_, where, raw),) = read_folder(path.parent, (path.name,), _LIMIT)
    raw = raw.removeprefix(b"\xef\xbb\xbf")
    lines = raw.split(b"\n" if b"\n" in raw else b"\r")
    if lines and not lines[-1]:
        lines.pop()
    skip = 0 if task.header else 1
    header = task.header or _decoded(
        lines[0].removesuffix(b"\r") if lines else b"", f"{where}, line 1"
    ).split("\t")
    *places, label = _places(task, list(header), where)
    texts: list[list[str]] = [[] for _ in places]
    labels, dropped = [], []
    for number, line in enumerate(lines[skip:], 1 + skip):
        fields = _decoded(line.removesuffix(b"\r"), f"{where}, line {number}").split("\t")
        if len(fields) != len(header):
            if not task.ragged:
                reason = (
                    "a tab inside a text?"
                    if len(fields) > len(header)
                    else "a line break inside a text?"
                )
                raise DataError(
                    f"{where}, line {number}: {len(fields)} columns found, {len(header)} expected"
                    f" ({reason}). GLUE's files are separated by tabs and not quoted; fetch the"
                    " file again"
                )
            dropped.append(number)
            continue
        for column, place in zip(texts, places, strict=True):
            column.append(fields[place])
        labels.append(_label(task, fields[label], f"{where}, line {number}"))
    if dropped:
        line_numbers = ", ".join(map(str, dropped[:3])) + (", ..." if len(dropped) > 3 else "")
        print(
            f"{where}: {len(dropped):,} of {len(labels) + len(dropped):,} rows left out for their"
            f" number of columns (lines {line_numbers})",
            file=sys.stderr,
        )
    return _texts(task, texts, labels, where)


def read_rows(task: GlueTask, rows: Iterable[Mapping[str, Any]], where: str) -> Texts:
    """The examples of a library's data set, row by row.

    Args:
      task: what it is.
      rows: mappings with the task's text columns and "label"; texts are str or UTF-8 bytes.
      where: what a message calls them.

    Returns:
      the texts, in the order of the rows.

    Raises:
      DataError: a column is missing, a text is none, a label is not the task's, or there are no
        rows.
    """
    texts: list[list[str]] = [[] for _ in task.texts]
    labels = []
    for number, row in enumerate(rows):
        place = f"{where}, row {number}"
        if lacking := [name for name in (*task.texts, "label") if name not in row]:
            raise DataError(
                f"{place}: columns {', '.join(map(str, row))} found, {', '.join(lacking)} expected."
                f" Is it glue/{task.name}?"
            )
        for column, name in zip(texts, task.texts, strict=True):
            text = row[name]
            text = _decoded(text, place) if isinstance(text, bytes) else text
            if not isinstance(text, str):
                raise DataError(f"{place}: {name!r} is {type(text).__name__}, text expected")
            column.append(text)
        labels.append(_number(task, row["label"], place))
    return _texts(task, texts, labels, where)


def _texts(
    task: GlueTask, texts: list[list[str]], labels: list[int] | list[float], where: str
) -> Texts:
    if not labels:
        raise DataError(f"{where}: no examples found. Fetch it again")
    y = np.array(labels, np.float32 if task.regression else np.int32)
    return Texts(texts[0], texts[1] if len(texts) == 2 else None, y)


def _places(task: GlueTask, header: list[str], where: str) -> list[int]:
    """The columns of a header that hold the texts and the label."""
    columns = [*task.columns, task.label]
    if lacking := [name for name in columns if name not in header]:
        hint = (
            "Test files have no labels"
            if lacking == [task.label]
            else f"Is it a file of {task.folder}?"
        )
        raise DataError(
            f"{where}, line 1: the header lacks {', '.join(map(repr, lacking))}; it has"
            f" {', '.join(header)[:200]}. {hint}"
        )
    if duplicates := [name for name in columns if header.count(name) > 1]:
        raise DataError(
            f"{where}, line 1: the header has {', '.join(map(repr, duplicates))} twice, so its"
            " column cannot be told"
        )
    return [header.index(name) for name in columns]


def _decoded(raw: bytes, where: str) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise DataError(
            f"{where}: not UTF-8 ({error.reason} at byte {error.start}). Fetch it again"
        ) from error


def _label(task: GlueTask, written: str, where: str) -> int | float:
    if task.regression:
        try:
            return _number(task, float(written), where)
        except ValueError as error:
            if isinstance(error, DataError):
                raise
            raise DataError(
                f"{where}: the score is {written!r}, a number from 0 to 5 expected"
            ) from error
    if written not in task.written:
        raise DataError(
            f"{where}: the label is {written[:40]!r}, one of {', '.join(task.written)} expected"
        )
    return task.written.index(written)


def _number(task: GlueTask, value: Any, where: str) -> int | float:
    """A label as a number, checked, from what a library gives."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if task.regression:
        if not 0 <= number <= 5:
            raise DataError(f"{where}: the score is {value!r}, a number from 0 to 5 expected")
        return number
    if number not in range(len(task.class_names)):
        hint = " -1 stands for no label: test splits have none" if number == -1 else ""
        raise DataError(
            f"{where}: the label is {value!r}, 0 to {len(task.class_names) - 1} expected.{hint}"
        )
    return int(number)
