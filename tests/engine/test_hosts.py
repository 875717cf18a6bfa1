"""Two processes on loopback, as two hosts: they train as one, each reads its own pictures, and they begin and end together."""

import re
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image
from test_resume import assert_equal_runs

from jaxtickets.engine import hosts
from jaxtickets.members import Layout, member_mesh, own, own_rows, place, place_rows

SCRIPT = Path(__file__).parent / "hosts_run.py"
STEPS = [f"step {phase} {done}" for phase in (1, 2, 5) for done in range(1, 9)]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Twenty-four of them, in three classes; four batches of six."""
    root, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    colours = {"dark": (40, 40, 40), "green": (60, 170, 60), "red": (180, 60, 60)}
    for part, count in (("train", 8), ("other", 9)):
        for name, colour in colours.items():
            (root / part / name).mkdir(parents=True)
            for i in range(count):
                pixels = np.asarray(colour) + rng.normal(0, 40, (20, 24, 3))
                Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(
                    root / part / name / f"{i}.JPEG"
                )
    return root


def start(*arguments):
    command = [sys.executable, str(SCRIPT), *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def end(process):
    """Exit status, what it printed (its own lines only), and its errors."""
    out, said = process.communicate(timeout=500)
    return (
        process.returncode,
        [line for line in out.splitlines() if "Gloo" not in line and line],
        said,
    )


def two(pictures, cache, out, first="nothing", second="nothing"):
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    both = [
        start(pictures, cache, 1, process, 2, port, out, what)
        for process, what in enumerate((first, second))
    ]
    return [end(one) for one in both]


def steps_of(lines):
    return [line for line in lines if line.startswith("step")]


@pytest.fixture(scope="module")
def alone(pictures, compile_cache):
    """The run of one process with two devices."""
    status, lines, said = end(start(pictures, compile_cache, 2, 0, 1, 0, "alone", "nothing"))
    assert status == 0, said
    assert steps_of(lines) == STEPS
    return pictures / "alone", int(lines[-1].removeprefix("read "))


def test_two_hosts_train_as_one_and_each_reads_half_of_the_pictures(pictures, compile_cache, alone):
    """24 steps of a batch of 6, an escape that looks at one more; and one picture that tells the shapes."""
    folder, read = alone
    assert read == 24 * 6 + 6 + 1
    for status, lines, said in two(pictures, compile_cache, "two"):
        assert status == 0, said
        assert steps_of(lines) == STEPS
        assert lines[-1] == f"read {(read - 1) // 2 + 1}"
    assert_equal_runs(pictures / "two", folder)


def preempt(pictures, cache, reference, times, seed=0):
    """How often the second host was told to end; a notice takes a second or so, and there are six seconds of steps."""
    steps, out, preempted = [[], []], f"cut-{times}-{seed}", 0
    for number in range(times):
        told = f"preempted-{100 * seed + number}-{4 / times}"
        ends = two(pictures, cache, out, "slow", told)
        status = {one[0] for one in ends}
        assert status in ({0}, {75}), ends
        for taken, (_, lines, _) in zip(steps, ends, strict=True):
            taken += steps_of(lines)
        if status == {0}:
            break
        preempted += 1
        assert "SIGTERM" in ends[0][2]
        assert "SIGTERM:" not in ends[1][2]  # one line, of the first host
    for taken, (status, lines, said) in zip(steps, two(pictures, cache, out), strict=True):
        assert status == 0, said
        assert taken + steps_of(lines) == STEPS
    assert_equal_runs(pictures / out, reference)
    return preempted


def test_sigterm_on_one_host_saves_the_run_of_both_at_one_step(pictures, compile_cache, alone):
    assert preempt(pictures, compile_cache, alone[0], 1) == 1


def test_a_run_that_one_host_began_goes_on_on_two(pictures, compile_cache):
    """Its kept layout has no mesh, and those of several hosts need one."""
    one = start(pictures, compile_cache, 1, 0, 1, 0, "handed-on", "preempted-1-2")
    status, lines, said = end(one)
    assert status == 75, said
    taken = steps_of(lines)
    assert 0 < len(taken) < len(STEPS)
    for status, lines, said in two(pictures, compile_cache, "handed-on"):
        assert status == 0, said
        assert not lines[0].startswith("RunError"), lines[0]
        assert taken + steps_of(lines) == STEPS


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_sigterm_on_one_host_at_twenty_random_moments(pictures, compile_cache, alone):
    preempted, seed = 0, 1
    while preempted < 20:
        preempted += preempt(pictures, compile_cache, alone[0], 3, seed)
        seed += 1


def test_hosts_that_differ_are_named_with_what_differs(pictures, compile_cache):
    for status, lines, _ in two(pictures, compile_cache, "never", "nothing", "different"):
        assert status == 0
        message = lines[0]
        assert message.startswith("RunError the hosts do not run the same: ")
        for what in (
            r"plan\.phases\[0\]\.sparsity was 0\.5 on host 0 \(.*\) and is 0\.6 on host 1 \(",
            r"key was 0 on host 0 \(.*\) and is 1 on host 1",
            r"data\.examples was 24 on host 0 \(.*\) and is 27 on host 1",
        ):
            assert re.search(what, message), message
    assert not (pictures / "never").exists()


def test_a_host_that_fails_or_sees_another_folder_ends_all(pictures, compile_cache):
    first, second = two(pictures, compile_cache, "never", "nothing", "invalid")
    assert re.match(
        r"RunError ended before .* host 1 \(.*\): ValueError: key as an int", first[1][0]
    )
    assert second[1][0].startswith("ValueError key as an int")
    assert not (pictures / "never").exists()
    first, second = two(pictures, compile_cache, "here", "nothing", "elsewhere")
    assert "is not the folder that host 0 writes to" in first[1][0]
    assert "a file system that all of them see" in second[1][0]


# In one process


def test_one_host_asks_nobody():
    assert hosts.exchange({"a": 1}) == [{"a": 1}]
    assert hosts.everywhere(lambda: 5, first_alone=True) == 5
    turns = hosts.Turns()
    assert [turns.due(age, 60) for age in (0, 59.9, 60)] == [False, False, True]


@pytest.mark.parametrize("mesh", [False, True])
def test_rows_are_placed_as_whole_batches_are(mesh):
    layout = Layout(2, mesh=member_mesh(2, jax.devices()) if mesh else None)
    if mesh and len(jax.devices()) > 1:
        pytest.skip("counts on one device")
    if mesh:
        layout = Layout(2, mesh=member_mesh(1, jax.devices()[:1]))
    batches = np.arange(2 * 6 * 3, dtype=np.float64).reshape(2, 6, 3)
    mine = own_rows(layout, 2, 6)
    assert mine == {0: slice(0, 6), 1: slice(0, 6)}
    placed = place_rows({one: batches[one] for one in mine}, mine, 2, 6, layout)
    assert placed.dtype == np.float32
    np.testing.assert_array_equal(placed, batches.astype(np.float32))
    np.testing.assert_array_equal(own(place(batches, layout, "member")), batches)
