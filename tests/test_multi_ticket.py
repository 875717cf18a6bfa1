"""The plans of Multi-Ticket against Kobayashi et al. (2022), sections 3 and 4 and appendices A and B."""

import numpy as np
import pytest

import jaxtickets as jt
from jaxtickets.plan import L1, Adam, Collect, Length, Prune, Remember, Rewind, Start, Train
from jaxtickets.schedules import Linear

STEPS = 114  # of 32 in MRPC's 3,668 examples
IMP = ["Start", "Remember", *["Train", "Prune", "Rewind"] * 3, "Train", "Collect"]


def trains(plan):
    return [phase for phase in plan.phases if isinstance(phase, Train)]


@pytest.mark.parametrize("scheme", ["base_lt", "active_lt", "random_lt"])
def test_a_ticket_is_found_in_three_rounds(scheme):
    plan = jt.multi_ticket(scheme, 20)
    assert [type(phase).__name__ for phase in plan.phases] == IMP
    assert (plan.width, plan.members, plan.batch_size, plan.reference) == (20, 20, 32, Length(3))
    assert plan.start == Start(20)
    assert plan.phases[1] == Remember("first")
    # Ten per cent of the original count each time, by one threshold; then back to the pretrained weights, the head too.
    assert [phase for phase in plan.phases if isinstance(phase, Prune)] == [
        Prune(0.1),
        Prune(0.2),
        Prune(0.3),
    ]
    assert [phase for phase in plan.phases if isinstance(phase, Rewind)] == [Rewind("first")] * 3
    assert {(train.length, train.optimizer) for train in trains(plan)} == {
        (Length(3), Adam(clip_norm=1.0, weight_decay=0.0, eps=1e-8))
    }
    assert trains(plan)[-1].penalty is None  # it is there only while the mask is looked for


@pytest.mark.parametrize("scheme", ["baseline", "bagging", "base_lt", "active_lt", "random_lt"])
def test_the_learning_rate_ends_at_exactly_0_in_every_round(scheme):
    """The mistake of appendix B: counted over all rounds, a round of three ends at 1.8e-5 and not at 0."""
    rounds = trains(jt.multi_ticket(scheme))
    assert len(rounds) == (4 if scheme.endswith("lt") else 1)
    for train in rounds:
        steps = train.steps(STEPS)
        rates = [train.lr(step, steps) for step in range(steps)]
        assert rates[0] == 2e-5
        assert rates[-1] == 0.0
        np.testing.assert_allclose(
            np.diff(rates), -2e-5 / (steps - 1), rtol=1e-9
        )  # a line; float64


def test_tau_falls_as_the_learning_rate_does():
    for scheme, on in (("active_lt", "earlier"), ("random_lt", "random")):
        for train in trains(jt.multi_ticket(scheme, tau=0.01, sparsity=0.4))[:-1]:
            assert train.penalty is not None
            assert train.penalty.on == on
            steps = train.steps(STEPS)
            for step in (0, 100, steps - 1):
                assert train.penalty.strength(step, steps) / 0.01 == pytest.approx(
                    train.lr(step, steps) / 2e-5, rel=1e-12
                )
    assert trains(jt.multi_ticket("random_lt", sparsity=0.4))[0].penalty.share == pytest.approx(
        0.6
    )  # P(0) is the pruning ratio
    assert {train.penalty for train in trains(jt.multi_ticket("base_lt"))} == {None}


def test_the_dense_schemes():
    assert jt.multi_ticket("baseline", 4).phases == (
        Start(4),
        Train(Length(3), Linear(2e-5), Adam(clip_norm=1.0)),
        Collect(),
    )
    assert trains(jt.multi_ticket("bagging", 4))[0].bag == 0.9


def test_seeds_train_together_but_for_those_that_need_the_ones_before():
    sequential = {
        scheme: jt.multi_ticket(scheme).sequential
        for scheme in ("baseline", "bagging", "base_lt", "active_lt", "random_lt")
    }
    assert sequential == {
        "baseline": False,
        "bagging": False,
        "base_lt": False,
        "active_lt": True,
        "random_lt": False,
    }


def test_they_survive_json():
    for scheme in ("baseline", "bagging", "base_lt", "active_lt", "random_lt"):
        plan = jt.multi_ticket(scheme, rewind_head=False, decoupled=True)
        assert jt.Plan.from_json(plan.to_json()) == plan
    assert L1(0.1) == L1(jt.schedules.Constant(0.1))
