"""The LeNet-5 variants of Prune and Tune."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxtickets.messages import checks
from jaxtickets.models import fast
from jaxtickets.models.layers import TORCH_INIT, Conv, Dense, Initial, check_fields, check_images

WIDTHS = {"S": (16, 32, 256, 128), "M": (32, 64, 512, 256), "L": (64, 128, 1024, 512)}


class LeNet(nn.Module):
    """Two 5x5 convolutions with ReLU and 2x2 max-pooling, two hidden dense layers, a classifier.

    On 32x32x3 images with 10 classes S, M and L have 253,290, 1,007,306 and 4,017,546 parameters,
    as in the paper.

    Args:
      size: "S", "M", "L", or four widths (conv1, conv2, dense1, dense2).
      num_classes: C.
      dropout: share of activations dropped after every convolution and hidden dense layer while
        training; the dropout baseline of the paper uses 0.5.
      dtype: computation dtype; parameters and logits are float32.
      initial: how weights are drawn: "lecun" (normal, variance 1 / fan_in, biases 0), or "torch",
        PyTorch's default, which the paper's code leaves as it is: kernels and biases uniform within
        1 / sqrt(fan_in). With Adam the latter learns markedly faster.

    Raises:
      ValueError: for an unknown size or initial, a rate outside [0, 1), or (when called) images
        smaller than 16x16.

    >>> import jax, jax.numpy as jnp
    >>> model = LeNet("S")
    >>> key, x = jax.random.key(0), jnp.zeros((1, 32, 32, 3))
    >>> variables = jax.eval_shape(lambda: model.init(key, x, train=False))
    >>> sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
    253290

    References:
      Whitaker and Whitley 2022, "Prune and Tune Ensembles", arXiv:2202.11782; LeCun et al. 1998.
    """

    size: str | Sequence[int] = "S"
    num_classes: int = 10
    dropout: float = 0.0
    dtype: Any = jnp.float32
    initial: Initial = "lecun"

    def __post_init__(self):
        check_fields(self)
        if not isinstance(self.initial, str) or self.initial not in get_args(Initial):
            raise ValueError(f'LeNet: initial must be "lecun" or "torch", got {self.initial!r}.')
        if isinstance(self.size, str):
            if self.size not in WIDTHS:
                raise ValueError(
                    f'LeNet: size must be "S", "M", "L" or four widths, got {self.size!r}.'
                )
        else:
            size = (
                checks.plain(tuple(self.size))
                if isinstance(self.size, Sequence | np.ndarray)
                else ()
            )
            if len(size) != 4 or not all(
                checks.is_int(width) and 1 <= width <= checks.LONGEST for width in size
            ):
                shown_size = checks.shown(self.size)
                raise ValueError(
                    "LeNet: size needs four positive widths (conv1, conv2, dense1, dense2), got"
                    f" {shown_size}."
                )
            self.size = size
        super().__post_init__()

    @property
    def stages(self) -> tuple[str, ...]:
        """Names of the network's stages in order; each can be run on its own."""
        return ("conv1", "conv2", "dense1", "dense2", "classifier")

    @nn.compact
    def __call__(self, x: jax.Array, train: bool, stages: Sequence[str] | None = None) -> jax.Array:
        """Maps images [B, H, W, channels] to logits [B, C], float32.

        With `stages`, what comes into them to what comes out.
        """
        stages = self.stages if stages is None else stages
        if stages[0] == "conv1":
            _check_size(x)
        widths = dict(
            zip(self.stages, WIDTHS[self.size] if isinstance(self.size, str) else self.size)
        )
        initial: dict[str, Any] = (
            {"kernel_init": TORCH_INIT, "initial_bias": "torch"} if self.initial == "torch" else {}
        )
        for stage in stages:
            if stage == "classifier":
                return Dense(self.num_classes, dtype=self.dtype, **initial, name=stage)(x).astype(
                    jnp.float32
                )
            if stage.startswith("conv"):
                x = Conv(
                    widths[stage], 5, padding="VALID", dtype=self.dtype, **initial, name=stage
                )(x)
                x = fast.max_pool_2x2(nn.relu(x))
            else:
                x = x.reshape(x.shape[0], -1)
                x = nn.relu(Dense(widths[stage], dtype=self.dtype, **initial, name=stage)(x))
            x = nn.Dropout(
                self.dropout, deterministic=not train, name=f"Dropout_{self.stages.index(stage)}"
            )(x)
        return x


def _check_size(x: jax.Array) -> None:
    check_images(x, "LeNet")
    if min(x.shape[1:3]) < 16:
        raise ValueError(
            "LeNet: x must be at least 16x16 pixels (two valid 5x5 convolutions, each pooled), got"
            f" {x.shape[1]}x{x.shape[2]}. Pad or resize the images, or use WideResNet, which takes"
            " any size."
        )
