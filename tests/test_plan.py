"""Plans: what they say, what they refuse, and that JSON gives back what was written."""

import dataclasses
import json
import math

import pytest

from jaxtickets.phases import describe
from jaxtickets.plan import SGD, Adam, Collect, Escape, Evolve, Length, Plan, PlanError, Start, Train
from jaxtickets.schedules import Constant, Cosine, Linear, Piecewise, Warmup

SCHEDULES = [Constant(0.1), Piecewise((0.1, 0.01), (0.5,)), Linear(0.1), Cosine(0.1, 0.001), Warmup(0.1, Cosine(0.2))]
FULL = Plan(
    "everything",
    (
        Start(3, 0.8, "er", ("w1", "w2")),
        *(
            Train(Length(2), schedule, Adam(clip_norm=1.0), Evolve(10, 0.3, "cosine", "random", "zero", False, 0.75))
            for schedule in SCHEDULES
        ),
        Collect("best"),
        Escape(0.7, "random", "zero"),
        Train(Length(7, "steps"), optimizer=SGD(0.5, True, 1e-3)),
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
        for one in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
            walk(one)

    walk(FULL.to_json())
    kinds = (Plan, Length, SGD, Adam, Evolve, Start, Train, Escape, Collect, Constant, Piecewise, Linear, Cosine, Warmup)
    assert seen == {kind.__name__: fields_of(kind) for kind in kinds}


def test_plans_differ_where_a_number_does():
    changed = json.loads(json.dumps(FULL.to_json()).replace('"clip_norm": 1.0', '"clip_norm": 2.0', 1))
    assert Plan.from_json(changed) != FULL


def test_a_plan_prints_what_it_does():
    assert str(FULL).splitlines() == [
        "everything: 6 tickets, 6 trainings x 3 lineages, batch 64, 100 held out",
        "  1. Start(width=3, sparsity=0.8, er, keep_dense=('w1', 'w2'))",
        *(
            f"  {i}. Train(2 epochs, lr={lr}, optimizer=Adam(clip_norm=1.0), evolve=Evolve(update_every=10, drop_fraction=0.3, "
            "decay='cosine', growth='random', regrown='zero', weight_update=False, end=0.75))"
            for i, lr in enumerate(
                ("0.1", "(0.1, 0.01 from 50%)", "0.1 to 0 (linear)", "0.1 to 0.001 (cosine)", "0.2 to 0 (cosine) warmed up over 10%"), 2
            )
        ),
        "  7. Collect(which='best')",
        "  8. Escape(drop_fraction=0.7, growth='random', regrown='zero')",
        "  9. Train(7 steps, lr=0.1, optimizer=SGD(momentum=0.5, nesterov=True, weight_decay=0.001))",
        "  10. Collect()",
    ]
    assert str(Plan("one", (Start(), Train(Length(1, "steps")), Collect()))).startswith("one: 1 ticket, 1 step, batch 128")


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
    "second start": (plan(Start(), TRAIN, Start(), END), r"phase 3, Start\(.*a plan starts once; remove it"),
    "no start": (plan(TRAIN, END), r"the first phase of a plan is Start"),
    "nothing": (plan(), r"the first phase of a plan is Start"),
    "not a phase": (plan(Start(), "Train", END), r"phase 2 is Start\(...\), Train\(...\)"),
    "best without validation": (plan(Start(), TRAIN, Collect("best")), r"phase 3, Collect\(which='best'\).*set validation=5000"),
    "best of nothing": (plan(Start(), Collect("best"), validation=5), r"phase 2.*put a Train right before it"),
    "nothing collected": (plan(Start(), TRAIN), r"end the plan with Collect\(\)"),
    "zero members": (lambda: Start(0), r"members .* at least 1; got 0"),
    "half a member": (lambda: Start(1.5), r"members .* at least 1; got 1.5"),  # pyright: ignore[reportArgumentType]
    "sparsity 1": (lambda: Start(1, 1.0), r"sparsity is the share of zeros, in \[0, 1\): got 1.0"),
    "negative sparsity": (lambda: Start(1, -0.1), r"sparsity is the share of zeros, in \[0, 1\): got -0.1"),
    "sparsity nan": (lambda: Start(1, math.nan), r"sparsity is the share of zeros"),
    "keep_dense a text": (lambda: Start(1, 0.5, keep_dense="w1"), r"keep_dense is a tuple"),  # pyright: ignore[reportArgumentType]
    "distribution": (lambda: Start(1, 0.5, "erkk"), r"distribution is one of uniform, er, erk; got 'erkk'"),  # pyright: ignore[reportArgumentType]
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
    "lr a number": (lambda: Train(Length(1), 0.1), r"Train's lr is one of Constant, Piecewise.*got 0.1"),  # pyright: ignore[reportArgumentType]
    "optimizer a text": (lambda: Train(Length(1), optimizer="sgd"), r"Train's optimizer is one of SGD, Adam"),  # pyright: ignore[reportArgumentType]
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
    mixed = Plan("mixed", (Start(2), Train(Length(2)), Train(Length(5, "steps")), Collect(), Collect()))
    assert (mixed.steps(10), mixed.epochs(10), mixed.members) == (25, 2.5, 4)


def test_schedules_at_their_ends():
    assert [Linear(1.0)(step, 5) for step in range(5)] == [1.0, 0.75, 0.5, 0.25, 0.0]
    assert Cosine(1.0, 0.5)(0, 9) == 1.0
    assert Cosine(1.0, 0.5)(4, 9) == pytest.approx(0.75)
    assert Cosine(1.0, 0.5)(8, 9) == 0.5
    assert [Warmup(0.5, Constant(1.0))(step, 8) for step in range(8)] == [0.25, 0.5, 0.75, 1, 1, 1, 1, 1]
    assert Linear(1.0)(0, 1) == Cosine(1.0)(0, 1) == 1.0  # a phase of one step


def test_drop_fractions_over_a_phase():
    assert [Evolve(1, 0.4, "linear").fraction_at(step, 4) for step in range(4)] == pytest.approx([0.4, 0.3, 0.2, 0.1])
    assert Evolve(1, 0.4, "cosine").fraction_at(2, 4) == pytest.approx(0.2)
    assert [Evolve(1, 0.4, end=0.5).fraction_at(step, 4) for step in range(4)] == [0.4, 0.4, 0.4, 0.0]


def test_describe_names_what_differs_from_the_default():
    assert describe(Escape()) == "Escape()"
    assert describe(Start()) == "Start(width=1, sparsity=0)"
