"""What JAX is told elsewhere, by its environment, makes no other networks: training, resuming, prediction, scores and costs."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent / "settings_run.py"


def run(folder, **environment):
    env = os.environ | {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"} | environment
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(folder)],
        capture_output=True,
        text=True,
        timeout=500,
        env=env,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return run(tmp_path_factory.mktemp("plain"))


def test_networks_are_float32(plain):
    assert set(plain) == {"functions", "linen", "nnx"}
    for each in plain.values():
        assert each["dtypes"] == ["bool", "float32"]


STRICT = {
    "JAX_NUMPY_RANK_PROMOTION": "raise",
    "JAX_NUMPY_DTYPE_PROMOTION": "strict",
    "JAX_DEBUG_NANS": "1",
}


@pytest.mark.parametrize("settings", [{"JAX_ENABLE_X64": "1"}, STRICT], ids=["64 bits", "strict"])
def test_the_same_bits(tmp_path, plain, settings):
    assert run(tmp_path, **settings) == plain


# Operations one by one round otherwise than compiled ones; another generator draws other numbers.
OTHERS = {"JAX_DISABLE_JIT": "1", "JAX_THREEFRY_PARTITIONABLE": "0", "JAX_DEFAULT_PRNG_IMPL": "rbg"}


@pytest.mark.parametrize(
    "setting",
    [pytest.param(name, marks=pytest.mark.slow) if "JIT" not in name else name for name in OTHERS],
)
def test_other_bits_of_the_same_kind(tmp_path, plain, setting):
    for name, each in run(tmp_path, **{setting: OTHERS[setting]}).items():
        assert (each["dtypes"], each["cost"]) == (plain[name]["dtypes"], plain[name]["cost"])
