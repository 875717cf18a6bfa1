"""Networks that give several predictions of an example, and what `classification` needs of them.

Each is a Linen module around a plain network of this package, which keeps its own code:
`TreeNet(WideResNet(28, 10), 3)`.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxtickets.messages import checks

PyTree = Any


class Heads(nn.Module):
    """Base of the networks with several heads.

    In evaluation it gives logits [M, B, C]. In training it may also give logits [B, C] that all
    heads share, or, where the heads see other examples than each other, `{"logits": [M, R B, C],
    "rows": [M, R B]}`: the head's logits, and the examples that they are of, each R times.

    Args:
      net: the plain network.
      members: M, how many predictions it makes of each example, at least 2.

    Raises:
      TypeError: if `net` is not a Linen module, or has several heads itself.
      ValueError: for fewer than two members.
    """

    net: nn.Module
    members: int

    over: ClassVar[Literal["sum", "mean"]] = "mean"
    """How the loss of an example is made of its heads' losses."""

    def __post_init__(self):
        kind = type(self).__name__
        checks.plain_fields(self)
        if not isinstance(self.net, nn.Module) or isinstance(self.net, Heads):
            raise TypeError(
                f"{kind}: net must be a plain Linen network, such as WideResNet(28, 10), got"
                f" {self.net!r:.80}."
            )
        if not checks.is_int(self.members) or not 2 <= self.members <= checks.MOST:
            raise ValueError(
                f"{kind}: members must be an integer of at least 2, got"
                f" {checks.shown(self.members)}. One member is the network itself."
            )
        super().__post_init__()

    @property
    def num_classes(self) -> int | None:
        """The number of classes, C."""
        return getattr(self.net, "num_classes", None)

    @property
    def repetition(self) -> int:
        """How many times training shows an example to each head, R."""
        return 1


def by_example(outputs: PyTree, repetition: int = 1) -> jax.Array:
    """Logits as [M, B, R, C], sorted by the example that they are of.

    M is 1 where the heads share one prediction.

    >>> logits = jnp.arange(4.0).reshape(1, 4, 1)
    >>> outputs = {"logits": logits, "rows": jnp.array([[1, 0, 1, 0]])}
    >>> by_example(outputs, repetition=2)[0, :, :, 0].tolist()
    [[1.0, 3.0], [0.0, 2.0]]
    """
    if isinstance(outputs, dict):
        order = jnp.argsort(outputs["rows"], axis=-1)
        logits = jnp.take_along_axis(outputs["logits"], order[..., None], axis=1)
        return logits.reshape(logits.shape[0], -1, repetition, logits.shape[-1])
    return (outputs[None] if outputs.ndim == 2 else outputs)[:, :, None]
