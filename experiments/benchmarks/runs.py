"""Whole runs: members together and alone, what compiles, how soon the first step is taken."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from benchmarks.networks import images
from benchmarks.timing import Row, row

import jaxtickets as jt
from jaxtickets.plan import SGD, Length


def members_in_one_run(batch_size: int) -> list[Row]:
    """Four members in one `fit` against four lone `fit`s.

    Training seconds per member, without compilation.
    """
    x, y = images(1280)
    task = jt.classification(jt.models.LeNet("M"))
    data = (np.asarray(x), np.asarray(y))
    keys = jt.member_keys(0, 4)
    together, alone = [], []
    for _ in range(3):
        for width, key, timings in (
            (4, keys, together),
            *((1, keys[i : i + 1], alone) for i in range(4)),
        ):
            plan = jt.dst(
                width,
                epochs=Length(30, "steps"),
                batch_size=batch_size,
                update_every=10,
                optimizer=SGD(),
            )
            with tempfile.TemporaryDirectory() as folder:
                jt.fit(plan, task, data, key=key, out=folder, progress=False)
                timings.append(json.loads((Path(folder) / "timing.json").read_bytes())["seconds"])
    train = [
        sum(s["train"] for s in alone) / len(alone),
        sum(s["train"] for s in together) / len(together) / 4,
    ]
    total = [
        sum(s["total"] for s in alone) / len(alone),
        sum(s["total"] for s in together) / len(together) / 4,
    ]
    return [
        row(
            "LeNet-M, 4 members in one run: times faster per member than 4 lone runs (training)",
            train[1],
            train[0],
            ">=",
            0.95,
        ),
        row(
            "LeNet-M, 4 members in one run: times faster per member than 4 lone runs (with"
            " compiling)",
            total[1],
            total[0],
            ">=",
            1.0,
        ),
    ]


def first_step() -> list[Row]:
    """Seconds from the start of the demo to its first step.

    And how often EDST with 3 and with 7 tickets compiles.
    """
    script = str(Path(__file__).parents[1] / "edst_cifar.py")
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        command = [sys.executable, script, "--preset", "demo", "--out", folder]
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as process:
            first = float("nan")
            for line in process.stdout or ():
                if " steps " in line and first != first:
                    first = time.perf_counter() - began
        total = time.perf_counter() - began
    data, task = jt.data.load("digits"), jt.classification(jt.models.WideResNet(10, 1))
    counts = []
    for members in (3, 7):
        plan = jt.edst(
            members, explore=Length(2, "steps"), refine=Length(2, "steps"), batch_size=64
        )
        with tempfile.TemporaryDirectory() as folder:
            jt.fit(plan, task, data, key=0, out=folder, progress=False)
            counts.append(json.loads((Path(folder) / "timing.json").read_bytes())["compilations"])
    return [
        row("demo: seconds to the first step / seconds in all", first, total, "<=", None),
        row(
            "EDST with 7 tickets: programs compiled / with 3 tickets",
            counts[1],
            counts[0],
            "<=",
            1.0,
        ),
    ]
