"""MC dropout: trained as ever; predicts by passes that differ in dropout and in nothing else."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from heads_weights import images, weights
from text_networks import CONFIGS, texts

from jaxtickets.models import MCDropout, TextClassifier, WideResNet, classification

VECTORS = np.asarray(images(6))[:, 0, :, 0]
NET = WideResNet(10, 1, dropout=0.5)


class Linear(nn.Module):
    """Everything after the dropout is linear, so the passes' mean is known; told by `deterministic`, dropout by its caller."""

    num_classes: int = 5
    rate: float = 0.5

    @nn.compact
    def __call__(self, x, deterministic):
        x = nn.BatchNorm(use_running_average=deterministic, name="norm")(x)
        x = nn.remat(nn.Dense)(16, name="hidden")(x)
        x = nn.Dropout(self.rate)(x, deterministic=deterministic)
        return nn.Dense(self.num_classes, name="out")(x)


def test_training_is_the_plain_networks_to_the_bit():
    plain, task = classification(Linear()), classification(MCDropout(Linear(), 3, key=0))
    x, y = VECTORS, jnp.arange(4)
    params, state = weights(task, x)

    def step(t, params):
        outputs, new = t.apply(params, state, x, True, jax.random.key(5))
        return outputs, new, t.loss(outputs, y)

    run = jax.jit(step, static_argnums=0)
    ours, theirs = run(task, params), run(plain, params)
    jax.tree.map(np.testing.assert_array_equal, ours[:2], theirs[:2])
    # The loss has an axis of heads: two programs round otherwise.
    np.testing.assert_allclose(ours[2], theirs[2], rtol=1e-6, atol=1e-7)
    assert (
        ours[0] != jax.jit(plain.apply, static_argnums=3)(params, state, x, False, None)[0]
    ).all()
    log_proba = task.log_proba(ours[0])  # one pass is every head's
    assert log_proba.shape == (3, 4, 5)
    np.testing.assert_array_equal(log_proba[0], log_proba[2])


def test_passes_differ_and_follow_from_the_key():
    tasks = [classification(MCDropout(Linear(), 3, key=key)) for key in (0, 0, 1)]
    params, state = weights(tasks[0], VECTORS)
    first, again, other = jax.jit(lambda *a: [t.apply(*a, VECTORS, False)[0] for t in tasks])(
        params, state
    )
    assert first.shape == (3, 4, 5)
    assert not any(np.allclose(first[i], first[j]) for i, j in ((0, 1), (0, 2), (1, 2)))
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, other)


def test_batch_norm_is_in_evaluation_mode():
    """An example does not feel its neighbours, and the statistics stay."""
    task = classification(MCDropout(NET, 2, key=0))
    x = images(8)
    params, state = weights(task, x)
    run = jax.jit(lambda x: task.apply(params, state, x, False))
    (each, new), (beside, _) = run(x), run(x.at[1:].multiply(3))
    assert not np.allclose(each[0], each[1])
    np.testing.assert_allclose(each[:, 0], beside[:, 0], rtol=1e-5, atol=1e-5)
    assert not np.allclose(each[:, 1], beside[:, 1])
    jax.tree.map(np.testing.assert_array_equal, new, state)


def test_the_mean_of_linear_passes_approaches_the_network_without_dropout():
    passes = 4000
    plain, task = classification(Linear()), classification(MCDropout(Linear(), passes, key=0))
    params, state = weights(task, VECTORS)
    each, wanted = jax.jit(lambda *a: [t.apply(*a, VECTORS, False)[0] for t in (task, plain)])(
        params, state
    )
    each, wanted = np.asarray(each, np.float64), np.asarray(wanted)
    error = each.std(0) / np.sqrt(passes)
    # Five standard errors in each of 20 numbers: a false alarm once in 10^5.
    assert (np.abs(each.mean(0) - wanted) < 5 * error).all()
    # h / p with probability p has the variance h^2 (1 - p) / p, here h^2, and they are drawn one by one.
    norm = {**state["batch_stats"]["norm"], **params["norm"]}
    hidden = (VECTORS - norm["mean"]) / np.sqrt(norm["var"] + 1e-5) * norm["scale"] + norm["bias"]
    hidden = hidden @ params["hidden"]["kernel"] + params["hidden"]["bias"]
    spread = np.sqrt((hidden**2) @ (params["out"]["kernel"] ** 2))
    # The deviation of 4,000 draws is known to 1 / sqrt(8000) = 1.1 %; five of those.
    np.testing.assert_allclose(each.std(0), spread, rtol=0.056)


def test_a_network_with_dropout_of_its_own_predicts_in_training_mode(key):
    net = TextClassifier(CONFIGS["bert"], num_classes=3)  # none of its dropout is a layer
    plain, task = classification(net), classification(MCDropout(net, 2, key=0))
    x = texts(CONFIGS["bert"])
    params, state = plain.init(key, x)
    assert jax.tree.structure(params) == jax.tree.structure(task.init(key, x)[0])
    each = task.apply(params, state, x, False)[0]
    for number, logits in enumerate(each):
        wanted, _ = plain.apply(
            params,
            state,
            x,
            True,
            jax.random.fold_in(jax.random.key(0, impl="threefry2x32"), number),
        )
        np.testing.assert_allclose(
            logits, wanted, rtol=1e-5, atol=1e-6
        )  # vmap may sum products in another order
    assert not np.allclose(each[0], each[1])
    quiet = dataclasses.replace(CONFIGS["bert"], dropout=0.0, attention_dropout=0.0)
    with pytest.raises(ValueError, match="no dropout"):
        classification(MCDropout(TextClassifier(quiet, 3), 2, key=0)).init(key, x)


def test_a_network_without_dropout_is_an_error(key):
    with pytest.raises(ValueError, match=r"no dropout.*WideResNet\(..., dropout=0.3\)"):
        classification(MCDropout(WideResNet(10, 1), 2, key=0)).init(key, images(8))
    with pytest.raises(ValueError, match=r"key must be an integer in \[0, 2\^32\), got -1"):
        MCDropout(NET, 2, key=-1)
