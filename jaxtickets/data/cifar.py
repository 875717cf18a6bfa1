"""CIFAR-10 and CIFAR-100: the published files in any form, or prepared by tensorflow-datasets."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from jaxtickets.data.augment import CropFlip, Standardise
from jaxtickets.data.download import fetch
from jaxtickets.data.files import read_archive, read_folder
from jaxtickets.data.published import CIFAR10, CIFAR100, HEIGHT, WIDTH, Published
from jaxtickets.data.search_paths import CACHE, ENVIRONMENT, StrPath, search
from jaxtickets.data.tfds import find_prepared, read_prepared
from jaxtickets.data.tfrecords import binary_size, parse_binary, parse_pickled, pickled_limit
from jaxtickets.dataset import Dataset
from jaxtickets.errors import DataError, DataNotFoundError
from jaxtickets.files import paths

Arrays = tuple[np.ndarray, np.ndarray]


def cifar10(
    split: str = "train", data_dir: StrPath | None = None, download: bool = True
) -> Dataset:
    """CIFAR-10: 60,000 colour images of 32x32 pixels in ten classes.

    50,000 are for training and 10,000 for testing.

    Looks in `data_dir`; if that is not given, in the folder that the variable JAXTICKETS_DATA
    names, then in ~/.cache/jaxtickets. Each time for: the binary folder (`cifar-10-batches-bin`),
    the pickled one (`cifar-10-batches-py`; read without executing the pickles), either one's files
    lying there directly, their archives (`cifar-10-binary.tar.gz`, `cifar-10-python.tar.gz`; read
    in memory), and a set prepared by tensorflow-datasets (`cifar10/3.0.2`; its images are in
    another order). The first that holds the whole split is taken.

    Args:
      split: "train" or "test".
      data_dir: the only folder to look in; also where a download goes, in place of
        ~/.cache/jaxtickets.
      download: fetch the official binary archive (170 MB, checked by its md5) when nothing is
        found.

    Returns:
      a `Dataset`: x uint8 [N, 32, 32, 3], y int32 [N]; pad-4 crops and flips; standardised with the
        channel means and
      deviations of the training set.

    Raises:
      DataError: another `split`; a file that is truncated or malformed (its name, what was found,
        what was expected).
      DataNotFoundError: the split is nowhere, and the download was off or failed.

    References:
      Krizhevsky 2009, Learning Multiple Layers of Features from Tiny Images.

    Differs:
      The deviations are .2470 .2435 .2616, over all pixels; the code of FreeTickets and others
      divides by .2023 .1994 .2010, the mean of the deviations within single images. For those:
      `dataclasses.replace(data, prepare=Standardise(...))`.
    """
    return _dataset(CIFAR10, split, data_dir, download)


def cifar100(
    split: str = "train", data_dir: StrPath | None = None, download: bool = True
) -> Dataset:
    """CIFAR-100: as CIFAR-10 with 100 classes (the fine labels), 500 training images of each.

    The names to be found are `cifar-100-binary`, `cifar-100-python`, their archives, and
    `cifar100/3.0.2`.

    Args:
      split: "train" or "test".
      data_dir: as in `cifar10`.
      download: as in `cifar10`.

    Returns:
      a `Dataset` as that of `cifar10`.

    Raises:
      DataError: as `cifar10`.
      DataNotFoundError: as `cifar10`.

    References:
      Krizhevsky 2009, Learning Multiple Layers of Features from Tiny Images.

    Differs:
      The deviations are .2470 .2435 .2616, over all pixels; the code of FreeTickets and others
      divides by .2023 .1994 .2010, the mean of the deviations within single images. For those:
      `dataclasses.replace(data, prepare=Standardise(...))`.
    """
    return _dataset(CIFAR100, split, data_dir, download)


def _dataset(published: Published, split: str, data_dir: StrPath | None, download: bool) -> Dataset:
    x, y = read(published, split, data_dir, download)
    return Dataset(
        x=x,
        y=y,
        num_classes=published.num_classes,
        name=published.name,
        augment=CropFlip(pad=4, flip=True),
        prepare=Standardise(published.mean, published.std),
        class_names=published.class_names,
    )


def read(
    published: Published, split: str, data_dir: StrPath | None = None, download: bool = True
) -> Arrays:
    """The arrays of a split from wherever it is found.

    Args:
      published: what the files look like.
      split: "train" or "test".
      data_dir: as in `cifar10`.
      download: as in `cifar10`.

    Returns:
      `(x, y)`: uint8 [N, 32, 32, 3], int32 [N].

    Raises:
      DataError: as `cifar10`.
      DataNotFoundError: as `cifar10`.
    """
    if split not in ("train", "test"):
        raise DataError(f"{published.name}: split is 'train' or 'test'; got {split!r}")
    arrays, looked = search(
        data_dir,
        lambda root, remarks: _search(published, split, root, remarks),
        lambda root: _nothing(published, root),
    )
    if arrays is not None:
        return arrays
    failure = "it was off (download=False)"
    if download:
        target = paths.in_home(CACHE) if data_dir is None else paths.given(data_dir, "data_dir")
        try:
            if target is None:
                raise OSError("there is no home folder for it; give data_dir")
            archive = fetch(published.url, published.md5, target / published.archives[0])
        except (OSError, DataError) as error:
            failure = f"{published.url}: {error}"
        else:
            return _assemble(
                published,
                split,
                "binary",
                read_archive(archive, *_wanted(published, split, "binary")),
            )
    raise DataNotFoundError(
        f"{published.name}, split {split!r}, was not found. Looked in\n{looked}\nThe download"
        f" failed or was not tried: {failure}\nPut {published.archives[0]} or"
        f" {published.archives[1]} from {published.url.rpartition('/')[0]} into a folder and pass"
        f" it as data_dir, or name it in {ENVIRONMENT}. Without a download this runs: python"
        " experiments/edst_cifar.py --preset demo"
    )


def _search(published: Published, split: str, root: Path, remarks: list[str]) -> Arrays | None:
    """The split from one place, or None, with remarks on what is there but lacks a part."""
    for form, folder in (("binary", published.binary_folder), ("pickled", published.python_folder)):
        _, names, limit = _wanted(published, split, form)
        for base in (root / folder, root):
            lacking = [name for name in names if not (base / name).is_file()]
            if not lacking:
                return _assemble(published, split, form, read_folder(base, names, limit))
            if base.is_dir() and (base != root or len(lacking) < len(names)):
                remarks.append(f"{base} lacks {', '.join(lacking)}")
    for form, archive in zip(("binary", "pickled"), published.archives, strict=True):
        if (root / archive).is_file():
            return _assemble(
                published,
                split,
                form,
                read_archive(root / archive, *_wanted(published, split, form)),
            )
    prepared = find_prepared(root, published.name)
    arrays = None if prepared is None else read_prepared(prepared, split, published.num_classes)
    if prepared is not None and arrays is None:
        remarks.append(f"{prepared} lacks the split {split!r}")
    return arrays


def _wanted(published: Published, split: str, form: str) -> tuple[str, tuple[str, ...], int]:
    """The folder and names of a split's files, and the most bytes that a real one has."""
    records = published.records(split)
    if form == "binary":
        return (
            published.binary_folder,
            tuple(f"{name}.bin" for name in published.files(split)),
            binary_size(published, records),
        )
    return published.python_folder, published.files(split), pickled_limit(records)


def _assemble(
    published: Published, split: str, form: str, files: Iterator[tuple[int, str, bytes]]
) -> Arrays:
    """The arrays of a split, from files that are parsed as they come."""
    records = published.records(split)
    total = records * len(published.files(split))
    x, y = np.empty((total, HEIGHT, WIDTH, 3), np.uint8), np.empty(total, np.int32)
    parse = parse_binary if form == "binary" else parse_pickled
    for number, where, raw in files:
        rows = slice(number * records, (number + 1) * records)
        x[rows], y[rows] = parse(published, raw, where, records)
    return x, y


def _nothing(published: Published, place: Path) -> str:
    if not place.is_dir():
        return "no such folder"
    return (
        f"no {published.binary_folder}, {published.python_folder}, {', '.join(published.archives)}"
        f" or {published.name}/<version>"
    )
