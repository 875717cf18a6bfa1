"""Runs that fork, prune and rewind end in the same bits wherever they were stopped."""

import json

import numpy as np
import pytest
from test_resume import Stopped, assert_equal_runs, begin, checkpoints, go_on, stop_after, truncate  # noqa: F401 (a fixture)
from tiny_task import fit, ltr, pat, same

import jaxtickets as jt
from jaxtickets.engine.checkpoints import Checkpoints
from jaxtickets.engine.progress import ProgressLine
from jaxtickets.errors import RunError
from jaxtickets.masks import Units
from jaxtickets.members import Layout
from jaxtickets.plan import Collect, Fork, Length, Plan, Prune, Shrink, Start, Train
from jaxtickets.schedules import Constant

THREE = Train(Length(3, "steps"), Constant(0.1))
PLANS = {
    # 4 steps of the parent and 4 of each child; a validation split makes epochs of 4.
    "pat": (pat(3, masks="partition", collect="best", validation=24), Layout(1, "unroll")),
    "ltr": (
        ltr(),
        Layout(1, "unroll"),
    ),  # 3 steps, remembered; 9, pruning; 9 of each child after the Rewind
    # Two parents at a time, in groups of two, three children each in groups of two: the second holds children of both.
    "wide": (
        Plan(
            "wide",
            (
                Start(4),
                THREE,
                Collect(),
                Fork(3, "random", keep_dense=("w2",)),
                THREE,
                Prune(0.8),
                THREE,
                Collect(),
            ),
            16,
        ),
        Layout(2, "vmap"),
    ),
    # Parents of half the units, and children of a quarter.
    "narrow": (
        Plan(
            "narrow",
            (
                Start(2),
                THREE,
                Prune(0.5, structure=Units()),
                Shrink(1),
                THREE,
                Fork(3, "random", unit="neuron"),
                Shrink(2),
                THREE,
                Collect(),
            ),
            16,
        ),
        Layout(2, "vmap"),
    ),
}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folders = {name: tmp_path_factory.mktemp(name) for name in PLANS}
    for name, (plan, layout) in PLANS.items():
        fit(plan, out=folders[name], layout=layout, checkpoint_every=1e9)
    return folders


@pytest.fixture
def lines():
    """The progress lines of the runs of a test. (Its own patch: `go_on` undoes the others.)"""
    seen, real = [], ProgressLine.close

    def close(self):
        real(self)
        seen.append(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ProgressLine, "close", close)
        yield seen


@pytest.mark.parametrize(
    ("name", "saves"),
    [
        ("pat", 4),  # at the end of the parent's training
        ("pat", 6),  # in the first child's, with a best of no epoch yet
        ("pat", 15),  # in the last child's
        ("ltr", 5),  # while pruning, with weights remembered
        ("ltr", 13),  # right after the first child's Rewind
        ("ltr", 27),  # in the last child's training
        (
            "wide",
            14,
        ),  # in the second group of children of the first group of parents, after their Prune
        ("wide", 24),  # at the end of the parents of the second group
        ("narrow", 5),  # in the shrunk parents' training
        ("narrow", 8),  # in the first group of children, whose parents are shrunk, too
        ("narrow", 14),  # in the last group of children
    ],
)
def test_a_stopped_run_ends_in_the_same_bits(
    tmp_path,
    undisturbed,
    stop_after,  # noqa: F811
    lines,
    monkeypatch,
    name,
    saves,
):
    plan, layout = PLANS[name]
    begin(plan, tmp_path, stop_after, saves, layout=layout)
    go_on(plan, tmp_path, monkeypatch, layout=layout)
    assert_equal_runs(tmp_path, undisturbed[name])
    assert lines[-1]._done == lines[-1]._total  # what was skipped and what was trained add up


def test_a_damaged_checkpoint_of_a_child_is_passed_over(
    tmp_path,
    undisturbed,
    stop_after,  # noqa: F811
    monkeypatch,
):
    """The newest is of the second child's first step; the one before it is of the first child's end, before it was collected."""
    plan, layout = PLANS["pat"]
    begin(plan, tmp_path, stop_after, 9, layout=layout)
    assert (tmp_path / "tickets" / "000.safetensors").exists()
    truncate(checkpoints(tmp_path)[-1])
    with pytest.warns(UserWarning, match=r"checkpoints/8 is damaged .*; using the one before it"):
        go_on(plan, tmp_path, monkeypatch, layout=layout)
    assert_equal_runs(tmp_path, undisturbed["pat"])


def test_parents_are_in_the_checkpoints_of_all_children_but_the_last(
    tmp_path,
    stop_after,  # noqa: F811
    monkeypatch,
):
    plan, layout = PLANS["pat"]
    for saves, there in ((6, True), (14, False)):
        folder = tmp_path / str(saves)
        begin(plan, folder, stop_after, saves, layout=layout)
        monkeypatch.undo()
        written = "".join(path.read_text() for path in checkpoints(folder)[-1].rglob("_METADATA"))
        assert ("parents" in written) == there


def test_children_shorter_than_the_time_between_checkpoints_are_still_saved(
    tmp_path, undisturbed, monkeypatch
):
    """A step takes a second here, a child four, and a checkpoint is due every five."""
    saved, clock, real = [], [0.0], Checkpoints.save

    def save(self, state, host, place):
        real(self, state, host, place)
        clock[0] = 0
        saved.append((place["branch"], place["phase"], place["step"]))

    def age(self):
        clock[0] += 1
        return clock[0]

    monkeypatch.setattr(Checkpoints, "save", save)
    monkeypatch.setattr(Checkpoints, "age", age)
    fit(PLANS["pat"][0], out=tmp_path, checkpoint_every=5)
    assert saved == [(1, 3, 1), (2, 3, 2), (3, 3, 3)]


def test_a_group_of_other_members_is_no_place_to_go_on_from(tmp_path, stop_after, monkeypatch):  # noqa: F811
    """Five lineages in groups of three: the second group is of two, as every group of two is, and not of the same two."""
    plan = Plan("five", (Start(5), THREE, Collect()), 16)
    begin(plan, tmp_path, stop_after, 5, layout=Layout(3, "vmap"))
    monkeypatch.undo()
    with pytest.raises(
        RunError,
        match=r"trains 3 lineages at a time, and this layout 2; give layout=Layout\(group=3\)",
    ):
        fit(plan, out=tmp_path, layout=Layout(2, "vmap"))
    whole = go_on(plan, tmp_path, monkeypatch, layout=Layout(3, "vmap"))
    assert [ticket.info["lineage"] for ticket in whole] == [0, 1, 2, 3, 4]
    assert all(map(same, whole, fit(plan, layout=Layout(3, "vmap"))))


def test_another_parent_is_another_run(tmp_path):
    plan = pat(2, parent=0, tune=Length(1, "steps"))
    parent = fit(Plan("parent", (Start(), Collect()), 16)).tickets[0]
    other = parent._replace(params=parent.params | {"b": parent.params["b"] + np.float32(1e-6)})
    children = fit(plan, out=tmp_path, start_from=parent)
    with pytest.raises(RunError, match=r'start_from was "\w+" there and is "\w+" here'):
        fit(plan, out=tmp_path, start_from=other)
    with pytest.raises(RunError, match=r'start_from was "\w+" there and is "nothing" here'):
        fit(plan, out=tmp_path)
    again = fit(plan, out=tmp_path, start_from=(parent.params, parent.model_state))
    assert all(map(same, children, again))
    assert "start_from" in json.loads((tmp_path / "config.json").read_text())["run"]
    assert isinstance(again, jt.TicketEnsemble)
