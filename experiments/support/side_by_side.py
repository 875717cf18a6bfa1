"""Seconds of several methods measured in turns, each at a fraction of its length.

Not a script. Whole runs of a comparison take hours, and whatever else the machine does meanwhile is
in their seconds; these follow each other within minutes.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from support import cifar, running

import jaxtickets as jt

FRACTION = 13
"""Every run has a thirteenth of its length: of LeNet-M's 390 steps an epoch 30 are left."""


def measured(
    experiments: Mapping[str, cifar.Config],
    data: Mapping[str, tuple[jt.Dataset, jt.Dataset]],
    rounds: int,
) -> dict[str, dict[str, float]]:
    """Seconds of training, and of predicting the test set by all tickets; compiling not counted.

    Args:
      experiments: by method, whole.
      data: by method, training and test data.
      rounds: how often; the medians are given.

    Returns:
      By method `seconds`, times what the run was shortened by, and `predict`.
    """
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in experiments}
    for _ in range(rounds):
        for name, whole in experiments.items():
            seconds[name].append(_one_run(whole, *data[name]))
    return {
        name: dict(zip(("seconds", "predict"), map(statistics.median, zip(*each, strict=True))))
        for name, each in seconds.items()
    }


def _one_run(whole: cifar.Config, train: jt.Dataset, test: jt.Dataset) -> tuple[float, float]:
    short = cifar.shortened(whole, FRACTION)
    (plan, task), blank = running.planned(short), cifar.blank(whole.dataset)
    steps = [
        sum(phase.steps for phase in running.priced(config, config.plan(), task, blank).phases)
        for config in (whole, short)
    ]
    with tempfile.TemporaryDirectory() as folder:
        tickets = running.fit(short, plan, task, train, Path(folder), short.start_from)
        timing = json.loads((Path(folder) / "timing.json").read_bytes())["seconds"]
        tickets.predict_proba(test)  # compiles
        began = time.perf_counter()
        tickets.predict_proba(test)
        predict = time.perf_counter() - began
    return timing["train"] * steps[0] / steps[1], predict
