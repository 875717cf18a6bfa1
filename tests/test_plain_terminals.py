"""Commands on terminals that are not UTF-8: what they print is plain, and never a traceback."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXPERIMENTS = Path(__file__).resolve().parent.parent / "experiments"
ENCODINGS = {"ascii": "ascii", "cp1252": "cp1252", "latin": "iso8859-1"}


def run(script, *flags, encoding):
    plain = {
        "PYTHONIOENCODING": encoding,
        "LC_ALL": "C",
        "PYTHONUTF8": "0",
        "PYTHONCOERCECLOCALE": "0",
    }
    command = [sys.executable, str(EXPERIMENTS / script), *map(str, flags)]
    return subprocess.run(
        command, capture_output=True, env=os.environ | plain, timeout=300, check=False
    )


@pytest.mark.parametrize("encoding", ENCODINGS.values())
def test_help_costs_and_errors(encoding, tmp_path):
    for script, flags, status in (
        ("edst_cifar.py", ["--help"], 0),
        ("edst_cifar.py", ["--cost"], 0),
        ("evaluate.py", ["run-±-日本-é"], 2),
        ("tables.py", ["--check"], 0),
    ):
        done = run(script, *flags, encoding=encoding)
        assert done.returncode == status, (script, done.stderr[-2000:])
        assert b"Traceback" not in done.stderr
        (done.stdout + done.stderr).decode(encoding)
        assert done.stdout + done.stderr


def test_what_stands_for_a_sign_that_is_lacking():
    code = "import sys; sys.path.insert(0, sys.argv[1]); from support import command; command.plain_streams(); print('91.0 ± 0.5 … ↑ é ─│ 日')"
    done = subprocess.run(
        [sys.executable, "-c", code, str(EXPERIMENTS)],
        capture_output=True,
        env=os.environ | {"PYTHONIOENCODING": "ascii"},
        check=True,
    )
    assert done.stdout.decode("ascii").rstrip() == "91.0 +- 0.5 ... ^ e -| ?"


def test_tables_with_arrows_and_their_files(tmp_path):
    import numpy as np

    import jaxtickets as jt

    y = jt.data.load("digits", "test").y
    np.savez(tmp_path / "p.npz", proba=np.full((2, len(y), 10), 0.1), y=y)
    done = run(
        "evaluate.py",
        tmp_path / "p.npz",
        "--dataset",
        "digits",
        "--no-figures",
        "--out",
        tmp_path / "out",
        encoding="ascii",
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "accuracy" in done.stdout.decode("ascii")
    assert "↑" in (tmp_path / "out" / "table.md").read_text(encoding="utf-8")
