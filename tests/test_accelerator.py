"""The benchmark of accelerators runs on a CPU with tiny sizes, so that nothing is found broken on the day."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

SCRIPT = Path(__file__).parent.parent / "experiments" / "benchmarks" / "accelerator.py"
# What is not among the core dependencies is not there.
RUN = """
import runpy, sys
for name in ("tyro", "tensorflow_datasets", "PIL", "sklearn", "transformers", "matplotlib", "torch"):
    sys.modules[name] = None
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""

pytestmark = [
    pytest.mark.usefixtures("programs_are_compiled_once", "experiments_are_importable"),
    pytest.mark.timeout(1200),  # a minute where the machine is free
]


def call(*flags):
    command = [sys.executable, "-c", RUN, str(SCRIPT), "--tiny", *map(str, flags)]
    quick = os.environ | {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}  # nobody reads these times
    return subprocess.run(command, capture_output=True, text=True, timeout=1100, env=quick)


@pytest.mark.parametrize("parts", [("peak", "layout"), ("masked", "shrunk", "selection")], ids=str)
def test_rows_are_measured_without_more_than_the_core(tmp_path, parts):
    out = tmp_path / "tiny.json"
    done = call("--out", out, "--minutes", 18, "--only", *parts)
    assert done.returncode == 0, done.stderr
    assert "all is done" in done.stdout
    rows = json.loads(out.read_bytes())["rows"]
    assert not {name: row for name, row in rows.items() if "error" in row or not row["done"]}
    assert {name.split(",")[0].split()[0] for name in rows} == set(parts)
    for across in ("vmap", "map", "unroll") if "layout" in parts else ():
        row = rows[f"layout, BERT, bfloat16, 2 {across}, 1 a call"]
        assert row["fits"]
        assert row["milliseconds_of_a_members_step"] > 0


def test_what_is_measured_stays_and_is_of_one_machine(tmp_path):
    out = tmp_path / "peak.json"
    first = call("--out", out, "--only", "peak")
    assert first.returncode == 0, first.stderr
    found = json.loads(out.read_bytes())
    assert {"kind", "driver", "versions"} <= set(found["hardware"])
    assert call("--out", out, "--only", "peak").returncode == 0
    again = json.loads(out.read_bytes())
    assert again["rows"] == found["rows"]
    assert again["commands"] == found["commands"]  # of the call that measured
    found["hardware"]["kind"] = "another"
    out.write_text(json.dumps(found))
    other = call("--out", out, "--only", "peak")
    assert other.returncode == 1
    assert "measured on other hardware" in other.stderr


def test_edst_goes_on_in_the_next_call(tmp_path):
    out = tmp_path / "edst.json"
    # Half a second, in which it compiles.
    short = call("--out", out, "--only", "edst", "--minutes", 0.001)
    assert short.returncode == 0, short.stderr
    row = json.loads(out.read_bytes())["rows"]["edst"]
    assert not row["done"]
    assert row["steps"] < row["of"]
    assert "run the same command again" in short.stdout
    rest = call("--out", out, "--only", "edst")
    assert "all is done" in rest.stdout, rest.stderr
    row = json.loads(out.read_bytes())["rows"]["edst"]
    assert (row["done"], row["steps"]) == (True, row["of"])


def test_mosaics_are_read_in_their_geometry(tmp_path):
    from benchmarks import mosaics
    from PIL import Image

    images = np.random.default_rng(0).integers(0, 256, (2 * 6 + 4, 4, 5, 3), np.uint8)
    for number, first in enumerate((0, 6, 12)):
        pixels = np.zeros((8, 15, 3), np.uint8)  # two rows of three, the last not full
        for i, image in enumerate(images[first : first + 6]):
            row, column = divmod(i, 3)
            pixels[4 * row : 4 * row + 4, 5 * column : 5 * column + 5] = image
        Image.fromarray(pixels).save(tmp_path / f"train_{number}.png")
    np.save(tmp_path / "train_labels.npy", np.arange(16) % 10)
    geometry = mosaics.Geometry.parse("4x5x3")
    x, y = mosaics.read_mosaics(tmp_path, "train", geometry)
    np.testing.assert_array_equal(x, images)
    np.testing.assert_array_equal(y, np.arange(16) % 10)
    with pytest.raises(SystemExit, match=r"8 x 15 pixels.*give --geometry"):
        mosaics.read_mosaics(tmp_path, "train", mosaics.Geometry(4, 5, 4))
    np.save(tmp_path / "train_labels.npy", np.arange(30) % 10)
    with pytest.raises(SystemExit, match="hold 18 images; there is one integer for every image"):
        mosaics.read_mosaics(tmp_path, "train", geometry)
    for wrong in ("32x32", "axbxc", "0x4x4", ""):
        with pytest.raises(SystemExit, match="HEIGHTxWIDTHxCOLUMNS"):
            mosaics.Geometry.parse(wrong)
    with pytest.raises(SystemExit, match="there is no folder of that name"):
        mosaics.image_data(tmp_path / "nowhere", geometry, 9)
