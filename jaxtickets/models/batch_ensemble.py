"""BatchEnsemble: members that share every kernel but for a matrix of rank one."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxtickets import masks
from jaxtickets.models.heads import Heads
from jaxtickets.models.layers import Conv, Dense, given_or_made
from jaxtickets.models.modes import linen_mode


class BatchEnsemble(Heads):
    """A network whose members share kernels, each scaled by two vectors of the member.

    Member i's are the shared ones times `outer(fast_in[i], fast_out[i])`.

    Computed without writing those kernels out: `y_i = ((x_i * fast_in[i]) W) * fast_out[i] +
    bias[i]`, all members in one batch, in which every example is there M times, in training and in
    prediction. A layer's params are those of the plain network under the same names, `kernel`
    shared, `bias` [M, out], and the fast weights `fast_in` [M, in] and `fast_out` [M, out], random
    signs at first. Those are never pruned; their names are what a rule gives them a learning rate
    or weight decay of their own by.

    Batch norm is shared: its statistics are over the whole batch of all members, scale and bias are
    one. The loss is the mean of the members' cross-entropies.

    Args:
      net: the plain network, made of this package's `Conv` and `Dense`.
      members: M.

    Raises:
      ValueError: (when initialised) if a layer of another kind has a kernel.

    >>> import jax
    >>> from jaxtickets.models import LeNet
    >>> model = BatchEnsemble(LeNet("S"), members=4)
    >>> key, x = jax.random.key(0), jnp.zeros((1, 32, 32, 3))
    >>> variables = jax.eval_shape(lambda: model.init(key, x, train=False))
    >>> {name: leaf.shape for name, leaf in variables["params"]["classifier"].items()}
    {'bias': (4, 10), 'fast_in': (4, 128), 'fast_out': (4, 10), 'kernel': (128, 10)}

    References:
      Wen et al. 2020, arXiv:2002.06715, equations 1 to 5. Batch norm and loss as in the authors'
      code (uncertainty-baselines, `wide_resnet_batchensemble`), biases as in Edward2's
      `DenseBatchEnsemble`.
    """

    def setup(self):
        """Share the network's scope, so that no level is added to the params' paths."""
        nn.share_scope(self, self.net)

    def __call__(self, x: Any, train: bool) -> jax.Array:
        """Maps a batch of B examples to logits [M, B, C], float32."""
        # Copies of one example lie side by side, so that a batch sharded over devices stays where
        # it is.
        tiled = jax.tree.map(lambda a: jnp.repeat(a, self.members, axis=0), x)
        with nn.intercept_methods(functools.partial(_fast_weights, self.members)):
            logits = self.net(tiled, **linen_mode(self.net, train))
        if self.is_initializing():
            _check_kernels(self.variables["params"])
        return logits.reshape(-1, self.members, logits.shape[-1]).swapaxes(0, 1)


def _fast_weights(
    members: int,
    method: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    context: Any,
) -> Any:
    """Interceptor that scales a layer's inputs and outputs, and adds biases, by member."""
    layer, name = context.module, context.method_name
    if not isinstance(layer, Conv | Dense) or name not in ("multiply", "shift"):
        return method(*args, **kwargs)
    if name == "shift":
        (y,) = args
        return _by_member(
            jnp.add,
            y,
            given_or_made(layer, "bias", nn.initializers.zeros_init(), (members, y.shape[-1])),
        )
    x, kernel = args
    fast_in = given_or_made(layer, "fast_in", _signs, (members, kernel.shape[-2]))
    fast_out = given_or_made(layer, "fast_out", _signs, (members, kernel.shape[-1]))
    return _by_member(jnp.multiply, method(_by_member(jnp.multiply, x, fast_in), kernel), fast_out)


def _signs(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    return jax.random.rademacher(key, shape, jnp.float32)  # integers by default


def _by_member(
    operation: Callable[..., jax.Array], rows: jax.Array, weights: jax.Array
) -> jax.Array:
    """The `operation` on rows [B M, ..., C] and the weights [M, C] of each one's member."""
    by_member = rows.reshape(-1, len(weights), *rows.shape[1:])
    weights = weights.reshape(1, len(weights), *(1,) * (by_member.ndim - 3), -1)
    return operation(by_member, weights.astype(rows.dtype)).reshape(rows.shape)


def _check_kernels(params: Any) -> None:
    paths = set(masks.leaf_paths(params))
    missing = sorted(
        p
        for p in paths
        if p.rpartition("/")[2] == "kernel" and f"{p.removesuffix('kernel')}fast_in" not in paths
    )
    if missing:
        raise ValueError(
            f"BatchEnsemble: {missing[0]} is in a layer that gets no fast weights; build net of"
            " Conv and Dense of jaxtickets.models.layers."
        )
