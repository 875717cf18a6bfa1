"""A perceptron of Linen's layers on 96 points, whose hidden layers divide into blocks of 4 x 4."""

import dataclasses
import functools

import numpy as np
from flax import linen as nn
from tiny_task import CLASSES, Jitter

import jaxtickets as jt
from jaxtickets.dataset import Dataset
from jaxtickets.masks import Blocks
from jaxtickets.plan import (
    Adam,
    Collect,
    Fork,
    Length,
    Pack,
    Plan,
    Prune,
    Remember,
    Rewind,
    Start,
    Train,
)
from jaxtickets.schedules import Constant

IN, FOUR = 16, Blocks(4, 4)


def prune(sparsity=0.7):
    """Where every block is whole, so that a share of the weights is the same share of the blocks."""
    return Prune(sparsity, keep_dense=("last",), structure=FOUR)


PRUNE = prune()


class Perceptron(nn.Module):
    """Two hidden layers of 24 and 16, and a count of the batches that it saw."""

    noise: float = 0.1

    @nn.compact
    def __call__(self, x, train):
        seen = self.variable("counts", "seen", lambda: np.zeros((), np.float32))
        if train and not self.is_initializing():
            seen.value = seen.value + 1
        x = nn.tanh(nn.Dense(24, name="first")(x))
        x = nn.Dropout(self.noise, deterministic=not train)(x)
        x = nn.tanh(nn.Dense(16, use_bias=False, name="second")(x))
        return nn.Dense(CLASSES, name="last")(x)


@functools.cache
def task(noise=0.1):
    return jt.classification(Perceptron(noise), num_classes=CLASSES)


@functools.cache
def points():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(96, IN)).astype(np.float32)
    y = x[:, :CLASSES].argmax(-1).astype(np.int32)
    return Dataset(x, y, CLASSES, name="points", augment=Jitter())


def steps(count=3, optimizer=None, **options):
    return Train(Length(count, "steps"), Constant(0.05), optimizer or Adam(), **options)


def packed(width=2, children=0):
    """Six steps whole, of which the last three are pruned; six packed, rewound, pruned and packed again."""
    fork = [Fork(children, "parent")] if children else []
    phases = (
        Remember("first weights"),
        steps(),
        PRUNE,
        steps(),
        Pack(FOUR, 0.7),
        steps(),
        *fork,
        Rewind("first weights"),
        steps(),
        prune(0.85),
        Pack(FOUR, 0.7),
        steps(),
        Collect(),
    )
    return Plan("packed", (Start(width), *phases), 16)


def without_pack(plan):
    """The plan whose networks stay masked."""
    phases = tuple(phase for phase in plan.phases if not phase.packs)
    return dataclasses.replace(plan, phases=phases)


def fit(plan, **options):
    return jt.fit(
        plan,
        options.pop("of", None) or task(),
        points(),
        **{"key": 0, "progress": False} | options,
    )
