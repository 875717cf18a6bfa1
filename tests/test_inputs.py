"""Inputs of other libraries, in training, prediction and evaluation: each works as NumPy's does, or says what to type instead."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxtickets as jt

X = np.random.default_rng(0).normal(size=(12, 4)).astype(np.float32)
Y = np.arange(12) % 3


def apply(params, state, x, train, key):
    return jnp.log(x @ params["w"]) if train is None else x @ params["w"], state


TASK = jt.Task(
    lambda key, x: ({"w": jnp.ones((4, 3))}, {}),
    apply,
    lambda outputs, y: -jnp.take_along_axis(jax.nn.log_softmax(outputs), y[:, None], 1)[:, 0],
    jax.nn.log_softmax,
    num_classes=3,
    name="line",
)


def ensemble(*weights):
    tickets = tuple(jt.Ticket({"w": w}, {"w": np.ones((), bool)}, {}, {}) for w in weights)
    return jt.TicketEnsemble(TASK, tickets, jax.ShapeDtypeStruct((4,), jnp.float32))


ENSEMBLE = ensemble(np.eye(4, 3, dtype=np.float32), np.ones((4, 3), np.float32))


def torch_gradients():
    torch = pytest.importorskip("torch")
    return torch.tensor(X, requires_grad=True), torch.tensor(Y)


def pandas_nullable():
    pandas = pytest.importorskip("pandas")
    return pandas.DataFrame(X).astype("Float32"), pandas.Series(Y).astype("Int64")


GOOD = {
    "torch": torch_gradients,
    "pandas": pandas_nullable,
    "doubles and lists": lambda: (X.astype(float), Y.tolist()),
    "big-endian": lambda: (X.astype(">f4"), Y.astype(">i8")),
    "jax": lambda: (jnp.asarray(X), jnp.asarray(Y)),
    "objects": lambda: (X.astype(object), Y.astype(object)),
    "masked, nothing hidden": lambda: (np.ma.array(X), np.ma.array(Y)),
}


@pytest.mark.parametrize("kind", GOOD)
def test_arrays_of_other_libraries_are_what_numpys_are(kind):
    x, y = GOOD[kind]()
    data = jt.data.from_arrays(x, y)
    np.testing.assert_array_equal(np.asarray(data.x), X)
    np.testing.assert_array_equal(data.y, Y)
    np.testing.assert_array_equal(ENSEMBLE.predict_proba(x), ENSEMBLE.predict_proba(X))
    assert jt.evaluate(ENSEMBLE, (x, y)).to_dict() == jt.evaluate(ENSEMBLE, (X, Y)).to_dict()


BAD = {
    "masked": (lambda: np.ma.array(X, mask=X > 1), "masked array that hides"),
    "complex": (lambda: X.astype(complex), "complex"),
    "dates": (lambda: X.astype("datetime64[s]"), "dates"),
    "text": (lambda: X.astype(str), "text"),
    "missing": (lambda: np.where(X > 1, None, X.astype(object)), "missing values"),
    "too large": (lambda: np.full((12, 4), 2**40), "outside of 32 bits"),
    "none": (lambda: None, "x holds no"),
    "list": (lambda: X.tolist(), r"numpy.array\(x\)"),
}


@pytest.mark.parametrize("kind", BAD)
def test_what_is_no_input_is_refused_in_training_and_in_prediction(kind):
    make, message = BAD[kind]
    for call in (
        lambda: jt.data.from_arrays(make(), Y),
        lambda: ENSEMBLE.predict(make()),
        lambda: jt.evaluate(ENSEMBLE, (make(), Y)),
    ):
        with pytest.raises(jt.DataError, match=message):
            call()
    with pytest.raises(jt.evaluation.EvaluationError, match="masked array that hides"):
        jt.evaluate(ENSEMBLE, (X, np.ma.array(Y, mask=Y == 1)))


def test_predictions_that_are_nan_are_refused_with_row_and_member():
    broken = ensemble(np.eye(4, 3, dtype=np.float32), np.full((4, 3), np.nan, np.float32))
    for call in (broken.predict, broken.predict_proba, lambda x: jt.evaluate(broken, (x, Y))):
        with pytest.raises(
            jt.TicketError,
            match=r"NaN of member 1 of 12 of 12 examples \(rows 0, 1, 2, 3, 4, ...\).*not finite",
        ):
            call(X)
    large = np.full((4, 3), 1e38, np.float32)
    with pytest.raises(
        jt.TicketError, match=r"member 0 of 1 of 12 examples \(rows 7\). Its weights are finite"
    ):
        ensemble(large).predict(np.where(np.arange(12)[:, None] == 7, 1e3, 0.0 * X))


def test_a_pair_has_the_classes_of_the_task():
    from jaxtickets.dataset.arrays import as_dataset

    assert (
        as_dataset((X, Y % 2), TASK.num_classes).num_classes == 3
    )  # the last class does not occur
    with pytest.raises(jt.DataError, match="labels of num_classes=3 are 0 to 2"):
        as_dataset((X, Y + 1), TASK.num_classes)
