"""Means over pairs of members."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike


def pair_mean(matrix: ArrayLike) -> float:
    """Mean of a matrix [M, M] over ordered pairs of different members, which leaves out the diagonal; nan if M = 1.

    >>> pair_mean([[0.0, 1.0], [3.0, 0.0]])
    2.0
    """
    square = np.asarray(matrix, dtype=np.float64)
    others = square[~np.eye(len(square), dtype=bool)]
    return float(others.mean()) if others.size else float("nan")
