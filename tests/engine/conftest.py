"""Tiny programs are compiled quickly rather than well, and once for all tests of the engine, whichever process they run in."""

import jax
import pytest


def quick_compiles(folder):
    jax.config.update("jax_disable_most_optimizations", folder is not None)
    jax.config.update("jax_compilation_cache_dir", folder)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 1.0 if folder is None else 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0 if folder is None else -1)


@pytest.fixture(scope="package", autouse=True)
def compile_cache(tmp_path_factory):
    """The folder of compiled programs; subprocesses are given it by name."""
    folder = str(tmp_path_factory.mktemp("compiled"))
    quick_compiles(folder)
    yield folder
    quick_compiles(None)
