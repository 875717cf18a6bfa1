"""Means over pairs of members."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from jaxtickets.errors import EvaluationError
from jaxtickets.evaluation.checks import numbers


def pair_mean(matrix: ArrayLike) -> float:
    """Mean of a matrix [M, M] without its diagonal: over pairs of members; nan if M = 1.

    >>> pair_mean([[0.0, 1.0], [3.0, 0.0]])
    2.0
    """
    square = numbers(matrix, "matrix", "numbers [M, M]").astype(np.float64)
    if square.ndim != 2 or square.shape[0] != square.shape[1]:
        raise EvaluationError(f"matrix: got shape {square.shape}, wanted [M, M].")
    off_diagonal = square[~np.eye(len(square), dtype=bool)]
    return float(off_diagonal.mean()) if off_diagonal.size else float("nan")
