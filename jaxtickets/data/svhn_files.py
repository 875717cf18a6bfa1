"""SVHN, digits of house numbers: the published files, or prepared by tensorflow-datasets."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from jaxtickets.data.augment import Standardise
from jaxtickets.data.mat import variables
from jaxtickets.data.published import HEIGHT, WIDTH
from jaxtickets.data.search_paths import ENVIRONMENT, StrPath, search
from jaxtickets.data.tfds import find_prepared, read_prepared
from jaxtickets.dataset import Dataset
from jaxtickets.errors import DataError, DataNotFoundError

RECORDS = {"train": 73_257, "test": 26_032, "extra": 531_131}
"""Images of each split."""

MEAN, STD = (0.4377, 0.4438, 0.4728), (0.1980, 0.2010, 0.1970)
"""Of the channels over the training set, in the 0..1 scale."""

Arrays = tuple[np.ndarray, np.ndarray]


def svhn(
    split: str = "test",
    data_dir: StrPath | None = None,
    prepare: Callable[[Any], Any] | None = None,
) -> Dataset:
    """SVHN: colour images of 32x32 pixels, each around one digit of a house number.

    26,032 for testing, 73,257 for training.

    The usual data that a network trained on CIFAR was not made for. Looks where `cifar10` does,
    each time for `test_32x32.mat` in the folder and in `SVHN` and `svhn` below it, and a set
    prepared by tensorflow-datasets (`svhn_cropped/3.1.0`; its images are in another order).

    Args:
      split: "train", "test" or "extra".
      data_dir: the only folder to look in. Nothing is downloaded.
      prepare: what stands before the network. For its unfamiliar data that has to be what stands
        before its own: `svhn("test", prepare=test.prepare)`. None: standardised with the means and
        deviations of SVHN.

    Returns:
      a `Dataset`: x uint8 [N, 32, 32, 3], y int32 [N], the digits (in the published file 10 stands
        for 0).

    Raises:
      DataError: another `split`; a file that is damaged or of something else (its name, what was
        found, what was expected).
      DataNotFoundError: the split is nowhere.

    References:
      Netzer et al. 2011, Reading Digits in Natural Images with Unsupervised Feature Learning.
    """
    if split not in RECORDS:
        raise DataError(f"svhn: split is one of {', '.join(map(repr, RECORDS))}; got {split!r}")
    arrays, looked = search(
        data_dir,
        lambda root, remarks: _search(root, split, RECORDS[split], remarks),
        lambda root: _nothing(root, split),
    )
    if arrays is None:
        raise DataNotFoundError(
            f"svhn, split {split!r}, was not found. Looked in\n{looked}\nPut {split}_32x32.mat from"
            " http://ufldl.stanford.edu/housenumbers into a folder and pass it as data_dir, or"
            f" name it in {ENVIRONMENT}"
        )
    digits = tuple("0123456789")
    return Dataset(
        *arrays,
        num_classes=10,
        name="svhn",
        prepare=prepare or Standardise(MEAN, STD),
        class_names=digits,
    )


def _search(root: Path, split: str, records: int, remarks: list[str]) -> Arrays | None:
    name = f"{split}_32x32.mat"
    for folder in (root, root / "SVHN", root / "svhn"):
        if (folder / name).is_file():
            return read_mat(folder / name, records)
    prepared = find_prepared(root, "svhn_cropped")
    arrays = None if prepared is None else read_prepared(prepared, split, 10)
    if prepared is not None and arrays is None:
        remarks.append(f"{prepared} lacks the split {split!r}")
    return arrays


def read_mat(path: Path, records: int) -> Arrays:
    """The published file: `X` uint8 [32, 32, 3, N], and `y` [N, 1] with the digits 1 to 10.

    Of which 10 is 0.

    Args:
      path: of version 5, as published. Nothing in it is executed, nor unpacked beyond what it
        should hold.
      records: N.

    Returns:
      `(x, y)`: uint8 [N, 32, 32, 3], int32 [N].

    Raises:
      DataError: no such file, or a variable that is missing or of another type, shape or content.
    """
    expected = {"X": (HEIGHT, WIDTH, 3, records), "y": (records, 1)}
    variable_by_name = {variable.name: variable for variable in variables(path)}
    for name, shape in expected.items():
        if name not in variable_by_name:
            raise DataError(
                f"{path}: {name}: nothing found, {list(shape)} expected. Fetch it again"
            )
        kind, stored_shape = variable_by_name[name].kind, variable_by_name[name].shape
        fits = kind == "uint8" if name == "X" else kind.startswith(("uint", "int", "float"))
        if stored_shape != shape or not fits:
            raise DataError(
                f"{path}: {name}: {kind}{list(stored_shape)} found, uint8{list(shape)} expected."
                " Fetch it again"
            )
    labels = variable_by_name["y"].read()[:, 0]
    wrong_rows = np.flatnonzero(~np.isin(labels, np.arange(1, 11)))
    if len(wrong_rows):
        raise DataError(
            f"{path}: y: the label of image {wrong_rows[0]} is {labels[wrong_rows[0]]}, 1 to 10"
            " expected"
        )
    return np.ascontiguousarray(variable_by_name["X"].read().transpose(3, 0, 1, 2)), (
        labels.astype(np.int32) % 10
    ).astype(np.int32)


def _nothing(place: Path, split: str) -> str:
    return f"no {split}_32x32.mat or svhn_cropped/<version>" if place.is_dir() else "no such folder"
