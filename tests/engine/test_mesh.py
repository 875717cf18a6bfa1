"""Members over a mesh of devices, and over two processes, train as they do on one device."""

import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import packed_task
import pytest
from tiny_task import dst, edst, fit, leaves, ltr, pat, shrunk, task

import jaxtickets as jt
from jaxtickets.masks import Units

SCRIPT = Path(__file__).parent / "mesh_run.py"


def assert_close(tickets, reference):
    """The same masks; weights up to the order in which a batch's gradients are summed over the devices."""
    assert len(tickets) == len(reference)
    for a, b in zip(tickets, reference, strict=True):
        for x, y in zip(
            leaves((a.mask, a.model_state)), leaves((b.mask, b.model_state)), strict=True
        ):
            np.testing.assert_array_equal(x, y)
        for x, y in zip(leaves(a.params), leaves(b.params), strict=True):
            np.testing.assert_allclose(x, y, atol=1e-4)
        assert a.info["step"] == b.info["step"]


def start(*arguments):
    command = [sys.executable, str(SCRIPT), *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(*processes):
    said = [process.communicate(timeout=400)[1] for process in processes]
    assert [process.returncode for process in processes] == [0] * len(processes), "\n".join(said)


def check(folder, process=0):
    assert_close(
        jt.load(folder / "dst" / "tickets.safetensors", task()),
        fit(dst(2, collect="best", validation=24)),
    )
    assert_close(jt.load(folder / f"edst-{process}", task()), fit(edst(2)))
    assert_close(jt.load(folder / f"mapped-{process}", task()), fit(edst(4)))


def test_four_devices_train_as_one(tmp_path, compile_cache):
    finish(start(tmp_path, compile_cache, 4))
    check(tmp_path)
    units = dst(4, structure=Units())
    for name, plan in (("pat", pat(4)), ("ltr", ltr(4)), ("shrunk", shrunk(4)), ("units", units)):
        assert_close(jt.load(tmp_path / name / "tickets.safetensors", task()), fit(plan))
    packed = jt.load(tmp_path / "packed" / "tickets.safetensors", packed_task.task())
    layout = jt.Layout(2, "vmap")  # members that train together have one shape
    assert_close(packed, packed_task.fit(packed_task.packed(4), layout=layout))


@pytest.mark.slow
def test_two_processes_train_as_one(tmp_path, compile_cache):
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    finish(*(start(tmp_path, compile_cache, 2, process, 2, port) for process in range(2)))
    check(tmp_path)
    assert (tmp_path / "edst-0").read_bytes() == (tmp_path / "edst-1").read_bytes()
    records = jt.engine.read_metrics(tmp_path / "dst")
    assert [record["step"] for record in records] == [4, 8]  # written once
