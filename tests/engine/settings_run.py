"""A run under whatever JAX is told by its environment: `python settings_run.py FOLDER`; prints what came out, as JSON."""

import hashlib
import json
import sys
import warnings
from pathlib import Path

import flax.linen as nn
import jax
import numpy as np
import tiny_task
from flax import nnx

import jaxtickets as jt
from jaxtickets.engine.checkpoints import Checkpoints
from jaxtickets.plan import Adam


class Linen(nn.Module):
    """A convolution, batch statistics and dropout."""

    num_classes: int = 3

    @nn.compact
    def __call__(self, x, train):
        x = nn.relu(nn.BatchNorm(not train, momentum=0.5)(nn.Conv(4, (3, 3))(x))).mean((1, 2))
        return nn.Dense(3)(nn.Dropout(0.2, deterministic=not train)(x))


class NNX(nnx.Module):
    """The same."""

    num_classes = 3

    def __init__(self, rngs):
        self.conv = nnx.Conv(2, 4, (3, 3), rngs=rngs)
        self.norm = nnx.BatchNorm(4, momentum=0.5, rngs=rngs)
        self.drop = nnx.Dropout(0.2, rngs=rngs)
        self.head = nnx.Linear(4, 3, rngs=rngs)

    def __call__(self, x):
        return self.head(self.drop(nnx.relu(self.norm(self.conv(x))).mean((1, 2))))


def images():
    """Points laid out as pictures of 2 x 2, two colours."""
    points = tiny_task.data(48, augment=False)
    return jt.Dataset(points.x.reshape(-1, 2, 2, 2), points.y, 3, name="squares")


def digest(tree):
    """Of all arrays: dtypes, shapes and bits."""
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]
    return hashlib.sha256(
        b"".join(f"{a.dtype}{a.shape}".encode() + a.tobytes() for a in leaves)
    ).hexdigest()[:12]


def run(folder):
    """Everything a user does with a network, by the kinds of networks."""
    classes = jt.classification(NNX, num_classes=3)
    short = {"epochs": 1, "update_every": 2, "optimizer": Adam()}
    works = {
        "functions": (
            tiny_task.task(),
            tiny_task.data(),
            tiny_task.dst(1, **short, validation=24, collect="best"),
        ),
        "linen": (jt.classification(Linen()), images(), tiny_task.dst(1, **short)),
        "nnx": (classes, images(), jt.static_sparse(1, sparsity=0.5, epochs=1, batch_size=16)),
    }
    for name, (task, data, plan) in works.items():
        out = folder / name
        real, left = Checkpoints.save, iter((1, 0))

        def save(self, *args, real=real, left=left):
            real(self, *args)
            if next(left) == 0:
                raise InterruptedError

        Checkpoints.save = save
        try:
            tiny_task.fit(plan, data, of=task, out=out, checkpoint_every=0)
            raise AssertionError
        except InterruptedError:
            Checkpoints.save = real
        tickets = tiny_task.fit(plan, data, of=task, out=out)
        loaded = jt.load(out / "tickets.safetensors", task)
        assert digest([t[:3] for t in loaded]) == digest([t[:3] for t in tickets])
        evaluated = jt.evaluate(tickets, data, suite=["diversity"] if len(tickets) > 1 else ())
        renewed = tickets.recalibrate(data, batches=3)
        kinds = {
            str(np.asarray(leaf).dtype)
            for ticket in (*tickets, *renewed)
            for leaf in jax.tree.leaves(ticket[:3])
        }
        yield (
            name,
            {
                "dtypes": sorted(kinds),
                "tickets": digest([t[:3] for t in tickets]),
                "renewed": digest([t[:3] for t in renewed]),
                "proba": digest(tickets.predict_proba(data)),
                "accuracy": evaluated.ensemble.accuracy,
                "classes": digest(tickets.predict(data).astype(np.int32)),
                "cost": [
                    round(float(n), 9)
                    for n in (
                        jt.cost(plan, task, data).training,
                        jt.cost(plan, task, data).inference,
                    )
                ],
            },
        )


if __name__ == "__main__":
    warnings.simplefilter("error")
    print(json.dumps(dict(run(Path(sys.argv[1])))))
