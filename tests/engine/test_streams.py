"""Data that streams from the host: the protocol, the same batches on every resume, and what a bad stream is told."""

import dataclasses

import jax
import numpy as np
import pytest
from test_resume import Stopped, assert_equal_runs, stop_after  # noqa: F401 (a fixture)
from tiny_task import CLASSES, data, dst, edst, fit, same

import jaxtickets as jt
from jaxtickets.dataset import Stream
from jaxtickets.engine.host_rows import make_feed
from jaxtickets.members import Layout


@dataclasses.dataclass
class Points:
    """The points of the other tests, each epoch in an order of its own."""

    short: int = 0
    shift: int = 0
    last: bool = False
    stop_at: int = -1
    name: str = "streamed"
    num_classes: int | None = CLASSES
    read: list = dataclasses.field(default_factory=list)

    def __len__(self):
        return 96

    def fingerprint(self):
        return "points-1"

    def batches(self, seed, epoch, batch_size):
        order = np.random.default_rng((seed, epoch)).permutation(96)
        for i in range(96 // batch_size - self.short):
            rows = order[i * batch_size : (i + 1) * batch_size - self.last]
            self.read.append((seed, epoch, i))
            if len(self.read) == self.stop_at:
                raise Stopped
            yield data().x[rows].astype(np.float64), (data().y[rows] + self.shift).astype(np.int64)


def test_the_class_follows_the_protocol():
    assert isinstance(Points(), Stream)
    assert not isinstance(data(), Stream)


@pytest.mark.parametrize("layout", [Layout(1, "unroll"), Layout(2, "vmap", steps_per_call=4)])
def test_members_read_their_own_batches_as_the_stream_gives_them(layout):
    stream, keys = Points(), jax.random.split(jax.random.key(1), 2)
    feed = make_feed(stream, 16, layout).for_members(keys, layout)
    x, y = (np.asarray(part) for part in feed.batch(0, 0))
    seeds = list(dict.fromkeys(seed for seed, _, _ in stream.read))
    assert len(seeds) == 2  # another order for every member
    for position in range(1, 6):
        x, y = (np.asarray(part) for part in feed.batch(0, position))
    for i, seed in enumerate(seeds):
        *_, (last_x, last_y) = Points().batches(seed, 0, 16)
        np.testing.assert_array_equal(x[i], last_x.astype(np.float32))
        np.testing.assert_array_equal(y[i], last_y)
    again = (
        make_feed(Points(), 16, layout).for_members(keys, layout).batch(0, 5)
    )  # as after a resume: forward to the place
    np.testing.assert_array_equal(np.asarray(again[0]), x)
    back = feed.batch(0, 2)  # as after an escape: back to the place
    np.testing.assert_array_equal(
        np.asarray(back[1]),
        np.asarray(make_feed(Points(), 16, layout).for_members(keys, layout).batch(0, 2)[1]),
    )


def test_a_stream_trains_and_lone_runs_equal_members():
    tickets = fit(edst(2, explore=3), Points())
    assert np.mean(tickets.predict(data().x) == data().y) > 0.6
    pair = fit(dst(2), Points(), key=3)
    assert same(pair.tickets[0], fit(dst(1), Points(), key=3).tickets[0])
    assert not same(pair.tickets[0], pair.tickets[1])


def test_a_stopped_stream_goes_on_to_the_same_bits(tmp_path, stop_after, monkeypatch):  # noqa: F811
    plan = edst(2)
    fit(plan, Points(), out=tmp_path / "whole")
    with pytest.raises(Stopped):
        fit(
            plan, Points(stop_at=10), out=tmp_path / "cut", checkpoint_every=0
        )  # a loader that fails in the second epoch
    stop_after(4)
    with pytest.raises(Stopped):
        fit(plan, Points(), out=tmp_path / "cut", checkpoint_every=0)
    monkeypatch.undo()
    fit(plan, Points(), out=tmp_path / "cut")
    assert_equal_runs(tmp_path / "cut", tmp_path / "whole")


@pytest.mark.parametrize(
    ("stream", "message"),
    [
        (
            Points(short=1),
            "batch 6 of epoch 1 of streamed is missing: a stream of 96 examples yields 6 batches of 16",
        ),
        (Points(shift=1), r"has labels 1 to 3; those of 3 classes are 0 to 2"),
        (Points(last=True), r"holds \[15\] examples, not batch_size=16"),
    ],
)
def test_a_stream_that_breaks_its_promise_is_named(stream, message):
    with pytest.raises(jt.DataError, match=message):
        fit(dst(1), stream)


class Words(Points):
    """Points that come as numbers of words, one of which no table of 7 rows has."""

    def batches(self, seed, epoch, batch_size):
        for i, (x, y) in enumerate(super().batches(seed, epoch, batch_size)):
            ids = np.zeros(x.shape, np.int32)
            ids[min(3, len(ids) - 1), 1] = 7 * (i == 4)
            yield ids, y


def test_numbers_of_rows_that_no_table_has_are_named_in_a_streams_batches():
    def init(key, x):
        return {"table": jax.random.normal(key, (7, CLASSES))}, {}

    def apply(params, model_state, x, train, key):
        return params["table"][x].mean(1), model_state

    task = jt.classification((init, apply), num_classes=CLASSES, prunable=((".*", True),))
    with pytest.raises(
        jt.DataError,
        match=r"batch 5 of epoch 1 of streamed, row 3, column 1, is 7; .* 7 rows: 0 to 6 are allowed",
    ):
        jt.fit(dst(1), task, Words(), key=0, progress=False)
