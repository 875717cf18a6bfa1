"""How many weights a share of them is: floors that are exact, in whole numbers throughout."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxtickets.errors import MaskError
from jaxtickets.messages import checks

check = checks.Checks(MaskError, arrays=True)


def exact_floor(fraction: Any, n: Any) -> Any:
    """floor(fraction * n), exactly, for counts of weights and of examples.

    A float product is off by one soon: 0.29 * 100 is 28.999999999999996, and a float32 product
    misses counts beyond 2^24 altogether.

    Args:
      fraction: a share, in [0, 1]. A Python or NumPy number counts as it is written in decimals
        (0.29 is 29 / 100, whatever its float is). A JAX array, which may be traced, is rounded to
        the nearest millionth.
      n: of how many: an int, or an int32 array (a scalar, or [L] of a stack of L layers).

    Returns:
      An int where both are numbers, else an int32 array.

    Raises:
      MaskError: a fraction outside [0, 1]; an `n` that is negative or no whole number.

    >>> exact_floor(0.29, 100), int(0.29 * 100)
    (29, 28)
    >>> int(exact_floor(jnp.float32(0.1), 2_000_000_010))
    200000001
    """
    check.fraction("fraction", fraction, "a share, ")
    is_array = isinstance(n, jax.Array | np.ndarray)
    check.integer(
        "n", n, "how many there are, ", least=0, rows=n.shape[0] if is_array and n.ndim else None
    )
    if not is_array and not isinstance(fraction, jax.Array):
        return math.floor(as_written(fraction) * n)
    millionths = jnp.round(jnp.asarray(fraction, jnp.float32) * 1e6).astype(jnp.int32)
    millions, rest = jnp.divmod(jnp.asarray(n, jnp.int32), 1_000_000)
    thousands, ones = jnp.divmod(millionths, 1000)
    # floor(millionths * rest / 10^6) without leaving int32: millionths = 1000 * thousands + ones.
    return millions * millionths + (thousands * rest + ones * rest // 1000) // 1000


def num_kept(n: Any, sparsity: Any) -> Any:
    """n - floor(sparsity * n): how many of n weights survive (see `exact_floor`).

    >>> num_kept(100, 0.29)
    71
    """
    return n - exact_floor(sparsity, n)


def as_written(number: Any) -> Fraction:
    """The fraction that a number's shortest decimal form names: 4 / 5 of 0.8, of a float32 too.

    Raises:
      MaskError: a traced number, which has no value yet.
    """
    if checks.is_traced(number):
        raise MaskError(
            "a sparsity that is traced cannot say how many weights a first mask keeps: give it as a"
            " Python number, where it is a hyperparameter by optax.inject_hyperparams(prune_grow,"
            " static_args=('sparsity',))."
        )
    if isinstance(number, int | float):
        return Fraction(repr(float(number)))
    return Fraction(str(np.asarray(number)[()]))
