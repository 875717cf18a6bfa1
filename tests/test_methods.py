"""The methods' plans, phase by phase, against Liu et al. (2021), section 3 and appendix A."""

import inspect

import pytest

import jaxtickets as jt
from jaxtickets.plan import SGD, Adam, Collect, Escape, Evolve, Length, PlanError, Start, Train
from jaxtickets.schedules import Constant, Cosine, Piecewise

STEPS = 390  # of 128 in 50,000 examples


def kinds(plan):
    return [type(phase).__name__ for phase in plan.phases]


def rates(train):
    """Epochs at which the learning rate changes, and to what."""
    steps = train.length.steps(STEPS)
    values = [train.lr(step, steps) for step in range(steps)]
    return {0.0: values[0]} | {step / STEPS: values[step] for step in range(1, steps) if values[step] != values[step - 1]}


@pytest.mark.parametrize(("members", "epochs"), [(3, 450), (7, 850), (1, 250)])
def test_edst_explores_once_and_escapes_between_refinements(members, epochs):
    plan = jt.edst(members=members)
    assert kinds(plan) == ["Start", "Train", "Train", "Collect"] + ["Escape", "Train", "Collect"] * (members - 1)
    assert plan.epochs() == epochs
    assert plan.members == members
    assert plan.width == 1
    assert plan.reference == Length(250)
    explore, *refine = [phase for phase in plan.phases if isinstance(phase, Train)]
    assert (explore.length, rates(explore)) == (Length(150), {0.0: 0.1})
    assert len(refine) == members
    for phase in refine:
        assert (phase.length, rates(phase)) == (Length(100), {0.0: 0.01, 50.0: 0.001})
    for phase in (explore, *refine):
        assert phase.evolve == Evolve(update_every=1000, drop_fraction=0.5, decay="constant", growth="gradient")
        assert phase.optimizer == SGD(momentum=0.9, weight_decay=5e-4)
    assert [phase.drop_fraction for phase in plan.phases if isinstance(phase, Escape)] == [0.8] * (members - 1)
    assert plan.start == Start(1, 0.8, "erk")
    assert plan.batch_size == 128


def test_dst_drops_the_learning_rate_at_epochs_125_and_187():
    plan = jt.dst()
    assert kinds(plan) == ["Start", "Train", "Collect"]
    train = plan.phases[1]
    assert isinstance(train, Train)
    assert rates(train) == pytest.approx({0.0: 0.1, 125.0: 0.01, 187.0: 0.001})
    assert train.evolve == Evolve(1000, 0.5)
    assert (plan.width, plan.members, plan.start.sparsity) == (3, 3, 0.8)


def test_static_and_dense_are_dst_without_the_evolution_and_without_the_mask():
    dst, static, dense = jt.dst(), jt.static_sparse(), jt.dense(3)
    for plan in (static, dense):
        a, b = plan.phases[1], dst.phases[1]
        assert isinstance(a, Train)
        assert isinstance(b, Train)
        assert a == Train(b.length, b.lr, b.optimizer)
        assert kinds(plan) == kinds(dst)
    assert static.start == dst.start
    assert dense.start == Start(3)
    assert jt.dense().members == 1


def test_edst_without_exploration_begins_with_a_refinement():
    plan = jt.edst(members=2, explore=0)
    assert kinds(plan) == ["Start", "Train", "Collect", "Escape", "Train", "Collect"]
    assert plan.epochs() == 200
    assert plan.reference == Length(100)
    with pytest.raises(PlanError, match="positive number"):
        jt.edst(explore=-1)


# For every option a value that is not its default, and where in the plan it must turn up.
OPTIONS = {
    "members": (5, lambda plan: plan.members),
    "sparsity": (0.9, lambda plan: plan.start.sparsity),
    "epochs": (20, lambda plan: plan.epochs()),
    "explore": (20, lambda plan: plan.phases[1].length.amount),
    "refine": (Length(30, "steps"), lambda plan: plan.phases[2].length),
    "lr": (None, None),  # its own test
    "refine_lr": ((0.2, 0.3), lambda plan: plan.phases[2].lr.values),
    "escape": (0.6, lambda plan: plan.phases[4].drop_fraction),
    "optimizer": (Adam(), lambda plan: {phase.optimizer for phase in plan.phases if isinstance(phase, Train)}),
    "distribution": ("uniform", lambda plan: plan.start.distribution),
    "update_every": (77, lambda plan: evolves(plan, "update_every")),
    "drop_fraction": (0.3, lambda plan: evolves(plan, "drop_fraction")),
    "decay": ("cosine", lambda plan: evolves(plan, "decay")),
    "growth": ("random", lambda plan: evolves(plan, "growth")),
    "regrown": ("zero", lambda plan: evolves(plan, "regrown")),
    "weight_update": (False, lambda plan: evolves(plan, "weight_update")),
    "end": (0.75, lambda plan: evolves(plan, "end")),
    "batch_size": (32, lambda plan: plan.batch_size),
    "collect": ("best", lambda plan: {phase.which for phase in plan.phases if isinstance(phase, Collect)}),
    "validation": (50, lambda plan: plan.validation),
}


def evolves(plan, name):
    return {getattr(phase.evolve, name) for phase in plan.phases if isinstance(phase, Train)}


@pytest.mark.parametrize("method", ["dense", "static_sparse", "dst", "edst"])
def test_every_option_reaches_the_plan(method):
    make = getattr(jt, method)
    for name in inspect.signature(make).parameters:
        value, find = OPTIONS[name]
        if find is None:
            continue
        extra = {"validation": 10} if name == "collect" else {}
        found = find(make(**{name: value}, **extra))
        assert found == value or found == {value}, name
        assert find(make(**extra)) not in (value, {value}), f"{name}: the default is no test"


def test_learning_rates_reach_the_plan():
    for make in (jt.dense, jt.static_sparse, jt.dst):
        assert [phase.lr for phase in make(lr=Cosine(0.3)).phases if isinstance(phase, Train)] == [Cosine(0.3)]
    plan = jt.edst(lr=0.3, refine_lr=(0.2, 0.1))
    assert [phase.lr for phase in plan.phases if isinstance(phase, Train)] == [Constant(0.3)] + [Piecewise((0.2, 0.1), (0.5,))] * 3


def test_growth_and_regrown_reach_the_escapes():
    escapes = [phase for phase in jt.edst(growth="random", regrown="zero").phases if isinstance(phase, Escape)]
    assert escapes == [Escape(0.8, "random", "zero")] * 2


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: jt.edst(members=0), "members is at least 1; got 0"),
        (lambda: jt.dst(members=0), "members .* at least 1; got 0"),
        (lambda: jt.dense(members=-2), "members .* at least 1; got -2"),
        (lambda: jt.static_sparse(sparsity=1.0), r"sparsity .* got 1.0"),
        (lambda: jt.edst(sparsity=0.0), "no mask to evolve; give Start a sparsity above 0"),
        (lambda: jt.edst(collect="best"), "set validation=5000"),
        (lambda: jt.dst(epochs=0), "positive number"),
        (lambda: jt.edst(refine=0), "positive number"),
    ],
)
def test_impossible_methods_say_so(make, message):
    with pytest.raises(PlanError, match=message):
        make()


def test_plans_survive_json():
    for plan in (jt.edst(), jt.dst(collect="best", validation=5000), jt.static_sparse(), jt.dense()):
        assert jt.Plan.from_json(plan.to_json()) == plan
