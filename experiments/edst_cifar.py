"""EDST ensemble on CIFAR (or, as a demo, on digits): several sparse tickets from one training run.

Paper: Liu et al., Deep Ensembling with No Overhead for either Training or Testing, ICLR 2022,
arXiv:2106.14568.

    python experiments/edst_cifar.py --preset demo  # digits, about a minute on two CPU cores
    python experiments/edst_cifar.py --preset small --data-dir DIR --compare-dense
    python experiments/edst_cifar.py --preset paper --cost  # what it would take
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
    """An EDST ensemble: explore, then refine, collect and escape, once per member."""

    preset: cifar.Preset = "demo"
    """What the other flags start from. demo: digits, no download, a minute. small: CIFAR-10 on a
    CPU. paper: as published.
    """
    members: Annotated[int, Members] = 3
    """Tickets that come out of the run."""
    explore: Annotated[float, Epochs] = 150
    """Epochs of exploration at the large learning rate; 0 for none."""
    refine: Annotated[float, Epochs] = 100
    """Epochs of each refinement."""
    lr: Annotated[float, Rate] = 0.1
    """Learning rate of the exploration."""
    refine_lr: Annotated[tuple[float, float], Rate] = (0.01, 0.001)
    """Learning rates of the first and second half of a refinement."""
    escape: float = 0.8
    """Drop fraction q of the global exploration between refinements."""

    @property
    def name(self) -> str:
        """The method's name as run folders have it."""
        return "edst"

    def plan(self) -> Plan:
        """The plan that the flags name."""
        return jt.edst(**self.own(), **self.shared())


PAPER = Config(preset="paper")
DEMO = cifar.demo_network(
    dataclasses.replace(
        PAPER,
        members=5,
        sparsity=0.95,
        explore=6,
        refine=5,
        refine_lr=(0.05, 0.005),
        update_every=25,
    )
)
SMALL = cifar.small_network(
    dataclasses.replace(
        PAPER, explore=20, refine=10, lr=0.02, refine_lr=(0.004, 0.0004), update_every=500
    )
)
PRESETS = {"demo": DEMO, "small": SMALL, "paper": PAPER}

if __name__ == "__main__":
    running.main(PRESETS, __doc__)
