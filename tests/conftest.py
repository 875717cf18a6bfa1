"""What tests share: keys from a fixed seed, and JAX at its strictest for the rooms that pass under it."""

import jax
import pytest


@pytest.fixture
def key():
    return jax.random.key(0)


@pytest.fixture
def strict_arithmetic():
    """No array gains an axis and no dtype is promoted unless the code says so."""
    with jax.numpy_rank_promotion("raise"), jax.numpy_dtype_promotion("strict"):
        yield
