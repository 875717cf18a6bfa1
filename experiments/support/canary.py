"""Canaries: the loss after a few training steps of an experiment, to notice changes by.

It changes when what a result hangs on does.
"""

from __future__ import annotations

import dataclasses

from support import cifar

import jaxtickets as jt
from jaxtickets.plan import Length, Plan, Train

STEPS = 3
"""Of each training phase; masks evolve after the second."""
TOLERANCE = 1e-5
"""Relative. Rounding, which differs between machines and grows with every step, was 3e-8 between
one core and two; masks that do not evolve are 1e-4.
"""


def sing(experiment: cifar.Config) -> float:
    """Mean negative log-likelihood of the test set after a few steps of every phase.

    It is the ensemble's, trained from the experiment's seed.
    """
    train, test = cifar.make_data(experiment)
    plan = shortened(experiment.plan())
    tickets = jt.fit(plan, cifar.make_task(experiment), train, key=experiment.seed, progress=False)
    return jt.evaluate(tickets, test).ensemble.nll


def shortened(plan: Plan) -> Plan:
    """The plan with every training a few steps long.

    >>> print(shortened(jt.dst(2)))
    dst: 2 tickets, 3 steps x 2 lineages, batch 128
      1. Start(width=2, sparsity=0.8, erk)
      2. Train(3 steps, lr=(0.1, 0.01 from 50%, 0.001 from 74.8%), \
optimizer=SGD(weight_decay=0.0005), evolve=Evolve(update_every=2))
      3. Collect()
    """
    phases = []
    for phase in plan.phases:
        if isinstance(phase, Train):
            evolve = phase.evolve
            if evolve is not None:
                evolve = dataclasses.replace(evolve, update_every=2)
            phase = dataclasses.replace(phase, length=Length(STEPS, "steps"), evolve=evolve)
        phases.append(phase)
    return dataclasses.replace(plan, phases=tuple(phases))
