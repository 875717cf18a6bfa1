"""Corruptions that blur: out of focus, behind rough glass, in motion.

Settings: those of CIFAR-10-C, lengths in pixels.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage, sparse

from jaxtickets.data.corruptions.drawing import Draws, drawn, streak, zoom_matrix

GAUSSIAN = (0.4, 0.6, 0.7, 0.8, 1.0)
"""Standard deviation by severity."""

DEFOCUS = ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1.0, 0.2), (1.5, 0.1))
"""Radius of the disk, and standard deviation of the blur that softens its rim."""

GLASS = ((0.05, 1), (0.25, 1), (0.4, 1), (0.25, 2), (0.4, 2))
"""Standard deviation of the blur before and after, and how often pixels move by up to one."""

MOTION = ((6, 1.0), (6, 1.5), (6, 2.0), (8, 2.0), (9, 2.5))
"""Radius and standard deviation of the streak; its direction is within 45 degrees of the
horizontal.
"""

ZOOM = (1.06, 1.11, 1.16, 1.21, 1.26)
"""The enlargements 1.00, 1.01, 1.02 and so on below this are averaged: as many as NumPy's `arange`
gives.
"""


def gaussian_blur(x: np.ndarray, severity: int, draws: Draws) -> np.ndarray:
    """Blurred by a Gaussian over four deviations; pixels outside repeat the edge's."""
    return _gaussian(x, GAUSSIAN[severity - 1])


def defocus_blur(x: np.ndarray, severity: int, draws: Draws) -> np.ndarray:
    """Blurred as out of focus: the mean over a disk with a soft rim.

    Pixels outside are mirrored at the centre of the edge's.
    """
    radius, alias = DEFOCUS[severity - 1]
    row, column = np.mgrid[-2:3, -2:3]
    disk = (row**2 + column**2 <= radius**2).astype(np.float64)
    rim = np.exp(-(np.arange(-1, 2) ** 2) / (2 * alias**2))
    for axis in (0, 1):
        disk = ndimage.convolve1d(disk, rim / rim.sum(), axis, mode="constant")
    return ndimage.convolve(x, (disk / disk.sum())[None, :, :, None], mode="mirror")


def glass_blur(x: np.ndarray, severity: int, draws: Draws) -> np.ndarray:
    """Blurred as by rough glass: each pixel becomes itself or a neighbour, between two blurs.

    The neighbour is the one to its left, above or both.

    The two uppermost rows and leftmost columns stay.
    """
    sigma, times = GLASS[severity - 1]
    x = _gaussian(x, sigma)
    n, height, width, _ = x.shape
    image = np.arange(n)[:, None, None]
    for _ in range(times):
        back = np.stack([rng.integers(0, 2, (2, height, width)) for rng in draws])
        back[:, :, :2], back[:, :, :, :2] = 0, 0
        x = x[image, np.arange(height)[:, None] - back[:, 0], np.arange(width) - back[:, 1]]
    return _gaussian(x, sigma)


def motion_blur(x: np.ndarray, severity: int, draws: Draws) -> np.ndarray:
    """Blurred by motion: smeared along a line, see `streak`."""
    return streak(x, *MOTION[severity - 1], drawn(draws, lambda rng: rng.uniform(-45, 45)))


def zoom_blur(x: np.ndarray, severity: int, draws: Draws) -> np.ndarray:
    """Blurred as by a lens that zooms: the mean of the image and its enlargements."""
    n, height, width, channels = x.shape
    factors = [1.0, *np.arange(1, ZOOM[severity - 1], 0.01)]  # the image itself first
    mean = sparse.csr_array((height * width, height * width), dtype=np.float32)
    for factor in factors:
        mean += sparse.kron(
            sparse.csr_array(zoom_matrix(height, factor)),
            sparse.csr_array(zoom_matrix(width, factor)),
            "csr",
        )
    mean /= np.float32(len(factors))
    pixels = x.transpose(1, 2, 0, 3).reshape(height * width, n * channels)
    return (mean @ pixels).reshape(height, width, n, channels).transpose(2, 0, 1, 3)


def _gaussian(x: np.ndarray, sigma: float) -> np.ndarray:
    return ndimage.gaussian_filter(x, (0, sigma, sigma, 0), mode="nearest", truncate=4.0)
