"""Folders of pictures, one folder per class: what is in them, and what is wrong with them."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from jaxtickets.data.errors import DataError, DataNotFoundError

SUFFIXES = (".jpeg", ".jpg", ".png")


@dataclasses.dataclass(frozen=True, eq=False)
class Pictures:
    """Files and their labels; nothing is decoded.

    Args:
      root: the folder that they are in.
      files: N paths below `root`, with forward slashes.
      y: labels int32 [N], places in `class_names`.
      class_names: C names.
    """

    root: Path
    files: tuple[str, ...]
    y: np.ndarray
    class_names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.files)

    def __repr__(self) -> str:
        return f"Pictures({self.root}: {len(self)} files, {len(self.class_names)} classes)"

    def path(self, index: int) -> str:
        """Where picture `index` is."""
        return os.path.join(self.root, self.files[index])

    @functools.cached_property
    def digest(self) -> str:
        """Of names, sizes in bytes and labels. The pixels are not read, nor does it matter where the folder lies."""
        digest = hashlib.sha256("\n".join(self.class_names).encode())
        for file, label in zip(self.files, self.y.tolist(), strict=True):
            try:
                size = os.stat(os.path.join(self.root, file)).st_size
            except OSError as error:
                raise DataError(f"{self.root / file}: cannot be read: {error.strerror}") from error
            digest.update(f"\n{file} {size} {label}".encode())
        return digest.hexdigest()[:16]


def scan(root: Path) -> Pictures:
    """The pictures of `root/CLASS/*.JPEG`: classes in the order of their names, pictures within a class likewise.

    Files beside the class folders, hidden ones, and those in them that are not named as pictures are passed over.

    Args:
      root: the folder that holds the class folders.

    Raises:
      DataNotFoundError: no such folder.
      DataError: no class folders, or one without pictures.
    """
    if not root.is_dir():
        raise DataNotFoundError(f"{root}: no such folder. It holds one folder per class: {root}/n01440764/n01440764_10026.JPEG")
    with os.scandir(root) as entries:
        names = sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))
    if not names:
        raise DataError(f"{root}: no class folders in it. {_instead(root)}")
    files, labels, empty = [], [], []
    for label, name in enumerate(names):
        found = sorted(pictures_in(root / name))
        files += [f"{name}/{file}" for file in found]
        labels += [label] * len(found)
        if not found:
            empty.append(name)
    if empty:
        raise DataError(
            f"{root}: no pictures ({', '.join(SUFFIXES)}) in the class {_folders(empty)} {_some(empty)}. "
            "Unpack the class again, or delete the empty folder"
        )
    return Pictures(root, tuple(files), np.asarray(labels, np.int32), tuple(names))


def pictures_in(folder: Path) -> list[str]:
    """Names of the pictures directly in a folder, in no order."""
    with os.scandir(folder) as entries:
        return [e.name for e in entries if e.name.lower().endswith(SUFFIXES) and not e.name.startswith(".") and e.is_file()]


def among(pictures: Pictures, class_names: Sequence[str], all_of_them: bool) -> Pictures | None:
    """The pictures labelled by places in `class_names`, or None where the classes are these already.

    Raises:
      DataError: classes that are not among them; with `all_of_them`, also classes that are missing.
    """
    if pictures.class_names == tuple(class_names):
        return None
    strange = sorted(set(pictures.class_names) - set(class_names))
    missing = sorted(set(class_names) - set(pictures.class_names))
    if strange or (missing and all_of_them):
        parts = [f"has the class {_folders(strange)} {_some(strange)}, which training has not"] if strange else []
        parts += [f"lacks the class {_folders(missing)} {_some(missing)} of training"] if missing and all_of_them else []
        raise DataError(
            f"{pictures.root}: {' and '.join(parts)}. Class folders carry the same names in both; move the pictures, or rename the folders"
        )
    place = {name: i for i, name in enumerate(class_names)}
    to = np.asarray([place[name] for name in pictures.class_names], np.int32)
    return dataclasses.replace(pictures, y=to[pictures.y], class_names=tuple(class_names))


def _instead(root: Path) -> str:
    if any(root.glob("*.tar")):
        return f"There are archives: cd {root} && for f in *.tar; do mkdir ${{f%.tar}} && tar xf $f -C ${{f%.tar}}; done"
    if pictures_in(root):
        return f"There are pictures: sort them into {root}/CLASS/"
    return f"One folder per class is expected: {root}/n01440764/n01440764_10026.JPEG"


def _folders(names: Sequence[str]) -> str:
    return "folder" if len(names) == 1 else f"folders ({len(names)})"


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
