"""prune_grow against a table worked by hand, an independent simulation in numpy, and its own rules."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxtickets import masks
from jaxtickets.errors import MaskError
from jaxtickets.masks import sparsity
from jaxtickets.transforms import evolve_mask, prune_grow

KEY = jax.random.key(0)
EVOLVE = jax.jit(evolve_mask, static_argnames=("growth", "regrown"))


def simple(inner, mask, **options):
    return prune_grow(inner, **{"key": KEY, "mask": mask, "update_every": 1, **options})


# One update of eight weights, worked by hand. SGD with learning rate 1 and momentum 0.5, drop fraction 0.6: of the five
# active weights three are dropped and three grown. Step 1 is an ordinary step, step 2 updates the mask.
#
#   index                      0     1     2     3     4     5     6     7
#   active                     x     x     x     x     x
#   w at the start             5    -2     3     0   1.5     0     0     0
#   gradient 1                 1     1     1     1     1     9     9     9
#   w after step 1             4    -3     2    -1   0.5     0     0     0     momentum 1 where active
#   gradient 2                 0     0  -1.5   -.5     2     3    -4    .5
#
#   with the weight update (FreeTickets):
#   momentum                  .5    .5    -1     0   2.5
#   w                        3.5  -3.5     3    -1    -2
#   dropped                                x     x     x                       |-1| < |-2| < |3|
#   |gradient 2|, inactive               1.5    .5     2     3     4    .5     grown: 6, 5, 4; 4 is dropped and regrown
#
#   instead of the weight update (RigL): dropped by w after step 1: 4, 3, 2; grown as before.
START = [5.0, -2.0, 3.0, 0.0, 1.5, 0.0, 0.0, 0.0]
ACTIVE = [True, True, True, True, True, False, False, False]
GRADIENTS = [[1.0] * 5 + [9.0] * 3, [0.0, 0.0, -1.5, -0.5, 2.0, 3.0, -4.0, 0.5]]
GROWN = [True, True, False, False, True, True, True, False]


@pytest.mark.parametrize(
    ("weight_update", "regrown", "weights", "momentum"),
    [
        (True, "keep", [3.5, -3.5, 0, 0, -2, 0, 0, 0], [0.5, 0.5, 0, 0, 2.5, 0, 0, 0]),
        (True, "zero", [3.5, -3.5, 0, 0, 0, 0, 0, 0], [0.5, 0.5, 0, 0, 0, 0, 0, 0]),
        (False, "keep", [4, -3, 0, 0, 0.5, 0, 0, 0], [1, 1, 0, 0, 1, 0, 0, 0]),
        (False, "zero", [4, -3, 0, 0, 0, 0, 0, 0], [1, 1, 0, 0, 0, 0, 0, 0]),
    ],
)
def test_a_rigl_update_worked_by_hand(strict_arithmetic, weight_update, regrown, weights, momentum):
    tx = simple(
        optax.sgd(1.0, momentum=0.5),
        {"w": jnp.array(ACTIVE)},
        update_every=2,
        drop_fraction=0.6,
        weight_update=weight_update,
        regrown=regrown,
        track_ever_active=True,
    )
    params = {"w": jnp.array(START)}
    state, update = tx.init(params), jax.jit(tx.update)
    for gradient in GRADIENTS:
        updates, state = update({"w": jnp.array(gradient)}, state, params)
        params = optax.apply_updates(params, updates)
    assert state.mask["w"].tolist() == GROWN
    assert params["w"].tolist() == weights
    assert state.inner[0].trace["w"].tolist() == momentum
    assert state.ever_active["w"].tolist() == [True] * 7 + [False]
    assert int(state.count) == 2


def reference_update(mask, w, gradient, fraction, keep_regrown):
    """One prune-grow by stable sorts in numpy: the new mask and which values live on."""
    active = np.flatnonzero(mask)
    if len(active) == mask.size:
        return mask, mask
    n = int(fraction * len(active) + 1e-9)
    stay = np.zeros(mask.size, bool)
    stay[active[np.argsort(-np.abs(w.reshape(-1)[active]), kind="stable")][: len(active) - n]] = (
        True
    )
    inactive = np.flatnonzero(~stay)
    grown = inactive[np.argsort(-np.abs(gradient.reshape(-1)[inactive]), kind="stable")][:n]
    new = stay.copy()
    new[grown] = True
    lives = new & mask.reshape(-1) if keep_regrown else stay
    return new.reshape(mask.shape), lives.reshape(mask.shape)


@pytest.mark.parametrize(("weight_update", "regrown"), [(True, "keep"), (False, "zero")])
def test_equals_a_simulation_in_numpy(weight_update, regrown):
    """Momentum SGD on 0.5 |A w - b|^2 in two layers, 24 steps, a mask update every third, a falling drop fraction."""
    rng = np.random.default_rng(4)
    shapes = {"first": (9, 8), "second": (4, 5, 3)}
    a = {name: rng.normal(size=(30, int(np.prod(shape)))) / 6 for name, shape in shapes.items()}
    b = {name: rng.normal(size=30) for name in shapes}
    w = {name: rng.normal(size=shape) for name, shape in shapes.items()}
    tx = prune_grow(
        optax.sgd(0.2, momentum=0.8),
        key=KEY,
        sparsity=0.6,
        distribution="uniform",
        prunable=[(".*", True)],
        drop_fraction=sparsity.linear(0.6, 24),
        update_every=3,
        regrown=regrown,
        weight_update=weight_update,
    )
    params = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), w)
    state = tx.init(params)
    first = state.mask
    mask = jax.tree.map(np.asarray, first)
    w = {name: np.where(mask[name], w[name], 0) for name in w}
    params = masks.apply(first, params)
    momentum = {name: np.zeros(shape) for name, shape in shapes.items()}

    def gradient(name, v):
        return (a[name].T @ (a[name] @ v.reshape(-1) - b[name])).reshape(shapes[name])

    @jax.jit
    def step(params, state):
        def loss(p):
            return sum(
                0.5
                * jnp.sum(
                    (
                        jnp.asarray(a[n], jnp.float32) @ p[n].reshape(-1)
                        - jnp.asarray(b[n], jnp.float32)
                    )
                    ** 2
                )
                for n in shapes
            )

        updates, state = tx.update(jax.grad(loss)(params), state, params)
        return optax.apply_updates(params, updates), state

    changes = 0
    for t in range(1, 25):
        params, state = step(params, state)
        for name in shapes:
            g, lives = gradient(name, w[name]), mask[name]  # before the weight update, and dense
            if weight_update or t % 3:
                momentum[name] = np.where(mask[name], 0.8 * momentum[name] + g, 0)
                w[name] = np.where(mask[name], w[name] - 0.2 * momentum[name], 0)
            if t % 3 == 0:
                fraction = np.round(0.6 * (1 - (t - 1) / 24), 6)  # of the steps taken before
                mask[name], lives = reference_update(
                    mask[name], w[name], g, fraction, regrown == "keep"
                )
                changes += not np.array_equal(mask[name], np.asarray(first[name]))
            w[name], momentum[name] = (
                np.where(lives, w[name], 0),
                np.where(lives, momentum[name], 0),
            )
            np.testing.assert_array_equal(state.mask[name], mask[name])
            np.testing.assert_allclose(params[name], w[name], atol=2e-5)
            np.testing.assert_allclose(state.inner[0].trace[name], momentum[name], atol=2e-5)
    assert changes >= 14


def drops(tx, params, steps, grads=None):
    """How many weights leave the mask at each step."""
    state = tx.init(params)
    update = jax.jit(tx.update)
    left = []
    for _ in range(steps):
        before = state.mask
        updates, state = update(grads or params, state, params)
        params = optax.apply_updates(params, updates)
        left.append(
            sum(
                int((m & ~n).sum())
                for m, n in zip(jax.tree.leaves(before), jax.tree.leaves(state.mask), strict=True)
            )
        )
    return left, params, state


@pytest.mark.parametrize("growth", ["gradient", "random"])
def test_layers_without_an_inactive_weight_are_left_alone(growth):
    params = {
        "dense": {"kernel": jax.random.normal(KEY, (4, 4))},
        "sparse": {"kernel": jax.random.normal(KEY, (60, 60))},
    }
    first = sparsity.random_mask(KEY, params, 0.8)
    assert first["dense"]["kernel"].all()  # ERK leaves it whole
    new, survivors = EVOLVE(first, params, params, 0.5, KEY, growth, "zero")
    assert new["dense"]["kernel"].all()
    assert survivors["dense"]["kernel"].all()  # not one of its weights starts again from 0
    assert (new["sparse"]["kernel"] != first["sparse"]["kernel"]).any()
    active = int(first["sparse"]["kernel"].sum())
    assert survivors["sparse"]["kernel"].sum() == active - active // 2


def test_a_network_without_a_sparse_layer_is_left_alone():
    params = {"w": jnp.ones((3, 3))}
    dense = masks.dense(params)
    assert EVOLVE(dense, params, params, 0.5, KEY) == (dense, dense)


FORTY = {"w": jnp.linspace(1.0, 2.0, 100).reshape(10, 10)}
FIRST_FORTY = {"w": jnp.arange(100).reshape(10, 10) < 40}
# Gradients that are 0 on the first 40 weights: nothing that is dropped there grows back at once.
OUTSIDE = {"w": jnp.where(FIRST_FORTY["w"], 0.0, FORTY["w"])}


def test_the_mask_changes_only_inside_the_window():
    tx = simple(
        optax.sgd(0.0), FIRST_FORTY, update_every=3, begin=4, end=9, growth="random", regrown="zero"
    )
    left, _, _ = drops(tx, FORTY, 12)
    assert [step for step, n in enumerate(left, 1) if n] == [6, 9]
    left, _, _ = drops(
        simple(optax.sgd(0.0), FIRST_FORTY, update_every=3, growth="random"), FORTY, 12
    )
    assert [step for step, n in enumerate(left, 1) if n] == [3, 6, 9, 12]


def test_the_drop_fraction_follows_its_schedule_exactly():
    tx = simple(optax.sgd(0.0), FIRST_FORTY, drop_fraction=sparsity.cosine(0.5, 10))
    start, update = tx.init(FORTY), jax.jit(tx.update)
    for step in range(1, 12):
        _, state = update(OUTSIDE, start._replace(count=jnp.int32(step - 1)), FORTY)
        left = int((FIRST_FORTY["w"] & ~state.mask["w"]).sum())
        assert left == int(
            np.floor(np.round(0.25 * (1 + np.cos(np.pi * min((step - 1) / 10, 1))), 6) * 40)
        )


@pytest.mark.parametrize(
    ("fraction", "left"), [(0.0, 0), (0.024, 0), (0.025, 1), (0.3, 12), (0.7, 28), (1.0, 40)]
)
def test_exactly_the_floor_of_the_fraction_is_replaced(fraction, left):
    new, survivors = EVOLVE(FIRST_FORTY, FORTY, OUTSIDE, fraction, KEY)
    assert (FIRST_FORTY["w"] & ~new["w"]).sum() == left
    assert new["w"].sum() == 40
    assert survivors["w"].sum() == 40 - left


def test_a_scheduled_fraction_is_clipped():
    left, _, _ = drops(
        simple(optax.sgd(0.0), FIRST_FORTY, drop_fraction=lambda step: 0.75 - step),
        FORTY,
        2,
        OUTSIDE,
    )
    assert left == [30, 0]
    left, _, _ = drops(
        simple(optax.sgd(0.0), FIRST_FORTY, drop_fraction=lambda step: 2.0 + step),
        FORTY,
        1,
        OUTSIDE,
    )
    assert left == [40]


def test_ties_in_magnitude_and_gradient_go_by_index():
    mask = {"w": jnp.arange(8) < 4}
    equal = {"w": jnp.ones(8)}
    new, survivors = EVOLVE(mask, masks.apply(mask, equal), equal, 0.5, KEY)
    assert (
        new["w"].tolist() == [True] * 4 + [False] * 4
    )  # 2 and 3 are dropped, and they are the first to grow
    assert survivors["w"].tolist() == new["w"].tolist()
    new, survivors = EVOLVE(
        mask, masks.apply(mask, equal), {"w": jnp.arange(8) * 1.0}, 0.5, KEY, "gradient", "zero"
    )
    assert new["w"].tolist() == [True, True, False, False, False, False, True, True]
    assert survivors["w"].tolist() == [True, True] + [False] * 6


def test_dropping_is_by_magnitude_and_not_by_value():
    mask = {"w": jnp.array([True, True, True, False])}
    new, _ = EVOLVE(
        mask,
        {"w": jnp.array([-5.0, 1.0, 2.0, 0.0])},
        {"w": jnp.array([0.0, 0.0, 0.0, -1.0])},
        0.4,
        KEY,
    )
    assert new["w"].tolist() == [True, False, True, True]


def test_random_growth_differs_by_step_and_by_key_and_repeats_for_the_same():
    tx = simple(optax.sgd(0.0), FIRST_FORTY, growth="random")
    start, update = tx.init(FORTY), jax.jit(tx.update)

    def grown(key, step):
        return np.asarray(
            update(OUTSIDE, start._replace(key=key, count=jnp.int32(step - 1)), FORTY)[1].mask["w"]
        )

    one, two = jax.random.split(KEY)
    np.testing.assert_array_equal(grown(one, 1), grown(one, 1))
    assert (grown(one, 1) != grown(one, 2)).any()
    assert (grown(one, 1) != grown(two, 1)).any()
    assert grown(one, 1).sum() == grown(two, 2).sum() == 40


def test_random_growth_does_not_read_the_gradient():
    grads = ({"w": jnp.full((10, 10), jnp.nan)}, OUTSIDE)
    a, b = (EVOLVE(FIRST_FORTY, FORTY, g, 0.5, KEY, "random")[0]["w"] for g in grads)
    np.testing.assert_array_equal(a, b)


def test_growth_reads_the_dense_gradient_of_the_weights_before_the_update():
    # The gradient handed in is what grows, whatever the optimizer inside makes of it: it is clipped to 0 here.
    tx = simple(
        optax.chain(optax.clip_by_global_norm(1e-6), optax.sgd(1.0)),
        {"w": jnp.arange(6) < 3},
        drop_fraction=0.4,
    )
    params = {"w": jnp.array([3.0, 2.0, 1.0, 0.0, 0.0, 0.0])}
    _, state = tx.update({"w": jnp.array([0.0, 0.0, 0.0, 1.0, -2.0, 1.5])}, tx.init(params), params)
    assert state.mask["w"].tolist() == [True, True, False, False, True, False]


def test_ever_active_is_the_union_over_time():
    params = {"w": jax.random.normal(KEY, (20, 20))}
    tx = prune_grow(
        optax.sgd(0.1),
        key=KEY,
        sparsity=0.8,
        update_every=2,
        growth="random",
        track_ever_active=True,
    )
    state = tx.init(params)
    union = np.asarray(state.mask["w"])
    update = jax.jit(tx.update)
    for _ in range(8):
        _, state = update(params, state, params)
        union = union | np.asarray(state.mask["w"])
        np.testing.assert_array_equal(state.ever_active["w"], union)
    assert 80 < union.sum() < 400


def test_ever_active_costs_nothing_unless_it_is_tracked():
    state = prune_grow(optax.sgd(0.1), key=KEY, sparsity=0.8).init({"w": jnp.ones((20, 20))})
    assert state.ever_active["w"].shape == ()


def test_pitfall_4_a_grown_weights_first_step_of_adam_is_3_2_learning_rates():
    """Long after the bias correction: (1 - b1) / sqrt(1 - b2) = 3.16 of the learning rate, as documented."""
    tx = simple(
        optax.adam(1e-3, eps=1e-12),
        {"w": jnp.array([True, True, False])},
        drop_fraction=0.5,
        weight_update=False,
        update_every=2,
    )
    params = {"w": jnp.array([1.0, 0.1, 0.0])}
    state = tx.init(params)
    state = state._replace(inner=optax.tree.set(state.inner, count=jnp.int32(10**6)))
    gradient = {"w": jnp.array([0.5, 0.0, 0.5])}
    moved, update = [], jax.jit(tx.update)
    for _ in range(3):
        updates, state = update(gradient, state, params)
        params = optax.apply_updates(params, updates)
        moved.append(np.asarray(params["w"]))
    assert state.mask["w"].tolist() == [True, False, True]
    assert moved[1][2] == 0  # grown at step 2, at 0 and with moments of 0
    assert moved[2][2] == pytest.approx(-1e-3 * 0.1 / np.sqrt(0.001), rel=1e-4)


def test_pitfall_5_a_grown_weight_is_0_and_yet_active():
    tx = simple(optax.sgd(0.1), {"w": jnp.arange(6) < 3}, drop_fraction=0.4, update_every=2)
    params = {"w": jnp.array([3.0, 2.0, 1.0, 0.0, 0.0, 0.0])}
    state = tx.init(params)
    gradient = {"w": jnp.array([0.0, 0.0, 0.0, 0.0, 1.0, 0.0])}
    update = jax.jit(tx.update)
    for expected in (0.0, 0.0, -0.1):
        updates, state = update(gradient, state, params)
        params = optax.apply_updates(params, updates)
        assert float(params["w"][4]) == pytest.approx(expected)
    assert bool(state.mask["w"][4])
    assert masks.count(state.mask) == 3


def test_pitfall_8_growth_averages_gradients_before_the_absolute_value():
    mask, params = {"w": jnp.array([True, False, False])}, {"w": jnp.array([1.0, 0.0, 0.0])}
    shards = [{"w": jnp.array([0.0, 9.0, 1.0])}, {"w": jnp.array([0.0, -9.0, 1.0])}]
    mean = jax.tree.map(lambda a, b: (a + b) / 2, *shards)
    mean_of_absolutes = jax.tree.map(lambda a, b: (jnp.abs(a) + jnp.abs(b)) / 2, *shards)
    assert EVOLVE(mask, params, mean, 1.0, KEY)[0]["w"].tolist() == [False, False, True]
    assert EVOLVE(mask, params, mean_of_absolutes, 1.0, KEY)[0]["w"].tolist() == [
        False,
        True,
        False,
    ]
    # Accumulated over two steps it is the mean, too.
    tx = optax.MultiSteps(simple(optax.sgd(0.0), mask, drop_fraction=1.0), 2)
    state, update = tx.init(params), jax.jit(tx.update)
    for gradient in shards:
        _, state = update(gradient, state, params)
    assert state.inner_opt_state.mask["w"].tolist() == [False, False, True]


def test_pitfall_8_accumulating_two_half_batches_equals_the_full_batch():
    rng = np.random.default_rng(0)
    x, y = (
        jnp.asarray(rng.normal(size=(8, 16, 6)), jnp.float32),
        jnp.asarray(rng.normal(size=(8, 16, 5)), jnp.float32),
    )

    def loss(params, x, y):
        return jnp.mean((x @ params["w"] - y) ** 2)

    params = {"w": jnp.asarray(rng.normal(size=(6, 5)), jnp.float32)}
    tx = prune_grow(optax.adam(0.1), key=KEY, sparsity=0.5, update_every=2)
    halves = optax.MultiSteps(tx, 2)
    params = masks.apply(tx.init(params).mask, params)

    def train(tx, parts):
        @jax.jit
        def step(params, state, x, y):
            updates, state = tx.update(jax.grad(loss)(params, x, y), state, params)
            return optax.apply_updates(params, updates), state

        after, state = params, tx.init(params)
        for batch in range(8):
            for part in range(parts):
                rows = slice(part * 16 // parts, (part + 1) * 16 // parts)
                after, state = step(after, state, x[batch, rows], y[batch, rows])
        return after, state

    full, full_state = train(tx, 1)
    accumulated, state = train(halves, 2)
    np.testing.assert_array_equal(state.inner_opt_state.mask["w"], full_state.mask["w"])
    assert int(state.inner_opt_state.count) == int(full_state.count) == 8
    np.testing.assert_allclose(accumulated["w"], full["w"], rtol=1e-4, atol=1e-5)
    assert (full_state.mask["w"] != tx.init(params).mask["w"]).any()


def test_pitfall_2_there_is_no_default_key_and_keys_give_different_masks():
    with pytest.raises(TypeError, match="key"):
        prune_grow(optax.sgd(0.1), sparsity=0.5)  # pyright: ignore[reportCallIssue]
    params = {"w": jnp.ones((30, 30))}
    one, two = (
        prune_grow(optax.sgd(0.1), sparsity=0.5, key=k).init(params).mask
        for k in jax.random.split(KEY)
    )
    assert masks.iou(one, two) < 0.5
    np.testing.assert_array_equal(
        prune_grow(optax.sgd(0.1), sparsity=0.5, key=jax.random.split(KEY)[0])
        .init(params)
        .mask["w"],
        one["w"],
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "either sparsity=0.8 .* or mask"),
        ({"sparsity": 0.5, "mask": FIRST_FORTY}, "either sparsity=0.8 .* or mask"),
        ({"sparsity": 1.0}, r"share of zeros, in \[0, 1\)"),
        ({"sparsity": 0.5, "drop_fraction": 1.5}, r"in \[0, 1\]; got 1.5"),
        ({"sparsity": 0.5, "drop_fraction": float("nan")}, r"in \[0, 1\]; got nan"),
        ({"sparsity": 0.5, "update_every": 0}, "at least 1; got 0"),
        (
            {"sparsity": 0.5, "growth": "gradients"},
            "growth is one of gradient, grasp, magnitude, .*; got 'gradients'",
        ),
        ({"sparsity": 0.5, "regrown": "zeros"}, "regrown is one of keep, zero; got 'zeros'"),
    ],
)
def test_options_that_cannot_be_are_errors(options, message):
    with pytest.raises(MaskError, match=message):
        prune_grow(optax.sgd(0.1), key=KEY, **options)


def test_what_does_not_fit_the_params_is_an_error_at_init():
    with pytest.raises(MaskError, match="nothing to prune"):
        prune_grow(optax.sgd(0.1), key=KEY, sparsity=0.5).init({"bias": jnp.ones(3)})
    with pytest.raises(MaskError, match=r"must be bool, of shape \[3, 3\]"):
        prune_grow(optax.sgd(0.1), key=KEY, mask=FIRST_FORTY).init({"w": jnp.ones((3, 3))})
    with pytest.raises(MaskError, match="one of uniform, er, erk"):
        prune_grow(optax.sgd(0.1), key=KEY, sparsity=0.5, distribution="ERK").init(FORTY)  # pyright: ignore[reportArgumentType]
