"""DST ensemble on CIFAR (or, as a demo, on digits): sparse networks from scratch.

Each grows a mask of its own.

Paper: Liu et al., Deep Ensembling with No Overhead for either Training or Testing, ICLR 2022,
arXiv:2106.14568.

    python experiments/dst_cifar.py --preset demo
    python experiments/dst_cifar.py --preset small --data-dir DIR
    python experiments/dst_cifar.py --preset paper --cost
"""

from __future__ import annotations

import dataclasses
from typing import Annotated

from support import cifar, running
from support.flags import Epochs, Members, Rate

import jaxtickets as jt
from jaxtickets.plan import Plan


@dataclasses.dataclass(frozen=True)
class Config(cifar.EvolvingConfig):
    """A DST ensemble: every member explores weights and masks on its own."""

    preset: cifar.Preset = "demo"
    """What the other flags start from. demo: digits, no download, a minute. small: CIFAR-10 on a
    CPU. paper: as published.
    """
    members: Annotated[int, Members] = 3
    """Networks, each with its own weights, mask and data order."""
    epochs: Annotated[float, Epochs] = 250
    """Epochs of each member."""
    lr: Annotated[float, Rate] = 0.1
    """First learning rate; a tenth after half of the training, a hundredth after three quarters."""
    end: float = 1.0
    """Share of the training after which the mask stays (RigL: 0.75)."""

    @property
    def name(self) -> str:
        """The method's name as run folders have it."""
        return "dst"

    def plan(self) -> Plan:
        """The plan that the flags name."""
        return jt.dst(**self.own() | {"lr": cifar.steps(self.lr)}, **self.shared())


PAPER = Config(preset="paper")
DEMO = cifar.demo_network(dataclasses.replace(PAPER, epochs=12, update_every=25))
SMALL = cifar.small_network(dataclasses.replace(PAPER, epochs=30, lr=0.02, update_every=500))
PRESETS = {"demo": DEMO, "small": SMALL, "paper": PAPER}

if __name__ == "__main__":
    running.main(PRESETS, __doc__)
