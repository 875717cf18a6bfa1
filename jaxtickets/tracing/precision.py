"""The number formats that networks are trained and read in, whatever JAX is set to elsewhere."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import jax

P = ParamSpec("P")
T = TypeVar("T")


def in_32_bits(function: Callable[P, T]) -> Callable[P, T]:
    """`function`, computing in 32 bits where the caller has JAX's 64 bits switched on.

    The same programs, and so the same bits and the same files: networks do not become others
    because of a setting that concerns somebody else's numbers.

    >>> import jax.numpy as jnp
    >>> with jax.enable_x64(True):
    ...     jnp.ones(1).dtype, in_32_bits(jnp.ones)(1).dtype
    (dtype('float64'), dtype('float32'))
    """

    @functools.wraps(function)
    def narrow(*args: P.args, **kwargs: P.kwargs) -> T:
        with jax.enable_x64(False):
            return function(*args, **kwargs)

    return narrow
