"""Densely connected networks (DenseNet)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxtickets.messages import checks
from jaxtickets.models import fast
from jaxtickets.models.layers import (
    CONV_INIT,
    BatchNorm,
    Conv,
    Dense,
    Stem,
    check_count,
    check_fields,
    check_images,
    check_stem,
)

BLOCKS = {121: (6, 12, 24, 16), 161: (6, 12, 36, 24), 169: (6, 12, 32, 32), 201: (6, 12, 48, 32)}


class Layer(nn.Module):
    """A 1x1 convolution to 4 `growth` channels and a 3x3 one to `growth`, put beside the input.

    BN and ReLU stand before each.
    """

    growth: int
    dropout: float
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Maps [B, H, W, in] to [B, H, W, in + growth]."""
        y = x
        for i, (features, size) in enumerate(((4 * self.growth, 1), (self.growth, 3)), 1):
            y = nn.relu(BatchNorm(dtype=self.dtype, name=f"bn{i}")(y, train))
            y = Conv(
                features,
                size,
                use_bias=False,
                dtype=self.dtype,
                kernel_init=CONV_INIT,
                name=f"conv{i}",
            )(y)
            y = nn.Dropout(self.dropout, deterministic=not train)(y)
        return jnp.concatenate([x, y], -1)


class Transition(nn.Module):
    """BN-ReLU-1x1 convolution to `features` channels, 2x2 mean."""

    features: int
    dropout: float
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Maps [B, H, W, in] to [B, H // 2, W // 2, features]."""
        x = nn.relu(BatchNorm(dtype=self.dtype, name="bn")(x, train))
        x = Conv(
            self.features, 1, use_bias=False, dtype=self.dtype, kernel_init=CONV_INIT, name="conv"
        )(x)
        return fast.avg_pool_2x2(nn.Dropout(self.dropout, deterministic=not train)(x))


class DenseNet(nn.Module):
    """DenseNet-BC: blocks of layers that each add `growth` channels.

    Between blocks half the channels and half the side remain.

    DenseNet-121 for CIFAR-10 has 6,956,298 parameters, with 1000 classes and the ImageNet stem
    7,978,856.

    Args:
      depth: 121, 169, 201, 161 (which has `growth=48`), or the numbers of layers in the blocks:
        (16, 16, 16) is depth 100.
      growth: k, the channels that a layer adds; the stem has 2k.
      num_classes: C.
      stem: "cifar", a 3x3 convolution, or "imagenet", a 7x7 convolution with stride 2, BN, ReLU and
        a 3x3 max-pool with stride 2.
      dropout: share of activations dropped while training: of every convolution, and of what the
        classifier reads. The dropout baseline of Prune and Tune uses 0.5.
      dtype: computation dtype; parameters, batch statistics and logits are float32.

    Raises:
      ValueError: for another depth or stem, a growth or block below 1, a rate outside [0, 1), or
        (when called) images that the transitions halve to nothing.

    >>> import jax, jax.numpy as jnp
    >>> model = DenseNet(121)
    >>> key, x = jax.random.key(0), jnp.zeros((1, 32, 32, 3))
    >>> variables = jax.eval_shape(lambda: model.init(key, x, train=False))
    >>> sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
    6956298

    References:
      Huang et al. 2017, "Densely Connected Convolutional Networks", arXiv:1608.06993, table 1.
      Whitaker and Whitley 2022, "Prune and Tune Ensembles", arXiv:2202.11782 (dropout).
      Initialisation of the convolutions N(0, 2 / (k^2 out)).

    Differs:
      Dropout follows the stem's convolution too, and comes before the classifier once more (Huang
      et al. leave both out).
    """

    depth: int | Sequence[int] = 121
    growth: int = 32
    num_classes: int = 10
    stem: Stem = "cifar"
    dropout: float = 0.0
    dtype: Any = jnp.float32

    def __post_init__(self):
        check_fields(self)
        if isinstance(self.depth, list):
            self.depth = tuple(self.depth)
        blocks = (
            BLOCKS.get(self.depth)
            if isinstance(self.depth, int) and not isinstance(self.depth, bool)
            else self.depth
        )
        # each halves the side
        layer_counts = blocks if isinstance(blocks, tuple) and len(blocks) <= 30 else ()
        if not layer_counts or not all(
            checks.is_int(layers) and 0 < layers <= checks.MOST for layers in layer_counts
        ):
            allowed = ", ".join(map(str, BLOCKS))
            raise ValueError(
                f"DenseNet: depth must be one of {allowed}, or layers per block as (6, 12, 24, 16),"
                f" got {checks.shown(self.depth)}."
            )
        check_count(self, "growth", " (32 is usual)", checks.MOST)
        check_stem(self.stem, "DenseNet")
        super().__post_init__()

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Maps images [B, H, W, channels] to logits [B, C], float32."""
        check_images(x, "DenseNet")
        blocks = BLOCKS[self.depth] if isinstance(self.depth, int) else self.depth
        cifar = self.stem == "cifar"
        smallest = 2 ** (len(blocks) - 1) if cifar else 4 * 2 ** (len(blocks) - 1) - 3
        if min(x.shape[1:3]) < smallest:
            raise ValueError(
                f"DenseNet: x must be at least {smallest}x{smallest} pixels ({len(blocks)} blocks,"
                f" each half the side of the one before), got {x.shape[1]}x{x.shape[2]}. Resize the"
                " images, " + ("or give fewer blocks." if cifar else 'or write stem="cifar".')
            )
        channels = 2 * self.growth  # counted here: a network from which channels were cut has fewer
        size, strides = (3, 1) if cifar else (7, 2)
        x = Conv(
            channels,
            size,
            strides,
            use_bias=False,
            dtype=self.dtype,
            kernel_init=CONV_INIT,
            name="conv",
        )(x)
        if not cifar:
            x = fast.max_pool_3x3(nn.relu(BatchNorm(dtype=self.dtype, name="stem_bn")(x, train)))
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        for block, layers in enumerate(blocks, 1):
            for layer in range(1, layers + 1):
                x = Layer(self.growth, self.dropout, self.dtype, name=f"block{block}_layer{layer}")(
                    x, train
                )
            channels += layers * self.growth
            if block < len(blocks):
                channels //= 2
                x = Transition(channels, self.dropout, self.dtype, name=f"transition{block}")(
                    x, train
                )
        x = nn.relu(BatchNorm(dtype=self.dtype, name="bn")(x, train))
        x = jnp.mean(x, (1, 2), dtype=jnp.float32)
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return Dense(self.num_classes, name="classifier")(x)
