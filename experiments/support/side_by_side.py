"""Seconds of several methods measured in turns, each at a fraction of its length.

Not a script. Whole runs of a comparison take hours, and whatever else the machine does meanwhile is
in their seconds; these follow each other within minutes.
"""

from __future__ import annotations

import functools
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from support import cifar, running

import jaxtickets as jt

FRACTION = 13
"""Every run has a thirteenth of its length: of LeNet-M's 390 steps an epoch 30 are left."""


def in_turns(
    runs: Mapping[str, Callable[[], tuple[float, float]]], rounds: int
) -> dict[str, dict[str, float]]:
    """Seconds of training and of predicting, medians of `rounds` turns.

    Args:
      runs: by name, what trains and predicts once and gives both seconds.
      rounds: how often each.

    Returns:
      By name `seconds` and `predict`.
    """
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, one_run in runs.items():
            seconds[name].append(one_run())
    return {
        name: dict(zip(("seconds", "predict"), map(statistics.median, zip(*each, strict=True))))
        for name, each in seconds.items()
    }


def one_run(
    fit: Callable[[Path], jt.TicketEnsemble],
    predict: Callable[[jt.TicketEnsemble], Any],
    longer: float,
) -> tuple[float, float]:
    """Seconds that `fit` trained for in a folder, times `longer`, and that its tickets predicted
    for; compiling not counted.
    """
    with tempfile.TemporaryDirectory() as folder:
        tickets = fit(Path(folder))
        timing = json.loads((Path(folder) / "timing.json").read_bytes())["seconds"]
        predict(tickets)  # compiles
        began = time.perf_counter()
        predict(tickets)
        return timing["train"] * longer, time.perf_counter() - began


def told(rounds: int, examples: int) -> str:
    """How such seconds were measured, for the notes of a table."""
    ours = (
        os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    )
    cores = "one core" if len(ours) == 1 else f"{len(ours)} cores"
    turns = "of one turn" if rounds == 1 else f"medians of {rounds} turns"
    return (
        f"Seconds: on {cores}, {turns}, each run at a {FRACTION}th of its length, times {FRACTION};"
        f" compiling not counted. Predictions are of {examples:,} examples by all members."
    )


def measured(
    experiments: Mapping[str, cifar.Config],
    data: Mapping[str, tuple[jt.Dataset, jt.Dataset]],
    rounds: int,
) -> dict[str, dict[str, float]]:
    """Seconds of experiments, as of `in_turns`.

    Args:
      experiments: by method, whole.
      data: by method, training and test data.
      rounds: how often.
    """
    return in_turns(
        {
            name: functools.partial(_short_run, whole, *data[name])
            for name, whole in experiments.items()
        },
        rounds,
    )


def _short_run(whole: cifar.Config, train: jt.Dataset, test: jt.Dataset) -> tuple[float, float]:
    short = cifar.shortened(whole, FRACTION)
    (plan, task), blank = running.planned(short), cifar.blank(whole.dataset)
    steps = [
        sum(phase.steps for phase in running.priced(config, config.plan(), task, blank).phases)
        for config in (whole, short)
    ]
    return one_run(
        lambda folder: running.fit(short, plan, task, train, folder, short.start_from),
        lambda tickets: tickets.predict_proba(test),
        steps[0] / steps[1],
    )
