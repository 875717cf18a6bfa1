"""TreeNet: a trunk that all members share, and a branch for each."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxtickets.models.heads import Heads
from jaxtickets.models.modes import linen_mode


class TreeNet(Heads):
    """A network whose last layers are there `members` times, on one trunk.

    Each branch has its own cross-entropy; the loss of an example is their sum, so a branch learns
    as a lone network does, and the trunk's gradient is the sum of the branches'. (The alternative,
    their mean, would give the trunk a lone network's gradient and each branch an M-th of one.)
    Params are `trunk/...` and `branch0/...`, `branch1/...`, with the network's own names below.

    Args:
      net: a `WideResNet`, `ResNet` or `LeNet`; any Linen module with `stages` (names in order)
        that runs some of them when called with `stages=`.
      members: M, how many branches.
      branch_at: the stage that the branches begin with; by default the one after three quarters of
        the stages. For WRN-28-10 that is "group3_block2": with M = 3 a training step, and a
        prediction, is 1.54x of the plain network's (1.68x from "group3_block1", 1.36x from
        "group3_block3").

    Raises:
      TypeError: if `net` has no stages.
      ValueError: if `branch_at` is not a stage after the first.

    >>> from jaxtickets.models import WideResNet
    >>> TreeNet(WideResNet(28, 10), members=3).branches_at
    'group3_block2'

    References:
      Lee et al. 2015, "Why M Heads are Better than One", arXiv:1511.06314, section 3.

    Differs:
      Where the papers' TreeNet of 1.52x branches is not said; no block of WRN-28-10 gives 1.52x
      exactly. The paper also trains the *mean prediction* of the branches (an ensemble-aware loss);
      that is not built here.
    """

    branch_at: str | None = None

    over = "sum"

    def __post_init__(self):
        super().__post_init__()
        stages = getattr(self.net, "stages", None)
        if stages is None:
            raise TypeError(
                "TreeNet: net must have stages, as WideResNet, ResNet and LeNet do, got"
                f" {type(self.net).__name__}."
            )
        if not isinstance(self.branches_at, str) or self.branches_at not in stages[1:]:
            raise ValueError(
                f"TreeNet: branch_at must be one of {', '.join(stages[1:])}, got"
                f" {self.branch_at!r}."
            )

    @property
    def branches_at(self) -> str:
        """The name of the stage that the branches begin with."""
        return (
            self.net.stages[3 * len(self.net.stages) // 4]
            if self.branch_at is None
            else self.branch_at
        )

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Maps images [B, H, W, channels] to logits [M, B, C], float32."""
        stages = self.net.stages
        branch_stage = stages.index(self.branches_at)
        mode = linen_mode(self.net, train)
        x = self.net.clone(parent=self, name="trunk")(x, **mode, stages=stages[:branch_stage])
        # One after another and not vmapped: each branch has kernels of its own, and masks and FLOPs
        # see each by its name.
        return jnp.stack(
            [
                self.net.clone(parent=self, name=f"branch{i}")(
                    x, **mode, stages=stages[branch_stage:]
                )
                for i in range(self.members)
            ]
        )
