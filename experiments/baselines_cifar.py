"""Baselines on CIFAR (or, as a demo, on digits): one dense network, a dense ensemble, a static sparse ensemble.

python experiments/baselines_cifar.py --method dense --preset demo
python experiments/baselines_cifar.py --method dense_ensemble --preset small --data-dir DIR
python experiments/baselines_cifar.py --method static_sparse --preset paper --cost
"""

from __future__ import annotations

import dataclasses
from typing import Literal

import cifar

import jaxtickets as jt
from jaxtickets.plan import Plan
from jaxtickets.schedules import Piecewise


@dataclasses.dataclass(frozen=True)
class Config(cifar.Config):
    """A baseline of the FreeTickets paper."""

    method: Literal["dense", "dense_ensemble", "static_sparse"] = "dense"
    """dense: one network. dense_ensemble: --members of them (4 in the paper). static_sparse: random masks that stay."""
    members: int | None = None
    """Networks; 1 for dense, 4 for dense_ensemble and 3 for static_sparse if not given."""
    sparsity: float = 0.8
    """Share of zeros among the kernels' weights (static_sparse)."""
    epochs: float = 250
    """Epochs of each network."""
    lr: float = 0.1
    """First learning rate; a tenth after half of the training, a hundredth after three quarters."""
    distribution: Literal["uniform", "er", "erk"] = "erk"
    """Layer-wise sparsities (static_sparse)."""


MEMBERS = {"dense": 1, "dense_ensemble": 4, "static_sparse": 3}


def make_plan(config: Config) -> Plan:
    """The plan that the flags name."""
    if config.method == "dense" and config.members not in (None, 1):
        raise jt.PlanError(f"--method dense is one network; for {config.members} of them take --method dense_ensemble.")
    members = MEMBERS[config.method] if config.members is None else config.members
    lr = Piecewise((config.lr, config.lr / 10, config.lr / 100), until=(125 / 250, 187 / 250))
    if config.method == "static_sparse":
        return jt.static_sparse(members, config.sparsity, config.epochs, lr=lr, distribution=config.distribution, **config.shared())
    return dataclasses.replace(jt.dense(members, config.epochs, lr=lr, **config.shared()), name=config.method)


PAPER = Config(preset="paper")
DEMO = cifar.demo_network(dataclasses.replace(PAPER, epochs=12))
SMALL = cifar.small_network(dataclasses.replace(PAPER, epochs=30, lr=0.02))

if __name__ == "__main__":
    cifar.main("baseline", {"demo": DEMO, "small": SMALL, "paper": PAPER}, make_plan, __doc__ or "")
