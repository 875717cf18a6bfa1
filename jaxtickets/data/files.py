"""Reads files of a folder or tar archive, never more bytes of them than a real one has."""

from __future__ import annotations

import gzip
import io
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from jaxtickets.errors import DataError
from jaxtickets.files.archives import open_tar
from jaxtickets.messages.quoting import cut, told

MOST_UNPACKED = 2**29
"""Bytes that are unpacked of one archive at most; those of CIFAR have 2^28."""


def read_folder(folder: Path, names: Sequence[str], limit: int) -> Iterator[tuple[int, str, bytes]]:
    """The files of a folder, one after another.

    Args:
      folder: where they are.
      names: their names.
      limit: bytes; one more is read of a larger file, so that its reader notices.

    Yields:
      `(number, where, raw)`: the place in `names`, the path for messages, the bytes.

    Raises:
      DataError: a file cannot be read.
    """
    for number, name in enumerate(names):
        path = folder / name
        try:
            with path.open("rb") as file:
                raw = file.read(limit + 1)
        except OSError as error:
            raise DataError(f"{path}: cannot be read: {told(error)}") from error
        yield number, str(path), _bounded(raw, str(path), path.stat().st_size, limit)


def read_archive(
    path: Path, folder: str, names: Sequence[str], limit: int
) -> Iterator[tuple[int, str, bytes]]:
    """The files of a `.tar.gz`, in the archive's order, read in memory; nothing is extracted.

    Args:
      path: the archive.
      folder: the folder inside it.
      names: files in that folder. Other members, links and devices are passed over.
      limit: bytes; a larger member is an error before it is read.

    Yields:
      as `read_folder`.

    Raises:
      DataError: the archive is damaged or ends early, a member is too large, or files are missing
        from it.
    """
    number_by_path = {PurePosixPath(folder, name): number for number, name in enumerate(names)}
    try:
        with gzip.open(path) as compressed, io.BufferedReader(_Limited(compressed)) as unpacked:
            with open_tar(unpacked) as archive:
                for member in archive:
                    number = (
                        number_by_path.pop(PurePosixPath(member.name), None)
                        if member.isreg()
                        else None
                    )
                    stream = archive.extractfile(member) if number is not None else None
                    if number is not None and stream is not None:
                        where = f"{path}: {cut(member.name)}"
                        yield (
                            number,
                            where,
                            _bounded(stream.read(limit + 1), where, member.size, limit),
                        )
            while unpacked.read(2**20):  # gzip compares its checksum with the bytes where they end
                pass
    except DataError:
        raise
    except (
        tarfile.TarError,
        EOFError,
        zlib.error,
        OSError,
        ValueError,
        KeyError,
        OverflowError,
        RecursionError,
    ) as error:
        raise DataError(
            f"{path}: a damaged or incomplete archive ({path.stat().st_size:,} bytes):"
            f" {told(error)}. Fetch it again"
        ) from error
    if number_by_path:
        lacking = ", ".join(str(name) for name in number_by_path)
        raise DataError(
            f"{path}: lacks {lacking}. It is not the published archive, or not all of it; fetch it"
            " again"
        )


def _bounded(raw: bytes, where: str, size: int, limit: int) -> bytes:
    if len(raw) > limit:
        raise DataError(
            f"{where}: {size:,} bytes found, at most {limit:,} expected. Fetch it again"
        )
    return raw


class _Limited(io.RawIOBase):
    """The unpacked contents of a file, up to the size that no real archive exceeds."""

    def __init__(self, file: gzip.GzipFile) -> None:
        self._file, self._left, self._patience = file, MOST_UNPACKED, 100

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        chunk = self._file.read(len(buffer))
        self._left -= len(chunk)
        if self._left < 0:
            raise tarfile.ReadError(f"unpacked it has more than {MOST_UNPACKED:,} bytes")
        # Python reads on, block by block, to the end of a member that is said to have 2^90 bytes
        if not chunk:
            self._patience -= 1
            if self._patience < 0:
                raise tarfile.ReadError("a member ends after the archive does")
        buffer[: len(chunk)] = chunk
        return len(chunk)
