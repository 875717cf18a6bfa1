"""The methods' plans, phase by phase, against Liu et al. (2021), section 3 and appendix A."""

import inspect

import pytest

import jaxtickets as jt
from jaxtickets.masks import Units
from jaxtickets.plan import (
    L1,
    SGD,
    Adam,
    Collect,
    Escape,
    Evolve,
    Fork,
    Gradual,
    Length,
    PlanError,
    Prune,
    Remember,
    Rewind,
    Start,
    Train,
)
from jaxtickets.schedules import Constant, Cosine, Linear, OneCycle, Part, Piecewise

STEPS = 390  # of 128 in 50,000 examples


def kinds(plan):
    return [type(phase).__name__ for phase in plan.phases]


def rates(train):
    """Epochs at which the learning rate changes, and to what."""
    steps = train.length.steps(STEPS)
    values = [train.lr(step, steps) for step in range(steps)]
    return {0.0: values[0]} | {
        step / STEPS: values[step] for step in range(1, steps) if values[step] != values[step - 1]
    }


@pytest.mark.parametrize(("members", "epochs"), [(3, 450), (7, 850), (1, 250)])
def test_edst_explores_once_and_escapes_between_refinements(members, epochs):
    plan = jt.edst(members=members)
    assert kinds(plan) == ["Start", "Train", "Train", "Collect"] + [
        "Escape",
        "Train",
        "Collect",
    ] * (members - 1)
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
        assert phase.evolve == Evolve(
            update_every=1000, drop_fraction=0.5, decay="constant", growth="gradient"
        )
        assert phase.optimizer == SGD(momentum=0.9, weight_decay=5e-4)
    assert [phase.drop_fraction for phase in plan.phases if isinstance(phase, Escape)] == [0.8] * (
        members - 1
    )
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
    "members": (4, lambda plan: plan.members),
    "sparsity": (0.9, lambda plan: plan.start.sparsity),
    "epochs": (20, lambda plan: plan.epochs()),
    "explore": (20, lambda plan: plan.phases[1].length.amount),
    "refine": (Length(30, "steps"), lambda plan: plan.phases[2].length),
    "lr": (None, None),  # its own test
    "refine_lr": ((0.2, 0.3), lambda plan: plan.phases[2].lr.values),
    "escape": (0.6, lambda plan: plan.phases[4].drop_fraction),
    "optimizer": (
        Adam(),
        lambda plan: {phase.optimizer for phase in plan.phases if isinstance(phase, Train)},
    ),
    "distribution": ("uniform", lambda plan: plan.start.distribution),
    "update_every": (77, lambda plan: evolves(plan, "update_every")),
    "drop_fraction": (0.3, lambda plan: evolves(plan, "drop_fraction")),
    "decay": ("cosine", lambda plan: evolves(plan, "decay")),
    "growth": ("random", lambda plan: evolves(plan, "growth")),
    "regrown": ("zero", lambda plan: evolves(plan, "regrown")),
    "weight_update": (False, lambda plan: evolves(plan, "weight_update")),
    "end": (0.75, lambda plan: evolves(plan, "end")),
    "batch_size": (32, lambda plan: plan.batch_size),
    "collect": (
        "best",
        lambda plan: {phase.which for phase in plan.phases if isinstance(phase, Collect)},
    ),
    "channels": (0.3, lambda plan: getattr(trains(plan)[0].evolve, "channels", 0.0)),
    "structure": (Units(), lambda plan: set(plan.structures)),
    "validation": (50, lambda plan: plan.validation),
    "bag": (0.7, lambda plan: trains(plan)[-1].bag),
}
# The same for options that mean something else, or stand elsewhere, in one method's plan.
ELSEWHERE = {
    "prune_and_tune": {
        "parent": (20, lambda plan: trains(plan)[0].length.amount),
        "tune": (Length(7, "steps"), lambda plan: trains(plan)[1].length),
        "masks": ("partition", lambda plan: fork(plan).masks),
        "sparsity": (0.7, lambda plan: fork(plan).sparsity),
        "unit": ("neuron", lambda plan: fork(plan).unit),
        "shrink": (False, lambda plan: "Shrink" in kinds(plan)),
        "scope": ("global", lambda plan: fork(plan).scope),
        "keep_dense": (("last",), lambda plan: fork(plan).keep_dense),
        "lr": (Cosine(0.3), lambda plan: trains(plan)[0].lr),
        "tune_lr": (Linear(0.3), lambda plan: trains(plan)[1].lr),
        "tune_momentum": (OneCycle(0.95, 0.85, 0.95), lambda plan: trains(plan)[1].momentum),
        "bag": (0.7, lambda plan: trains(plan)[1].bag),
    },
    "ltr": {
        "sparsity": (0.7, lambda plan: gradual(plan).sparsity),
        "epochs": (20, lambda plan: sum(train.length.amount for train in trains(plan)[:2])),
        "rewind_to": (0.2, lambda plan: trains(plan)[0].length.amount / 250),
        "lr": (Cosine(0.3), lambda plan: {train.lr.of for train in trains(plan)}),
        "end": (0.6, lambda plan: gradual(plan).end),
        "update_every": (77, lambda plan: gradual(plan).update_every),
        "scope": ("layerwise", lambda plan: gradual(plan).scope),
        "structure": (Units(), lambda plan: gradual(plan).structure),
        "scores": ("snip", lambda plan: gradual(plan).scores),
    },
    "prune_finetune": {
        "sparsity": (0.7, lambda plan: pruning(plan).sparsity),
        "epochs": (20, lambda plan: trains(plan)[0].length.amount),
        "finetune": (20, lambda plan: trains(plan)[1].length.amount),
        "lr": (Cosine(0.3), lambda plan: trains(plan)[0].lr),
        "finetune_lr": (Cosine(0.3), lambda plan: trains(plan)[1].lr),
        "scope": ("layerwise", lambda plan: pruning(plan).scope),
        "structure": (Units(), lambda plan: pruning(plan).structure),
        "scores": ("snip", lambda plan: pruning(plan).scores),
    },
    "snapshot": {
        "cycle": (7, lambda plan: {train.length.amount for train in trains(plan)}),
        "lr": (0.3, lambda plan: {train.lr.begin for train in trains(plan)}),
    },
    "fge": {
        "epochs": (400, lambda plan: trains(plan)[0].length.amount / 0.6),
        "starts": ((0.2, 0.5), lambda plan: tuple(train.lr.end for train in trains(plan)[:2])),
        "cycle": (2, lambda plan: 2 * trains(plan)[-1].length.amount),
        "high": (0.07, lambda plan: max(train.lr.begin for train in trains(plan)[2:])),
        "low": (
            0.0007,
            lambda plan: {train.lr.end for train in trains(plan)[2:] if train.lr.begin > 0.01},
        ),
        "lr": (Cosine(0.3), lambda plan: {train.lr.of for train in trains(plan)[:2]}),
    },
}
IMP = {
    "sparsity": (0.6, lambda plan: [p.sparsity for p in plan.phases if isinstance(p, Prune)][-1]),
    "rounds": (5, lambda plan: kinds(plan).count("Prune")),
    "epochs": (20, lambda plan: {train.length.amount for train in trains(plan)}),
    "lr": (Cosine(0.3), lambda plan: {train.lr for train in trains(plan)}),
    "optimizer": (Adam(b1=0.8), lambda plan: {train.optimizer for train in trains(plan)}),
    "rewind_head": (False, lambda plan: {not p.keep for p in plan.phases if isinstance(p, Rewind)}),
    "head": (("last",), lambda plan: {p.keep for p in plan.phases if isinstance(p, Rewind)}),
    "scope": ("layerwise", lambda plan: {p.scope for p in plan.phases if isinstance(p, Prune)}),
    "structure": (Units(), lambda plan: {p.structure for p in plan.phases if isinstance(p, Prune)}),
    "scores": ("snip", lambda plan: {p.scores for p in plan.phases if isinstance(p, Prune)}),
    "batch_size": (64, lambda plan: plan.batch_size),
}
ELSEWHERE["imp"] = IMP | {
    "penalty": (L1(0.1, "all"), lambda plan: {train.penalty for train in trains(plan)[:-1]})
}
ELSEWHERE["multi_ticket"] = IMP | {
    "scheme": ("base_lt", lambda plan: plan.name),
    "tau": (Constant(0.1), lambda plan: {train.penalty.strength for train in trains(plan)[:-1]}),
    "decoupled": (True, lambda plan: {train.penalty.decoupled for train in trains(plan)[:-1]}),
}
# What else an option needs to be allowed, and what its default is then compared under.
WITH = {
    "collect": {"validation": 10},
    "head": {"rewind_head": False},
    ("prune_and_tune", "shrink"): {"unit": "neuron"},
    ("prune_and_tune", "sparsity"): {"masks": "random"},
    ("multi_ticket", "bag"): {"scheme": "bagging"},
}


def trains(plan):
    return [phase for phase in plan.phases if isinstance(phase, Train)]


def fork(plan):
    return next(phase for phase in plan.phases if isinstance(phase, Fork))


def pruning(plan):
    return next(phase for phase in plan.phases if isinstance(phase, Prune))


def gradual(plan):
    return next(train.evolve for train in trains(plan) if isinstance(train.evolve, Gradual))


def evolves(plan, name):
    return {getattr(phase.evolve, name) for phase in plan.phases if isinstance(phase, Train)}


METHODS = [
    "dense",
    "bagged",
    "static_sparse",
    "dst",
    "edst",
    "prune_and_tune",
    "ltr",
    "prune_finetune",
    "snapshot",
    "fge",
]
METHODS += ["imp", "multi_ticket"]


def test_these_are_all_methods():
    public = {name for name, made in vars(jt.methods).items() if inspect.isfunction(made)}
    assert public - {"within_budget"} == set(METHODS)  # which takes a plan


@pytest.mark.parametrize("method", METHODS)
def test_every_option_reaches_the_plan(method):
    make = getattr(jt, method)
    for name in inspect.signature(make).parameters:
        value, find = ELSEWHERE.get(method, {}).get(name) or OPTIONS[name]
        if find is None:
            continue
        extra = WITH.get(name, {}) | WITH.get((method, name), {})
        found = find(make(**{name: value}, **extra))
        assert found in (value, {value}) or found == pytest.approx(value), name
        assert find(make(**extra)) not in (value, {value}), f"{name}: the default is no test"


def test_learning_rates_reach_the_plan():
    for make in (jt.dense, jt.bagged, jt.static_sparse, jt.dst):
        assert [phase.lr for phase in make(lr=Cosine(0.3)).phases if isinstance(phase, Train)] == [
            Cosine(0.3)
        ]
    plan = jt.edst(lr=0.3, refine_lr=(0.2, 0.1))
    assert [phase.lr for phase in plan.phases if isinstance(phase, Train)] == [Constant(0.3)] + [
        Piecewise((0.2, 0.1), (0.5,))
    ] * 3


def test_prune_and_tune_is_one_parent_and_its_children():
    """Whitaker and Whitley, large budget: 140 epochs and six times ten; SGD with Nesterov momentum and weight decay."""
    plan = jt.prune_and_tune()
    assert kinds(plan) == ["Start", "Train", "Fork", "Train", "Collect"]
    assert (plan.width, plan.members, plan.epochs(), plan.reference, plan.batch_size) == (
        1,
        6,
        200,
        Length(200),
        128,
    )
    assert {train.optimizer for train in trains(plan)} == {
        SGD(momentum=0.9, nesterov=True, weight_decay=5e-4)
    }
    assert plan.start == Start()
    assert fork(plan) == Fork(6, "anti_random")
    tuned = jt.prune_and_tune(parent=0)
    assert kinds(tuned) == ["Start", "Fork", "Train", "Collect"]
    assert (tuned.epochs(), tuned.reference) == (60, Length(60))


def test_ltr_rewinds_to_five_hundredths_and_trains_the_rest_again():
    plan = jt.ltr()
    assert kinds(plan) == [
        "Start",
        "Train",
        "Remember",
        "Train",
        "Fork",
        "Rewind",
        "Train",
        "Collect",
    ]
    assert (plan.width, plan.members, plan.epochs(), plan.reference) == (
        1,
        3,
        250 + 3 * 237.5,
        Length(250),
    )
    early, pruned, again = trains(plan)
    assert [train.length for train in (early, pruned, again)] == [
        Length(12.5),
        Length(237.5),
        Length(237.5),
    ]
    assert (early.evolve, again.evolve) == (None, None)
    assert gradual(plan) == Gradual(0.8, 0.0, 0.75, 1000, "global")
    assert (fork(plan).masks, plan.phases[5]) == ("parent", Rewind("early"))
    assert plan.phases[2] == Remember("early")
    # The rates of the two parts one after another are those of a whole training.
    whole = [
        phase.lr(step, phase.steps(STEPS))
        for phase in (early, pruned)
        for step in range(phase.steps(STEPS))
    ]
    dense = trains(jt.dense())[0]
    assert whole == [dense.lr(step, 250 * STEPS) for step in range(250 * STEPS)]
    assert again.lr == pruned.lr == Part(dense.lr, 0.05, 1)


def test_prune_and_finetune_prunes_once_between_two_trainings():
    plan = jt.prune_finetune()
    assert kinds(plan) == ["Start", "Train", "Prune", "Train", "Collect"]
    assert (plan.width, plan.members, plan.epochs()) == (3, 3, 500)
    assert pruning(plan) == Prune(0.8, "magnitude", "global")
    assert [train.lr for train in trains(plan)] == [trains(jt.dense())[0].lr, Constant(0.001)]


def test_growth_and_regrown_reach_the_escapes():
    escapes = [
        phase
        for phase in jt.edst(growth="random", regrown="zero").phases
        if isinstance(phase, Escape)
    ]
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
        (lambda: jt.prune_and_tune(5), "members is even; got 5. Take 6"),
        (lambda: jt.prune_and_tune(sparsity=0.7), "anti_random masks are at sparsity 0.5"),
        (lambda: jt.prune_and_tune(members=0), "at least 1; got 0"),
        (lambda: jt.prune_and_tune(members="6"), "at least 1; got '6'"),  # pyright: ignore[reportArgumentType]
        (lambda: jt.prune_and_tune(parent=-1), "positive number"),
        (lambda: jt.prune_and_tune(tune=0), "positive number"),
        (
            lambda: jt.prune_and_tune(tune_lr="cosine"),
            "tune_lr is 'one_cycle', 'constant' or a schedule; got 'cosine'",
        ),  # pyright: ignore[reportArgumentType]
        (
            lambda: jt.prune_and_tune(optimizer=Adam(), tune_momentum=Constant(0.9)),
            r"moves SGD's; Adam\(\) has none",
        ),
        (lambda: jt.prune_and_tune(bag=1.1), "bag is the share"),
        (lambda: jt.ltr(members=0), "at least 1; got 0"),
        (
            lambda: jt.ltr(rewind_to=1.0),
            r"rewind_to is a share of the training, in \(0, 1\); got 1.0",
        ),
        (lambda: jt.ltr(sparsity=0.0), "at sparsity 0 by then"),
        (lambda: jt.prune_finetune(sparsity=1.0), r"in \(0, 1\); got 1.0"),
        (lambda: jt.bagged(bag=0), "bag is the share"),
        (lambda: jt.bagged(members=0), "at least 1; got 0"),
        (lambda: jt.snapshot(members=0), "members is at least 1; got 0"),
        (lambda: jt.fge(members=True), "members is a whole number, at least 1; got True"),
    ],
)
def test_impossible_methods_say_so(make, message):
    with pytest.raises(PlanError, match=message):
        make()


def test_plans_survive_json():
    forks = [
        jt.prune_and_tune(),
        jt.prune_and_tune(masks="partition", bag=0.9, parent=0),
        jt.ltr(),
        jt.prune_finetune(),
    ]
    for plan in (
        jt.edst(),
        jt.dst(collect="best", validation=5000),
        jt.static_sparse(),
        jt.dense(),
        jt.bagged(),
        jt.snapshot(),
        *forks,
        jt.fge(),
    ):
        assert jt.Plan.from_json(plan.to_json()) == plan


@pytest.mark.parametrize(
    ("plan", "order"),
    [
        (jt.dst(structure=Units()), "Train Shrink Collect"),
        (jt.edst(2, structure=Units()), "Train Train Collect Escape Train Collect"),
        (jt.prune_finetune(structure=Units()), "Train Prune Shrink Train Collect"),
        (jt.ltr(structure=Units()), "Train Remember Train Shrink Fork Rewind Train Collect"),
        (
            jt.imp(rounds=2, structure=Units()),
            "Remember Train Prune Shrink Rewind Train Prune Shrink Rewind Train Collect",
        ),
    ],
    ids=["dst", "edst", "prune_finetune", "ltr", "imp"],
)
def test_units_that_are_pruned_are_cut_out(plan, order):
    assert kinds(plan) == ["Start", *order.split()]


def test_units_do_not_go_with_active_lt():
    with pytest.raises(PlanError, match="does not go with 'active_lt'"):
        jt.multi_ticket("active_lt", structure=Units())
    earlier = L1(Linear(1e-6), "earlier")
    with pytest.raises(PlanError, match="leave out one of them"):
        jt.imp(2, penalty=earlier, structure=Units())
