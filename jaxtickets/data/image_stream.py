"""Streams of pictures too many for memory: random views to train on, fixed ones to evaluate.

They are a `Stream` and an `EvaluationStream`.

Grain reads ahead with threads (Pillow decodes outside of Python's lock). What a picture becomes
depends on the seed, the epoch and the picture alone, so neither the number of threads nor where
reading began changes a bit.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import os
from collections.abc import Iterator
from typing import Any

import numpy as np

from jaxtickets.data import image_files as views
from jaxtickets.data.class_folders import Pictures
from jaxtickets.errors import DataError


@dataclasses.dataclass(frozen=True, eq=False)
class ImageStream:
    """A stream of training pictures: random resized crops, mirrored half of the time.

    Views are standardised. It is a `SplitStream`.

    See `image_train`.

    Args:
      pictures: the files and their labels.
      name: what a run folder and a table call it.
      size: height and width of a view, pixels.
      scale: least and largest share of a picture's area that a view shows.
      ratio: least and largest width / height of what it shows.
      flip: whether views are mirrored.
      interpolation: "bilinear" or "bicubic", both antialiased.
      mean, std: of the channels, in the 0..1 scale.
      workers: threads that decode; 0 to decode where the batch is asked for, None for one per
        available core, at most 16.

    Raises:
      DataError: a setting that cannot be.
      ImportError: Pillow or Grain is not installed.
    """

    pictures: Pictures
    name: str = "images"
    size: int = 224
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: bool = True
    interpolation: str = "bilinear"
    mean: tuple[float, ...] = views.IMAGENET_MEAN
    std: tuple[float, ...] = views.IMAGENET_STD
    workers: int | None = None

    def __post_init__(self) -> None:
        _check(self)
        for name, (low, high) in (("scale", self.scale), ("ratio", self.ratio)):
            if not 0 < low <= high or (name == "scale" and high > 1):
                allowed = (
                    "two rising shares in (0, 1]"
                    if name == "scale"
                    else "two rising positive numbers"
                )
                raise DataError(f"{self.name}: {name} is {allowed}; got {(low, high)}")

    @property
    def num_classes(self) -> int:
        """The number of classes, C."""
        return len(self.class_names)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the class folders, in the order of the labels."""
        return self.pictures.class_names

    def __len__(self) -> int:
        return len(self.pictures)

    def fingerprint(self) -> str:
        """A digest of the files' names, sizes and labels, and of what changes a view.

        No picture is read.
        """
        return _fingerprint(self)

    def batches(
        self, seed: int, epoch: int, batch_size: int
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """One epoch of full batches, equal for equal arguments.

        Each is `(x float32 [B, size, size, 3], y int32 [B])`.

        Raises:
          DataError: a picture that cannot be decoded; names it.
        """
        return self.batches_from(seed, epoch, batch_size, 0)

    def batches_from(
        self, seed: int, epoch: int, batch_size: int, first: int
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """The batches of an epoch from batch `first` on.

        The pictures before it are not decoded.
        """
        return self.rows_from(seed, epoch, batch_size, first, slice(None))

    def rows_from(
        self, seed: int, epoch: int, batch_size: int, first: int, rows: slice
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Those rows of the batches of an epoch, from batch `first` on.

        No other picture is decoded.
        """
        order = np.random.default_rng((seed, epoch, 0)).permutation(len(self))
        batches = order[: len(self) // batch_size * batch_size].reshape(-1, batch_size)
        own = batches[first:, rows]
        views = _Views(self, seed, epoch, own.reshape(-1))
        return _read(views, _workers(self.workers), own.shape[1])

    def view(self, index: int, seed: int, epoch: int) -> np.ndarray:
        """The view of picture `index` in an epoch, float32 [size, size, 3]."""
        rng = np.random.default_rng((seed, epoch, 1 + index))
        picture = views.decode(self.pictures.path(index))
        pixels = views.training_view(
            picture, rng, self.size, self.scale, self.ratio, self.flip, self.interpolation
        )
        return views.standardise(pixels, self.mean, self.std)


@dataclasses.dataclass(frozen=True, eq=False)
class ImageTest:
    """A stream of pictures to evaluate on: short side resized, centre cut out, standardised.

    An `EvaluationStream`; see `image_test`.

    Args:
      pictures: the files and their labels.
      name: what a table calls it.
      classes: int [K], which of a network's classes the K classes here are; None: they are the
        network's.
      size: height and width of what the network sees, pixels.
      resize: length of the short side before the centre is cut out, pixels.
      interpolation: as in `ImageStream`.
      mean, std: as in `ImageStream`.
      workers: as in `ImageStream`.

    Raises:
      DataError: a setting that cannot be.
      ImportError: Pillow or Grain is not installed.
    """

    pictures: Pictures
    name: str = "images"
    classes: np.ndarray | None = None
    size: int = 224
    resize: int = 256
    interpolation: str = "bilinear"
    mean: tuple[float, ...] = views.IMAGENET_MEAN
    std: tuple[float, ...] = views.IMAGENET_STD
    workers: int | None = None

    def __post_init__(self) -> None:
        _check(self)
        if self.resize < self.size:
            raise DataError(
                f"{self.name}: the short side is resized to resize={self.resize}, of which"
                f" size={self.size} cannot be cut"
            )

    @property
    def num_classes(self) -> int:
        """The number of classes, K."""
        return len(self.pictures.class_names)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the class folders, in the order of the labels."""
        return self.pictures.class_names

    @property
    def y(self) -> np.ndarray:
        """The labels of the pictures, int32 [N]."""
        return self.pictures.y

    def __len__(self) -> int:
        return len(self.pictures)

    def fingerprint(self) -> str:
        """A digest of the files' names, sizes and labels, and of what changes a view.

        No picture is read.
        """
        return _fingerprint(self)

    def in_order(self, batch_size: int) -> Iterator[np.ndarray]:
        """All pictures, float32 [B, size, size, 3] a batch, in the order of `y`.

        The last batch may be short.

        Raises:
          DataError: a picture that cannot be decoded; names it.
        """
        return _read(_Centres(self), _workers(self.workers), batch_size)

    def view(self, index: int) -> np.ndarray:
        """The view of picture `index`, float32 [size, size, 3]."""
        pixels = views.centre_view(
            views.decode(self.pictures.path(index)), self.size, self.resize, self.interpolation
        )
        return views.standardise(pixels, self.mean, self.std)


@dataclasses.dataclass(frozen=True)
class _Views:
    """The views of one epoch by position, as Grain reads them."""

    stream: ImageStream
    seed: int
    epoch: int
    order: np.ndarray

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, position: Any) -> tuple[np.ndarray, np.int32]:
        index = int(self.order[position])
        return self.stream.view(index, self.seed, self.epoch), np.int32(
            self.stream.pictures.y[index]
        )


@dataclasses.dataclass(frozen=True)
class _Centres:
    """The views of all test pictures in order, as Grain reads them."""

    test: ImageTest

    def __len__(self) -> int:
        return len(self.test)

    def __getitem__(self, position: Any) -> np.ndarray:
        return self.test.view(int(position))


def _read(source: Any, workers: int, batch_size: int) -> Iterator[Any]:
    """Batches of a source in order.

    Threads read two batches ahead, and end when the iterator is dropped.
    """
    import grain

    if len(source) == 0:
        return
    options = grain.ReadOptions(
        num_threads=workers, prefetch_buffer_size=max(workers, 2 * batch_size) if workers else 0
    )
    batches = iter(
        grain.MapDataset.source(source)
        .to_iter_dataset(options)
        .batch(batch_size, drop_remainder=False)
    )
    try:
        yield from batches
    finally:
        batches.close()


def _workers(workers: int | None) -> int:
    if workers is not None:
        return workers
    cores = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    return min(cores, 16)


def _fingerprint(images: ImageStream | ImageTest) -> str:
    settings = {
        f.name: getattr(images, f.name)
        for f in dataclasses.fields(images)
        if f.name not in ("pictures", "name", "workers")
    }
    if isinstance(images, ImageTest):
        settings["classes"] = None if images.classes is None else images.classes.tolist()
    return hashlib.sha256(
        f"{images.pictures.digest} {sorted(settings.items())}".encode()
    ).hexdigest()[:16]


def _check(images: ImageStream | ImageTest) -> None:
    for name in ("size", "resize", "workers"):
        value, least = getattr(images, name, None), 0 if name == "workers" else 1
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            unit = "threads" if name == "workers" else "pixels"
            raise DataError(
                f"{images.name}: {name} is a number of {unit}, an integer >= {least}; got {value!r}"
            )
    if images.interpolation not in views.FILTERS:
        raise DataError(
            f"{images.name}: interpolation is one of {', '.join(views.FILTERS)}; got"
            f" {images.interpolation!r}"
        )
    if len(images.mean) != 3 or len(images.std) != 3 or min(images.std) <= 0:
        raise DataError(
            f"{images.name}: mean and std have one value for each of 3 channels, std > 0; got"
            f" {images.mean} and {images.std}"
        )
    try:
        importlib.import_module("grain")
        importlib.import_module("PIL.Image")
    except ImportError as error:
        raise ImportError(
            f"pictures are read by Pillow and Grain: pip install 'jaxtickets[vision]' ({error})"
        ) from error
