"""Shrinking: the smaller network puts out what the masked one does, and what cannot be made smaller is an error that says why."""

from __future__ import annotations

import dataclasses
import json
import struct

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

import jaxtickets as jt
from jaxtickets import masks
from jaxtickets.errors import MaskError, TicketFileError
from jaxtickets.masks.units import find_units, partition_units, random_units, unit_mask
from jaxtickets.models.layers import BatchNorm, Conv, Dense
from jaxtickets.transforms import keep_masked


def spec(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def network(model, *image):
    """A task, params and statistics as of a trained network (a dead unit's bias would show through), and the units."""
    task, rng = (
        model if isinstance(model, jt.Task) else jt.classification(model),
        np.random.default_rng(0),
    )

    def values(path, leaf):
        name = jax.tree_util.keystr(path, simple=True, separator="/").rpartition("/")[2]
        if name in ("scale", "var"):
            return rng.uniform(0.5, 1.5, leaf.shape).astype(np.float32)
        if len(leaf.shape) < 2:
            return rng.uniform(-0.1, 0.5, leaf.shape).astype(np.float32)
        return rng.normal(0, 1.5 / np.sqrt(np.prod(leaf.shape[:-1])), leaf.shape).astype(np.float32)

    params, state = jax.tree_util.tree_map_with_path(
        values, jax.eval_shape(task.init, jax.random.key(0), spec(1, *image))
    )
    return task, params, state, find_units(task.apply, params, state, spec(*image), task.prunable)


def ticket(params, mask, state):
    return jt.Ticket(masks.apply(mask, params), mask, state, {"lineage": 0})


def ensemble(task, tickets, *image):
    return jt.TicketEnsemble(task, tuple(tickets), spec(*image))


def logits(tickets, x):
    run = jax.jit(lambda p, s, x: tickets.task.apply(p, s, x, False, None)[0])
    return [np.asarray(run(t.params, t.model_state, x)) for t in tickets]


def close(one, other):
    """Equal but for the order in which floats are added up: some 20 layers of at most a few hundred terms, eps 6e-8 each."""
    np.testing.assert_allclose(one, other, rtol=0, atol=2e-5 * np.abs(one).max())


MODELS = {
    "LeNet": (jt.models.LeNet((4, 8, 12, 10)), (16, 16, 3)),
    "LeNet, units with several places": (jt.models.LeNet((6, 5, 12, 10)), (20, 24, 1)),
    "WideResNet": (jt.models.WideResNet(10, 1), (8, 8, 3)),
    "ResNet, basic blocks": (jt.models.ResNet(10, width=4), (8, 8, 3)),
    "ResNet, bottlenecks": (jt.models.ResNet(14, width=3), (8, 8, 3)),
    "DenseNet": (jt.models.DenseNet((2, 2), growth=4), (8, 8, 3)),
}


@pytest.mark.parametrize("name", MODELS)
def test_the_smaller_network_has_the_same_outputs(name):
    model, image = MODELS[name]
    task, params, state, units = network(model, *image)
    keep = np.asarray(random_units(jax.random.key(1), units, 0.5))
    mask = jax.device_get(unit_mask(units, keep))
    before = ensemble(task, [ticket(params, mask, state)], *image)
    after = jt.shrink(before)
    x = np.random.default_rng(1).normal(size=(4, *image)).astype(np.float32)
    (masked,), (shrunk,) = logits(before, x), logits(after, x)
    assert masked.std(0).max() > 0.01  # the example still matters
    close(masked, shrunk)
    (small,) = after
    assert small.info == {"lineage": 0, "shrunk": [len(units), int(keep.sum())]}
    assert before.tickets[0].info == {"lineage": 0}
    # Every parameter of the small network is one that no dead unit owns, counted from the mask that was given.
    assert sum(
        size
        for size, may in zip(
            *map(jax.tree.leaves, (jax.tree.map(np.size, small.params), masks.prunable(params))),
            strict=True,
        )
        if may
    ) == masks.count(mask)
    assert all(m.shape == () and m for m in jax.tree.leaves(small.mask))
    for leaf, array in zip(units.params, jax.tree.leaves(small.params), strict=True):
        assert array.size == np.prod(
            [int((keep[np.maximum(ids, 0)] | (ids < 0)).sum()) for ids in leaf.units]
        )
    assert jax.tree.structure(small.mask) == jax.tree.structure(small.params)


def test_lenet_in_numbers():
    task, params, state, units = network(jt.models.LeNet((4, 6, 8, 5)), 16, 16, 3)
    mask = unit_mask(units, random_units(jax.random.key(0), units, 0.5))
    (small,) = jt.shrink(ensemble(task, [ticket(params, mask, state)], 16, 16, 3))
    shapes = {name: layer["kernel"].shape for name, layer in small.params.items()}
    assert shapes == {
        "conv1": (5, 5, 3, 2),
        "conv2": (5, 5, 2, 3),
        "dense1": (3, 4),
        "dense2": (4, 3),
        "classifier": (3, 10),
    }
    assert (
        sum(leaf.size for leaf in jax.tree.leaves(small.params))
        == 150 + 2 + 150 + 3 + 12 + 4 + 12 + 3 + 30 + 10
    )


# Small networks of bare functions


def mlp(p, x):
    x = jax.nn.relu(x @ p["w1"] + p["b1"])
    return jax.nn.relu(x @ p["w2"] + p["b2"]) @ p["w3"]


def residual(p, x):
    x = jnp.sin(x @ p["w1"] + p["b1"])
    return (x + jnp.tanh(x @ p["w2"]) @ p["w3"]) @ p["w4"]


MLP = {"b1": (8,), "b2": (6,), "w1": (5, 8), "w2": (8, 6), "w3": (6, 3)}
RESIDUAL = {"b1": (8,), "w1": (5, 8), "w2": (8, 6), "w3": (6, 8), "w4": (8, 3)}


def bare(function, shapes, init=None, name="bare"):
    made = init or (lambda key, x: ({name: jnp.ones(shape) for name, shape in shapes.items()}, {}))
    return network(
        jt.classification(
            (made, lambda p, s, x, train, key: (function(p, x), s)), num_classes=3, name=name
        ),
        5,
    )


X = np.random.default_rng(0).normal(size=(7, 5)).astype(np.float32)


@pytest.mark.parametrize(("function", "shapes"), [(mlp, MLP), (residual, RESIDUAL)])
def test_members_of_different_widths_with_connections_pruned_too(function, shapes):
    task, params, state, units = bare(function, shapes)
    tickets, rng = [], np.random.default_rng(1)
    for i, sparsity in enumerate((0.5, 0.0, 0.7)):
        mask = jax.device_get(unit_mask(units, random_units(jax.random.key(i), units, sparsity)))
        mask = {
            path: m & (rng.random(m.shape) < 0.7) if m.ndim and i == 2 else m
            for path, m in mask.items()
        }
        tickets.append(ticket(params, mask, state))
    before = ensemble(task, tickets, 5)
    after = jt.shrink(before)
    assert [t.info["shrunk"][1] < len(units) for t in after] == [True, False, True]
    assert (
        masks.size(after.masks[0]) == masks.size(after.masks[1]) == 0
    )  # nothing is masked any more
    assert masks.count(after.masks[2]) < masks.size(after.masks[2])
    for member in after:
        masks.check(member.mask, member.params)
        assert all(
            (np.asarray(p)[~m] == 0).all()
            for p, m in zip(*map(jax.tree.leaves, (member.params, member.mask)))
            if m.ndim
        )
    for masked, shrunk in zip(logits(before, X), logits(after, X), strict=True):
        close(masked, shrunk)
    np.testing.assert_allclose(before.predict_proba(X), after.predict_proba(X), atol=1e-5)


def test_zeros_do_not_kill_and_masks_do():
    task, params, state, units = bare(mlp, MLP)
    params["w2"][3] = params["w1"][:, 3] = 0.0  # unit 3 is 0, but lives
    keep = np.arange(len(units)) != 1
    (small,) = jt.shrink(ensemble(task, [ticket(params, unit_mask(units, keep), state)], 5))
    np.testing.assert_array_equal(small.params["w2"], np.delete(params["w2"], 1, 0))


def test_readers_decide_and_what_only_dead_units_read_is_dead():
    task, params, state, units = bare(mlp, MLP)
    mask = jax.device_get(masks.full(params))
    mask["w3"] = (
        mask["w3"] & (np.arange(6) < 2)[:, None]
    )  # nobody reads the last four of the second layer
    mask["w2"] = mask["w2"] & ~(
        (np.arange(8) == 5)[:, None] & (np.arange(6) < 2)
    )  # which alone read unit 5 of the first
    before = ensemble(task, [ticket(params, mask, state)], 5)
    after = jt.shrink(before)
    assert after.tickets[0].params["w2"].shape == (7, 2)
    close(logits(before, X)[0], logits(after, X)[0])


def test_a_dead_layer_keeps_one_unit():
    task, params, state, units = bare(residual, RESIDUAL)
    keep = np.arange(len(units)) < 8  # the branch dies whole
    before = ensemble(task, [ticket(params, unit_mask(units, keep), state)], 5)
    after = jt.shrink(before)
    assert after.tickets[0].params["w2"].shape == (8, 1)
    assert masks.count(after.masks[0]) == masks.size(after.masks[0]) - 16  # its weights stay masked
    close(logits(before, X)[0], logits(after, X)[0])


class Tiny(nn.Module):
    """Convolution, batch norm, ReLU, twice, the second time with a shortcut."""

    num_classes: int = 3

    @nn.compact
    def __call__(self, x, train):
        x = nn.relu(BatchNorm(name="bn1")(Conv(6, 3, name="conv1")(x), train))
        x = nn.relu(BatchNorm(name="bn2")(x + Conv(6, 3, name="conv2")(x), train))
        return Dense(self.num_classes, name="classifier")(x.mean((1, 2)))


def test_a_tuned_child_shrinks_and_is_the_child_that_a_smaller_network_would_have_become():
    """Masked and shrunk, then three steps of momentum and weight decay with batch norm in training mode: the same network."""
    task, params, state, units = network(Tiny(), 8, 8, 1)
    mask = unit_mask(units, partition_units(jax.random.key(0), units, 3, 1))
    before = ensemble(task, [ticket(params, mask, state)], 8, 8, 1)
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(8, 8, 8, 1)).astype(np.float32), rng.integers(0, 3, 8)

    def tuned(one):
        tx = keep_masked(
            optax.chain(optax.add_decayed_weights(1e-3), optax.sgd(0.02, momentum=0.9)), one.mask
        )
        params, model_state = jax.device_put((one.params, one.model_state))
        opt_state = tx.init(params)

        @jax.jit
        def step(params, model_state, opt_state):
            def loss(params):
                out, after = task.apply(params, model_state, x, True, None)
                return task.loss(out, y).mean(), after

            grads, model_state = jax.grad(loss, has_aux=True)(params)
            updates, opt_state = tx.update(grads, opt_state, params)
            return optax.apply_updates(params, updates), model_state, opt_state

        for _ in range(3):
            params, model_state, opt_state = step(params, model_state, opt_state)
        return one._replace(params=jax.device_get(params), model_state=jax.device_get(model_state))

    first_masked = jt.shrink(dataclasses.replace(before, tickets=(tuned(before.tickets[0]),)))
    first_shrunk = tuned(jt.shrink(before).tickets[0])
    changed = np.abs(
        first_shrunk.params["classifier"]["kernel"]
        - jt.shrink(before).tickets[0].params["classifier"]["kernel"]
    ).max()
    for one, other in zip(
        *(
            jax.tree.leaves((t.params, t.model_state))
            for t in (first_masked.tickets[0], first_shrunk)
        ),
        strict=True,
    ):
        np.testing.assert_allclose(
            one, other, atol=1e-2 * changed
        )  # three steps of a normalised network magnify rounding
    assert changed > 1e-3


# Errors


def refused(function, shapes, change, match):
    task, params, state, units = bare(function, shapes)
    mask = {path: np.array(m) for path, m in masks.full(params).items()}
    mask = change(mask, units) or mask
    with pytest.raises(MaskError, match=match):
        jt.shrink(ensemble(task, [ticket(params, mask, state)], 5))


def put(path, index):
    def change(mask, units):
        mask[path][index] = False

    return change


ALL = slice(None)


def test_nothing_to_remove():
    refused(mlp, MLP, lambda mask, units: None, "nothing to remove: every unit is alive")

    def every_other(mask, units):  # every row and every column keeps some weight
        return {
            path: m & (np.indices(m.shape).sum(0) % 2 == 0) if m.ndim else m
            for path, m in mask.items()
        }

    refused(mlp, MLP, every_other, "connection-pruned tickets are not made")


def test_a_unit_that_lives_on_elsewhere():
    refused(
        mlp,
        MLP,
        put("w1", (ALL, 5)),
        r"w1 has its output 5 masked, which is unit 5 of w1, but w2 reads it, and gets a constant",
    )
    refused(
        residual,
        RESIDUAL,
        put("w3", (ALL, 5)),
        r"w3 has its output 5 masked, which is unit 5 of w1, but it is added to that of w1, which is alive",
    )
    refused(
        residual,
        RESIDUAL,
        put("w4", 5),
        r"w4 has its input 5 masked, which is unit 5 of w1, but it is alive where w2 reads it",
    )
    refused(
        mlp,
        MLP,
        put("w3", (ALL, 2)),
        "output 2 of w3 is masked, but cannot be removed: they are the network's outputs",
    )

    def flat(p, x):
        return jnp.repeat(x @ p["w1"], 2, -1) @ p["w2"]

    refused(
        flat,
        {"w1": (5, 4), "w2": (8, 3)},
        put("w2", 2),
        "w2 has its input 2 masked, which is unit 1 of w1, but not everywhere that it is read",
    )


def test_an_error_names_the_layers_of_a_residual_network_and_the_member():
    task, params, state, units = network(jt.models.WideResNet(10, 1), 8, 8, 3)
    good = unit_mask(units, random_units(jax.random.key(0), units, 0.5))
    bad = jax.device_get(masks.full(params))
    bad["group1_block1"]["conv2"]["kernel"] = np.broadcast_to(np.arange(16) != 5, (3, 3, 16, 16))
    both = ensemble(task, [ticket(params, mask, state) for mask in (good, bad)], 8, 8, 3)
    with pytest.raises(
        MaskError,
        match=r"member 1 .* group1_block1/conv2/kernel has its output 5 masked, .* added to that of conv/kernel, which is alive",
    ):
        jt.shrink(both)


def test_units_that_an_operation_needs():
    def normed(p, x):
        x = jnp.tanh(x @ p["w1"]) @ p["w2"]
        return (x - x.mean(-1, keepdims=True)) @ p["w3"]

    shapes = {"w1": (5, 8), "w2": (8, 6), "w3": (6, 3)}
    refused(
        normed,
        shapes,
        put("w2", (ALL, 4)),
        "output 4 of w2 is masked, but cannot be removed: 'reduce_sum' runs over them",
    )


class Fixed(nn.Module):
    num_classes: int = 3

    @nn.compact
    def __call__(self, x):
        return nn.Dense(3)(nn.relu(nn.Dense(8)(x)))


def test_layers_of_fixed_width():
    task, params, state, units = network(Fixed(), 5)
    mask = unit_mask(units, random_units(jax.random.key(0), units, 0.5))
    with pytest.raises(
        MaskError,
        match=r"Fixed\(3\) does not run with fewer units: .*Its layers must take their widths from the params",
    ):
        jt.shrink(ensemble(task, [ticket(params, mask, state)], 5))


# Files


def test_shrunk_tickets_come_back_from_a_file(tmp_path):
    task, params, state, units = network(jt.models.WideResNet(10, 1), 8, 8, 3)
    tickets = [
        ticket(params, unit_mask(units, random_units(jax.random.key(i), units, s)), state)
        for i, s in enumerate((0.5, 0.8, 0.0))
    ]
    after, path = jt.shrink(ensemble(task, tickets, 8, 8, 3)), tmp_path / "a"
    after.save(path)
    loaded = jt.load(path, task)
    for one, other in zip(after, loaded, strict=True):
        jax.tree.map(
            np.testing.assert_array_equal,
            (one.params, one.mask, one.model_state),
            (other.params, other.mask, other.model_state),
        )
        assert one.info == other.info
    before = path.read_bytes()
    loaded.save(path)
    assert path.read_bytes() == before


def test_other_files_say_nothing_of_shapes(tmp_path):
    task, params, state, _ = bare(mlp, MLP)
    ensemble(task, [ticket(params, masks.full(params), state)], 5).save(tmp_path / "a")
    raw = (tmp_path / "a").read_bytes()
    head = json.loads(raw[8 : 8 + struct.unpack("<Q", raw[:8])[0]])
    assert "shapes" not in json.loads(head["__metadata__"]["jaxtickets"])


def forge(path, change):
    from safetensors.numpy import load, save

    from jaxtickets.tickets.file_layout import digest

    raw = path.read_bytes()
    about = json.loads(
        json.loads(raw[8 : 8 + struct.unpack("<Q", raw[:8])[0]])["__metadata__"]["jaxtickets"]
    )
    del about["sha256"]
    change(about)
    tensors = load(raw)
    about["sha256"] = digest(
        {name: (t.dtype, t.shape) for name, t in tensors.items()}, tensors.__getitem__, about
    )
    path.write_bytes(save(tensors, metadata={"jaxtickets": json.dumps(about)}))


LIES = {
    "larger": (
        lambda a: a["shapes"][0].update({"params/w2": [4, 2**40]}),
        r"is declared \[4, 1099511627776\]; the network needs \[8, 6\]",
    ),
    "another rank": (lambda a: a["shapes"][0].update({"params/w2": [12]}), "is declared"),
    "empty": (lambda a: a["shapes"][0].update({"params/w2": [4, 0]}), "is declared"),
    "text": (lambda a: a["shapes"][0].update({"params/w2": "43"}), "is declared"),
    "a number": (
        lambda a: a["shapes"][0].update({"params/w2": 3}),
        "metadata is not a ticket file's",
    ),
    "of another member": (lambda a: a["shapes"].reverse(), "the network needs"),
    "too few": (lambda a: a["shapes"].pop(), "metadata is not a ticket file's"),
    "none": (lambda a: a.pop("shapes"), "the network needs"),
    "that do not fit each other": (
        lambda a: a["shapes"][0].update({"params/w2": [3, 4]}),
        "does not run with the shrunk params of member 0",
    ),
    "of fewer classes": (
        lambda a: a["shapes"][1].update({"params/w3": [6, 2]}),
        "its outputs have another shape",
    ),
}


@pytest.mark.parametrize("name", LIES)
def test_shapes_that_lie_are_refused(name, tmp_path):
    task, params, state, units = bare(mlp, MLP)
    after = jt.shrink(
        ensemble(
            task,
            [ticket(params, unit_mask(units, np.arange(14) % d == 0), state) for d in (2, 1)],
            5,
        )
    )
    after.save(tmp_path / "a")
    assert len(jt.load(tmp_path / "a", task)) == 2
    change, match = LIES[name]
    forge(tmp_path / "a", change)
    with pytest.raises(TicketFileError, match=match):
        jt.load(tmp_path / "a", task)


@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_whole_heads_and_feed_forward_units_of_a_transformer(family):
    config = jt.models.TransformerConfig(
        family,
        vocabulary=50,
        layers=2,
        width=32,
        heads=4,
        intermediate=64,
        positions=24,
        token_types=2 if family == "bert" else 1,
        padding=0 if family == "bert" else 1,
    )
    rng = np.random.default_rng(0)
    x = {
        "input_ids": rng.integers(2, 50, (3, 16)).astype(np.int32),
        "attention_mask": (np.arange(16) < np.array([[16], [9], [4]])).astype(np.int32),
        "token_type_ids": np.zeros((3, 16), np.int32),
    }
    task = jt.classification(
        jt.models.TextClassifier(config, num_classes=2), prunable=jt.models.ENCODER_KERNELS
    )
    params, state = task.init(jax.random.key(0), x)
    params = jax.tree.map(
        lambda p: p + 0.1 * rng.normal(size=p.shape).astype(np.float32), jax.device_get(params)
    )
    x_spec = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape[1:], a.dtype), x)
    units = find_units(task.apply, params, state, x_spec, task.prunable)
    assert units.sizes == (64, 4) * 2
    mask = unit_mask(units, random_units(jax.random.key(2), units, 0.5))
    wide = jt.TicketEnsemble(task, (ticket(params, mask, state),), x_spec)
    small = jt.shrink(wide)
    layer = small.tickets[0].params["encoder"]["layer_0"]
    assert layer["query"]["kernel"].shape == layer["value"]["kernel"].shape == (32, 16)
    assert layer["attention_output"]["kernel"].shape == (16, 32)
    assert layer["intermediate"]["kernel"].shape == (32, 32)
    np.testing.assert_allclose(small.member_log_proba(x), wide.member_log_proba(x), atol=1e-6)
