"""Residual networks (ResNet)."""

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

BASIC = {10: (1, 1, 1, 1), 18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}
BOTTLENECK = {14: (1, 1, 1, 1), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}


class Block(nn.Module):
    """A residual block: two 3x3 convolutions and a shortcut.

    As a bottleneck a 1x1, a 3x3 and a 1x1 one with 4 times the channels.

    Every convolution is followed by BN, then ReLU; the last is first added to the shortcut. Where
    the shape changes the shortcut is a 1x1 convolution and BN. A bottleneck strides in its 3x3
    convolution.
    """

    features: int
    strides: int
    bottleneck: bool
    projects: bool
    dropout: float
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Maps [B, H, W, in] to [B, H / strides, W / strides, features].

        4 times as many features of a bottleneck.
        """

        def conv(x, features, size, strides, name, norm):
            x = Conv(
                features,
                size,
                strides,
                use_bias=False,
                dtype=self.dtype,
                kernel_init=CONV_INIT,
                name=name,
            )(x)
            x = BatchNorm(dtype=self.dtype, name=norm)(x, train)
            # the same before a ReLU as after it
            return nn.Dropout(self.dropout, deterministic=not train)(x)

        wide = 4 * self.features if self.bottleneck else self.features
        shortcut = conv(x, wide, 1, self.strides, "shortcut", "shortcut_bn") if self.projects else x
        if self.bottleneck:
            x = nn.relu(conv(x, self.features, 1, 1, "conv1", "bn1"))
            x = nn.relu(conv(x, self.features, 3, self.strides, "conv2", "bn2"))
            x = conv(x, wide, 1, 1, "conv3", "bn3")
        else:
            x = nn.relu(conv(x, self.features, 3, self.strides, "conv1", "bn1"))
            x = conv(x, wide, 3, 1, "conv2", "bn2")
        return nn.relu(shortcut + x)


class ResNet(nn.Module):
    """Residual network of four groups with 1, 2, 4 and 8 times `width` channels.

    Bottlenecks put out 4 times as many.

    Takes images of any size and number of channels. ResNet-18 for CIFAR-10 has 11,173,962
    parameters, ResNet-50 with 1000 classes and the ImageNet stem 25,557,032.

    Args:
      depth: 18 and 34 of basic blocks, 50, 101 and 152 of bottlenecks; 10 and 14 have one block in
        a group.
      num_classes: C.
      stem: "cifar", a 3x3 convolution, or "imagenet", a 7x7 convolution with stride 2 and a 3x3
        max-pool with stride 2.
      dropout: share of activations dropped while training: of every convolution, and of what the
        classifier reads. The dropout baseline of Prune and Tune uses 0.5.
      dtype: computation dtype; parameters, batch statistics and logits are float32.
      width: channels of the first group.

    Raises:
      ValueError: for another depth or stem, a width below 1, or a rate outside [0, 1).

    >>> import jax, jax.numpy as jnp
    >>> model = ResNet(18)
    >>> key, x = jax.random.key(0), jnp.zeros((1, 32, 32, 3))
    >>> variables = jax.eval_shape(lambda: model.init(key, x, train=False))
    >>> sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
    11173962

    References:
      He et al. 2016, "Deep Residual Learning for Image Recognition", arXiv:1512.03385, table 1.
      Whitaker and Whitley 2022, "Prune and Tune Ensembles", arXiv:2202.11782 (dropout).
      Initialisation of the convolutions N(0, 2 / (k^2 out)).

    Differs:
      A bottleneck strides in its 3x3 convolution and not in the first (Goyal et al. 2017,
      arXiv:1706.02677), shortcuts that change shape are projections (option B) for CIFAR too, and
      the CIFAR form has the widths of the ImageNet form, not those of the paper's section 4.2.
      Dropout on a convolution without a ReLU of its own is applied before the sum with the
      shortcut.
    """

    depth: int
    num_classes: int = 10
    stem: Stem = "cifar"
    dropout: float = 0.0
    dtype: Any = jnp.float32
    width: int = 64

    def __post_init__(self):
        check_fields(self)
        allowed = sorted([*BASIC, *BOTTLENECK])
        if not checks.is_int(self.depth) or self.depth not in allowed:
            depths, shown_depth = ", ".join(map(str, allowed)), checks.shown(self.depth)
            raise ValueError(
                f"ResNet: depth must be one of {depths}, got {shown_depth}. For CIFAR write"
                " ResNet(18)."
            )
        check_stem(self.stem, "ResNet")
        check_count(self, "width", " (64 is usual)", checks.MOST)
        super().__post_init__()

    @property
    def stages(self) -> tuple[str, ...]:
        """Names of the network's stages in order; each can be run on its own.

        "conv" ends with the stem's max-pool, where there is one.
        """
        return ("conv", *self._blocks, "classifier")

    @property
    def _blocks(self) -> dict[str, tuple[int, int]]:
        counts = BOTTLENECK[self.depth] if self.depth in BOTTLENECK else BASIC[self.depth]
        return {
            f"group{group}_block{block}": (group, block)
            for group, blocks in enumerate(counts, 1)
            for block in range(1, blocks + 1)
        }

    @nn.compact
    def __call__(self, x: jax.Array, train: bool, stages: Sequence[str] | None = None) -> jax.Array:
        """Maps images [B, H, W, channels] to logits [B, C], float32.

        With `stages`, what comes into them to what comes out.
        """
        check_images(x, "ResNet")
        bottleneck = self.depth in BOTTLENECK
        for stage in self.stages if stages is None else stages:
            if stage == "conv":
                x = self._stem(x, train)
            elif stage == "classifier":
                x = jnp.mean(x, (1, 2), dtype=jnp.float32)
                x = nn.Dropout(self.dropout, deterministic=not train)(x)
                x = Dense(self.num_classes, name="classifier")(x)
            else:
                group, block = self._blocks[stage]
                strides = 2 if group > 1 and block == 1 else 1
                features = self.width * 2 ** (group - 1)
                projects = block == 1 and (group > 1 or bottleneck)
                x = Block(
                    features, strides, bottleneck, projects, self.dropout, self.dtype, name=stage
                )(x, train)
        return x

    def _stem(self, x: jax.Array, train: bool) -> jax.Array:
        size, strides = (3, 1) if self.stem == "cifar" else (7, 2)
        x = Conv(
            self.width,
            size,
            strides,
            use_bias=False,
            dtype=self.dtype,
            kernel_init=CONV_INIT,
            name="conv",
        )(x)
        x = nn.relu(BatchNorm(dtype=self.dtype, name="bn")(x, train))
        if self.stem == "imagenet":
            x = fast.max_pool_3x3(x)
        return nn.Dropout(self.dropout, deterministic=not train)(x)
