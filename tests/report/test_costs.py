"""Costs of several runs in one unit: by hand, and the same in every table over the same runs."""

import pytest

from jaxtickets import report


def run(model, epochs, flops, training, inference=1.0, forward=10.0, **more):
    """A run of `flops` in all, which by itself says `training` times a dense run of `epochs`."""
    cost = {
        "training": training,
        "inference": inference,
        "forward_dense": forward,
        "phases": [{"flops": flops / 4}, {"flops": flops * 3 / 4}],
    }
    reference = {"kind": "Length", "amount": epochs}
    return {"model": model, "cost": cost | more, "plan": {"kind": "Plan", "reference": reference}}


# A dense epoch of this network is 100 FLOPs. MIMO of 11 epochs that shows every example twice costs 2.03 dense runs of 11 epochs.
DENSE, MIMO, PAT = (
    run("LeNet(S)", 24, 2400, 1.0),
    run("MIMO(LeNet(S), 2)", 11, 2233, 2.03, 1.02),
    run("LeNet(S)", 20, 1700, 0.85, 3.0),
)


def test_by_hand():
    costs = report.in_one_unit([DENSE, MIMO, None, PAT])
    assert costs.ratios["training"] == [
        1.0,
        pytest.approx(2233 / 2400),
        None,
        pytest.approx(1700 / 2400),
    ]
    assert costs.ratios["inference"] == [1.0, 1.02, None, 3.0]
    assert costs.note.startswith(
        "FLOPs are theoretical: training as multiples of one dense run of LeNet(S) over 24 epochs, predictions of one by"
    )


def test_executed_flops_stand_beside_theoretical_ones_where_a_run_tells_them():
    # 600 and 1800 of 2400 FLOPs executed; half a network's worth in a prediction by 2
    phases = [{"flops": 425.0, "executed": 600.0}, {"flops": 1275.0, "executed": 1800.0}]
    cut = run("LeNet(S)", 20, 1700, 0.85, 0.5, inference_executed=1.0, phases=phases)
    costs = report.in_one_unit([DENSE, cut])
    assert costs.columns["training_executed"] == [None, 1.0]
    assert costs.columns["inference_executed"] == [None, 1.0]
    assert "hardware multiplies" in costs.note
    assert "training_executed" not in report.in_one_unit([DENSE]).columns


def test_of_two_networks_the_larger_dense_run_is_the_unit_of_both():
    large = run("LeNet(L)", 10, 8000, 1.0, forward=80.0)
    costs = report.in_one_unit([DENSE, large])
    assert costs.ratios["training"] == [0.3, 1.0]
    assert costs.ratios["inference"] == [10 / 80, 1.0]
    assert "LeNet(L) over 10 epochs" in costs.note


def test_a_unit_that_all_runs_tell_is_the_tables():
    unit = {"network": "LeNet(S)", "length": "24 epochs", "flops": 2400.0, "forward": 10.0}
    told = [
        run("MIMO(LeNet(S), 2)", 11, 2233, 2233 / 2400, reference=unit),
        run("LeNet(S)", 20, 1700, 1700 / 2400, reference=unit),
    ]
    costs = report.in_one_unit(told)
    assert costs.ratios["training"] == [run["cost"]["training"] for run in told]
    assert "24 epochs" in costs.note


def test_runs_that_do_not_tell_enough_keep_their_own_and_say_so():
    costs = report.in_one_unit([DENSE, {"model": "x", "cost": {"training": 0.5, "inference": 2.0}}])
    assert costs.ratios["training"] == [1.0, 0.5]
    assert "each row's own method" in costs.note
    assert report.in_one_unit([None]).note == ""
