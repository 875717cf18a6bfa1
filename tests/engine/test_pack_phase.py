"""Pack: layers made of blocks hold those that exist, and training goes on in them as it would have."""

import itertools

import jax
import numpy as np
import pytest
from packed_task import FOUR, IN, PRUNE, fit, packed, points, prune, steps, task, without_pack
from test_resume import assert_equal_runs, begin, go_on, stop_after  # noqa: F401 (a fixture)
from tiny_task import CLASSES, apply, init, leaves, same

import jaxtickets as jt
from jaxtickets.errors import PlanError, TicketError
from jaxtickets.masks import NM, Blocks, Units, packing
from jaxtickets.plan import (
    L1,
    SGD,
    Adam,
    Collect,
    Escape,
    Evolve,
    Fork,
    Gradual,
    Optax,
    Pack,
    Plan,
    Prune,
    Remember,
    Rewind,
    Shrink,
    Start,
    Train,
)
from jaxtickets.schedules import Constant

PACK = Pack(FOUR, 0.7)


def plan(*phases, width=1):
    return Plan("packing", (Start(width), *phases), 16)


def close(tickets, reference, atol=1e-5):
    """Equal, but for the order in which some ten float32 numbers of order 1 are added up, a few steps long."""
    for a, b in zip(jt.unpack(tickets), reference, strict=True):
        assert jax.tree.structure(tuple(a)[:3]) == jax.tree.structure(tuple(b)[:3])
        for x, y in zip(
            leaves((a.mask, a.model_state)), leaves((b.mask, b.model_state)), strict=True
        ):
            np.testing.assert_array_equal(x, y)
        for x, y in zip(leaves(a.params), leaves(b.params), strict=True):
            np.testing.assert_allclose(x, y, atol=atol)


def test_layers_hold_their_blocks_and_nothing_else():
    before, after = fit(plan(steps(), PRUNE, Collect(), PACK, Collect()))
    for name, rows, columns in (("first", 4, 6), ("second", 6, 4)):
        kernel, mask = after.params[name]["kernel"], after.mask[name]["kernel"]
        table = after.model_state[packing.COLLECTION][name]["stored"]
        whole = np.asarray(before.mask[name]["kernel"])
        np.testing.assert_array_equal(table, whole.reshape(rows, 4, columns, 4).any((1, 3)))
        assert kernel.shape[2:] == (4, 4)
        assert kernel.shape[0] * kernel.shape[1] <= 0.7 * rows * columns
        # By hand: the blocks of a column follow one another, top down.
        blocks = (
            np.asarray(before.params[name]["kernel"]).reshape(rows, 4, columns, 4).swapaxes(1, 2)
        )
        in_order = [blocks[r, c] for c in range(columns) for r in range(rows) if table[r, c]]
        held = np.asarray(mask).any((2, 3)).reshape(-1)
        np.testing.assert_array_equal(np.asarray(kernel).reshape(-1, 4, 4)[held], in_order)
        assert not np.asarray(kernel).reshape(-1, 4, 4)[~held].any()
    assert after.params["last"]["kernel"].shape == (16, CLASSES)
    assert after.info["density"] == before.info["density"]
    assert after.info["packed"][0] == 16 * 24 + 24 * 16
    assert same(jt.unpack(jt.TicketEnsemble(task(), (after,), spec())).tickets[0], before)


def spec():
    return jax.ShapeDtypeStruct((IN,), np.float32)


@pytest.mark.parametrize(
    "optimizer",
    [SGD(0.9, True, 1e-3), Adam(weight_decay=0.1, clip_norm=0.5), Optax("lion"), Optax("sm3")],
    ids=["nesterov", "adam", "lion", "sm3"],
)
def test_training_goes_on_as_it_would_have(optimizer):
    """With moments, dropout, augmentation and decay."""
    phases = steps(4, optimizer), PRUNE, steps(3, optimizer)
    masked = fit(plan(*phases, steps(5, optimizer), Collect()))
    small = fit(plan(*phases, PACK, steps(5, optimizer), Collect()))
    if optimizer == Optax("sm3"):  # has moments of rows and columns, which begin afresh
        assert not np.allclose(
            jt.unpack(small).tickets[0].params["first"]["kernel"],
            masked.tickets[0].params["first"]["kernel"],
            atol=1e-6,
        )
        return
    # Lion's step is a sign: where rounding turns one, the weight is two steps of .05 / 5 off.
    close(small, masked, atol=1e-5)
    for kernel in (small.tickets[0].params[name]["kernel"] for name in ("first", "second")):
        assert np.isfinite(kernel).all()


@pytest.mark.parametrize(
    "layout", [jt.Layout(1), jt.Layout(3, "vmap"), jt.Layout(3, "unroll"), jt.Layout(2, "vmap")]
)
def test_a_whole_plan_of_it_is_that_of_masked_networks(layout):
    """Remembered weights, a Rewind, more pruning by blocks, packing again; members that have other blocks."""
    small, masked = fit(packed(3), layout=layout), fit(without_pack(packed(3)), layout=layout)
    close(small, masked)
    for i in range(0, 3, layout.group):
        shapes = {t.params["second"]["kernel"].shape for t in small.tickets[i : i + layout.group]}
        assert len(shapes) == 1
    for ticket in small:  # what fills up is pruned, and 0
        packing.check_packed(*tuple(ticket)[:3])
        for p, m in zip(jax.tree.leaves(ticket.params), jax.tree.leaves(ticket.mask), strict=True):
            assert not np.ndim(m) or not np.asarray(p)[~np.asarray(m)].any()


def test_packing_again_is_tighter_after_more_pruning_and_nothing_otherwise(capfd):
    more = prune(0.9)
    once, twice, tighter = fit(
        plan(PRUNE, PACK, Collect(), PACK, steps(), Collect(), more, PACK, steps(), Collect()),
        progress=True,
    )
    told = " ".join(capfd.readouterr().err.split())
    assert told.count("nothing to pack") == 1
    assert "last, 16 x 3 weights do not divide into Blocks(rows=4, columns=4)" in told
    sizes = [
        sum(np.size(leaf) for leaf in jax.tree.leaves(t.params)) for t in (once, twice, tighter)
    ]
    assert sizes[0] == sizes[1] > sizes[2]


def test_what_was_ever_active_is_a_share_of_whole_layers():
    start = Start(1, 0.7, structure=FOUR)
    evolving = steps(6, evolve=Evolve(2, 0.5, structure=FOUR))
    both = [
        fit(Plan("exploring", (start, evolving, *pack, steps(), Collect()), 16)).tickets[0]
        for pack in ([], [PACK])
    ]
    assert "packed" in both[1].info
    assert both[0].info["ever_active"] == both[1].info["ever_active"] > both[0].info["density"]


def test_gradual_pruning_goes_on_in_packed_layers():
    gradual = steps(6, evolve=Gradual(0.9, 0.0, 0.5, 1, structure=FOUR))
    close(
        fit(plan(steps(), PRUNE, PACK, gradual, Collect())),
        fit(plan(steps(), PRUNE, gradual, Collect())),
    )


def test_children_of_packed_parents():
    phases = steps(), PRUNE, PACK, steps(), Fork(2, "parent"), steps(), Collect()
    small = fit(plan(*phases, width=2))
    masked = fit(without_pack(plan(*phases, width=2)))
    close(small, masked)
    assert [t.info["ever_active"] for t in small] == [t.info["ever_active"] for t in masked]


def test_shrink_before_it():
    """Of a network that takes its widths from its params."""
    of = jt.classification(jt.models.LeNet((4, 4, 32, 16), num_classes=CLASSES))
    rng = np.random.default_rng(0)
    train = jt.Dataset(
        rng.normal(size=(32, 16, 16, 1)).astype(np.float32), rng.integers(0, 3, 32), 3
    )
    phases = steps(), Prune(0.6, structure=Units()), Shrink(4), Prune(0.85, structure=FOUR)
    small, masked = (
        jt.fit(plan(*phases, *pack, steps(), Collect()), of, train, key=0, progress=False)
        for pack in ([PACK], [])
    )
    assert small.tickets[0].info["shrunk"] == masked.tickets[0].info["shrunk"]
    assert "packed" in small.tickets[0].info
    close(small, masked)


def test_a_ticket_is_saved_loaded_evaluated_and_trained_on(tmp_path):
    tickets = fit(packed(3), layout=jt.Layout(1))
    tickets.save(tmp_path / "file.safetensors")
    again = jt.load(tmp_path / "file.safetensors", task())
    assert all(itertools.starmap(same, zip(tickets, again, strict=True)))
    assert again.plan == tickets.plan
    a, b = (jt.evaluate(of, points(), suite=["diversity"]) for of in (again, jt.unpack(again)))
    assert a.diversity.mask_iou == b.diversity.mask_iou
    assert a.diversity.disagreement == b.diversity.disagreement
    # float32 predictions by blocks and by whole layers: two programs, which round otherwise
    assert a.diversity.kl == pytest.approx(b.diversity.kl, rel=1e-4)
    assert 0 < a.diversity.mask_iou < 1
    line = jt.evaluation.line(again, 0, 1, points(), points=3)
    assert line == jt.evaluation.line(jt.unpack(again), 0, 1, points(), points=3)
    small = fit(plan(steps(), Collect()), start_from=again[:1])
    close(small, fit(plan(steps(), Collect()), start_from=jt.unpack(again[:1])))
    assert (
        small.tickets[0].params["first"]["kernel"].shape
        == again.tickets[0].params["first"]["kernel"].shape
    )
    with pytest.raises(PlanError, match=r"unpack\(tickets\).*whole layers"):
        fit(plan(Shrink(), Collect()), start_from=again[0])
    whole = again.tickets[0].mask["first"]["kernel"]
    wrong = again.tickets[0]._replace(
        mask=again.tickets[0].mask | {"first": {"bias": np.ones((), bool), "kernel": ~whole}}
    )
    with pytest.raises(TicketError, match=r"start_from.* no block"):
        fit(plan(steps(), Collect()), start_from=wrong)


# 12 steps of each of two lineages that train one after another: 6 whole, 3 packed, 3 after the Rewind and 3 packed again.
@pytest.mark.parametrize("saves", [5, 8, 11, 23])
def test_a_stopped_run_ends_in_the_same_bits(tmp_path, stop_after, monkeypatch, saves):  # noqa: F811
    fit(packed(), out=tmp_path / "undisturbed", layout=jt.Layout(1))
    begin(packed(), tmp_path / "run", stop_after, saves, fit=fit, layout=jt.Layout(1))
    go_on(packed(), tmp_path / "run", monkeypatch, fit=fit, layout=jt.Layout(1))
    assert_equal_runs(tmp_path / "run", tmp_path / "undisturbed")


@pytest.mark.parametrize("saves", [8, 14])
def test_so_does_one_that_forks(tmp_path, stop_after, monkeypatch, saves):  # noqa: F811
    of, layout = packed(2, children=2), jt.Layout(2, "vmap")
    fit(of, out=tmp_path / "undisturbed", layout=layout)
    begin(of, tmp_path / "run", stop_after, saves, fit=fit, layout=layout)
    go_on(of, tmp_path / "run", monkeypatch, fit=fit, layout=layout)
    assert_equal_runs(tmp_path / "run", tmp_path / "undisturbed")


def test_a_run_that_starts_from_a_packed_ticket_goes_on(tmp_path, stop_after, monkeypatch):  # noqa: F811
    ticket = fit(plan(steps(), PRUNE, PACK, Collect())).tickets[0]
    of = plan(steps(), prune(0.85), PACK, steps(), Collect())
    fit(of, out=tmp_path / "undisturbed", start_from=ticket)
    for saves in (2, 5):
        begin(of, tmp_path / f"{saves}", stop_after, saves, fit=fit, start_from=ticket)
        go_on(of, tmp_path / f"{saves}", monkeypatch, fit=fit, start_from=ticket)
        assert_equal_runs(tmp_path / f"{saves}", tmp_path / "undisturbed")


@pytest.mark.parametrize(
    ("after", "match"),
    [
        (Train(2, evolve=Evolve(2)), "before the Pack"),
        (Escape(0.5), "before the Pack"),
        (Shrink(), "before the Pack"),
        (Prune(0.9, structure=Units()), "before the Pack"),
        (Train(2, evolve=Gradual(0.9, structure=Units())), "before the Pack"),
        (Fork(2, "random"), "before the Pack"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_needs_whole_layers_cannot_follow(after, match):
    with pytest.raises(PlanError, match=match):
        plan(PRUNE, PACK, after, Collect())


@pytest.mark.parametrize(
    ("phases", "match"),
    [
        ((Prune(0.5), Pack()), "structure=Blocks"),
        ((Prune(0.5, structure=NM(2, 4)), Pack()), "structure=Blocks"),
        ((Prune(0.5, structure=Blocks(32, 48)), Pack()), "structure=Blocks"),
        ((PRUNE, PACK, steps(penalty=L1(Constant(1e-4), "earlier"))), "on='earlier'.*Pack"),
    ],
)
def test_a_plan_that_could_pack_nothing_is_refused(phases, match):
    with pytest.raises(PlanError, match=match):
        plan(*phases, Collect())
    plan(Prune(0.5, structure=Blocks(64, 32)), Pack(), Collect())


@pytest.mark.parametrize(
    "wrong",
    [
        {"structure": NM(2, 4)},
        {"structure": 32},
        {"at_most": 0},
        {"at_most": 1.1},
        {"at_most": True},
    ],
)
def test_its_fields_are_checked(wrong):
    with pytest.raises(PlanError):
        Pack(**wrong)


def test_what_cannot_be_packed_is_an_error_before_anything_is_compiled():
    with pytest.raises(PlanError, match="nothing is pruned by then"):
        fit(plan(PACK, Collect()))
    with pytest.raises(
        PlanError, match=r"first/kernel: 16 x 24 weights do not divide into Blocks\(rows=32"
    ):
        fit(plan(Prune(0.5, structure=Blocks(32, 32)), Pack(), Collect()))
    bare = jt.classification((init, apply), num_classes=CLASSES, name="perceptron")
    with pytest.raises(PlanError, match="Linen"):
        fit(plan(Prune(0.5, structure=FOUR), PACK, Collect()), of=bare)


def test_layers_beyond_at_most_stay_masked(capfd):
    (ticket,) = fit(plan(PRUNE, Pack(FOUR, 0.01), steps(), Collect()), progress=True)
    assert "beyond 1%" in capfd.readouterr().err
    assert "packed" not in ticket.info
    assert same(ticket, fit(plan(PRUNE, steps(), Collect())).tickets[0])


def test_a_run_of_it_is_shown_in_json():
    assert Plan.from_json(packed().to_json()) == packed()
    assert "6. Pack(structure=Blocks(rows=4, columns=4), at_most=0.7)" in str(packed())


def test_the_ledger_says_what_is_executed():
    """Of blocks that lie at random; a network comes out nearly as small as expected."""
    start = Start(1, 0.8, "uniform", structure=Blocks(1, 1))
    of = Plan("blocks", (start, steps(2), Pack(Blocks(1, 1), 0.5), steps(2), Collect()), 16)
    ledger = jt.cost(of, task(), points())
    whole, small = ledger.phases
    assert whole.flops == small.flops
    (ticket,) = fit(of)
    params = ticket.params
    kernels = sum(np.size(params[name]["kernel"]) for name in ("first", "second", "last"))
    assert small.executed / whole.executed == pytest.approx(
        kernels / (16 * 24 + 24 * 16 + 16 * 3), rel=0.1
    )
    assert ledger.inference_executed < 0.5


def test_remembered_weights_are_packed_with_the_rest():
    first, rewound = fit(
        plan(
            Remember("first"), Collect(), steps(), PRUNE, PACK, steps(), Rewind("first"), Collect()
        )
    )
    whole = jt.unpack(jt.TicketEnsemble(task(), (rewound,), spec())).tickets[0]
    kept = np.asarray(whole.mask["first"]["kernel"])
    np.testing.assert_array_equal(
        whole.params["first"]["kernel"], np.where(kept, first.params["first"]["kernel"], 0)
    )
