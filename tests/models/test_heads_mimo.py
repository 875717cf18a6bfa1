"""MIMO: after training each head answers for its own input; what it trains on is what the paper says."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from heads_weights import images, weights

from jaxtickets.models import MIMO, LeNet, classification
from jaxtickets.models.mimo import training_rows

B, M, R, C = 6, 3, 4, 10


@pytest.mark.parametrize(("repeated", "same"), [(0.0, 0), (0.6, 14), (1.0, 24)])
def test_every_head_sees_every_example_r_times_and_the_share_rho_of_rows_is_the_same_for_all(
    repeated, same
):
    rows = np.asarray(training_rows(jax.random.key(0), B, M, R, repeated))
    assert rows.shape == (M, R * B)
    for row in rows:
        assert (np.bincount(row, minlength=B) == R).all()
    equal = (rows == rows[0]).all(0)
    assert equal[24 - same :].all()
    # Of the others 1 in 36 agrees by chance; that a third of 24 do has a probability below 1e-6.
    assert equal[: 24 - same].sum() < 8
    again, other = (np.asarray(training_rows(jax.random.key(k), B, M, R, repeated)) for k in (0, 1))
    np.testing.assert_array_equal(rows, again)
    assert not np.array_equal(rows, other)


def test_loss_and_training_predictions_are_those_of_the_rows():
    rng = np.random.default_rng(0)
    rows = np.stack([rng.permutation(np.repeat(np.arange(B), R)) for _ in range(M)])
    logits, y = rng.normal(size=(M, R * B, C)), rng.integers(0, C, B)
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    of_row = np.stack([-np.log(p[m, np.arange(R * B), y[rows[m]]]) for m in range(M)])
    task = classification(MIMO(LeNet(), M, batch_repetition=R))
    outputs = {"logits": jnp.asarray(logits, jnp.float32), "rows": jnp.asarray(rows)}
    loss = task.loss(outputs, jnp.asarray(y))
    np.testing.assert_allclose(
        loss, [sum(of_row[m][rows[m] == b].mean() for m in range(M)) for b in range(B)], rtol=1e-5
    )
    np.testing.assert_allclose(loss.mean(), of_row.sum(0).mean(), rtol=1e-5)
    wanted = [[p[m][rows[m] == b].mean(0) for b in range(B)] for m in range(M)]
    np.testing.assert_allclose(jnp.exp(task.log_proba(outputs)), wanted, rtol=1e-5)


def test_in_training_the_logits_are_of_the_rows_and_in_prediction_of_one_image_m_times():
    task = classification(MIMO(LeNet((4, 6, 8, 8)), 2, batch_repetition=2))
    wide = classification(LeNet((4, 6, 8, 8), num_classes=20))
    x = images(16)
    params, state = weights(task, x)
    run = jax.jit(wide.apply, static_argnums=3)
    outputs = jax.jit(task.apply, static_argnums=3)(params, state, x, True, jax.random.key(3))[0]
    rows = np.asarray(outputs["rows"])
    seen = run(params, state, jnp.concatenate([x[rows[0]], x[rows[1]]], -1), False)[0]
    np.testing.assert_allclose(
        outputs["logits"], [seen[:, :10], seen[:, 10:]], rtol=1e-4, atol=1e-5
    )
    predicted = run(params, state, jnp.concatenate([x, x], -1), False)[0]
    ours = jax.jit(task.apply, static_argnums=3)(params, state, x, False, None)[0]
    np.testing.assert_allclose(ours, [predicted[:, :10], predicted[:, 10:]], rtol=1e-4, atol=1e-5)


class Perceptron(nn.Module):
    num_classes: int

    @nn.compact
    def __call__(self, x):
        return nn.Dense(self.num_classes)(nn.relu(nn.Dense(64)(x.reshape(x.shape[0], -1))))


def test_heads_learn_to_answer_for_their_own_input():
    """Four bright quarters. Shown two images that disagree, an untrained head follows neither; a trained one its own."""
    y = np.arange(64) % 4
    x = np.zeros((64, 2, 2, 1), np.float32)
    x[np.arange(64), y // 2, y % 2] = 1
    task, wide = classification(MIMO(Perceptron(4), 2)), classification(Perceptron(8))
    before, _ = weights(task, x)
    tx = optax.adam(1e-2)

    @jax.jit
    def step(params, moments, key):
        value, grads = jax.value_and_grad(
            lambda p: task.loss(task.apply(p, {}, x, True, key)[0], jnp.asarray(y)).mean()
        )(params)
        updates, moments = tx.update(grads, moments, params)
        return optax.apply_updates(params, updates), moments, value

    params, moments = before, tx.init(before)
    for i in range(150):
        params, moments, _ = step(params, moments, jax.random.key(i))
    a, b = np.divmod(np.arange(16), 4)
    a, b = a[a != b], b[a != b]
    both = jnp.concatenate([x[a], x[b]], -1)  # image i shows quarter i

    def own_and_other(params):
        first, second = np.split(np.asarray(wide.apply(params, {}, both, False)[0]), 2, axis=-1)
        own = [(first.argmax(-1) == a).mean(), (second.argmax(-1) == b).mean()]
        other = [(first.argmax(-1) == b).mean(), (second.argmax(-1) == a).mean()]
        return min(own), max(other)

    assert own_and_other(before)[0] < 0.6
    own, other = own_and_other(params)
    assert own > 0.9
    assert other < 0.1


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (
            lambda: MIMO(LeNet(), 2, batch_repetition=0),
            ValueError,
            "batch_repetition.*at least 1, got 0",
        ),
        (lambda: MIMO(LeNet(), 2, input_repetition=1.5), ValueError, r"input_repetition.*1\.5"),
        (lambda: MIMO(nn.Dense(3), 2), TypeError, "num_classes.*Dense"),
    ],
)
def test_errors_say_what_is_allowed(make, error, words):
    with pytest.raises(error, match=words):
        make()
