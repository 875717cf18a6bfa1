"""CIFAR-10-C and CIFAR-100-C: the published `.npy` files, or prepared by tensorflow-datasets."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from jaxtickets.data.augment import Standardise
from jaxtickets.data.corrupted_sets import CorruptedSet, CorruptedSets, pairs_of
from jaxtickets.data.corruptions import CORRUPTIONS, SEVERITIES
from jaxtickets.data.npy import Npy, in_archive, in_folder
from jaxtickets.data.published import CIFAR10, CIFAR100, HEIGHT, WIDTH, Published
from jaxtickets.data.search_paths import ENVIRONMENT, StrPath, search
from jaxtickets.data.tfds import find_prepared, read_prepared
from jaxtickets.errors import DataError, DataNotFoundError

LABELS = "labels.npy"
LABEL_KINDS = "|u1 |i1 <i4 <i8 <u4 <u8"
PREPARED_NAMES = {"glass_blur": "frosted_glass_blur", "elastic_transform": "elastic"}
"""What tensorflow-datasets calls otherwise."""

Pair = tuple[str, int]


@dataclasses.dataclass(frozen=True)
class PublishedC:
    """A corrupted test set as published: its names, files and address.

    Args:
      name: with the corruption and the severity, what a table calls a set.
      clean: what it is made from.
      folder: with the files, and start of the archive's member names.
      archive: its name.
      url: where that is.
      prepared: what tensorflow-datasets calls it, or empty.
      records: images of each severity.
    """

    name: str
    clean: Published
    folder: str
    archive: str
    url: str
    prepared: str
    records: int = 10_000


CIFAR10_C = PublishedC(
    "cifar10-c",
    CIFAR10,
    "CIFAR-10-C",
    "CIFAR-10-C.tar",
    "https://zenodo.org/records/2535967",
    prepared="cifar10_corrupted",
)
CIFAR100_C = PublishedC(
    "cifar100-c",
    CIFAR100,
    "CIFAR-100-C",
    "CIFAR-100-C.tar",
    "https://zenodo.org/records/3555552",
    prepared="",
)


def cifar10_c(
    data_dir: StrPath | None = None,
    corruptions: Sequence[str] = CORRUPTIONS,
    severities: Sequence[int] = SEVERITIES,
) -> CorruptedSets[CorruptedSet]:
    """CIFAR-10-C: the test images of CIFAR-10 after 19 corruptions in 5 severities.

    Each set has 10,000 images.

    Looks in `data_dir`; if that is not given, in the folder that the variable JAXTICKETS_DATA
    names, then in ~/.cache/jaxtickets. Each time for: the folder `CIFAR-10-C` (`fog.npy`, ...,
    `labels.npy`), its files lying there directly, the archive `CIFAR-10-C.tar` (read without
    unpacking it), and sets prepared by tensorflow-datasets (`cifar10_corrupted/fog_3/1.0.0`; their
    images are in another order). The first that holds all that is asked for is taken. Headers and
    sizes are checked at once; images are read when a set is asked for, only its own.

    Args:
      data_dir: the only folder to look in. Nothing is downloaded (the archive has 2.9 GB).
      corruptions: names.
      severities: some of 1 to 5.

    Returns:
      `CorruptedSet`s, corruption by corruption: x uint8 [10000, 32, 32, 3], y int32 [10000],
        prepared as `cifar10` is.

    Raises:
      DataError: an unknown corruption or severity; a file that is damaged or of something else (its
        name and what is wrong with it), some of them only when its set is read.
      DataNotFoundError: some of what is asked for is nowhere.

    References:
      Hendrycks and Dietterich 2019, arXiv:1903.12261.
    """
    return corrupted_sets(CIFAR10_C, "cifar10_c", data_dir, corruptions, severities)


def cifar100_c(
    data_dir: StrPath | None = None,
    corruptions: Sequence[str] = CORRUPTIONS,
    severities: Sequence[int] = SEVERITIES,
) -> CorruptedSets[CorruptedSet]:
    """CIFAR-100-C: as CIFAR-10-C, of the test images of CIFAR-100.

    The names to be found are `CIFAR-100-C` and `CIFAR-100-C.tar`.

    Args:
      data_dir: as in `cifar10_c`.
      corruptions: as in `cifar10_c`.
      severities: as in `cifar10_c`.

    Returns:
      `CorruptedSet`s as those of `cifar10_c`.

    Raises:
      DataError: as `cifar10_c`.
      DataNotFoundError: as `cifar10_c`.

    References:
      Hendrycks and Dietterich 2019, arXiv:1903.12261.
    """
    return corrupted_sets(CIFAR100_C, "cifar100_c", data_dir, corruptions, severities)


def corrupted_sets(
    published: PublishedC,
    function: str,
    data_dir: StrPath | None,
    corruptions: Sequence[str],
    severities: Sequence[int],
) -> CorruptedSets[CorruptedSet]:
    """The corrupted sets, from wherever they are found; see `cifar10_c`."""
    pairs, clean = pairs_of(function, corruptions, severities), published.clean
    source, looked = search(
        data_dir,
        lambda root, remarks: _search(published, pairs, root, remarks),
        lambda root: _nothing(published, root),
    )
    if source is None:
        request = (
            f"{len(pairs)} sets from {pairs[0][0]}/{pairs[0][1]} on"
            if len(pairs) > 1
            else f"{pairs[0][0]}/{pairs[0][1]}"
        )
        raise DataNotFoundError(
            f"{published.name}, {request}, was not found. Looked in\n{looked}\nPut"
            f" {published.archive} from {published.url} into a folder and pass it as data_dir, or"
            f" name it in {ENVIRONMENT}. Without a download, similar sets:"
            f" jt.data.corrupted(jt.data.{clean.name}('test'), seed=0)"
        )

    def make(corruption: str, severity: int) -> CorruptedSet:
        x, y = source.read(corruption, severity)
        return CorruptedSet(
            x=x,
            y=y,
            num_classes=clean.num_classes,
            name=f"{published.name}/{corruption}/{severity}",
            prepare=Standardise(clean.mean, clean.std),
            class_names=clean.class_names,
            corruption=corruption,
            severity=severity,
            generated=False,
        )

    return CorruptedSets(published.name, pairs, make, generated=False)


def _search(
    published: PublishedC, pairs: list[Pair], root: Path, remarks: list[str]
) -> _Files | _Prepared | None:
    """The files of all pairs in one place, or None, with remarks on what lacks some."""
    names = [LABELS, *dict.fromkeys(f"{corruption}.npy" for corruption, _ in pairs)]
    candidates = {str(base): in_folder(base, names) for base in (root / published.folder, root)}
    if (root / published.archive).is_file():
        candidates[str(root / published.archive)] = in_archive(
            root / published.archive, published.folder, names
        )
    for where, present_files in candidates.items():
        lacking = [name for name in names if name not in present_files]
        if not lacking:
            return _Files(published, present_files)
        if present_files or (where != str(root) and Path(where).exists()):
            remarks.append(f"{where} lacks {', '.join(lacking)}")
    if published.prepared:
        folders = {
            pair: find_prepared(
                root, f"{published.prepared}/{PREPARED_NAMES.get(pair[0], pair[0])}_{pair[1]}"
            )
            for pair in pairs
        }
        present_folders = {pair: folder for pair, folder in folders.items() if folder is not None}
        if len(present_folders) == len(pairs):
            return _Prepared(published, present_folders)
        if present_folders:
            lacking = [
                f"{PREPARED_NAMES.get(name, name)}_{level}"
                for name, level in pairs
                if (name, level) not in present_folders
            ]
            remarks.append(f"{root / published.prepared} lacks {', '.join(lacking)}")
    return None


class _Files:
    """The published files: in each, the images of severity 1 to 5, one after another.

    The labels likewise.
    """

    def __init__(self, published: PublishedC, files: dict[str, Npy]) -> None:
        self.published, self.files = published, files
        for name in files:
            files[name].check(*self._expected(name))

    def read(self, corruption: str, severity: int) -> tuple[np.ndarray, np.ndarray]:
        """Images uint8 [N, 32, 32, 3] and labels int32 [N]."""
        count, classes = self.published.records, self.published.clean.num_classes
        first, images = (severity - 1) * count, f"{corruption}.npy"
        y = self.files[LABELS].rows(first, count, *self._expected(LABELS))
        wrong_rows = np.flatnonzero((y < 0) | (y >= classes))
        if len(wrong_rows):
            raise DataError(
                f"{self.files[LABELS].where}: the label of row {first + wrong_rows[0]} is"
                f" {y[wrong_rows[0]]},"
                f" 0 to {classes - 1} expected. Is it a file of {self.published.name}?"
            )
        return self.files[images].rows(first, count, *self._expected(images)), y.astype(np.int32)

    def _expected(self, name: str) -> tuple[str, tuple[int, ...]]:
        total = len(SEVERITIES) * self.published.records
        return (LABEL_KINDS, (total,)) if name == LABELS else ("|u1", (total, HEIGHT, WIDTH, 3))


@dataclasses.dataclass(frozen=True)
class _Prepared:
    """The corrupted sets as folders of tensorflow-datasets."""

    published: PublishedC
    folders: dict[Pair, Path]

    def read(self, corruption: str, severity: int) -> tuple[np.ndarray, np.ndarray]:
        """Images uint8 [N, 32, 32, 3] and labels int32 [N], as of `_Files.read`."""
        folder = self.folders[corruption, severity]
        arrays = read_prepared(folder, "test", self.published.clean.num_classes)
        if arrays is None:
            raise DataError(f"{folder}: lacks the split 'test'. Prepare it again")
        if len(arrays[1]) != self.published.records:
            raise DataError(
                f"{folder}: {len(arrays[1]):,} examples of 'test' found, {self.published.records:,}"
                " expected. Prepare it again"
            )
        return arrays


def _nothing(published: PublishedC, place: Path) -> str:
    if not place.is_dir():
        return "no such folder"
    prepared = f", {published.prepared}/fog_3/<version> and the like" if published.prepared else ""
    return f"no {published.folder}, {published.archive}{prepared}"
