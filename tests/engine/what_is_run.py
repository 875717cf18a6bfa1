"""The identities of many runs, as JSON on standard output: run as a script in several processes they must be equal."""

import dataclasses
import functools
import json
import sys
import tempfile

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax import nnx

import jaxtickets as jt
from jaxtickets.engine import checks
from jaxtickets.engine.identity import identity_of
from jaxtickets.models import Encoder, TextClassifier, TransformerConfig

IMAGES = np.random.default_rng(0).integers(0, 255, (8, 32, 32, 3)).astype(np.uint8)
POINTS = np.random.default_rng(1).normal(size=(8, 6)).astype(np.float32)
LABELS = np.arange(8, dtype=np.int32) % 2
SHIFT = jnp.arange(6.0)


class Net(nn.Module):
    act: object = nn.relu

    @nn.compact
    def __call__(self, x, train):
        x = nn.BatchNorm(use_running_average=not train)(nn.Dense(4)(x))
        return nn.Dense(2)(nn.Dropout(0.5, deterministic=not train)(self.act(x)))


class NNXNet(nnx.Module):
    def __init__(self, rngs):
        self.norm, self.drop, self.out = (
            nnx.BatchNorm(6, rngs=rngs),
            nnx.Dropout(0.5, rngs=rngs),
            nnx.Linear(6, 2, rngs=rngs),
        )

    def __call__(self, x):
        return self.out(self.drop(self.norm(x)))


@jax.custom_vjp
def clipped(x):
    return x


clipped.defvjp(lambda x: (x, None), lambda _, g: (jnp.clip(g, -1, 1),))


def init(key, x):
    return {"w": jax.random.normal(key, (6, 2))}, {}


def apply(params, state, x, train, key):
    return clipped(x - SHIFT) @ params["w"], state


class Stream:
    name, num_classes = "stream", 2

    def __init__(self):
        self.transform = lambda x: 2 * x

    def __len__(self):
        return 8

    def fingerprint(self):
        return "1"

    def batches(self, seed, epoch, batch_size):
        yield self.transform(POINTS[:batch_size]), LABELS[:batch_size]


def texts():
    config = TransformerConfig(
        vocabulary=9, layers=1, width=4, heads=1, intermediate=4, positions=4
    )
    x = {name: np.ones((8, 4), np.int32) for name in ("input_ids", "attention_mask")}
    shapes = jax.eval_shape(
        lambda: Encoder(config).init(jax.random.key(0), x, train=False)["params"]
    )
    rng = np.random.default_rng(0)
    params = {
        "encoder": jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), shapes)
    }
    with tempfile.TemporaryDirectory() as folder:
        tuned = jt.fine_tuning(
            jt.models.save_pretrained(params, config, f"{folder}/tiny"), num_classes=2
        )
    data = jt.Dataset(x, LABELS, 2, name="texts", buckets=(2, 4))
    masked = dataclasses.replace(
        data,
        x=x | {"labels": x["input_ids"]},
        y=LABELS.astype(np.float32),
        num_classes=None,
        augment=jt.models.MaskTokens(3, 9),
    )
    return [
        (jt.classification(TextClassifier(dataclasses.replace(config, dropout=0.1), 2)), data),
        (tuned, data),
        (jt.masked_language_modelling(config), masked),
    ]


def runs():
    crop = jt.data.augment.CropFlip()
    images = jt.Dataset(IMAGES, LABELS, 2, augment=crop, prepare=lambda x: x / np.float32(255))
    points = jt.Dataset(
        POINTS, LABELS, 2, augment=lambda key, x: x + SHIFT * jax.random.normal(key, x.shape)
    )
    m = jt.models
    nets = [
        m.WideResNet(10, 1, 2, dropout=0.1),
        m.LeNet("S", 2, dropout=0.3),
        m.ResNet(18, 2),
        m.DenseNet(121, num_classes=2),
    ]
    small = m.LeNet("S", 2, dropout=0.3)
    nets += [
        m.TreeNet(small, 2),
        m.MIMO(small, 2),
        m.BatchEnsemble(small, 2),
        m.MCDropout(small, 2, key=0),
    ]
    yield from ((jt.classification(net, label_smoothing=0.1), images) for net in nets)
    own = [
        Net(),
        Net(functools.partial(nn.leaky_relu, negative_slope=0.1)),
        Net(lambda x: jnp.maximum(x, SHIFT[:4])),
        NNXNet,
        (init, apply),
    ]
    yield from ((jt.classification(model, num_classes=2), points) for model in own)
    yield jt.classification((init, apply), num_classes=2), Stream()
    targets = dataclasses.replace(points, y=LABELS.astype(np.float32), num_classes=None)
    yield jt.regression((init, lambda p, s, x, t, k: (x @ p["w"][:, :1], s))), targets
    yield from texts()


def identities():
    plan = jt.dense(1, epochs=1, batch_size=4)
    for task, data in runs():
        traced = checks.check_model(plan, task, data, checks.example_of(data))
        yield identity_of(plan, task, data, 0, traced, None)


if __name__ == "__main__":
    json.dump(list(identities()), sys.stdout)
