"""A run that was stopped, however, and is started again ends in the same bits."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import jax
import numpy as np
import pytest
from tiny_task import CLASSES, HIDDEN, IN, data, dst, edst, fit, same, shrunk, task

import jaxtickets as jt
from jaxtickets.engine import read_metrics
from jaxtickets.engine.checkpoints import Checkpoints, digest
from jaxtickets.engine.steps import WEIGHTS
from jaxtickets.errors import NonFiniteLoss, RunError
from jaxtickets.masks import Units
from jaxtickets.members import Layout, member_keys
from jaxtickets.plan import SGD, Adam, Collect, Length, Plan, Start, Train
from jaxtickets.schedules import Constant

SCRIPT = Path(__file__).parent / "killed_run.py"
PLANS = {
    "best": edst(3, collect="best", validation=24),
    "groups": dst(2),
    "optimizers": Plan(
        "optimizers",
        (
            Start(1, 0.5),
            Train(Length(3, "steps"), optimizer=SGD()),
            Collect(),
            Train(Length(3, "steps"), Constant(0.01), Adam()),
            Collect(),
        ),
        16,
    ),
    "shrunk": shrunk(),
    "units": edst(2, structure=Units(), update_every=2),
    "channels": edst(2, explore=3, update_every=2, channels=0.5, sparsity=0.3),
}


class Stopped(BaseException):
    """As a keyboard interrupt."""


@pytest.fixture
def stop_after(monkeypatch):
    """`stop_after(n)`: the run ends once it has written n checkpoints."""
    real = Checkpoints.save

    def arrange(count):
        left = iter(range(count - 1, -1, -1))

        def save(self, *args):
            real(self, *args)
            if next(left) == 0:
                raise Stopped

        monkeypatch.setattr(Checkpoints, "save", save)

    yield arrange
    monkeypatch.undo()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folders = {name: tmp_path_factory.mktemp(name) for name in PLANS}
    for name, plan in PLANS.items():
        fit(plan, out=folders[name])
    return folders


def begin(plan, folder, stop_after, count, fit=fit, **options):
    stop_after(count)
    with pytest.raises(Stopped):
        fit(plan, out=folder, checkpoint_every=0, **options)


def go_on(plan, folder, monkeypatch, fit=fit, **options):
    monkeypatch.undo()
    return fit(plan, out=folder, checkpoint_every=1e9, **options)


def assert_equal_runs(folder, reference):
    assert (folder / "tickets.safetensors").read_bytes() == (
        reference / "tickets.safetensors"
    ).read_bytes()
    timed = ("seconds", "examples_per_second")
    a, b = (
        [{k: v for k, v in record.items() if k not in timed} for record in read_metrics(path)]
        for path in (folder, reference)
    )
    assert a == b
    seconds = [record["seconds"] for record in read_metrics(folder)]
    assert seconds == sorted(seconds)


# Steps of "best": explore 4, three refinements of 4; of "groups": 12 for each of two lineages; of "optimizers": 3 and 3;
# of "units": 6 of exploration, two refinements of 6 with an exchange after every second, an escape between them;
# of "channels": 7, 7 and 4 while channels are removed, two refinements of 6;
# of "shrunk": 6 wide and 9 narrow for each of two lineages, 3 of the 9 before a Rewind.
@pytest.mark.parametrize(
    ("name", "saves"),
    [
        ("best", 4),
        ("best", 6),
        ("best", 11),
        ("groups", 5),
        ("groups", 12),
        ("groups", 17),
        ("optimizers", 3),
        ("optimizers", 4),
        ("shrunk", 6),
        ("shrunk", 8),
        ("shrunk", 11),
        ("shrunk", 23),
        ("units", 3),
        ("units", 8),
        ("units", 15),
        ("channels", 5),
        ("channels", 12),
        ("channels", 20),
    ],
)
def test_a_stopped_run_ends_in_the_same_bits(
    tmp_path, undisturbed, stop_after, monkeypatch, name, saves
):
    """In the middle of an epoch, at the end of a phase, in the second group, with a best so far, after a change of optimizer."""
    begin(PLANS[name], tmp_path, stop_after, saves)
    assert not (tmp_path / "tickets.safetensors").exists()
    go_on(PLANS[name], tmp_path, monkeypatch)
    assert_equal_runs(tmp_path, undisturbed[name])
    assert not (tmp_path / "checkpoints").exists()


def launch(folder, cache, kind, *wait):
    command = [sys.executable, str(SCRIPT), str(folder), cache, kind, *wait]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


STEPS = {"edst": 16, "dst": 24}  # as many checkpoints are written


def newest(folder):
    return max(
        (int(path.name) for path in (folder / "checkpoints").glob("*") if path.name.isdigit()),
        default=-1,
    )


def kill_and_go_on(tmp_path, cache, kind, kills, rng):
    """Kills up to so many checkpoints and a fraction of a second after each start, whatever the run is doing then."""
    _, said = (reference := launch(tmp_path / "reference", cache, kind)).communicate()
    assert reference.returncode == 0, said
    folder, killed = tmp_path / "killed", 0
    for _ in range(kills):
        process = launch(folder, cache, kind)
        assert process.stdout is not None
        process.stdout.readline()
        until = newest(folder) + rng.randint(0, STEPS[kind] // kills)
        while process.poll() is None and newest(folder) < until:
            time.sleep(0.005)
        time.sleep(rng.uniform(0, 0.3))
        process.send_signal(signal.SIGKILL)
        _, said = process.communicate()
        assert process.returncode in (0, -signal.SIGKILL), said
        killed += process.returncode != 0
    last = launch(folder, cache, kind)
    _, said = last.communicate()
    assert last.returncode == 0, said  # where a warning of a damaged checkpoint would be an error
    assert killed >= (kills + 1) // 2
    assert_equal_runs(folder, tmp_path / "reference")


@pytest.mark.parametrize(("kind", "kills"), [("edst", 2), ("dst", 2)])
def test_a_killed_run_ends_in_the_same_bits(tmp_path, compile_cache, kind, kills):
    kill_and_go_on(tmp_path, compile_cache, kind, kills, random.Random(kills))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["edst", "dst"])
@pytest.mark.parametrize("seed", range(3))
def test_a_run_killed_again_and_again_ends_in_the_same_bits(tmp_path, compile_cache, kind, seed):
    kill_and_go_on(tmp_path, compile_cache, kind, 10, random.Random(seed))


def checkpoints(folder):
    return sorted(
        (path for path in (folder / "checkpoints").iterdir() if path.name.isdigit()),
        key=lambda path: int(path.name),
    )


def largest_file(folder):
    return max(
        (path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size
    )


def truncate(folder):
    file = largest_file(folder)
    os.truncate(file, file.stat().st_size // 2)


def delete(folder):
    largest_file(folder).unlink()


def flip(folder):
    file = largest_file(folder)
    content = bytearray(file.read_bytes())
    middle = len(content) // 2
    content[middle - 8 : middle + 8] = bytes(
        255 - byte for byte in content[middle - 8 : middle + 8]
    )
    file.write_bytes(content)


def empty(folder):
    for file in folder.rglob("*"):
        if file.is_file():
            file.write_bytes(b"")


def forget_place(folder):
    for file in (folder / "place").rglob("*"):
        if file.is_file():
            file.unlink()


def mix(folder):
    """Readable in every part, and not what was written: the state of the checkpoint before."""
    shutil.rmtree(folder / "state")
    shutil.copytree(folder.with_name(str(int(folder.name) - 1)) / "state", folder / "state")


@pytest.mark.parametrize("damage", [truncate, delete, flip, empty, forget_place, mix])
def test_a_damaged_checkpoint_is_passed_over(
    tmp_path, undisturbed, stop_after, monkeypatch, damage
):
    """The newest is of step 8, when an epoch had been reported; the one before it is of step 7."""
    begin(PLANS["best"], tmp_path, stop_after, 8)
    assert read_metrics(tmp_path)[-1]["step"] == 8
    damage(checkpoints(tmp_path)[-1])
    with pytest.warns(UserWarning, match=r"checkpoints/7 is damaged .*; using the one before it"):
        go_on(PLANS["best"], tmp_path, monkeypatch)
    assert_equal_runs(tmp_path, undisturbed["best"])


def test_without_a_whole_checkpoint_the_run_starts_over(
    tmp_path, undisturbed, stop_after, monkeypatch
):
    begin(PLANS["best"], tmp_path, stop_after, 6)
    for folder in checkpoints(tmp_path):
        truncate(folder)
    with pytest.warns(UserWarning, match="is damaged") as said:
        go_on(PLANS["best"], tmp_path, monkeypatch)
    assert ["checkpoints/5" in str(said[0].message), "checkpoints/3" in str(said[2].message)] == [
        True,
        True,
    ]
    assert_equal_runs(tmp_path, undisturbed["best"])


def test_a_damaged_ticket_is_made_again(tmp_path, undisturbed, stop_after, monkeypatch):
    """Ticket 0 is collected after 12 steps of the first lineage; the checkpoints of the second build on it."""
    begin(PLANS["groups"], tmp_path, stop_after, 15)
    truncate(tmp_path / "tickets")
    with pytest.warns(UserWarning, match="000.safetensors"):
        go_on(PLANS["groups"], tmp_path, monkeypatch)
    assert_equal_runs(tmp_path, undisturbed["groups"])


def test_the_last_three_checkpoints_are_kept(tmp_path, stop_after):
    begin(PLANS["groups"], tmp_path, stop_after, 6)
    assert [path.name for path in checkpoints(tmp_path)] == ["3", "4", "5"]


def test_a_digest_sees_one_bit_one_shape_and_one_dtype():
    a = {"w": np.arange(6, dtype=np.float32)}
    changed = a["w"].copy()
    changed.view(np.uint32)[3] ^= 1
    trees = [a, {"w": changed}, {"w": a["w"].reshape(2, 3)}, {"w": a["w"].view(np.int32)}]
    assert len({digest(tree) for tree in trees}) == 4


def test_a_finished_run_is_loaded(tmp_path, undisturbed):
    before = {
        path: path.stat().st_mtime_ns for path in undisturbed["groups"].rglob("*") if path.is_file()
    }
    compiled = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, *_, **__: compiled.append(event) if "backend_compile" in event else None
    )
    tickets = fit(PLANS["groups"], out=undisturbed["groups"])
    assert not any("train" in event for event in compiled)
    assert before == {
        path: path.stat().st_mtime_ns for path in undisturbed["groups"].rglob("*") if path.is_file()
    }
    assert all(map(same, tickets, jt.load(undisturbed["groups"] / "tickets.safetensors", task())))
    assert tickets.plan == PLANS["groups"]


@pytest.mark.parametrize("finished", [True, False])
def test_another_run_in_the_same_folder_is_an_error_that_names_the_difference(
    tmp_path, undisturbed, stop_after, monkeypatch, finished
):
    folder = undisturbed["groups"] if finished else tmp_path
    if not finished:
        begin(PLANS["groups"], tmp_path, stop_after, 2)
        monkeypatch.undo()
    wider = jt.Task(
        lambda key, x: ({"w": np.zeros((IN, CLASSES), np.float32)}, {}),
        linear,
        task().loss,
        task().log_proba,
        num_classes=CLASSES,
    )
    shifted = jt.Dataset(data().x + 1, data().y, CLASSES, "points", data().augment)
    plain = data(augment=False)
    cases = [
        (dst(2, sparsity=0.6), {}, r"plan.phases\[0\].sparsity was 0.5 there and is 0.6 here"),
        (dst(2, epochs=3), {}, r"plan.phases\[1\].length.amount was 2 there and is 3 here"),
        (dst(2), {"key": 1}, r"key was 0 there and is 1 here"),
        (dst(2), {"train": shifted}, r'data.fingerprint was "\w+" there and is "\w+" here'),
        (dst(2), {"train": plain}, r'data.augment was "Jitter\(size=0.1\)" there and is null here'),
        (dst(2), {"of": wider}, r'task.name was "perceptron" there and is "task" here'),
        (
            dst(2),
            {"of": wider},
            rf'task.params.w1 was "float32\[{IN}, {HIDDEN}\]" there and is "nothing" here',
        ),
    ]
    for plan, options, message in cases:
        with pytest.raises(RunError, match=message):
            fit(plan, out=folder, **options)
    fit(dst(2), out=folder)


def linear(params, state, x, train, key):
    return x @ params["w"], state


def test_other_groups_than_those_of_the_checkpoint_are_an_error_that_says_which(
    tmp_path, undisturbed, stop_after, monkeypatch
):
    begin(PLANS["groups"], tmp_path, stop_after, 15)
    monkeypatch.undo()
    with pytest.raises(
        RunError,
        match=r"trains 1 lineages at a time, and this layout 2; give layout=Layout\(group=1\)",
    ):
        fit(PLANS["groups"], out=tmp_path, layout=Layout(2, "vmap"))
    go_on(PLANS["groups"], tmp_path, monkeypatch)
    assert_equal_runs(tmp_path, undisturbed["groups"])


def test_a_folder_in_use_is_an_error_until_its_process_ends(tmp_path, compile_cache):
    process = launch(tmp_path, compile_cache, "dst")
    deadline = time.monotonic() + 120
    while not (tmp_path / "config.json").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    with pytest.raises(RunError, match="in use by another process"):
        fit(dst(2), out=tmp_path)
    process.kill()
    process.communicate()
    fit(dst(2), out=tmp_path)


def test_an_unreadable_config_and_a_file_in_place_of_the_folder_are_errors(tmp_path):
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(RunError, match=r"config.json cannot be read"):
        fit(dst(2), out=tmp_path)
    with pytest.raises(RunError, match="is a file"):
        fit(dst(2), out=tmp_path / "config.json")


def test_a_loss_that_is_not_finite_names_phase_step_and_member(tmp_path):
    """A learning rate of 3e38 in the second training: its first step, the seventh, makes weights whose logits overflow."""
    plan = Plan(
        "nan",
        (
            Start(1, 0.5),
            Train(Length(6, "steps")),
            Collect(),
            Train(Length(6, "steps"), Constant(3e38)),
            Collect(),
        ),
        16,
    )
    with pytest.raises(
        NonFiniteLoss,
        match=r"member 0 became NaN or infinite at step (\d+), in phase 4, Train\(6 steps, lr=3e\+38\)",
    ) as error:
        fit(plan, out=tmp_path, checkpoint_every=0)
    step = int(str(error.value).split("step ")[1].split(",")[0])
    assert step == first_bad_step(plan) == 8
    assert "Tickets collected before are in" in str(error.value)
    kept = jt.load(tmp_path / "tickets" / "000.safetensors", task())
    assert np.isfinite(kept.predict_proba(data())).all()
    assert len(checkpoints(tmp_path)) == 3
    with pytest.raises(
        NonFiniteLoss, match=f"at step {step},"
    ):  # and it goes on from there to the same end
        fit(plan, out=tmp_path, checkpoint_every=0)


def first_bad_step(plan):
    """By runs of one more step each, whose last loss is the mean over that step alone."""
    start, good, _, bad, _ = plan.phases
    for steps in range(1, 7):
        short = Plan(
            "short", (start, good, *(Train(Length(1, "steps"), bad.lr),) * steps, Collect()), 16
        )
        try:
            fit(short)
        except NonFiniteLoss as error:
            if "weights" not in str(error):
                return 6 + steps
    raise AssertionError


def test_the_member_that_fails_is_named(tmp_path):
    """Only member 1 starts with weights that overflow."""
    second = jax.random.key_data(jax.random.fold_in(member_keys(0, 2)[1], WEIGHTS))

    def start(key, x):
        params, state = task().init(key, x)
        scale = jax.numpy.where((jax.random.key_data(key) == second).all(), jax.numpy.inf, 1.0)
        return params | {"w2": params["w2"] * scale}, state

    broken = jt.Task(start, task().apply, task().loss, task().log_proba, num_classes=CLASSES)
    for layout in (Layout(1, "unroll"), Layout(2, "vmap")):
        with pytest.raises(
            NonFiniteLoss, match=r"member 1 became NaN or infinite at step 1, in phase 2"
        ):
            fit(dst(2), of=broken, layout=layout)


def test_metrics_pass_over_a_line_that_a_crash_cut_off(tmp_path):
    (tmp_path / "metrics.jsonl").write_text(json.dumps({"step": 1}) + "\n" + '{"step": 2, "lo')
    assert read_metrics(tmp_path) == [{"step": 1}]
    assert read_metrics(tmp_path / "nowhere") == []


def test_nothing_warns_in_a_run_with_checkpoints(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit(dst(1), out=tmp_path, checkpoint_every=0)
