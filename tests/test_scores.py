"""Scores: the registry, and SNIP, GraSP and SynFlow against hand work and torch."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch

from jaxtickets import masks
from jaxtickets.errors import MaskError
from jaxtickets.masks import scores, sparsity
from jaxtickets.masks.pruning import prune_by_scores, prune_to
from jaxtickets.masks.scores import Score, ScoreInputs
from jaxtickets.transforms import evolve_mask, gradual_pruning, prune_grow

RNG = np.random.default_rng(0)
WEIGHTS = {
    "a": {"kernel": RNG.normal(size=(6, 8)).astype(np.float32), "bias": np.zeros(8, np.float32)},
    "b": {"kernel": RNG.normal(size=(8, 7)).astype(np.float32), "bias": np.zeros(7, np.float32)},
    "c": {"kernel": RNG.normal(size=(7, 3)).astype(np.float32), "bias": np.zeros(3, np.float32)},
}
X, Y = RNG.normal(size=(10, 6)).astype(np.float32), RNG.integers(0, 3, 10)
KERNELS = [("kernel", True), (".*", False)]


def predict(params, x):
    for name in ("a", "b"):
        x = jax.nn.relu(x @ params[name]["kernel"] + params[name]["bias"])
    return x @ params["c"]["kernel"] + params["c"]["bias"]


def loss(params):
    logits = predict(params, X)
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, jnp.asarray(Y)))


def inputs_of(params, mask):
    return ScoreInputs(
        params, mask, jax.grad(loss)(params), jax.random.key(0), loss, predict, jnp.asarray(X)
    )


def torch_kernels():
    return [torch.tensor(WEIGHTS[name]["kernel"], requires_grad=True) for name in "abc"]


def torch_logits(kernels, x):
    return torch.relu(torch.relu(x @ kernels[0]) @ kernels[1]) @ kernels[2]


def torch_loss(kernels):
    return torch.nn.functional.cross_entropy(
        torch_logits(kernels, torch.tensor(X)), torch.tensor(Y)
    )


def kernels_of(tree):
    return [np.asarray(tree[name]["kernel"]) for name in "abc"]


def params():
    return jax.tree.map(jnp.asarray, WEIGHTS)


@functools.cache
def found(name, seed=None):
    """Scores of a network, whole or under a random mask."""
    mask = masks.full(params(), KERNELS)
    if seed is not None:
        mask = sparsity.random_mask(jax.random.key(seed), params(), 0.4, "uniform", KERNELS)
    under = masks.apply(mask, params())
    return kernels_of(jax.jit(lambda p: scores.get(name)(inputs_of(p, mask)))(under)), mask


def test_snip_is_the_derivative_by_the_mask():
    kernels = torch_kernels()
    c = [torch.ones_like(k, requires_grad=True) for k in kernels]  # equation 4: dL/dc at c = 1
    expected = torch.autograd.grad(torch_loss([k * m for k, m in zip(kernels, c, strict=True)]), c)
    for ours, theirs in zip(found("snip")[0], expected, strict=True):
        np.testing.assert_allclose(ours, theirs.abs().numpy(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("seed", [None, 3])
def test_grasp_is_the_weights_share_of_the_hessian_gradient_product(seed):
    ours, mask = found("grasp", seed)
    kept = [torch.tensor(m, dtype=torch.float32) for m in kernels_of(mask)]
    kernels = [
        (k * m).detach().requires_grad_() for k, m in zip(torch_kernels(), kept, strict=True)
    ]
    g = torch.autograd.grad(torch_loss(kernels), kernels, create_graph=True)
    flow = sum((a * m * (a * m).detach()).sum() for a, m in zip(g, kept, strict=True))
    curved = torch.autograd.grad(flow, kernels)  # H g
    for mine, k, h in zip(ours, kernels, curved, strict=True):
        np.testing.assert_allclose(mine, (k * h).detach().numpy(), rtol=1e-3, atol=1e-6)


def synflow_in_torch(sparsity, rounds):
    kernels = torch_kernels()
    kept = [torch.ones_like(k) for k in kernels]
    for k in range(1, rounds + 1):
        sizes = [
            (w * m).abs().detach().requires_grad_() for w, m in zip(kernels, kept, strict=True)
        ]
        flow = torch_logits(sizes, torch.ones(1, 6)).sum()
        grads = torch.autograd.grad(flow, sizes)
        values = torch.cat([(g * s).detach().flatten() for g, s in zip(grads, sizes, strict=True)])
        alive = torch.cat([m.flatten() for m in kept]).bool()
        n = len(values)
        # floor of the share that goes, in millionths as the library counts
        share = sparsity if k == rounds else 1 - (1 - sparsity) ** (k / rounds)
        survivors = n - round(share * 1e6) * n // 1_000_000
        values[~alive] = -1
        best = torch.argsort(values, descending=True, stable=True)[:survivors]
        chosen = torch.zeros(n)
        chosen[best] = 1
        kept = [
            part.reshape(k.shape)
            for part, k in zip(chosen.split([k.numel() for k in kernels]), kernels, strict=True)
        ]
    return [m.bool().numpy() for m in kept]


def test_synflow_goes_to_the_masks_of_the_same_rounds_in_torch():
    mask = masks.full(params(), KERNELS)
    ours = jax.jit(lambda s: prune_by_scores(mask, params(), "synflow", s, inputs_of))(0.8)
    for mine, theirs in zip(kernels_of(ours), synflow_in_torch(0.8, 100), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert masks.count(ours) == 125 - 100
    once = prune_by_scores(mask, params(), "synflow", 0.8, inputs_of, rounds=1)
    assert any((a != b).any() for a, b in zip(kernels_of(once), kernels_of(ours), strict=True))


def test_synflow_by_hand():
    # R = sum of |w1| |w2| over paths: through unit 0 it is 1 * 3, through unit 1 it is 2 * 1.
    weights = {"w1": jnp.array([[1.0, -2.0]]), "w2": jnp.array([[3.0], [-1.0]])}
    given = ScoreInputs(weights, predict=lambda p, x: x @ p["w1"] @ p["w2"], x=jnp.zeros((4, 1)))
    assert scores.get("synflow")(given)["w1"].tolist() == [[3.0, 2.0]]


def test_synflow_of_a_network_too_deep_for_float32_ranks_as_in_float64():
    depth, width = 30, 64
    deep = RNG.normal(size=(depth, width, width)).astype(np.float32)  # R is about 50 ** 30

    def through(p, x):
        for i in range(depth):
            x = x @ p[i]
        return x

    def scored(p):
        return scores.get("synflow")(ScoreInputs(p, predict=through, x=jnp.zeros((1, width))))

    ours = np.asarray(jax.jit(scored)(jnp.asarray(deep)))
    sizes = torch.tensor(np.abs(deep), dtype=torch.float64, requires_grad=True)
    x = torch.ones(1, width, dtype=torch.float64)
    for i in range(depth):
        x = x @ sizes[i]
    (grad,) = torch.autograd.grad(x.sum(), sizes)
    expected = (grad * sizes).detach().numpy()
    assert expected.max() > 1e38
    np.testing.assert_allclose(ours / ours.max(), expected / expected.max(), rtol=1e-3)


def test_rounds_take_the_exponential_way_from_the_density_there_is():
    seen = []

    def counting(params, mask):
        jax.debug.callback(
            lambda n: seen.append(int(n)), sum(masks.counts(mask)[n]["kernel"] for n in "abc")
        )
        return ScoreInputs(params, mask)

    mask = masks.full(params(), KERNELS)
    pruned = prune_by_scores(mask, params(), "magnitude", 0.75, counting, rounds=2)
    jax.effects_barrier()
    assert sorted(seen, reverse=True) == [125, 125 - 62]  # 1 - 0.25 ** (1 / 2) = 0.5 first
    assert masks.count(pruned) == 125 - 93


def test_random_pruning_draws_once_for_all_leaves_and_growth_leaf_by_leaf():
    mask, key = masks.full(params(), KERNELS), jax.random.key(7)
    ours = prune_by_scores(mask, params(), "random", 0.5, lambda p, m: ScoreInputs(p, m, key=key))
    leaves, tree = jax.tree.flatten(mask)
    bits = jax.tree.unflatten(tree, sparsity.random_bits(key, leaves))
    bits = jax.tree.map(lambda b, p: jnp.broadcast_to(b, p.shape), bits, params())
    theirs = prune_to(mask, params(), 0.5, "global", scores=bits)
    for a, b in zip(kernels_of(ours), kernels_of(theirs), strict=True):
        np.testing.assert_array_equal(a, b)
    drawn = scores.get("random")(ScoreInputs(params(), key=key))
    for a, b in zip(
        jax.tree.leaves(drawn), jax.tree.leaves(scores.random(key, params())), strict=True
    ):
        np.testing.assert_array_equal(a, b)


def test_leaves_kept_dense_lose_nothing_and_do_not_count():
    mask = masks.full(params(), KERNELS)
    pruned = prune_by_scores(mask, params(), "snip", 0.5, inputs_of, keep_dense=("^c",))
    assert pruned["c"]["kernel"].all()
    assert masks.count(pruned) == 21 + 104 - 52


@scores.register("signed", needs=("grads",))
def signed(inputs):
    """A user's: what would grow upwards."""
    return jax.tree.map(lambda g: -g, inputs.grads)


def test_a_score_of_a_users_grows_weights_and_prunes_gradually():
    weights = {"w": jnp.array([[4.0, 3.0, 0.0, 0.0]])}
    mask = {"w": jnp.array([[True, True, False, False]])}
    grads = {"w": jnp.array([[0.0, 0.0, 5.0, -1.0]])}
    new, _ = evolve_mask(mask, weights, grads, 0.5, jax.random.key(0), growth="signed")
    assert new["w"].tolist() == [[True, False, False, True]]  # by |gradient| it were the third
    tx = gradual_pruning(optax.sgd(0.0), sparsity=0.75, begin=0, end=1, scores="signed")
    state = tx.init(weights)
    for _ in range(2):
        _, state = tx.update(grads, state, weights)
    assert state.mask["w"].tolist() == [[False, False, False, True]]


def test_a_score_that_needs_the_loss_takes_optax_value_fn():
    tx = prune_grow(
        optax.sgd(0.1),
        key=jax.random.key(0),
        sparsity=0.5,
        update_every=1,
        growth="grasp",
        prunable=KERNELS,
    )
    state, grads = tx.init(params()), jax.grad(loss)(params())
    with pytest.raises(MaskError, match=r"tx.update\(grads, state, params, value_fn=loss\)"):
        tx.update(grads, state, params())
    under = masks.apply(state.mask, params())
    _, after = jax.jit(lambda s, p: tx.update(grads, s, p, value_fn=loss))(state, under)
    assert masks.count(after.mask) == masks.count(state.mask)
    assert any(
        (a != b).any() for a, b in zip(kernels_of(after.mask), kernels_of(state.mask), strict=True)
    )


def test_what_a_transform_cannot_compute_is_refused_at_once():
    with pytest.raises(MaskError, match="growth='synflow' needs predict, x, which a transform"):
        prune_grow(optax.sgd(0.1), key=jax.random.key(0), sparsity=0.5, growth="synflow")
    with pytest.raises(MaskError, match="scores='random' needs key"):
        gradual_pruning(optax.sgd(0.1), sparsity=0.5, begin=0, end=9, scores="random")
    with pytest.raises(
        MaskError, match=r"growth is one of .*grasp, .*snip, synflow; got 'smallest'"
    ):
        prune_grow(optax.sgd(0.1), key=jax.random.key(0), sparsity=0.5, growth="smallest")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: scores.get(len), "Name a function by @jaxtickets.scores.register"),
        (lambda: scores.register("snip"), "'snip' is one of this library's scores"),
        (lambda: scores.register(3), "a score's name is a text; got 3"),
        (
            lambda: scores.register("x", needs=("gradient",)),
            "needs are among mask, grads, .*; got gradient",
        ),
        (lambda: scores.register("x")(3), "a score is a function; got 3"),
        (lambda: scores.get("snip")(ScoreInputs({})), "the score 'snip' needs grads in its inputs"),
        (
            lambda: prune_by_scores(masks.full(params(), KERNELS), params(), "snip", 0.5),
            "the score 'snip' needs grads",
        ),
        (
            lambda: prune_by_scores(
                masks.full(params(), KERNELS), params(), "magnitude", 0.5, rounds=0
            ),
            "rounds is how often the score is computed on the way, at least 1",
        ),
    ],
)
def test_what_does_not_go_is_said(make, message):
    with pytest.raises(MaskError, match=message):
        make()


def test_scores_say_what_they_need():
    batch = {name: scores.get(name).needs_batch for name in scores.names() if name != "signed"}
    assert {name for name, needed in batch.items() if needed} >= {
        "gradient",
        "snip",
        "grasp",
        "synflow",
    }
    assert not batch["magnitude"]
    assert not batch["random"]
    assert scores.get("synflow").rounds == 100
    mine = Score("mine", lambda inputs: inputs.params)
    assert scores.get(mine) is mine
