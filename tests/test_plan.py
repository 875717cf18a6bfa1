"""Plans: what they say, what they refuse, and that JSON gives back what was written."""

import dataclasses
import json
import math

import pytest

import jaxtickets as jt
from jaxtickets.masks import NM, Blocks, Units, Unstructured
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
    Optax,
    Override,
    Pack,
    Plan,
    PlanError,
    Prune,
    Remember,
    Rewind,
    Shrink,
    Start,
    Train,
    describe,
)
from jaxtickets.plan.parts import kinds as kinds_of_parts
from jaxtickets.schedules import (
    Constant,
    Cosine,
    Linear,
    OneCycle,
    Part,
    Piecewise,
    Polyline,
    Warmup,
)

SCHEDULES = [
    Constant(0.1),
    Piecewise((0.1, 0.01), (0.5,)),
    Linear(0.1, 0.2),
    Cosine(0.1, 0.001, False),
    Warmup(0.1, Cosine(0.2)),
    Polyline((0.1, 0.2), (0, 1)),
    OneCycle(0.01, 0.2, 0.3, 0.4),
    Part(Constant(0.2), 0.1, 0.3),
]
ADAM = Adam(0.8, 0.9, 1e-6, 0.01, 1.0, (Override("bias", 2.0, 0.0),))
FULL = Plan(
    "everything",
    (
        Start(3, 0.8, "er", ("w1", "w2"), "snip", NM(2, 4)),
        *(
            Train(
                Length(2),
                schedule,
                ADAM,
                Evolve(10, 0.3, "cosine", "random", "zero", False, 0.75, NM(2, 4)),
                0.9,
            )
            for schedule in SCHEDULES
        ),
        Remember("here"),
        Train(
            Length(2),
            evolve=Evolve(update_every=1000, channels=0.4, channels_by=0.9, span=(0.0, 0.5)),
        ),
        Shrink(4),
        Prune(0.82, "random", "layerwise", ("w1",), 2, Blocks(2, 1)),
        Rewind("here", ("w2",)),
        Train(Length(1), evolve=Gradual(0.9, 0.1, 0.9, 100, "global", "snip", Units())),
        Collect("best"),
        Escape(0.7, "random", "zero", NM(2, 4)),
        Fork(2, "random", 0.95, "neuron", "global", ("w2",), NM(2, 4)),
        Train(
            Length(7, "steps"),
            optimizer=SGD(0.5, True, 1e-3, (Override("bias", 2.0),)),
            momentum=Constant(0.1),
        ),
        Train(
            Length(2, "steps"),
            optimizer=Optax("lion", b1=0.95, overrides=(Override("bias", 2.0),)),
        ),
        Train(Length(2, "steps"), penalty=L1(Linear(0.2), "random", 0.6, True)),
        Train(Length(2, "steps"), penalty=L1(Linear(0.2), "all")),
        Pack(Blocks(2, 1), 0.4),
        Collect(),
    ),
    batch_size=64,
    reference=Length(250),
    validation=100,
)


@pytest.mark.parametrize("as_text", [True, False])
def test_json_gives_back_an_equal_plan(as_text):
    written = FULL.to_json()
    text = json.dumps(written)
    assert Plan.from_json(text if as_text else json.loads(text)) == FULL
    assert hash(Plan.from_json(text)) == hash(FULL)
    assert Plan.from_json(text).to_json() == written


def fields_of(kind):
    return {field.name for field in dataclasses.fields(kind)}


def test_every_kind_and_every_field_is_in_the_json():
    """The plan above sets every field of every kind to something else than its default, so a lost one would show."""
    seen = {}

    def walk(value):
        if isinstance(value, dict):
            seen.setdefault(value["kind"], set()).update(value.keys() - {"kind"})
        for one in (
            value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        ):
            walk(one)

    walk(FULL.to_json())
    ours = [kind for kind in kinds_of_parts().values() if kind.__module__.startswith("jaxtickets.")]
    kinds = [kind for kind in ours if kind is not Unstructured]  # the default, and so left out
    expected = {kind.__name__: fields_of(kind) for kind in kinds}
    expected["Units"] -= {"table"}  # of one network: no plan holds it (test_whole_units)
    assert seen == expected


def test_plans_differ_where_a_number_does():
    changed = json.loads(
        json.dumps(FULL.to_json()).replace('"clip_norm": 1.0', '"clip_norm": 2.0', 1)
    )
    assert Plan.from_json(changed) != FULL


def test_a_plan_prints_what_it_does():
    assert str(FULL).splitlines() == [
        # Two epochs eight times and one; three tickets before the Fork and six after it.
        "everything: 9 tickets, 19 epochs + 2 x 13 steps x 3 lineages, batch 64, 100 held out",
        "  1. Start(width=3, sparsity=0.8, er, keep_dense=('w1', 'w2'), scores='snip', structure=NM(n=2, m=4))",
        *(
            f"  {i}. Train(2 epochs, lr={lr}, optimizer=Adam(b1=0.8, b2=0.9, eps=1e-06, weight_decay=0.01, clip_norm=1.0, "
            "overrides=(Override(pattern='bias', lr=2.0, weight_decay=0.0),)), evolve=Evolve(update_every=10, drop_fraction=0.3, "
            "decay='cosine', growth='random', regrown='zero', weight_update=False, end=0.75, structure=NM(n=2, m=4)), bag=0.9)"
            for i, lr in enumerate(
                (
                    "0.1",
                    "(0.1, 0.01 from 50%)",
                    "0.1 to 0.2 (linear)",
                    "0.1 to 0.001 (cosine)",
                    "0.2 to 0 (cosine) warmed up over 10%",
                    "(0.1 at 0%, 0.2 at 100%)",
                    "one cycle (0.01 to 0.2 over 40%, to 0.3)",
                    "0.2 from 10% to 30%",
                ),
                2,
            )
        ),
        "  10. Remember(name='here')",
        "  11. Train(2 epochs, lr=0.1, evolve=Evolve(update_every=1000, channels=0.4, channels_by=0.9, span=(0.0, 0.5)))",
        "  12. Shrink(multiple=4)",
        "  13. Prune(sparsity=0.82, scores='random', scope='layerwise', keep_dense=('w1',), rounds=2, structure=Blocks(rows=2, columns=1))",
        "  14. Rewind(name='here', keep=('w2',))",
        "  15. Train(1 epoch, lr=0.1, evolve=Gradual(sparsity=0.9, begin=0.1, end=0.9, update_every=100, scope='global', scores='snip', "
        "structure=Units()))",
        "  16. Collect(which='best')",
        "  17. Escape(drop_fraction=0.7, growth='random', regrown='zero', structure=NM(n=2, m=4))",
        "  18. Fork(members=2, masks='random', sparsity=0.95, unit='neuron', scope='global', keep_dense=('w2',), structure=NM(n=2, m=4))",
        "  19. Train(7 steps, lr=0.1, optimizer=SGD(momentum=0.5, nesterov=True, weight_decay=0.001, "
        "overrides=(Override(pattern='bias', lr=2.0, weight_decay=None),)), momentum=0.1)",
        "  20. Train(2 steps, lr=0.1, optimizer=Optax(name='lion', keywords=(('b1', 0.95),), "
        "overrides=(Override(pattern='bias', lr=2.0, weight_decay=None),)))",
        "  21. Train(2 steps, lr=0.1, penalty=L1(strength=0.2 to 0 (linear), share=0.6, decoupled=True))",
        "  22. Train(2 steps, lr=0.1, penalty=L1(strength=0.2 to 0 (linear), on='all'))",
        "  23. Pack(structure=Blocks(rows=2, columns=1), at_most=0.4)",
        "  24. Collect()",
    ]
    assert str(Plan("one", (Start(), Train(Length(1, "steps")), Collect()))).startswith(
        "one: 1 ticket, 1 step, batch 128"
    )


def test_lists_are_taken_as_tuples():
    plan = Plan("lists", [Start(keep_dense=["w"]), Train(3), Collect()])  # pyright: ignore[reportArgumentType]
    assert plan == Plan("lists", (Start(keep_dense=("w",)), Train(Length(3)), Collect()))
    assert Piecewise([0.1, 0.2], [0.5]) == Piecewise((0.1, 0.2), (0.5,))  # pyright: ignore[reportArgumentType]


def plan(*phases, **options):
    return lambda: Plan("p", phases, **options)


TRAIN, END = Train(Length(1)), Collect()
WRONG = {
    "evolve without a mask": (
        plan(Start(), Train(Length(1), evolve=Evolve()), END),
        r"phase 2, Train\(.*no mask to evolve; give Start a sparsity",
    ),
    "escape without a mask": (
        plan(Start(), TRAIN, Escape(), END),
        r"phase 3, Escape\(\): there is no mask to evolve; give Start a sparsity",
    ),
    "evolve after a fork of dense children": (
        plan(Start(), Fork(2, "parent"), Train(Length(1), evolve=Evolve()), END),
        r"phase 3, Train\(.*no mask to evolve",
    ),
    "second fork": (
        plan(Start(), Fork(2, "random"), Fork(2, "random"), END),
        r"phase 3, Fork\(.*a plan forks once; put all children",
    ),
    "nothing remembered": (
        plan(Start(), TRAIN, Rewind("x"), END),
        r"phase 3, .*nothing is remembered as 'x' by then; put Remember",
    ),
    "remembered later": (
        plan(Start(), TRAIN, Rewind("x"), Remember("x"), END),
        r"phase 3, .*nothing is remembered as 'x'",
    ),
    "remembered twice": (
        plan(Start(), Remember("x"), TRAIN, Remember("x"), END),
        r"phase 4, .*'x' is remembered already",
    ),
    "pruned to less": (
        plan(Start(1, 0.8), Prune(0.5), END),
        r"phase 2, .*at sparsity 0.8 by then; prune to more",
    ),
    "pruned to the same": (
        plan(Start(), Prune(0.5), TRAIN, Prune(0.5), END),
        r"phase 4, .*at sparsity 0.5 by then",
    ),
    "gradually to less": (
        plan(Start(), Fork(4, "partition"), Train(Length(1), evolve=Gradual(0.7)), END),
        r"phase 3, .*at sparsity 0.75 by then",
    ),
    "best of a fork": (
        plan(Start(), TRAIN, Fork(2, "random"), Collect("best"), validation=5),
        r"phase 4, .*the best of nothing",
    ),
    "second start": (
        plan(Start(), TRAIN, Start(), END),
        r"phase 3, Start\(.*a plan starts once; remove it",
    ),
    "no start": (plan(TRAIN, END), r"the first phase of a plan is Start"),
    "nothing": (plan(), r"the first phase of a plan is Start"),
    "not a phase": (
        plan(Start(), "Train", END),
        r"phase 2 is one of Start\(...\), Train\(...\), .*Fork\(...\); got 'Train'",
    ),
    "best without validation": (
        plan(Start(), TRAIN, Collect("best")),
        r"phase 3, Collect\(which='best'\).*set validation=5000",
    ),
    "best of nothing": (
        plan(Start(), Collect("best"), validation=5),
        r"phase 2.*put a Train right before it",
    ),
    "nothing collected": (plan(Start(), TRAIN), r"end the plan with Collect\(\)"),
    "zero members": (lambda: Start(0), r"members .* at least 1; got 0"),
    "half a member": (lambda: Start(1.5), r"members .* at least 1; got 1.5"),  # pyright: ignore[reportArgumentType]
    "sparsity 1": (lambda: Start(1, 1.0), r"sparsity is the share of zeros, in \[0, 1\); got 1.0"),
    "negative sparsity": (
        lambda: Start(1, -0.1),
        r"sparsity is the share of zeros, in \[0, 1\); got -0.1",
    ),
    "sparsity nan": (lambda: Start(1, math.nan), r"sparsity is the share of zeros"),
    "keep_dense a text": (lambda: Start(1, 0.5, keep_dense="w1"), r"keep_dense is a tuple"),  # pyright: ignore[reportArgumentType]
    "distribution": (
        lambda: Start(1, 0.5, "erkk"),
        r"distribution is one of uniform, er, erk; got 'erkk'",
    ),  # pyright: ignore[reportArgumentType]
    "length 0": (lambda: Length(0), r"a positive number of epochs .* got 0 epochs"),
    "length -1": (lambda: Length(-1), r"a positive number of epochs .* got -1 epochs"),
    "length inf": (lambda: Length(math.inf), r"got inf"),
    "length text": (lambda: Length("3"), r"got '3' epochs"),  # pyright: ignore[reportArgumentType]
    "half a step": (lambda: Length(1.5, "steps"), r"whole number of steps; got 1.5 steps"),
    "unit": (lambda: Length(1, "weeks"), r"in epochs or steps; got unit 'weeks'"),  # pyright: ignore[reportArgumentType]
    "batch": (plan(Start(), TRAIN, END, batch_size=0), r"batch_size is at least 1; got 0"),
    "validation": (plan(Start(), TRAIN, END, validation=-1), r"validation is a number of examples"),
    "reference": (plan(Start(), TRAIN, END, reference=250), r"reference is a Length"),
    "update_every": (lambda: Evolve(0), r"update_every is a number of steps, at least 1; got 0"),
    "drop_fraction": (lambda: Evolve(drop_fraction=1.1), r"drop_fraction .* in \[0, 1\]; got 1.1"),
    "q": (lambda: Escape(math.nan), r"drop_fraction q is in \[0, 1\]; got nan"),
    "decay": (lambda: Evolve(decay="cubic"), r"decay is one of constant, cosine, linear"),  # pyright: ignore[reportArgumentType]
    "momentum": (lambda: SGD(momentum=1.0), r"momentum is in \[0, 1\); got 1.0"),
    "weight_decay": (lambda: SGD(weight_decay=-1), r"weight_decay is a finite number, at least 0"),
    "clip_norm": (lambda: Adam(clip_norm=0.0), r"clip_norm is a positive number"),
    "an odd number of pairs": (
        lambda: Fork(5, "anti_random"),
        r"anti_random masks come in pairs: members is even; got 5. Take 6",
    ),
    "pairs at another sparsity": (
        lambda: Fork(4, "anti_random", 0.6),
        r"anti_random masks are at sparsity 0.5.*got 0.6. Use masks='random'",
    ),
    "a partition of another sparsity": (
        lambda: Fork(4, "partition", 0.5),
        r"sparsity of partition masks is 1 - 1/4; leave it out",
    ),
    "parents of another sparsity": (
        lambda: Fork(4, "parent", 0.5),
        r"sparsity of parent masks is the parent's; leave it out",
    ),
    "a partition of one": (lambda: Fork(1, "partition"), r"a partition has at least 2 members"),
    "no children": (lambda: Fork(0, "random"), r"members .* at least 1; got 0"),
    "kind of masks": (
        lambda: Fork(2, "antirandom"),
        r"masks is one of random, anti_random, partition, parent",
    ),  # pyright: ignore[reportArgumentType]
    "unit of a fork": (
        lambda: Fork(2, "random", unit="filter"),
        r"unit is one of connection, neuron",
    ),  # pyright: ignore[reportArgumentType]
    "all pruned": (
        lambda: Prune(1.0),
        r"Prune's sparsity is the share of zeros, in \(0, 1\); got 1.0",
    ),
    "nothing pruned": (lambda: Prune(0.0), r"in \(0, 1\); got 0.0"),
    "scores": (
        lambda: Prune(0.5, "weight"),
        r"scores is one of .*magnitude, random, .*; got .weight.",
    ),
    "patterns None": (
        lambda: Prune(0.5, keep_dense=None),
        r"keep_dense is a tuple of path patterns",
    ),  # pyright: ignore[reportArgumentType]
    "a pattern that is none": (
        lambda: Rewind("x", ("(",)),
        r"keep are regular expressions for leaf paths; got '\('",
    ),
    "gradual to 1": (lambda: Gradual(1.0), r"sparsity is the share of zeros"),
    "gradual backwards": (
        lambda: Gradual(0.5, 0.5, 0.5),
        r"0 <= begin < end <= 1; got 0.5 and 0.5",
    ),
    "gradual never": (lambda: Gradual(0.5, update_every=0), r"update_every is at least 1; got 0"),
    "bag 0": (lambda: Train(Length(1), bag=0.0), r"bag is the share .* in \(0, 1\]; got 0.0"),
    "bag 2": (lambda: Train(Length(1), bag=2), r"bag is the share .*got 2"),
    "momentum of Adam": (
        lambda: Train(Length(1), optimizer=Adam(), momentum=Constant(0.9)),
        r"momentum moves SGD's; Adam\(\) has none",
    ),
    "momentum of none": (
        lambda: Train(Length(1), optimizer=SGD(0.0), momentum=Constant(0.9)),
        r"SGD\(momentum=0\) keeps no moments",
    ),
    "penalty": (
        lambda: Train(Length(1), penalty=0.1),
        r"Train's penalty is one of L1, None; got 0.1",
    ),  # pyright: ignore
    "penalty's strength": (
        lambda: L1(-1.0),
        r"L1's strength is a number, at least 0, or a schedule such as Linear\(1e-5\); got -1.0",
    ),  # pyright: ignore
    "penalty's share": (
        lambda: L1(Constant(0.1), share=1.0),
        r"share of weights that are penalised, in \(0, 1\); got 1.0",
    ),
    "penalty's coefficients": (
        lambda: L1(Constant(0.1), "later"),
        r"on is one of random, earlier, all; got 'later'",
    ),  # pyright: ignore
    "penalty's kind": (
        lambda: L1(Constant(0.1), decoupled=1),
        r"decoupled is True or False; got 1",
    ),  # pyright: ignore
    "rounds": (lambda: jt.imp(rounds=0), r"rounds is at least 1; got 0"),
    "sparsity of imp": (lambda: jt.imp(sparsity=1.0), r"in all rounds, in \(0, 1\); got 1.0"),
    "scheme": (
        lambda: jt.multi_ticket("lt"),
        r"scheme is one of baseline, bagging, base_lt, active_lt, random_lt; got 'lt'",
    ),  # pyright: ignore
    "tau": (lambda: jt.multi_ticket(tau=-1.0), r"tau is a finite number, at least 0; got -1.0"),
    "momentum 1": (
        lambda: Train(Length(1), momentum=Linear(0.5, 1.2)),
        r"momentum is in \[0, 1\) throughout",
    ),
    "override": (lambda: Override("("), r"Override's pattern is a regular expression"),
    "override lr": (lambda: Override("b", -1.0), r"Override's lr is a finite number, at least 0"),
    "one override": (lambda: SGD(overrides=Override("b")), r"overrides is a tuple of Override"),  # pyright: ignore[reportArgumentType]
    "overrides None": (lambda: Adam(overrides=None), r"overrides is a tuple of Override"),  # pyright: ignore[reportArgumentType]
    "lr a number": (
        lambda: Train(Length(1), 0.1),
        r"Train's lr is one of Constant, Piecewise.*got 0.1",
    ),  # pyright: ignore[reportArgumentType]
    "optimizer a text": (
        lambda: Train(Length(1), optimizer="sgd"),
        r"Train's optimizer is one of SGD, Adam",
    ),  # pyright: ignore[reportArgumentType]
}


@pytest.mark.parametrize("case", WRONG)
def test_an_impossible_plan_says_where_and_what_to_do(case):
    make, message = WRONG[case]
    with pytest.raises(PlanError, match=message):
        make()


@pytest.mark.parametrize(
    "make",
    [
        lambda: Constant(-0.1),
        lambda: Constant(math.nan),
        lambda: Linear(math.inf),
        lambda: Piecewise((0.1,), (0.5,)),
        lambda: Piecewise((0.1, 0.2, 0.3), (0.5, 0.5)),
        lambda: Piecewise((0.1, 0.2), (1.0,)),
        lambda: Warmup(0.0, Constant(0.1)),
        lambda: Warmup(0.5, Warmup(0.5, Constant(0.1))),  # pyright: ignore[reportArgumentType]
    ],
)
def test_an_impossible_learning_rate_is_an_error(make):
    with pytest.raises(ValueError, match="got"):
        make()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "3",
        "null",
        '{"kind": "Plan"}',
        '{"kind": ["Plan"]}',
        '{"kind": "os.system", "command": "true"}',
        '{"kind": "Length", "amount": 1, "unit": "epochs"}',
        "[" * 100_000,
        json.dumps(FULL.to_json()).replace('"Collect"', '"Collected"'),
        json.dumps(FULL.to_json()).replace('"sparsity": 0.8', '"sparsity": 1.8'),
        json.dumps(FULL.to_json()).replace('"share": 0.1', '"share": 2'),
        json.dumps(FULL.to_json()).replace('"amount": 7', '"amount": {}'),
        json.dumps(FULL.to_json()).replace('"width": 3', '"width": "3"'),
        json.dumps(FULL.to_json()).replace('"width": 3', '"width": 3, "depth": 4'),
    ],
)
def test_json_that_is_no_plan_is_a_plan_error(text):
    with pytest.raises(PlanError):
        Plan.from_json(text)


def test_lengths_in_steps_and_epochs():
    assert Length(1.5).steps(390) == 585
    assert Length(0.0001).steps(390) == 1
    assert Length(585, "steps").epochs(390) == 1.5
    mixed = Plan(
        "mixed", (Start(2), Train(Length(2)), Train(Length(5, "steps")), Collect(), Collect())
    )
    assert (mixed.steps(10), mixed.epochs(10), mixed.members) == (25, 2.5, 4)


def test_defaults_are_left_out_and_read_back():
    """So a plan that was written before a field was there is read as the plan that it was."""
    plain = Plan("plain", (Start(), Train(Length(2)), Fork(2, "random"), Collect()))
    assert plain.to_json() == {
        "kind": "Plan",
        "name": "plain",
        "phases": [
            {"kind": "Start"},
            {"kind": "Train", "length": {"kind": "Length", "amount": 2}},
            {"kind": "Fork", "members": 2, "masks": "random"},
            {"kind": "Collect"},
        ],
    }
    spelled = {
        "kind": "Start",
        "width": 1,
        "sparsity": 0.0,
        "distribution": "erk",
        "keep_dense": [],
    }
    assert (
        Plan.from_json(plain.to_json() | {"phases": [spelled, *plain.to_json()["phases"][1:]]})
        == plain
    )


FORKED = Plan(
    "forked",
    (
        Start(2),
        Train(Length(3)),
        Collect(),
        Fork(3, "random", 0.6),
        Train(Length(8, "steps"), bag=0.5),
        Collect(),
        Train(Length(1)),
        Collect(),
    ),
)


def test_copies_steps_and_tickets_of_a_plan_that_forks():
    """Ten steps an epoch over all examples, five over half of them; two lineages, three children each."""
    assert FORKED.fork == 3
    assert [FORKED.copies(i) for i in range(9)] == [2] * 4 + [6] * 5
    assert FORKED.members == 2 + 6 + 6
    assert FORKED.steps(10) == 30 + 8 + 10
    assert [FORKED.steps_before(i, 10) for i in range(9)] == [0, 0, 30, 30, 30, 38, 38, 48, 48]
    assert FORKED.all_steps(10) == 2 * 30 + 6 * 18
    assert FORKED.epochs(10) == 3 + 3 * (8 / 5 + 1)
    assert [FORKED.sparsity_before(i) for i in (3, 4, 8)] == [0, 0.6, 0.6]
    assert (
        str(FORKED).splitlines()[0]
        == "forked: 14 tickets, 3 epochs + 3 x 2 trainings x 2 lineages, batch 128"
    )


@pytest.mark.parametrize(
    ("phases", "first"),
    [
        ((Start(1, 0.5), TRAIN, END), 0),
        ((Start(), TRAIN, END), None),
        ((Start(), TRAIN, Prune(0.5), TRAIN, END), 2),
        ((Start(), TRAIN, Train(Length(1), evolve=Gradual(0.5)), END), 2),
        ((Start(), TRAIN, Fork(2, "partition"), END), 2),
        ((Start(), TRAIN, Fork(2, "parent"), END), None),
    ],
)
def test_networks_are_masked_from_the_first_pruning_on(phases, first):
    plan = Plan("p", phases)
    assert [plan.masked_at(i) for i in range(len(phases))] == [
        first is not None and i >= first for i in range(len(phases))
    ]


def test_bags_and_their_epochs_count_the_share_as_it_is_written():
    """0.29 x 100 is 28.999... in floats."""
    assert [Train(Length(1), bag=bag).steps(100) for bag in (1.0, 0.9, 0.29, 0.001)] == [
        100,
        90,
        29,
        1,
    ]
    assert Train(Length(5, "steps"), bag=0.1).steps(100) == 5


def test_gradual_pruning_ends_within_its_phase_however_short():
    assert Gradual(0.5, 0.25, 0.75).steps(100) == (25, 75)
    for steps in range(1, 9):
        for begin, end in ((0, 1), (0.9, 1), (0.5, 0.6), (0, 0.01)):
            first, last = Gradual(0.5, begin, end).steps(steps)
            assert 0 <= first < last <= steps


def test_schedules_at_their_ends():
    assert [Linear(1.0)(step, 5) for step in range(5)] == [1.0, 0.75, 0.5, 0.25, 0.0]
    assert Cosine(1.0, 0.5)(0, 9) == 1.0
    assert Cosine(1.0, 0.5)(4, 9) == pytest.approx(0.75)
    assert Cosine(1.0, 0.5)(8, 9) == 0.5
    assert [Warmup(0.5, Constant(1.0))(step, 8) for step in range(8)] == [
        0.25,
        0.5,
        0.75,
        1,
        1,
        1,
        1,
        1,
    ]
    assert Linear(1.0)(0, 1) == Cosine(1.0)(0, 1) == 1.0  # a phase of one step


def test_drop_fractions_over_a_phase():
    assert [
        Evolve(1, 0.4, "linear").drop_fraction_at(step, 4) for step in range(4)
    ] == pytest.approx([0.4, 0.3, 0.2, 0.1])
    assert Evolve(1, 0.4, "cosine").drop_fraction_at(2, 4) == pytest.approx(0.2)
    assert [Evolve(1, 0.4, end=0.5).drop_fraction_at(step, 4) for step in range(4)] == [
        0.4,
        0.4,
        0.4,
        0.0,
    ]


def test_describe_names_what_differs_from_the_default():
    assert describe(Escape()) == "Escape()"
    assert describe(Start()) == "Start(width=1, sparsity=0)"


def test_a_plan_whose_masks_never_move_says_so():
    """10 epochs of 21 steps: an update every 1000 or 211 never comes, one every 210 comes once."""
    long, short = (jt.edst(3, explore=4, refine=2, update_every=n) for n in (1000, 210))
    assert long.unmoved(21) == (
        "no mask is updated while it trains: update_every=1000 and a network takes 210 steps; give"
        " fewer, such as update_every=10."
    )
    assert jt.edst(3, explore=4, refine=2, update_every=211).unmoved(21)
    assert short.unmoved(21) == jt.dense().unmoved(1) == ""
