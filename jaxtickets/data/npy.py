"""Reads some rows of a `.npy` file, which may lie inside a tar archive.

The header is checked, and nothing else is read.
"""

from __future__ import annotations

import contextlib
import dataclasses
import tarfile
import warnings
from collections.abc import Iterable, Iterator
from io import BufferedReader
from pathlib import Path, PurePosixPath
from typing import BinaryIO

import numpy as np

from jaxtickets.errors import DataError
from jaxtickets.files.archives import open_tar
from jaxtickets.messages.quoting import cut, shown, told


@dataclasses.dataclass(frozen=True)
class Npy:
    """An array in a `.npy` file, which is not read yet.

    Args:
      path: the file, or the archive that it is in.
      where: its name, for messages.
      start: its first byte in `path`.
      size: its bytes.
    """

    path: Path
    where: str
    start: int
    size: int

    def check(self, kinds: str, shape: tuple[int, ...]) -> None:
        """Raise `DataError` unless the header says so, and the size agrees with it; see `rows`."""
        with self._opened() as file:
            self._header(file, kinds, shape)

    def rows(self, first: int, count: int, kinds: str, shape: tuple[int, ...]) -> np.ndarray:
        """Rows `first` to `first + count - 1` of the array.

        Args:
          first, count: of axis 0.
          kinds: dtypes that will do, such as "|u1 <i8".
          shape: that it must have.

        Raises:
          DataError: not a `.npy` file of NumPy's format 1.0 in C order, another dtype or shape, or
            another number of bytes than those give. No pickle is read.
        """
        with self._opened() as file:
            dtype = self._header(file, kinds, shape)
            table = np.empty((count, *shape[1:]), dtype)
            file.seek(first * (table.nbytes // count), 1)
            bytes_read = file.readinto(table.data.cast("B"))
        if bytes_read != table.nbytes:
            raise DataError(
                f"{self.where}: {bytes_read:,} bytes read, {table.nbytes:,} expected. Is it still"
                " being written?"
            )
        return table

    @contextlib.contextmanager
    def _opened(self) -> Iterator[BufferedReader]:
        try:
            with self.path.open("rb") as file:
                yield file
        except OSError as error:
            raise DataError(f"{self.where}: cannot be read: {told(error)}") from error

    def _header(self, file: BinaryIO, kinds: str, shape: tuple[int, ...]) -> np.dtype:
        """The dtype in the header, checked; the file is then at the first row."""
        file.seek(self.start)
        try:
            version = np.lib.format.read_magic(file)
            if version != (1, 0):
                raise ValueError(f"format {version}, (1, 0) expected")
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # what Python 2 has written
                stored_shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
        except (
            Exception
        ) as error:  # NumPy evaluates the header as a literal, and raises what its tokenizer likes
            raise DataError(
                f"{self.where}: header: not an array of NumPy: {told(error)}. Fetch it again"
            ) from error
        if dtype.str not in kinds.split():
            raise DataError(
                f"{self.where}: dtype: {dtype} found,"
                f" {' or '.join(str(np.dtype(k)) for k in kinds.split())} expected"
            )
        if stored_shape != shape or fortran:
            order = " by columns" if fortran else ""
            raise DataError(
                f"{self.where}: shape: {shown(list(stored_shape))}{order} found, {list(shape)}"
                " expected"
            )
        size = file.tell() - self.start + dtype.itemsize * int(np.prod(shape))
        if size != self.size:
            raise DataError(
                f"{self.where}: size: {self.size:,} bytes found, {size:,} expected. Fetch it again"
            )
        return dtype


def in_folder(folder: Path, names: Iterable[str]) -> dict[str, Npy]:
    """The arrays of those files that are in a folder, by name."""
    paths = {name: folder / name for name in names}
    return {
        name: Npy(path, str(path), 0, path.stat().st_size)
        for name, path in paths.items()
        if path.is_file()
    }


def in_archive(path: Path, folder: str, names: Iterable[str]) -> dict[str, Npy]:
    """The arrays of those files that are in a folder of a tar archive, by name.

    The archive is not unpacked.

    Links are not followed.

    Raises:
      DataError: a damaged or compressed archive.
    """
    name_by_path = {PurePosixPath(folder, name): name for name in names}
    arrays = {}
    try:
        with open_tar(path=path) as archive:
            for member in archive:
                name = name_by_path.get(PurePosixPath(member.name))
                if name is not None and member.isreg() and not member.issparse():
                    arrays[name] = Npy(
                        path, f"{path}: {cut(member.name)}", member.offset_data, member.size
                    )
    except (
        tarfile.TarError,
        EOFError,
        OSError,
        ValueError,
        KeyError,
        OverflowError,
        RecursionError,
    ) as error:
        raise DataError(
            f"{path}: a damaged, incomplete or compressed archive: {told(error)}. Fetch it again"
        ) from error
    return arrays
