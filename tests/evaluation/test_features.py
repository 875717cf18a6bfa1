"""Divergence of feature maps, against numpy's maps of the same networks, and the layers that a task names."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from others import others
from scipy.special import softmax
from scipy.stats import entropy

import jaxtickets as jt
from jaxtickets.data import Standardise
from jaxtickets.dataset import Dataset
from jaxtickets.evaluation import EvaluationError, Features
from jaxtickets.models import LeNet, TreeNet, WideResNet

CLOSE = 2e-5  # float32 maps and softmaxes


class Small(nn.Module):
    """Layers whose alphabetical order is not that of computation, one of them called twice, and a norm, which is no layer."""

    num_classes: int = 3

    @nn.compact
    def __call__(self, x, train):
        x = nn.relu(nn.Conv(5, (3, 3), name="z_first")(x))
        again = nn.Dense(5, name="m_twice")
        x = nn.BatchNorm(use_running_average=not train, name="norm")(again(nn.tanh(again(x))))
        return nn.Dense(self.num_classes, name="a_last")(x.mean((1, 2)))


def ensemble(tickets=3, task=None, shape=(6, 6, 2)):
    task = task or jt.classification(Small())
    drawn = jax.device_get(
        [task.init(jax.random.key(i), jnp.zeros((1, *shape), jnp.float32)) for i in range(tickets)]
    )
    return jt.TicketEnsemble(
        task,
        tuple(jt.Ticket(p, {}, s, {}) for p, s in drawn),
        jax.ShapeDtypeStruct(shape, jnp.float32),
    )


def images(examples=17):
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (examples, 6, 6, 2)).astype(np.uint8)
    return Dataset(x, np.zeros(examples, np.int32), 3, prepare=Standardise((0.5,), (0.3,)))


def maps(ticket, x):
    """The same forward pass with torch's convolution and numpy."""
    torch = others("torch")

    p = ticket.params
    kernel, bias = (torch.from_numpy(np.array(p["z_first"][name])) for name in ("kernel", "bias"))
    image = torch.from_numpy(np.array(x)).permute(0, 3, 1, 2)
    first = (
        torch.nn.functional.conv2d(image, kernel.permute(3, 2, 0, 1), bias, padding=1)
        .permute(0, 2, 3, 1)
        .numpy()
    )
    once = np.maximum(first, 0) @ p["m_twice"]["kernel"] + p["m_twice"]["bias"]
    twice = np.tanh(once) @ p["m_twice"]["kernel"] + p["m_twice"]["bias"]
    mean, var = ticket.model_state["batch_stats"]["norm"].values()
    normed = (twice - mean) / np.sqrt(var + 1e-5)
    return [first, once, twice, normed.mean((1, 2)) @ p["a_last"]["kernel"] + p["a_last"]["bias"]]


def test_divergences_are_those_of_the_maps_by_hand():
    tickets, test = ensemble(), images()
    result = Features()(tickets, test, batch_size=5)
    assert result["layers"] == ["z_first", "m_twice", "m_twice (2)", "a_last"]
    by_ticket = [maps(ticket, test.prepare(test.x)) for ticket in tickets]
    for layer in range(4):
        each = [one[layer] for one in by_ticket]
        p = [softmax(a.mean((1, 2)) if a.ndim == 4 else a, axis=-1) for a in each]
        wanted = np.array(
            [[entropy(p[i], p[j], axis=-1).mean() for j in range(3)] for i in range(3)]
        )
        np.testing.assert_allclose(result["kl_matrices"][layer], wanted, rtol=CLOSE, atol=1e-7)
        assert result["kl"][layer] == pytest.approx(wanted.sum() / 6, rel=CLOSE)
    assert min(result["kl"]) > 1e-3
    assert json.loads(json.dumps(result, allow_nan=False)) == result


def test_batches_blocks_and_streams_change_nothing(monkeypatch):
    from jaxtickets.evaluation import features

    tickets, test = ensemble(2), images()
    whole = Features()(tickets, test)["kl"]
    monkeypatch.setattr(features, "_BLOCK", 7)
    assert Features()(tickets, test, batch_size=4)["kl"] == pytest.approx(whole, rel=CLOSE)

    class Stream:
        def in_order(self, batch_size):
            x = np.asarray(test.prepare(test.x))
            yield from (x[first : first + batch_size] for first in range(0, len(x), batch_size))

    assert Features()(tickets, Stream(), batch_size=4)["kl"] == pytest.approx(whole, rel=CLOSE)
    assert Features()(tickets, (np.asarray(test.prepare(test.x)), test.y))["kl"] == pytest.approx(
        whole, rel=CLOSE
    )


def test_equal_tickets_do_not_diverge_and_one_ticket_has_no_pairs():
    tickets = ensemble(1)
    assert Features()(tickets[[0, 0]], images())["kl"] == [0.0] * 4
    alone = Features()(tickets, images())
    assert (alone["kl"], alone["kl_matrices"]) == ([None] * 4, [[[0.0]]] * 4)


def test_layers_stand_in_order_of_depth():
    model, x = WideResNet(16, 1, num_classes=3), jnp.zeros((1, 8, 8, 3))
    task = jt.classification(model)
    params, state = jax.eval_shape(task.init, jax.random.key(0), x)
    names = []
    jax.eval_shape(lambda p, s: names.extend(task.features(p, s, x)), params, state)
    blocks = [f"group{g}_block{b}" for g in (1, 2, 3) for b in (1, 2)]
    wanted = [f"{block}/{layer}" for block in blocks for layer in ("shortcut", "conv1", "conv2")]
    kept = [
        name
        for name in wanted
        if "shortcut" not in name or name in ("group2_block1/shortcut", "group3_block1/shortcut")
    ]
    assert names == ["conv", *kept, "classifier"]


def test_layers_under_a_lifted_transform_leak_nothing():
    class Remade(nn.Module):
        num_classes: int = 3

        @nn.compact
        def __call__(self, x):
            return nn.Dense(3, name="out")(nn.relu(nn.remat(nn.Dense)(4, name="remade")(x)))

    task = jt.classification(Remade())
    params, state = task.init(jax.random.key(0), jnp.zeros((2, 5)))
    assert list(task.features(params, state, jnp.ones((2, 5)))) == ["remade", "out"]


def test_a_task_is_as_equal_as_before():
    first, second = (jt.classification(Small()) for _ in range(2))
    assert first == second
    assert hash(first) == hash(second)
    assert jt.classification(Small(4)) != first


def test_what_cannot_be_compared_is_told():
    tickets, test = ensemble(2), images()
    bare = dataclasses.replace(tickets.task, features=None)
    assert jt.classification((bare.init, bare.apply), num_classes=3).features is None
    assert jt.classification(TreeNet(LeNet(), 2)).features is None
    with pytest.raises(
        EvaluationError,
        match=r"Small\(3\) does not name its layers.*dataclasses.replace\(task, features=...\)",
    ):
        Features()(dataclasses.replace(tickets, task=bare), test)
    lines = dataclasses.replace(
        bare, features=lambda params, state, x: {"line": x.mean((1, 2)) @ params["w"]}
    )
    shrunk = tuple(
        jt.Ticket({"w": np.ones((2, width), np.float32)}, {}, {}, {}) for width in (3, 2)
    )
    with pytest.raises(
        EvaluationError, match="layer line has 2 channels in ticket 1 and 3 in ticket 0"
    ):
        Features()(dataclasses.replace(tickets, task=lines, tickets=shrunk), test)
    lost = jax.tree.map(lambda a: a * np.float32(np.nan), tickets.tickets[0].params)
    with pytest.raises(EvaluationError, match=r"layer z_first: .*NaN"):
        Features()(
            dataclasses.replace(tickets, tickets=(tickets.tickets[0]._replace(params=lost),)), test
        )
    with pytest.raises(EvaluationError, match="got no examples"):
        Features()(tickets, test.take(slice(0, 0)))
    with pytest.raises(EvaluationError, match="got int, wanted a Dataset"):
        Features()(tickets, 3)
    with pytest.raises(EvaluationError, match="batch_size: got 0"):
        Features()(tickets, test, batch_size=0)
