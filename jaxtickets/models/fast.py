"""Convolutions, products, pooling, GELU and batch normalisation that are fast on a CPU.

Elsewhere most are plain operations of `jax.lax`.

The platform that a program is lowered for chooses (`lax.platform_dependent`), so one trace serves
every platform, and what is exported on a CPU for a GPU is what the GPU wants; lowering drops the
other form. On a CPU XLA is good at some formulations of a convolution and bad at others, so each
shape gets the formulation that was fastest. All are exactly one convolution or matrix product with
the multiply-adds of the textbook, differentiable in both modes, to any order, and vmap (4 members
with kernels of their own cost 1.3 to 1.5 times as much per member as one).

Numbers beside the rules are milliseconds of CPU time, batch 128, float32, 2-core AMD EPYC, jax
0.10.2; PyTorch 2.13 in brackets.
"""

from __future__ import annotations

import functools
from typing import Literal

import jax
import jax.numpy as jnp
from jax import lax

Padding = Literal["SAME", "VALID"]
Sides = tuple[int, int]


def conv2d(
    x: jax.Array, kernel: jax.Array, strides: int = 1, padding: Padding = "SAME"
) -> jax.Array:
    """Convolves images [B, H, W, I] with a kernel [h, w, I, O]: [B, H', W', O].

    "SAME" pads h // 2 before and (h - 1) // 2 after, so that with an odd kernel strides s see the
    same pixels as PyTorch's `padding=h // 2` (lax pads an even image differently when s is 2).
    "VALID" does not pad. float32 sums; half precision is computed in float32 on a CPU, where XLA
    has no fast convolution for it.
    """
    h, w = kernel.shape[:2]
    pads = (
        ((h // 2, (h - 1) // 2), (w // 2, (w - 1) // 2)) if padding == "SAME" else ((0, 0), (0, 0))
    )
    return _conv(x, kernel, strides, pads)


def _convolve(
    x: jax.Array, kernel: jax.Array, strides: int, pads: tuple[Sides, Sides], dilation: int = 1
) -> jax.Array:
    """The convolution of images with a kernel, dilated or not.

    `dilation=2` spreads image, kernel, padding and stride alike along H, which changes nothing but
    the path.

    With it XLA's CPU compiler uses Eigen instead of YNNPACK, which runs some shapes on one core and
    others slowly. 3x3, 64 -> 64 on 32x32: forward 135 on one core -> 124 on two (120); kernel
    gradient 219 -> 170 (118). 128 -> 128 on 16x16: kernel gradient 204 -> 110 (94). 5x5, 64 -> 128
    on 14x14: forward 165 -> 50 (55), kernel gradient 177 -> 54 (53).
    """
    spread = (dilation, 1)
    return lax.conv_general_dilated(
        x,
        kernel,
        (strides * dilation, strides),
        ((pads[0][0] * dilation, pads[0][1] * dilation), pads[1]),
        lhs_dilation=spread,
        rhs_dilation=spread,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


_via_eigen = functools.partial(_convolve, dilation=2)


def _rows_to_channels(
    x: jax.Array, kernel: jax.Array, strides: int, pads: tuple[Sides, Sides]
) -> jax.Array:
    """The convolution with the kernel's rows moved to channels.

    h shifted copies of `x`, then one convolution along W.
    """
    h, w, channels, features = kernel.shape
    x = jnp.pad(x, ((0, 0), pads[0], (0, 0), (0, 0)))
    rows = (x.shape[1] - h) // strides + 1
    x = jnp.concatenate([x[:, a : a + (rows - 1) * strides + 1 : strides] for a in range(h)], -1)
    x = x.reshape(-1, x.shape[2], h * channels)
    kernel = kernel.transpose(1, 0, 2, 3).reshape(w, h * channels, features)
    y = lax.conv_general_dilated(
        x, kernel, (strides,), (pads[1],), dimension_numbers=("NHC", "HIO", "NHC")
    )
    return y.reshape(-1, rows, y.shape[1], features)


def _polyphase(
    x: jax.Array, kernel: jax.Array, strides: int, pads: tuple[Sides, Sides]
) -> jax.Array:
    """The strided convolution as a sum of dense ones, one for each of the strides^2 grids."""
    rows, cols = ((x.shape[i + 1] + sum(pads[i]) - kernel.shape[i]) // strides + 1 for i in (0, 1))

    def split(size: int, taps: int, low: int, out: int, phase: int):
        """Taps that meet pixels `phase + strides * j`, and the padding that aligns them."""
        first = (phase + low) % strides
        offset = (first - low - phase) // strides
        count = len(range(first, taps, strides))
        return first, count, (-offset, out - 1 + offset + count - len(range(phase, size, strides)))

    y = jnp.zeros((x.shape[0], rows, cols, kernel.shape[3]), x.dtype)
    for i in range(strides):
        for j in range(strides):
            a, taps_a, pad_a = split(x.shape[1], kernel.shape[0], pads[0][0], rows, i)
            b, taps_b, pad_b = split(x.shape[2], kernel.shape[1], pads[1][0], cols, j)
            if taps_a and taps_b:
                y += _via_eigen(
                    x[:, i::strides, j::strides], kernel[a::strides, b::strides], 1, (pad_a, pad_b)
                )
    return y


def _fastest(x: jax.Array, kernel: jax.Array, strides: int, pads: tuple[Sides, Sides]) -> jax.Array:
    """The convolution by the formulation whose forward pass and kernel gradient are fastest."""
    h, w, channels, features = kernel.shape
    if h == w == 1:
        # two axes, or XLA copies a transposed operand for the kernel gradient
        x = x[:, ::strides, ::strides]
        return (x.reshape(-1, channels) @ kernel[0, 0]).reshape(*x.shape[:3], features)
    if channels <= 4:  # 5x5, 3 -> 64 on 32x32: 14 on two cores, against 23 on one (7)
        return _rows_to_channels(x, kernel, strides, pads)
    return _via_eigen(x, kernel, strides, pads)


@functools.partial(jax.custom_jvp, nondiff_argnums=(2, 3))
def _conv(x: jax.Array, kernel: jax.Array, strides: int, pads: tuple[Sides, Sides]) -> jax.Array:
    """The convolution: of the fastest form on a CPU, lax's elsewhere."""

    def on_cpu(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return _fastest(_wide(x), _wide(kernel), strides, pads).astype(x.dtype)

    def elsewhere(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return _convolve(x, kernel, strides, pads)

    return lax.platform_dependent(x, kernel, cpu=on_cpu, default=elsewhere)


def _conv_jvp(strides, pads, primals, tangents):
    """The tangent of a convolution: it is linear in the image and in the kernel.

    Training never runs these, only their *transposes*, so on a CPU the image's form is the one
    whose transpose is fastest. Gradient with respect to the image, stride 2, 3x3, 64 -> 128 on
    32x32: 229 by `_via_eigen`, 113 by lax, 92 by `_polyphase` (52). Unpadded 5x5, 64 -> 128 on
    14x14: 115 by `_via_eigen`, 76 by `_rows_to_channels`, which multiplies fewer zeros (53).
    """
    h, w, channels, _ = primals[1].shape
    if h == w == 1 or channels <= 4:
        of_image = _fastest
    elif strides > 1:
        of_image = _polyphase
    else:
        of_image = _via_eigen if any(map(any, pads)) else _rows_to_channels
    zero = jax.custom_derivatives.SymbolicZero
    known = tuple(None if isinstance(tangent, zero) else tangent for tangent in tangents)

    def summed(arrays, of_image, of_kernel):
        x, kernel, dx, dkernel = arrays
        terms = [] if dx is None else [of_image(dx, kernel, strides, pads)]
        terms += [] if dkernel is None else [of_kernel(x, dkernel, strides, pads)]
        return sum(terms[1:], start=terms[0])

    def on_cpu(*arrays):
        return summed(jax.tree.map(_wide, arrays), of_image, _fastest).astype(arrays[0].dtype)

    def elsewhere(*arrays):
        return summed(arrays, _convolve, _convolve)

    tangent = lax.platform_dependent(*primals, *known, cpu=on_cpu, default=elsewhere)
    return _conv(*primals, strides, pads), tangent


_conv.defjvp(_conv_jvp, symbolic_zeros=True)


def _wide(x: jax.Array) -> jax.Array:
    """At least float32: XLA has no fast convolution of less on a CPU."""
    # (not `promote_types`, which refuses where promotion is strict)
    return x.astype(jnp.float32) if jnp.dtype(x.dtype).itemsize < 4 else x


def dense(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Multiplies [..., I] by a kernel [I, O]: [..., O].

    As one matrix product over all leading axes together: of a product with several of them XLA's
    CPU compiler computes the gradients at half the speed. 32 x 128 tokens, 384 -> 1536 -> 384 with
    a GELU between, the gradient: 317 -> 154 (Intel Xeon, 2 cores).
    """
    if x.ndim <= 2:
        return x @ kernel
    return (x.reshape(-1, x.shape[-1]) @ kernel).reshape(*x.shape[:-1], kernel.shape[-1])


def gelu(x: jax.Array) -> jax.Array:
    """x times the normal distribution function of x, of x's shape and dtype; computed in float32.

    By erf, as PyTorch computes it, where `jax.nn.gelu` takes erfc: 32 x 128 x 1536 take 1.7 and 4.6
    ms, with the gradient 3.8 and 12.3 (Intel Xeon, 2 cores). Below -5.5, where it is within 1e-7 of
    0, it is 0.

    References:
      Hendrycks and Gimpel 2016, arXiv:1606.08415, section 2.
    """
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    return (0.5 * wide * (1 + lax.erf(wide * 0.5**0.5))).astype(x.dtype)


def max_pool_2x2(x: jax.Array) -> jax.Array:
    """Largest of each 2x2 block, [B, H, W, C] -> [B, H // 2, W // 2, C].

    An odd last row or column is dropped.

    Three maxima of strided slices: their gradient takes 4.5 ms where `lax.reduce_window`'s
    (select-and-scatter) takes 126.
    """
    h, w = x.shape[1] // 2 * 2, x.shape[2] // 2 * 2
    top = jnp.maximum(x[:, 0:h:2, 0:w:2], x[:, 0:h:2, 1:w:2])
    bottom = jnp.maximum(x[:, 1:h:2, 0:w:2], x[:, 1:h:2, 1:w:2])
    return jnp.maximum(top, bottom)


def max_pool_3x3(x: jax.Array) -> jax.Array:
    """Largest of each 3x3 block, two pixels apart, padded by one.

    [B, H, W, C] -> [B, ceil(H / 2), ceil(W / 2), C].

    Along H, then along W: the maxima of even pixels and of the odd ones before and after them.
    Forward pass and gradient of 32x112x112x64 take 200 ms where `lax.reduce_window`'s take 837; the
    forward pass alone 35 and 29. The gradient of a tie is shared, where PyTorch gives it to the
    first.
    """
    lowest = jnp.array(-jnp.inf, x.dtype)
    for axis in (1, 2):
        size = x.shape[axis]
        even, odd = (lax.slice_in_dim(x, first, size, 2, axis) for first in (0, 1))
        before, after = [(0, 0, 0)] * x.ndim, [(0, 0, 0)] * x.ndim
        before[axis], after[axis] = (1, size % 2 - 1, 0), (0, size % 2, 0)
        x = jnp.maximum(
            jnp.maximum(even, lax.pad(odd, lowest, after)), lax.pad(odd, lowest, before)
        )
    return x


def avg_pool_2x2(x: jax.Array) -> jax.Array:
    """Mean of each 2x2 block, [B, H, W, C] -> [B, H // 2, W // 2, C].

    An odd last row or column is dropped.
    """
    h, w = x.shape[1] // 2 * 2, x.shape[2] // 2 * 2
    blocks = x[:, :h, :w].reshape(x.shape[0], h // 2, 2, w // 2, 2, x.shape[3])
    return jnp.mean(blocks, (2, 4))


def batch_norm(
    x: jax.Array, scale: jax.Array, bias: jax.Array, eps: float
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Images normalised per channel, and the batch's mean and biased variance, float32.

    The sums run over space first, then over the batch: 2.4 ms of CPU time for 128x32x32x64, 5.1
    over the three axes at once. Two passes (the mean, then squared distances from it) cost nothing
    measurable and do not cancel.
    """
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    mean = jnp.mean(jnp.mean(wide, (1, 2)), 0)
    centred = wide - mean
    var = jnp.mean(jnp.mean(jnp.square(centred), (1, 2)), 0)
    y = centred * (lax.rsqrt(var + eps) * scale) + bias
    return y.astype(x.dtype), mean, var
