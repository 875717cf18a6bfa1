"""The corruptions of CIFAR-10-C, applied to images in memory. See `jaxtickets.data.corrupted_sets`.

Each is a function `(x, severity, draws) -> x` of float32 [N, H, W, C] from 0 to 1 (the result may
leave that range), with a generator for each image. The numbers in capitals are the settings of the
authors' script for CIFAR, one for each severity from 1 to 5.

References:
  Hendrycks and Dietterich 2019, arXiv:1903.12261, section 3 and appendix B;
  github.com/hendrycks/robustness, `ImageNet-C/create_c/make_cifar_c.py`, for the settings.
"""

from __future__ import annotations

import numpy as np

from jaxtickets.data.corruptions import blur, digital, noise, weather

CORRUPTIONS = (
    "gaussian_noise",
    "shot_noise",
    "impulse_noise",
    "defocus_blur",
    "glass_blur",
    "motion_blur",
    "zoom_blur",
    "snow",
    "frost",
    "fog",
    "brightness",
    "contrast",
    "elastic_transform",
    "pixelate",
    "jpeg_compression",
    "speckle_noise",
    "gaussian_blur",
    "spatter",
    "saturate",
)
"""All 19 of CIFAR-10-C: the 15 of the benchmark in the paper's order, then the four extra ones."""

SEVERITIES = (1, 2, 3, 4, 5)

_FAMILIES = (noise, blur, weather, digital)
FUNCTIONS = {
    name: getattr(family, name)
    for name in CORRUPTIONS
    for family in _FAMILIES
    if hasattr(family, name)
}
"""Those that can be made: all but frost."""

_AT_ONCE = 500


def corrupt(
    images: np.ndarray, corruption: str, severity: int, seed: int, scale: float
) -> np.ndarray:
    """The images after one corruption of one severity.

    What becomes of image i depends on its pixels, the corruption, the severity, the seed and i.

    Args:
      images: uint8 [N, H, W, C], C 1 or 3, at least 8 pixels high and wide.
      corruption: one of `FUNCTIONS`.
      severity: 1 to 5.
      seed: not negative.
      scale: the largest pixel value.

    Returns:
      uint8 [N, H, W, C], values 0 to `scale`.

    >>> grey = np.full((1, 8, 8, 1), 8, np.uint8)
    >>> corrupt(grey, "brightness", 5, seed=0, scale=16)[0, 0, 0]
    array([13], dtype=uint8)
    """
    function, number = FUNCTIONS[corruption], CORRUPTIONS.index(corruption)
    result = np.empty_like(images)
    for first in range(0, len(images), _AT_ONCE):
        rows = slice(first, min(first + _AT_ONCE, len(images)))
        draws = [
            np.random.default_rng((seed, number, severity, i)) for i in range(rows.start, rows.stop)
        ]
        x = function(images[rows].astype(np.float32) / np.float32(scale), severity, draws)
        result[rows] = np.rint(np.clip(x, 0, 1) * scale)
    return result
