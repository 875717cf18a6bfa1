"""ImageNet and its relatives in their usual folders, and other sets of pictures by class."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxtickets.data.class_folders import among, listed, pictures_in, scan
from jaxtickets.data.flat_val import annotated, scan_annotated, scan_flat
from jaxtickets.data.image_stream import ImageStream, ImageTest
from jaxtickets.data.search_paths import ENVIRONMENT, StrPath
from jaxtickets.errors import DataError, DataNotFoundError
from jaxtickets.files import paths

LAYOUTS = ("", "imagenet", "ILSVRC2012", "ILSVRC/Data/CLS-LOC", "tiny-imagenet-200")
"""Where `train` and `val` lie below the folder that is given."""


def image_train(folder: StrPath, **settings: Any) -> ImageStream:
    """Training pictures from `folder/CLASS/*.JPEG`, streamed in random views.

    Args:
      folder: one folder per class in it; labels follow the order of their names.
      settings: `name`, `size`, `scale`, `ratio`, `flip`, `interpolation`, `mean`, `std`, `workers`
        of `ImageStream`.

    Raises:
      DataNotFoundError: no such folder.
      DataError: no class folders, a class without pictures, or a setting that cannot be. Pictures
        themselves are looked at when they are read.
      ImportError: Pillow or Grain is not installed.

    >>> import pathlib, tempfile, PIL.Image
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name in ("cat", "dog"):
    ...         (pathlib.Path(folder) / name).mkdir()
    ...         PIL.Image.new("RGB", (20, 30)).save(pathlib.Path(folder) / name / "0.JPEG")
    ...     train = image_train(folder, size=16, workers=1)
    ...     x, y = next(train.batches(seed=0, epoch=0, batch_size=2))
    >>> train.class_names, x.shape, sorted(y.tolist())
    (('cat', 'dog'), (2, 16, 16, 3), [0, 1])
    """
    return ImageStream(scan(paths.given(folder, "folder")), **settings)


def image_test(
    folder: StrPath, class_names: Sequence[str] | None = None, **settings: Any
) -> ImageTest:
    """Evaluation pictures from `folder/CLASS/*.JPEG`, in the order of their names.

    Args:
      folder: one folder per class in it; or `images` and a `val_annotations.txt` that labels them,
        as in Tiny ImageNet.
      class_names: the classes that the network tells apart (`class_names` of what it was trained
        on). If `folder` has only some of them, the result's `classes` says which, and `evaluate`
        restricts the predictions to those. None: the network's classes are those of the folder.
      settings: `name`, `size`, `resize`, `interpolation`, `mean`, `std`, `workers` of `ImageTest`.

    Raises:
      DataNotFoundError: no such folder.
      DataError: no class folders, a class without pictures or none of the network's, or a setting
        that cannot be.
      ImportError: Pillow or Grain is not installed.

    >>> import pathlib, tempfile, PIL.Image
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     (pathlib.Path(folder) / "dog").mkdir()
    ...     PIL.Image.new("RGB", (20, 30)).save(pathlib.Path(folder) / "dog" / "0.JPEG")
    ...     test = image_test(folder, ("cat", "dog", "owl"), size=16, resize=18, workers=1)
    ...     batches = [x.shape for x in test.in_order(batch_size=8)]
    >>> test.classes, test.y, batches
    (array([1]), array([0], dtype=int32), [(1, 16, 16, 3)])
    """
    place = paths.given(folder, "folder")
    pictures = scan_annotated(place, class_names) if annotated(place) else scan(place)
    classes = None
    if (
        class_names is not None
        and (placed := among(pictures, class_names, all_of_them=False)) is not None
    ):
        names = sorted(set(placed.y.tolist()))
        if len(names) == len(placed.class_names):  # all of them, in an order of their own
            pictures = placed
        else:
            classes = np.asarray(names, np.int64)
            y = np.searchsorted(classes, placed.y).astype(np.int32)
            pictures = dataclasses.replace(
                placed, y=y, class_names=tuple(placed.class_names[i] for i in names)
            )
    return ImageTest(pictures, classes=classes, **settings)


def imagenet(
    data_dir: StrPath | None = None,
    *,
    size: int = 224,
    resize: int | None = None,
    interpolation: str = "bilinear",
    workers: int | None = None,
) -> tuple[ImageStream, ImageTest]:
    """ImageNet (ILSVRC 2012): 1,281,167 training and 50,000 validation pictures of 1,000 classes.

    Looks in `data_dir`, then in the folder that the variable JAXTICKETS_DATA names, each time for
    `train` and `val` in it, in `imagenet`, in `ILSVRC2012`, in `ILSVRC/Data/CLS-LOC` and in
    `tiny-imagenet-200`. In both: one folder per class, named by its WordNet id. A `val` without
    class folders is labelled by the development kit's ground truth (see `scan_flat`). Any other
    data set in such folders does as well, whatever its number of classes; Tiny ImageNet too as it
    is unpacked (`size=64`), with its pictures in `CLASS/images` and in `val/images`, labelled by
    `val_annotations.txt`. What is left out, since it is no picture, a warning counts.

    Args:
      data_dir: the folder to look in first. Nothing is downloaded: image-net.org asks for an
        account.
      size: height and width that the network sees, pixels.
      resize: length of the short side before the centre is cut out for evaluation; 256/224 of
        `size` if None.
      interpolation: "bilinear" or "bicubic".
      workers: threads that decode; None for one per available core, at most 16.

    Returns:
      `(train, val)`: a `Stream` for `fit`, and an `EvaluationStream` for `evaluate`.

    Raises:
      DataNotFoundError: the folders are nowhere.
      DataError: a class folder without pictures; class folders that differ; a setting that cannot
        be.
      ImportError: Pillow or Grain is not installed.

    References:
      Russakovsky et al. 2015, arXiv:1409.0575; views as in torchvision's reference training.
    """
    root = _find(data_dir)
    train = scan(root / "train")
    folder = root / "val"
    if annotated(folder):
        val = scan_annotated(folder, train.class_names)
    elif not any(entry.is_dir() for entry in listed(folder)) and pictures_in(folder):
        val = scan_flat(folder, train.class_names)
    else:
        val = scan(folder)
    val = among(val, train.class_names, all_of_them=True) or val
    shared = {"name": "imagenet", "size": size, "interpolation": interpolation, "workers": workers}
    resize = round(size * 256 / 224) if resize is None else resize
    return ImageStream(train, **shared), ImageTest(val, resize=resize, **shared)


def imagenet_a(
    data_dir: StrPath,
    class_names: Sequence[str],
    *,
    size: int = 224,
    resize: int | None = None,
    interpolation: str = "bilinear",
    workers: int | None = None,
) -> ImageTest:
    """ImageNet-A: 7,500 natural pictures that a ResNet-50 gets wrong, of 200 of ImageNet's classes.

    Its `classes` say which 200 of the 1,000 its labels are. `evaluate` renormalises every member's
    probabilities over them, so that accuracy, NLL and ECE are those of a predictor of 200 classes
    (aAcc, aNLL, aECE).

    Args:
      data_dir: the unpacked `imagenet-a`, or the folder that it lies in.
      class_names: those of the training set, `train.class_names`.
      size, resize, interpolation, workers: as in `imagenet`.

    Raises:
      DataNotFoundError: no such folder.
      DataError: not 200 class folders, one without pictures or none of the network's.
      ImportError: Pillow or Grain is not installed.

    References:
      Hendrycks et al. 2021, arXiv:1907.07174.
    """
    folder = paths.given(data_dir, "data_dir")
    folder = folder / "imagenet-a" if os.path.isdir(folder / "imagenet-a") else folder
    resize = round(size * 256 / 224) if resize is None else resize
    settings = {"size": size, "resize": resize, "interpolation": interpolation, "workers": workers}
    images = image_test(folder, class_names, name="imagenet-a", **settings)
    if images.num_classes != 200:
        raise DataError(
            f"{folder}: {images.num_classes} class folders, and ImageNet-A has 200. For another"
            " subset: image_test(folder, ...)"
        )
    return images


def _find(data_dir: StrPath | None) -> Path:
    """The folder that holds ImageNet's `train` and `val`."""
    looked, half = [], None
    for label, place in {"data_dir": data_dir, ENVIRONMENT: os.environ.get(ENVIRONMENT)}.items():
        if place is None:
            continue
        root = paths.given(place, label)
        looked.append(f"{label}={place}" + ("" if os.path.isdir(root) else " (no such folder)"))
        for layout in LAYOUTS:
            parts = [part for part in ("train", "val") if os.path.isdir(root / layout / part)]
            if len(parts) == 2:
                return root / layout
            if parts and half is None:
                half = root / layout, parts[0]
    if half is not None:
        folder, part = half
        other = "val" if part == "train" else "train"
        raise DataNotFoundError(
            f"imagenet: {folder} has the folder {part!r} but no {other!r}. Put or link it there:"
            f" {folder / other}"
        )
    raise DataNotFoundError(
        "imagenet: no folder with train/ and val/ found. Looked in"
        f" {', '.join(looked) or 'no place'}. Pass data_dir=DIR (--data-dir DIR), or set"
        f" {ENVIRONMENT}, where DIR/train/n01440764/*.JPEG and DIR/val/n01440764/*.JPEG lie. It is"
        " not downloaded for you: image-net.org asks for an account"
    )
