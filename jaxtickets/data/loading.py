"""Loads data sets by name."""

from __future__ import annotations

import os

from jaxtickets.data.cifar import cifar10, cifar100
from jaxtickets.data.digits_set import digits
from jaxtickets.data.hf_images import hf_images
from jaxtickets.data.labelled_images import ImageOptions
from jaxtickets.data.tfds_images import tfds_images
from jaxtickets.dataset import Dataset
from jaxtickets.errors import DataError

NAMES = ("digits", "cifar10", "cifar100")


def load(
    name: str,
    split: str = "train",
    data_dir: str | os.PathLike[str] | None = None,
    download: bool = True,
    *,
    size: int | None = None,
    image: str | None = None,
    label: str | None = None,
) -> Dataset:
    """The data set of a name, in memory.

    Any labelled image set of tensorflow-datasets is `"tfds:NAME"`, or `"tfds:NAME/CONFIG"`; of the
    Hugging Face hub `"hf:NAME"`, or `"hf:OWNER/NAME@CONFIG"`. Images and labels are found by the
    types of the features. Pixels are brought to 0..1, and nothing is augmented; for more:
    `dataclasses.replace(train, augment=CropFlip(), prepare=Standardise(...))`.

    Args:
      name: "digits" (bundled with scikit-learn), "cifar10", "cifar100", "tfds:..." or "hf:...".
      split: "train" or "test"; of tfds: and hf: any that the set has.
      data_dir: the only folder to look in; see `cifar10` for what is looked for and where. Of tfds:
        it holds `NAME/<version>`, of hf: `NAME`, a clone of the repository (parquet files) or what
        `save_to_disk` wrote; None: also the library's own cache. Not used for "digits".
      download: where nothing is found, fetch the official archive, or let the library fetch and
        prepare the set.
      size: of tfds: and hf:, height and width in pixels: the short side is resized, and the centre
        cut out. None: images as they are, which have to be of one size.
      image: of tfds: and hf:, the feature with the images, where there are several.
      label: of tfds: and hf:, the feature with the labels, where there are several.

    Returns:
      a `Dataset`: x uint8 [N, H, W, C], y int32 [N].

    Raises:
      DataError: an unknown `name` or `split`; a file that is truncated or malformed; features that
        are unclear (says which there are and what to type); images of several sizes.
      DataNotFoundError: the data is nowhere, and the download was off or failed.
      ImportError: the library that reads it is not installed.

    >>> load("digits", "test")
    Dataset(digits: 450 examples, x=uint8[450, 8, 8, 1], classes=10)
    """
    source, colon, set_name = str(name).partition(":")
    options = ImageOptions(size, image, label)
    if colon and source == "tfds":
        return tfds_images(set_name, split, data_dir, download, options)
    if colon and source == "hf":
        return hf_images(set_name, split, data_dir, download, options)
    if name not in NAMES:
        raise DataError(
            f"load: name is one of {', '.join(NAMES)}, tfds:NAME or hf:NAME; got {name!r}. For your"
            " own arrays: from_arrays(x, y); for GLUE: glue(task, tokenizer)"
        )
    if options != ImageOptions():
        raise DataError(f"load: size, image and label are of tfds: and hf:, not of {name}")
    if name == "digits":
        return digits(split)
    return {"cifar10": cifar10, "cifar100": cifar100}[name](split, data_dir, download)


def pair(
    name: str,
    data_dir: str | os.PathLike[str] | None = None,
    download: bool = True,
    *,
    size: int | None = None,
    image: str | None = None,
    label: str | None = None,
) -> tuple[Dataset, Dataset]:
    """Both parts of a data set: `(load(name, "train"), load(name, "test"))`.

    Args:
      name: as in `load`.
      data_dir: as in `load`.
      download: as in `load`.
      size: as in `load`.
      image: as in `load`.
      label: as in `load`.

    Returns:
      `(train, test)`.

    Raises:
      DataError: as `load`.
      DataNotFoundError: as `load`.

    >>> train, test = pair("digits")
    >>> len(train), len(test)
    (1347, 450)
    """
    train, test = (
        load(name, split, data_dir, download, size=size, image=image, label=label)
        for split in ("train", "test")
    )
    return train, test
