"""TicketEnsemble: the mean of its members' probabilities, whatever the batches; and what it will not predict."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import nnx

import jaxtickets as jt
from jaxtickets.dataset import Dataset
from jaxtickets.tickets.ensemble import Ticket, TicketEnsemble

RNG = np.random.default_rng(0)
X = (RNG.normal(size=(23, 4)) * 2 + 1).astype(np.float32)
PIXELS = RNG.integers(0, 256, (23, 4), dtype=np.uint8)


class Normed(nn.Module):
    num_classes: int = 3

    @nn.compact
    def __call__(self, x, train):
        x = nn.Dense(5)(x)
        x = nn.BatchNorm(use_running_average=not train, momentum=0.9)(x)
        return nn.Dense(self.num_classes)(nn.relu(x))


class Plain(nnx.Module):
    def __init__(self, rngs):
        self.hidden = nnx.Linear(4, 5, rngs=rngs)
        self.norm = nnx.BatchNorm(5, rngs=rngs)
        self.drop = nnx.Dropout(0.5, rngs=rngs)
        self.out = nnx.Linear(5, 3, rngs=rngs)

    def __call__(self, x):
        return self.out(self.drop(nnx.relu(self.norm(self.hidden(x)))))


def bare_init(key, x):
    return {"w": jax.random.normal(key, (x.shape[-1], 3))}, {}


def bare_apply(params, state, x, train, key):
    return x @ params["w"], state


TASKS = {
    "linen": jt.classification(Normed()),
    "nnx": jt.classification(Plain, num_classes=3),
    "bare": jt.classification((bare_init, bare_apply), num_classes=3),
}


def make(name="linen", members=3):
    task, tickets = TASKS[name], []
    for i in range(members):
        params, state = jax.device_get(task.init(jax.random.key(i), jnp.asarray(X[:2])))
        mask = jax.tree.map(lambda p: np.ones(p.shape if p.ndim == 2 else (), bool), params)
        tickets.append(Ticket(params, mask, state, {"lineage": i}))
    return TicketEnsemble(task, tuple(tickets), jax.ShapeDtypeStruct((4,), np.float32))


def softmax(logits):
    e = np.exp(logits - logits.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


@pytest.mark.parametrize("name", TASKS)
def test_the_ensemble_predicts_the_mean_of_its_members_probabilities(name):
    ensemble = make(name)
    logits = [
        np.asarray(ensemble.task.apply(t.params, t.model_state, jnp.asarray(X), False, None)[0])
        for t in ensemble
    ]
    expected = np.mean([softmax(one) for one in logits], axis=0)
    np.testing.assert_allclose(ensemble.predict_proba(X), expected, rtol=1e-5, atol=1e-7)
    np.testing.assert_array_equal(ensemble.predict(X), expected.argmax(-1))
    assert (
        np.abs(expected - softmax(np.mean(logits, axis=0))).max() > 1e-3
    )  # which averaging logits is not
    each = ensemble.member_log_proba(X)
    assert (each.shape, each.dtype) == ((3, 23, 3), np.float32)
    np.testing.assert_allclose(np.exp(each), [softmax(one) for one in logits], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", TASKS)
def test_batches_change_nothing(name):
    ensemble = make(name, 2)
    whole = ensemble.member_log_proba(X)
    for size in (1, 5, 22, 23, 500):  # 5 and 22 leave a last batch that is not full
        np.testing.assert_allclose(ensemble.member_log_proba(X, size), whole, rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="batch_size is at least 1; got 0"):
        ensemble.predict(X, 0)


def test_probabilities_far_apart_are_averaged_without_underflow():
    ensemble = make("bare", 2)
    loud = ensemble.tickets[0]._replace(params={"w": ensemble.tickets[0].params["w"] * 1e4})
    proba = dataclasses.replace(ensemble, tickets=(loud, ensemble.tickets[1])).log_proba(X)
    assert np.isfinite(proba).all()
    np.testing.assert_allclose(np.exp(proba).sum(-1), 1, rtol=1e-5)


def test_members_are_chosen_by_number_slice_list_or_truth():
    ensemble = make()
    lineages = lambda chosen: [ticket.info["lineage"] for ticket in chosen]
    assert lineages(ensemble[1]) == [1]
    assert lineages(ensemble[-1]) == [2]
    assert lineages(ensemble[np.int64(2)]) == [2]
    assert lineages(ensemble[1:]) == [1, 2]
    assert lineages(ensemble[[2, 0]]) == [2, 0]
    assert lineages(ensemble[np.array([2, 0])]) == [2, 0]
    assert lineages(ensemble[[True, False, True]]) == [0, 2]
    assert lineages(ensemble) == [0, 1, 2]
    np.testing.assert_array_equal(
        ensemble[1].member_log_proba(X)[0], ensemble.member_log_proba(X)[1]
    )
    with pytest.raises(IndexError):
        ensemble[3]
    with pytest.raises(ValueError, match="at least one ticket"):
        ensemble[:0]
    assert len(ensemble.masks) == len(ensemble) == len(ensemble.members) == 3
    assert repr(ensemble).startswith("TicketEnsemble(3 x Normed")


def scaled(x):
    return jnp.asarray(x, jnp.float32) / 255


def loud(key, x):
    raise AssertionError("augmented")


def test_a_data_set_is_prepared_and_never_augmented():
    ensemble = make()
    data = Dataset(PIXELS, np.zeros(23, np.int32), 3, augment=loud, prepare=scaled)
    np.testing.assert_allclose(
        ensemble.predict_proba(data),
        ensemble.predict_proba(PIXELS.astype(np.float32) / 255),
        rtol=1e-5,
    )
    np.testing.assert_array_equal(ensemble.predict(data, 7), ensemble.predict(data))


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (
            PIXELS,
            r"x is uint8\[4\] per example; Normed\(3?\)? ?.*was trained on float32\[4\].*dataset.prepare\(x\)",
        ),
        (X[:, :3], r"x is float32\[3\] per example"),
        (X[0], r"x is float32\[\] per example"),
        (X[:0], "x holds no examples"),
        (np.float32(1), "x holds no examples"),
        (np.where(X > 3, np.nan, X), "NaN or infinite"),
        (np.where(X > 3, np.inf, X), "NaN or infinite"),
        ({"a": X}, r"x is float32\[4\] per example"),
        ((X, X[:5]), r"hold \[5, 23\] examples"),
    ],
)
def test_what_the_network_does_not_take_is_refused(x, message):
    with pytest.raises(jt.DataError, match=message):
        make().predict_proba(x)


def test_recalibration_equals_the_running_averages_by_hand():
    """Batch b of 4 is rows b, b + 4, ...; mean and biased variance move by 0.1 of the way, as Flax's do."""
    ensemble, data = make("linen", 2), Dataset(X, np.zeros(23, np.int32), 3)
    renewed = ensemble.recalibrate(data, batch_size=5, batches=10)
    for old, new in zip(ensemble, renewed, strict=True):
        assert all(
            a is b
            for a, b in zip(jax.tree.leaves(old.params), jax.tree.leaves(new.params), strict=True)
        )
        assert all(
            a is b
            for a, b in zip(jax.tree.leaves(old.mask), jax.tree.leaves(new.mask), strict=True)
        )
        dense = old.params["Dense_0"]
        stats = old.model_state["batch_stats"]["BatchNorm_0"]
        mean, var = stats["mean"], stats["var"]
        for batch in range(10):
            h = X[np.arange(5) * 4 + batch % 4] @ dense["kernel"] + dense["bias"]
            mean, var = 0.9 * mean + 0.1 * h.mean(0), 0.9 * var + 0.1 * h.var(0)
        found = new.model_state["batch_stats"]["BatchNorm_0"]
        np.testing.assert_allclose(found["mean"], mean, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(found["var"], var, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["linen", "nnx"])
def test_recalibration_forgets_what_the_statistics_were(name):
    ensemble, data = make(name, 1), Dataset(X, np.zeros(23, np.int32), 3)
    spoilt = ensemble.tickets[0]._replace(
        model_state=jax.tree.map(
            lambda a: a + np.asarray(100, a.dtype), ensemble.tickets[0].model_state
        )
    )
    wrong = dataclasses.replace(ensemble, tickets=(spoilt,))
    batches = 200 if name == "linen" else 2000  # NNX keeps 0.99 of its averages
    a, b = (one.recalibrate(data, 23, batches).predict_proba(X) for one in (ensemble, wrong))
    np.testing.assert_allclose(a, b, atol=1e-4)
    assert np.abs(wrong.predict_proba(X) - b).max() > 0.05


def test_recalibration_without_statistics_or_with_bad_data():
    bare, data = make("bare"), Dataset(X, np.zeros(23, np.int32), 3)
    np.testing.assert_array_equal(bare.recalibrate(data).predict_proba(X), bare.predict_proba(X))
    with pytest.raises(jt.DataError, match="per example"):
        bare.recalibrate(Dataset(X[:, :2], np.zeros(23, np.int32), 3))
