"""Equal programs are compiled once for all tests of the engine, whichever process they run in."""

import jax
import pytest


@pytest.fixture(scope="package", autouse=True)
def compile_cache(tmp_path_factory):
    """The folder of compiled programs; subprocesses are given it by name."""
    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs", "jax_persistent_cache_min_entry_size_bytes")
    before = {name: getattr(jax.config, name) for name in names}
    folder = str(tmp_path_factory.mktemp("compiled"))
    for name, value in zip(names, (folder, 0.0, -1)):
        jax.config.update(name, value)
    yield folder
    for name, value in before.items():
        jax.config.update(name, value)
