"""The bytes of named files, from a folder or from a tar archive, never more of them than a real one has."""

from __future__ import annotations

import gzip
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from jaxtickets.data.errors import DataError


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
            raise DataError(f"{path}: cannot be read: {error}") from error
        yield number, str(path), _bounded(raw, str(path), path.stat().st_size, limit)


def read_archive(path: Path, folder: str, names: Sequence[str], limit: int) -> Iterator[tuple[int, str, bytes]]:
    """The files of a `.tar.gz`, in the archive's order, read in memory; nothing is extracted.

    Args:
      path: the archive.
      folder: the folder inside it.
      names: files in that folder. Other members, links and devices are passed over.
      limit: bytes; a larger member is an error before it is read.

    Yields:
      as `read_folder`.

    Raises:
      DataError: the archive is damaged or ends early, a member is too large, or files are missing from it.
    """
    wanted = {PurePosixPath(folder, name): number for number, name in enumerate(names)}
    try:
        with gzip.open(path) as unpacked:
            with tarfile.open(fileobj=unpacked, mode="r|") as archive:
                for member in archive:
                    number = wanted.pop(PurePosixPath(member.name), None) if member.isreg() else None
                    stream = archive.extractfile(member) if number is not None else None
                    if number is not None and stream is not None:
                        where = f"{path}: {member.name}"
                        yield number, where, _bounded(stream.read(limit + 1), where, member.size, limit)
            while unpacked.read(2**20):  # gzip compares its checksum with the bytes where they end
                pass
    except DataError:
        raise
    except (tarfile.TarError, EOFError, zlib.error, OSError, ValueError) as error:
        raise DataError(
            f"{path}: a damaged or incomplete archive ({path.stat().st_size:,} bytes): {error}. Delete it and fetch it again"
        ) from error
    if wanted:
        lacking = ", ".join(str(name) for name in wanted)
        raise DataError(f"{path}: lacks {lacking}. It is not the published archive, or not all of it; delete it and fetch it again")


def _bounded(raw: bytes, where: str, size: int, limit: int) -> bytes:
    if len(raw) > limit:
        raise DataError(f"{where}: {size:,} bytes found, at most {limit:,} expected. Delete it and fetch it again")
    return raw
