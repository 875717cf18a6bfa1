"""Pruning once and step by step, remembering and rewinding, bags, and optimizers told apart by leaf: against NumPy and PyTorch."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from others import others
from tiny_task import CLASSES, counting, data, fit, ltr, quiet, reads, same

import jaxtickets as jt
from jaxtickets import masks
from jaxtickets.engine import read_metrics
from jaxtickets.masks import sparsity
from jaxtickets.plan import (
    SGD,
    Adam,
    Collect,
    Escape,
    Fork,
    Gradual,
    Length,
    Override,
    Plan,
    Prune,
    Remember,
    Rewind,
    Start,
    Train,
)
from jaxtickets.schedules import Constant, Linear, OneCycle
from jaxtickets.transforms import gradual_pruning


def steps(count, lr=0.1, **options):
    return Train(Length(count, "steps"), Constant(lr) if isinstance(lr, float) else lr, **options)


def survivors(ticket):
    return {path: int(ticket.mask[path].sum()) for path in ("w1", "w2")}


def test_prune_keeps_the_largest_and_exactly_so_many():
    """Each pruning of an earlier one's survivors, to a share of the original count."""
    cuts = (
        Prune(0.3, scope="layerwise"),
        Prune(0.5),
        Prune(0.7, "random"),
        Prune(0.8, "random", "layerwise"),
        Prune(0.95, keep_dense=("w2",)),
    )
    plan = Plan(
        "prunings",
        (Start(), steps(3), Collect(), *(phase for cut in cuts for phase in (cut, Collect()))),
        16,
    )
    dense, layerwise, overall, random, random_layers, last = fit(plan)
    assert survivors(layerwise) == {"w1": 128 - 38, "w2": 48 - 14}
    assert sum(survivors(overall).values()) == 88
    assert sum(survivors(random).values()) == 176 - 123
    # A random layer keeps so many of its own, or what is left of it.
    assert survivors(random_layers) == {
        path: min(survivors(random)[path], n) for path, n in (("w1", 26), ("w2", 10))
    }
    assert survivors(last) == {"w1": 128 - 121, "w2": survivors(random_layers)["w2"]}
    before = dense
    for ticket in (layerwise, overall, random, random_layers, last):
        for path in ("w1", "w2"):
            kept = ticket.mask[path]
            assert not np.any(kept & ~np.broadcast_to(before.mask[path], kept.shape))
            np.testing.assert_array_equal(
                ticket.params[path], np.where(kept, dense.params[path], 0)
            )  # nothing else has moved
        np.testing.assert_array_equal(ticket.params["b"], dense.params["b"])
        before = ticket
    for path, gone in (("w1", 38), ("w2", 14)):
        size = np.sort(np.abs(dense.params[path]).ravel())
        np.testing.assert_array_equal(
            layerwise.mask[path], np.abs(dense.params[path]) >= size[gone]
        )
    size = np.sort(
        np.concatenate([np.abs(layerwise.params[path]).ravel() for path in ("w1", "w2")])
    )
    for path in ("w1", "w2"):
        np.testing.assert_array_equal(
            overall.mask[path], np.abs(layerwise.params[path]) >= size[88]
        )
    smallest_kept = min(
        np.abs(dense.params[path][random.mask[path]]).min() for path in ("w1", "w2")
    )
    largest_lost = max(
        np.abs(dense.params[path][overall.mask[path] & ~random.mask[path]]).max()
        for path in ("w1", "w2")
    )
    assert smallest_kept < largest_lost


def test_ties_lose_the_exact_count_too():
    """All magnitudes are equal: the first ones stay, row by row."""

    def ones(key, x):
        params, state = quiet().init(key, x)
        return jax.tree.map(jnp.ones_like, params), state

    plan = Plan(
        "ties", (Start(2), Prune(0.3), Collect(), Prune(0.6, scope="layerwise"), Collect()), 16
    )
    overall, layerwise = fit(plan, of=dataclasses.replace(quiet(), init=ones)).tickets[:2]
    assert survivors(overall) == {"w1": 124, "w2": 0}
    assert overall.mask["w1"].ravel()[:124].all()
    assert survivors(layerwise) == {"w1": 128 - 76, "w2": 0}


def test_random_prunings_differ_between_lineages():
    a, b = fit(Plan("random", (Start(2), Prune(0.5, "random"), Collect()), 16))
    assert 0.2 < masks.iou(a.mask, b.mask) < 0.5  # a third; 176 weights leave a deviation of .04


def test_members_of_ltr_share_one_mask_and_those_of_pf_do_not():
    one, two = fit(ltr(2))
    assert same(one._replace(params={}), two._replace(params={}))
    assert sum(survivors(one).values()) == 176 - 105
    assert not np.array_equal(one.params["w1"], two.params["w1"])
    assert one.info["step"] == 12 + 9
    a, b = fit(jt.prune_finetune(2, 0.6, 1, 1, batch_size=16))
    assert sum(survivors(a).values()) == sum(survivors(b).values()) == 176 - 105
    assert masks.iou(a.mask, b.mask) < 0.8
    for ticket in (one, two, a, b):
        assert all(not np.any(ticket.params[path][~ticket.mask[path]]) for path in ("w1", "w2"))


def test_rewinding_gives_back_what_was_remembered_under_the_present_mask():
    plan = Plan(
        "rewind",
        (
            Start(),
            steps(3),
            Remember("x"),
            Collect(),
            steps(3),
            Prune(0.4),
            Collect(),
            Rewind("x", ("^b$",)),
            Collect(),
            Rewind("x"),
            Collect(),
        ),
        16,
    )
    then, now, kept, back = fit(plan, of=quiet())
    assert then.model_state["seen"] == kept.model_state["seen"] == back.model_state["seen"] == 48
    assert now.model_state["seen"] == 96
    assert sum(survivors(now).values()) == 106
    for ticket, b in ((kept, now), (back, then)):
        assert same(
            ticket._replace(params={}, model_state={}), now._replace(params={}, model_state={})
        )
        for path in ("w1", "w2"):
            np.testing.assert_array_equal(
                ticket.params[path], np.where(now.mask[path], then.params[path], 0)
            )
        np.testing.assert_array_equal(ticket.params["b"], b.params["b"])
    assert not np.array_equal(then.params["b"], now.params["b"])


def gradient(params, points):
    def loss(params):
        return (
            quiet()
            .loss(quiet().apply(params, {"seen": 0.0}, points.x, False, None)[0], points.y)
            .mean()
        )

    return jax.grad(loss)(params)


def test_moments_are_zero_after_a_rewind():
    """Then one step on all examples is plain gradient descent from the remembered weights."""
    points = data(augment=False)
    plan = Plan(
        "moments",
        (Start(), Remember("x"), Collect(), steps(6), Rewind("x"), steps(1), Collect()),
        96,
    )
    start, after = fit(plan, points, of=quiet())
    for path, slope in gradient(start.params, points).items():
        # One float32 step in another program; with the moments of six steps the difference would be of order 0.01.
        np.testing.assert_allclose(after.params[path], start.params[path] - 0.1 * slope, atol=1e-6)


def test_iterative_pruning_rewinds_as_often_as_it_likes():
    """Twice to the same weights; to others, remembered under other masks; and on with another optimizer."""
    plan = Plan(
        "iterative",
        (
            *(Start(), Remember("a"), Collect(), steps(2), Prune(0.3), Remember("b"), Collect()),
            *(
                steps(2),
                Rewind("a"),
                Collect(),
                steps(2),
                Prune(0.5),
                Rewind("a"),
                Prune(0.6),
                Collect(),
            ),
            *(steps(2, 0.01, optimizer=Adam()), Rewind("b"), Collect()),
        ),
        16,
    )
    a, b, first, second, third = fit(plan)
    for ticket, origin, sparse in ((first, a, 0.3), (second, a, 0.6), (third, b, 0.6)):
        for path in ("w1", "w2"):
            np.testing.assert_array_equal(
                ticket.params[path], np.where(ticket.mask[path], origin.params[path], 0)
            )
        assert sum(survivors(ticket).values()) == sparsity.num_kept(176, sparse)


def row_init(key, x):
    a, b = jax.random.split(key)
    return {
        "w1": jax.random.normal(a, (60, CLASSES)),
        "w2": 0.5 * jax.random.normal(b, (36, CLASSES)),
    }, {}


def row_apply(params, state, x, train, key):
    return jnp.matmul(x[:, :60], params["w1"]) + jnp.matmul(x[:, 60:], params["w2"]), state


def row_loss(outputs, y):
    return jnp.sum((outputs - jax.nn.one_hot(y, CLASSES)) ** 2, -1)


@pytest.mark.parametrize("scope", ["layerwise", "global"])
def test_gradual_pruning_is_the_public_transform_bit_for_bit(tmp_path, scope):
    """Thirteen steps of all examples, so that every step is an epoch and is written down.

    A weight's gradient comes from one example alone, and learning rate and momentum are powers of two: no sum is rounded
    otherwise in another order or another program.
    """
    points = counting()[1]
    rows = dataclasses.replace(quiet(), init=row_init, apply=row_apply, loss=row_loss)
    dense = Train(Length(1), Constant(0.125), SGD(0.5))
    plan = Plan(
        "gradual",
        (
            Start(),
            Collect(),
            dense,
            dataclasses.replace(
                dense, length=Length(12), evolve=Gradual(0.75, 0.25, 0.75, 2, scope)
            ),
            Collect(),
        ),
        96,
    )
    start, after = fit(plan, points, of=rows, out=tmp_path)
    # The schedule starts at step 1 + 3 and ends at 1 + 9, counted from 1; the transform counts from 0. Masks change at every second step
    # from its start, and at its end.
    tx = gradual_pruning(
        optax.sgd(0.125, 0.5),
        sparsity=0.75,
        begin=3,
        end=9,
        update_every=2,
        scope=scope,
        prunable=rows.prunable,
    )
    params = jax.tree.map(jnp.asarray, start.params)
    state = tx.init(params)

    @jax.jit
    def step(params, state):
        grads = jax.grad(
            lambda params: row_loss(row_apply(params, {}, points.x, True, None)[0], points.y).mean()
        )(params)
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    densities = []
    for number in range(1, 14):
        params, state = step(params, state)
        densities.append(masks.density(state.mask))
        share = min(
            max(2 * ((number - 4) // 2) / 6, 0), 1
        )  # of the schedule, at the last update before this step
        pruned = 0.75 - 0.75 * (1 - share) ** 3
        layers = (180, 108) if scope == "layerwise" else (288,)
        assert masks.count(state.mask) == sum(n - math.floor(round(pruned, 6) * n) for n in layers)
    assert [record["density"] for record in read_metrics(tmp_path)] == [
        [density] for density in densities
    ]
    assert densities[-1] == 0.25
    for path in ("w1", "w2"):
        np.testing.assert_array_equal(after.params[path], params[path])
        np.testing.assert_array_equal(after.mask[path], state.mask[path])


def batches_of(plan, **options):
    """How often each example was read until each of the plan's tickets."""
    of, points = counting()
    return [reads(ticket) for ticket in fit(plan, points, of=of, **options)]


def count_of(count, unit="steps", batch=16, **options):
    return Train(Length(count, unit), Constant(float(batch)), SGD(momentum=0.0), **options)


def test_bags_are_of_their_exact_size_fixed_and_each_members_own():
    """Three passes of 55 of the 96 examples, 3 steps of 16 each, and three more after a ticket was collected."""
    train = count_of(9, bag=0.58)
    seen = batches_of(
        Plan("bags", (Start(2), train, Collect(), train, train, train, Collect()), 16)
    )
    bags = []
    for halfway, end in (seen[:2], seen[2:]):
        assert halfway.sum() == 9 * 16
        assert end.sum() == 36 * 16
        assert set(np.flatnonzero(halfway)) <= set(np.flatnonzero(end))
        # Every pass leaves seven of the 55 out; that one is left out of all twelve has a probability of 1e-9.
        assert np.count_nonzero(end) == math.floor(0.58 * 96) == 55
        assert end.max() <= 12
        bags.append(set(np.flatnonzero(end)))
    assert 20 < len(bags[0] & bags[1]) < 45  # 31.5 of 55 by chance, deviation 2.4


def test_an_epoch_is_one_pass_also_after_a_change_of_bag_and_a_fork():
    """After seven steps of six an epoch, half the data is read once; the children then read all of it once."""
    whole, part = count_of(7), count_of(1, "epochs", bag=0.5)
    plan = Plan(
        "passes",
        (
            Start(),
            whole,
            Collect(),
            part,
            Collect(),
            Fork(2, "parent"),
            count_of(1, "epochs"),
            Collect(),
        ),
        16,
    )
    first, second, *children = batches_of(plan)
    assert sorted(set(first)) == [1, 2]
    assert first.sum() == 7 * 16
    assert sorted(second - first) == [0] * 48 + [1] * 48
    for child in children:
        assert (child - second).tolist() == [1] * 96


def test_an_escape_looks_at_the_bag_alone():
    """A batch is the bag, and only the weight of an example's class has a gradient: 48 weights, which are all grown or stay."""
    of, points = counting()
    bag = count_of(2, "epochs", batch=48, bag=0.5)
    (inside,) = batches_of(Plan("bag", (Start(), bag, Collect()), 48))
    assert sorted(inside) == [0] * 48 + [2] * 48
    before, after = fit(
        Plan("escape", (Start(1, 0.7, "uniform"), bag, Collect(), Escape(0.5), Collect()), 48),
        points,
        of=of,
    )
    read = np.flatnonzero(inside)
    assert before.mask["w"][read, points.y[read]].sum() < 30
    assert after.mask["w"][read, points.y[read]].all()


def torch_steps(start, groups, make, count, points, each=None):
    """The perceptron's weights after `count` steps of a PyTorch optimizer on all examples."""
    torch = others("torch")
    weights = {
        path: torch.tensor(np.asarray(start.params[path]), requires_grad=True)
        for path in ("w1", "b", "w2")
    }
    optimizer = make([{"params": [weights[path]], **options} for path, options in groups.items()])
    x, y = torch.tensor(points.x), torch.tensor(points.y, dtype=torch.long)
    for number in range(count):
        if each is not None:
            for group in optimizer.param_groups:
                group.update(each(number))
        optimizer.zero_grad()
        outputs = torch.tanh(x @ weights["w1"] + weights["b"]) @ weights["w2"]
        torch.nn.functional.cross_entropy(outputs, y).backward()
        optimizer.step()
    return {path: weight.detach().numpy() for path, weight in weights.items()}


def compare_with_torch(train, groups, make, each=None, count=5):
    points = data(augment=False)
    start, after = fit(
        Plan("torch", (Start(), Collect(), train, Collect()), 96), points, of=quiet()
    )
    expected = torch_steps(start, groups, make, count, points, each)
    for path, weight in expected.items():
        assert np.abs(after.params[path] - start.params[path]).max() > 1e-3
        # Five float32 steps of order 0.01 to 0.1.
        np.testing.assert_allclose(after.params[path], weight, atol=2e-6)


OVERRIDES = (
    Override("w1", 0.5, 0.3),
    Override("^b$", 3.0, 0.0),
    Override("w", 1.0, 0.0),
    Override("w2", 9.0, 9.0),
)


@pytest.mark.parametrize("nesterov", [False, True])
def test_overrides_are_pytorchs_parameter_groups(nesterov):
    """The first that matches counts: of w1 the first, of w2 the third."""
    torch = others("torch")
    train = steps(5, optimizer=SGD(0.9, nesterov, 0.1, OVERRIDES[:2]))
    groups = {
        "w1": {"lr": 0.05, "weight_decay": 0.3},
        "b": {"lr": 0.3, "weight_decay": 0.0},
        "w2": {"lr": 0.1, "weight_decay": 0.1},
    }
    compare_with_torch(
        train, groups, lambda groups: torch.optim.SGD(groups, momentum=0.9, nesterov=nesterov)
    )


def test_overrides_of_adam_are_pytorchs_parameter_groups():
    torch = others("torch")
    train = steps(5, 0.01, optimizer=Adam(weight_decay=0.1, overrides=OVERRIDES))
    groups = {
        "w1": {"lr": 0.005, "weight_decay": 0.3},
        "b": {"lr": 0.03, "weight_decay": 0.0},
        "w2": {"lr": 0.01, "weight_decay": 0.0},
    }
    compare_with_torch(
        train, groups, lambda groups: torch.optim.AdamW(groups, betas=(0.9, 0.999), eps=1e-8)
    )


@pytest.mark.parametrize("nesterov", [False, True])
def test_momentum_over_a_phase_is_pytorchs_changed_by_hand(nesterov):
    torch = others("torch")
    lr, momentum = Linear(0.1, 0.02), OneCycle(0.95, 0.5, 0.9, 0.4)
    train = steps(5, lr, optimizer=SGD(0.9, nesterov, 1e-2), momentum=momentum)
    compare_with_torch(
        train,
        {"w1": {}, "b": {}, "w2": {}},
        lambda groups: torch.optim.SGD(
            groups, lr=1.0, momentum=0.9, nesterov=nesterov, weight_decay=1e-2
        ),
        lambda number: {"lr": lr(number, 5), "momentum": momentum(number, 5)},
    )
