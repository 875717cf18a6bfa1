"""TreeNet: the trunk is shared and the branches are not; trunk and branch i together are the plain network."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from heads_weights import images, weights

import jaxtickets as jt
from jaxtickets.models import LeNet, TreeNet, WideResNet, classification


def test_trunk_and_branch_are_the_plain_network():
    """In training mode too, with its dropout off: outputs and batch statistics."""
    task = classification(TreeNet(WideResNet(10, 1), 2, branch_at="group2_block1"))
    x = images(8)
    params, state = weights(task, x)
    run = jax.jit(
        lambda t, *a: [t.apply(*a, x, False), t.apply(*a, x, True, jax.random.key(0))],
        static_argnums=0,
    )
    ours = run(task, params, state)
    for i in range(2):
        parts = [{**tree["trunk"], **tree[f"branch{i}"]} for tree in (params, state["batch_stats"])]
        theirs = run(task.plain, parts[0], {"batch_stats": parts[1]})
        for (heads, stats), (logits, plain_stats) in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(
                heads[i], logits, rtol=1e-5, atol=1e-5
            )  # float32, compiled twice
            stats = {**stats["batch_stats"]["trunk"], **stats["batch_stats"][f"branch{i}"]}
            jax.tree.map(
                lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
                stats,
                plain_stats["batch_stats"],
            )
    assert not np.allclose(*ours[0][0])


def test_a_head_moves_its_own_branch_and_the_trunk_and_the_loss_is_the_sum():
    task = classification(TreeNet(LeNet((4, 6, 8, 8)), 2, branch_at="dense1"))
    x, y = images(16), jnp.arange(4)
    params, state = weights(task, x)

    @jax.jit
    def gradients(params):
        def losses(params):
            outputs = task.apply(params, state, x, True, None)[0]
            each = [
                classification(LeNet((4, 6, 8, 8))).loss(outputs[i], y).mean() for i in range(2)
            ]
            return jnp.stack([*each, task.loss(outputs, y).mean()])

        return jax.jacrev(losses)(params)

    found = gradients(params)
    first, second, both = (jax.tree.map(lambda g, i=i: g[i], found) for i in range(3))
    for own, other, one in (("branch0", "branch1", first), ("branch1", "branch0", second)):
        assert all((leaf == 0).all() for leaf in jax.tree.leaves(one[other]))
        assert all(
            jnp.abs(leaf).max() > 1e-6
            for part in ("trunk", own)
            for leaf in jax.tree.leaves(one[part])
        )
    jax.tree.map(
        lambda a, b, c: np.testing.assert_allclose(a + b, c, rtol=1e-4, atol=1e-6),
        first,
        second,
        both,
    )


def test_branches_have_kernels_of_their_own_for_a_mask_to_cover():
    params = jax.eval_shape(
        classification(TreeNet(LeNet((4, 6, 8, 8)), 2)).init, jax.random.key(0), images(16)
    )[0]
    may = jt.masks.prunable(params)
    found = {
        path for path, m in zip(jt.masks.leaf_paths(may), jax.tree.leaves(may), strict=True) if m
    }
    shared = {"trunk/conv1/kernel", "trunk/conv2/kernel", "trunk/dense1/kernel"}
    assert found == shared | {
        f"branch{i}/{layer}/kernel" for i in range(2) for layer in ("dense2", "classifier")
    }


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (
            lambda: TreeNet(LeNet(), 2, branch_at="dense3"),
            ValueError,
            "branch_at.*conv2, dense1, dense2, classifier.*'dense3'",
        ),
        (lambda: TreeNet(LeNet(), 2, branch_at="conv1"), ValueError, "branch_at.*'conv1'"),
        (lambda: TreeNet(LeNet(), 1), ValueError, "members.*at least 2, got 1"),
        (lambda: TreeNet(TreeNet(LeNet(), 2), 2), TypeError, "plain Linen network"),
        (lambda: TreeNet(LeNet, 2), TypeError, "plain Linen network"),  # pyright: ignore[reportArgumentType]
    ],
)
def test_errors_say_what_is_allowed(make, error, words):
    with pytest.raises(error, match=words):
        make()
