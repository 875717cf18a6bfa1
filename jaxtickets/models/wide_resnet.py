"""Wide residual networks (WideResNet)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxtickets.messages import checks
from jaxtickets.models.layers import (
    CONV_INIT,
    BatchNorm,
    Conv,
    Dense,
    check_count,
    check_fields,
    check_images,
)


class Block(nn.Module):
    """A pre-activation residual block: BN-ReLU-conv, BN-ReLU-conv and a shortcut.

    Where the width changes the shortcut is a 1x1 convolution of the pre-activated input.
    """

    features: int
    strides: int
    projects: bool
    dropout: float
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Maps [B, H, W, in] to [B, H / strides, W / strides, features]."""

        def conv(size, strides, name):
            return Conv(
                self.features,
                size,
                strides,
                use_bias=False,
                dtype=self.dtype,
                kernel_init=CONV_INIT,
                name=name,
            )

        y = nn.relu(BatchNorm(dtype=self.dtype, name="bn1")(x, train))
        if self.projects:
            x = conv(1, self.strides, "shortcut")(y)
        y = conv(3, self.strides, "conv1")(y)
        y = nn.relu(BatchNorm(dtype=self.dtype, name="bn2")(y, train))
        y = nn.Dropout(self.dropout, deterministic=not train)(y)
        return x + conv(3, 1, "conv2")(y)


class WideResNet(nn.Module):
    """WRN-depth-width, a pre-activation residual network.

    Three groups with 16, 32 and 64 times `width` channels.

    Takes images of any size and number of channels. WRN-28-10 has 36.5 M parameters.

    Args:
      depth: d = 6n + 4 convolutions deep, n blocks in a group.
      width: k, the widening factor.
      num_classes: C.
      dropout: share of activations dropped between the two convolutions of a block while training.
      dtype: computation dtype; parameters, batch statistics and logits are float32.

    Raises:
      ValueError: for a depth that is not 6n + 4, a width below 1, or a rate outside [0, 1).

    >>> import jax, jax.numpy as jnp
    >>> model = WideResNet(10, 1)
    >>> key, x = jax.random.key(0), jnp.zeros((1, 8, 8, 1))
    >>> variables = jax.eval_shape(lambda: model.init(key, x, train=False))
    >>> sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
    77562

    References:
      Zagoruyko and Komodakis 2016, "Wide Residual Networks", arXiv:1605.07146, table 1.
      Initialisation of the convolutions N(0, 2 / (k^2 out)), as in the authors' code.
    """

    depth: int
    width: int
    num_classes: int = 10
    dropout: float = 0.0
    dtype: Any = jnp.float32

    def __post_init__(self):
        check_fields(self)
        if (
            not checks.is_int(self.depth)
            or self.depth < 10
            or (self.depth - 4) % 6
            or self.depth > checks.MOST
        ):
            below = (
                max(10, min(int(self.depth) - 4, checks.MOST) // 6 * 6 + 4)
                if checks.is_number(self.depth)
                else 28
            )
            raise ValueError(
                "WideResNet: depth must be 6n + 4 (10, 16, 22, 28, 40, ...), got"
                f" {checks.shown(self.depth)}. The nearest are {below} and {below + 6}."
            )
        check_count(self, "width", most=checks.MOST)
        super().__post_init__()

    @property
    def stages(self) -> tuple[str, ...]:
        """Names of the network's stages in order; each can be run on its own.

        "classifier" begins with the last norm.
        """
        return ("conv", *self._blocks, "classifier")

    @property
    def _blocks(self) -> dict[str, tuple[int, int]]:
        return {
            f"group{group}_block{block}": (group, block)
            for group in (1, 2, 3)
            for block in range(1, (self.depth - 4) // 6 + 1)
        }

    @nn.compact
    def __call__(self, x: jax.Array, train: bool, stages: Sequence[str] | None = None) -> jax.Array:
        """Maps images [B, H, W, channels] to logits [B, C], float32.

        With `stages`, what comes into them to what comes out.
        """
        check_images(x, "WideResNet")
        for stage in self.stages if stages is None else stages:
            if stage == "conv":
                x = Conv(
                    16, 3, use_bias=False, dtype=self.dtype, kernel_init=CONV_INIT, name="conv"
                )(x)
            elif stage == "classifier":
                x = nn.relu(BatchNorm(dtype=self.dtype, name="bn")(x, train))
                x = jnp.mean(x, (1, 2), dtype=jnp.float32)
                x = Dense(self.num_classes, name="classifier")(x)
            else:
                group, block = self._blocks[stage]
                strides = 2 if group > 1 and block == 1 else 1
                features = 16 * self.width * 2 ** (group - 1)
                projects = block == 1 and (group > 1 or self.width > 1)
                x = Block(features, strides, projects, self.dropout, self.dtype, name=stage)(
                    x, train
                )
        return x
