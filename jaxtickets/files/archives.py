"""Zip and tar archives from anywhere: none makes us read, keep or repeat more than a real one has.

What an archive says of itself (how many members, how long each, how long their headers) is written
by whoever made it. The standard library believes some of it; here the numbers are held against
limits before they are used.
"""

from __future__ import annotations

import contextlib
import errno
import io
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from jaxtickets.messages.quoting import shown, told

MOST_DIRECTORY = 2**22
"""Bytes of a zip archive's directory: some 50,000 members."""

MOST_HEADERS = 2_000
"""Headers of a tar archive, those of long names and attributes among them."""

MOST_ATTRIBUTES = 2**12
"""Bytes of one such header of long names or attributes."""


class _Limited(io.BufferedReader):
    """A file that does not read more than `most` bytes at once."""

    most = MOST_DIRECTORY

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or size < 0:  # the rest
            here = self.tell()
            size = max(0, self.seek(0, io.SEEK_END) - here)
            self.seek(here)
        if size > self.most:
            raise zipfile.BadZipFile(
                f"its directory is said to have {size:,} bytes, and at most {self.most:,} are read"
            )
        return super().read(size)


@contextlib.contextmanager
def open_zip(path: Path) -> Iterator[zipfile.ZipFile]:
    """A zip archive whose members are to be read by `stored`.

    Raises:
      zipfile.BadZipFile: it is none, or is damaged.
      OSError: it cannot be read.
    """
    with _Limited(io.FileIO(path)) as file:
        with _as_damage():
            archive = zipfile.ZipFile(file)  # reads the directory, and nothing else
        file.most = path.stat().st_size
        with archive:
            yield archive


def stored(archive: zipfile.ZipFile, name: str) -> bytes:
    """The bytes of a member that is not compressed: none can have more of them than the archive.

    Raises:
      zipfile.BadZipFile: it is compressed, encrypted, damaged, not there or said to be longer than
        the archive.
    """
    file: Any = archive.fp
    try:
        info = archive.getinfo(name)
    except KeyError:
        raise zipfile.BadZipFile(f"there is no {shown(name)} in it") from None
    if info.compress_type != zipfile.ZIP_STORED:
        raise zipfile.BadZipFile(f"{shown(name)} is compressed")
    if info.flag_bits & 1:
        raise zipfile.BadZipFile(f"{shown(name)} is encrypted")
    if info.file_size > file.most or info.compress_size != info.file_size:
        raise zipfile.BadZipFile(
            f"{shown(name)} is said to have {info.file_size:,} bytes, in a file of {file.most:,}"
        )
    with _as_damage():
        found = archive.read(info)
    if len(found) != info.file_size:
        raise zipfile.BadZipFile(f"{shown(name)} ends early")
    return found


@contextlib.contextmanager
def _as_damage() -> Iterator[None]:
    """Whatever Python's reader raises is the archive's fault, but not what the system says."""
    try:
        yield
    except zipfile.BadZipFile:
        raise
    # struct.error, UnicodeDecodeError, RuntimeError, ...; before the beginning of a file EINVAL
    except Exception as error:
        if isinstance(error, OSError) and error.errno != errno.EINVAL:
            raise
        raise zipfile.BadZipFile(told(error)) from None


def open_tar(file: IO[bytes] | None = None, path: Path | None = None) -> tarfile.TarFile:
    """A tar archive, uncompressed: from a file that can be sought in, or as it comes.

    `path` and `file`.

    Raises:
      tarfile.TarError: here and while its members are listed: damaged, or with headers that no real
        archive has.
    """

    class Member(tarfile.TarInfo):
        """A member whose headers are counted and measured before they are read."""

        headers = 0

        @classmethod
        def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Member:
            found = super().frombuf(buf, encoding, errors)
            Member.headers += 1
            if Member.headers > MOST_HEADERS:
                raise tarfile.ReadError(f"more than {MOST_HEADERS:,} headers")
            if found.size < 0:
                raise tarfile.ReadError(f"a member of {found.size:,} bytes")
            if found.type in _ATTRIBUTES and found.size > MOST_ATTRIBUTES:
                raise tarfile.ReadError(f"a name or attributes of {found.size:,} bytes")
            return found

        # a negative length in the attributes would lead back, and round for ever
        def _block(self, count: int) -> int:
            if count < 0:
                raise tarfile.ReadError("a length below 0")
            return super()._block(count)  # pyright: ignore[reportAttributeAccessIssue]

    if path is not None:
        return tarfile.open(path, "r:", tarinfo=Member)
    return tarfile.open(fileobj=file, mode="r|", tarinfo=Member)


_ATTRIBUTES = (
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
)
