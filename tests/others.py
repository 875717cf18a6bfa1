"""Other people's code that results are compared with. A test whose reference is not installed skips and says so."""

import importlib
import os

import pytest


def others(module):
    """That module. Where nothing may be left out (JAXTICKETS_TESTS=all, as in CI) a missing one is an error."""
    if os.environ.get("JAXTICKETS_TESTS") == "all":
        return importlib.import_module(module)
    return pytest.importorskip(
        module,
        reason=f"{module.partition('.')[0]} is not installed: pip install 'jaxtickets[tests]'",
    )
