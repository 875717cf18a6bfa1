"""What is compared: the rows of every table, and how each is trained.

Not a script; `compare_cifar.py` runs them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import baselines_cifar
import dst_cifar
import edst_cifar
import prune_and_tune_cifar
from support import cifar

PAT = prune_and_tune_cifar.PRESETS
PATS = {
    "pat_r": "Prune and Tune (R)",
    "pat_ar": "Prune and Tune (AR)",
    "pat_partition": "Prune and Tune (partition)",
}
MASKS = {
    "pat_r": {"masks": "random", "sparsity": 0.5},
    "pat_ar": {"masks": "anti_random"},
    "pat_partition": {"masks": "partition"},
}
TITLES = {name: method.title for name, method in baselines_cifar.METHODS.items() if name != "dense"}
TITLES |= {"dst": "DST ensemble", "edst": "EDST ensemble", **PATS}
TITLES |= {
    "edst_m7": "EDST ensemble, S = .9",
    "edst_channels": "EDST ensemble, 40 % of the channels cut out",
    "pat_units": "Prune and Tune (AR), half of the units cut out",
}
SAME_METHOD = {"edst_m7": "edst"}
"""What the papers' tables have under the name of another row: the same method, another size."""


@dataclasses.dataclass(frozen=True)
class Preset:
    """The methods of a table, all at one budget.

    It says how to make the experiment of each, the dense run that costs are compared with, and the
    methods that the others are tested against.
    """

    budget: str
    dense_epochs: float
    methods: Mapping[str, Callable[[], cifar.Config]]
    against: tuple[str, ...] = ()


def pat(
    base: prune_and_tune_cifar.Config, **settings: Any
) -> dict[str, Callable[[], cifar.Config]]:
    """Experiments of Prune and Tune with each of the three kinds of masks."""
    return {
        name: lambda masks=masks: dataclasses.replace(base, **masks, **settings)
        for name, masks in MASKS.items()
    }


def baselines(
    preset: str, names: tuple[str, ...] = tuple(baselines_cifar.DEMO), **settings: Any
) -> dict[str, Callable[[], cifar.Config]]:
    """Experiments of those baselines, as that preset of their script has them."""
    return {
        name: lambda name=name: dataclasses.replace(
            baselines_cifar.default(preset, name), **settings
        )
        for name in names
    }


def table1() -> dict[str, Callable[[], cifar.Config]]:
    """Experiments of Prune and Tune's table 1.

    All are trained by Adam at a fixed rate, without augmentation.
    """
    shared = {
        field.name: getattr(PAT["table1"], field.name)
        for field in dataclasses.fields(cifar.ScheduledConfig)
    } | {"preset": "paper"}
    own_flags: dict[str, dict[str, Any]] = {
        "independent": {"epochs": 16},
        "dropout": {"epochs": 16, "dropout": 0.5},
        "bagged": {"epochs": 2, "members": 8, "bag": 0.9},
    }
    config = baselines_cifar.Config
    rows = {
        name: lambda name=name: config(**{**shared, **own_flags[name], "method": name})
        for name in own_flags
    }
    return {
        **rows,
        **{name: make for name, make in pat(PAT["table1"]).items() if name != "pat_partition"},
    }


def smaller() -> dict[str, Callable[[], cifar.Config]]:
    """Experiments of tickets that stay masked against those whose dead units are cut out.

    As the small presets, at a fifth of their length.
    """
    edst = dataclasses.replace(edst_cifar.SMALL, explore=4, refine=1.5, update_every=100)
    pat_ar = dataclasses.replace(PAT["small"], members=4, parent_epochs=4, tune_epochs=0.5)
    return baselines("small", ("independent",), epochs=6) | {
        "edst": lambda: edst,
        "edst_channels": lambda: dataclasses.replace(edst, channels=0.4),
        "pat_ar": lambda: pat_ar,
        "pat_units": lambda: dataclasses.replace(pat_ar, unit="neuron"),
    }


PUBLISHED = (
    baselines("paper")
    | {
        "dst": lambda: dst_cifar.PAPER,
        "edst": lambda: edst_cifar.PAPER,
        "edst_m7": lambda: dataclasses.replace(edst_cifar.PAPER, members=7, sparsity=0.9),
    }
    | pat(PAT["paper"])
)
AS_PUBLISHED = (
    "Each method as published; costs are compared with one dense network of 250 epochs,"
    " FreeTickets' unit."
)
PRESETS: Mapping[str, Preset] = {
    "digits": Preset(
        "Budget: the theoretical FLOPs of one dense network of 24 epochs, or less.",
        24,
        baselines("demo")
        | {
            "dst": lambda: dataclasses.replace(dst_cifar.DEMO, epochs=24),
            "edst": lambda: dataclasses.replace(
                edst_cifar.DEMO,
                members=4,
                sparsity=0.8,
                explore=15,
                refine=10,
                refine_lr=(0.05, 0.005),
            ),
        }
        | pat(PAT["demo"]),
    ),
    "table1": Preset("Budget: 16 epochs in all.", 16, table1(), against=("pat_r", "pat_ar")),
    "small": Preset(
        "As each script's small preset; costs are compared with one dense network of 30 epochs.",
        30,
        baselines("small")
        | {"dst": lambda: dst_cifar.SMALL, "edst": lambda: edst_cifar.SMALL}
        | pat(PAT["small"]),
    ),
    "smaller": Preset(
        "As each script's small preset, a fifth as long; costs are compared with one dense network"
        " of 6 epochs.",
        6,
        smaller(),
    ),
    "paper": Preset(AS_PUBLISHED, 250, PUBLISHED),
    "table6": Preset(
        AS_PUBLISHED,
        250,
        {name: PUBLISHED[name] for name in ("snapshot", "fge", "edst_m7", "edst", "dst")},
    ),
}
