"""l1_masking: the gradient of the penalised loss, or the proximal operator of the penalty, exactly."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.optimize

from jaxtickets.errors import MaskError
from jaxtickets.transforms import keep_masked, l1_masking, l1_penalty, prune_grow

PARAMS = {"w": jnp.array([[0.5, -1.0, 0.0], [2.0, -0.01, 0.3]]), "b": jnp.array([0.1, -0.2, 0.0])}
COEFFICIENTS = {"w": jnp.array([[1.0, 0.5, 1.0], [0.0, 1.0, 0.25]]), "b": 0.0}
TARGET = jnp.array([[0.3, 0.1, -0.7], [1.0, 0.2, -0.4]])


def loss(params):
    return jnp.sum((params["w"] + params["b"][None] - TARGET) ** 2)


def test_the_penalty_by_hand():
    # 1 * .5 + .5 * 1 + 1 * 0 + 0 * 2 + 1 * .01 + .25 * .3, and nothing of the bias
    assert float(l1_penalty(PARAMS, COEFFICIENTS)) == pytest.approx(1.085)
    assert float(l1_penalty({"w": PARAMS["w"].astype(jnp.bfloat16)}, {"w": 1.0})) == pytest.approx(
        3.81, rel=1e-2
    )
    # At 0 the derivative is 0, as of torch.abs: a weight that is 0 is not pulled anywhere.
    pulls = jax.grad(l1_penalty)(PARAMS, {"w": 1.0, "b": 0.5})
    assert pulls["w"].tolist() == [[1, -1, 0], [1, -1, 1]]
    assert pulls["b"].tolist() == [0.5, -0.5, 0]


@pytest.mark.parametrize(
    "inner", [lambda: optax.sgd(0.1), lambda: optax.adam(0.1), lambda: optax.sgd(0.1, momentum=0.9)]
)
def test_in_the_loss_it_is_the_gradient_of_loss_plus_tau_penalty(inner):
    tau = 0.3
    tx, reference = l1_masking(inner(), COEFFICIENTS, tau), inner()
    params, wanted = PARAMS, PARAMS
    state, wanted_state = tx.init(params), reference.init(wanted)
    for _ in range(5):
        updates, state = tx.update(jax.grad(loss)(params), state, params)
        params = optax.apply_updates(params, updates)
        penalised = jax.grad(lambda p: loss(p) + tau * l1_penalty(p, COEFFICIENTS))
        updates, wanted_state = reference.update(penalised(wanted), wanted_state, wanted)
        wanted = optax.apply_updates(wanted, updates)
        for a, b in zip(jax.tree.leaves(params), jax.tree.leaves(wanted), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7)


def soft_threshold(x, threshold):
    return np.sign(x) * np.maximum(np.abs(x) - threshold, 0)


@pytest.mark.parametrize(
    "inner", [lambda: optax.sgd(0.1), lambda: optax.adam(0.1), lambda: optax.sgd(0.1, momentum=0.9)]
)
def test_decoupled_it_is_the_soft_threshold_after_the_step(inner):
    tau = 0.05
    tx = l1_masking(inner(), COEFFICIENTS, tau, decoupled=True)
    params, state, zeros = PARAMS, tx.init(PARAMS), 0
    for _ in range(10):
        grads = jax.grad(loss)(params)
        plain, _ = inner().update(grads, state.inner, params)
        moved = np.asarray(optax.apply_updates(params, plain)["w"])
        updates, state = tx.update(grads, state, params)
        after = optax.apply_updates(params, updates)
        wanted = soft_threshold(moved, tau * np.asarray(COEFFICIENTS["w"]))
        np.testing.assert_allclose(after["w"], wanted, rtol=1e-6, atol=1e-7)
        np.testing.assert_array_equal(np.asarray(after["w"]) == 0, wanted == 0)  # zeros are exact
        np.testing.assert_array_equal(
            after["b"], optax.apply_updates(params, plain)["b"]
        )  # coefficient 0: the plain step
        zeros += (wanted == 0).sum()
        params = after
    assert zeros > 0


def test_the_soft_threshold_is_the_proximal_operator():
    """argmin_z 0.5 (z - x)^2 + t |z|, by a minimiser that knows no closed form."""
    x, t = np.linspace(-2, 2, 21), 0.6
    tx = l1_masking(optax.sgd(1.0), {"w": 1.0}, t, decoupled=True)
    params = {"w": jnp.asarray(x, jnp.float32)}
    updates, _ = tx.update({"w": jnp.zeros(21)}, tx.init(params), params)
    minimised = [
        scipy.optimize.minimize_scalar(
            lambda z, a=a: 0.5 * (z - a) ** 2 + t * abs(z), bounds=(-3, 3), method="bounded"
        ).x
        for a in x
    ]
    np.testing.assert_allclose(optax.apply_updates(params, updates)["w"], minimised, atol=1e-4)


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_decoupled_zeros_are_exact_in_every_dtype(dtype):
    params = {"w": jax.random.normal(jax.random.key(0), (50, 50), dtype)}
    tx = l1_masking(optax.sgd(0.1), {"w": 1.0}, 0.5, decoupled=True)
    for grads in (
        jax.random.normal(jax.random.key(1), (50, 50), g) for g in ("bfloat16", "float32")
    ):
        updates, _ = tx.update({"w": grads}, tx.init(params), params)
        after = np.asarray(optax.apply_updates(params, updates)["w"], np.float32)
        moved = np.abs(np.asarray(params["w"], np.float32) - 0.1 * np.asarray(grads, np.float32))
        assert not after[moved < 0.48].any()
        assert (after[moved > 0.52] != 0).all()


def test_the_strength_follows_its_schedule_from_step_0():
    tx = l1_masking(optax.sgd(1.0), {"w": 1.0}, lambda step: 0.5 * (1 - step / 2))
    params = {"w": jnp.array([4.0, -4.0])}
    state = tx.init(params)
    pulls = []
    for _ in range(3):
        updates, state = tx.update({"w": jnp.zeros(2)}, state, params)
        pulls.append(updates["w"].tolist())
    assert pulls == [[-0.5, 0.5], [-0.25, 0.25], [0, 0]]
    assert int(state.count) == 3


def test_members_have_their_own_coefficients_under_vmap():
    coefficients = jnp.array([[1.0, 0.0], [0.0, 1.0]])
    params = {"w": jnp.array([1.0, 1.0])}

    def make(c):
        return l1_masking(optax.sgd(1.0), {"w": c}, 0.5)

    state = jax.vmap(lambda c: make(c).init(params))(coefficients)
    updates, _ = jax.vmap(lambda s: make(jnp.zeros(2)).update({"w": jnp.zeros(2)}, s, params))(
        state
    )
    assert updates["w"].tolist() == [[-0.5, 0.0], [0.0, -0.5]]


MASK = {"w": jnp.array([[True, False, True], [True, True, False]]), "b": jnp.ones((), bool)}


@pytest.mark.parametrize("decoupled", [False, True])
def test_with_keep_masked_inside_and_outside_it_is_the_same(decoupled):
    outside = keep_masked(
        l1_masking(optax.adam(0.1), COEFFICIENTS, 0.05, decoupled=decoupled), MASK
    )
    inside = l1_masking(keep_masked(optax.adam(0.1), MASK), COEFFICIENTS, 0.05, decoupled=decoupled)
    results = []
    for tx in (outside, inside):
        params, state, update = PARAMS, tx.init(PARAMS), jax.jit(tx.update)
        for _ in range(20):
            updates, state = update(jax.grad(loss)(params), state, params)
            params = optax.apply_updates(params, updates)
            assert not params["w"][~MASK["w"]].any()
        results.append(params)
        assert params["w"][MASK["w"]].any()
    for a, b in zip(*map(jax.tree.leaves, results), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7)


def test_prune_grow_around_it_leaves_the_coefficients_alone():
    params = {"w": jax.random.normal(jax.random.key(0), (8, 8))}
    tx = prune_grow(
        l1_masking(optax.adam(0.1), {"w": jnp.ones((8, 8))}, 0.05),
        key=jax.random.key(1),
        sparsity=0.5,
        update_every=1,
    )
    state, update = tx.init(params), jax.jit(tx.update)
    for _ in range(2):
        _, state = update(params, state, params)
    np.testing.assert_array_equal(state.inner.coefficients["w"], 1)


@pytest.mark.parametrize(
    ("coefficients", "message"),
    [
        ({"w": 1.0}, "coefficients must have the params' tree"),
        (
            {"w": jnp.ones((3, 2)), "b": 0.0},
            r"'w' have shape \[3, 2\]; it must be \[2, 3\] or \[\]",
        ),
        ({"w": jnp.ones(3), "b": 0.0}, r"'w' have shape \[3\]"),
        ({"w": 1.0, "b": None}, "coefficients must have the params' tree"),
    ],
)
def test_coefficients_that_do_not_fit_are_refused(coefficients, message):
    with pytest.raises(MaskError, match=message):
        l1_masking(optax.sgd(0.1), coefficients, 0.1).init(PARAMS)
