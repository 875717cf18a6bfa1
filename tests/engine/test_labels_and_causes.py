"""Labels that a loss would broadcast, and what is told where a loss is not finite because the inputs are not."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

import jaxtickets as jt
from jaxtickets.engine.finite import wrong_inputs
from jaxtickets.engine.traces import trace

X = np.random.default_rng(0).normal(size=(32, 6)).astype(np.float32)
Y = (X[:, 0] > 0).astype(np.int32)
PLAN = jt.dense(1, epochs=1, batch_size=8)


def fit(task, data, plan=PLAN):
    return jt.fit(plan, task, data, key=0, progress=False)


@pytest.mark.parametrize(
    ("y", "words"),
    [
        (
            Y[:, None],
            r"mine: y has the shape \[32, 1\], and one label or target for each example is \[N\]\. Give y\[:, 0\]",
        ),
        (Y[None], r"\[1, 32\].*Give y\[0\]"),
        (np.eye(2, dtype=np.int32)[Y], r"\[32, 2\].*Of one-hot rows give y\.argmax\(-1\)"),
        (Y[:, None, None], r"\[32, 1, 1\].*Give y\.reshape\(32\)"),
        (np.float32(1), r"\[\].*Give one for each example"),
        (jnp.asarray(Y)[:, None], r"\[32, 1\]"),
        (Y[:, None].tolist(), r"\[32, 1\]"),
    ],
)
@pytest.mark.parametrize("classes", [2, None])
def test_labels_of_another_shape(y, words, classes):
    with pytest.raises(jt.DataError, match=words):
        jt.Dataset(X, y, classes, name="mine")
    with pytest.raises(jt.DataError):
        jt.fit(PLAN, jt.classification(nn.Dense(2), num_classes=2), (X, y), key=0, progress=False)


@pytest.mark.parametrize(
    ("x", "y", "words"),
    [
        (X, np.full(32, "a"), r"y is of <U1: text; give numbers"),
        (X, np.ma.masked_array(Y, Y > 0), "y is a masked array"),
        (np.ma.masked_array(X, X > 1), Y, "x is a masked array"),
        ({"a": X, "b": np.float32(1)}, Y, r"x\['b'\] is a single number"),
        (X, Y.astype(np.float32), "y holds float32"),
    ],
)
def test_labels_and_inputs_of_another_kind(x, y, words):
    with pytest.raises(jt.DataError, match=words):
        fit(jt.classification(nn.Dense(2), num_classes=2), jt.Dataset(x, y, 2))


class Stream:
    name, num_classes = "s", 2

    def __len__(self):
        return 32

    def fingerprint(self):
        return ""

    def batches(self, seed, epoch, batch_size):
        for i in range(32 // batch_size):
            rows = slice(i * batch_size, (i + 1) * batch_size)
            yield self.x()[rows], self.y()[rows]

    def x(self):
        return X

    def y(self):
        return Y[:, None]


def test_labels_of_a_stream():
    with pytest.raises(jt.DataError, match=r"s, its first batch: y has the shape \[1, 1\]"):
        fit(jt.classification(nn.Dense(2), num_classes=2), Stream())


@pytest.mark.parametrize(
    "loss",
    [
        lambda z, y: jnp.mean((z - y) ** 2, -1),
        lambda z, y: ((z - y[None]) ** 2).sum(1),
        lambda z, y: jnp.abs(y - z).max(-1),
    ],
)
def test_outputs_with_an_axis_more_than_targets_are_no_pairs(loss):
    task = dataclasses.replace(jt.regression(nn.Dense(1)), loss=loss)
    with pytest.raises(
        jt.DataError,
        match=r"sets the outputs of an example, \[2, 1\] for 2 examples, against the labels of all the others",
    ):
        fit(task, jt.Dataset(X, X[:, 0], None))


def by_rows(z, y):
    return -jax.nn.log_softmax(z)[jnp.arange(len(y)), y]


def by_columns(z, y):
    return -jnp.take_along_axis(jax.nn.log_softmax(z), y[:, None], 1)[:, 0]


@pytest.mark.parametrize(
    "loss", [by_rows, by_columns, lambda z, y: -jax.nn.log_softmax(z).mean(-1)]
)
def test_losses_of_pairs_are_taken(loss):
    trace(
        dataclasses.replace(jt.classification(nn.Dense(2), num_classes=2), loss=loss),
        jt.Dataset(X, Y, 2),
        X[:2],
    )


def task_of(x):
    return jt.classification(nn.Dense(2), num_classes=2)


def test_an_example_that_prepare_makes_nan_is_named():
    """The first two are whole, so that only training meets it."""
    x = np.abs(X)
    x[17, 3] = 0
    data = jt.Dataset(x, Y, 2, name="logs", prepare=lambda x: jnp.log(x) * 0.1)
    with pytest.raises(
        jt.NonFiniteLoss,
        match=r"logs: x of example 17 \(1 of 32 examples\) is NaN or infinite after prepare: mend",
    ) as told:
        fit(task_of(x), data)
    assert "learning rate" not in str(told.value)
    data = dataclasses.replace(data, x=x[17:], y=Y[17:], prepare=lambda x: jnp.log(x))
    with pytest.raises(
        jt.DataError, match="logs: x of the first example is NaN or infinite after prepare"
    ):
        fit(task_of(x), data)


def test_huge_inputs_and_targets_are_named():
    big = jt.Dataset(X * np.float32(1e30), X[:, 0], None, name="big")
    with pytest.raises(
        jt.NonFiniteLoss,
        match=r"at step 1, .*big: x reaches \S+e\+30 after prepare, .*standardise it",
    ):
        fit(jt.regression(nn.Dense(1)), big)
    far = jt.Dataset(X, X[:, 0] * np.float32(1e30), None, name="far")
    with pytest.raises(
        jt.NonFiniteLoss,
        match=r"far: the targets reach \S+e\+30, and the loss their squares: scale them",
    ):
        fit(jt.regression(nn.Dense(1)), far)
    assert wrong_inputs(jt.Dataset(X, Y, 2)) == ""


def test_the_first_step_is_not_the_learning_rates_fault():
    task = dataclasses.replace(
        jt.regression(nn.Dense(1)), loss=lambda z, y: jnp.log(z[:, 0] * 0 - 1) + y
    )
    with pytest.raises(
        jt.NonFiniteLoss,
        match=r"at step 1, .*Before the first step no weight has changed, so it is not the learning rate",
    ):
        fit(task, jt.Dataset(X, X[:, 0], None))
    plan = jt.dense(1, epochs=2, batch_size=8, lr=jt.schedules.Constant(1e30))
    with pytest.raises(
        jt.NonFiniteLoss,
        match=r"at step [2-9], .*A lower learning rate or a warm-up is the usual cure",
    ):
        fit(jt.regression(nn.Dense(1)), jt.Dataset(X, X[:, 0], None), plan)


def test_nan_in_a_test_set_is_not_said_to_be_divergence():
    log_proba = np.full((1, 4, 2), np.nan)
    with pytest.raises(
        jt.evaluation.EvaluationError,
        match=r"Usual causes: NaN, huge or out-of-range inputs \(look at those first",
    ):
        jt.evaluation.evaluate_predictions(log_proba, [0, 1, 0, 1])
