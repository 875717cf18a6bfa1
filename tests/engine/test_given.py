"""fit(start_from=...): a network trained elsewhere, in whatever form it comes, and what is said where it does not fit."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_impossible import COMPILED
from tiny_task import apply, data, fit, init, pat, same, task

import jaxtickets as jt
from jaxtickets.errors import MaskError
from jaxtickets.plan import Collect, Fork, Length, Plan, PlanError, Prune, Start, Train
from jaxtickets.schedules import Constant

PLAN = pat(2, parent=0, tune=Length(2, "steps"))


@pytest.fixture(scope="module")
def parents():
    """A dense one and a sparse one."""
    return fit(Plan("parents", (Start(), Train(Length(1)), Collect(), Prune(0.4), Collect()), 16))


@pytest.fixture(scope="module")
def children(parents):
    return fit(PLAN, start_from=parents.tickets[0])


@pytest.mark.parametrize(
    "form", ["params and state", "on the device", "ensemble", "file", "path as text"]
)
def test_a_parent_comes_in_any_form(tmp_path, parents, children, form):
    dense = parents.tickets[0]
    parents[0].save(tmp_path / "parent")
    source = {
        "params and state": (dense.params, dense.model_state),
        "on the device": jax.tree.map(jnp.asarray, (dense.params, dense.model_state)),
        "ensemble": parents[0],
        "file": tmp_path / "parent",
        "path as text": str(tmp_path / "parent"),
    }[form]
    assert all(map(same, fit(PLAN, start_from=source), children))
    assert np.isfinite(dense.params["w1"]).all()  # what was given still is


def test_params_alone_are_enough_where_there_is_no_state(parents):
    dense = parents.tickets[0]
    for nothing in ({}, (), None):
        stateless = dataclasses.replace(
            task(),
            init=lambda key, x, nothing=nothing: (init(key, x)[0], nothing),
            apply=_stateless,
        )
        tickets = fit(PLAN, of=stateless, start_from=dense.params)
        for ticket in tickets:
            assert jax.tree.structure(ticket.model_state) == jax.tree.structure(nothing)
            assert not np.array_equal(ticket.params["w1"], dense.params["w1"])


def _stateless(params, state, x, train, key):
    return apply(params, {"seen": jnp.float32(0)}, x, train, key)[0], state


def test_a_sparse_ticket_keeps_its_mask(parents):
    dense, sparse = parents
    still = fit(Plan("still", (Start(2), Collect()), 16), start_from=sparse)
    assert all(same(ticket, sparse) for ticket in still)
    trained = fit(
        Plan("trained", (Start(), Train(Length(3, "steps")), Collect()), 16), start_from=sparse
    ).tickets[0]
    children = fit(
        Plan(
            "fork",
            (Start(), Fork(2, "parent"), Train(Length(3, "steps")), Prune(0.7), Collect()),
            16,
        ),
        start_from=sparse,
    )
    for path in ("w1", "w2"):
        np.testing.assert_array_equal(trained.mask[path], sparse.mask[path])
        assert not np.any(trained.params[path][~trained.mask[path]])
        assert not any(np.any(child.mask[path] & ~sparse.mask[path]) for child in children)
    for child in fit(PLAN, start_from=sparse):
        assert not np.any(child.mask["w1"] & ~sparse.mask["w1"])
        np.testing.assert_array_equal(child.mask["w2"], sparse.mask["w2"])


def test_fresh_masks_may_be_drawn_over_dense_weights(parents):
    dense = parents.tickets[0]
    a, b = fit(Plan("sparse", (Start(2, 0.5), Collect()), 16), start_from=dense)
    assert not np.array_equal(a.mask["w1"], b.mask["w1"])
    for ticket in (a, b):
        np.testing.assert_array_equal(
            ticket.params["w1"], np.where(ticket.mask["w1"], dense.params["w1"], 0)
        )


def wrong(change):
    """The params, changed."""
    return lambda dense: (dense.params | change(dense.params), dense.model_state)


CASES = {
    "nothing of it": (
        lambda dense: 3,
        r"start_from is no network of perceptron: its params lacks b, w1, w2",
    ),
    "a leaf less": (
        lambda dense: ({k: v for k, v in dense.params.items() if k != "b"}, dense.model_state),
        r"its params lacks b\.",
    ),
    "a leaf more": (wrong(lambda p: {"w3": p["w2"]}), r"its params has besides w3\."),
    "another shape": (
        wrong(lambda p: {"w1": p["w1"][:, :-1]}),
        r"'w1' is float32\[8, 15\] there and float32\[8, 16\] here",
    ),
    "another dtype": (
        wrong(lambda p: {"w1": p["w1"].astype(np.float64)}),
        r"'w1' is float64\[8, 16\] there and float32\[8, 16\] here",
    ),
    "a number for an array": (wrong(lambda p: {"w1": 1.0}), r"'w1' is a float there, not an array"),
    "no statistics": (
        lambda dense: dense.params,
        r"perceptron has batch statistics, which start_from lacks: give \(params, model_state\)",
    ),
    "other statistics": (
        lambda dense: (dense.params, {"mean": np.float32(0)}),
        r"its model state lacks seen and has besides mean",
    ),
    "NaN": (
        wrong(lambda p: {"w2": p["w2"] * np.nan}),
        r"start_from: 'w2' holds NaN or infinite values",
    ),
    "NaN in the statistics": (
        lambda dense: (dense.params, {"seen": np.float32(np.nan)}),
        r"start_from: 'seen' holds NaN",
    ),
    "a mask of what is not pruned": (
        lambda dense: dense._replace(mask=dense.mask | {"b": np.ones(16, bool)}),
        r"start_from masks b, which perceptron does not prune",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_what_does_not_fit_is_said_before_anything_is_compiled(parents, case):
    make, message = CASES[case]
    source = make(parents.tickets[0])
    COMPILED.clear()
    with pytest.raises(jt.TicketError, match=message):
        fit(PLAN, start_from=source)
    assert COMPILED == []


def test_files_ensembles_and_plans_that_do_not_fit(tmp_path, parents):
    dense, sparse = parents
    COMPILED.clear()
    with pytest.raises(
        jt.TicketError,
        match=r"start_from holds 2 tickets and a plan starts from one: take tickets\[0\]",
    ):
        fit(PLAN, start_from=parents)
    with pytest.raises(FileNotFoundError, match="no ticket file"):
        fit(PLAN, start_from=tmp_path / "nowhere")
    with pytest.raises(
        PlanError, match="start_from is a sparse ticket and Start draws a mask of its own"
    ):
        fit(Plan("both", (Start(1, 0.5), Collect()), 16), start_from=sparse)
    with pytest.raises(MaskError, match="the mask of 'w1' is"):
        fit(PLAN, start_from=dense._replace(mask=dense.mask | {"w1": np.ones((3, 3), bool)}))
    assert COMPILED == []
    parents.save(tmp_path / "both")
    with pytest.raises(jt.TicketError, match="holds 2 tickets"):
        fit(PLAN, start_from=tmp_path / "both")
    (tmp_path / "damaged").write_bytes(b"no")
    with pytest.raises(jt.TicketFileError):
        fit(PLAN, start_from=tmp_path / "damaged")


def test_every_lineage_starts_from_the_same_network(parents):
    tickets = fit(
        Plan("same", (Start(3), Train(Length(1, "steps"), Constant(0.0)), Collect()), 16),
        data(),
        start_from=parents.tickets[0],
    )
    assert all(
        np.array_equal(ticket.params["w1"], parents.tickets[0].params["w1"]) for ticket in tickets
    )
