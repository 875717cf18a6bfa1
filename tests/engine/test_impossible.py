"""What cannot be done is refused at once: with the argument, what it was and what would do, and nothing compiled."""

import time

import jax
import numpy as np
import pytest
from tiny_task import CLASSES, HIDDEN, IN, apply, data, dst, edst, init, pat, task

import jaxtickets as jt
from jaxtickets.dataset import Dataset
from jaxtickets.engine.checks import check_key
from jaxtickets.errors import MaskError
from jaxtickets.members import Layout
from jaxtickets.plan import (
    SGD,
    Collect,
    Length,
    Override,
    Plan,
    PlanError,
    Prune,
    Remember,
    Rewind,
    Start,
    Train,
)

X, Y = data().x, data().y
COMPILED = []
jax.monitoring.register_event_duration_secs_listener(
    lambda event, *_, **__: COMPILED.append(event) if "backend_compile" in event else None
)


def run(plan=None, train=(X, Y), of=None, **options):
    def call():
        jt.fit(
            dst(2) if plan is None else plan,
            of or task(),
            train,
            **({"key": 0, "progress": False} | options),
        )

    return call


def named(prunable):
    return jt.classification((init, apply), num_classes=CLASSES, prunable=prunable)


def with_nan():
    x = X.copy()
    x[5, 2] = np.nan
    return x


def conv_task():
    return jt.classification(jt.models.WideResNet(10, 1, num_classes=CLASSES))


class Named:
    name, num_classes = "s", CLASSES

    def __len__(self):
        return 96

    def fingerprint(self):
        return ""

    def batches(self, seed, epoch, batch_size):
        yield from ()


def task_of(**changes):
    import dataclasses

    return dataclasses.replace(task(), **changes)


CASES = {
    "sparsity 1.0": (lambda: jt.dst(sparsity=1.0), PlanError, r"sparsity .* \[0, 1\); got 1.0"),
    "negative sparsity": (lambda: jt.dst(sparsity=-0.1), PlanError, r"sparsity .* got -0.1"),
    "zero members": (lambda: jt.dst(members=0), PlanError, r"at least 1; got 0"),
    "a budget no ERK can meet": (
        run(dst(2, sparsity=0.999)),
        MaskError,
        r"sparsity 0.999 leaves 0.2 of 176 weights to 2 layers.*Lower it",
    ),
    "rules that match nothing": (
        run(of=named((("convolution", True), (".*", False)))),
        MaskError,
        r"'convolution', True\) matches no leaf",
    ),
    "rules that leave gaps": (
        run(of=named((("w1", True),))),
        MaskError,
        r"no rule covers 2 of 3 leaves",
    ),
    "nothing to prune": (run(of=named(((".*", False),))), MaskError, r"find nothing to prune"),
    "labels too large": (
        run(train=Dataset(X, Y + 1, CLASSES)),
        jt.DataError,
        r"y holds int32 from 1 to 3; labels of 3 classes are .* 0 to 2",
    ),
    "labels below 0": (
        run(train=(X, Y - 1)),
        jt.DataError,
        r"y\[\d+\] is -1, but labels start at 0",
    ),
    "labels that are floats": (
        run(train=Dataset(X, Y.astype(np.float32), CLASSES)),
        jt.DataError,
        r"y holds float32",
    ),
    "images of a wrong shape": (
        run(of=conv_task()),
        jt.DataError,
        r"WideResNet\(10, 1.*cannot take the examples of arrays, float32\[8\] each",
    ),
    "NaN among the inputs": (
        run(train=(with_nan(), Y)),
        jt.DataError,
        r"x has 1 values that are NaN or infinite.*\[5, 2\]",
    ),
    "NaN in a data set": (
        run(train=Dataset(with_nan(), Y, CLASSES)),
        jt.DataError,
        r"arrays: x holds NaN or infinite values; remove",
    ),
    "no examples": (run(train=(X[:0], Y[:0])), jt.DataError, r"no examples"),
    "an empty data set": (run(train=data().take(slice(0, 0))), jt.DataError, r"points is empty"),
    "lengths that differ": (
        run(train=Dataset(X[:9], Y, CLASSES)),
        jt.DataError,
        r"x has 9 examples and y has 96",
    ),
    "a batch larger than the data": (
        run(dst(2, batch_size=97)),
        jt.DataError,
        r"batch_size=97 is more than the 96 training examples",
    ),
    "a batch larger than what is left": (
        run(dst(2, batch_size=90, validation=10)),
        jt.DataError,
        r"batch_size=90 is more than the 86",
    ),
    "all held out": (
        run(dst(2, validation=96)),
        jt.DataError,
        r"validation=96 examples cannot be held out of 96",
    ),
    "no key": (
        lambda: jt.fit(dst(2), task(), (X, Y)),
        TypeError,
        r"required keyword-only argument: 'key'",
    ),  # pyright: ignore[reportCallIssue]
    "key None": (run(key=None), ValueError, r"key is an int, a JAX key .* got None"),
    "key a text": (run(key="0"), ValueError, r"key is an int, .* got '0'"),
    "key a bool": (run(key=True), ValueError, r"key is an int, .* got True"),
    "key too large": (
        run(key=2**32),
        ValueError,
        r"key as an int is in \[0, 2\^32\).*got 4294967296",
    ),
    "key below 0": (run(key=-1), ValueError, r"got -1"),
    "classes that differ": (
        run(train=Dataset(X, Y, 5)),
        jt.DataError,
        r"arrays has 5 classes and perceptron tells 3 apart",
    ),
    "the best of a regression": (
        run(
            dst(2, collect="best", validation=8),
            of=task_of(num_classes=None),
            train=Dataset(X, Y.astype(np.float32), None),
        ),
        PlanError,
        r"dst collects the best by accuracy, and perceptron is a regression, which has none; collect the last",
    ),
    "one array": (
        run(train=X),
        jt.DataError,
        r"data is a Dataset, a Stream or a pair of arrays \(x, y\); got ndarray",
    ),
    "a list": (run(train=[X, Y, Y]), jt.DataError, r"a pair of arrays \(x, y\); got list of 3"),
    "three arrays": (run(train=(X, Y, Y)), jt.DataError, r"got tuple"),
    "texts": (
        run(train=(np.full((96, 2), "a"), Y)),
        jt.DataError,
        r"x is of <U1: text.*Numbers or booleans",
    ),
    "a tree that cannot be written": (
        run(train=Dataset(jax.ShapeDtypeStruct, Y, CLASSES)),
        (jt.DataError, TypeError),
        r"",
    ),
    "an empty stream": (
        run(train=Named()),
        jt.DataError,
        r"s has 96 examples but yields no batch of one",
    ),
    "a stream and a split": (
        run(dst(2, validation=8), train=Named()),
        jt.DataError,
        r"needs data in memory",
    ),
    "a loss that is a mean": (
        run(of=task_of(loss=lambda z, y: z.mean())),
        jt.DataError,
        r"the loss of perceptron has the shape \[\] for 2 examples",
    ),
    "too many outputs": (
        run(of=task_of(num_classes=4), train=Dataset(X, Y, 4)),
        jt.DataError,
        r"log_proba .* \[2, 3\] for 2 .* must be \[2, 4\]",
    ),
    "a path twice": (
        run(
            of=task_of(
                init=lambda key, x: (
                    {"w1/w1": init(key, x)[0]["w1"], "w1": {"w1": init(key, x)[0]["w1"]}},
                    {},
                ),
                apply=lambda p, s, x, t, k: (x[:, :3], s),
            )
        ),
        MaskError,
        r"two leaves .* have one path.*'w1/w1'",
    ),
    "children of a layer that is not there": (
        run(pat(2, keep_dense=("classifier",))),
        MaskError,
        r"keep_dense='classifier' matches none of the layers w1, w2\. Name those that lose nothing",
    ),
    "children without anything to prune": (
        run(pat(2, keep_dense=("w",))),
        MaskError,
        r"leaves nothing to prune among w1, w2",
    ),
    "more parts than weights": (
        run(pat(200, masks="partition")),
        MaskError,
        r"128 weights of w1 cannot be dealt out to 200 members",
    ),
    "an odd number of pairs": (lambda: pat(3), PlanError, r"members is even; got 3. Take 4"),
    "pairs at another sparsity": (
        lambda: pat(4, sparsity=0.6),
        PlanError,
        r"anti_random masks are at sparsity 0.5.*got 0.6",
    ),
    "a bag too small for a batch": (
        run(pat(2, bag=0.1)),
        jt.DataError,
        r"a bag of 0.1 of 96 examples does not fill a batch of 16",
    ),
    "bags of a stream": (
        run(pat(2, bag=0.9), train=Named()),
        jt.DataError,
        r"a plan with bags needs data in memory",
    ),
    "nothing left to prune": (
        run(Plan("p", (Start(), Prune(0.5, keep_dense=("w1", "w2")), Collect()), 16)),
        MaskError,
        r"leaves nothing to prune among w1, w2",
    ),
    "an override of nothing": (
        run(
            Plan(
                "p",
                (
                    Start(),
                    Train(Length(1), optimizer=SGD(overrides=(Override("bias"),))),
                    Collect(),
                ),
                16,
            )
        ),
        PlanError,
        r"phase 2, Train\(.*'bias' matches none of the leaves of perceptron: b, w1, w2",
    ),
    "a rewind that keeps nothing": (
        run(Plan("p", (Start(), Remember("x"), Rewind("x", ("head",)), Collect()), 16)),
        PlanError,
        r"phase 3, Rewind\(.*'head' matches none of the leaves",
    ),
    "unroll and a mesh": (
        lambda: Layout(1, "unroll", mesh=mesh()),
        ValueError,
        r"use across='vmap'",
    ),
    "groups that do not fill a mesh": (run(dst(3), layout=Layout(2, mesh=None)), None, ""),
}
del CASES["groups that do not fill a mesh"], CASES["a tree that cannot be written"]


def mesh():
    return jax.sharding.Mesh(np.asarray(jax.devices()[:1]).reshape(1, 1), ("member", "data"))


@pytest.mark.parametrize("case", CASES)
def test_an_impossible_request_is_refused_at_once(tmp_path, case):
    call, kind, message = CASES[case]
    COMPILED.clear()
    began = time.process_time()  # not the wall clock: other processes may keep this machine busy
    with pytest.raises(kind, match=message):
        call()
    assert time.process_time() - began < 1
    assert COMPILED == []


def test_the_compile_counter_counts():
    COMPILED.clear()
    jax.jit(lambda x: x * 17 + 4)(np.float32(time.time() % 1))
    assert COMPILED


def test_groups_that_do_not_fill_a_mesh():
    with pytest.raises(ValueError, match="layout: 3 lineages do not divide into groups of 2"):
        run(dst(3), layout=Layout(2, mesh=mesh()))()
    with pytest.raises(ValueError, match="layout: 3 children do not divide into groups of 2"):
        run(pat(3, masks="random"), layout=Layout(2, mesh=mesh()))()


def test_nothing_is_written_by_a_refused_request(tmp_path):
    with pytest.raises(jt.DataError):
        run(dst(2, batch_size=97), out=tmp_path / "run")()
    assert not (tmp_path / "run").exists()


def test_keys():
    keys = jax.random.split(jax.random.key(0), 3)
    for key in (
        0,
        np.int64(3),
        np.uint32(3),
        keys[0],
        keys,
        jax.random.PRNGKey(0),
        jax.random.key_data(keys),
    ):
        check_key(key, 3)
    with pytest.raises(
        ValueError, match=r"one key for each of the 2 lineages; got keys of shape \[3\]"
    ):
        check_key(keys, 2)
    with pytest.raises(ValueError, match=r"key is of rbg.*impl='threefry2x32'"):
        check_key(jax.random.key(0, impl="rbg"), 2)
    with pytest.raises(ValueError, match="the same key twice: those members would be equal"):
        check_key(keys[np.array([0, 1, 0])], 3)
    with pytest.raises(ValueError, match=r"got an array float32\[3\]"):
        check_key(np.zeros(3, np.float32), 3)


def test_sizes_that_the_messages_above_speak_of():
    assert IN * HIDDEN + HIDDEN * CLASSES == 176
    assert edst(2).members == 2
