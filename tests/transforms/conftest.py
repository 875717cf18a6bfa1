"""The transforms say every broadcast and every cast."""

import pytest


@pytest.fixture(autouse=True)
def _strict(strict_arithmetic):
    pass
