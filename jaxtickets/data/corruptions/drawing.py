"""Random draws and geometry that several corruptions share.

Every image draws from its own generator, none from a common one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
from scipy import ndimage

Draws: TypeAlias = Sequence[np.random.Generator]
"""A generator for each image of a batch."""


def drawn(draws: Draws, draw: Callable[[np.random.Generator], np.ndarray | float]) -> np.ndarray:
    """The draws of each image, float32 [N, ...]."""
    return np.stack([np.asarray(draw(rng), np.float32) for rng in draws])


def zoom_matrix(size: int, factor: float) -> np.ndarray:
    """Linear enlargement of an axis about its centre, as a matrix [size, size] float32.

    Its product with a line is the line enlarged.

    The central `ceil(size / factor)` pixels are stretched, end to end, over `factor` times as many
    (rounded), and the central `size` of those remain.

    >>> zoom_matrix(4, 2.0) @ np.array([0, 3, 6, 9], np.float32)
    array([3., 4., 5., 6.], dtype=float32)
    """
    kept = int(np.ceil(size / factor))
    first = (size - kept) // 2
    stretched = np.asarray(ndimage.zoom(np.eye(kept), (factor, 1), order=1))
    margin = (len(stretched) - size) // 2
    matrix = np.zeros((size, size), np.float32)
    matrix[:, first : first + kept] = stretched[margin : margin + size]
    return matrix


def streak(x: np.ndarray, radius: int, sigma: float, degrees: np.ndarray) -> np.ndarray:
    """Images smeared along a line that ends at the pixel, weighted by half a Gaussian.

    It has `2 * radius + 1` steps, one pixel apart.

    Args:
      x: [N, H, W, C].
      radius, sigma: pixels.
      degrees: [N], of each image's line, clockwise from the right.

    Returns:
      [N, H, W, C], float32. Pixels outside repeat the edge's.

    References:
      What ImageMagick's documentation of `-motion-blur` describes: steps are rounded to whole
      pixels.
    """
    n, height, width, channels = x.shape
    steps = np.arange(2 * radius + 1)
    weights = np.exp(-(steps**2) / (2 * sigma**2))
    weights = (weights / weights.sum()).astype(np.float32)
    angle = np.deg2rad(degrees.astype(np.float64))[:, None]
    pixels = np.ascontiguousarray(x).reshape(n * height * width, channels)
    start = np.arange(n)[:, None, None] * (height * width)
    result = np.zeros(x.shape, np.float32)
    for step, weight in enumerate(weights):
        rows = np.clip(np.arange(height) + np.rint(step * np.sin(angle)).astype(int), 0, height - 1)
        columns = np.clip(
            np.arange(width) + np.rint(step * np.cos(angle)).astype(int), 0, width - 1
        )
        result += weight * pixels[start + rows[:, :, None] * width + columns[:, None, :]]
    return result
