"""Corruptions by weather and what it leaves on the lens. Settings: those of CIFAR-10-C.

(Frost is made of photographs, and left out.)
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from jaxtickets.data.corruptions.drawing import Draws, drawn, streak, zoom_matrix

SNOW = (
    (0.10, 0.2, 1.00, 0.60, 8, 3.0, 0.95),
    (0.10, 0.2, 1.00, 0.50, 10, 4.0, 0.90),
    (0.15, 0.3, 1.75, 0.55, 10, 4.0, 0.90),
    (0.25, 0.3, 2.25, 0.60, 12, 6.0, 0.85),
    (0.30, 0.3, 1.25, 0.65, 14, 12.0, 0.80),
)
"""Mean and deviation of the flakes, their enlargement, least brightness, radius and deviation of
their streaks, share of the image.
"""

FOG = ((0.2, 3.0), (0.5, 3.0), (0.75, 2.5), (1.0, 2.0), (1.5, 1.75))
"""How thick, and by what the roughness is divided from one scale to the next smaller."""

SPATTER = (
    (0.62, 0.1, 0.7, 0.70, 0.5),
    (0.65, 0.1, 0.8, 0.70, 0.5),
    (0.65, 0.3, 1.0, 0.69, 0.5),
    (0.65, 0.1, 0.7, 0.69, 0.6),
    (0.65, 0.1, 0.5, 0.68, 0.6),
)
"""Mean and deviation of the liquid, its blur, where it becomes drops; then how bright (water) or
how blurred (mud) they are.
"""

WATER, MUD = (175, 238, 238), (63, 42, 20)
"""Red, green, blue, of 255; severities 1 to 3 are water, 4 and 5 mud."""

BRIGHTNESS = (0.05, 0.10, 0.15, 0.20, 0.30)
"""What is added to the value (of hue, saturation, value)."""

GREY = np.asarray((0.299, 0.587, 0.114), np.float32)
"""Luma, ITU-R BT.601."""


def snow(x: np.ndarray, severity: int, draws: Draws) -> np.ndarray:
    """Snow: flakes that fall at up to 45 degrees from the vertical over a whitened image.

    Twice, once turned around.
    """
    mean, deviation, factor, least, radius, sigma, share = SNOW[severity - 1]
    height, width = x.shape[1:3]
    flakes = mean + deviation * drawn(
        draws, lambda rng: rng.standard_normal((height, width), np.float32)
    )
    flakes = zoom_matrix(height, factor) @ flakes @ zoom_matrix(width, factor).T
    flakes = np.clip(np.where(flakes < least, 0, flakes), 0, 1)[..., None]
    flakes = streak(flakes, radius, sigma, drawn(draws, lambda rng: rng.uniform(-135, -45)))
    whitened = np.maximum(x, _grey(x) * 1.5 + 0.5)
    return np.float32(share) * x + np.float32(1 - share) * whitened + flakes + flakes[:, ::-1, ::-1]


def fog(x: np.ndarray, severity: int, draws: Draws) -> np.ndarray:
    """Fog: a plasma fractal is added, and the sum brought back to the image's brightest value."""
    thickness, decay = FOG[severity - 1]
    height, width = x.shape[1:3]
    size = 1 << (max(height, width) - 1).bit_length()
    clouds = plasma(drawn(draws, lambda rng: rng.uniform(-1, 1, (size, size))), decay)[
        :, :height, :width, None
    ]
    brightest = x.max((1, 2, 3), keepdims=True)
    return (x + np.float32(thickness) * clouds) * brightest / (brightest + np.float32(thickness))


def plasma(chance: np.ndarray, decay: float) -> np.ndarray:
    """Clouds by midpoint displacement (diamond-square) on a torus.

    Points halfway between known ones get the mean of their four neighbours and some chance: first
    the centres of squares, then the middles of their sides, then the same at half the distance with
    the chance divided by `decay**2`.

    Args:
      chance: [N, S, S], uniform in (-1, 1); S is a power of two.
      decay: more than 1; large for smooth clouds.

    Returns:
      [N, S, S], float32, each image from 0 to 1.

    References:
      Fournier, Fussell and Carpenter 1982, Computer rendering of stochastic models.
    """
    n, size, _ = chance.shape
    clouds = np.zeros(chance.shape, np.float32)
    step, roughness = size, 1.0
    while step > 1:
        half, rough = step // 2, np.float32(roughness) * chance
        corners = clouds[:, ::step, ::step]
        right, below = np.roll(corners, -1, 2), np.roll(corners, -1, 1)
        centres = (corners + right + below + np.roll(right, -1, 1)) / 4 + rough[
            :, half::step, half::step
        ]
        clouds[:, half::step, half::step] = centres
        clouds[:, ::step, half::step] = (
            corners + right + centres + np.roll(centres, 1, 1)
        ) / 4 + rough[:, ::step, half::step]
        clouds[:, half::step, ::step] = (
            corners + below + centres + np.roll(centres, 1, 2)
        ) / 4 + rough[:, half::step, ::step]
        step, roughness = half, roughness / decay**2
    clouds -= clouds.min((1, 2), keepdims=True)
    return clouds / np.maximum(clouds.max((1, 2), keepdims=True), np.finfo(np.float32).tiny)


def spatter(x: np.ndarray, severity: int, draws: Draws) -> np.ndarray:
    """Spatter: drops of water that shine (severities 1 to 3), or of mud that cover (4 and 5)."""
    mean, deviation, blur, least, strength = SPATTER[severity - 1]
    liquid = mean + deviation * drawn(
        draws, lambda rng: rng.standard_normal(x.shape[1:3], np.float32)
    )
    liquid = _smooth(liquid, blur)
    liquid[liquid < least] = 0
    if severity <= 3:
        return x + strength * _shine(liquid)[..., None] * _colour(WATER, x)
    cover = _smooth((liquid > 0).astype(np.float32), strength)
    cover = np.where(cover < 0.8, np.float32(0), cover)[..., None]
    return x * (1 - cover) + cover * _colour(MUD, x)


def _shine(liquid: np.ndarray) -> np.ndarray:
    """How much drops [N, H, W] reflect at each pixel, 0 to 1.

    By the distance from their rims, in relief from one side.
    """
    relief = np.array([[-2, -1, 0], [-1, 1, 1], [0, 1, 2]], np.float32)
    shine = np.zeros_like(liquid)
    for i in np.flatnonzero(liquid.any((1, 2))):
        wet = liquid[i] > 0
        rim = wet & ~np.asarray(ndimage.binary_erosion(wet, border_value=1), bool)
        distance = (
            np.minimum(np.asarray(ndimage.distance_transform_edt(~rim)), 20)
            if rim.any()
            else np.full(wet.shape, 20.0)
        )
        distance = _equalised(ndimage.uniform_filter(distance, 3, mode="mirror").astype(np.uint8))
        lit = np.clip(ndimage.correlate(distance, relief, mode="mirror"), 0, 255)
        shine[i] = liquid[i] * ndimage.uniform_filter(lit, 3, mode="mirror")
    return shine / np.maximum(shine.max((1, 2), keepdims=True), np.finfo(np.float32).tiny)


def _equalised(values: np.ndarray) -> np.ndarray:
    """Integers of one image, spread so that all of 0 to 255 occur equally often.

    The least one is at 0.
    """
    levels, place, count = np.unique(values, return_inverse=True, return_counts=True)
    if len(levels) == 1:
        return values.astype(np.float32)
    above = np.cumsum(count) - count[0]
    return np.rint(above * (255 / above[-1])).astype(np.float32)[place].reshape(values.shape)


def brightness(x: np.ndarray, severity: int, draws: Draws) -> np.ndarray:
    """Brighter: a larger value, of hue, saturation and value; black becomes grey."""
    value = x.max(-1, keepdims=True)
    brighter = np.minimum(value + np.float32(BRIGHTNESS[severity - 1]), 1)
    return np.where(value > 0, x / np.where(value > 0, value, 1), 1) * brighter


def _smooth(layers: np.ndarray, sigma: float) -> np.ndarray:
    return ndimage.gaussian_filter(layers, (0, sigma, sigma), mode="nearest", truncate=4.0)


def _grey(x: np.ndarray) -> np.ndarray:
    """The luma of images, [N, H, W, 1]."""
    return (
        x
        if x.shape[-1] == 1
        else x[..., :1] * GREY[0] + x[..., 1:2] * GREY[1] + x[..., 2:] * GREY[2]
    )


def _colour(colour: tuple[int, int, int], x: np.ndarray) -> np.ndarray:
    """A colour [C] of 0 to 1 with the channels of `x`: its luma where C = 1."""
    rgb = np.asarray(colour, np.float32) / 255
    return rgb if x.shape[-1] == 3 else np.asarray([rgb @ GREY])
