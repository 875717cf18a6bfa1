"""Modules that sow, perturb, draw from streams of their own, or keep variables of their own kinds are trained as any other."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import nnx

import jaxtickets as jt

X = np.random.default_rng(0).normal(size=(16, 6)).astype(np.float32)
Y = (X[:, 0] > 0).astype(np.int32)


class Sown(nn.Module):
    where: str = "losses"

    @nn.compact
    def __call__(self, x, train):
        x = nn.Dense(4)(x)
        self.sow(self.where, "hidden", x)
        self.sow("sums", "size", jnp.sum(x), reduce_fn=jnp.add, init_fn=lambda: jnp.float32(0))
        x = self.perturb("inside", x)
        return nn.Dense(2)(nn.BatchNorm(use_running_average=not train)(x))


class NoSow(nn.Module):
    @nn.compact
    def __call__(self, x, train):
        x = nn.Dense(4)(x)
        return nn.Dense(2)(nn.BatchNorm(use_running_average=not train)(x))


class Noise(nn.Module):
    stream: str = "noise"

    @nn.compact
    def __call__(self, x, train):
        if train:
            x = x + jax.random.normal(self.make_rng(self.stream), x.shape)
        return nn.Dense(2)(nn.Dropout(0.5, deterministic=not train, rng_collection="own")(x))


class Buffer(nnx.Variable):
    pass


class NNXAll(nnx.Module):
    def __init__(self, rngs):
        self.layers = nnx.List([nnx.Linear(6, 6, rngs=rngs) for _ in range(11)])
        self.out, self.rngs, self.deterministic = nnx.Linear(6, 2, rngs=rngs), rngs, False
        self.scale, self.tree, self.count = (
            Buffer(jnp.ones(6)),
            Buffer({"a": jnp.ones(6)}),
            nnx.BatchStat(jnp.zeros(())),
        )

    def __call__(self, x):
        if not self.deterministic:
            x = x + jax.random.normal(self.rngs.noise(), x.shape)
            self.count[...] = self.count[...] + 1
        for layer in self.layers:
            x = layer(x)
        return self.out(x * self.scale[...] * self.tree.get_value()["a"])


class NNXRngs(nnx.Module):
    def __init__(self, rngs):
        self.drop, self.out = nnx.Dropout(0.5), nnx.Linear(6, 2, rngs=rngs)

    def __call__(self, x, rngs=None):
        return self.out(self.drop(x, rngs=rngs))


def ticket(model, folder=None):
    plan = jt.dense(1, epochs=2, batch_size=8)
    return jt.fit(
        plan, jt.classification(model, num_classes=2, name="net"), (X, Y), key=0, progress=False
    )


@pytest.mark.parametrize("where", ["losses", "intermediates"])
def test_what_is_sown_is_no_state_and_changes_nothing(where, tmp_path):
    sown, plain = ticket(Sown(where)), ticket(NoSow())
    assert list(sown.tickets[0].model_state) == ["batch_stats"]
    jax.tree.map(
        np.testing.assert_array_equal, tuple(sown.tickets[0])[:3], tuple(plain.tickets[0])[:3]
    )
    np.testing.assert_array_equal(sown.predict_proba(X[:5]), plain.predict_proba(X[:5]))


def test_streams_besides_dropouts():
    task = jt.classification(Noise(), num_classes=2)
    params, state = task.init(jax.random.key(0), X)
    one, same, other = (task.apply(params, state, X, True, jax.random.key(i))[0] for i in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert not np.allclose(one, other)
    assert len(ticket(Noise()).predict_proba(X)) == 16


def test_dropouts_own_stream_is_as_it_was():
    """The key itself, so that runs from before other streams were there end in the same bits."""
    model = jt.models.LeNet("S", dropout=0.5, num_classes=2)
    x = np.random.default_rng(0).normal(size=(2, 32, 32, 3)).astype(np.float32)
    task, key = jt.classification(model), jax.random.key(3)
    params, state = task.init(jax.random.key(0), x)
    by_flax = model.apply({"params": params}, x, train=True, rngs={"dropout": key})
    np.testing.assert_array_equal(task.apply(params, state, x, True, key)[0], by_flax)


def test_a_network_that_draws_in_evaluation_is_told():
    class Always(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.Dense(2)(x + jax.random.normal(self.make_rng("noise"), x.shape))

    with pytest.raises(
        jt.DataError, match=r'cannot evaluate the examples of arrays.*needs PRNG for "noise"'
    ):
        ticket(Always())


def test_nnx_variables_and_streams_of_ones_own():
    found = ticket(NNXAll)
    assert sorted(found.tickets[0].model_state) == ["count", "scale", "tree"]
    assert found.tickets[0].model_state["count"] == 4
    assert found.predict_proba(X).shape == (16, 2)
    assert len(ticket(NNXRngs).predict_proba(X)) == 16


def test_nnx_params_come_back_where_they_were():
    """Of twelve layers in a list, whose numbers sort otherwise as text."""
    task = jt.classification(NNXAll, num_classes=2)
    params, state = task.init(jax.random.key(0), X)
    model = NNXAll(nnx.Rngs(jax.random.key(0)))
    model.eval()
    np.testing.assert_allclose(
        task.apply(params, state, X, False, None)[0], model(X), rtol=1e-5, atol=1e-6
    )


@pytest.mark.filterwarnings("ignore:(?s).*outside of 'nnx.capture")
def test_nnx_modules_that_sow_and_perturb():
    class Net(nnx.Module):
        def __init__(self, rngs):
            self.a, self.b = nnx.Linear(6, 4, rngs=rngs), nnx.Linear(4, 2, rngs=rngs)

        def __call__(self, x):
            x = self.a(x)
            self.sow(nnx.Intermediate, "h", x)
            self.sow(Buffer, "own", x)
            return self.b(self.perturb("p", x))

    found = ticket(Net)
    assert found.tickets[0].model_state == {}
    assert found.predict_proba(X[:5]).shape == (5, 2)


def test_a_network_that_lacks_num_classes_is_told_what_to_write():
    class Net(nn.Module):
        width: int = 4

        @property
        def num_classes(self):
            return 2

        @nn.compact
        def __call__(self, x):
            return nn.Dense(2)(x)

    with pytest.raises(
        TypeError, match=r"MIMO: net must have num_classes.*Give it a field, num_classes: int = 10"
    ):
        jt.models.MIMO(Net(), 2)
    with pytest.raises(
        ValueError, match=r"num_classes is needed.*Write classification\(model, num_classes=10\)"
    ):
        jt.classification(nn.Dense(2))
    for wrong in (1, -3, 2.5, "ten", True):
        with pytest.raises(ValueError, match="num_classes is a whole number of at least 2"):
            jt.classification(nn.Dense(2), num_classes=wrong)  # pyright: ignore[reportArgumentType]
