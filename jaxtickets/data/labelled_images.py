"""Labelled images of any origin as a `Dataset` in memory: one size, uint8."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from jaxtickets.data.augment import Standardise
from jaxtickets.data.image_files import centre_view
from jaxtickets.dataset import Dataset
from jaxtickets.errors import DataError
from jaxtickets.messages import checks
from jaxtickets.messages.quoting import shown


@dataclasses.dataclass(frozen=True)
class ImageOptions:
    """The options of `load` for a set that it does not know.

    Args:
      size: height and width that images are brought to, pixels; None: as they are.
      image: the feature with the images; None: the only one.
      label: the feature with the labels; None: the only one.
    """

    size: int | None = None
    image: str | None = None
    label: str | None = None

    def __post_init__(self) -> None:
        if self.size is not None and not (checks.is_int(self.size) and 1 <= self.size <= 2**13):
            raise DataError(
                "load: size is the height and width of an image in pixels, a whole number of at"
                f" least 1, or None; got {checks.shown(self.size)}"
            )


def choose_features(
    kinds: Mapping[str, str], options: ImageOptions, usual: tuple[str, ...], where: str
) -> tuple[str, str]:
    """The features that hold the images and the labels.

    Args:
      kinds: every feature and what it holds: "image", "label", or another type's name.
      options: which ones the user names.
      usual: of several, the ones that the set's author names.
      where: the set, for messages.

    Returns:
      `(image, label)`.

    Raises:
      DataError: none or several; what there is and what to type.

    >>> choose_features({"id": "Text", "x": "image", "y": "label"}, ImageOptions(), (), "here")
    ('x', 'y')
    """
    features = []
    for kind, name in (("image", options.image), ("label", options.label)):
        names = [feature for feature, feature_kind in kinds.items() if feature_kind == kind]
        preferred = [feature for feature in names if feature in usual]
        if name is not None:
            candidates = [name] if name in names else []
        else:
            candidates = preferred if len(preferred) == 1 else names
        if len(candidates) != 1:
            listing = ", ".join(
                f"{shown(feature, 60)} ({feature_kind})" for feature, feature_kind in kinds.items()
            )
            fix = (
                f"Give {' or '.join(f'{kind}={feature!r}' for feature in names)}"
                if names
                else "Read it with its own library, and give the arrays: from_arrays(x, y)"
            )
            problem = (
                f"{kind}={name!r} is none of its {kind}s" if name else f"{len(candidates)} {kind}s"
            )
            raise DataError(f"{where}: {problem}. Its features are {listing or 'none'}. {fix}")
        features.append(candidates[0])
    return features[0], features[1]


def collect(
    examples: Iterable[tuple[Any, Any]],
    total: int,
    where: str,
    split: str,
    num_classes: int,
    size: int | None = None,
    shape: tuple[int, ...] | None = None,
    again: str = "Prepare it again",
) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels of examples in two arrays.

    Grey images among coloured ones get three equal channels.

    Args:
      examples: pairs of an image, uint8 [H, W, C], and a label.
      total: N, how many there are.
      where: the set, for messages.
      split: its split, for messages.
      num_classes: labels are 0 to `num_classes - 1`.
      size: the short side is resized to it, and the centre cut out; None: as they are.
      shape: of every image; None: that of the first.
      again: what to do about damage.

    Returns:
      `(x, y)`: uint8 [N, H, W, C], int32 [N].

    Raises:
      DataError: another number of examples; an image of another shape or type; a label that no
        class has; more than fits in memory.
    """
    x, y, row = np.empty((0, *(shape or (0, 0, 0))), np.uint8), np.empty(total, np.int32), -1
    for row, (image, label) in enumerate(examples):
        if row >= total:
            raise DataError(
                f"{where}: more examples of {split!r} than the {total} that it gives. {again}"
            )
        image, label = np.asarray(image), int(label)
        if size is not None and image.ndim == 3 and image.dtype == np.uint8:
            image = _resized(image, size)
        if row == 0:
            x = _room(total, shape or image.shape, where)
        if shape is None and image.shape[:-1] == x.shape[1:-1]:
            if image.shape[-1] == 3 and x.shape[-1] == 1:
                x = np.repeat(x, 3, -1)
            elif image.shape[-1] == 1 and x.shape[-1] == 3:
                image = np.repeat(image, 3, -1)
        if image.shape != x.shape[1:] or image.dtype != np.uint8 or image.ndim != 3:
            fix = (
                ""
                if shape or image.dtype != np.uint8
                else ". Give load(..., size=32), or another size: each is resized, and its centre"
                " cut out. Of pictures in folders, too many for memory, ImageStream makes views"
            )
            raise DataError(
                f"{where}: image {row} of {split!r} is {image.dtype}{list(image.shape)},"
                f" uint8{list(x.shape[1:])} expected{fix}"
            )
        if not 0 <= label < num_classes:
            raise DataError(
                f"{where}: label {row} of {split!r} is {label}, 0 to {num_classes - 1} expected"
                + (" (-1 stands for no label)" if label == -1 else "")
            )
        x[row], y[row] = image, label
    if row + 1 != total:
        raise DataError(
            f"{where}: {row + 1} examples of {split!r} found, {total} expected. {again}"
        )
    return x, y


def _room(total: int, shape: tuple[int, ...], where: str) -> np.ndarray:
    try:
        return np.empty((total, *shape), np.uint8)
    except MemoryError:
        raise DataError(
            f"{where}: {total:,} images of {list(shape)} do not fit in memory. Give a smaller size,"
            " or lay the pictures out in folders by class and take ImageStream"
        ) from None


def _resized(image: np.ndarray, size: int) -> np.ndarray:
    from PIL import Image

    grey = image.shape[-1] == 1
    view = centre_view(Image.fromarray(image[..., 0] if grey else image), size, size, "bilinear")
    return view[..., None] if grey else view


def image_dataset(x: np.ndarray, y: np.ndarray, class_names: tuple[str, ...], name: str) -> Dataset:
    """The `Dataset` of images: pixels are brought to 0..1, and nothing is augmented."""
    return Dataset(
        x=x,
        y=y,
        num_classes=len(class_names),
        name=name,
        prepare=Standardise((0.0,), (1.0,)),
        class_names=class_names,
    )
