"""Convolution, dense layer and batch normalisation as Linen modules over `jaxtickets.models.fast`.

A layer is as wide as the parameters that it is given: its width says how wide they are made. So one
module also runs networks whose dead units were cut away (`jaxtickets.shrink`), and packed ones
(`jaxtickets.pack`).

`Conv` and `Dense` multiply and shift in methods of their own, `multiply(x, kernel)` and `shift(y)`,
so that `BatchEnsemble` can step in between (`flax.linen.intercept_methods`).
"""

from __future__ import annotations

import math
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

from jaxtickets.masks.packing import COLLECTION, TABLE
from jaxtickets.messages import checks
from jaxtickets.models import fast
from jaxtickets.models.block_products import block_product

Dtype = Any
Initializer = nn.initializers.Initializer
Stem = Literal["cifar", "imagenet"]
Initial = Literal["lecun", "torch"]
# He et al. 2015 (arXiv:1502.01852), equation 14
CONV_INIT = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


# U(-b, b), b = 1 / sqrt(fan_in): torch's default
TORCH_INIT = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


def check_images(x: jax.Array, model: str) -> None:
    """Raise an error if `x` is not a batch of images with channels last.

    Raises:
      ValueError: if `x` has another rank than 4.
    """
    if x.ndim != 4:
        raise ValueError(
            f"{model}: x must be a batch of images [batch, height, width, channels], got shape"
            f" {x.shape}. The usual cause is a single image (add x[None]) or images without a"
            " channel axis (add x[..., None])."
        )


def check_fields(network: nn.Module) -> None:
    """Check the fields that every network of this package has: classes, dropout, dtype.

    NumPy's numbers among its fields become Python's: a network is known by how it prints.

    Raises:
      ValueError: another number of classes than 1, 2, ..., a rate outside [0, 1), a dtype of no
        floats.
    """
    checks.plain_fields(network)
    model, fields = type(network).__name__, vars(network)
    check_count(network, "num_classes")
    dropout, dtype = fields["dropout"], fields["dtype"]
    if not (checks.is_fraction(dropout) and dropout < 1):
        raise ValueError(f"{model}: dropout must be in [0, 1), got {checks.shown(dropout)}.")
    try:
        floats = dtype is not None and jnp.issubdtype(jnp.dtype(dtype), jnp.floating)
    except TypeError:
        floats = False
    if not floats:
        raise ValueError(
            f"{model}: dtype must be a dtype of floats, such as jnp.float32 or jnp.bfloat16, got"
            f" {checks.shown(dtype)}."
        )


def check_count(network: nn.Module, name: str, usual: str = "", most: int = checks.LONGEST) -> None:
    """Raise an error if a field of a network is no count.

    Raises:
      ValueError: if it is not an integer, is below 1, or is beyond all bounds.
    """
    value = vars(network)[name]
    if not (checks.is_int(value) and 1 <= value <= most):
        beyond = f" and at most {most:,}" if checks.is_int(value) and value > most else ""
        kind = "" if checks.is_int(value) else "an integer of "
        raise ValueError(
            f"{type(network).__name__}: {name} must be {kind}at least 1{beyond}{usual}, got"
            f" {checks.shown(value)}."
        )


def check_stem(stem: str, model: str) -> None:
    """Raise an error if `stem` is not the first layers' form for small or for large images.

    Raises:
      ValueError: if `stem` is neither "cifar" nor "imagenet".
    """
    if not isinstance(stem, str) or stem not in get_args(Stem):
        raise ValueError(
            f'{model}: stem must be "cifar" (a 3x3 convolution, for images of about 32x32) or'
            ' "imagenet" (a 7x7 convolution with stride 2 and a max-pool, for about 224x224), got'
            f" {stem!r}."
        )


def given_or_made(
    module: nn.Module, name: str, init: Initializer, shape: tuple[int, ...]
) -> jax.Array:
    """The parameter that the module was given, whatever its width, or a new one of `shape`."""
    if module.has_variable("params", name):
        return module.get_variable("params", name)
    return module.param(name, init, shape)


def bias_init(layer: Conv | Dense) -> Initializer:
    """The initializer of the bias of a layer, from the layer's own kernel."""
    if layer.initial_bias == "zeros":
        return nn.initializers.zeros_init()
    fan_in = math.prod(layer.get_variable("params", "kernel").shape[:-1])
    return lambda key, shape, dtype=jnp.float32: (
        jax.random.uniform(key, shape, dtype, -1, 1) / math.sqrt(fan_in)
    )


class Conv(nn.Module):
    """A 2-D convolution; parameters `kernel` [k, k, in, out] and, with `use_bias`, `bias` [out].

    Args:
      features: output channels.
      size: k, the kernel's side.
      strides: step between output positions, the same in both directions.
      padding: "SAME" pads k // 2 on every side (as torch's `padding=k // 2`), "VALID" not at all.
      use_bias: adds a bias per output channel.
      dtype: computation dtype; parameters are float32.
      kernel_init: initializer of the kernel.
      initial_bias: how the bias begins: "zeros", or "torch", uniform within 1 / sqrt(fan_in).
    """

    features: int
    size: int
    strides: int = 1
    padding: fast.Padding = "SAME"
    use_bias: bool = True
    dtype: Dtype = jnp.float32
    kernel_init: Initializer = nn.initializers.lecun_normal()
    initial_bias: Literal["zeros", "torch"] = "zeros"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [B, H, W, in] to [B, H', W', out]."""
        kernel = given_or_made(
            self, "kernel", self.kernel_init, (self.size, self.size, x.shape[-1], self.features)
        )
        y = self.multiply(x.astype(self.dtype), kernel.astype(self.dtype))
        return self.shift(y) if self.use_bias else y

    def multiply(self, x: jax.Array, kernel: jax.Array) -> jax.Array:
        """The convolution alone, without the bias."""
        return fast.conv2d(x, kernel, self.strides, self.padding)

    def shift(self, y: jax.Array) -> jax.Array:
        """Adds the bias."""
        return y + given_or_made(self, "bias", bias_init(self), (self.features,)).astype(self.dtype)


class Dense(nn.Module):
    """A dense layer; parameters `kernel` [in, out] and `bias` [out].

    Args:
      features: output width.
      dtype: computation dtype; parameters are float32.
      kernel_init: initializer of the kernel.
      initial_bias: how the bias begins: "zeros", or "torch", uniform within 1 / sqrt(fan_in).
    """

    features: int
    dtype: Dtype = jnp.float32
    kernel_init: Initializer = nn.initializers.lecun_normal()
    initial_bias: Literal["zeros", "torch"] = "zeros"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [..., in] to [..., out]."""
        kernel = given_or_made(self, "kernel", self.kernel_init, (x.shape[-1], self.features))
        return self.shift(self.multiply(x.astype(self.dtype), kernel.astype(self.dtype)))

    def multiply(self, x: jax.Array, kernel: jax.Array) -> jax.Array:
        """The product alone, without the bias; of a packed kernel by its blocks."""
        if self.has_variable(COLLECTION, TABLE):
            return block_product(x, kernel, self.get_variable(COLLECTION, TABLE))
        return fast.dense(x, kernel)

    def shift(self, y: jax.Array) -> jax.Array:
        """Adds the bias."""
        return y + given_or_made(self, "bias", bias_init(self), (self.features,)).astype(self.dtype)


class BatchNorm(nn.Module):
    """Batch normalisation over batch and space with PyTorch's meaning of every number.

    Normalises with the batch's biased variance; the running variance is fed the unbiased one.

    Args:
      momentum: share of the running statistics that survives a step (torch's `momentum=0.1` is 0.9
        here).
      eps: added to the variance.
      dtype: dtype of the output; statistics are always float32.

    References:
      Ioffe and Szegedy 2015, arXiv:1502.03167, algorithm 1.
    """

    momentum: float = 0.9
    eps: float = 1e-5
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Maps [B, H, W, C] to the same shape.

        With `train` it uses the batch's statistics and updates the running ones.
        """
        features = x.shape[-1]
        scale = self.param("scale", nn.initializers.ones_init(), (features,))
        bias = self.param("bias", nn.initializers.zeros_init(), (features,))
        mean = self.variable("batch_stats", "mean", jnp.zeros, (features,))
        var = self.variable("batch_stats", "var", jnp.ones, (features,))
        if not train:
            factor = lax.rsqrt(var.value + self.eps) * scale
            return (x * factor + (bias - mean.value * factor)).astype(self.dtype)
        y, batch_mean, batch_var = fast.batch_norm(x.astype(self.dtype), scale, bias, self.eps)
        if not self.is_initializing():
            count = x.size // features
            unbiased = batch_var * (count / max(count - 1, 1))
            mean.value = self.momentum * mean.value + (1 - self.momentum) * batch_mean
            var.value = self.momentum * var.value + (1 - self.momentum) * unbiased
        return y
