"""Reads folders of pictures, one folder per class, and says what is wrong with them."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import os
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from jaxtickets.errors import DataError, DataNotFoundError
from jaxtickets.messages.quoting import cut

SUFFIXES = (".jpeg", ".jpg", ".png")
IMAGES = "images"


@dataclasses.dataclass(frozen=True, eq=False)
class Pictures:
    """Files of pictures and their labels; nothing is decoded.

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
        """The path of picture `index`."""
        return os.path.join(self.root, self.files[index])

    @functools.cached_property
    def digest(self) -> str:
        """A digest of the files' names, sizes in bytes and labels.

        The pixels are not read, nor does it matter where the folder lies.
        """
        digest = hashlib.sha256("\n".join(self.class_names).encode())
        for file, label in zip(self.files, self.y.tolist(), strict=True):
            try:
                size = os.stat(os.path.join(self.root, file)).st_size
            except OSError as error:
                raise DataError(f"{self.root / file}: cannot be read: {error.strerror}") from error
            digest.update(f"\n{file} {size} {label}".encode())
        return digest.hexdigest()[:16]


def scan(root: Path) -> Pictures:
    """The pictures of `root/CLASS/*.JPEG`, classes and pictures in the order of their names.

    The pictures of a class may also lie in a folder `images` in it, as in Tiny ImageNet. Hidden
    files and files beside the class folders are passed over; what else is no picture by its name,
    or a link that leads nowhere, is left out and counted.

    Args:
      root: the folder that holds the class folders.

    Raises:
      DataNotFoundError: no such folder.
      DataError: no class folders, or one without pictures, or one that cannot be read.

    Warns:
      UserWarning: how many files were left out, of which kinds, and the first of each kind.
    """
    if not os.path.isdir(root):
        raise DataNotFoundError(
            f"{root}: no such folder. It holds one folder per class:"
            f" {root}/n01440764/n01440764_10026.JPEG"
        )
    entries = [entry for entry in listed(root) if not entry.name.startswith(".")]
    names = sorted(entry.name for entry in entries if entry.is_dir())
    left = LeftOut()
    for entry in entries:
        if leads_nowhere(entry) or (entry.name.lower().endswith(SUFFIXES) and names):
            left.add(entry, entry.name)
    if not names:
        raise DataError(f"{root}: no class folders in it. {_instead(root)}{left}")
    files, labels, empty = [], [], {}
    for label, name in enumerate(names):
        class_left = LeftOut()
        pictures = _class(root / name, class_left)
        files += [f"{name}/{file}" for file in pictures]
        labels += [label] * len(pictures)
        if not pictures:
            empty[name] = class_left
        left.take(class_left, name)
    if empty:
        first, left_in_first = next(iter(empty.items()))
        if "folders" in left_in_first.counts:
            advice = (
                f" Pictures lie directly in {root / first}, or in a folder {IMAGES} in it; found"
                f" there:{left_in_first}. Move them up"
            )
        else:
            advice = (
                f" In {first} there is{left_in_first}. Convert them to JPEG or PNG"
                if left_in_first.counts
                else " Unpack the class again"
            )
        names = f"{_folders(list(empty))} {_some(list(empty))}"
        raise DataError(
            f"{root}: no pictures ({', '.join(SUFFIXES)}) in the class {names}.{advice}, or move"
            f" the folder out of {root}"
        )
    left.tell(root)
    return Pictures(root, tuple(files), np.asarray(labels, np.int32), tuple(names))


def _class(folder: Path, left: LeftOut) -> list[str]:
    """Names of a class's pictures in order, relative to the class's folder."""
    entries = [entry for entry in listed(folder) if not entry.name.startswith(".")]
    names = sorted(entry.name for entry in entries if is_picture(entry))
    images = folder / IMAGES
    if not names and images.is_dir():
        boxes = f"{folder.name}_boxes.txt"  # Tiny ImageNet's own
        for entry in entries:
            if entry.name not in (IMAGES, boxes):
                left.add(entry, entry.name)
        return [f"{IMAGES}/{name}" for name in pictures_in(images, left, IMAGES)]
    for entry in entries:
        if not is_picture(entry):
            left.add(entry, entry.name)
    return names


class LeftOut:
    """A count of the files that are not read, by kind, with the first of each."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self._first: dict[str, str] = {}

    def add(self, entry: os.DirEntry[str], name: str) -> None:
        """Count one more file, of that name below the folder."""
        if leads_nowhere(entry):
            kind = "links that lead nowhere"
        elif entry.is_dir():
            kind = "folders"
        elif entry.name.lower().endswith(SUFFIXES):
            kind = "pictures outside of the class folders"
        else:
            suffix = os.path.splitext(entry.name)[1].lower()
            kind = f"{suffix} files" if suffix else "files without a suffix"
        self._count(kind, 1, name)

    def take(self, others: LeftOut, folder: str) -> None:
        """Count the files that were left out of a folder, too."""
        for kind, count in others.counts.items():
            self._count(kind, count, f"{folder}/{others._first[kind]}")

    def _count(self, kind: str, count: int, name: str) -> None:
        self.counts[kind] = self.counts.get(kind, 0) + count
        self._first.setdefault(kind, name)

    def __str__(self) -> str:
        """The counts in words, as ` 3 .webp files (a/1.webp, ...)`; empty if there are none."""
        most = sorted(self.counts, key=lambda kind: -self.counts[kind])
        parts = []
        for kind in most[:6]:
            count, first = self.counts[kind], cut(self._first[kind], 80)
            kind_name = _SINGULAR.get(kind, kind.replace("files", "file")) if count == 1 else kind
            parts.append(f" {count:,} {kind_name} ({first}{', ...' * (count > 1)})")
        return ",".join(parts) + (f" and {len(most) - 6} kinds more" if len(most) > 6 else "")

    def tell(self, root: Path) -> None:
        """Warn of the files that are left out, if there are any."""
        if self.counts:
            total = sum(self.counts.values())
            are = "entry is" if total == 1 else "entries are"
            warnings.warn(
                f"{root}: {total:,} {are} left out:{self}. Pictures are named"
                f" {', '.join(SUFFIXES)}",
                stacklevel=2,
            )


_SINGULAR = {
    "folders": "folder",
    "links that lead nowhere": "link that leads nowhere",
    "pictures outside of the class folders": "picture outside of the class folders",
}


def listed(folder: Path) -> list[os.DirEntry[str]]:
    """The entries of a folder, in the order of their names.

    Raises:
      DataError: it cannot be read.
    """
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(f"{folder}: cannot be read: {error.strerror}") from error


def leads_nowhere(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a link to something that is not there."""
    return entry.is_symlink() and not os.path.exists(entry.path)


def is_picture(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a file that is named as a picture, and not hidden."""
    return (
        entry.name.lower().endswith(SUFFIXES) and not entry.name.startswith(".") and entry.is_file()
    )


def pictures_in(folder: Path, left: LeftOut | None = None, above: str = "") -> list[str]:
    """Names of the pictures directly in a folder, in order.

    What else is there, and not hidden, is counted.
    """
    names = []
    for entry in listed(folder):
        if is_picture(entry):
            names.append(entry.name)
        elif left is not None and not entry.name.startswith("."):
            left.add(entry, f"{above}/{entry.name}" if above else entry.name)
    return names


def among(pictures: Pictures, class_names: Sequence[str], all_of_them: bool) -> Pictures | None:
    """The pictures labelled by places in `class_names`; None where these are their classes.

    Raises:
      DataError: classes that are not among them; with `all_of_them`, also classes that are missing.
    """
    if pictures.class_names == tuple(class_names):
        return None
    unknown = sorted(set(pictures.class_names) - set(class_names))
    missing = sorted(set(class_names) - set(pictures.class_names))
    if unknown or (missing and all_of_them):
        parts = (
            [f"has the class {_folders(unknown)} {_some(unknown)}, which training has not"]
            if unknown
            else []
        )
        parts += (
            [f"lacks the class {_folders(missing)} {_some(missing)} of training"]
            if missing and all_of_them
            else []
        )
        raise DataError(
            f"{pictures.root}: {' and '.join(parts)}. Class folders carry the same names in both;"
            " move the pictures, or rename the folders"
        )
    place = {name: i for i, name in enumerate(class_names)}
    to = np.asarray([place[name] for name in pictures.class_names], np.int32)
    return dataclasses.replace(pictures, y=to[pictures.y], class_names=tuple(class_names))


def _instead(root: Path) -> str:
    if any(root.glob("*.tar")):
        return (
            f"There are archives: cd {root} && for f in *.tar; do mkdir ${{f%.tar}} && tar xf $f -C"
            " ${f%.tar}; done"
        )
    if pictures_in(root):
        return f"There are pictures: sort them into {root}/CLASS/"
    return f"One folder per class is expected: {root}/n01440764/n01440764_10026.JPEG"


def _folders(names: Sequence[str]) -> str:
    return "folder" if len(names) == 1 else f"folders ({len(names)})"


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
