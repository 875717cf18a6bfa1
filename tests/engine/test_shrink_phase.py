"""Shrink: a plan's networks become the smaller ones that compute the same, and training goes on in them."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from tiny_task import CLASSES, HIDDEN, IN, data, fit, leaves, quiet, same, shrunk, task

import jaxtickets as jt
from jaxtickets.dataset import Dataset
from jaxtickets.engine.network_units import UnitsOf
from jaxtickets.engine.state import Weights
from jaxtickets.errors import MaskError, PlanError
from jaxtickets.masks import Units
from jaxtickets.masks.cutting import Leaf, cut, dead_units, staying_units
from jaxtickets.plan import (
    L1,
    SGD,
    Adam,
    Collect,
    Evolve,
    Fork,
    Gradual,
    Length,
    Optax,
    Plan,
    Prune,
    Remember,
    Rewind,
    Shrink,
    Start,
    Train,
)
from jaxtickets.schedules import Constant
from jaxtickets.tracing.flops import forward_flops

HALF = Prune(0.5, scope="layerwise", structure=Units())
WEIGHTS = HIDDEN * (IN + CLASSES)


def steps(count=3, optimizer=None, **options):
    return Train(Length(count, "steps"), Constant(0.05), optimizer or SGD(), **options)


def plan(*phases, width=1):
    return Plan("shrinking", (Start(width), *phases), 16)


def narrowed(ticket, units=None):
    """The ticket without its dead units, cut by hand: hidden unit i is column i of w1, row i of w2 and b[i]."""
    alive = np.flatnonzero(ticket.mask["w2"].any(1)) if units is None else units
    params = ticket.params
    return {"b": params["b"][alive], "w1": params["w1"][:, alive], "w2": params["w2"][alive]}


def test_the_network_loses_its_dead_units_and_nothing_else():
    before, after = fit(plan(steps(), HALF, Collect(), Shrink(1), Collect()))
    assert {name: leaf.shape for name, leaf in after.params.items()} == {
        "b": (8,),
        "w1": (IN, 8),
        "w2": (8, CLASSES),
    }
    for name, leaf in narrowed(before).items():
        np.testing.assert_array_equal(after.params[name], leaf)
    assert after.info["shrunk"] == [HIDDEN, 8]
    assert after.info["density"] == before.info["density"] == 0.5  # of the original count


@pytest.mark.parametrize(
    ("model", "shape"),
    [
        (jt.models.LeNet((8, 16, 24, 16), num_classes=10), (16, 16, 1)),
        (jt.models.WideResNet(10, 1, num_classes=10), (8, 8, 1)),
        (jt.models.ResNet(10, width=8), (8, 8, 3)),
        (jt.models.DenseNet((2, 2), growth=8), (8, 8, 3)),
    ],
    ids=["LeNet", "WideResNet", "ResNet", "DenseNet"],
)
def test_outputs_are_those_of_the_masked_network(model, shape):
    rng = np.random.default_rng(0)
    train = Dataset(
        rng.normal(size=(64, *shape)).astype(np.float32), rng.integers(0, 10, 64), 10, name="noise"
    )
    of = jt.classification(model)
    tickets = fit(
        plan(steps(2), HALF, Collect(), Shrink(1), Collect(), Shrink(), steps(1), Collect()),
        train,
        of=of,
    )
    wide, small, further = tickets
    assert sum(a.size for a in leaves(small.params)) < 0.6 * sum(
        a.size for a in leaves(wide.params)
    )
    assert [a.shape for a in leaves(small.params)] == [a.shape for a in leaves(further.params)]
    log_p = tickets.member_log_proba(train)
    np.testing.assert_allclose(log_p[1], log_p[0], atol=2e-5)  # sums in another order


@pytest.mark.parametrize(
    "optimizer",
    [SGD(0.9, True, 1e-3), Adam(weight_decay=0.1, clip_norm=0.5), Optax("lion"), Optax("sm3")],
    ids=["nesterov", "adam", "lion", "sm3"],
)
def test_training_goes_on_as_it_would_have(optimizer):
    """With moments: the masked network of the same steps, cut afterwards, is the shrunk one."""
    phases = steps(4, optimizer), HALF, steps(3, optimizer)
    (wide,) = fit(plan(*phases, steps(5, optimizer), Collect()), of=quiet())
    (small,) = fit(plan(*phases, Shrink(1), steps(5, optimizer), Collect()), of=quiet())
    if optimizer == Optax("sm3"):  # has moments of rows and columns, which begin afresh
        assert not np.allclose(small.params["w1"], narrowed(wide)["w1"], atol=1e-6)
        return
    for name, leaf in narrowed(wide).items():
        np.testing.assert_allclose(small.params[name], leaf, atol=1e-6)


def test_a_rewind_goes_back_to_the_remembered_weights_of_the_units_that_stay():
    first, pruned, rewound = fit(
        plan(
            Remember("first"),
            Collect(),
            steps(),
            HALF,
            Collect(),
            Shrink(1),
            steps(),
            Rewind("first"),
            Collect(),
        )
    )
    alive = np.flatnonzero(pruned.mask["w2"].any(1))
    for name, leaf in narrowed(first, alive).items():
        np.testing.assert_array_equal(rewound.params[name], leaf)


def test_sparsities_stay_shares_of_the_original_count():
    gradual = steps(6, evolve=Gradual(0.9, 0.0, 0.5, 1, "global"))
    at_once, layer_by_layer, slowly = fit(
        plan(
            HALF,
            Shrink(1),
            Prune(0.7),
            Collect(),
            Prune(0.8, scope="layerwise"),
            Collect(),
            gradual,
            Collect(),
        )
    )
    kept = [
        sum(int(m.sum()) for m in ticket.mask.values() if m.ndim) for ticket in (at_once, slowly)
    ]
    assert kept == [WEIGHTS - int(0.7 * WEIGHTS), WEIGHTS - int(0.9 * WEIGHTS)]
    each = [int(layer_by_layer.mask[name].sum()) for name in ("w1", "w2")]
    assert each == [128 - int(0.8 * 128), 48 - int(0.8 * 48)]
    assert [t.info["density"] for t in (at_once, slowly)] == [k / WEIGHTS for k in kept]


def test_connections_pruned_inside_the_units_that_stay_stay_pruned_and_may_evolve():
    first, last = fit(
        plan(
            HALF,
            Prune(0.7),
            Collect(),
            Shrink(1),
            steps(6, evolve=Evolve(2, 0.3)),
            Collect(),
        )
    )
    # What feeds a unit that nothing reads is gone with it; the rest evolves at a constant number.
    dead = ~first.mask["w2"].any(1)
    kept = sum(int(first.mask[name].sum()) for name in ("w1", "w2")) - int(
        first.mask["w1"][:, dead].sum()
    )
    assert last.info["density"] == kept / WEIGHTS
    assert not (np.asarray(last.params["w1"])[~last.mask["w1"]]).any()
    assert last.params["w1"].shape[1] == dead_and_alive(first)[1]


def dead_and_alive(ticket):
    weights = Weights(ticket.params, ticket.model_state)
    units = UnitsOf(task(), jax.ShapeDtypeStruct((IN,), jnp.float32))(weights)
    dead = dead_units(units, ticket.mask)
    return int(dead.sum()), int((~dead).sum())


@pytest.mark.parametrize("group", [1, 2, 3])
def test_networks_that_train_together_come_out_in_one_shape(group):
    """Of a global threshold each has its own number of units."""
    phases = steps(), Prune(0.8), Collect(), Shrink(1), Collect()
    tickets = fit(plan(*phases, width=3), layout=jt.Layout(group, "vmap"))
    wide, small = tickets[[0, 2, 4]], tickets[[1, 3, 5]]
    needed = [dead_and_alive(ticket)[1] for ticket in wide]
    assert len(set(needed)) > 1
    together = [needed[i : i + group] for i in range(0, 3, group)]
    widths = [max(some) for some in together for _ in some]
    assert [ticket.params["w1"].shape[1] for ticket in small] == widths
    x = data().x
    np.testing.assert_allclose(small.member_log_proba(x), wide.member_log_proba(x), atol=1e-5)


def test_widths_are_rounded_up_by_dead_units():
    (ticket,) = fit(plan(Prune(0.65, structure=Units()), Shrink(4), steps(), Collect()))
    assert ticket.params["w1"].shape == (IN, 8)
    assert np.asarray(ticket.mask["w1"]).any(0).sum() == ticket.mask["w2"].any(1).sum() == 5


def test_children_are_cut_from_shrunk_parents():
    tickets = fit(
        plan(
            steps(),
            HALF,
            Shrink(1),
            Fork(2, "partition", unit="neuron"),
            Shrink(1),
            steps(),
            Collect(),
        )
    )
    assert [ticket.params["w1"].shape for ticket in tickets] == [(IN, 4)] * 2
    assert [ticket.info["shrunk"] for ticket in tickets] == [[HIDDEN, 4]] * 2


def test_what_is_collected_is_saved_loaded_evaluated_and_trained_on(tmp_path):
    tickets = fit(plan(steps(), Prune(0.8), Shrink(1), steps(), Collect(), width=3))
    assert len({ticket.params["w1"].shape for ticket in tickets}) > 1
    tickets.save(tmp_path / "file.safetensors")
    again = jt.load(tmp_path / "file.safetensors", task())
    assert all(itertools.starmap(same, zip(tickets, again, strict=True)))
    assert again.plan == tickets.plan
    np.testing.assert_array_equal(again.predict_proba(data().x), tickets.predict_proba(data().x))
    result = jt.evaluate(again, data(), suite=["diversity"])
    assert np.isnan(result.diversity.mask_iou)  # the same index is another unit in each
    of_one_run = fit(plan(HALF, Shrink(1), steps(), Collect(), Prune(0.7), Collect()))
    assert jt.evaluate(of_one_run, data()).diversity.mask_iou == pytest.approx(0.3 / 0.5, abs=0.01)
    (further,) = fit(plan(steps(), Collect()), start_from=again[:1])
    assert further.params["w1"].shape == again.tickets[0].params["w1"].shape


def test_where_nothing_is_dead_it_says_so(capfd):
    (once,) = fit(plan(steps(), Shrink(1), steps(), Collect()), progress=True)
    assert "nothing to cut out, all 16 units are alive" in " ".join(capfd.readouterr().err.split())
    (never,) = fit(plan(steps(), steps(), Collect()))
    assert same(once, never)
    assert "shrunk" not in once.info
    (twice,) = fit(plan(steps(), HALF, Shrink(4), Shrink(4), steps(), Collect()), progress=True)
    told = " ".join(capfd.readouterr().err.split())
    assert "16 units to 8: w1 16 to 8" in told
    assert "all 8 units are alive" in told
    assert same(twice, fit(plan(steps(), HALF, Shrink(4), steps(), Collect())).tickets[0])


class Fixed(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(CLASSES)(nn.relu(nn.Dense(12, name="middle")(x)))


def test_a_network_of_fixed_widths_is_an_error_before_anything_is_compiled():
    of = jt.classification(Fixed(), num_classes=CLASSES)
    with pytest.raises(MaskError, match=r"fewer units of middle: .*shrink=False"):
        fit(plan(steps(), HALF, Shrink(), steps(), Collect()), of=of)
    fit(plan(steps(), HALF, Collect()), of=of)


@pytest.mark.parametrize("multiple", [0, -8, 1.5, True, "8"])
def test_a_multiple_is_a_positive_whole_number(multiple):
    with pytest.raises(PlanError, match="multiple"):
        Shrink(multiple)


def test_penalties_of_earlier_tickets_do_not_go_with_it():
    with pytest.raises(PlanError, match="on='earlier'"):
        plan(steps(penalty=L1(Constant(1e-4), "earlier")), HALF, Shrink(), Collect(), width=2)


def test_a_run_of_it_is_shown_in_json():
    assert Plan.from_json(shrunk().to_json()) == shrunk()
    assert "6. Shrink(multiple=4)" in str(shrunk())


def test_staying_units_by_hand():
    """Two layers of 5 and 3 units, two networks."""
    leaf = Leaf(
        "w",
        (5, 3),
        True,
        (np.arange(5), np.arange(5, 8)),
        (np.ones(5, bool), np.zeros(3, bool)),
        ((), ()),
    )
    table = jt.units.UnitTable((("a",), ("w",)), (5, 3), (), (leaf,), (), None)
    dead = [np.array([1, 1, 0, 0, 1, 1, 1, 1], bool), np.array([1, 0, 1, 1, 1, 0, 0, 1], bool)]
    first, second = staying_units(table, dead)
    assert first.tolist() == [False, False, True, True, False, True, True, False]
    assert second.tolist() == [True, True, False, False, False, True, True, False]
    weights = np.arange(15).reshape(5, 3)
    assert cut([leaf], weights, first).tolist() == [[6, 7], [9, 10]]
    assert cut([leaf], np.ones((), bool), first).shape == ()


def test_a_network_comes_out_as_wide_as_the_ledger_says():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(256, 16, 16, 1)).astype(np.float32), rng.integers(0, 10, 256)
    train = Dataset(x, y, 10, name="noise")
    task = jt.classification(jt.models.LeNet((16, 32, 64, 48), num_classes=10))
    plan = jt.edst(2, 0.8, explore=4, refine=1, channels=0.5, update_every=5, batch_size=64)
    tickets = jt.fit(plan, task, train, key=0, progress=False)
    for ticket in tickets:
        assert ticket.params["conv1"]["kernel"].shape[-1] == 8
        assert ticket.params["conv2"]["kernel"].shape[-2:] == (8, 16)
        assert ticket.params["dense2"]["kernel"].shape == (32, 24)
        assert ticket.info["density"] == pytest.approx(0.2, abs=2e-4)  # ERK rounds layer by layer
    ledger = jt.cost(plan, task, train)
    executed = [phase.executed / phase.steps for phase in ledger.phases if phase.steps]
    assert executed[0] > executed[1] > executed[2] == executed[3] == executed[4]
    small = tickets.tickets[0]
    one = jax.ShapeDtypeStruct((1, 16, 16, 1), jnp.float32)
    flops = forward_flops(
        lambda p, x: task.apply(p, {}, x, False, None)[0], small.params, one, batch=1
    )
    assert ledger.inference_executed == pytest.approx(2 * flops.total / ledger.forward_dense)
