"""collect="best": chosen on examples that were held out of training, as they are."""

import dataclasses

import jax
import numpy as np
import pytest
from tiny_task import CLASSES, IN, data, dst, edst, fit, same, task

import jaxtickets as jt
from jaxtickets.dataset import Dataset
from jaxtickets.engine import read_metrics
from jaxtickets.engine.feed import hold_out
from jaxtickets.members import Layout
from jaxtickets.plan import Collect, Plan, Start, Train
from jaxtickets.schedules import Constant


def test_the_split_is_evenly_spaced_disjoint_and_never_augmented():
    train, held = hold_out(data(), 24)
    assert held is not None
    np.testing.assert_array_equal(held.x, data().x[::4])
    assert held.augment is None
    assert train.augment is data().augment
    rows = {row.tobytes() for row in train.x}
    assert len(rows) == 72
    assert not rows & {row.tobytes() for row in held.x}


def shout(key, x):
    """An augmentation after which nothing is as it was."""
    return x * 0 + 1e3


def test_held_out_examples_are_not_trained_on_and_trained_ones_do_not_judge():
    """Labels of the held-out rows are all 2 and of the others 0 and 1: what is trained on those never says 2."""
    x = data(augment=False).x
    y = (np.arange(len(x)) % 2).astype(np.int32)
    y[::4] = 2
    plan = dst(1, epochs=3, validation=24, collect="best")
    ticket = fit(plan, Dataset(x, y, CLASSES)).tickets[0]
    assert ticket.info["validation_accuracy"] <= 1 / 24  # the class that training never saw
    y[::4], y[1::2] = 0, 1
    clean = fit(plan, dataclasses.replace(data(augment=False), y=y)).tickets[0]
    loud = fit(plan, Dataset(x, y, CLASSES, augment=shout)).tickets[0]
    assert not same(clean, loud)  # the training rows are augmented


@pytest.mark.parametrize("layout", [Layout(1, "unroll"), Layout(2, "vmap")])
def test_best_equals_a_run_that_stops_there(tmp_path, layout):
    """The best ticket of a phase of five epochs is the last ticket of a run of as many epochs as the best one was."""
    rate, held = Constant(0.3), hold_out(data(), 24)[1]
    assert held is not None
    plan = dst(2, epochs=5, lr=rate, validation=24, collect="best", batch_size=8)
    best = fit(plan, out=tmp_path, layout=layout)
    history = np.zeros((2, 5))
    for record in read_metrics(tmp_path):
        history[record["lineages"], round(record["epoch"]) - 1] = record["validation_accuracy"]
    for i, ticket in enumerate(best):
        epochs = 1 + int(history[i].argmax())
        assert ticket.info["step"] == epochs * 9
        # A shorter phase has the same steps, for the learning rate and the drop fraction are constant.
        short = fit(dst(2, epochs=epochs, lr=rate, validation=24, batch_size=8), layout=layout)
        assert same(ticket, short.tickets[i])
        accuracy = np.mean(short[i].predict(held) == held.y)
        assert ticket.info["validation_accuracy"] == pytest.approx(accuracy)
        assert accuracy == pytest.approx(history[i].max())


def test_every_phase_has_its_own_best():
    tickets = fit(edst(3, validation=24, collect="best"))
    assert [6 * (i + 1) for i in range(4)][1:] != [
        ticket.info["step"] for ticket in tickets
    ]  # 4 steps an epoch here
    assert [ticket.info["step"] for ticket in tickets] == [8, 12, 16]


def test_fit_has_no_place_for_test_data():
    """Of `probe` predictions are kept; its labels are dropped, and training is the same to the bit without it (`test_probes.py`)."""
    import inspect

    assert list(inspect.signature(jt.fit).parameters) == [
        "plan",
        "task",
        "train",
        "key",
        "out",
        "layout",
        "start_from",
        "checkpoint_every",
        "progress",
        "probe",
        "probe_every",
    ]


def test_the_last_is_collected_where_best_is_not_asked_for():
    a = Plan("a", (Start(1, 0.5), Train(jt.Length(2)), Collect()), 16, validation=24)
    assert "validation_accuracy" not in fit(a).tickets[0].info
    assert fit(a).tickets[0].info["step"] == 8
    assert jax.tree.structure(
        task().init(jax.random.key(0), np.zeros((1, IN)))[0]
    ) == jax.tree.structure(fit(a).tickets[0].params)
