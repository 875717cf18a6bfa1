"""A run folder goes on with the run that it holds and with no other: what is computed decides, not what it is called."""

import dataclasses
import functools
import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

import jaxtickets as jt
from jaxtickets.engine.digests import digest_of
from jaxtickets.engine.identity import differences

X = np.random.default_rng(0).normal(size=(16, 6)).astype(np.float32)
Y = (X[:, 0] > 0).astype(np.int32)
PLAN = jt.dense(1, epochs=1, batch_size=8)
SCRIPT = Path(__file__).with_name("what_is_run.py")


class Net(nn.Module):
    act: object = nn.relu
    scale: float = 1.0
    rate: float = 0.5
    dtype: object = jnp.float32

    @nn.compact
    def __call__(self, x, train):
        x = nn.Dropout(self.rate, deterministic=not train)(
            self.act(nn.Dense(4, dtype=self.dtype)(x))
        )
        return nn.Dense(2)(x) * self.scale


def custom(slope):
    """The identity, with a gradient of its own."""

    @jax.custom_vjp
    def f(x):
        return x

    f.defvjp(lambda x: (x, None), lambda _, g: (g * slope,))
    return f


def custom_jvp(slope):
    @jax.custom_jvp
    def f(x):
        return x

    f.defjvp(lambda primals, tangents: (primals[0], tangents[0] * slope))
    return f


def on_host(slope):
    return lambda x: jax.pure_callback(
        lambda a: a * np.float32(slope), jax.ShapeDtypeStruct(x.shape, x.dtype), x
    )


def setting(
    act=nn.relu,
    scale=1.0,
    rate=0.5,
    dtype=jnp.float32,
    times=1.0,
    noise=0.1,
    shift=0.0,
    smoothing=0.0,
    only="Dense",
    loss=None,
):
    """A task and data; everything that is changed below is the same code with another number closed over."""
    prunable = (
        ("kernel", lambda leaf: only in ("Dense", "all") and leaf.shape[0] > 4),
        (".*", False),
    )
    task = jt.classification(
        Net(act, scale, rate, dtype),
        num_classes=2,
        label_smoothing=smoothing,
        prunable=prunable,
        name="net",
    )
    if only == "last":
        task = dataclasses.replace(
            task, prunable=(("kernel", lambda leaf: leaf.shape[0] == 4), (".*", False))
        )
    if loss is not None:
        whole = task.loss
        task = dataclasses.replace(task, loss=lambda outputs, y: whole(outputs, y) * loss)
    offset = jnp.full(6, shift)
    data = jt.Dataset(
        X,
        Y,
        2,
        prepare=lambda x: times * x + offset,
        augment=lambda key, x: x + noise * jax.random.normal(key, x.shape),
    )
    return task, data


def run(folder, **changes):
    return jt.fit(PLAN, *setting(**changes), key=0, out=folder, progress=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    run(folder)
    return folder


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"times": 2.0}, "data.prepare was another function"),
        ({"shift": 1.0}, "data.prepare was another function"),
        ({"noise": 0.2}, "data.augment was another function"),
        (
            {"smoothing": 0.1},
            r'task\.loss was "CrossEntropy\(label_smoothing=0.0\)" there and is ".*=0.1\)" here',
        ),
        ({"loss": 2.0}, r"task\.loss was"),
        ({"act": nn.tanh}, r"task\.apply, the network, was another function"),
        ({"act": lambda x: nn.relu(x) * 2}, r"task\.apply, the network, was another function"),
        ({"scale": 2.0}, r"task\.apply, the network, was another function"),
        ({"rate": 0.25}, r"task\.apply, the network in training, was another function"),
        ({"dtype": jnp.bfloat16}, r"task\.apply, the network, was another function"),
        ({"only": "last"}, r"task\.prunable, or what it lets a mask cover, was another function"),
    ],
)
def test_another_function_of_the_same_name_is_another_run(folder, changes, words):
    with pytest.raises(jt.RunError, match=rf"holds another run: {words}.*Give another out folder"):
        run(folder, **changes)


def test_the_same_functions_made_anew_are_the_same_run(folder):
    before = (folder / "tickets.safetensors").read_bytes()
    again = run(folder, act=lambda x: nn.relu(x))
    assert len(again) == 1
    assert (folder / "tickets.safetensors").read_bytes() == before


def test_other_versions_are_told_and_not_refused(folder, tmp_path, monkeypatch):
    config = json.loads((folder / "config.json").read_text())
    now = config["run"]
    before = json.loads(json.dumps(now))
    before["computes"]["with"]["jax"] = "0.1"
    assert differences(before, now) == ([], "")
    before["computes"]["loss"] = before["computes"]["train"] = "0"
    told, untold = differences(before, now)
    assert told == []
    assert untold == (
        f"with jax 0.1 there and {jax.__version__} here it cannot be told whether these are the same functions: task.apply, task.loss"
    )
    before["key"] = 1
    assert differences(before, now)[0] == ["key was 1 there and is 0 here"]
    before["key"] = 0
    with monkeypatch.context() as older:  # a run that another version began
        older.setattr(sys.modules["jaxtickets.engine.fitting"], "identity_of", lambda *args: before)
        run(tmp_path / "run")
    with pytest.warns(
        UserWarning,
        match=r"cannot be told whether these are the same functions: task.apply, task.loss\. It goes on",
    ):
        run(tmp_path / "run")


def test_a_folder_of_an_older_version_goes_by_names(folder):
    now = json.loads((folder / "config.json").read_text())["run"]
    before = {name: part for name, part in now.items() if name != "computes"}
    assert differences(before, now) == ([], "")
    other = before | {"task": before["task"] | {"loss": "hinge"}}
    assert differences(other, now)[0][0].startswith('task.loss was "hinge" there')


@pytest.mark.parametrize("make", [custom, custom_jvp, on_host])
def test_what_a_trace_does_not_show_is_digested_by_its_code(make):
    one, same, other = (
        digest_of(jax.make_jaxpr(make(slope))(jnp.ones(3))) for slope in (1.0, 1.0, 2.0)
    )
    assert one == same != other


def test_what_a_digest_is_of():
    x = np.ones(3, np.float32)
    digest = lambda f: digest_of(jax.make_jaxpr(f)(x))
    table = np.arange(3, dtype=np.float32)
    base = digest(lambda x: jnp.sin(x) + table)
    assert base == digest(
        lambda y: jnp.sin(y) + jnp.asarray([0.0, 1.0, 2.0])
    )  # the bytes of constants, not what holds them
    assert base == digest(
        lambda x: (jnp.cos(x), jnp.sin(x) + table)[1]
    )  # nothing of what is computed in vain

    def printed(x):
        jax.debug.print("{}", x)
        return jnp.sin(x) + table

    assert base == digest(printed)
    others = [
        lambda x: jnp.sin(x) + table[::-1],
        lambda x: jnp.cos(x) + table,
        lambda x: jnp.sin(x) - table,
        lambda x: jnp.sin(x) + table.astype(np.int32),
        lambda x: table + jnp.sin(jnp.sin(x)),
    ]
    found = [base, *map(digest, others)]
    assert len(set(found)) == len(found)
    loops = [
        digest(lambda x, n=n: jax.lax.fori_loop(0, n, lambda i, a: a * table, x)) for n in (2, 3)
    ]
    scans = [
        digest(lambda x, k=k: jax.lax.scan(lambda a, b: (a + k * b, a), jnp.float32(0), x)[1])
        for k in (1.0, 2.0)
    ]
    branches = [
        digest(lambda x, k=k: jax.lax.cond(x[0] > 0, lambda a: a * k, lambda a: a, x))
        for k in (2.0, 3.0)
    ]
    keys = [digest(lambda x, k=k: x * jax.random.normal(jax.random.key(k), (3,))) for k in (0, 1)]
    assert all(a != b for a, b in (loops, scans, branches, keys))


def outer(x):
    return inner(x) + NUMBER


def inner(x):
    return x * 2


NUMBER = 1


def test_code_counts_with_what_it_refers_to(monkeypatch):
    def closed(k, default=1):
        return lambda x, by=default: x * k + by

    assert digest_of(closed(1)) == digest_of(closed(1)) != digest_of(closed(2))
    assert digest_of(closed(1)) != digest_of(closed(1, default=2))
    assert digest_of(functools.partial(closed, 1)) != digest_of(functools.partial(closed, 2))
    assert (
        digest_of(np.arange(3))
        != digest_of(np.arange(3.0))
        != digest_of(np.arange(3.0).reshape(3, 1))
    )
    assert digest_of({"a": 1, "b": 2}) == digest_of({"b": 2, "a": 1})
    before = digest_of(outer)
    monkeypatch.setitem(globals(), "NUMBER", 2)
    assert digest_of(outer) != before
    monkeypatch.setitem(globals(), "NUMBER", 1)
    assert digest_of(outer) == before
    monkeypatch.setitem(globals(), "inner", lambda x: x * 3)
    assert digest_of(outer) != before


def test_another_transform_of_a_stream_is_another_run(tmp_path):
    sys.path.insert(0, str(SCRIPT.parent))
    from what_is_run import Stream, apply, init

    task, stream = jt.classification((init, apply), num_classes=2, name="net"), Stream()
    plan = jt.dense(1, epochs=1, batch_size=8)
    jt.fit(plan, task, stream, key=0, out=tmp_path / "run", progress=False)
    stream.transform = lambda x: 3 * x
    with pytest.raises(jt.RunError, match="the code of the stream was another"):
        jt.fit(plan, task, stream, key=0, out=tmp_path / "run", progress=False)


def test_an_identity_is_the_same_in_every_process():
    """Of all our networks, heads and texts, of own modules with functions in their fields, of NNX, bare functions and a stream."""

    def asked(seed):
        environment = os.environ | {
            "PYTHONHASHSEED": str(seed),
            "PYTHONPATH": os.pathsep.join([str(Path(jt.__file__).parents[1])]),
        }
        return subprocess.Popen(
            [sys.executable, str(SCRIPT)], env=environment, stdout=subprocess.PIPE
        )

    first, second = (json.loads(process.communicate()[0]) for process in [asked(1), asked(2)])
    assert len(first) >= 17
    for one, other in zip(first, second, strict=True):
        assert one == other
        assert differences(one, other) == ([], "")
        assert " at 0x" not in json.dumps(one)
    programs = [one["computes"]["train"] for one in first]
    assert (
        len(set(programs)) >= len(programs) - 2
    )  # bare functions are there twice, and MC dropout trains as its network does


def test_nothing_is_warned_of_in_the_usual_case(folder):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run(folder)
