"""The functions between an encoder's layers, by the names that Hugging Face's configs use."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxtickets.models.fast import gelu

Function = Callable[[jax.Array], jax.Array]


def _gelu_tanh(x: jax.Array) -> jax.Array:
    return jax.nn.gelu(x, approximate=True)


def _quick_gelu(x: jax.Array) -> jax.Array:
    return x * jax.nn.sigmoid(1.702 * x)


_BY_NAME: dict[str, Function] = {
    "gelu": gelu,
    "gelu_python": gelu,
    "gelu_10": lambda x: jnp.clip(gelu(x), -10, 10),
    "gelu_new": _gelu_tanh,
    "gelu_fast": _gelu_tanh,
    "gelu_accurate": _gelu_tanh,
    "gelu_pytorch_tanh": _gelu_tanh,
    "gelu_python_tanh": _gelu_tanh,
    "quick_gelu": _quick_gelu,
    "relu": jax.nn.relu,
    "relu2": lambda x: jnp.square(jax.nn.relu(x)),
    "relu6": jax.nn.relu6,
    "leaky_relu": lambda x: jax.nn.leaky_relu(x, 0.01),
    "silu": jax.nn.silu,
    "swish": jax.nn.silu,
    "mish": jax.nn.mish,
    "hardswish": jax.nn.hard_swish,
    "sigmoid": jax.nn.sigmoid,
    "tanh": jnp.tanh,
    "linear": lambda x: x,
}
ACTIVATIONS = tuple(_BY_NAME)
"""The names that are supported."""


def activation(name: str) -> Function:
    """The function of a name: arrays to arrays of the same shape and dtype, computed in float32.

    References:
      Hendrycks and Gimpel 2016, "Gaussian error linear units", arXiv:1606.08415, for GELU and its
      approximations.

    >>> activation("relu")(jnp.array([-1.0, 2.0])).tolist()
    [0.0, 2.0]
    """
    function = _BY_NAME[name]
    return lambda x: function(x.astype(jnp.promote_types(x.dtype, jnp.float32))).astype(x.dtype)
