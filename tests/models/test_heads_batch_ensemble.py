"""BatchEnsemble: member i is the plain network whose kernels have the rank-1 product written out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from heads_weights import images, weights

import jaxtickets as jt
from jaxtickets.models import BatchEnsemble, LeNet, WideResNet, classification, layers


def written_out(params, i):
    """Member i's params for the plain network."""
    if not any(isinstance(value, dict) for value in params.values()):
        member = {
            name: value
            for name, value in params.items()
            if name not in ("fast_in", "fast_out", "bias")
        }
        if "bias" in params:
            member["bias"] = (
                params["bias"][i] if params["bias"].ndim == 2 else params["bias"]
            )  # a norm's is shared
        if "kernel" in params:
            member["kernel"] = params["kernel"] * jnp.outer(
                params["fast_in"][i], params["fast_out"][i]
            )
        return member
    return {name: written_out(value, i) for name, value in params.items()}


@pytest.mark.parametrize(("net", "size"), [(LeNet((4, 6, 8, 8)), 16), (WideResNet(10, 1), 8)])
def test_members_are_plain_networks_with_the_product_written_out(net, size):
    task = classification(BatchEnsemble(net, 3))
    x = images(size)
    params, state = weights(task, x)
    run = jax.jit(lambda t, *a: t.apply(*a, x, False)[0], static_argnums=0)
    heads = run(task, params, state)
    for i in range(3):
        # float32 through at most ten layers, in another order of multiplication.
        np.testing.assert_allclose(
            heads[i], run(task.plain, written_out(params, i), state), rtol=1e-3, atol=1e-4
        )
    assert not np.allclose(heads[0], heads[1])


def test_training_norms_over_the_batch_of_all_members_and_takes_the_mean_loss():
    """Reference: the layers of the network, member by member, in numpy. One norm, so that its statistics can be told apart."""

    class Net(nn.Module):
        num_classes: int = 2

        @nn.compact
        def __call__(self, x, train):
            x = layers.Conv(3, 1, name="conv")(x)
            x = layers.BatchNorm(name="bn")(x, train)
            return layers.Dense(2, name="out")(nn.relu(x).mean((1, 2)))

    task = classification(BatchEnsemble(Net(), 2))
    x, y = images(2, channels=2), jnp.array([0, 1, 1, 0])
    params, state = weights(task, x)
    heads, new = jax.jit(task.apply, static_argnums=3)(params, state, x, True, None)
    p = jax.tree.map(lambda a: np.asarray(a, np.float64), params)
    conv, out = p["conv"], p["out"]
    rows = [
        (x * conv["fast_in"][i]) @ conv["kernel"][0, 0] * conv["fast_out"][i] + conv["bias"][i]
        for i in range(2)
    ]
    mean, var = np.mean(rows, (0, 1, 2, 3)), np.var(rows, (0, 1, 2, 3))
    normed = [
        np.maximum((r - mean) / np.sqrt(var + 1e-5) * p["bn"]["scale"] + p["bn"]["bias"], 0).mean(
            (1, 2)
        )
        for r in rows
    ]
    wanted = [
        n * out["fast_in"][i] @ out["kernel"] * out["fast_out"][i] + out["bias"][i]
        for i, n in enumerate(normed)
    ]
    np.testing.assert_allclose(heads, wanted, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(
        new["batch_stats"]["bn"]["mean"],
        0.9 * state["batch_stats"]["bn"]["mean"] + 0.1 * mean,
        rtol=1e-4,
    )
    log_p = np.asarray(wanted) - np.log(np.exp(wanted).sum(-1, keepdims=True))
    np.testing.assert_allclose(task.loss(heads, y), -log_p[:, np.arange(4), y].mean(0), rtol=1e-4)


def test_fast_weights_start_as_random_signs_and_are_not_prunable(key):
    class Net(nn.Module):
        num_classes: int = 32

        @nn.compact
        def __call__(self, x):
            return layers.Dense(32, name="out")(layers.Conv(64, 1, name="conv")(x))

    params, _ = classification(BatchEnsemble(Net(), 4)).init(key, images(1, channels=32))
    fast = [
        a
        for path, a in zip(jt.masks.leaf_paths(params), jax.tree.leaves(params), strict=True)
        if "/fast_" in path
    ]
    assert len(fast) == 4
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}
    signs = np.concatenate([np.ravel(a) for a in fast])
    assert set(signs) == {-1.0, 1.0}
    # 4 (32 + 64 + 64 + 32) = 768 fair signs: 5 standard deviations are 0.18.
    assert abs(signs.mean()) < 0.18
    may = jt.masks.prunable(params)
    assert [
        path for path, m in zip(jt.masks.leaf_paths(may), jax.tree.leaves(may), strict=True) if m
    ] == ["conv/kernel", "out/kernel"]


def test_a_layer_without_fast_weights_is_an_error(key):
    class Net(nn.Module):
        num_classes: int = 2

        @nn.compact
        def __call__(self, x):
            return nn.Dense(2)(x)

    with pytest.raises(ValueError, match="Dense_0/kernel is in a layer that gets no fast weights"):
        classification(BatchEnsemble(Net(), 2)).init(key, jnp.zeros((1, 3)))
