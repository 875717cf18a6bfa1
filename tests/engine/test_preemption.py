"""SIGTERM saves a run at its next step: what is run again ends in the same bits, and no step was taken twice."""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from test_resume import assert_equal_runs
from tiny_task import dst, edst, fit, pat, shrunk

import jaxtickets as jt
from jaxtickets.engine import fitting, shrink_step
from jaxtickets.engine.checkpoints import Checkpoints
from jaxtickets.engine.events import Stepped
from jaxtickets.engine.programs import Programs
from jaxtickets.engine.recorder import Recorder

SCRIPT = Path(__file__).parent / "preempted_run.py"
PLANS = {
    "edst": edst(2, collect="best", validation=24),
    "groups": dst(2),
    "children": pat(2),
    "shrunk": shrunk(),
    "channels": edst(2, explore=3, update_every=2, channels=0.5, sparsity=0.3),
}


@pytest.fixture(autouse=True)
def terminates():
    """As in a script: nobody has a handler."""
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    yield
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    signal.signal(signal.SIGTERM, before)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folders = {name: tmp_path_factory.mktemp(name) for name in PLANS}
    for name, plan in PLANS.items():
        fit(plan, out=folders[name])
    return folders


def terminate():
    os.kill(os.getpid(), signal.SIGTERM)


@pytest.fixture
def terminate_in(monkeypatch):
    """`terminate_in(where, "function", n)`: SIGTERM comes in its call n, from 0."""

    def arrange(where, name, call):
        real, left = getattr(where, name), iter(range(call, -1, -1))

        def stopped(*args, **kwargs):
            if next(left, -1) == 0:
                terminate()
            return real(*args, **kwargs)

        monkeypatch.setattr(where, name, stopped)

    return arrange


@pytest.fixture
def steps(monkeypatch):
    """Every step that any fit takes."""
    taken, real = [], Recorder.write

    def write(self, group, index, state, event):
        if isinstance(event, Stepped):
            taken.append((group.number, group.branch, index, event.done))
        real(self, group, index, state, event)

    monkeypatch.setattr(Recorder, "write", write)
    return taken


def go_on(plan, folder, reference, steps, **options):
    fit(plan, out=folder, checkpoint_every=1e9, **options)
    assert_equal_runs(folder, reference)
    assert len(steps) == len(set(steps))


# The programs of "edst" are those of the start, of the steps and of the escape; its mask changes in the third step, and its
# fourth ends an epoch. In "shrunk" each of two lineages is cut. (Steps: see test_resume.)
@pytest.mark.parametrize(
    ("name", "where", "function", "call"),
    [
        ("edst", Programs, "_compile", 1),
        ("edst", Programs, "_compile", 2),
        ("edst", Recorder, "_step", 2),
        ("edst", Recorder, "_step", 5),
        ("channels", Programs, "_compile", 3),
        ("channels", shrink_step, "dead_units", 0),
        ("shrunk", shrink_step, "dead_units", 1),
        ("groups", Recorder, "_say", 0),
        ("children", Recorder, "_step", 6),
    ],
)
def test_a_run_goes_on_from_where_sigterm_came(
    tmp_path, undisturbed, terminate_in, steps, name, where, function, call
):
    """While a program is compiled, a unit looked for, a ticket collected; in a step that changes the mask, ends an epoch."""
    terminate_in(where, function, call)
    with pytest.raises(jt.Preempted, match="run the same again") as ended:
        fit(PLANS[name], out=tmp_path, checkpoint_every=1e9)
    assert ended.value.code == os.EX_TEMPFAIL
    assert steps or function == "_compile"
    go_on(PLANS[name], tmp_path, undisturbed[name], steps)


def test_a_checkpoint_that_is_being_written_is_finished_first(
    tmp_path, undisturbed, terminate_in, steps
):
    terminate_in(Checkpoints, "save", 4)
    with pytest.raises(jt.Preempted):
        fit(PLANS["edst"], out=tmp_path, checkpoint_every=0)
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["2", "3", "4"]
    go_on(PLANS["edst"], tmp_path, undisturbed["edst"], steps)


def test_a_run_that_is_being_finished_is_finished_and_the_signal_comes_then(tmp_path, terminate_in):
    """After the last step there is nothing to save: the tickets are written, and the process ends as it was asked to."""
    terminate_in(fitting, "versions", 0)
    came = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(signal, "raise_signal", came.append)
        fit(dst(1), out=tmp_path)
    assert came == [signal.SIGTERM]
    assert (tmp_path / "tickets.safetensors").exists()


def test_a_failed_save_is_the_error(tmp_path, terminate_in, monkeypatch):
    terminate_in(Recorder, "_step", 1)

    def full(self, host):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Checkpoints, "_look_for_room", full)
    with pytest.raises(jt.RunError, match="no space is left"):
        fit(dst(1), out=tmp_path, checkpoint_every=1e9)


def test_somebodys_own_handler_stays(tmp_path, terminate_in):
    came = []
    signal.signal(signal.SIGTERM, lambda *_: came.append(1))
    try:
        terminate_in(Recorder, "_step", 1)
        fit(dst(1), out=tmp_path)
        assert came == [1]
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def test_in_another_thread_nothing_is_heard(tmp_path):
    threads = []
    thread = threading.Thread(target=lambda: threads.append(len(fit(dst(1), out=tmp_path))))
    thread.start()
    thread.join()
    assert threads == [1]


def launch(folder, cache, *more):
    command = [sys.executable, str(SCRIPT), str(folder), cache, *map(str, more)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def end(process):
    out, said = process.communicate(timeout=500)
    return process.returncode, out, said


def preempt_and_go_on(tmp_path, cache, times, rng):
    """Digits, with masks that change, channels that go, a Shrink and an escape; SIGTERM so many times, whenever."""
    status, taken, said = end(launch(tmp_path / "whole", cache))
    assert status == 0, said
    steps, preempted = [], 0
    for _ in range(20 * times):
        process = launch(tmp_path / "run", cache)
        assert process.stdout is not None
        heard = [process.stdout.readline()]
        if preempted < times:  # so many steps later, and a part of one
            heard += [process.stdout.readline() for _ in range(rng.randint(0, 30 // times))]
            time.sleep(rng.uniform(0, 0.1))
            process.send_signal(signal.SIGTERM)
        status, out, said = end(process)
        steps += "".join([*heard[1:], out]).splitlines()
        assert status in (0, 75), said
        if status == 0:
            break
        preempted += 1
        assert "run the same again to go on" in said
    assert steps == taken.splitlines()[1:]  # in order, none twice
    assert preempted >= (times + 1) // 2
    assert_equal_runs(tmp_path / "run", tmp_path / "whole")


def test_sigterm_at_random_moments(tmp_path, compile_cache):
    preempt_and_go_on(tmp_path, compile_cache, 2, random.Random(0))


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_sigterm_at_twenty_random_moments(tmp_path, compile_cache):
    preempt_and_go_on(tmp_path, compile_cache, 20, random.Random(1))


def test_a_second_sigterm_ends_at_once(tmp_path, compile_cache):
    process = launch(tmp_path, compile_cache, "twice")
    assert end(process)[0] == -signal.SIGTERM


def test_without_a_folder_sigterm_ends_the_process_as_any(compile_cache):
    process = launch("", compile_cache, "once")
    assert end(process)[0] == -signal.SIGTERM
