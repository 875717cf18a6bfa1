"""Prune and Tune on CIFAR (or, as a demo, on digits): random children of one trained parent.

Each child is cut at random from the parent, and tuned.

Paper: Whitaker and Whitley, Prune and Tune Ensembles, AAAI 2022, arXiv:2202.11782.

    # digits, under a minute on two CPU cores
    python experiments/prune_and_tune_cifar.py --preset demo
    python experiments/prune_and_tune_cifar.py --preset table1 --data-dir DIR
    python experiments/prune_and_tune_cifar.py --preset demo \\
        --parent runs/baseline-independent-demo-seed0/tickets.safetensors
    python experiments/prune_and_tune_cifar.py --preset paper --cost  # what it would take
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

from support import cifar, running
from support.flags import Epochs, Members, Rate, There

import jaxtickets as jt
from jaxtickets.plan import Plan
from jaxtickets.schedules import Constant, OneCycle, Schedule


@dataclasses.dataclass(frozen=True)
class Config(cifar.ScheduledConfig):
    """Flags of a Prune and Tune ensemble: copies of a parent, pruned at random and tuned."""

    preset: Literal["demo", "small", "table1", "paper"] = "demo"
    """What the other flags start from. demo: digits, no download, a minute. small: CIFAR-10 on a
    CPU. table1: the paper's small budget, 16 epochs of LeNet-L in all. paper: its large budget, 200
    epochs of WRN-28-10.
    """
    members: Annotated[int, Members] = 6
    """Children."""
    parent: Annotated[Path | None, There("ticket file")] = None
    """A ticket file with one network of this kind, trained elsewhere: the children's parent. None
    is trained then.
    """
    parent_epochs: Annotated[float, Epochs] = 140
    """Epochs of the parent."""
    tune_epochs: Annotated[float, Epochs] = 10
    """Epochs of each child."""
    masks: Literal["random", "anti_random", "partition"] = "anti_random"
    """random: each child's own. anti_random: pairs of a mask at 50 % and its complement. partition:
    disjoint ones.
    """
    sparsity: float | None = None
    """Share of zeros of random masks; 0.5 if not given. The other kinds of masks have their own."""
    unit: Literal["connection", "neuron"] = "connection"
    """Prune weights or whole units."""
    shrink: bool = True
    """Tune children of whole units as the smaller networks that they are, or leave units masked."""
    scope: Literal["layerwise", "global"] = "layerwise"
    """The same share in every layer, or one draw over all layers."""
    keep_dense: tuple[str, ...] | None = None
    """Path patterns of layers that every child has whole; the network's last if not given."""
    tune_lr: Literal["one_cycle", "constant"] = "one_cycle"
    """one_cycle: from a hundredth of --tune-peak up to it over a tenth of the tuning, and down to
    almost 0.
    """
    tune_peak: Annotated[float | None, Rate] = None
    """Largest learning rate of one_cycle (--lr if not given), or the constant one (the parent's
    last).
    """
    cycle_momentum: bool = False
    """Cycle SGD's momentum along with one_cycle, from .95 to .85 and back, as the authors' code
    does.
    """
    bag: float = 1.0
    """Share of the training images that each child is tuned on, its own random sample."""

    @property
    def name(self) -> str:
        """The method's name as run folders have it."""
        return "prune_and_tune"

    @property
    def start_from(self) -> Path | None:
        """The ticket file of a parent trained elsewhere; None to train one."""
        return self.parent

    def plan(self) -> Plan:
        """The plan that the flags name."""
        tune: Schedule | Literal["constant"] = "constant"
        if self.tune_lr == "one_cycle":
            peak = self.lr if self.tune_peak is None else self.tune_peak
            tune = OneCycle(low=peak / 100, high=peak, final=1e-7, rise=0.1)
        elif self.tune_peak is not None:
            tune = Constant(self.tune_peak)
        if self.cycle_momentum and self.tune_lr != "one_cycle":
            raise jt.PlanError(
                "--cycle-momentum cycles it along with --tune-lr one_cycle; leave one of the two"
                " out."
            )
        names = ("members", "masks", "sparsity", "unit", "scope", "keep_dense", "shrink", "bag")
        return jt.prune_and_tune(
            parent=0 if self.parent else self.parent_epochs,
            tune=self.tune_epochs,
            lr=self.rate(),
            tune_lr=tune,
            tune_momentum=(
                OneCycle(low=0.95, high=0.85, final=0.95, rise=0.1) if self.cycle_momentum else None
            ),
            **{name: getattr(self, name) for name in names},
            **self.shared(),
        )


PAPER = Config(preset="paper", schedule="line", nesterov=True)
TABLE1 = Config(
    preset="table1",
    model="lenet",
    size="L",
    initial="torch",
    augment=False,
    optimizer="adam",
    weight_decay=0.0,
    lr=0.001,
    schedule="constant",
    members=8,
    parent_epochs=8,
    tune_epochs=1,
    tune_lr="constant",
)
DEMO = cifar.demo_network(dataclasses.replace(PAPER, members=4, parent_epochs=16, tune_epochs=2))
SMALL = cifar.small_network(dataclasses.replace(PAPER, parent_epochs=20, tune_epochs=2, lr=0.02))
PRESETS = {"demo": DEMO, "small": SMALL, "table1": TABLE1, "paper": PAPER}

if __name__ == "__main__":
    running.main(PRESETS, __doc__)
