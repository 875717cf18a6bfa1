"""Data sets by name."""

from __future__ import annotations

import os

from jaxtickets.data.bundled import digits
from jaxtickets.data.cifar import cifar10, cifar100
from jaxtickets.data.errors import DataError
from jaxtickets.dataset import Dataset

NAMES = ("digits", "cifar10", "cifar100")


def load(name: str, split: str = "train", data_dir: str | os.PathLike[str] | None = None, download: bool = True) -> Dataset:
    """A data set by name: one line, the same `Dataset` as the function of that name returns.

    Args:
      name: "digits" (bundled with scikit-learn), "cifar10" or "cifar100".
      split: "train" or "test".
      data_dir: where the files are; see `cifar10` for what is looked for and where. Not used for "digits".
      download: fetch the official archive when nothing is found.

    Returns:
      a `Dataset`: x uint8 [N, H, W, C], y int32 [N], with its augmentation and standardisation.

    Raises:
      DataError: an unknown `name` or `split`, or a file that is truncated or malformed.
      DataNotFoundError: the data is nowhere, and the download was off or failed.

    >>> load("digits", "test")
    Dataset(digits: 450 examples, x=uint8[450, 8, 8, 1], classes=10)
    """
    if name == "digits":
        return digits(split)
    if name == "cifar10":
        return cifar10(split, data_dir, download)
    if name == "cifar100":
        return cifar100(split, data_dir, download)
    raise DataError(
        f"load: name is one of {', '.join(NAMES)}; got {name!r}. For your own arrays: from_arrays(x, y); for GLUE: glue(task, tokenizer)"
    )


def pair(name: str, data_dir: str | os.PathLike[str] | None = None, download: bool = True) -> tuple[Dataset, Dataset]:
    """Both parts of a data set: `(load(name, "train"), load(name, "test"))`.

    Args:
      name: as in `load`.
      data_dir: as in `load`.
      download: as in `load`.

    Returns:
      `(train, test)`.

    Raises:
      DataError: as `load`.
      DataNotFoundError: as `load`.

    >>> train, test = pair("digits")
    >>> len(train), len(test)
    (1347, 450)
    """
    return load(name, "train", data_dir, download), load(name, "test", data_dir, download)
