"""What fits into a budget, checked against the ledger and by hand."""

import numpy as np
import pytest

import jaxtickets as jt
from jaxtickets.dataset import Dataset
from jaxtickets.errors import MaskError
from jaxtickets.methods.budget import FAMILIES, scaled
from jaxtickets.plan import PlanError, Train

DATA = Dataset(
    np.broadcast_to(np.float32(0), (5000, 8, 8, 3)),
    np.broadcast_to(np.int32(0), (5000,)),
    10,
    name="blank",
)
TASK = jt.classification(jt.models.WideResNet(10, 1))


@pytest.mark.parametrize("training", [0.3, 2.0])
def test_every_option_fits_and_nearly_fills_the_budget(training):
    found = jt.within_budget(TASK, DATA, training, members=(2, 4))
    assert {option.plan.name for option in found.options} | {
        name for name, _ in found.left_out
    } == set(FAMILIES)
    for option in found.options:
        trains = [phase.length.amount for phase in option.plan.phases if isinstance(phase, Train)]
        assert (
            option.training == jt.cost(option.plan, TASK, DATA).training
        )  # what is printed is the plan's own cost
        assert (
            option.training <= training * 1.0005
        )  # looking at a dense gradient does not scale with length exactly
        # Rounding down to whole epochs loses less than one epoch of each training; gradual pruning moves in steps of 1,000.
        assert (
            option.training
            > training
            - len(trains) * option.plan.copies(len(option.plan.phases)) / 250
            - 0.05 * training
        )
        assert min(trains) >= 1


def test_a_dense_ensemble_by_hand():
    """Twice a run of 100 epochs, over 4 members: 50 epochs each."""
    (option,) = jt.within_budget(
        TASK, DATA, 2.0, reference=100, members=(4,), methods=("dense",)
    ).options
    assert [phase.length.amount for phase in option.plan.phases if isinstance(phase, Train)] == [50]
    assert (option.plan.members, option.training, option.inference) == (4, 2.0, 4.0)


def test_what_would_be_too_short_is_left_out_and_said():
    found = jt.within_budget(TASK, DATA, 0.01, members=(8,), methods=("dense", "dst"))
    assert (found.options, found.left_out) == ((), (("dense", 8), ("dst", 8)))
    assert "shorter than 1 epoch: dense with 8, dst with 8" in str(found)
    assert scaled(jt.dense(epochs=250), 0.003) is None


def test_it_prints_a_row_per_option():
    text = str(jt.within_budget(TASK, DATA, 0.5, members=(3,), methods=("edst",)))
    assert "0.5x of a dense training run of 250 epochs" in text
    assert sum("edst" in line for line in text.splitlines()) == 1


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"training": 0}, PlanError, "a positive number of dense runs"),
        ({"methods": ("rigl",)}, PlanError, "methods are of dense, .*; got 'rigl'"),
        ({"sparsity": 1.0}, MaskError, r"in \[0, 1\)"),
    ],
)
def test_an_impossible_budget_is_an_error(options, error, message):
    with pytest.raises(error, match=message):
        jt.within_budget(TASK, DATA, **options)
