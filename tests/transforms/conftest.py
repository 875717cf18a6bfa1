"""The transforms say every broadcast."""

import pytest


@pytest.fixture(autouse=True)
def _ranks(ranks_as_written):
    pass
