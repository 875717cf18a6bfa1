"""Equinox modules as tasks, held against Equinox's own calls."""

import functools
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from others import others

import jaxtickets as jt
from jaxtickets import masks
from jaxtickets.models.equinox_task import EquinoxApply
from jaxtickets.models.nnx_task import NNXApply
from jaxtickets.plan import Adam, Collect, Plan, Start, Train
from jaxtickets.schedules import Constant
from jaxtickets.tracing.last_layer import last_layers

eqx = others("equinox")


class Net(eqx.Module):
    """State, dropout, layers that stay dense, integers that are not trained, a new function in each."""

    first: eqx.nn.Linear
    norm: eqx.nn.BatchNorm
    embedding: eqx.nn.Embedding
    hidden: eqx.nn.Linear
    layer_norm: eqx.nn.LayerNorm
    dropout: eqx.nn.Dropout
    out: eqx.nn.Linear
    row: jax.Array
    activation: object = eqx.field(static=True)

    def __init__(self, key, mode="batch"):
        keys = jax.random.split(key, 4)
        self.first = eqx.nn.Linear(64, 32, key=keys[0])
        self.norm = eqx.nn.BatchNorm(32, axis_name="examples", momentum=0.5, mode=mode)
        self.hidden = eqx.nn.Linear(32, 32, key=keys[1])
        self.layer_norm = eqx.nn.LayerNorm(32)
        self.embedding = eqx.nn.Embedding(3, 32, key=keys[2])
        self.dropout = eqx.nn.Dropout(0.1)
        self.out = eqx.nn.Linear(32, 10, key=keys[3])
        self.row = jnp.array(2)
        self.activation = lambda x: jax.nn.relu(x)

    def __call__(self, x, state, *, key=None):
        x, state = self.norm(self.first(x.reshape(-1)), state)
        x = self.layer_norm(self.hidden(self.activation(x)))
        x = self.dropout(self.activation(x + self.embedding(self.row)), key=key)
        return self.out(x), state


def mlp(key):
    return eqx.nn.MLP(4, 3, 8, depth=1, key=key)


def plan_of(*phases, batch_size=32):
    return Plan("one", (*phases, Collect()), batch_size=batch_size)


X = jax.random.normal(jax.random.key(7), (6, 8, 8, 1))


def theirs(mode, key):
    return eqx.nn.make_with_state(functools.partial(Net, mode=mode))(key)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    train, test = jt.data.pair("digits")
    task = jt.classification(Net, num_classes=10)
    plan = plan_of(Start(2, 0.5), Train(6, lr=Constant(0.01), optimizer=Adam()))
    out = tmp_path_factory.mktemp("equinox") / "run"
    return task, jt.fit(plan, task, train, key=0, out=out), test, out


def test_it_learns_the_digits_and_members_differ(trained):
    _, tickets, test, _ = trained
    scores = jt.evaluate(tickets, test)
    assert scores.ensemble.accuracy > 0.85
    first, second = (ticket.params for ticket in tickets)
    assert not np.array_equal(first.out.weight, second.out.weight)
    assert not np.array_equal(tickets.masks[0].hidden.weight, tickets.masks[1].hidden.weight)


def test_ticket_files_keep_weights_masks_and_state(trained, tmp_path):
    task, tickets, test, out = trained
    tickets.save(tmp_path / "t.safetensors")
    for file in (tmp_path / "t.safetensors", out / "tickets.safetensors"):
        again = jt.load(file, jt.classification(Net, num_classes=10))
        np.testing.assert_array_equal(again.predict_proba(test), tickets.predict_proba(test))
        state = next(iter(again)).model_state["norm/batch_state_index"]
        assert float(jnp.abs(state[0]).max()) > 0  # the running mean, not what it began with


@pytest.mark.parametrize("mode", ["batch", "ema"])
def test_training_and_evaluation_are_equinox_own(mode, key):
    task = jt.classification(functools.partial(Net, mode=mode), num_classes=10)
    params, state = task.init(key, X)
    module, own_state = theirs(mode, key)
    ours = jax.tree.leaves(params)
    for a, b in zip(ours, jax.tree.leaves(eqx.filter(module, eqx.is_inexact_array)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7)  # drawn by two programs

    keys = jax.random.split(jax.random.key(1), len(X))
    axes = {"in_axes": (0, None, 0), "out_axes": (0, None), "axis_name": "examples"}
    apply = jax.jit(task.apply, static_argnums=3)
    trains = jax.vmap(lambda x, s, k: module(x, s, key=k), **axes)
    expected, own_state = jax.jit(trains)(X, own_state, keys)
    outputs, state = apply(params, state, X, True, jax.random.key(1))
    np.testing.assert_allclose(outputs, expected, rtol=1e-4, atol=1e-5)
    index = module.norm.batch_state_index if mode == "batch" else module.norm.ema_state_index
    for a, b in zip(state[f"norm/{mode}_state_index"], own_state.get(index), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)

    still = eqx.nn.inference_mode(module)
    evaluates = jax.vmap(lambda x, s: still(x, s), (0, None), (0, None))
    expected, _ = jax.jit(evaluates)(X, own_state)
    outputs, after = apply(params, state, X, False, None)
    np.testing.assert_allclose(outputs, expected, rtol=1e-4, atol=1e-5)
    jax.tree.map(np.testing.assert_array_equal, after, state)


def test_dropout_is_another_for_each_example_and_key():
    class Dropped(eqx.Module):
        dropout: eqx.nn.Dropout
        scale: jax.Array

        def __init__(self, key):
            self.dropout, self.scale = eqx.nn.Dropout(0.5), jnp.ones(())

        def __call__(self, x, *, key):
            return self.dropout(x * self.scale, key=key)

    task, ones = jt.classification(Dropped, num_classes=64), jnp.ones((4, 64))
    params, state = task.init(jax.random.key(0), ones)
    a, b = (task.apply(params, state, ones, True, jax.random.key(i))[0] for i in (0, 1))
    assert len(np.unique(np.concatenate([a, b]), axis=0)) == 8
    np.testing.assert_array_equal(task.apply(params, state, ones, False, None)[0], ones)


def test_the_default_rules_and_the_last_layer_are_found(key):
    task = jt.classification(Net, num_classes=10)
    params, state = task.init(key, X)
    may = dict(zip(masks.leaf_paths(params), jax.tree.leaves(masks.prunable(params)), strict=True))
    assert {path for path, yes in may.items() if yes} == {
        "first/weight",
        "hidden/weight",
        "out/weight",
    }
    assert {"embedding/weight", "layer_norm/weight", "norm/weight"} <= set(may)
    assert last_layers(task.apply, params, state, jax.ShapeDtypeStruct((8, 8, 1), X.dtype)) == [
        "out/weight"
    ]


def test_the_cost_is_counted():
    train = jt.data.from_arrays(np.ones((8, 4), np.float32), np.arange(8) % 3)
    plan = plan_of(Start(), Train(1, lr=Constant(0.1)), batch_size=4)
    cost = jt.cost(plan, jt.classification(mlp, num_classes=3), train)
    assert cost.forward_dense == 2 * (4 * 8 + 8 * 3)


def test_equal_factories_make_equal_tasks_with_names():
    make = functools.partial(eqx.nn.MLP, 4, 3, 8, 1)
    assert jt.classification(make, num_classes=3) == jt.classification(make, num_classes=3)
    assert jt.classification(make, num_classes=3).name == "MLP"
    assert jt.classification(mlp, num_classes=3).name == "mlp"


def test_a_factory_may_split_off_the_state_itself(key):
    task = jt.classification(eqx.nn.make_with_state(Net), num_classes=10)
    params, state = task.init(key, X)
    assert isinstance(task.apply, EquinoxApply)
    assert set(state) == {"norm/batch_counter", "norm/batch_state_index", "row"}
    assert task.apply(params, state, X, False, None)[0].shape == (6, 10)


def test_a_number_is_learnt():
    task = jt.regression(lambda key: eqx.nn.MLP(4, "scalar", 8, 1, key=key))
    x = np.random.default_rng(0).normal(size=(64, 4)).astype(np.float32)
    train = jt.data.from_arrays(x, x.sum(1), num_classes=None)
    plan = plan_of(Start(), Train(30, lr=Constant(0.01), optimizer=Adam()))
    tickets = jt.fit(plan, task, train, key=0)
    assert np.mean((tickets.log_proba(train) - x.sum(1)) ** 2) < 0.5 * np.var(x.sum(1))


def test_nnx_factories_are_still_told_apart():
    def factory(rngs):
        return nnx.Linear(3, 2, rngs=rngs)

    assert isinstance(jt.classification(factory, num_classes=2).apply, NNXApply)
    assert isinstance(jt.classification(mlp, num_classes=3).apply, EquinoxApply)


def test_errors_say_what_to_give(key):
    with pytest.raises(
        TypeError, match=r"weights already.*model=lambda key: MLP\(\.\.\., key=key\)"
    ):
        jt.classification(mlp(key), num_classes=3)
    with pytest.raises(TypeError, match=r"regression: this MLP has its weights already"):
        jt.regression(mlp(key))
    with pytest.raises(ValueError, match="num_classes is needed"):
        jt.classification(mlp)

    class Stateless(eqx.Module):
        norm: eqx.nn.BatchNorm

        def __init__(self, key):
            self.norm = eqx.nn.BatchNorm(4, "batch", mode="batch")

        def __call__(self, x):
            return x

    task = jt.classification(Stateless, num_classes=4)
    with pytest.raises(TypeError, match=r"norm/batch_state_index.*__call__ takes none"):
        task.apply(*task.init(key, None), jnp.ones((2, 4)), True, key)

    class TwoNames(eqx.Module):
        norms: list

        def __init__(self, key):
            self.norms = [eqx.nn.BatchNorm(4, name, mode="batch") for name in ("a", "b")]

        def __call__(self, x, state):
            return x, state

    task = jt.classification(TwoNames, num_classes=4)
    with pytest.raises(TypeError, match=r"'[ab]', '[ab]'.*axis_name='batch'"):
        task.apply(*task.init(key, None), jnp.ones((2, 4)), True, key)


def test_a_factory_that_fails_says_why_itself():
    def factory(key):
        return eqx.nn.Linear("four", 3, key=key)

    task = jt.classification(factory, num_classes=3)
    assert isinstance(task.apply, EquinoxApply)
    with pytest.raises(Exception, match=r"four|str"):
        task.init(jax.random.key(0), None)


def test_dropout_that_training_never_switches_on_is_refused():
    class Off(eqx.Module):
        linear: eqx.nn.Linear
        dropout: eqx.nn.Dropout

        def __init__(self, key):
            self.linear, self.dropout = eqx.nn.Linear(4, 3, key=key), eqx.nn.Dropout(0.25)

        def __call__(self, x):
            return self.linear(x)  # and forgets the other

    train = jt.data.from_arrays(np.ones((8, 4), np.float32), np.arange(8) % 3)
    plan = plan_of(Start(), Train(1, lr=Constant(0.1)), batch_size=4)
    with pytest.raises(ValueError, match=r"a dropout of 0\.25"):
        jt.fit(plan, jt.classification(Off, num_classes=3), train, key=0)


def test_equinox_is_not_imported_for_others():
    code = (
        "import sys, jaxtickets as jt; jt.classification(jt.models.LeNet());"
        " sys.exit('equinox' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
