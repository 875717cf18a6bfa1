"""Corruptions by processing: contrast, colour, shape, resolution and compression.

Settings: those of CIFAR-10-C.

Lengths that it gives for 32 pixels grow with the image.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from jaxtickets.data.corruptions.drawing import Draws

if TYPE_CHECKING:
    from PIL.Image import Image

CONTRAST = (0.75, 0.50, 0.40, 0.30, 0.15)
"""What the distance from the mean is multiplied by."""

SATURATE = ((0.3, 0.0), (0.1, 0.0), (1.5, 0.0), (2.0, 0.1), (2.5, 0.2))
"""Factor of the saturation, and what is added."""

ELASTIC = (
    (0.0, 0.0, 0.08),
    (0.05, 0.2, 0.07),
    (0.08, 0.06, 0.06),
    (0.1, 0.04, 0.05),
    (0.1, 0.03, 0.03),
)
"""Size and smoothness of the displacements, and reach of the affine map, in shares of the image's
side.
"""

PIXELATE = (0.95, 0.90, 0.85, 0.75, 0.65)
"""Share of the pixels of a side that is kept."""

JPEG = (80, 65, 58, 50, 40)
"""Quality."""


def contrast(x: np.ndarray, severity: int, draws: Draws) -> np.ndarray:
    """Less contrast: closer to each channel's mean over the image."""
    # one by one: the order of a sum rounds
    mean = np.stack([image.mean((0, 1), np.float64, keepdims=True) for image in x])
    return (mean + (x - mean) * CONTRAST[severity - 1]).astype(np.float32)


def saturate(x: np.ndarray, severity: int, draws: Draws) -> np.ndarray:
    """Another saturation, of hue, saturation and value.

    Grey counts as red of no saturation.
    """
    factor, offset = SATURATE[severity - 1]
    value = x.max(-1, keepdims=True)
    missing = value - x
    chroma = missing.max(-1, keepdims=True)
    coloured = chroma > 0
    saturation = np.where(coloured, chroma / np.where(coloured, value, 1), 0)
    share = np.where(
        coloured, missing / np.where(coloured, chroma, 1), np.asarray([0, 1, 1], np.float32)
    )
    return value * (1 - np.clip(saturation * factor + offset, 0, 1) * share)


def elastic_transform(x: np.ndarray, severity: int, draws: Draws) -> np.ndarray:
    """Moved by a random affine map, then by displacements that are alike for neighbours."""
    alpha, sigma, reach = (share * min(x.shape[1:3]) for share in ELASTIC[severity - 1])
    height, width = x.shape[1:3]
    grid = np.indices((height, width)).astype(np.float64)
    third, centre = min(height, width) // 3, np.array([height // 2, width // 2], np.float64)
    corners = centre + third * np.array([[1, 1], [-1, 1], [-1, -1]])
    result = np.empty_like(x)
    for i, rng in enumerate(draws):
        moved_corners = corners + rng.uniform(-reach, reach, (3, 2))
        # Where each pixel comes from: the affine map that takes the moved points back to the
        # corners.
        back = np.linalg.solve(np.column_stack([moved_corners, np.ones(3)]), corners)
        source = np.tensordot(back[:2].T, grid, 1) + back[2][:, None, None]
        shift = rng.uniform(-1, 1, (2, height, width))
        shift = alpha * ndimage.gaussian_filter(
            shift, (0, sigma, sigma), mode="reflect", truncate=3.0
        )
        for channel in range(x.shape[-1]):
            mapped = ndimage.map_coordinates(x[i, ..., channel], source, order=1, mode="mirror")
            result[i, ..., channel] = (
                ndimage.map_coordinates(mapped, grid + shift, order=1, mode="reflect")
                if alpha
                else mapped
            )
    return result


def pixelate(x: np.ndarray, severity: int, draws: Draws) -> np.ndarray:
    """Pixelated: shrunk and enlarged again, by the mean over boxes."""
    from PIL.Image import Resampling

    height, width = x.shape[1:3]
    small = (
        max(1, int(width * PIXELATE[severity - 1])),
        max(1, int(height * PIXELATE[severity - 1])),
    )
    return _by_pillow(
        x,
        lambda picture: picture.resize(small, Resampling.BOX).resize(
            (width, height), Resampling.BOX
        ),
    )


def jpeg_compression(x: np.ndarray, severity: int, draws: Draws) -> np.ndarray:
    """Compressed: written as JPEG and read again, colours at half the resolution."""
    from PIL.Image import open as read

    def again(picture: Image) -> Image:
        file = io.BytesIO()
        picture.save(file, "JPEG", quality=JPEG[severity - 1])
        return read(file)

    return _by_pillow(x, again)


def _by_pillow(x: np.ndarray, change: Callable[[Image], Image]) -> np.ndarray:
    """Each image, changed as a Pillow image of 8 bits."""
    from PIL.Image import fromarray

    pixels = np.rint(x * 255).astype(np.uint8)
    pixels = pixels[..., 0] if pixels.shape[-1] == 1 else pixels
    changed = np.stack([np.asarray(change(fromarray(image))) for image in pixels])
    return changed.reshape(x.shape).astype(np.float32) / 255
