"""The networks of images that most rows train, with their optimizers and a batch for them."""

from __future__ import annotations

import jax
import optax

import jaxtickets as jt

NETWORKS = {
    "LeNet-L": (jt.models.LeNet("L"), "adam"),
    "WRN-16-4": (jt.models.WideResNet(16, 4), "sgd"),
}


def images(batch_size: int) -> tuple[jax.Array, jax.Array]:
    """Random images and labels, since the speed does not depend on them."""
    x = jax.random.normal(jax.random.key(1), (batch_size, 32, 32, 3))
    return x, jax.random.randint(jax.random.key(2), (batch_size,), 0, 10)


def optimizer(kind: str) -> optax.GradientTransformation:
    """The optimizer of the papers for a kind of network.

    Adam for LeNet, SGD with momentum and weight decay for WideResNet.
    """
    return (
        optax.adam(1e-3)
        if kind == "adam"
        else optax.chain(optax.add_decayed_weights(5e-4), optax.sgd(0.1, momentum=0.9))
    )
