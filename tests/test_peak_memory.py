"""Peak memory as the benchmark measures it: of the process that did it, whoever started that."""

import resource

import numpy as np
import pytest

pytestmark = pytest.mark.usefixtures("experiments_are_importable")


def test_a_large_process_measures_a_small_one_as_small():
    from support.peak import peak_megabytes

    before = np.ones(50_000_000)  # 400 MB, every page touched
    ours = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    assert ours > 400
    small, large = (
        peak_megabytes("pass"),
        peak_megabytes(
            "import sys; kept = bytearray(int(sys.argv[1])); kept[::4096] = kept[::4096]",
            "200000000",
        ),
    )
    assert before.sum() == 50_000_000
    assert small < 100  # Python alone; a measure that takes over its parent's has more than 400
    assert 190 < large - small < 250
