"""Images for `accelerator.py`: the official files of CIFAR-10, mosaics of them, or random ones."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

import jaxtickets as jt
from jaxtickets.data import augment, published
from jaxtickets.dataset.arrays import from_arrays


@dataclasses.dataclass(frozen=True)
class Geometry:
    """How images lie in a mosaic: `height` x `width` pixels each, `columns` of them in a row.

    Image 0 is at the top left, image 1 to its right; rows follow from the top down.
    """

    height: int = 32
    width: int = 32
    columns: int = 50

    @classmethod
    def parse(cls, text: str) -> Geometry:
        """Of a text such as 32x32x50: height, width, columns."""
        parts = text.lower().split("x")
        if len(parts) != 3 or not all(part.isdecimal() and int(part) for part in parts):
            raise SystemExit(
                f"--geometry is HEIGHTxWIDTHxCOLUMNS, such as 32x32x50; got {text[:40]!r}."
            )
        return cls(*map(int, parts))


def image_data(
    folder: Path | None, geometry: Geometry, count: int
) -> tuple[jt.Dataset, jt.Dataset | None]:
    """Training images, and test images where there are some; `count` random ones without a folder.

    Raises:
      SystemExit: the folder is not there, or holds mosaics of another geometry.
    """
    if folder is None:
        rng = np.random.default_rng(0)
        x = rng.integers(0, 256, (count, 32, 32, 3), np.uint8)
        return _dataset("random images", x, rng.integers(0, 10, count).astype(np.int32)), None
    if not folder.is_dir():
        raise SystemExit(f"--data {folder}: there is no folder of that name.")
    if not (folder / "train_labels.npy").exists():
        return jt.data.cifar10("train", folder, False), jt.data.cifar10("test", folder, False)
    train = _dataset("mosaics, train", *read_mosaics(folder, "train", geometry))
    if not (folder / "test_labels.npy").exists():
        return train, None
    return train, _dataset("mosaics, test", *read_mosaics(folder, "test", geometry))


def read_mosaics(folder: Path, split: str, geometry: Geometry) -> tuple[np.ndarray, np.ndarray]:
    """The images and labels of a split.

    They are in `SPLIT_*.png` (or .webp), in the order of their names, and `SPLIT_labels.npy` (one
    integer each). What a last mosaic holds beyond the labels is not read.

    Returns:
      images uint8 [N, height, width, 3] and labels int32 [N].
    """
    try:
        from PIL import Image
    except ImportError:
        raise SystemExit(
            "reading mosaics needs Pillow: pip install pillow; or give the folder of the official"
            " binary files (cifar-10-batches-bin), which needs nothing."
        ) from None
    labels = np.load(folder / f"{split}_labels.npy", allow_pickle=False)
    files = sorted(f for kind in ("png", "webp") for f in folder.glob(f"{split}_*.{kind}"))
    h, w = geometry.height, geometry.width
    parts = [np.zeros((0, h, w, 3), np.uint8)]
    for file in files:
        with Image.open(file) as opened:
            pixels = np.asarray(opened.convert("RGB"))
        rows, rest = divmod(pixels.shape[0], h)
        if rest or pixels.shape[1] != geometry.columns * w:
            raise SystemExit(
                f"{file} has {pixels.shape[0]} x {pixels.shape[1]} pixels, which are no rows of"
                f" {geometry.columns} images of {h} x {w}; give --geometry HEIGHTxWIDTHxCOLUMNS."
            )
        grid = pixels.reshape(rows, h, geometry.columns, w, 3)
        parts.append(grid.swapaxes(1, 2).reshape(-1, h, w, 3))
    images = np.concatenate(parts)[: len(labels)]
    if labels.ndim != 1 or labels.dtype.kind not in "iu" or len(images) < len(labels):
        raise SystemExit(
            f"{folder}: {split}_labels.npy is {labels.dtype}{list(labels.shape)}, and the"
            f" {len(files)} mosaics of {split} hold {len(images)} images; there is one integer for"
            " every image."
        )
    return images, labels.astype(np.int32)


def _dataset(name: str, x: np.ndarray, y: np.ndarray) -> jt.Dataset:
    how = augment.Standardise(published.CIFAR10.mean, published.CIFAR10.std)
    return from_arrays(x, y, num_classes=10, augment=augment.CropFlip(), prepare=how, name=name)
