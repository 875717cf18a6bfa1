"""The handwritten digits that come with scikit-learn: no download, no accelerator."""

from __future__ import annotations

import numpy as np

from jaxtickets.data.augment import CropFlip, Standardise
from jaxtickets.dataset import Dataset
from jaxtickets.errors import DataError

DIGITS_MEAN, DIGITS_STD = 0.3056, 0.3763
"""Of the 1,347 training images, in units of the largest pixel value 16."""


def digits(split: str = "train") -> Dataset:
    """The 1,797 handwritten digits of 8x8 pixels that scikit-learn carries.

    1,347 are for training, 450 for testing.

    The split is a rule, not a draw: the examples are ordered by class, within a class as in the
    file, and every fourth one (the first, the fifth, ...) is a test example. Classes are as
    balanced in both parts as they are in the file. Training images are shifted by at most one pixel
    (`CropFlip(pad=1, flip=False)`).

    Args:
      split: "train" or "test".

    Returns:
      a `Dataset`: x uint8 [N, 8, 8, 1] with values 0 to 16, y int32 [N], ten classes.

    Raises:
      DataError: another `split`.
      ImportError: scikit-learn is not installed.

    References:
      Alpaydin and Kaynak 1998, Optical Recognition of Handwritten Digits, UCI repository, its test
      part (CC BY 4.0).

    Differs:
      The writers of training and test images are not disjoint, so scores are higher than on unseen
      writers.

    >>> train = digits("train")
    >>> train
    Dataset(digits: 1347 examples, x=uint8[1347, 8, 8, 1], classes=10)
    >>> len(digits("test"))
    450
    """
    if split not in ("train", "test"):
        raise DataError(f"digits: split is 'train' or 'test'; got {split!r}")
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ImportError(
            "the digits are part of scikit-learn: pip install 'jaxtickets[vision]'"
        ) from error
    images, labels = map(np.asarray, load_digits(return_X_y=True))
    by_class = np.argsort(labels, kind="stable")
    place = np.empty(len(labels), np.int64)
    place[by_class] = np.arange(len(labels))
    rows = (place % 4 == 0) if split == "test" else (place % 4 != 0)
    return Dataset(
        x=images[rows].reshape(-1, 8, 8, 1).astype(np.uint8),
        y=labels[rows].astype(np.int32),
        num_classes=10,
        name="digits",
        augment=CropFlip(pad=1, flip=False),
        prepare=Standardise((DIGITS_MEAN,), (DIGITS_STD,), scale=16.0),
        class_names=tuple("0123456789"),
    )
