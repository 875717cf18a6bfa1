"""Plans in which whole units go and come: `Evolve(structure=Units())`, through to tickets."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_task import CLASSES, HIDDEN, IN, data, dst, edst, fit, quiet, task

import jaxtickets as jt
from jaxtickets import masks
from jaxtickets.engine.network_units import UnitsOf
from jaxtickets.engine.state import Weights
from jaxtickets.engine.steps import GROWTH
from jaxtickets.errors import PlanError
from jaxtickets.ledger.layers import widths_that_fit
from jaxtickets.masks import NM, Units
from jaxtickets.masks.sparsity import layer_budgets, prunable_shapes
from jaxtickets.members import member_keys
from jaxtickets.plan import (
    SGD,
    Collect,
    Escape,
    Evolve,
    Fork,
    Gradual,
    Length,
    Plan,
    Prune,
    Shrink,
    Start,
    Train,
)
from jaxtickets.schedules import Constant
from jaxtickets.transforms import exchange_units

HALF = Start(1, 0.5, structure=Units())
LIVE = HIDDEN // 2


def steps(count=6, **options):
    evolve = Evolve(**({"update_every": 3, "drop_fraction": 0.4, "structure": Units()} | options))
    return Train(Length(count, "steps"), Constant(0.05), SGD(0.9), evolve)


def plan(*phases):
    return Plan("units", phases, 16)


def alive(ticket):
    """Which hidden units a ticket has; their masks are whole."""
    before, behind = np.asarray(ticket.mask["w1"]), np.asarray(ticket.mask["w2"])
    np.testing.assert_array_equal(before.any(0), before.all(0))
    np.testing.assert_array_equal(behind.any(1), behind.all(1))
    np.testing.assert_array_equal(before.any(0), behind.any(1))
    return before.any(0)


@pytest.mark.parametrize("growth", ["random", "gradient"])
@pytest.mark.parametrize("weight_update", [True, False])
def test_a_run_is_what_a_loop_by_hand_gives(growth, weight_update):
    """Momentum, masks and the exchange after the third step; all examples are one batch."""
    of, few = quiet(), data(16, augment=False)
    training = steps(5, growth=growth, weight_update=weight_update)
    first, last = fit(plan(HALF, Collect(), training, Collect()), few, of=of)
    x, y = jnp.asarray(few.x), jnp.asarray(few.y)
    params, mask = (jax.tree.map(jnp.asarray, part) for part in (first.params, first.mask))
    spec = jax.ShapeDtypeStruct((IN,), jnp.float32)
    units = UnitsOf(of, spec)(Weights(params, first.model_state))
    (key,) = member_keys(0, 1)
    key = jax.random.fold_in(key, GROWTH)

    def loss(params):
        return jnp.mean(of.loss(of.apply(params, {"seen": jnp.float32(0)}, x, True, key)[0], y))

    moments = jax.tree.map(jnp.zeros_like, params)
    for step in range(1, 6):
        if weight_update or step != 3:
            grads = masks.apply(mask, jax.grad(loss)(params))
            moments = jax.tree.map(lambda m, g: 0.9 * m + g, moments, grads)
            params = jax.tree.map(lambda p, m: p - 0.05 * m, params, moments)
        if step == 3:
            how = (0.4, jax.random.fold_in(key, 3), lambda k: of.init(k, x), growth, loss)
            new = exchange_units(units, mask, params, first.model_state, *how)
            assert int((new.mask["w1"] & ~mask["w1"]).any(0).sum()) == int(0.4 * LIVE)
            params, mask = new.params, new.mask
            moments = masks.apply(new.survivors, moments)
    np.testing.assert_array_equal(last.mask["w1"], mask["w1"])
    for name, leaf in params.items():
        np.testing.assert_allclose(last.params[name], leaf, atol=1e-6)
    assert not np.array_equal(alive(first), alive(last))


@pytest.mark.parametrize("growth", ["random", "gradient"])
def test_members_together_are_members_alone(growth):
    """Up to rounding (the programs are fused otherwise), with the same units."""
    start = dataclasses.replace(HALF, width=2)
    phases = start, steps(9, growth=growth), Collect(), Escape(0.5, growth, structure=Units())
    of = plan(*phases, Collect(), Shrink(1), steps(2), Collect())
    alone = fit(of, layout=jt.Layout(1))
    together = fit(of, layout=jt.Layout(2, "unroll"))
    vmapped = fit(of, layout=jt.Layout(2, "vmap"))
    for others in (together, vmapped):
        for a, b in zip(alone, others, strict=True):
            for name in a.params:
                np.testing.assert_array_equal(a.mask[name], b.mask[name])
                np.testing.assert_allclose(a.params[name], b.params[name], atol=1e-5)
    trained, escaped, shrunk = (ticket for ticket in alone if ticket.info["lineage"] == 0)
    assert alive(trained).sum() == alive(escaped).sum() == LIVE
    assert (alive(trained) & alive(escaped)).sum() == LIVE - LIVE // 2
    assert trained.info["ever_active"] > 0.5 == trained.info["density"]
    assert shrunk.params["w1"].shape == (IN, LIVE)
    assert shrunk.mask["w1"].all()  # where all are there, none goes


def test_dst_gives_the_small_networks():
    tickets = fit(dst(2, structure=Units(), growth="random"))
    for ticket in tickets:
        assert ticket.params["w1"].shape == (IN, LIVE)
        assert ticket.info["shrunk"] == [HIDDEN, LIVE]
        assert ticket.info["density"] == 0.5
    assert tickets.predict_proba(data().x).shape == (96, CLASSES)
    best = jt.dst(2, structure=Units(), collect="best", validation=10)
    assert not any(phase.shrinks for phase in best.phases)


def test_edst_gives_tickets_of_one_run_that_shrink():
    tickets = fit(edst(3, structure=Units()))
    lives = [alive(ticket) for ticket in tickets]
    assert [live.sum() for live in lives] == [LIVE] * 3
    assert not any(np.array_equal(a, b) for a, b in itertools.pairwise(lives))
    small = jt.shrink(tickets)
    assert {ticket.params["w1"].shape for ticket in small} == {(IN, LIVE)}
    np.testing.assert_allclose(
        small.predict_proba(data().x), tickets.predict_proba(data().x), atol=1e-6
    )


@pytest.mark.parametrize(
    "before",
    [
        (Start(1), Prune(0.5, scope="layerwise", structure=Units())),
        (Start(1, 0.2, keep_dense=("w2",)), Prune(0.5, scope="layerwise", structure=Units())),
        (Start(1), Fork(2, "anti_random", unit="neuron", keep_dense=())),
        (
            Start(1),
            Train(
                Length(3, "steps"),
                Constant(0.05),
                SGD(0.9),
                Gradual(0.5, 0, 0.5, 1, structure=Units()),
            ),
        ),
    ],
    ids=["prune", "keep_dense", "fork", "gradual"],
)
def test_whatever_left_units_dead(before):
    tickets = fit(plan(*before, Collect(), steps(), Collect()))
    first, last = tickets.tickets[0], tickets.tickets[-1]
    live = [np.asarray(t.mask["w2"]).any(1) for t in (first, last)]
    assert 0 < live[0].sum() == live[1].sum() < HIDDEN
    assert not masks.audit(last.mask, last.params)


def test_what_is_asked_of_a_plan():
    whole = plan(HALF, steps(), Escape(structure=Units()), steps(), Collect())
    assert Plan.from_json(whole.to_json()) == whole
    for part in (Evolve, Escape):
        with pytest.raises(
            PlanError, match=r"growth of Units\(\) is one of random, gradient; got 'snip'"
        ):
            part(growth="snip", structure=Units())
        with pytest.raises(PlanError, match=r"below 1 for Units\(\): 1 would leave layers without"):
            part(drop_fraction=1.0, structure=Units())
    with pytest.raises(PlanError, match="channels are removed from masks without a structure"):
        Evolve(channels=0.4, structure=Units())
    with pytest.raises(PlanError, match="no mask to evolve"):
        plan(Start(), steps(), Collect())
    for phases in ((steps(), Collect()), (Escape(structure=Units()), Collect())):
        with pytest.raises(PlanError, match=r"no phase before it prunes whole units.*give Start"):
            plan(Start(1, 0.5), *phases)
    for part in (NM(2, 4), Units()):
        assert jt.dst(2, structure=part).structures == [part, part]
        assert jt.edst(2, structure=part).structures == [part] * 5


def test_the_ledger_by_hand():
    """A unit has 8 + 3 weights; half of 16 live, so a forward pass is half of 2 x 176 FLOPs."""
    dense, count = 2.0 * HIDDEN * (IN + CLASSES), 12
    for growth, looks in (("random", 0.0), ("gradient", 3 * dense * count / 3)):
        of = plan(
            HALF, steps(count, growth=growth), Escape(0.5, growth, structure=Units()), Collect()
        )
        ledger = jt.cost(of, task(), data())
        training, escape = ledger.phases
        escaped = 3 * dense if looks else 0.0
        assert training.flops == pytest.approx(16 * (3 * dense / 2 * count + looks))
        assert training.executed == pytest.approx(16 * (3 * dense * count + looks))
        assert escape.flops == escape.executed == pytest.approx(16 * escaped)
    small = jt.cost(plan(HALF, steps(count), Shrink(1), Collect()), task(), data())
    assert small.inference == small.inference_executed == pytest.approx(0.5)


@pytest.mark.parametrize("distribution", ["uniform", "erk"])
def test_a_network_comes_out_as_wide_as_the_ledger_says(distribution):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(64, 16, 16, 1)).astype(np.float32), rng.integers(0, 10, 64)
    of = jt.classification(jt.models.LeNet((16, 32, 64, 48), num_classes=10))
    start = Start(1, 0.7, distribution, structure=Units())
    train = jt.Dataset(x, y, 10, name="noise")
    whole = plan(start, Shrink(1), Train(Length(1, "steps")), Collect())
    (ticket,) = fit(whole, train, of=of)
    assert jt.cost(whole, of, train).density == pytest.approx(ticket.info["density"], abs=1e-9)
    params, state = jax.eval_shape(of.init, jax.eval_shape(lambda: jax.random.key(0)), x[:1])
    spec = jax.ShapeDtypeStruct(x.shape[1:], jnp.float32)
    units = UnitsOf(of, spec)(Weights(params, state))
    budgets = layer_budgets(prunable_shapes(params, of.prunable), 0.7, distribution)
    said = widths_that_fit(units, sum(budgets.values()), budgets)
    leaves = dict(zip(masks.leaf_paths(ticket.params), jax.tree.leaves(ticket.params), strict=True))
    found = tuple(leaves[group[0]].shape[-1] for group in units.groups)
    assert said == found
    # Of equal densities all layers lose the same share; by ERK small ones keep more.
    shares = np.divide(found, units.sizes)
    assert (shares.max() - shares.min() < 0.1) == (distribution == "uniform")


# -- shares that leave a layer hardly a unit ---------------------------------------------------------


@pytest.mark.parametrize(
    "phases",
    [
        (Start(1, 0.98, structure=Units()), Train(Length(1))),
        (
            Start(1),
            Train(Length(1)),
            Prune(0.999, structure=Units()),
            Shrink(1),
            Shrink(1),
            Train(Length(1)),
        ),
        (
            Start(1),
            Fork(2, "random", 0.999, unit="neuron", keep_dense=()),
            Shrink(1),
            Train(Length(1)),
        ),
        (
            Start(1, 0.5),
            Train(Length(2), evolve=Evolve(2, channels=0.999)),
            Shrink(1),
            Train(Length(1)),
        ),
    ],
    ids=["start", "prune", "neuron", "channels"],
)
def test_one_unit_of_a_layer_always_stays(phases):
    tickets = fit(plan(*phases, Collect()))
    for ticket in tickets:
        assert np.asarray(ticket.mask["w2"]).any(1).sum() <= 1
        assert ticket.params["w2"].shape[0] in (1, HIDDEN)
        assert ticket.info.get("shrunk", [HIDDEN, 1]) == [HIDDEN, 1]
    assert np.isfinite(tickets.predict_proba(data().x)).all()
