"""MIMO: one network that learns to tell several inputs apart that it is shown at once."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxtickets.messages import checks
from jaxtickets.models.heads import Heads
from jaxtickets.models.modes import linen_mode


class MIMO(Heads):
    """A network that takes M images, stacked on the channel axis, and classifies each.

    Each has a head of its own.

    In training every head sees the batch `batch_repetition` times over in an order of its own, so
    the M images of a row have nothing to do with each other, and subnetworks form that each look at
    one. In prediction all M images are the same one, and the heads' answers are an ensemble's.

    The loss of a row is the sum of its heads' cross-entropies; the loss of an example is the mean
    over its R appearances of the sum over heads, so that its mean over the batch is the mean over
    rows.

    In training the outputs are `{"logits": [M, R B, C], "rows": [M, R B]}`: the example that each
    logit is of.

    Args:
      net: the plain network; it is built with M times its classes, and takes M times the channels.
      members: M.
      batch_repetition: R, how many times a training step shows an example to each head. A step is R
        times as dear.
      input_repetition: rho, the share of rows in which all heads see the same example: 0 on CIFAR,
        0.6 on ImageNet.

    Raises:
      TypeError: if `net` has no `num_classes`.
      ValueError: if `batch_repetition` is below 1 or `input_repetition` outside [0, 1].

    >>> import jax
    >>> from jaxtickets.models import WideResNet
    >>> model = MIMO(WideResNet(28, 10), members=3)
    >>> key, x = jax.random.key(0), jnp.zeros((1, 32, 32, 3))
    >>> variables = jax.eval_shape(lambda: model.init(key, x, train=False))
    >>> params = variables["params"]
    >>> params["conv"]["kernel"].shape, params["classifier"]["kernel"].shape
    ((3, 3, 9, 16), (640, 30))

    References:
      Havasi et al. 2021, arXiv:2010.06610, sections 2 and 4. As in the authors' code
      (uncertainty-baselines, `mimo.py`) the repeated rows are an exact share and not drawn one by
      one.

    Differs:
      The authors divide the batch of the plain network by R, so that a step costs the same and
      there are R times as many; here `Plan.batch_size` is the number of different examples.
    """

    batch_repetition: int = 4
    input_repetition: float = 0.0

    over = "sum"

    def __post_init__(self):
        super().__post_init__()
        if self.num_classes is None or "num_classes" not in [
            field.name for field in dataclasses.fields(self.net)
        ]:
            raise TypeError(
                "MIMO: net must have num_classes, for there are M times as many outputs, got"
                f" {type(self.net).__name__}. Give it a field, num_classes: int = 10, and end it"
                " with as many outputs."
            )
        if (
            isinstance(self.batch_repetition, bool)
            or not isinstance(self.batch_repetition, int)
            or self.batch_repetition < 1
        ):
            raise ValueError(
                "MIMO: batch_repetition must be an integer of at least 1, got"
                f" {self.batch_repetition!r}."
            )
        if not checks.is_fraction(self.input_repetition):
            raise ValueError(
                "MIMO: input_repetition must be in [0, 1], got"
                f" {checks.shown(self.input_repetition)}."
            )

    @property
    def repetition(self) -> int:
        """How many times training shows an example to each head, R."""
        return self.batch_repetition

    def setup(self):
        """Build the network with M times its classes, and keep its paths."""
        self.wide = self.net.clone(parent=None, num_classes=self.members * self.net.num_classes)
        nn.share_scope(self, self.wide)

    def __call__(self, x: jax.Array, train: bool) -> jax.Array | dict[str, jax.Array]:
        """Maps images [B, H, W, channels] to logits [M, B, C], float32; in training see above."""
        x = jnp.asarray(x)
        if not train:
            return self._heads(jnp.concatenate([x] * self.members, -1), train)
        rows = training_rows(
            self.make_rng("dropout"),
            len(x),
            self.members,
            self.batch_repetition,
            self.input_repetition,
        )
        return {
            "logits": self._heads(jnp.concatenate([x[row] for row in rows], -1), train),
            "rows": rows,
        }

    def _heads(self, stacked: jax.Array, train: bool) -> jax.Array:
        logits = self.wide(stacked, **linen_mode(self.wide, train))
        return logits.reshape(len(logits), self.members, -1).swapaxes(0, 1)


def training_rows(
    key: jax.Array, examples: int, members: int, repetition: int, repeated: float
) -> jax.Array:
    """Which example each head sees in each row of a training step, int32 [M, R B].

    Each head's rows are all examples R times, in an order of its own, but for the last
    `round(repeated R B)` rows, which are the same for all heads.
    """
    shared_key, *head_keys = jax.random.split(key, members + 1)
    rows = jax.random.permutation(
        shared_key, jnp.tile(jnp.arange(examples, dtype=jnp.int32), repetition)
    )
    own_count = len(rows) - round(repeated * len(rows))
    return jnp.stack(
        [
            jnp.concatenate([jax.random.permutation(k, rows[:own_count]), rows[own_count:]])
            for k in head_keys
        ]
    )
