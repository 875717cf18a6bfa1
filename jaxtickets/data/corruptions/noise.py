"""Corruptions by noise, as of sensors and cables. Settings: those of CIFAR-10-C."""

from __future__ import annotations

import numpy as np

from jaxtickets.data.corruptions.drawing import Draws, drawn

GAUSSIAN = (0.04, 0.06, 0.08, 0.09, 0.10)
"""Standard deviation by severity, the largest pixel value being 1."""

SHOT = (500, 250, 100, 75, 50)
"""Photons that a white pixel receives."""

IMPULSE = (0.01, 0.02, 0.03, 0.05, 0.07)
"""Share of values that become black or white."""

SPECKLE = (0.06, 0.10, 0.12, 0.16, 0.20)
"""Standard deviation of the factor that a value is changed by."""


def gaussian_noise(x: np.ndarray, severity: int, draws: Draws) -> np.ndarray:
    """Gaussian noise: x + normal noise, independent for each value."""
    return x + GAUSSIAN[severity - 1] * drawn(
        draws, lambda rng: rng.standard_normal(x.shape[1:], np.float32)
    )


def shot_noise(x: np.ndarray, severity: int, draws: Draws) -> np.ndarray:
    """Shot noise of counted photons: Poisson of a mean in proportion to the value."""
    photons = SHOT[severity - 1]
    mean = x.astype(np.float64) * photons
    return np.stack([rng.poisson(mean[i]) for i, rng in enumerate(draws)]).astype(
        np.float32
    ) / np.float32(photons)


def impulse_noise(x: np.ndarray, severity: int, draws: Draws) -> np.ndarray:
    """Salt and pepper: some values become 0 or 1 with equal chance, whatever they were."""
    share = IMPULSE[severity - 1]
    u = drawn(draws, lambda rng: rng.random(x.shape[1:], np.float32))
    return np.where(u < share / 2, np.float32(0), np.where(u < share, np.float32(1), x))


def speckle_noise(x: np.ndarray, severity: int, draws: Draws) -> np.ndarray:
    """Speckle noise: x + x * normal noise; dark places stay dark."""
    return x + x * (
        SPECKLE[severity - 1]
        * drawn(draws, lambda rng: rng.standard_normal(x.shape[1:], np.float32))
    )
