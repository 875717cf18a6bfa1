"""export.py as its users meet it: a run or a ticket file in, one exported file out."""

import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

import jaxtickets as jt
from jaxtickets.errors import ReportError

ROOT = Path(__file__).resolve().parent.parent
pytestmark = pytest.mark.usefixtures("experiments_are_importable")


@pytest.fixture(scope="module")
def digits():
    return jt.data.load("digits", "test")


@pytest.fixture(scope="module")
def saved(digits, tmp_path_factory):
    """A ticket file of a network of this package that was not trained."""
    task = jt.classification(jt.models.WideResNet(10, 1))
    x = digits.prepare(digits.x[:1])
    params, state = jax.device_get(task.init(jax.random.key(0), x))
    mask = jax.tree.map(lambda p: np.ones((), bool), params)
    spec = jax.ShapeDtypeStruct(x.shape[1:], x.dtype)
    tickets = jt.TicketEnsemble(task, (jt.Ticket(params, mask, state, {}),), spec)
    file = tmp_path_factory.mktemp("saved") / "t.safetensors"
    tickets.save(file)
    return file, tickets


def exported(run, out, **settings):
    import export

    return export.export(export.Config(run=Path(run), out=Path(out), **settings))


def script(*words, status):
    command = [sys.executable, str(ROOT / "experiments" / "export.py"), *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == status, done.stderr[-3000:]
    return done


def test_a_ticket_file_is_exported_with_the_data_sets_normalisation(
    saved, digits, tmp_path, capsys
):
    file, tickets = saved
    about = exported(file, tmp_path / "d.jax", dataset="digits", platforms=("cpu", "tpu"))
    said = capsys.readouterr().out
    assert f"wrote {tmp_path / 'd.jax'}" in said
    assert "off by at most" in said
    assert about["platforms"] == ["cpu", "tpu"]
    found = jt.load_exported(tmp_path / "d.jax")
    np.testing.assert_allclose(found(digits.x), tickets.predict_proba(digits), atol=1e-6)


def test_without_a_data_set_it_says_what_it_takes(saved, tmp_path, capsys):
    about = exported(saved[0], tmp_path / "d.jax", platforms=("cpu",), batch=2, members=True)
    assert "inputs are as the network takes them" in " ".join(capsys.readouterr().out.split())
    assert about["batch"] == 2
    assert about["output"]["axes"] == ["members", "batch", "classes"]


def test_what_is_wrong_is_told_in_one_line(saved, tmp_path):
    done = script(saved[0], "-o", tmp_path / "d.jax", "--platforms", "gpu", status=2)
    assert "gpu" in done.stderr
    (tmp_path / "mine").write_bytes(b"mine")
    done = script(saved[0], "-o", tmp_path / "mine", "--platforms", "cpu", status=2)
    assert "is nothing that an export" in done.stderr
    assert "Traceback" not in done.stderr
    assert (tmp_path / "mine").read_bytes() == b"mine"
    for folder in "ab":
        (tmp_path / "runs" / folder).mkdir(parents=True)
        (tmp_path / "runs" / folder / "tickets.safetensors").write_bytes(saved[0].read_bytes())
    with pytest.raises(ReportError, match=r"one run folder or ticket file .* here are 2 runs"):
        exported(tmp_path / "runs", tmp_path / "d.jax")
    np.savez(tmp_path / "p.npz", proba=np.ones((1, 2, 2)) / 2, y=np.zeros(2, int))
    with pytest.raises(ReportError, match="here are predictions"):
        exported(tmp_path / "p.npz", tmp_path / "d.jax")


def test_the_help_says_what_it_is_for():
    said = " ".join(script("--help", status=0).stdout.split())
    for words in ("StableHLO", "ONNX", "--platforms", "--batch", "--members", "--tolerance"):
        assert words in said
