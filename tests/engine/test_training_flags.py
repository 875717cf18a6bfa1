"""Whether it trains reaches the network, whatever the flag is called and wherever it is; where it does not, that is an error."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import nnx

import jaxtickets as jt
from jaxtickets.engine.traces import trace
from jaxtickets.models.modes import FIELDS, MODES, in_mode, linen_mode

X = np.random.default_rng(0).normal(size=(8, 6)).astype(np.float32)
DATA = jt.Dataset(X, (X[:, 0] > 0).astype(np.int32), 2)


def layers(x, train):
    x = nn.BatchNorm(use_running_average=not train, momentum=0.5)(nn.Dense(4)(x))
    return nn.Dense(2)(nn.Dropout(0.5, deterministic=not train)(x))


def linen_of(name, default):
    """A module whose `__call__` takes the flag `name`; such a `default`, or none where it is `...`."""
    given = "" if default is ... else f"={default}"
    space = {"nn": nn, "layers": layers}
    train = name if MODES.get(name, True) else f"not {name}"
    code = f"class Net(nn.Module):\n    @nn.compact\n    def __call__(self, x, {name}{given}):\n        return layers(x, {train})\n"
    exec(code, space)
    return space["Net"]()


class Field(nn.Module):
    training: bool = False

    @nn.compact
    def __call__(self, x):
        return layers(x, self.training)


class Inverted(nn.Module):
    deterministic: bool | None = None

    @nn.compact
    def __call__(self, x, deterministic=None):
        return layers(x, not nn.merge_param("deterministic", self.deterministic, deterministic))


class NNXFlag(nnx.Module):
    def __init__(self, rngs):
        self.norm, self.out = nnx.BatchNorm(6, momentum=0.5, rngs=rngs), nnx.Linear(6, 2, rngs=rngs)

    def __call__(self, x, train=False):
        return self.out(self.norm(x, use_running_average=not train))


class NNXInference(NNXFlag):
    def __call__(self, x, *, inference=True):
        return self.out(self.norm(x, use_running_average=inference))


class NNXField(NNXFlag):
    def __init__(self, rngs):
        super().__init__(rngs)
        self.is_training = False

    def __call__(self, x):
        return self.out(self.norm(x, use_running_average=not self.is_training))


def moved(task):
    """Leaves of the state that one training call changes, and whether evaluation changes none."""
    params, state = task.init(jax.random.key(0), X)
    _, after = task.apply(params, state, X, True, jax.random.key(1))
    _, still = task.apply(params, state, X, False, None)
    jax.tree.map(np.testing.assert_array_equal, state, still)
    changed = jax.tree.map(lambda a, b: not np.array_equal(a, b), state, after)
    return sum(jax.tree.leaves(changed)), len(jax.tree.leaves(state))


@pytest.mark.parametrize("default", [..., True, False, None])
@pytest.mark.parametrize(
    "name", ["training", "is_training", "deterministic", "use_running_average", "inference", "eval"]
)
def test_linen_flags_by_name(name, default):
    task = jt.classification(linen_of(name, default), num_classes=2)
    assert moved(task) == (2, 2)
    trace(task, DATA, X[:2])


@pytest.mark.parametrize(
    "model",
    [
        Field(),
        Field(True),
        Inverted(),
        Inverted(True),
        Inverted(False),
        NNXFlag,
        NNXInference,
        NNXField,
    ],
)
def test_flags_in_fields_and_of_nnx(model):
    task = jt.classification(model, num_classes=2)
    assert moved(task) == (2, 2)
    trace(task, DATA, X[:2])


def test_the_table_of_names():
    for name, in_training in MODES.items():
        net = linen_of(name, False)
        assert linen_mode(net, True) == {name: in_training}
        assert linen_mode(net, False) == {name: not in_training}
    assert FIELDS.items() <= MODES.items()
    assert in_mode(Field(), True) == Field(True)
    assert in_mode(Field(), False) is not None
    assert linen_mode(linen_of("train", 0.5), True) == {}  # a rate is no flag


@pytest.mark.parametrize(
    "wrap",
    [lambda net: jt.models.BatchEnsemble(net, 2), lambda net: jt.models.MCDropout(net, 2, key=0)],
)
def test_a_field_of_a_network_with_several_heads(wrap):
    class Net(nn.Module):
        training: bool = False
        num_classes: int = 2

        @nn.compact
        def __call__(self, x):
            x = jt.models.layers.Dense(4, name="first")(x)
            x = nn.BatchNorm(use_running_average=not self.training, momentum=0.5)(x)
            return jt.models.layers.Dense(2, name="last")(
                nn.Dropout(0.5, deterministic=not self.training)(x)
            )

    assert moved(jt.classification(wrap(Net())))[0] == 2


class Hidden(nn.Module):
    """A flag of a name that nobody knows."""

    @nn.compact
    def __call__(self, x, learning=False):
        return layers(x, learning)


class Half(nn.Module):
    """One flag that arrives, and one that does not."""

    @nn.compact
    def __call__(self, x, train, wobble=False):
        x = nn.BatchNorm(use_running_average=not train)(nn.Dense(4)(x))
        return nn.Dense(2)(nn.Dropout(0.5, deterministic=not wobble)(x))


class Inner(nn.Module):
    """Layers that are never told."""

    def setup(self):
        self.net = Field()

    def __call__(self, x):
        return self.net(x)


class OnlyDropout(nn.Module):
    rate: float = 0.5

    @nn.compact
    def __call__(self, x):
        return nn.Dense(2)(nn.Dropout(self.rate, deterministic=True)(x))


class OwnStatistics(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(2)(x - self.variable("own", "running_mean", jnp.zeros, 6).value)


class NNXHidden(NNXFlag):
    def __call__(self, x, learning=False):
        return self.out(self.norm(x, use_running_average=not learning))


class NNXNever(NNXFlag):
    def __call__(self, x):
        return self.out(self.norm(x, use_running_average=True))


class NNXDropout(nnx.Module):
    def __init__(self, rngs):
        self.drop, self.out = nnx.Dropout(0.5, rngs=rngs), nnx.Linear(6, 2, rngs=rngs)

    def __call__(self, x):
        return self.out(self.drop(x, deterministic=True))


def bare_init(key, x):
    return {"w": jnp.ones((6, 2))}, {"mean": jnp.zeros(6)}


def bare_apply(params, state, x, train, key):
    return (x - state["mean"][None]) @ params["w"], state


@pytest.mark.parametrize(
    ("model", "what"),
    [
        (Hidden(), r"Hidden.__call__ has an argument learning"),
        (Half(), r"training leaves off what it has, though Half.__call__ has an argument wobble"),
        (Inner(), r"same program, though batch_stats/net/BatchNorm_0/mean is a running statistic"),
        (OnlyDropout(), r"Dropout_0 has a dropout of 0.5"),
        (OwnStatistics(), r"own/running_mean is a running statistic"),
        (NNXHidden, r"NNXHidden.__call__ has an argument learning"),
        (NNXNever, r"norm/mean is a running statistic"),
        (NNXDropout, r"drop has a dropout of 0.5"),
        ((bare_init, bare_apply), r"it reads mean of its model_state, which never changes"),
    ],
)
def test_a_flag_that_does_not_arrive_is_an_error_that_says_so(model, what):
    task = jt.classification(model, num_classes=2)
    with pytest.raises(
        jt.TaskError, match=rf"{what}.*does not reach the network\. Let it take train"
    ):
        jt.fit(jt.dense(1, epochs=1, batch_size=4), task, DATA, key=0, progress=False)


class Constants(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(2)(x * self.variable("constants", "scale", jnp.ones, 6).value)


class Buffer(nnx.Variable):
    pass


class NNXBuffer(nnx.Module):
    def __init__(self, rngs):
        self.out, self.scale = nnx.Linear(6, 2, rngs=rngs), Buffer(jnp.ones(6))

    def __call__(self, x):
        return self.out(x * self.scale[...])


class Features(nn.Module):
    """A switch that has nothing to do with training."""

    @nn.compact
    def __call__(self, x, train, features=False):
        hidden = nn.Dropout(0.5, deterministic=not train)(nn.Dense(4)(x))
        return hidden if features else nn.Dense(2)(hidden)


def unread(params, state, x, train, key):
    return x @ params["w"], state


@pytest.mark.parametrize(
    "model",
    [
        nn.Dense(2),
        OnlyDropout(0.0),
        Constants(),
        NNXBuffer,
        Features(),
        (bare_init, unread),
        jt.models.LeNet("S", num_classes=2),
    ],
)
def test_no_false_alarm(model):
    data = (
        DATA
        if not isinstance(model, jt.models.LeNet)
        else dataclasses.replace(DATA, x=np.zeros((8, 32, 32, 3), np.float32))
    )
    classes = {} if isinstance(model, jt.models.LeNet) else {"num_classes": 2}
    trace(jt.classification(model, **classes), data, data.x[:2])


@pytest.mark.parametrize("model", [Inner(), NNXNever, (bare_init, bare_apply)])
def test_a_state_that_is_meant_to_stay(model):
    trace(
        jt.classification(model, num_classes=2, fixed_state=True), DATA, X[:2]
    ) if model != Inner() else None
    if isinstance(model, Inner):  # its statistics may stay; its dropout is another matter
        with pytest.raises(jt.TaskError, match=r"net/Dropout_0 has a dropout of 0\.5"):
            trace(jt.classification(model, num_classes=2, fixed_state=True), DATA, X[:2])


def test_a_state_of_another_shape_is_told():
    task = jt.Task(
        bare_init,
        lambda p, s, x, train, key: (x @ p["w"], {"mean": x.mean()} if train else s),
        lambda z, y: z[:, 0],
        lambda z: z,
    )
    with pytest.raises(
        jt.TaskError,
        match=r"makes another kind of model_state in training: of \{'mean': 'float32\[6\]'\}",
    ):
        trace(dataclasses.replace(task, num_classes=2), DATA, X[:2])
