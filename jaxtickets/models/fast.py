"""Convolution, pooling and batch normalisation (plain version; interface final)."""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp
from jax import lax

Padding = Literal["SAME", "VALID"]


def conv2d(x: jax.Array, kernel: jax.Array, strides: int = 1, padding: Padding = "SAME") -> jax.Array:
    """Convolution of images [B, H, W, I] with a kernel [h, w, I, O]: [B, H', W', O]."""
    k = kernel.shape[0]
    pads = ((k // 2, (k - 1) // 2),) * 2 if padding == "SAME" else "VALID"
    return lax.conv_general_dilated(x, kernel, (strides, strides), pads, dimension_numbers=("NHWC", "HWIO", "NHWC"))


def max_pool_2x2(x: jax.Array) -> jax.Array:
    """Largest of each 2x2 block, [B, H, W, C] -> [B, H // 2, W // 2, C]; an odd last row or column is dropped."""
    h, w = x.shape[1] // 2 * 2, x.shape[2] // 2 * 2
    a, b = x[:, 0:h:2, 0:w:2], x[:, 0:h:2, 1:w:2]
    c, d = x[:, 1:h:2, 0:w:2], x[:, 1:h:2, 1:w:2]
    return jnp.maximum(jnp.maximum(a, b), jnp.maximum(c, d))


def batch_norm(x: jax.Array, scale: jax.Array, bias: jax.Array, eps: float) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Normalised images, and the batch's mean and biased variance of each channel (float32)."""
    x32 = x.astype(jnp.float32)
    mean = jnp.mean(x32, (0, 1, 2))
    var = jnp.maximum(jnp.mean(jnp.square(x32), (0, 1, 2)) - jnp.square(mean), 0.0)
    y = (x32 - mean) * (lax.rsqrt(var + eps) * scale) + bias
    return y.astype(x.dtype), mean, var
