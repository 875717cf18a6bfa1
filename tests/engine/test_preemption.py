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
    """`terminate_in(Class, "method", n, after)`: SIGTERM comes in its call n, from 0."""

    def arrange(where, name, call, after=False):
        real, left = getattr(where, name), iter(range(call, -1, -1))

        def stopped(*args, **kwargs):
            last = next(left, -1) == 0
            if last and not after:
                terminate()
            result = real(*args, **kwargs)
            if last and after:
                terminate()
            return result

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


# Of "edst" the programs are those of the start, of the steps and of the escape; checkpoint 3 is in its second epoch. Of
# "channels" a Shrink follows each of three explorations. (Steps: see test_resume.)
@pytest.mark.parametrize(
    ("name", "where", "function", "call"),
    [
        *(("edst", Programs, "_compile", call) for call in range(3)),
        *(("channels", Programs, "_compile", call) for call in (2, 3)),
        *(("channels", shrink_step, "dead_units", call) for call in (0, 2)),
        *(("shrunk", shrink_step, "dead_units", call) for call in (0, 1)),
        *(("groups", Recorder, "_say", call) for call in (0, 1)),
        *(("children", Recorder, "_step", call) for call in (0, 5, 6, 13)),
        *(("edst", Recorder, "_step", call) for call in (2, 5, 6, 15)),
    ],
)
def test_a_run_goes_on_from_where_sigterm_came(
    tmp_path, undisturbed, terminate_in, monkeypatch, steps, name, where, function, call
):
    """While a program is compiled, a unit looked for, a ticket collected; in a step that changes the mask, ends an epoch."""
    with monkeypatch.context():
        terminate_in(where, function, call)
        with pytest.raises(jt.Preempted, match="run the same again") as ended:
            fit(PLANS[name], out=tmp_path, checkpoint_every=1e9)
    assert ended.value.code == os.EX_TEMPFAIL
    assert steps or function == "_compile"
    go_on(PLANS[name], tmp_path, undisturbed[name], steps)
