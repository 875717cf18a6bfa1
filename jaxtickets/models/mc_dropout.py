"""MC dropout: a network with dropout, which is left on for prediction."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxtickets.models.heads import Heads
from jaxtickets.models.linen_task import streams
from jaxtickets.models.modes import linen_mode


class MCDropout(Heads):
    """A network that is trained as ever and predicts by `members` passes with dropout.

    Each pass has its own.

    Everything but dropout is in evaluation mode: batch norm uses its running statistics. Params,
    model state and training are those of `net`, to the bit.

    Which activations an example loses follows from `key` and the example's place in the batch:
    predictions are deterministic, and with another `batch_size` they are others. All passes are
    made at once; if memory is short, lower `batch_size` where you predict.

    Args:
      net: any Linen network with `flax.linen.Dropout` layers of a rate above 0; or one with a
        method `dropout_rate()` above 0, which says that its training differs from evaluation by
        dropout alone, as that of `TextClassifier`.
      members: M, how many passes.
      key: seed of the passes.

    Raises:
      ValueError: (when initialised) if `net` has no dropout.

    >>> from jaxtickets.models import LeNet, classification
    >>> classification(MCDropout(LeNet("L", dropout=0.5), members=8, key=0)).heads
    8

    References:
      Gal and Ghahramani 2016, arXiv:1506.02142, equation 6.
    """

    key: int

    def __post_init__(self):
        super().__post_init__()
        if isinstance(self.key, bool) or not isinstance(self.key, int) or not 0 <= self.key < 2**32:
            raise ValueError(f"MCDropout: key must be an integer in [0, 2^32), got {self.key!r}.")

    def setup(self):
        """Share the network's scope, so that no level is added to the params' paths."""
        nn.share_scope(self, self.net)

    def __call__(self, x: Any, train: bool) -> jax.Array:
        """Maps a batch of B examples to logits [M, B, C], float32.

        In training to [B, C], those of one pass.
        """
        if self.is_initializing():
            return self._look_for_dropout(x)
        if train:
            return self.net(x, **linen_mode(self.net, True))
        net, variables = self.net.clone(parent=None, name=None), self.variables
        # such a network has no layers that could be left on, nor needs them
        by_itself = _own_rate(net) > 0

        def one_pass(key: jax.Array) -> Any:
            with nn.intercept_methods(_leave_on):
                return net.apply(variables, x, rngs=streams(key), **linen_mode(net, by_itself))

        seed = jax.random.key(self.key, impl="threefry2x32")
        return jax.vmap(one_pass)(
            jax.vmap(jax.random.fold_in, (None, 0))(seed, jnp.arange(self.members))
        )

    def _look_for_dropout(self, x: Any) -> jax.Array:
        layers = []

        def look(
            method: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], context: Any
        ) -> Any:
            if isinstance(context.module, nn.Dropout) and context.module.rate > 0:
                layers.append(context.module)
            return method(*args, **kwargs)

        with nn.intercept_methods(look):
            out = self.net(x, **linen_mode(self.net, False))
        if not layers and not _own_rate(self.net):
            raise ValueError(
                "MCDropout: net has no dropout, so all passes would be equal. Write"
                f" {type(self.net).__name__}(..., dropout=0.3)."
            )
        return out


def _own_rate(net: nn.Module) -> float:
    """The dropout rate of a network whose dropout is no layer; 0 of others."""
    return net.dropout_rate() if hasattr(net, "dropout_rate") else 0.0


def _leave_on(
    method: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], context: Any
) -> Any:
    """Interceptor that runs dropout layers as in training, and everything else as it is."""
    layer = context.module
    if (
        not isinstance(layer, nn.Dropout)
        or context.method_name != "__call__"
        or layer.deterministic is False
    ):
        return method(*args, **kwargs)
    on = layer.clone(parent=None, name=None, deterministic=False)
    return on.apply(
        {},
        args[0] if args else kwargs["inputs"],
        rngs={layer.rng_collection: layer.make_rng(layer.rng_collection)},
    )
