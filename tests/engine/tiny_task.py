"""What the engine's tests train: a perceptron of 224 weights on 96 points, given as bare functions."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxtickets as jt
from jaxtickets.dataset import Dataset
from jaxtickets.masks import Units
from jaxtickets.plan import (
    Adam,
    Collect,
    Length,
    Plan,
    Prune,
    Remember,
    Rewind,
    Shrink,
    Start,
    Train,
)
from jaxtickets.schedules import Constant

IN, HIDDEN, CLASSES = 8, 16, 3


def init(key, x):
    a, b = jax.random.split(key)
    first, second = (
        jax.random.normal(a, (x.shape[-1], HIDDEN)),
        jax.random.normal(b, (HIDDEN, CLASSES)),
    )
    return {"w1": 0.3 * first, "b": jnp.zeros(HIDDEN), "w2": 0.3 * second}, {
        "seen": jnp.zeros((), jnp.float32)
    }


def apply(params, state, x, train, key):
    hidden = jnp.tanh(jnp.matmul(x, params["w1"]) + params["b"][None])
    if train:
        hidden = hidden * (
            1 + 0.1 * jax.random.normal(key, hidden.shape)
        )  # a dropout of sorts: the key has a say
        state = {"seen": state["seen"] + jnp.float32(x.shape[0])}
    return jnp.matmul(hidden, params["w2"]), state


@functools.cache
def task():
    return jt.classification((init, apply), num_classes=CLASSES, name="perceptron")


@dataclasses.dataclass(frozen=True)
class Jitter:
    """An augmentation that shows in the result."""

    size: float = 0.1

    def __call__(self, key, x):
        return x + self.size * jax.random.normal(key, x.shape)


@functools.cache
def data(examples=96, augment=True):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(examples, IN)).astype(np.float32)
    return Dataset(
        x,
        x[:, :CLASSES].argmax(-1).astype(np.int32),
        CLASSES,
        name="points",
        augment=Jitter() if augment else None,
    )


def edst(members=2, **options):
    """Epochs are six steps of 16; the mask evolves every third."""
    how = {"sparsity": 0.5, "explore": 1, "refine": 1, "update_every": 3, "batch_size": 16}
    return jt.edst(members, **(how | options))


def dst(members=2, **options):
    how = {"sparsity": 0.5, "epochs": 2, "update_every": 3, "batch_size": 16}
    return jt.dst(members, **(how | options))


def fit(plan, train=None, *, of=None, key: Any = 0, progress=False, **options):
    return jt.fit(
        plan,
        of or task(),
        data() if train is None else train,
        key=key,
        progress=progress,
        **options,
    )


def leaves(tree):
    return [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]


def same(a, b):
    """Whether two tickets are equal to the last bit: weights, masks and state."""
    pairs = zip(leaves(tuple(a)[:3]), leaves(tuple(b)[:3]), strict=True)
    return all(x.dtype == y.dtype and x.tobytes() == y.tobytes() for x, y in pairs)


def pat(members=4, **options):
    """A parent of one epoch, children of one more."""
    how = {"parent": 1, "tune": 1, "keep_dense": ("w2",), "batch_size": 16}
    return jt.prune_and_tune(members, **(how | options))


def shrunk(width=2, **options):
    """Six steps wide, of which the middle three are pruned; six of half the units, the last three rewound."""
    three = Train(Length(3, "steps"), Constant(0.05), Adam())
    return Plan(
        "shrunk",
        (
            Start(width),
            Remember("first weights"),
            three,
            Prune(0.5, scope="layerwise", structure=Units()),
            three,
            Shrink(**({"multiple": 4} | options)),
            three,
            Rewind("first weights"),
            three,
            Prune(0.7),
            three,
            Collect(),
        ),
        16,
    )


def ltr(members=2, **options):
    """Twelve steps, the first three of which are not taken again."""
    how = {"sparsity": 0.6, "epochs": 2, "rewind_to": 0.25, "update_every": 2, "batch_size": 16}
    return jt.ltr(members, **(how | options))


def quiet_apply(params, state, x, train, key):
    """Without noise; the state still counts what was seen."""
    outputs, _ = apply(params, state, x, False, key)
    return outputs, {"seen": state["seen"] + jnp.float32(x.shape[0])} if train else state


@functools.cache
def quiet():
    """The same task without noise: steps are gradient descent that others can take, too."""
    return dataclasses.replace(task(), apply=quiet_apply)


def count_init(key, x):
    return {"w": jnp.zeros((x.shape[-1], CLASSES))}, {}


def count_apply(params, state, x, train, key):
    return jnp.matmul(x, params["w"]), state


def count_loss(outputs, y):
    return -jnp.take_along_axis(outputs, y[:, None], -1)[:, 0]


@functools.cache
def counting(examples=96):
    """A task and data for which plain SGD at a learning rate of the batch size counts how often each example is read.

    Example i is the i-th unit vector, and the loss is minus the output of its class: a step adds 1 to the weight of every
    example in the batch and leaves the others alone.
    """
    y = data(examples).y
    points = Dataset(np.eye(examples, dtype=np.float32), y, CLASSES, name="rows")
    return dataclasses.replace(
        task(), init=count_init, apply=count_apply, loss=count_loss, name="counter"
    ), points


def reads(ticket):
    """How often each example was read, by `counting`."""
    return np.rint(np.asarray(ticket.params["w"]).sum(-1)).astype(int)
