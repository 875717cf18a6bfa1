"""One key per member."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxtickets.errors import PlanError
from jaxtickets.messages import checks

check = checks.Checks(PlanError)


def member_keys(key: int | jax.Array, members: int) -> jax.Array:
    """One key per member, [W]. Member i's is `fold_in(key, i)`, so it does not depend on how many
    others there are.

    Args:
      key: an int or one key, or an array of W keys to take as they are (a lone run of member i:
        `keys[i:i+1]`).
      members: W.

    Raises:
      PlanError: no key, an int outside [0, 2^32), fewer than one member.
      ValueError: an array of keys of another length.

    >>> member_keys(0, 3).shape
    (3,)
    """
    check.positive_int("members", members)
    keys = _keys(key, members)
    if keys.ndim == 0:
        return jax.vmap(jax.random.fold_in, (None, 0))(keys, jnp.arange(members))
    if keys.shape != (members,):
        raise ValueError(
            f"key is an int, one key, or one key for each of the {members} members; got keys of"
            f" shape {keys.shape}."
        )
    return keys


def _keys(key: Any, members: int) -> jax.Array:
    """A seed, a key or keys as typed keys."""
    dtype = getattr(key, "dtype", None)
    if checks.is_int(key) or (
        dtype is not None and np.ndim(key) == 0 and jnp.issubdtype(dtype, jnp.integer)
    ):
        if not 0 <= int(key) < 2**32:
            raise PlanError(
                "key as an int is in [0, 2^32), so that no two give the same draws; got"
                f" {checks.shown(int(key))}."
            )
        # threefry, whatever the default is: rbg keys under vmap draw from the first member's key
        # only.
        return jax.random.key(int(key), impl="threefry2x32")
    if dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key):
        return key
    if dtype != np.uint32 or key.shape[-1:] != (2,):
        given = checks.shown(key) if dtype is None else f"an array {dtype}{list(key.shape)}"
        raise PlanError(
            f"key is an int, a JAX key (jax.random.key(0)), or one key for each of the {members}"
            f" members; got {given}."
        )
    return jax.random.wrap_key_data(key)
