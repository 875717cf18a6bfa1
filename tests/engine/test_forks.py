"""Children of a Fork: made from their parent and its key alone, equal in any layout, and no dearer in memory for being many."""

import gc
import json

import jax
import numpy as np
import pytest
from test_resume import Stopped, stop_after  # noqa: F401 (a fixture)
from test_streams import Points
from tiny_task import CLASSES, HIDDEN, IN, data, fit, leaves, pat, quiet, same, task

import jaxtickets as jt
from jaxtickets import masks
from jaxtickets.dataset import Dataset
from jaxtickets.engine import read_metrics
from jaxtickets.engine.checkpoints import Checkpoints
from jaxtickets.engine.metrics import MetricsLog
from jaxtickets.members import Layout
from jaxtickets.plan import SGD, Adam, Collect, Fork, Length, Plan, Start, Train
from jaxtickets.schedules import Constant

ONE = Train(Length(1), Constant(0.1))
WIDE = Plan(
    "wide", (Start(2), ONE, Collect(), Fork(3, "random", keep_dense=("w2",)), ONE, Collect()), 16
)


@pytest.fixture(scope="module")
def wide():
    return fit(WIDE)


def close(a, b):
    """The same masks and state. Another program may round the last bits otherwise; six steps leave 1e-4 of room."""
    assert same(a._replace(params={}), b._replace(params={}))
    for x, y in zip(leaves(a.params), leaves(b.params), strict=True):
        np.testing.assert_allclose(x, y, atol=1e-4)
    timeless = [{k: v for k, v in ticket.info.items() if "train" not in k} for ticket in (a, b)]
    assert timeless[0] == timeless[1]


@pytest.mark.parametrize(
    "layout", [Layout(4, "vmap"), Layout(6, "vmap", steps_per_call=4)], ids=str
)
def test_children_are_the_same_in_any_layout(wide, layout):
    """Groups of four and of two, of which one holds children of both parents; all six at once."""
    for a, b in zip(fit(WIDE, layout=layout), wide, strict=True):
        close(a, b)


def test_tickets_come_lineage_by_lineage_and_child_by_child(wide):
    order = [
        (
            ticket.info["lineage"],
            ticket.info.get("child"),
            ticket.info["collected"],
            ticket.info["step"],
        )
        for ticket in wide
    ]
    assert order == [
        (i, *rest) for i in (0, 1) for rest in ((None, 0, 6), (0, 1, 12), (1, 1, 12), (2, 1, 12))
    ]
    assert len({ticket.params["w1"].tobytes() for ticket in wide}) == 8


def test_a_lineage_has_the_children_that_it_has_alone(wide):
    keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(0), np.arange(2))
    alone = Plan("alone", (Start(1), *WIDE.phases[1:]), 16)
    for i in (0, 1):
        assert all(map(same, fit(alone, key=keys[i : i + 1]), wide.tickets[4 * i : 4 * i + 4]))


def test_a_child_does_not_depend_on_its_siblings():
    few, many = (fit(pat(members)) for members in (2, 4))
    assert all(map(same, few, many.tickets[:2]))


@pytest.mark.parametrize("kind", ["random", "anti_random", "partition", "parent"])
def test_children_start_as_their_parent_under_their_masks(kind):
    """Nothing is trained after the Fork: weights are exactly the parent's where the mask is, the state is the parent's."""
    plan = Plan(
        "start",
        (
            Start(),
            ONE,
            Collect(),
            Fork(4, kind, keep_dense=("w2",) if kind != "parent" else ()),
            Collect(),
        ),
        16,
    )
    parent, *children = fit(plan)
    assert parent.model_state["seen"] == 96
    for child in children:
        assert same(child._replace(params={}, mask={}), parent._replace(params={}, mask={}))
        for path, weights in masks.apply(child.mask, parent.params).items():
            np.testing.assert_array_equal(child.params[path], weights)
        assert child.info["step"] == 6
    if kind == "parent":
        assert all(same(child, parent) for child in children)
        return
    kept = np.stack([child.mask["w1"] for child in children])
    assert all(child.mask["w2"].all() and child.mask["b"].ndim == 0 for child in children)
    assert kept.sum((1, 2)).tolist() == [32 if kind == "partition" else 64] * 4
    if kind == "anti_random":
        np.testing.assert_array_equal(kept[0::2], ~kept[1::2])
    if kind == "partition":
        np.testing.assert_array_equal(kept.sum(0), 1)
    assert len({mask.tobytes() for mask in kept}) == 4


def test_sparse_parents_stay_sparse():
    plan = Plan(
        "sparse",
        (Start(1, 0.5), ONE, Collect(), Fork(3, "random", 0.5, keep_dense=("w2",)), ONE, Collect()),
        16,
    )
    parent, *children = fit(plan)
    for child in children:
        for path in ("w1", "w2"):
            assert not np.any(child.mask[path] & ~parent.mask[path])
            assert not np.any(child.params[path][~child.mask[path]])
        np.testing.assert_array_equal(child.mask["w2"], parent.mask["w2"])
        assert 0 < child.mask["w1"].sum() < parent.mask["w1"].sum()


def gradient(params, state, points):
    def loss(params):
        outputs, _ = quiet().apply(params, state, points.x, True, jax.random.key(0))
        return quiet().loss(outputs, points.y).mean()

    return jax.grad(loss)(params)


def test_moments_are_zero_at_a_fork():
    """Six steps with momentum, then one of each child on all examples: plain gradient descent from the masked parent."""
    points = data(augment=False)
    plan = pat(
        2,
        parent=Length(6, "steps"),
        tune=Length(1, "steps"),
        tune_lr=Constant(0.1),
        optimizer=SGD(0.9),
        batch_size=96,
    )
    start, train, *rest = plan.phases
    parent, *children = fit(
        Plan("moments", (start, train, Collect(), *rest), 96), points, of=quiet()
    )
    for child in children:
        before = masks.apply(child.mask, parent.params)
        step = masks.apply(child.mask, gradient(before, parent.model_state, points))
        for path in before:
            # One float32 step in another program; with the parent's momentum the difference would be of order 0.01.
            np.testing.assert_allclose(
                child.params[path], before[path] - 0.1 * step[path], atol=1e-6
            )
            assert np.abs(np.asarray(step[path])).max() > 1e-3


def test_another_optimizer_may_tune():
    start, train, fork, tune, collect = pat(2).phases
    adam = Train(tune.length, Constant(0.01), Adam())
    assert len(fit(Plan("adam", (start, train, fork, adam, collect), 16))) == 2


def test_the_trunk_is_trained_once_and_programs_are_shared(tmp_path):
    for members in (2, 6):
        folder = tmp_path / str(members)
        fit(pat(members), out=folder, checkpoint_every=1e9)
        records = read_metrics(folder)
        assert [(r["branch"], r["step"]) for r in records] == [(0, 6)] + [
            (child + 1, 12) for child in range(members)
        ]
        assert [r["children"] for r in records] == [[None]] + [[child] for child in range(members)]
        assert [r["density"] for r in records] == [[1.0]] + [[(64 + 48) / 176]] * members
        # Start, the parent's step, the Fork, the children's step.
        assert json.loads((folder / "timing.json").read_text())["compilations"] == 4


def test_best_children_are_chosen_one_by_one(tmp_path):
    plan = pat(4, tune=3, collect="best", validation=24, tune_lr=Constant(0.3))
    tickets = fit(plan, out=tmp_path, layout=Layout(2, "unroll"))
    history = {}
    for record in read_metrics(tmp_path):
        for child, accuracy in zip(
            record["children"], record.get("validation_accuracy", []), strict=False
        ):
            history.setdefault(child, []).append(accuracy)
    assert sorted(history) == [0, 1, 2, 3]
    for child, ticket in enumerate(tickets):
        assert len(history[child]) == 3
        assert ticket.info["validation_accuracy"] == pytest.approx(max(history[child]))
        assert ticket.info["step"] == 4 * (
            2 + int(np.argmax(history[child]))
        )  # four steps an epoch: the parent's, and its own


def test_streams_fork():
    by_one, at_once = (
        fit(pat(2, masks="random"), Points(), layout=Layout(group, "unroll")) for group in (1, 2)
    )
    for a, b in zip(by_one, at_once, strict=True):
        close(a, b)
    assert not same(*by_one.tickets)
    assert np.mean(by_one.predict(data().x) == data().y) > 0.5  # a third by chance


def test_the_child_that_fails_is_named():
    start, train, fork, tune, collect = pat(2).phases
    plan = Plan("nan", (Start(2), train, fork, Train(tune.length, Constant(3e38)), collect), 16)
    with pytest.raises(
        jt.NonFiniteLoss,
        match=r"loss of member 0\.0 became NaN or infinite at step \d+, in phase 4, Train\(1 epoch",
    ):
        fit(plan)


BIG = 4096


def big_init(key, x):
    return {
        "w1": 0.1 * jax.random.normal(key, (IN, BIG)),
        "w2": 0.1 * jax.random.normal(key, (BIG, CLASSES)),
    }, {}


def big_apply(params, state, x, train, key):
    return jax.numpy.tanh(x @ params["w1"]) @ params["w2"], state


def live_bytes():
    """Bytes in buffers on the device; a restored array and its only shard are two arrays with one buffer."""
    gc.collect()
    return sum(
        {
            array.unsafe_buffer_pointer(): array.nbytes
            for array in jax.live_arrays()
            if not array.is_deleted()
        }.values()
    )


@pytest.fixture
def bytes_at_reports(monkeypatch):
    """What lies on the device whenever a run writes down an epoch, less what lay there before."""
    seen, before, real = [], live_bytes(), MetricsLog.append

    def append(self, record):
        real(self, record)
        seen.append((record["branch"], live_bytes() - before))

    monkeypatch.setattr(MetricsLog, "append", append)
    return seen


def big(members, **options):
    large = jt.Task(big_init, big_apply, task().loss, task().log_proba, num_classes=CLASSES)
    plan = pat(members, parent=Length(2, "steps"), tune=Length(2, "steps"))
    return lambda: fit(plan, Dataset(data().x, data().y, CLASSES), of=large, **options)


WEIGHTS, MASK = 4 * BIG * (IN + CLASSES), BIG * (IN + CLASSES)
# A child's weights, moments and two masks; its parent's weights and mask; data, orders, keys and tallies.
ROOM = 2 * WEIGHTS + 2 * MASK + WEIGHTS + MASK + data().x.nbytes + 10_000


def test_many_children_take_no_more_memory_than_one(bytes_at_reports, tmp_path):
    for members in (2, 6):
        bytes_at_reports.clear()
        big(members, out=tmp_path / str(members))()
        assert [branch for branch, _ in bytes_at_reports] == list(range(members + 1))
        assert max(size for _, size in bytes_at_reports) <= ROOM
        assert (
            bytes_at_reports[-1][1] <= ROOM - WEIGHTS
        )  # no more children follow the last: its parent is let go of


@pytest.mark.parametrize("saves", [1, 3])
def test_what_a_checkpoint_gave_back_is_let_go_of(bytes_at_reports, tmp_path, stop_after, saves):  # noqa: F811
    """Stopped in the parent's training, or in the first child's; what is restored does not stay beside the next children."""
    stop_after(saves)
    with pytest.raises(Stopped):
        big(4, out=tmp_path, checkpoint_every=0)()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            Checkpoints, "age", lambda self: 0.0
        )  # what is being saved is held meanwhile, which is not the question
        del bytes_at_reports[:]
        big(4, out=tmp_path, checkpoint_every=1e9)()
    assert bytes_at_reports[-1][0] == 4
    assert max(size for branch, size in bytes_at_reports if branch > 1) <= ROOM


def test_the_children_of_a_parent_trained_elsewhere_are_those_of_the_whole_plan():
    """Without noise a child's training depends on its parent's weights, its mask and its order, which begins at the Fork."""
    points = data(augment=False)
    start, train, *rest = pat(4).phases
    parent, *children = fit(Plan("whole", (start, train, Collect(), *rest), 16), points, of=quiet())
    given = fit(
        pat(4, parent=0), points, of=quiet(), start_from=(parent.params, parent.model_state)
    )
    assert all(map(same, given, children))
    assert [ticket.info["step"] for ticket in given] == [6] * 4
    assert masks.count(children[0].mask) == 64 + HIDDEN * CLASSES
