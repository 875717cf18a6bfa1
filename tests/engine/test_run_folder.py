"""Whose files lie in a run folder: what is not the run's stays as it is, and what is another run's is not taken for its own."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from test_resume import begin, go_on, stop_after, truncate  # noqa: F401 (a fixture)
from tiny_task import data, dst, fit, same, task

import jaxtickets as jt
from jaxtickets.engine import read_metrics
from jaxtickets.engine.run_folder import RunFolder
from jaxtickets.errors import RunError
from jaxtickets.members import Layout
from jaxtickets.plan import Collect, Length, Plan, Start, Train

PLAN = Plan("short", (Start(2, 0.5), Train(Length(2, "steps")), Collect()), 16)


def contents(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished")
    fit(PLAN, out=folder)
    return folder


@pytest.fixture
def copy(finished, tmp_path):
    return Path(shutil.copytree(finished, tmp_path / "copy"))


@pytest.mark.parametrize(
    "name",
    [
        "checkpoints/bert.pt",
        "tickets/000.safetensors",
        "metrics.jsonl",
        "timing.json",
        "probe/000-00000001.npz",
        ".git/config",
    ],
)
def test_a_folder_of_somebody_else_is_refused_and_left_as_it_is(tmp_path, name):
    (tmp_path / "proj" / name).parent.mkdir(parents=True)
    (tmp_path / "proj" / name).write_text("mine")
    with pytest.raises(
        RunError,
        match=rf"proj is not empty and holds no run: there is {name.split('/')[0]}.*such as out='.*proj/run'",
    ):
        fit(PLAN, out=tmp_path / "proj")
    assert contents(tmp_path / "proj") == {name: b"mine"}
    assert [path.name for path in (tmp_path / "proj").iterdir()] == [name.split("/")[0]]


@pytest.mark.parametrize(
    ("out", "says"),
    [
        ("", "out is empty"),
        (" ", "out is empty"),
        (3, "out is a path"),
        ("a\0b", "out is a path"),
        (b"run", "out is a path"),
    ],
)
def test_what_is_no_path_is_refused(out, says, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RunError, match=says):
        fit(PLAN, out=out)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("out", ["file/run", "x" * 300, "file/a/b"])
def test_what_cannot_be_a_folder_is_one_sentence(out, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(
        RunError,
        match=r"cannot be a run folder: (a part of that path is a file|the name is too long); give a",
    ):
        fit(PLAN, out=tmp_path / out)


def test_a_strangers_files_in_our_folder_survive_the_run(tmp_path, stop_after, monkeypatch):  # noqa: F811
    begin(dst(1), tmp_path, stop_after, 5)
    theirs = [
        "checkpoints/bert.pt",
        "checkpoints/notes/a.txt",
        "checkpoints/3/mine.txt",
        "checkpoints/2019/photo.jpg",
        "tickets/notes.txt",
    ]
    for name in theirs:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("mine")
    go_on(dst(1), tmp_path, monkeypatch)
    left = contents(tmp_path)
    assert [left[name] for name in theirs] == [b"mine"] * len(theirs)
    assert sorted(name for name in left if name.startswith("checkpoints")) == sorted(theirs[:4])


def test_what_killed_processes_leave_half_written_is_tidied(tmp_path, stop_after, monkeypatch):  # noqa: F811
    begin(PLAN, tmp_path, stop_after, 1)
    ours = [
        ".config.json.4711",
        "tickets/.000.safetensors.4711",
        ".tickets.safetensors.12",
        "probe/.000-00000006.npz",
    ]
    theirs = [".000.safetensors.4711", "tickets/.notes.4711", ".env"]
    (tmp_path / "probe").mkdir()
    for name in (*ours, *theirs):
        (tmp_path / name).write_text("")
    (tmp_path / "checkpoints" / ".writing-7" / "state.orbax-checkpoint-tmp-12").mkdir(parents=True)
    (tmp_path / "checkpoints" / ".removing-0" / "state").mkdir(parents=True)
    go_on(PLAN, tmp_path, monkeypatch)
    assert not set(ours) & set(contents(tmp_path))
    assert set(theirs) <= set(contents(tmp_path))
    assert not (tmp_path / "checkpoints").exists()


def test_checkpoints_left_by_a_kill_after_the_last_save_are_tidied_at_the_next_start(
    copy,
    tmp_path,
    stop_after,  # noqa: F811
    monkeypatch,
):
    begin(PLAN, tmp_path / "stopped", stop_after, 2)
    monkeypatch.undo()
    shutil.move(tmp_path / "stopped" / "checkpoints", copy / "checkpoints")
    (copy / "tickets" / ".000.safetensors.4711").write_text("")
    before = (copy / "tickets.safetensors").stat().st_mtime_ns
    fit(PLAN, out=copy)
    assert not (copy / "checkpoints").exists()
    assert not (copy / "tickets" / ".000.safetensors.4711").exists()
    assert (copy / "tickets.safetensors").stat().st_mtime_ns == before


def test_a_folder_killed_at_its_very_start_is_ours(tmp_path):
    (tmp_path / ".lock").write_text("")
    (tmp_path / ".config.json.4711").write_text("{")
    assert len(fit(PLAN, out=tmp_path)) == 2
    assert not (tmp_path / ".config.json.4711").exists()


# -- whose are these ----------------------------------------------------------------------------------------------------


def test_the_finished_file_of_another_run_is_refused_by_name(copy, tmp_path):
    fit(PLAN, out=tmp_path / "other", key=1)
    shutil.copy(tmp_path / "other" / "tickets.safetensors", copy)
    with pytest.raises(RunError, match=r"copy/tickets.safetensors is of another run"):
        fit(PLAN, out=copy)
    shutil.copy(copy / "tickets" / "000.safetensors", copy / "tickets.safetensors")
    with pytest.raises(
        RunError,
        match=r"copy/tickets.safetensors holds ticket 0 of this run, under another one's name",
    ):
        fit(PLAN, out=copy)
    fit(PLAN, key=1).save(copy / "tickets.safetensors")
    with pytest.raises(RunError, match=r"copy/tickets.safetensors was not written by a run"):
        fit(PLAN, out=copy)


@pytest.mark.parametrize("change", ["swap", "other", "saved"])
def test_tickets_that_are_not_the_runs_are_refused_by_name(
    tmp_path,
    copy,
    change,
    stop_after,  # noqa: F811
    monkeypatch,
):
    plan = Plan("long", (*PLAN.phases, *PLAN.phases[1:]), 16)
    begin(plan, tmp_path / "run", stop_after, 8)
    monkeypatch.undo()
    tickets = tmp_path / "run" / "tickets"
    first, second = tickets / "000.safetensors", tickets / "001.safetensors"
    if change == "swap":
        first.rename(tickets / "x")
        second.rename(first)
        (tickets / "x").rename(second)
    elif change == "other":
        shutil.copy(copy / "tickets" / "000.safetensors", first)
    else:
        fit(PLAN, key=1)[0].save(first)
    before = contents(tmp_path / "run")
    says = {
        "swap": "holds ticket 1 of this run, under another one's name",
        "other": "is of another run",
        "saved": "was not written by a run",
    }
    with pytest.raises(RunError, match=rf"tickets/000.safetensors {says[change]}"):
        fit(plan, out=tmp_path / "run")
    assert contents(tmp_path / "run") == before


def test_checkpoints_of_another_run_are_refused_by_name(tmp_path, stop_after, monkeypatch):  # noqa: F811
    for key in (0, 1):
        begin(PLAN, tmp_path / str(key), stop_after, 2, key=key)
        monkeypatch.undo()
    shutil.rmtree(tmp_path / "0" / "checkpoints")
    shutil.copytree(tmp_path / "1" / "checkpoints", tmp_path / "0" / "checkpoints")
    before = contents(tmp_path / "0" / "checkpoints")
    with pytest.raises(
        RunError, match=r"checkpoint .*0/checkpoints/1 is of another run than .*/0; move it away"
    ):
        fit(PLAN, out=tmp_path / "0")
    assert contents(tmp_path / "0" / "checkpoints") == before


def test_a_damaged_final_file_is_made_again_from_the_tickets(copy, finished):
    truncate(copy)
    truncated = (copy / "tickets.safetensors").stat().st_size
    assert truncated < (finished / "tickets.safetensors").stat().st_size
    with pytest.warns(
        UserWarning,
        match=r"tickets.safetensors is not a ticket file, or is damaged.*It was made again from .*copy/tickets",
    ):
        tickets = fit(PLAN, out=copy)
    assert (copy / "tickets.safetensors").read_bytes() == (
        finished / "tickets.safetensors"
    ).read_bytes()
    assert all(map(same, tickets, jt.load(finished / "tickets.safetensors", task())))


def test_a_damaged_final_file_without_whole_tickets_is_an_error_that_says_so(copy):
    truncate(copy)
    (copy / "tickets" / "001.safetensors").unlink()
    before = contents(copy)
    with pytest.raises(
        RunError,
        match=r"Nor can it be made again from .*copy/tickets: there is no ticket file .*001.safetensors",
    ):
        fit(PLAN, out=copy)
    assert contents(copy) == before


# -- paths -----------------------------------------------------------------------------------------------------------


def test_a_relative_folder_stays_where_it_was_when_the_program_moves(tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)

    def moving(params, state, x, train, key):
        os.chdir(tmp_path / "elsewhere")
        return task().apply(params, state, x, train, key)

    tickets = fit(
        PLAN,
        of=jt.classification((task().init, moving), num_classes=3, name="mover"),
        out="run",
        checkpoint_every=0,
    )
    assert Path.cwd() == tmp_path / "elsewhere"
    assert [path.name for path in tmp_path.iterdir() if path.name != "elsewhere"] == ["run"]
    assert not any((tmp_path / "elsewhere").iterdir())
    assert tickets[0].tickets[0].info["lineage"] == 0


def test_a_tilde_is_the_home_folder_wherever_a_path_is_taken(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    tickets = fit(PLAN, out="~/run", probe=data().x[:2])
    tickets.save("~/saved.safetensors")
    assert same(jt.load("~/saved.safetensors", task()).tickets[0], tickets.tickets[0])
    assert read_metrics("~/run")
    assert jt.engine.read_probes("~/run")
    jt.engine.write_json("~/some.json", {})
    assert sorted(path.name for path in (tmp_path / "home").iterdir()) == [
        "run",
        "saved.safetensors",
        "some.json",
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["home"]


@pytest.mark.parametrize("name", ["exp[1]", "a*b?", "[", "ünï %20#x", "new\nline"])
def test_folders_of_any_name_hold_checkpoints_that_are_read_again(
    tmp_path,
    name,
    stop_after,  # noqa: F811
    monkeypatch,
):
    folder = tmp_path / name / "run"
    begin(PLAN, folder, stop_after, 3)
    go_on(PLAN, folder, monkeypatch)
    fit(PLAN, out=tmp_path / "plain")
    assert (folder / "tickets.safetensors").read_bytes() == (
        tmp_path / "plain" / "tickets.safetensors"
    ).read_bytes()
    assert [record["step_in_phase"] for record in read_metrics(folder)] == [2, 2]


# -- metrics ---------------------------------------------------------------------------------------------------------

BAD = {
    "cut": b'{"step": 2, "lo',
    "not UTF-8": b'{"step": "\xff"}',
    "deep": b"[" * 100_000,
    "a number": b"7",
}


@pytest.mark.parametrize("kind", BAD)
def test_a_garbled_line_is_told_by_its_number_and_the_rest_is_read(tmp_path, kind):
    (tmp_path / "metrics.jsonl").write_bytes(b'{"step": 1}\n' + BAD[kind] + b'\n{"step": 3}\n{"st')
    with pytest.warns(
        UserWarning, match=r"metrics.jsonl, line 2, is no record of a run; the others are read"
    ):
        assert read_metrics(tmp_path) == [{"step": 1}, {"step": 3}]


def test_a_run_that_goes_on_keeps_what_it_cannot_read_aside(tmp_path):
    def line(step):
        return json.dumps({"group": 0, "branch": 0, "phase": 1, "step_in_phase": step}).encode()

    with RunFolder(tmp_path / "run", {}) as folder:
        file = folder.path / "metrics.jsonl"
        file.write_bytes(
            b"\n".join(
                [line(1), BAD["not UTF-8"], line(2), b'{"of": "another"}', line(3), b'{"gro']
            )
        )
        with pytest.warns(
            UserWarning,
            match="has 2 lines that are no records of a run; they were moved to metrics-unreadable.txt",
        ):
            folder.metrics_log.truncate((0, 0, 1, 2))
        assert file.read_bytes() == line(1) + b"\n" + line(2) + b"\n"
        assert (folder.path / "metrics-unreadable.txt").read_bytes() == BAD[
            "not UTF-8"
        ] + b'\n{"of": "another"}\n'


@pytest.mark.parametrize("text", [b"[" * 100_000, b'{"run": "\xff"}', b"{", b"[]", b'{"ran": 1}'])
def test_an_unreadable_config_is_an_error_of_ours(tmp_path, text):
    (tmp_path / "config.json").write_bytes(text)
    with pytest.raises(RunError, match=r"config.json cannot be read; move"):
        RunFolder(tmp_path, {})


# -- arguments -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "every", [float("nan"), float("inf"), -1, "60", None, True, np.float32("nan"), 1j]
)
def test_a_time_between_checkpoints_that_is_none_is_told_before_anything_is_made(tmp_path, every):
    with pytest.raises(
        ValueError, match="checkpoint_every is the seconds between checkpoints, at least 0"
    ):
        fit(PLAN, out=tmp_path / "run", checkpoint_every=every)
    assert not (tmp_path / "run").exists()


def test_going_on_under_another_across_is_told(tmp_path, stop_after, monkeypatch, capsys):  # noqa: F811
    begin(PLAN, tmp_path, stop_after, 1, layout=Layout(2, "unroll"))
    monkeypatch.undo()
    says = r"trained with across='unroll' and goes on with 'vmap'.*only up to rounding; give layout=Layout\(2, 'unroll'\)"
    with pytest.warns(UserWarning, match=says):
        begin(PLAN, tmp_path, stop_after, 1, layout=Layout(2, "vmap"))
    monkeypatch.undo()
    with pytest.warns(UserWarning, match=says):  # and it stays so
        tickets = fit(PLAN, out=tmp_path, layout=Layout(2, "vmap"), progress=True)
    assert "only up to rounding" in capsys.readouterr().err.replace("\n", " ")
    for a, b in zip(tickets, fit(PLAN, layout=Layout(2, "unroll")), strict=True):
        np.testing.assert_allclose(a.params["w1"], b.params["w1"], atol=1e-5)
