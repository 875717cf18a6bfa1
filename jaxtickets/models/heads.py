"""Networks that give several predictions of an example: what `classification` asks of them, and how they are built.

Each is a Linen module around a plain network of this package, which keeps its own code: `TreeNet(WideResNet(28, 10), 3)`.
"""

from __future__ import annotations

import functools
import inspect
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn

PyTree = Any


class Heads(nn.Module):
    """Base of the networks with several heads.

    In evaluation it gives logits [M, B, C]. In training it may also give logits [B, C] that all heads share, or, where
    the heads see other examples than each other, `{"logits": [M, R B, C], "rows": [M, R B]}`: the head's logits, and the
    examples that they are of, each R times.

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
        if not isinstance(self.net, nn.Module) or isinstance(self.net, Heads):
            raise TypeError(f"{kind}: net must be a plain Linen network, such as WideResNet(28, 10), got {self.net!r:.80}.")
        if isinstance(self.members, bool) or not isinstance(self.members, int) or self.members < 2:
            raise ValueError(f"{kind}: members must be an integer of at least 2, got {self.members!r}. One member is the network itself.")
        super().__post_init__()

    @property
    def num_classes(self) -> int | None:
        """C."""
        return getattr(self.net, "num_classes", None)

    @property
    def repetition(self) -> int:
        """R, how many times training shows an example to each head."""
        return 1


def by_example(outputs: PyTree, repetition: int = 1) -> jax.Array:
    """Logits as [M, B, R, C], sorted by the example that they are of; M is 1 where the heads share one prediction.

    >>> logits = jnp.arange(4.0).reshape(1, 4, 1)
    >>> by_example({"logits": logits, "rows": jnp.array([[1, 0, 1, 0]])}, repetition=2)[0, :, :, 0].tolist()
    [[1.0, 3.0], [0.0, 2.0]]
    """
    if isinstance(outputs, dict):
        order = jnp.argsort(outputs["rows"], axis=-1)
        logits = jnp.take_along_axis(outputs["logits"], order[..., None], axis=1)
        return logits.reshape(logits.shape[0], -1, repetition, logits.shape[-1])
    return (outputs[None] if outputs.ndim == 2 else outputs)[:, :, None]


@functools.lru_cache(maxsize=128)
def _mode_argument(kind: type[nn.Module]) -> str | None:
    names = inspect.signature(kind.__call__).parameters
    return next((name for name in ("train", "deterministic") if name in names), None)


def linen_mode(model: nn.Module, train: bool) -> dict[str, Any]:
    """The argument that tells a Linen module whether it trains: `train`, `deterministic` or none."""
    argument = _mode_argument(type(model))
    return {} if argument is None else {argument: train if argument == "train" else not train}
