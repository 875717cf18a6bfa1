"""Schedules against PyTorch's, the papers' formulas and hand-worked values."""

import itertools
import math
import warnings

import pytest
from others import others

import jaxtickets as jt
from jaxtickets.methods.random_children import PARENT
from jaxtickets.plan import Collect, Fork, Length, Remember, Rewind, Train
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


def torch_one_cycle(steps, low, high, final, rise, momentum):
    """Learning rate and momentum of every step, as PyTorch's scheduler sets them."""
    torch = others("torch")
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        high,
        total_steps=steps,
        pct_start=rise,
        anneal_strategy="cos",
        cycle_momentum=True,
        base_momentum=min(momentum),
        max_momentum=max(momentum),
        div_factor=high / low,
        final_div_factor=low / final,
    )
    seen = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the optimizer takes no steps here
        for _ in range(steps):
            seen.append((optimizer.param_groups[0]["lr"], optimizer.param_groups[0]["momentum"]))
            if len(seen) < steps:
                scheduler.step()
    return list(zip(*seen, strict=True))


@pytest.mark.parametrize(("steps", "rise"), [(3900, 0.1), (100, 0.1), (97, 0.3), (20, 0.5)])
def test_one_cycle_is_pytorchs_step_by_step(steps, rise):
    rates, momenta = torch_one_cycle(steps, 0.001, 0.1, 1e-7, rise, (0.95, 0.85))
    lr, momentum = OneCycle(0.001, 0.1, 1e-7, rise), OneCycle(0.95, 0.85, 0.95, rise)
    # Both in float64; a sum of a few terms below 0.1 differs in the last digits at most.
    assert [lr(step, steps) for step in range(steps)] == pytest.approx(list(rates), abs=1e-12)
    assert [momentum(step, steps) for step in range(steps)] == pytest.approx(
        list(momenta), abs=1e-12
    )


def test_one_cycle_of_very_few_steps_stays_within_its_ends():
    """Fewer than one step of rise: PyTorch divides by zero or starts beyond the peak; here it starts at the peak."""
    assert OneCycle()(0, 10) == 0.1
    for steps in range(1, 12):
        rates = [OneCycle()(step, steps) for step in range(steps)]
        assert all(1e-7 * (1 - 1e-9) <= rate <= 0.1 for rate in rates)
        assert rates[-1] == pytest.approx(1e-7) or steps == 1


def rates_of(plan, per_epoch):
    """The learning rate of every step, phase by phase."""
    trains = [phase for phase in plan.phases if isinstance(phase, Train)]
    return [
        [phase.lr(step, phase.steps(per_epoch)) for step in range(phase.steps(per_epoch))]
        for phase in trains
    ]


@pytest.mark.parametrize(("members", "epochs", "per_epoch"), [(5, 200, 3), (6, 12, 7), (1, 4, 5)])
def test_snapshot_follows_huangs_formula_at_every_step(members, epochs, per_epoch):
    """Equation 2: a(t) = a0 / 2 (cos(pi mod(t - 1, ceil(T / M)) / ceil(T / M)) + 1), t from 1 to T."""
    plan = jt.snapshot(members, epochs, lr=0.2)
    total = epochs * per_epoch
    cycle = math.ceil(total / members)
    expected = [
        0.1 * (math.cos(math.pi * ((t - 1) % cycle) / cycle) + 1) for t in range(1, total + 1)
    ]
    assert list(itertools.chain(*rates_of(plan, per_epoch))) == pytest.approx(expected, abs=1e-12)
    assert [type(phase) for phase in plan.phases[1:]] == [Train, Collect] * members


def test_snapshot_cycles_end_where_it_says():
    assert [
        phase.length for phase in jt.snapshot(3, 100, cycle=30).phases if isinstance(phase, Train)
    ] == [Length(30)] * 3
    assert (
        jt.snapshot(3, Length(100, "steps")).steps(1) == 99
    )  # cycles of 33; the step that is left over is not used
    with pytest.raises(
        jt.PlanError, match=r"3 times 40 epochs are 120 epochs, and there are 100 epochs"
    ):
        jt.snapshot(3, 100, cycle=40)
    with pytest.raises(jt.PlanError, match="cannot be divided into 5 cycles of at least one step"):
        jt.snapshot(5, Length(4, "steps"))


def test_fge_collects_exactly_where_the_learning_rate_is_lowest():
    """Whitaker and Whitley: cycles of 4 epochs for 22 epochs from epochs 120 and 156, 12 networks, 200 epochs in all."""
    plan, per_epoch = jt.fge(), 10
    assert (plan.members, plan.epochs()) == (12, 200)
    kinds = [phase for phase in plan.phases if isinstance(phase, Remember | Rewind)]
    assert kinds == [Remember("60%"), Rewind("60%")]
    before = plan.phases.index(kinds[0])
    assert plan.steps_before(before, per_epoch) == 120 * per_epoch
    rewound = plan.phases.index(kinds[1])
    assert plan.steps_before(rewound, per_epoch) == (156 + 22) * per_epoch
    for begin, end in ((before + 2, rewound), (rewound + 1, len(plan.phases))):
        phases = plan.phases[begin:end]
        assert (
            sum(phase.steps(per_epoch) for phase in phases if isinstance(phase, Train))
            == 22 * per_epoch
        )
        rates, collected = [], []
        for phase in phases:
            if isinstance(phase, Train):
                rates += [
                    phase.lr(step, phase.steps(per_epoch)) for step in range(phase.steps(per_epoch))
                ]
            else:
                collected.append(len(rates) - 1)
        assert len(collected) == 6
        assert [rates[step] for step in collected] == pytest.approx([min(rates)] * 6)
        assert min(rates) == pytest.approx(0.0005)
        assert max(rates) == rates[0] == 0.05
        # A minimum of the learning rate lasts one step here and the next, where the rising half begins.
        lowest = {step for step, rate in enumerate(rates) if rate == pytest.approx(0.0005)}
        assert lowest == set(collected) | {step + 1 for step in collected[:-1]}
        # Garipov's triangle, half a cycle down and half a cycle up, up to that one step.
        half = 2 * per_epoch
        for step, rate in enumerate(rates):
            share = abs((step / half) % 2 - 1)
            assert rate == pytest.approx(0.05 * share + 0.0005 * (1 - share), abs=0.05 * 1.5 / half)


def test_fge_says_what_does_not_fit():
    for options, message in (
        ({"members": 5}, "5 members cannot be shared equally by 2 starts; take 6"),
        ({"starts": (0.9, 0.6)}, "starts are shares of the budget, rising"),
        ({"starts": ()}, "starts are shares of the budget"),
        ({"starts": (0.6, 1.0)}, "the pre-training takes all of 200 epochs"),
        ({"cycle": 5}, "a cycle longer than the budget"),
    ):
        with pytest.raises(jt.PlanError, match=message):
            jt.fge(**options)


def test_the_parents_learning_rate_is_the_papers():
    """0.1 for half of the training, a line to 0.001 at nine tenths, 0.001 to the end (Whitaker and Whitley, large budget)."""
    steps = 140 * 390
    assert [PARENT(epoch * 390, steps) for epoch in (0, 35, 70)] == [0.1, 0.1, 0.1]
    assert PARENT(98 * 390, steps) == pytest.approx((0.1 + 0.001) / 2)  # half way from 70 to 126
    assert PARENT(84 * 390, steps) == pytest.approx(0.1 - 0.099 / 4)
    assert [PARENT(step, steps) for step in (126 * 390, 133 * 390, steps - 1)] == pytest.approx(
        [0.001] * 3
    )
    plan = jt.prune_and_tune()
    assert [phase.lr for phase in plan.phases if isinstance(phase, Train)] == [
        PARENT,
        OneCycle(0.001, 0.1, 1e-7, 0.1),
    ]
    constant = [
        phase.lr
        for phase in jt.prune_and_tune(tune_lr="constant").phases
        if isinstance(phase, Train)
    ]
    assert constant[1] == Constant(PARENT(steps - 1, steps)) == Constant(0.001)
    assert any(isinstance(phase, Fork) for phase in plan.phases)


def test_polyline_by_hand():
    schedule = Polyline((1, 3, 0), at=(0, 0.25, 1))
    assert [schedule(step, 8) for step in range(8)] == pytest.approx([1, 2, 3, 2.5, 2, 1.5, 1, 0.5])
    assert str(schedule) == "(1 at 0%, 3 at 25%, 0 at 100%)"
    assert Polyline((2, 2), (0, 1))(0, 1) == 2


@pytest.mark.parametrize(
    "whole",
    [
        Constant(0.1),
        Piecewise((0.3, 0.2, 0.1), (0.2, 0.7)),
        Linear(0.5, 0.1),
        Cosine(0.4),
        PARENT,
        OneCycle(),
    ],
)
@pytest.mark.parametrize("steps", [100, 40, 20])
def test_parts_one_after_another_are_the_whole(whole, steps):
    shares = (0, 0.05, 0.25, 0.8, 1)
    parts = []
    for begin, end in itertools.pairwise(shares):
        own = round((end - begin) * steps)
        parts += [Part(whole, begin, end)(step, own) for step in range(own)]
    assert parts == [whole(step, steps) for step in range(steps)]


def test_a_warm_up_within_a_part_and_a_part_that_rounding_makes_longer():
    warm = Warmup(0.5, Constant(1.0))
    assert [Part(warm, 0.25, 1)(step, 6) for step in range(6)] == [
        warm(step, 8) for step in range(2, 8)
    ]
    last = Part(
        Linear(1.0), 0.9, 1
    )  # a phase of 2 steps is a tenth of 20: their last is the whole's last
    assert [last(step, 2) for step in range(2)] == pytest.approx([1 / 19, 0])
    assert last(2, 2) == 0  # never beyond the end


def test_a_cosine_may_end_one_step_before_its_end():
    assert Cosine(1.0, 0.0)(9, 10) == 0
    assert [Cosine(1.0, 0.0, reached=False)(step, 4) for step in range(4)] == pytest.approx(
        [(1 + math.cos(math.pi * share)) / 2 for share in (0, 0.25, 0.5, 0.75)]
    )


@pytest.mark.parametrize(
    "make",
    [
        lambda: Polyline((0.1, 0.2), (0, 0.5)),
        lambda: Polyline((0.1, 0.2, 0.3), (0, 0.5, 0.5)),
        lambda: Polyline((0.1,), (0, 1)),
        lambda: Polyline((0.1, -0.2), (0, 1)),
        lambda: OneCycle(rise=1.0),
        lambda: OneCycle(high=math.inf),
        lambda: Part(Constant(0.1), 0.5, 0.5),
        lambda: Part(Constant(0.1), 0, 1.1),
        lambda: Part(Part(Constant(0.1), 0, 1), 0, 1),  # pyright: ignore[reportArgumentType]
    ],
)
def test_what_is_no_schedule_is_an_error(make):
    with pytest.raises(ValueError, match="got"):
        make()
