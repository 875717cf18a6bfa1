"""Reads data sets that tensorflow-datasets has prepared, through it and without TensorFlow."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from jaxtickets.data.labelled_images import collect
from jaxtickets.data.published import HEIGHT, WIDTH
from jaxtickets.errors import DataError
from jaxtickets.messages.quoting import told

_LENGTH = struct.Struct("<Q")
_VERSION = re.compile(r"\d+\.\d+\.\d+")
# bytes of an example: room is made for as many as the information says, so it has to be possible
_LEAST = 8


def find_prepared(root: Path, name: str) -> Path | None:
    """The folder of a prepared data set: its newest version under `root`.

    Args:
      root: the folder that holds `name/<version>`, or one of those two themselves.
      name: what tensorflow-datasets calls it, with its configuration if it has several, such as
        "glue/mrpc".

    Returns:
      the folder with `dataset_info.json`, or None. The library is not imported to find out.
    """
    name_parts = Path(name).parts
    named = [
        place for place in (root, root.parent) if place.parts[-len(name_parts) :] == name_parts
    ]
    folders = [root / name, *([root, root.parent] if named else [])]
    versions = [
        path.parent
        for folder in folders
        for path in folder.glob("*/dataset_info.json")
        if _VERSION.fullmatch(path.parent.name)
    ]
    if root in versions:
        return root
    return max(
        versions, key=lambda path: [int(part) for part in path.name.split(".")], default=None
    )


def read_prepared(
    folder: Path, split: str, num_classes: int
) -> tuple[np.ndarray, np.ndarray] | None:
    """The arrays of a split, in the order of its shards.

    Sets prepared as array_record are read by tensorflow-datasets' data source. For tfrecord, its
    default, that needs TensorFlow; here the frames are cut apart without it, and each example is
    decoded by tensorflow-datasets as well.

    Args:
      folder: with `dataset_info.json`.
      split: "train" or "test".
      num_classes: labels are 0 to `num_classes - 1`.

    Returns:
      `(x, y)`: uint8 [N, 32, 32, 3], int32 [N]; None if the set was prepared without this split.

    Raises:
      DataError: a shard is missing, cut short or malformed; another file format; an image of
        another shape or type; a label that no class has.
      ImportError: tensorflow-datasets, or what it needs for reading, is not installed.
    """
    counted_examples = prepared_examples(folder, split, "vision")
    if counted_examples is None:
        return None
    pairs = ((example["image"], example["label"]) for example in counted_examples[1])
    return collect(
        pairs, counted_examples[0], str(folder), split, num_classes, shape=(HEIGHT, WIDTH, 3)
    )


def prepared_examples(folder: Path, split: str, extra: str) -> tuple[int, Iterator[Any]] | None:
    """The examples of a split, decoded one after another, in the order of its shards.

    Args:
      folder: with `dataset_info.json`.
      split: as the set was prepared.
      extra: of this package, for the message of what to install.

    Returns:
      `(N, examples)`: what the set's information says, and dictionaries, of which the reader counts
      N; None if the set was prepared without this split.

    Raises:
      DataError: a shard is missing or another file format, at once; a damaged shard, while reading.
      ImportError: tensorflow-datasets, or what it needs for reading, is not installed.
    """
    try:
        import tensorflow_datasets as tfds

        builder = tfds.builder_from_directory(folder)
        if split not in builder.info.splits:
            return None
        total, size = builder.info.splits[split].num_examples, _bytes(builder, split)
        if total * _LEAST > size:
            raise DataError(
                f"{folder}: dataset_info.json gives {total:,} examples of {split!r}, whose files"
                f" have {size:,} bytes. Prepare it again"
            )
        return total, _guarded(_examples(builder, folder, split), folder, split, extra)
    except ImportError as error:
        raise ImportError(_to_install(folder, extra, error)) from error


def _bytes(builder: Any, split: str) -> int:
    """The bytes of a split's files; one that is missing is told when it is read."""
    return sum(
        Path(path).stat().st_size if Path(path).exists() else 2**40
        for path in builder.info.splits[split].filepaths
    )


def _to_install(folder: Path, extra: str, error: ImportError) -> str:
    return (
        f"{folder} was prepared by tensorflow-datasets; to read it: pip install"
        f" 'jaxtickets[{extra}]' ({error})"
    )


def _examples(builder: Any, folder: Path, split: str) -> Iterable[Any]:
    part = builder.info.splits[split]
    lacking = [path.name for path in part.filepaths if not path.exists()]
    if lacking:
        raise DataError(
            f"{folder}: {', '.join(lacking)} missing, of {len(part.filepaths)} files of {split!r}."
            " Prepare it again"
        )
    kind = builder.info.file_format.value
    if kind == "array_record":
        return builder.as_data_source(split)
    if kind == "tfrecord":
        decode = builder.info.features.deserialize_example_np
        return (decode(record) for path in part.filepaths for record in read_frames(Path(path)))
    raise DataError(
        f"{folder}: prepared as {kind}; array_record and tfrecord can be read. Prepare it with"
        " file_format='array_record'"
    )


def _guarded(examples: Iterable[Any], folder: Path, split: str, extra: str) -> Iterator[Any]:
    """The examples; what the library raises about a damaged one becomes a `DataError`."""
    try:
        yield from examples
    except DataError:
        raise
    except ImportError as error:
        raise ImportError(_to_install(folder, extra, error)) from error
    except Exception as error:
        raise DataError(
            f"{folder}: {split!r} cannot be read: {told(error)}. Prepare it again"
        ) from error


def read_frames(path: Path) -> Iterator[bytes]:
    """The records of a TFRecord file.

    Each has a length (8 bytes), its checksum (4), the record, its checksum (4).

    The checksums are not verified (there is no CRC-32C in the standard library); lengths are, and
    the images' own format carries checksums.

    Args:
      path: the file.

    Yields:
      each record's bytes.

    Raises:
      DataError: the file ends inside a record.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        while header := file.read(12):
            start = file.tell()
            length = _LENGTH.unpack(header[:8])[0] if len(header) == 12 else size
            if start + length + 4 > size:
                raise DataError(
                    f"{path}: cut short: {size:,} bytes found, {start + length + 4:,} expected for"
                    f" the record at {start - len(header):,}"
                )
            yield file.read(length)
            file.seek(4, 1)
