"""Predictions along training: the same training, all of them, once each, however the run was stopped."""

import dataclasses
import io
import zipfile

import jax
import numpy as np
import pytest
from tiny_task import CLASSES, IN, data, dst, edst, fit, pat, same, task

import jaxtickets as jt
from jaxtickets.dataset import Dataset
from jaxtickets.engine import read_metrics, read_probes
from jaxtickets.engine.checkpoints import Checkpoints
from jaxtickets.errors import DataError, RunError
from jaxtickets.members import Layout

PROBE = np.random.default_rng(7).normal(size=(5, IN)).astype(np.float32)
PLANS = {"edst": edst(2, collect="best", validation=24), "groups": dst(2), "children": pat(2)}


COMPILED = []
jax.monitoring.register_event_duration_secs_listener(
    lambda event, *_, **__: COMPILED.append(event) if "backend_compile" in event else None
)


class Stopped(BaseException):
    """As a keyboard interrupt."""


def files(folder):
    return {path.name: path.read_bytes() for path in (folder / "probe").iterdir()}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """Each plan's folder with probes, and its tickets."""
    before = len(COMPILED)
    folders = {name: tmp_path_factory.mktemp(name) for name in PLANS}
    runs = {
        name: (folders[name], fit(plan, out=folders[name], probe=PROBE))
        for name, plan in PLANS.items()
    }
    assert len(COMPILED) > before  # the counter counts
    return runs


@pytest.mark.parametrize("name", PLANS)
def test_training_is_the_same_to_the_bit(undisturbed, tmp_path, name):
    folder, tickets = undisturbed[name]
    without = fit(PLANS[name], out=tmp_path)
    assert all(same(a, b) for a, b in zip(tickets, without, strict=True))
    assert (folder / "tickets.safetensors").read_bytes() == (
        tmp_path / "tickets.safetensors"
    ).read_bytes()
    assert not (tmp_path / "probe").exists()
    assert read_probes(tmp_path) == []


def test_times_and_networks(undisturbed):
    """EDST of 4 steps an epoch: before, then after each of three phases of one epoch. A parent of six steps, then its children's six."""
    records = read_probes(undisturbed["edst"][0])
    assert [(r["lineage"], r["child"], r["step"], r["epoch"]) for r in records] == [
        (0, None, 4 * i, i) for i in range(4)
    ]
    assert {(r["log_proba"].shape, str(r["log_proba"].dtype)) for r in records} == {
        ((5, CLASSES), "float32")
    }
    records = read_probes(undisturbed["children"][0])
    assert [(r["lineage"], r["child"], r["step"]) for r in records] == [
        (0, None, 0),
        (0, None, 6),
        (0, 0, 12),
        (0, 1, 12),
    ]
    records = read_probes(undisturbed["groups"][0])
    assert [(r["lineage"], r["step"], r["epoch"]) for r in records] == [
        (i, 6 * e, e) for i in range(2) for e in range(3)
    ]


def test_the_last_predictions_are_the_tickets(undisturbed):
    for name in ("groups", "children"):
        folder, tickets = undisturbed[name]
        last = {(r["lineage"], r["child"]): r["log_proba"] for r in read_probes(folder)}
        children = [who for who in last if who[1] is not None] or list(last)
        np.testing.assert_array_equal(
            np.stack([last[who] for who in children]), tickets.member_log_proba(PROBE)
        )


def test_the_first_predictions_are_those_of_the_weights_at_the_start(undisturbed):
    (first, *_) = read_probes(undisturbed["groups"][0])
    still = dst(2, epochs=1, lr=jt.schedules.Constant(1e-30))
    untrained = fit(
        dataclasses.replace(
            still,
            phases=tuple(
                dataclasses.replace(p, evolve=None) if hasattr(p, "evolve") else p
                for p in still.phases
            ),
        )
    )
    np.testing.assert_allclose(first["log_proba"], untrained.member_log_proba(PROBE)[0], atol=1e-6)


def test_every_so_many_epochs_and_the_phases_ends(tmp_path):
    fit(dst(1, epochs=5), out=tmp_path, probe=PROBE, probe_every=2)
    assert [r["epoch"] for r in read_probes(tmp_path)] == [0, 2, 4, 5]
    assert len(read_metrics(tmp_path)) == 5


def test_layouts_give_the_same_files(tmp_path, undisturbed):
    """To rounding: a program of two members is another program."""
    fit(PLANS["groups"], out=tmp_path, probe=PROBE, layout=Layout(2, "vmap", steps_per_call=4))
    for a, b in zip(read_probes(tmp_path), read_probes(undisturbed["groups"][0]), strict=True):
        np.testing.assert_allclose(a.pop("log_proba"), b.pop("log_proba"), atol=1e-4)
        assert a == b


def test_data_sets_are_prepared_and_their_labels_are_not_read(tmp_path):
    @dataclasses.dataclass(frozen=True)
    class Halve:
        def __call__(self, x):
            return x / 2

    named = Dataset(2 * PROBE, np.full(5, 77), 100, name="twice", prepare=Halve())
    fit(dst(1, epochs=1), out=tmp_path / "a", probe=named)
    fit(dst(1, epochs=1), out=tmp_path / "b", probe=PROBE)
    assert list(files(tmp_path / "a")) != []
    for a, b in zip(read_probes(tmp_path / "a"), read_probes(tmp_path / "b"), strict=True):
        # A program that prepares its inputs is another one, and may round otherwise.
        np.testing.assert_allclose(a.pop("log_proba"), b.pop("log_proba"), rtol=1e-6, atol=1e-6)
        assert a == b


@pytest.mark.parametrize(
    ("name", "saves", "written"),
    [("edst", 4, True), ("edst", 7, False), ("groups", 12, False), ("children", 8, True)],
)
def test_a_stopped_run_has_the_same_files(tmp_path, undisturbed, monkeypatch, name, saves, written):
    """Stopped as a checkpoint has been written, or just before: then probes are there that the run makes again."""
    real, count = Checkpoints.save, iter(range(saves - 1, -1, -1))

    def save(self, *args):
        left = next(count)
        if written or left:
            real(self, *args)
        if left == 0:
            raise Stopped

    monkeypatch.setattr(Checkpoints, "save", save)
    with pytest.raises(Stopped):
        fit(PLANS[name], out=tmp_path, probe=PROBE, checkpoint_every=0)
    wanted = files(undisturbed[name][0])
    before = files(tmp_path)
    assert 0 < len(before) < len(wanted)
    monkeypatch.undo()
    fit(PLANS[name], out=tmp_path, probe=PROBE)
    assert files(tmp_path) == wanted
    assert (tmp_path / "tickets.safetensors").read_bytes() == (
        undisturbed[name][0] / "tickets.safetensors"
    ).read_bytes()


def test_a_file_half_written_is_no_record(tmp_path, undisturbed, monkeypatch):
    def torn(file, **arrays):
        file.write(b"PK\x03\x04")
        raise Stopped

    monkeypatch.setattr(np, "savez", torn)
    with pytest.raises(Stopped):
        fit(PLANS["groups"], out=tmp_path, probe=PROBE)
    assert read_probes(tmp_path) == []
    monkeypatch.undo()
    fit(PLANS["groups"], out=tmp_path, probe=PROBE)
    assert files(tmp_path) == files(undisturbed["groups"][0])


def test_a_run_with_other_probes_is_another_run(undisturbed):
    folder, _ = undisturbed["groups"]
    for how, says in (
        ({"probe": PROBE + 1}, "probe.inputs was"),
        ({"probe": PROBE, "probe_every": 2}, "probe.every was 1"),
        ({}, "probe was"),
    ):
        with pytest.raises(RunError, match=says):
            fit(PLANS["groups"], out=folder, **how)
    assert len(fit(PLANS["groups"], out=folder, probe=PROBE)) == 2


class Images:
    name, num_classes = "pictures", CLASSES

    def __len__(self):
        return 4

    def fingerprint(self):
        return ""

    def batches(self, seed, epoch, batch_size):
        yield PROBE, np.zeros(5)


@pytest.mark.parametrize(
    ("how", "error", "says"),
    [
        (
            {"probe": PROBE[:, :3]},
            DataError,
            r"probe is float32\[3\] per example; perceptron takes float32\[8\]",
        ),
        ({"probe": PROBE.astype(np.int32)}, DataError, r"probe is int32\[8\]"),
        ({"probe": PROBE[:0]}, DataError, "probe holds no examples"),
        ({"probe": np.full_like(PROBE, np.nan)}, DataError, "probe holds NaN"),
        ({"probe": Images()}, DataError, "got a stream"),
        ({"probe": PROBE, "out": None}, ValueError, "give out, or leave probe out"),
        (
            {"probe": PROBE, "probe_every": 0},
            ValueError,
            "a whole number of epochs, at least 1; got 0",
        ),
        ({"probe_every": 0.5}, ValueError, "got 0.5"),
    ],
)
def test_probes_that_cannot_be_are_told_before_anything_is_written(tmp_path, how, error, says):
    for _ in range(2):  # making a key for the first time is a program of its own
        before = len(COMPILED)
        with pytest.raises(error, match=says):
            fit(dst(1), **({"out": tmp_path / "run"} | how))
        assert not (tmp_path / "run").exists()
    assert len(COMPILED) == before


def archive_of(arrays, old, new):
    """A sound archive, in which an array says another shape than its bytes have."""
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w") as archive:
        for name, array in arrays.items():
            np.save(one := io.BytesIO(), array)
            archive.writestr(f"{name}.npy", one.getvalue().replace(old, new))
    return whole.getvalue()


def test_damaged_files_are_told(tmp_path):
    fit(dst(1, epochs=1), out=tmp_path, probe=PROBE)
    file = next((tmp_path / "probe").iterdir())
    whole = file.read_bytes()
    with np.load(file) as arrays:
        kept = dict(arrays)
    for damage in (
        b"",
        whole[:-30],
        whole.replace(b"(5, 3)", b"(9, 3)"),
        archive_of(kept, b"(5, 3)", b"(9, 3)"),
    ):
        file.write_bytes(damage)
        with pytest.raises(RunError, match=f"{file.name} is no record of a probe"):
            read_probes(tmp_path)
    for other in (
        {"log_proba": kept["log_proba"].astype(np.float64)},
        {"log_proba": np.array([None])},
        {"step": np.zeros(2, np.int64)},
        {"child": np.array("ab")},
        {"lineage": np.array(1j)},
        {"epoch": np.array(b"1")},
    ):
        np.savez(file, **(kept | other))
        with pytest.raises(RunError, match="is no record of a probe"):
            read_probes(tmp_path)
    np.savez_compressed(file, **kept)
    with pytest.raises(RunError, match="is no record of a probe"):
        read_probes(tmp_path)
    np.savez(file, **{name: kept[name] for name in ("lineage", "log_proba")})
    with pytest.raises(RunError, match="is no record of a probe"):
        read_probes(tmp_path)
    encrypted = bytearray(whole)
    encrypted[whole.index(b"PK\1\2") + 8] |= 1
    file.write_bytes(encrypted)
    with pytest.raises(
        RunError, match=r"is no record of a probe, .* is encrypted\); move it out of the folder"
    ):
        read_probes(tmp_path)


def test_heads_are_averaged(tmp_path):
    def two(params, state, x, train, key):
        outputs, state = task().apply(params, state, x, train, key)
        return np.float32(1) * jax.numpy.stack([outputs, -outputs]), state

    headed = dataclasses.replace(
        task(), apply=two, loss=lambda outputs, y: task().loss(outputs[0], y), heads=2
    )
    tickets = fit(dst(1, epochs=1), of=headed, train=data(), out=tmp_path, probe=PROBE)
    np.testing.assert_array_equal(
        read_probes(tmp_path)[-1]["log_proba"], tickets.ticket_log_proba(PROBE)[0]
    )
