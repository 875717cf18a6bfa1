"""gradual_pruning against the cubic schedule in numpy, by layer and over all layers."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxtickets import masks
from jaxtickets.errors import MaskError
from jaxtickets.transforms import gradual_pruning, prune_to

SHAPES = {"a": {"kernel": (10, 20), "bias": (20,)}, "b": {"kernel": (3, 3, 5, 6)}}
BEGIN, END, EVERY = 3, 22, 4


def make_params(seed=0):
    rng = np.random.default_rng(seed)
    scale = {200: 0.2, 20: 1.0, 270: 1.0}  # by layer other than over all
    return jax.tree.map(
        lambda shape: jnp.asarray(rng.normal(size=shape) * scale[int(np.prod(shape))], jnp.float32),
        SHAPES,
        is_leaf=lambda n: isinstance(n, tuple),
    )


def cubic(step, final, initial):
    """Zhu and Gupta, equation 1, in float64, to the millionth."""
    x = min(max((step - BEGIN) / (END - BEGIN), 0), 1)
    return round(final + (initial - final) * (1 - x) ** 3, 6)


def expected(mask, w, sparsity):
    """Of the surviving weights the N - floor(S N) largest, by a stable sort."""
    flat = np.where(mask, np.abs(w), -1).reshape(-1)
    kept = np.zeros(flat.size, bool)
    kept[np.argsort(-flat, kind="stable")[: flat.size - int(sparsity * flat.size + 1e-9)]] = True
    return kept.reshape(mask.shape) & mask


@pytest.mark.parametrize("scope", ["layerwise", "global"])
@pytest.mark.parametrize("initial", [0.0, 0.3])
def test_follows_the_cubic_schedule_exactly(scope, initial):
    params = make_params()
    tx = gradual_pruning(
        optax.sgd(0.01, momentum=0.9),
        sparsity=0.8,
        begin=BEGIN,
        end=END,
        update_every=EVERY,
        initial=initial,
        scope=scope,
    )
    state = tx.init(params)
    update = jax.jit(tx.update)

    def kernels(tree):
        return [np.asarray(tree["a"]["kernel"]), np.asarray(tree["b"]["kernel"])]

    rng = np.random.default_rng(1)
    changed = []
    for step in range(26):
        before = kernels(state.mask)
        grads = jax.tree.map(lambda p: jnp.asarray(rng.normal(size=p.shape), jnp.float32), params)
        reference, _ = optax.sgd(0.01, momentum=0.9).update(
            masks.apply(state.mask, grads), state.inner, params
        )
        moved = kernels(
            optax.apply_updates(params, reference)
        )  # weights are updated first, then pruned
        updates, state = update(grads, state, params)
        params = optax.apply_updates(params, updates)
        after = kernels(state.mask)
        if step in (3, 7, 11, 15, 19, 22):
            target = cubic(step, 0.8, initial)
            if scope == "layerwise":
                wanted = [expected(m, w, target) for m, w in zip(before, moved, strict=True)]
            else:

                def join(arrays):
                    return np.concatenate([array.reshape(-1) for array in arrays])

                wanted = np.split(expected(join(before), join(moved), target), [200])
                wanted = [m.reshape(w.shape) for m, w in zip(wanted, moved, strict=True)]
        else:
            wanted = before
        for got, want, was, w in zip(after, wanted, before, kernels(params), strict=True):
            np.testing.assert_array_equal(got, want)
            assert not (got & ~was).any()  # what is pruned stays pruned
            assert not w[~got].any()
        if any((got != was).any() for got, was in zip(after, before, strict=True)):
            changed.append(step)
    assert changed == [step for step in (3, 7, 11, 15, 19, 22) if cubic(step, 0.8, initial) > 0]
    sizes = [200, 270]
    if scope == "layerwise":
        assert [int(m.sum()) for m in after] == [n - int(0.8 * n) for n in sizes]
    else:
        assert sum(int(m.sum()) for m in after) == 470 - int(0.8 * 470)
        assert (
            after[0].mean() < 0.1 < after[1].mean()
        )  # no normalisation: the layer of small weights loses most
    assert state.mask["a"]["bias"].shape == ()


def test_the_final_sparsity_is_reached_at_the_end_whatever_the_interval():
    params = {"w": jnp.linspace(-1.0, 1.0, 100).reshape(10, 10)}
    tx = gradual_pruning(optax.sgd(0.0), sparsity=0.35, begin=0, end=6, update_every=100)
    state, counts, update = tx.init(params), [], jax.jit(tx.update)
    for _ in range(9):
        _, state = update(params, state, params)
        counts.append(masks.count(state.mask))
    assert counts == [100] * 6 + [65] * 3


def test_prune_to_ranks_survivors_by_magnitude_and_never_revives():
    mask = {"w": jnp.array([True, True, False, True, True]), "b": jnp.ones((), bool)}
    params = {"w": jnp.array([1.0, -4.0, 9.0, 2.0, -3.0]), "b": jnp.zeros(7)}
    assert prune_to(mask, params, 0.4)["w"].tolist() == [False, True, False, True, True]
    assert prune_to(mask, params, 0.6)["w"].tolist() == [False, True, False, False, True]
    for lower in (0.0, 0.2):
        assert prune_to(mask, params, lower)["w"].tolist() == mask["w"].tolist()
    assert prune_to(mask, params, 0.6)["b"].shape == ()


def test_global_pruning_takes_the_smallest_anywhere():
    mask = {"a": jnp.ones(4, bool), "b": jnp.ones(4, bool), "c": jnp.ones((), bool)}
    params = {
        "a": jnp.array([0.1, -0.2, 0.3, 5.0]),
        "b": jnp.array([1.0, -2.0, 3.0, 4.0]),
        "c": jnp.zeros(3),
    }
    kept = prune_to(mask, params, 0.5, "global")
    assert kept["a"].tolist() == [False, False, False, True]
    assert kept["b"].tolist() == [False, True, True, True]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sparsity": 1.0}, r"sparsity is the share of zeros"),
        ({"initial": -0.1}, r"initial is the share of zeros"),
        ({"begin": 5, "end": 5}, "begin < end"),
        ({"update_every": 0}, "at least 1; got 0"),
        ({"scope": "layer"}, "scope is one of layerwise, global; got 'layer'"),
    ],
)
def test_options_that_cannot_be_are_errors(options, message):
    with pytest.raises(MaskError, match=message):
        gradual_pruning(optax.sgd(0.1), **{"sparsity": 0.5, "begin": 0, "end": 4, **options})
