"""Parses records of CIFAR, binary or pickled: every length and every label is checked."""

from __future__ import annotations

import numpy as np

from jaxtickets.data.plain_pickle import read_plain_pickle
from jaxtickets.data.published import HEIGHT, PIXELS, WIDTH, Published
from jaxtickets.errors import DataError

Arrays = tuple[np.ndarray, np.ndarray]


def binary_size(published: Published, records: int) -> int:
    """Bytes of a binary file: per record the label bytes and 3,072 pixels."""
    return records * (published.label_bytes + PIXELS)


def pickled_limit(records: int) -> int:
    """A number of bytes that no pickled file exceeds: three times its pixels, and some."""
    return 3 * records * PIXELS + 2**20


def parse_binary(published: Published, raw: bytes, where: str, records: int) -> Arrays:
    """A binary file's images and labels.

    Args:
      published: the data set.
      raw: the file: `records` times the label byte(s), then 1,024 red, 1,024 green, 1,024 blue
        pixels, by rows.
      where: its name, for messages.
      records: how many there must be.

    Returns:
      `(x, y)`: a view of uint8 [records, 32, 32, 3], labels uint8 [records].

    Raises:
      DataError: another number of bytes, or a label that no class has.
    """
    expected = binary_size(published, records)
    if len(raw) != expected:
        raise DataError(
            f"{where}: {len(raw):,} bytes found, {expected:,} expected ({records:,} records). Fetch"
            " it again"
        )
    table = np.frombuffer(raw, np.uint8).reshape(records, published.label_bytes + PIXELS)
    labels = table[:, published.label_bytes - 1]
    return _images(table[:, published.label_bytes :]), _checked(published, labels, where)


def parse_pickled(published: Published, raw: bytes, where: str, records: int) -> Arrays:
    """A pickled file's images and labels, read without executing it.

    Args:
      published: the data set.
      raw: the file: a dictionary whose `data` is uint8 [records, 3072] and whose labels are a list
        of integers.
      where: its name, for messages.
      records: how many there must be.

    Returns:
      as `parse_binary`.

    Raises:
      DataError: the pickle is refused or cut short; `data` or the labels are missing, of another
        type or length; a label that no class has.
    """
    content = {
        key.decode("latin-1") if isinstance(key, bytes) else key: value
        for key, value in read_plain_pickle(raw, where).items()
    }
    data, labels = content.get("data"), content.get(published.label_key)
    if (
        not isinstance(data, np.ndarray)
        or data.dtype != np.uint8
        or data.shape != (records, PIXELS)
    ):
        description = (
            f"{data.dtype}{list(data.shape)}"
            if isinstance(data, np.ndarray)
            else type(data).__name__
        )
        raise DataError(f"{where}: 'data' is {description}, uint8[{records}, {PIXELS}] expected")
    if isinstance(labels, list):
        if not all(type(label) is int for label in labels):
            raise DataError(f"{where}: {published.label_key!r} holds something else than integers")
        labels = np.array([min(max(label, -1), 2**15) for label in labels], np.int32)
    if (
        not isinstance(labels, np.ndarray)
        or labels.dtype.kind not in "iu"
        or labels.shape != (records,)
    ):
        description = (
            f"{labels.dtype}{list(labels.shape)}"
            if isinstance(labels, np.ndarray)
            else type(labels).__name__
        )
        raise DataError(
            f"{where}: {published.label_key!r} is {description}, {records} integers expected"
        )
    return _images(data), _checked(published, labels, where)


def _images(pixels: np.ndarray) -> np.ndarray:
    """A view [N, 32, 32, 3] of pixels [N, 3072] that lie by channel, row, column."""
    return pixels.reshape(-1, 3, HEIGHT, WIDTH).transpose(0, 2, 3, 1)


def _checked(published: Published, labels: np.ndarray, where: str) -> np.ndarray:
    wrong_rows = np.flatnonzero((labels < 0) | (labels >= published.num_classes))
    if len(wrong_rows):
        raise DataError(
            f"{where}: the label of record {wrong_rows[0]} is {labels[wrong_rows[0]]}, 0 to"
            f" {published.num_classes - 1} expected ({len(wrong_rows)} such records). Is it a file"
            f" of {published.name}?"
        )
    return labels
