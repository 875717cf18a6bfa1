"""Convolution, pooling and batch normalisation (plain version; interface final)."""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp
from jax import lax

Padding = Literal["SAME", "VALID"]


def conv2d(x: jax.Array, kernel: jax.Array, strides: int = 1, padding: Padding = "SAME") -> jax.Array:
    """Convolution of images [B, H, W, I] with a kernel [h, w, I, O]: [B, H', W', O]."""
    size, _, channels, features = kernel.shape
    if jax.default_backend() != "cpu":
        return _convolve(x, kernel, strides, padding)
    if size == 1:
        x = x[:, ::strides, ::strides]
        return (x.reshape(-1, channels) @ kernel[0, 0]).reshape(*x.shape[:3], features)
    if channels <= 4:
        return _row_conv(x, kernel, strides, padding)
    return lax.optimization_barrier(_convolve(lax.optimization_barrier(x), kernel, strides, padding, dilation=2))


def _convolve(x, kernel, strides, padding, dilation=1):
    h, w, _, _ = kernel.shape
    pads = ((h // 2, (h - 1) // 2), (w // 2, (w - 1) // 2)) if padding == "SAME" else ((0, 0), (0, 0))
    pads = ((pads[0][0] * dilation, pads[0][1] * dilation), pads[1])
    d = (dilation, 1)
    return lax.conv_general_dilated(x, kernel, (strides * dilation, strides), pads, lhs_dilation=d, rhs_dilation=d, dimension_numbers=("NHWC", "HWIO", "NHWC"))


def _row_conv(x, kernel, strides, padding):
    k, _, i, o = kernel.shape
    batch = x.shape[0]
    p = (k // 2, (k - 1) // 2) if padding == "SAME" else (0, 0)
    x = jnp.pad(x, ((0, 0), p, (0, 0), (0, 0)))
    rows = (x.shape[1] - k) // strides + 1
    x = jnp.concatenate([x[:, a : a + (rows - 1) * strides + 1 : strides] for a in range(k)], -1)
    x = x.reshape(batch * rows, x.shape[2], k * i)
    y = lax.conv_general_dilated(x, kernel.transpose(1, 0, 2, 3).reshape(k, k * i, o), (strides,), (p,), dimension_numbers=("NHC", "HIO", "NHC"))
    return y.reshape(batch, rows, -1, o)


def max_pool_2x2(x: jax.Array) -> jax.Array:
    """Largest of each 2x2 block, [B, H, W, C] -> [B, H // 2, W // 2, C]; an odd last row or column is dropped."""
    h, w = x.shape[1] // 2 * 2, x.shape[2] // 2 * 2
    a, b = x[:, 0:h:2, 0:w:2], x[:, 0:h:2, 1:w:2]
    c, d = x[:, 1:h:2, 0:w:2], x[:, 1:h:2, 1:w:2]
    return jnp.maximum(jnp.maximum(a, b), jnp.maximum(c, d))


def batch_norm(x: jax.Array, scale: jax.Array, bias: jax.Array, eps: float) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Normalised images, and the batch's mean and biased variance of each channel (float32)."""
    x32 = x.astype(jnp.float32)
    mean = jnp.mean(jnp.mean(x32, (1, 2)), 0)
    var = jnp.mean(jnp.mean(jnp.square(x32 - mean), (1, 2)), 0)
    y = (x32 - mean) * (lax.rsqrt(var + eps) * scale) + bias
    return y.astype(x.dtype), mean, var
