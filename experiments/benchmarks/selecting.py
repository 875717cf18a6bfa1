"""The exact mask of a large leaf, by bisection and by `lax.top_k`."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from benchmarks.timing import Row, row, take_turns

from jaxtickets.masks import selection


def seconds(weights: int, rounds: int) -> dict[str, Any]:
    """Median seconds of both, of a leaf of so many weights of which a fifth stays.

    Raises:
      SystemExit: the two masks differ.
    """
    scores = jnp.abs(jax.random.normal(jax.random.key(0), (weights,)))
    k = scores.size // 5
    bisect = jax.jit(lambda s: selection.keep_largest(s, k))

    @jax.jit
    def top_k(s: jax.Array) -> jax.Array:
        return jnp.zeros(s.shape, bool).at[jax.lax.top_k(s, k)[1]].set(True)

    if not bool(jnp.all(bisect(scores) == top_k(scores))):
        raise SystemExit("the two masks differ: one of them is wrong")
    return {
        "seconds": take_turns(
            {"bisect": lambda: bisect(scores), "top_k": lambda: top_k(scores)}, rounds
        )
    }


def rows(rounds: int) -> list[Row]:
    """The exact mask of a leaf of 3.7 M weights, by bisection and by `lax.top_k`."""
    found = seconds(3_686_400, rounds)["seconds"]
    return [
        row(
            "exact mask of 3.7 M weights, k = 20 %: times faster than lax.top_k",
            found["bisect"],
            found["top_k"],
            ">=",
            5,
        )
    ]
