"""Disks that are full, cannot be read or written, and clocks that jump: said in one sentence, and nothing is lost."""

import contextlib
import errno
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from tiny_task import fit, task

from jaxtickets.engine import checkpoints as checkpoints_module
from jaxtickets.engine import failing
from jaxtickets.engine.checkpoints import Checkpoints, numbers
from jaxtickets.engine.run_folder import RunFolder
from jaxtickets.errors import RunError
from jaxtickets.plan import Collect, Length, Plan, Start, Train
from jaxtickets.tickets.ensemble import Ticket, TicketEnsemble

PLAN = Plan("short", (Start(1, 0.5), Train(Length(3, "steps")), Collect()), 16)
SCRIPT = Path(__file__).parent / "killed_run.py"
HOST = {"w": np.arange(6, dtype=np.float32).reshape(2, 3), "steps": np.int32(4)}


def write(folder, count, run="this run", host=HOST):
    with Checkpoints(folder, run) as made:
        for number in range(count):
            state = jax.tree.map(lambda a, n=number: jax.numpy.asarray(a + a.dtype.type(n)), host)
            made.save(state, jax.device_get(state), {"number": number})


def like(place):
    here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=here), HOST)


def newest(folder, run="this run"):
    with Checkpoints(folder, run) as made:
        return made.newest(like)


@pytest.fixture
def three(tmp_path):
    write(tmp_path / "checkpoints", 4)
    assert numbers(tmp_path / "checkpoints") == [1, 2, 3]
    return tmp_path / "checkpoints"


def contents(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_the_newest_is_read_back(three):
    place, state = newest(three)
    assert place == {"number": 3}
    np.testing.assert_array_equal(state["w"], HOST["w"] + 3)


# -- failing to read is not damage -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "number", [errno.EIO, errno.EACCES, errno.ESTALE, errno.EMFILE, errno.ENOMEM]
)
@pytest.mark.parametrize("which", ["place.json", "manifest.ocdbt"])
def test_a_file_that_cannot_be_read_is_told_and_nothing_is_moved(three, monkeypatch, number, which):
    before, real = contents(three), Path.read_bytes

    def fail(self):
        if self.name == which:
            raise OSError(number, os.strerror(number), str(self))
        return real(self)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", fail)
        with pytest.raises(
            RunError, match=rf"checkpoints/3/.*{which} cannot be read: .*Nothing was changed"
        ):
            newest(three)
    assert contents(three) == before
    assert newest(three)[0] == {"number": 3}


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        OSError(errno.EIO, "Input/output error"),
        PermissionError(errno.EACCES, "Permission denied"),
        jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 12345 bytes."),
        ValueError("anything at all"),
        KeyError("w"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_whole_checkpoint_that_cannot_be_restored_is_told_and_nothing_is_moved(
    three, monkeypatch, error
):
    import orbax.checkpoint as ocp

    def fail(*args, **how):
        raise error

    before = contents(three)
    with monkeypatch.context() as patch:
        patch.setattr(ocp.AsyncCheckpointer, "restore", fail)
        with pytest.raises(
            RunError, match=r"checkpoints/3 is whole and cannot be restored: .*Nothing was changed"
        ):
            newest(three)
    assert contents(three) == before


def test_damage_is_set_aside_and_the_one_before_it_is_used(three):
    for number in (3, 2):
        file = max(
            (three / str(number) / "state").rglob("*"),
            key=lambda path: path.is_file() and path.stat().st_size,
        )
        file.write_bytes(file.read_bytes()[:-1])
    (three / "damaged-2").mkdir()
    before = contents(three)
    with pytest.warns(
        UserWarning, match=r"is damaged \(.* is not what was written\); using the one before it"
    ) as said:
        assert newest(three)[0] == {"number": 1}
    assert ["damaged-3" in str(said[0].message), "damaged-2-1" in str(said[1].message)] == [
        True,
        True,
    ]
    renamed = {
        name.replace("3/", "damaged-3/", 1).replace("2/", "damaged-2-1/", 1)
        if name[0] in "23"
        else name
        for name in before
    }
    assert set(contents(three)) == renamed


def test_a_checkpoint_of_another_run_is_told_by_name(three):
    with pytest.raises(RunError, match=r"checkpoint .*checkpoints/3 is of another run"):
        newest(three, "another")
    assert numbers(three) == [1, 2, 3]


@pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)  # of orbax's, for each array that it does not find
def test_the_first_checkpoint_is_read_back_when_it_is_written(tmp_path, monkeypatch):
    """As a writer that loses what it writes: below a folder with [ in its name orbax would."""
    monkeypatch.setattr(checkpoints_module, "_address", lambda folder: (folder, None))
    with pytest.raises(
        RunError, match=r"the first checkpoint in .* cannot be read back: .*Training was ended"
    ):
        write(tmp_path / "exp[1]", 2)


def test_without_another_way_to_name_it_a_folder_that_orbax_misreads_is_refused(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(
        Path,
        "is_dir",
        lambda self, real=Path.is_dir: not str(self).startswith("/proc/self/fd/") and real(self),
    )
    with pytest.raises(
        RunError, match=r"takes the \*, \? or \[ in it for a pattern; give another out folder"
    ):
        write(tmp_path / "exp[1]", 1)


# -- failing to write ------------------------------------------------------------------------------------------------


def test_where_no_checkpoint_can_be_written_the_run_does_not_begin(tmp_path):
    began, fit_into = time.monotonic(), tmp_path / "run"
    with pytest.raises(
        RunError,
        match=r"no checkpoint can be written to .*: a file of that name is there; move it away.*Nothing was trained",
    ):
        begin_with_a_file_for_checkpoints(fit_into)
    assert (fit_into / "checkpoints").read_text() == "mine"
    assert not (fit_into / "metrics.jsonl").exists()
    assert time.monotonic() - began < 100  # where threads were waited for it took five minutes


def begin_with_a_file_for_checkpoints(folder):
    with contextlib.suppress(KeyboardInterrupt), pytest.MonkeyPatch.context() as patch:
        patch.setattr(Checkpoints, "__init__", interrupted)
        fit(PLAN, out=folder)
    (folder / "checkpoints").write_text("mine")
    fit(PLAN, out=folder)


def interrupted(*args, **how):
    raise KeyboardInterrupt


def save_ticket(folder, alone):
    folder.save_ticket(alone.task, alone.tickets[0], alone.x_spec, alone.plan, 0)


WRITERS = {
    "metrics.jsonl": lambda folder: folder.metrics_log.append({}),
    "timing.json": lambda folder: folder.save_timing({}),
    "tickets/000.safetensors": lambda folder: save_ticket(folder, one_ticket()),
    "tickets.safetensors": lambda folder: folder.save_final(one_ticket()),
    "place.json": lambda folder: write(folder.checkpoints, 1),
}


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS])
@pytest.mark.parametrize("what", WRITERS)
def test_a_disk_that_fails_while_a_run_writes_is_one_sentence(tmp_path, monkeypatch, number, what):
    real, name = Path.open, what.rpartition("/")[2]

    def fail(self, mode="r", *args, **how):
        if (self.name == name or self.name.startswith(f".{name}.")) and set(mode) & set("wa"):
            raise OSError(number, os.strerror(number), str(self))
        return real(self, mode, *args, **how)

    with RunFolder(tmp_path / "run", {}) as folder:
        monkeypatch.setattr(Path, "open", fail)
        with pytest.raises(RunError) as error:
            WRITERS[what](folder)
        monkeypatch.undo()
    reason = failing.reason(OSError(number, os.strerror(number)))
    assert (
        f": {reason}. Run again after that: it starts over, as there is no checkpoint yet."
        in str(error.value)
    )
    assert "\n" not in str(error.value)
    assert error.value.__suppress_context__
    assert not [path for path in (tmp_path / "run").rglob(".*") if path.name != ".lock"]


def one_ticket():
    params, state = task().init(jax.random.key(0), np.zeros((1, 8), np.float32))
    mask = jax.tree.map(lambda _: np.ones((), bool), params)
    info = {"lineage": 0, "collected": 0}
    return TicketEnsemble(
        task(), (Ticket(params, mask, state, info),), jax.ShapeDtypeStruct((8,), np.float32)
    )


@contextlib.contextmanager
def mounted(folder, size, *options):
    """A file system of its own, of so many bytes; skipped where one cannot be mounted."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    if (
        sys.platform != "linux"
        or os.geteuid() != 0
        or subprocess.run(mount, capture_output=True, check=False).returncode
    ):
        pytest.skip("no file system can be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_ends_the_run_and_the_process_with_one_sentence(tmp_path, compile_cache):
    """In a process of its own, as threads of the writer could hold it; the disk has room for a few of 16 checkpoints."""
    with mounted(tmp_path / "disk", "160k") as disk:
        command = [sys.executable, str(SCRIPT), str(disk / "run"), compile_cache, "edst"]
        began = time.monotonic()
        done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
        assert time.monotonic() - began < 150
        assert done.returncode == 1
        last = done.stderr.strip().splitlines()[-1]
        assert "RunError: checkpoint" in last, done.stderr
        assert (
            "no space is left on its disk; free some. Run again after that: it goes on from checkpoint"
            in last
        )
        assert (
            done.stderr.count("Traceback") == 1
        )  # of this error alone: nothing of the writer's threads
        assert "site-packages" not in done.stderr
        subprocess.run(["mount", "-o", "remount,size=10m", str(disk)], check=True)
        done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
        assert done.returncode == 0, done.stderr
        assert (disk / "run" / "tickets.safetensors").exists()


def test_a_disk_that_can_only_be_read_is_told_and_a_finished_run_is_loaded_from_it(tmp_path):
    with mounted(tmp_path / "disk", "10m") as disk:
        tickets = fit(PLAN, out=disk / "run")
        (disk / "begun").mkdir()
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        for name in ("new", "begun"):
            with pytest.raises(
                RunError,
                match=rf"disk/{name} cannot be .*: its disk can only be read; give an out folder that can be written",
            ):
                fit(PLAN, out=disk / name)
        again = fit(PLAN, out=disk / "run")
        np.testing.assert_array_equal(
            tickets.tickets[0].params["w1"], again.tickets[0].params["w1"]
        )
        subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)


# -- clocks ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("jump", [-1e8, 1e8])  # three years, every other time it is read
def test_a_clock_that_jumps_changes_neither_checkpoints_nor_results(tmp_path, monkeypatch, jump):
    ticks = iter(range(10**9))
    real, saved, save = time.time, [], Checkpoints.save
    monkeypatch.setattr(
        Checkpoints,
        "save",
        lambda self, *args: (saved.append(args[-1]["step"]), save(self, *args))[0],
    )
    with monkeypatch.context() as patch:
        patch.setattr(time, "time", lambda: real() + jump * (next(ticks) % 2))
        fit(PLAN, out=tmp_path / "jumping", checkpoint_every=1e7)
        assert saved == []
        fit(PLAN, out=tmp_path / "often", checkpoint_every=0)
        assert saved == [1, 2, 3]
    fit(PLAN, out=tmp_path / "calm")
    assert (
        len(
            {
                (tmp_path / name / "tickets.safetensors").read_bytes()
                for name in ("jumping", "often", "calm")
            }
        )
        == 1
    )
    seconds = json.loads((tmp_path / "jumping" / "timing.json").read_text())["seconds"]
    assert 0 <= seconds["total"] < 1000
