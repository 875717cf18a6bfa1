"""Several predictions from one network: all heads of all tickets are members; costs are a plain network's."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxtickets as jt
from jaxtickets.dataset import Dataset
from jaxtickets.engine.feed import hold_out
from jaxtickets.engine.state import empty_tally
from jaxtickets.engine.steps import count_step
from jaxtickets.errors import DataError
from jaxtickets.evaluation import EvaluationError, evaluate_predictions
from jaxtickets.plan import Collect, Length, Plan, Start, Train
from jaxtickets.task import Task, mixed_log_proba

HEADS, CLASSES = 3, 4
RNG = np.random.default_rng(0)
X = RNG.normal(size=(70, 6)).astype(np.float32)
Y = X[:, :CLASSES].argmax(-1).astype(np.int32)
DATA = Dataset(X, Y, CLASSES, name="points")


def init(key, x):
    return {"w": jax.random.normal(key, (x.shape[-1], HEADS * CLASSES))}, {}


def apply(params, state, x, train, key):
    """In training every example goes through four times, as in MIMO."""
    x = jnp.concatenate([x] * 4) if train else x
    logits = jnp.matmul(x, params["w"]).reshape(-1, len(x), HEADS, CLASSES)[0].swapaxes(0, 1)
    return logits[:, : len(x) // 4] if train else logits, state


def loss(logits, y):
    return -jnp.take_along_axis(jax.nn.log_softmax(logits), y[None, :, None], -1)[..., 0].sum(0)


def plain_init(key, x):
    return {"w": jax.random.normal(key, (x.shape[-1], CLASSES))}, {}


def plain_apply(params, state, x, train, key):
    return jnp.matmul(x, params["w"]), state


PLAIN = jt.classification((plain_init, plain_apply), num_classes=CLASSES)
TASK = Task(
    init,
    apply,
    loss,
    jax.nn.log_softmax,
    num_classes=CLASSES,
    name="three heads",
    heads=HEADS,
    plain=PLAIN,
)


@pytest.fixture(scope="module")
def tickets():
    return jt.fit(jt.dense(2, epochs=1, batch_size=10), TASK, DATA, key=0, progress=False)


def probabilities(tickets, x):
    """[tickets, heads, N, C] in float64 numpy."""
    logits = [
        (x.astype(np.float64) @ np.asarray(t.params["w"], np.float64)).reshape(-1, HEADS, CLASSES)
        for t in tickets
    ]
    each = np.exp(np.stack(logits))
    return (each / each.sum(-1, keepdims=True)).swapaxes(1, 2)


def test_members_are_all_heads_of_all_tickets(tickets):
    wanted = probabilities(tickets, X)
    each = tickets.member_log_proba(X, batch_size=32)  # 70 examples: the last batch is filled up
    assert len(tickets) == 2
    np.testing.assert_allclose(
        np.exp(each), wanted.reshape(2 * HEADS, 70, CLASSES), rtol=1e-4, atol=1e-6
    )
    np.testing.assert_allclose(
        np.exp(tickets.ticket_log_proba(X)), wanted.mean(1), rtol=1e-4, atol=1e-6
    )
    np.testing.assert_allclose(tickets.predict_proba(X), wanted.mean((0, 1)), rtol=1e-4, atol=1e-6)


def test_evaluation_is_over_heads_and_mask_overlap_over_tickets():
    tickets = jt.fit(jt.static_sparse(2, 0.5, 1, batch_size=10), TASK, DATA, key=0, progress=False)
    found = jt.evaluate(tickets, DATA)
    wanted = probabilities(tickets, X)
    assert [m.accuracy for m in found.members] == list(
        (wanted.argmax(-1) == Y).mean(-1).reshape(-1)
    )
    assert found.ensemble.accuracy == (wanted.mean((0, 1)).argmax(-1) == Y).mean()
    a, b = (np.asarray(mask["w"]) for mask in tickets.masks)
    assert found.diversity.mask_iou == (a & b).sum() / (a | b).sum()
    alone = jt.evaluate(tickets[0], DATA)
    assert len(alone.members) == HEADS
    assert "no masks to compare" in str(alone)


def test_another_number_of_masks_than_of_networks_is_an_error():
    predictions = np.log(np.full((6, 5, 4), 0.25))
    masks = [{"w": np.ones(3, bool)}] * 3
    with pytest.raises(EvaluationError, match=r"got 3.*6 members / 3 heads"):
        evaluate_predictions(predictions, np.zeros(5, int), masks, heads=3)


def test_accuracy_in_training_is_of_the_mean_of_heads():
    """Two weak heads outvote a sure one in a count of labels, and not in the mean of probabilities."""
    p = np.asarray([[0.51, 0.49], [0.51, 0.49], [0.05, 0.95]])
    task = dataclasses.replace(TASK, num_classes=2)
    outputs = jnp.log(jnp.asarray(p, jnp.float32))[:, None]
    np.testing.assert_allclose(jnp.exp(mixed_log_proba(task, outputs)), p.mean(0)[None], rtol=1e-6)
    tally = jax.tree.map(lambda a: a[0], empty_tally(1))
    right = [
        count_step(task, tally, jnp.int32(0), jnp.float32(0), outputs, jnp.array([y])).correct
        for y in (0, 1)
    ]
    assert right == [0.0, 1.0]


def test_the_best_network_is_chosen_by_the_mean_of_its_heads():
    plan = Plan("best", (Start(), Train(Length(3)), Collect("best")), 10, validation=20)
    ticket = jt.fit(plan, TASK, DATA, key=0, progress=False).tickets[0]
    held = hold_out(DATA, 20)[1]
    assert held is not None
    right = probabilities([ticket], held.x)[0].mean(0).argmax(-1) == held.y
    assert ticket.info["validation_accuracy"] == pytest.approx(right.mean())


def test_regression_takes_the_mean_of_heads():
    task = Task(init, apply, loss, lambda outputs: outputs, heads=2)
    np.testing.assert_allclose(mixed_log_proba(task, jnp.array([[1.0, 2.0], [3.0, 6.0]])), [2, 4])


def test_the_ledger_counts_training_in_training_mode_and_compares_with_the_plain_network():
    ledger = jt.cost(jt.dense(2, epochs=1, batch_size=10), TASK, DATA)
    assert ledger.forward_dense == 2 * 6 * CLASSES
    assert ledger.training == 2 * 4 * HEADS  # two networks, four passes, three heads
    assert ledger.inference == 2 * HEADS
    assert ledger.dense_bytes == 4 * 6 * CLASSES
    assert ledger.ticket_bytes == 2 * HEADS * ledger.dense_bytes


def test_a_ledger_of_sparse_heads_takes_their_own_density():
    ledger = jt.cost(jt.static_sparse(1, 0.5, 1, batch_size=10), TASK, DATA)
    assert (ledger.training, ledger.inference) == (4 * HEADS * 0.5, HEADS * 0.5)


def test_heads_that_are_not_there_are_an_error():
    wrong = dataclasses.replace(TASK, heads=2)
    with pytest.raises(
        DataError,
        match=r"log_proba of three heads has the shape \[3, 2, 4\] for 2 heads and 2 examples.*\[2, 2, 4\]",
    ):
        jt.fit(jt.dense(1, epochs=1, batch_size=10), wrong, DATA, key=0, progress=False)
    with pytest.raises(ValueError, match=r"heads.*at least 1; got 0"):
        dataclasses.replace(TASK, heads=0)
