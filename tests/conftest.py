"""What tests share: keys from a fixed seed, and JAX at its strictest for the rooms that pass under it."""

from pathlib import Path

import jax
import pytest

collect_ignore_glob = [
    "*/conftest.py"
]  # no doctests in them; collected as modules they would be of one name


@pytest.fixture
def key():
    return jax.random.key(0)


@pytest.fixture
def ranks_as_written():
    """No array gains an axis unless the code says so."""
    with jax.numpy_rank_promotion("raise"):
        yield


@pytest.fixture
def strict_arithmetic(ranks_as_written):
    """Nor is a dtype promoted. (Optax's own optimizers do not pass under this.)"""
    with jax.numpy_dtype_promotion("strict"):
        yield


@pytest.fixture(scope="module")
def programs_are_compiled_once(tmp_path_factory):
    """The scripts that a module runs, each in a process of its own, share compiled programs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path_factory.getbasetemp() / "programs"))
        patch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.5")
        yield


@pytest.fixture(scope="module")
def experiments_are_importable():
    """Modules of experiments/, as scripts of that folder import each other."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).resolve().parent.parent / "experiments"))
        yield
