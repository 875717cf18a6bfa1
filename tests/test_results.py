"""Committed result files against the code that is there: a command that notices what is stale, and that it notices."""

import copy
import json
from pathlib import Path

import pytest

RESULTS = Path(__file__).resolve().parent.parent / "experiments" / "results"
pytestmark = pytest.mark.usefixtures("programs_are_compiled_once", "experiments_are_importable")


def read(name):
    return json.loads((RESULTS / name).read_bytes())


@pytest.mark.parametrize("file", sorted(path.name for path in RESULTS.glob("*.json")))
def test_plans_networks_and_costs_of_a_file_are_those_of_this_commit(file):
    import results

    assert results.check(read(file)) == []


def test_another_plan_network_or_cost_is_noticed():
    import results

    found = read("evaluation-cifar10.json")
    assert results.check(found) == []
    for change, line in (
        (
            lambda run: run["plan"]["phases"][1]["length"].update(amount=21.0),
            "independent: its plan is another now",
        ),
        (
            lambda run: run.update(model="LeNet(M)"),
            "independent: its network was LeNet(M) and is LeNet(S)",
        ),
        (
            lambda run: run["cost"]["phases"][0].update(flops=1e13),
            "independent: its training FLOPs were 1e+13 and are 1.47342",
        ),
    ):
        other = copy.deepcopy(found)
        change(other["rows"][0]["run"])
        (told,) = results.check(other)
        assert told.startswith(line)


def test_a_canary_that_sings_otherwise_is_noticed():
    import results
    from support import canary

    found = read("compare-digits.json")
    row = next(row for row in found["rows"] if row["method"] == "static_sparse")
    config = results._flags(found["command"])
    now = canary.sing(config.experiment("static_sparse", 0))
    assert 0.1 < now < 5  # of ten classes, after a handful of steps
    assert canary.sing(config.experiment("static_sparse", 1)) != pytest.approx(
        now, rel=canary.TOLERANCE
    )
    found["rows"] = [row | {"canary": now}]
    assert results.check_canaries(found, ("static_sparse",)) == []
    found["rows"] = [row | {"canary": now * 1.01}]
    (told,) = results.check_canaries(found, ("static_sparse",))
    assert told.startswith("static_sparse: the loss after a few steps was")
    assert results.check_canaries(found, ()) == []  # only if asked: it trains
    del found["rows"][0]["canary"]
    assert "tells no canary" in results.check_canaries(found, ())[0]


@pytest.mark.parametrize("method", ["static_sparse", "dst", "edst"])
def test_the_digits_table_is_what_this_commit_gives(method):
    """Three rows of it, those whose masks are drawn and evolve."""
    import results

    found = read("compare-digits.json")
    assert all("canary" in row for row in found["rows"])
    assert results.check_canaries(found, (method,)) == []
