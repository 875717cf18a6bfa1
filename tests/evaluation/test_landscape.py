"""The line between two tickets: its ends are the tickets, its middle is what numpy makes of it."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax

import jaxtickets as jt
from jaxtickets.dataset import Dataset
from jaxtickets.evaluation import EvaluationError, evaluate, line, plane

IN, CLASSES = 6, 3


def apply(params, state, x, train, key):
    """A linear network whose inputs are centred by a running mean, which training sets to the batch's."""
    mean = jnp.mean(x, 0) if train else state["mean"]
    return (x - mean) @ params["w"], {"mean": mean, "count": state["count"]}


def double(x):
    return 2 * x


TASK = jt.classification((lambda key, x: ({}, {}), apply), num_classes=CLASSES, name="centred")


def ticket(seed):
    rng = np.random.default_rng(seed)
    mask = rng.random((IN, CLASSES)) < 0.5
    state = {"mean": rng.normal(size=IN).astype(np.float32), "count": np.int32(seed)}
    return jt.Ticket(
        {"w": np.where(mask, 2 * rng.normal(size=(IN, CLASSES)), 0).astype(np.float32)},
        {"w": mask},
        state,
        {},
    )


TICKETS = jt.TicketEnsemble(
    TASK, tuple(ticket(seed) for seed in range(3)), jax.ShapeDtypeStruct((IN,), jnp.float32)
)


def data(examples=50, seed=9):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(examples, IN)).astype(np.float32)
    return Dataset(x, x[:, :CLASSES].argmax(-1).astype(np.int32), CLASSES, prepare=double)


def by_numpy(weights, mean, test):
    log_p = log_softmax((2.0 * test.x - mean) @ weights, axis=-1)
    return -log_p[np.arange(len(test)), test.y].mean(), (log_p.argmax(-1) == test.y).mean()


def test_the_ends_are_the_tickets_and_the_points_between_are_mixed():
    test, (a, b) = data(), (TICKETS.tickets[2], TICKETS.tickets[0])
    result = line(TICKETS, 2, 0, test, points=5, batch_size=16)
    alone = evaluate(TICKETS, test, batch_size=16)  # of the same program, to the bit
    for end, member in ((0, 2), (-1, 0)):
        assert (result["loss"][end], result["accuracy"][end]) == (
            alone.members[member].nll,
            alone.members[member].accuracy,
        )
    assert result["t"] == [0, 0.25, 0.5, 0.75, 1]
    for point, t in enumerate(result["t"]):
        mixed = [
            (1 - t) * x + t * y
            for x, y in (
                (a.params["w"], b.params["w"]),
                (a.model_state["mean"], b.model_state["mean"]),
            )
        ]
        loss, right = by_numpy(*mixed, test)
        assert result["loss"][point] == pytest.approx(loss, rel=1e-5)  # float32 logits
        assert result["accuracy"][point] == pytest.approx(right, abs=1e-12)
    union = (a.mask["w"] | b.mask["w"]).mean()
    assert result["density"] == [a.mask["w"].mean(), union, union, union, b.mask["w"].mean()]
    assert json.loads(json.dumps(result, allow_nan=False)) == result


def test_barriers_by_hand():
    result = line(TICKETS, 0, 1, data(), points=7)
    t, loss, error = (
        np.array(result["t"]),
        np.array(result["loss"]),
        1 - np.array(result["accuracy"]),
    )
    for name, values in (("barrier", loss), ("error_barrier", error)):
        above = [v - ((1 - s) * values[0] + s * values[-1]) for s, v in zip(t, values)]
        assert result[name] == pytest.approx(max(0, *above), abs=1e-12)
    assert result["instability"] == pytest.approx(
        error.max() - (error[0] + error[-1]) / 2, abs=1e-12
    )
    # The loss is convex along a line of linear networks, so nothing stands in the way; here the error does, a little.
    assert result["barrier"] == 0
    flat = line(TICKETS, 1, 1, data(), points=3)
    assert (flat["barrier"], flat["error_barrier"], flat["instability"]) == (0, 0, 0)


def test_a_barrier_is_found():
    """Two networks that differ by the order of their hidden units predict the same, and their mean, without any, does not."""

    def two_layers(params, state, x, train, key):
        return jnp.tanh(x @ params["w1"]) @ params["w2"], state

    task = jt.classification(
        (lambda key, x: ({}, {}), two_layers), num_classes=2, name="two layers"
    )
    w1, w2 = np.array([[2.0, -2.0]], np.float32), np.array([[3.0, -3.0], [-3.0, 3.0]], np.float32)
    dense = {"w1": np.ones((), bool), "w2": np.ones((), bool)}
    both = jt.TicketEnsemble(
        task,
        tuple(
            jt.Ticket({"w1": a, "w2": b}, dense, {}, {})
            for a, b in ((w1, w2), (w1[:, ::-1], w2[::-1]))
        ),
        jax.ShapeDtypeStruct((1,), jnp.float32),
    )
    result = line(both, 0, 1, (np.array([[1.0], [-1.0]], np.float32), np.array([0, 1])), points=3)
    assert result["accuracy"] == [1, 0.5, 1]
    assert result["loss"][1] == pytest.approx(np.log(2), rel=1e-6)
    assert result["barrier"] == pytest.approx(np.log(2) - result["loss"][0], rel=1e-6)
    assert (result["error_barrier"], result["instability"], result["density"]) == (
        0.5,
        0.5,
        [1, 1, 1],
    )


def test_statistics_are_estimated_anew_at_every_point():
    test, train = data(), data(seed=4)
    result = line(TICKETS, 0, 1, test, points=3, recalibrate=train)
    again = evaluate(TICKETS.recalibrate(train), test)
    assert [result["loss"][0], result["loss"][2]] == [again.members[0].nll, again.members[1].nll]
    middle = (TICKETS.tickets[0].params["w"] + TICKETS.tickets[1].params["w"]) / 2
    assert result["loss"][1] == pytest.approx(
        by_numpy(middle, 2 * train.x.mean(0), test)[0], rel=1e-5
    )
    assert result["loss"][1] != pytest.approx(
        line(TICKETS, 0, 1, test, points=3)["loss"][1], rel=1e-2
    )


def test_a_leaf_that_is_dense_in_one_ticket_is_whole_between():
    dense = TICKETS.tickets[1]._replace(mask={"w": np.ones((), bool)})
    result = line(
        dataclasses.replace(TICKETS, tickets=(TICKETS.tickets[0], dense)), 0, 1, data(), points=3
    )
    assert result["density"] == [TICKETS.tickets[0].mask["w"].mean(), 1, 1]


@pytest.mark.parametrize(
    ("arguments", "how", "says"),
    [
        ((0, 3, data()), {}, "j: got 3, wanted a ticket's number, 0 to 2"),
        ((True, 1, data()), {}, "i: got True"),
        ((0, 1, data()), {"points": 1}, "points: got 1"),
        ((0, 1, data().x), {}, "got ndarray, wanted a Dataset"),
        ((0, 1, (data().x, data().y + 1)), {}, "got labels from 1 to 3"),
    ],
)
def test_what_has_no_line_is_told(arguments, how, says):
    with pytest.raises(EvaluationError, match=says):
        line(TICKETS, *arguments, **how)


def test_networks_that_no_line_joins_are_told():
    first = TICKETS.tickets[0]
    for other, says in (
        (
            first._replace(params={"w": first.params["w"][:, :2]}),
            r"params/w has the shape \[6, 3\] in 0 and \[6, 2\] in 1",
        ),
        (first._replace(params={"v": first.params["w"]}), "0 and 1 are of different networks"),
    ):
        with pytest.raises(EvaluationError, match=says):
            line(dataclasses.replace(TICKETS, tickets=(first, other)), 0, 1, data())
    with pytest.raises(EvaluationError, match="is a regression"):
        line(
            dataclasses.replace(TICKETS, task=dataclasses.replace(TASK, num_classes=None)),
            0,
            1,
            data(),
        )


def test_a_plane_goes_through_its_three_tickets():
    """Everywhere the network is its affine combination of the three, by numpy; statistics as long as that is a mixture."""
    test = data()
    found = plane(TICKETS, 2, 0, 1, test, points=4, margin=0.0)
    w = {n: np.asarray(TICKETS.tickets[n].params["w"], np.float64) for n in range(3)}
    mean = {n: np.asarray(TICKETS.tickets[n].model_state["mean"]) for n in range(3)}
    u, v = w[0] - w[2], w[1] - w[2]
    first = u / np.linalg.norm(u)
    second = v - np.vdot(v, first) * first
    second /= np.linalg.norm(second)
    for corner, number in zip(found["corners"], (2, 0, 1), strict=True):
        assert corner["ticket"] == number
        np.testing.assert_allclose(
            w[2] + corner["x"] * first + corner["y"] * second, w[number], atol=1e-6
        )
        assert (corner["loss"], corner["accuracy"]) == pytest.approx(
            by_numpy(w[number], mean[number], test), rel=1e-5
        )
    assert found["x"][0] == min(corner["x"] for corner in found["corners"])
    assert found["y"][-1] == pytest.approx(found["corners"][2]["y"])
    for row, y in enumerate(found["y"]):
        for column, x in enumerate(found["x"]):
            weights = w[2] + x * first + y * second
            shares, *_ = np.linalg.lstsq(
                np.stack([u.ravel(), v.ravel()], 1), (weights - w[2]).ravel(), rcond=None
            )
            within = np.maximum([1 - shares.sum(), *shares], 0)
            within /= within.sum()
            centre = within[0] * mean[2] + within[1] * mean[0] + within[2] * mean[1]
            loss, right = by_numpy(weights, centre, test)
            assert found["loss"][row][column] == pytest.approx(loss, rel=1e-4)
            assert found["accuracy"][row][column] == pytest.approx(right)
    json.dumps(found)


@pytest.mark.parametrize(
    ("numbers", "how", "says"),
    [
        ((0, 1, 1), {}, "wanted three tickets"),
        ((0, 1, 3), {}, "k: got 3, wanted a ticket's number"),
        ((0, 1, 2), {"points": 1}, "points: got 1"),
        ((0, 1, 2), {"margin": -0.1}, "margin: got -0.1"),
    ],
)
def test_what_has_no_plane_is_told(numbers, how, says):
    with pytest.raises(EvaluationError, match=says):
        plane(TICKETS, *numbers, data(), **how)


def test_three_on_one_line_have_no_plane():
    first, second, _ = TICKETS.tickets
    middle = first._replace(params={"w": (first.params["w"] + second.params["w"]) / 2})
    three = dataclasses.replace(TICKETS, tickets=(first, second, middle))
    with pytest.raises(EvaluationError, match="lie on one line"):
        plane(three, 0, 1, 2, data())
