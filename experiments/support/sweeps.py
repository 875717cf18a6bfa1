"""The points of every ablation, as experiments: what `ablations_cifar.py` trains."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import baselines_cifar
import dst_cifar
import edst_cifar
import prune_and_tune_cifar
from support import cifar

from jaxtickets.plan import Escape, Plan, Train


def same(plan: Plan) -> Plan:
    """The plan, unchanged."""
    return plan


@dataclasses.dataclass(frozen=True)
class Point:
    """One point of a sweep's figure.

    Args:
      series: the line that it belongs to.
      x: where on the axis: a number, or a name.
      run: what its run folder is called; points of one run share it.
      experiment: what is trained.
      parent: the experiment whose network the children are cut from; points with an equal one share
        it.
      first: how many of the run's members count, from the first; None for all.
      change: what is done to the experiment's plan.
      paper_method: what `papers.toml` calls it; "" for nothing.
    """

    series: str
    x: float | str
    run: str
    experiment: cifar.Config
    parent: baselines_cifar.Config | None = None
    first: int | None = None
    change: Callable[[Plan], Plan] = same
    paper_method: str = ""

    def plan(self) -> Plan:
        """The plan of the members that count, the parent's training included."""
        experiment: Any = self.experiment
        return self.change(
            (
                experiment
                if self.first is None
                else dataclasses.replace(experiment, members=self.first)
            ).plan()
        )


@dataclasses.dataclass(frozen=True)
class Scale:
    """The sizes of the sweeps: experiments, networks, and the values that are swept over.

    Args:
      pat: Prune and Tune as swept over sparsity, structure and ensemble size.
      pair: Prune and Tune with two children, as swept over masks and schedules.
      networks: name to flags of the networks of the sparsity sweep; the last is that of the
        structure sweep.
      crowd: flags of the network of the ensemble-size sweep.
      sparsities: of Prune and Tune.
      tunes: epochs of tuning.
      sizes: of ensembles, the largest last.
      edst: EDST as swept.
      dst: DST as swept.
      ticket_sparsities: of EDST and DST.
      members: of EDST and DST.
      escapes: drop fractions q.
      bags: shares of the training images that a child of Prune and Tune is tuned on.
    """

    pat: prune_and_tune_cifar.Config
    pair: prune_and_tune_cifar.Config
    networks: Mapping[str, dict[str, Any]]
    crowd: Mapping[str, Any]
    sparsities: tuple[float, ...]
    tunes: tuple[float, ...]
    sizes: tuple[int, ...]
    edst: edst_cifar.Config
    dst: dst_cifar.Config
    ticket_sparsities: tuple[float, ...]
    members: tuple[int, ...]
    escapes: tuple[float, ...] = (0.1, 0.5, 0.8)
    bags: tuple[float, ...] = (0.5, 0.7, 0.9, 1.0)


def parent_of(config: prune_and_tune_cifar.Config) -> baselines_cifar.Config:
    """The training of that ensemble's parent, as an experiment of its own."""
    shared = {
        field.name: getattr(config, field.name)
        for field in dataclasses.fields(cifar.ScheduledConfig)
    }
    return baselines_cifar.Config(
        **shared | {"preset": "paper", "method": "independent", "epochs": config.parent_epochs}
    )


def children(
    series: str,
    x: float | str,
    run: str,
    config: prune_and_tune_cifar.Config,
    first: int | None = None,
) -> Point:
    """A point of a Prune and Tune ensemble whose parent may be shared."""
    return Point(series, x, run, config, parent_of(config), first)


def sparsity(scale: Scale) -> list[Point]:
    """Points of random global connection pruning, by size of the network and epochs of tuning."""
    points = []
    for network, flags in scale.networks.items():
        for tune in scale.tunes:
            for share in scale.sparsities:
                config = dataclasses.replace(
                    scale.pat,
                    **flags,
                    masks="random",
                    scope="global",
                    sparsity=share,
                    tune_epochs=tune,
                )
                name = f"{network}, {tune:g} epoch{'s' if tune != 1 else ''}"
                points.append(children(name, share, f"{network}-tune{tune:g}-s{share:g}", config))
    return points


def structure(scale: Scale) -> list[Point]:
    """Points of pruned connections against pruned neurons, the same share in every layer."""
    network, flags = list(scale.networks.items())[-1]
    points = []
    for unit in ("connection", "neuron"):
        for share in scale.sparsities:
            config = dataclasses.replace(
                scale.pat,
                **flags,
                masks="random",
                sparsity=share,
                unit=unit,
                tune_epochs=scale.tunes[-1],
            )
            points.append(children(f"{unit}s", share, f"{network}-{unit}-s{share:g}", config))
    return points


def scope(scale: Scale) -> list[Point]:
    """Points of one draw over all layers against the same share in every layer."""
    network, flags = list(scale.networks.items())[-1]
    points = []
    for of in ("layerwise", "global"):
        for share in scale.sparsities:
            config = dataclasses.replace(
                scale.pat,
                **flags,
                masks="random",
                sparsity=share,
                scope=of,
                tune_epochs=scale.tunes[-1],
            )
            points.append(children(of, share, f"{network}-{of}-s{share:g}", config))
    return points


def bagging(scale: Scale) -> list[Point]:
    """Points of children that are tuned on random shares of the training images."""
    network, flags = list(scale.networks.items())[-1]
    points = []
    for masks, label in (("random", "R"), ("anti_random", "AR")):
        for share in scale.bags:
            config = dataclasses.replace(
                scale.pat, **flags, masks=masks, bag=share, tune_epochs=scale.tunes[-1]
            )
            points.append(children(label, share, f"{network}-{masks}-bag{share:g}", config))
    return points


def masks_and_schedule(scale: Scale) -> list[Point]:
    """Points of random against anti-random masks, a constant rate against one cycle.

    Each is an ensemble of two children.
    """
    points = []
    for masks, label in (("random", "R"), ("anti_random", "AR")):
        for tune, schedule in (("constant", "constant"), ("one_cycle", "one cycle")):
            peak = scale.pair.lr / 10 if tune == "constant" else None
            config = dataclasses.replace(scale.pair, masks=masks, tune_lr=tune, tune_peak=peak)
            points.append(
                children("two children", f"{label}, {schedule}", f"{masks}-{tune}", config)
            )
    return points


def ensemble_size(scale: Scale) -> list[Point]:
    """Points of growing prefixes of one run of many children."""
    config = dataclasses.replace(
        scale.pat,
        **scale.crowd,
        masks="random",
        sparsity=0.5,
        members=scale.sizes[-1],
        tune_epochs=1,
    )
    return [
        children("Prune and Tune (R)", size, f"crowd-{scale.sizes[-1]}", config, size)
        for size in scale.sizes
    ]


def static(plan: Plan) -> Plan:
    """The plan with its first mask kept to the end: no mask updates, no escapes."""
    phases = [
        dataclasses.replace(phase, evolve=None) if isinstance(phase, Train) else phase
        for phase in plan.phases
    ]
    return dataclasses.replace(
        plan, phases=tuple(phase for phase in phases if not isinstance(phase, Escape))
    )


def exploration(scale: Scale) -> list[Point]:
    """Points of masks that move against masks that stay as they began (FreeTickets, table 5)."""
    points = []
    for name, config in (("EDST", scale.edst), ("DST", scale.dst)):
        without = {"EDST": "edst_without_exploration", "DST": "static_sparse"}[name]
        points.append(
            Point(
                name,
                "without",
                f"{config.name}-static",
                config,
                change=static,
                paper_method=without,
            )
        )
        points.append(
            Point(name, "with exploration", config.name, config, paper_method=config.name)
        )
    return points


def escape(scale: Scale) -> list[Point]:
    """Points of the drop fraction q of EDST's global exploration (FreeTickets, table 9)."""
    return [
        Point(
            "EDST",
            q,
            f"edst-q{q:g}",
            dataclasses.replace(scale.edst, escape=q),
            paper_method=f"edst_q{q:g}",
        )
        for q in scale.escapes
    ]


def growth(scale: Scale) -> list[Point]:
    """Points of random against gradient growth (FreeTickets, table 10)."""
    methods = (("EDST", scale.edst), ("DST", scale.dst))
    return [
        Point(
            name,
            growth_rule,
            f"{config.name}-{growth_rule}",
            dataclasses.replace(config, growth=growth_rule),
            paper_method=f"{config.name}_{growth_rule}_growth",
        )
        for name, config in methods
        for growth_rule in ("random", "gradient")
    ]


def ticket_sparsity(scale: Scale) -> list[Point]:
    """Points of the sparsity of the tickets (FreeTickets, figure 4)."""
    methods = (("EDST", scale.edst), ("DST", scale.dst))
    return [
        Point(name, share, f"{config.name}-s{share:g}", dataclasses.replace(config, sparsity=share))
        for name, config in methods
        for share in scale.ticket_sparsities
    ]


def members(scale: Scale) -> list[Point]:
    """Points of the number of tickets (FreeTickets, figure 5).

    At one total time (EDST), and from one run of all (DST).
    """
    total = scale.edst.members * scale.edst.refine
    points = [
        Point(
            "EDST, total time fixed",
            m,
            f"edst-m{m}",
            dataclasses.replace(scale.edst, members=m, refine=total / m),
        )
        for m in scale.members
    ]
    all_of_them = dataclasses.replace(scale.dst, members=scale.members[-1])
    return points + [
        Point("DST, each as long", m, f"dst-m{scale.members[-1]}", all_of_them, first=m)
        for m in scale.members
    ]


@dataclasses.dataclass(frozen=True)
class Sweep:
    """The figure of a sweep.

    Its title, what its axis says, its points at a scale, whether the axis is logarithmic, and what
    `papers.toml` calls the correlation of members and ensembles over the points of a series.
    """

    title: str
    label: str
    points: Callable[[Scale], list[Point]]
    log: bool = False
    correlated: Mapping[str, str] = dataclasses.field(default_factory=dict)


SWEEPS: Mapping[str, Sweep] = {
    "sparsity": Sweep("Sparsity of the children", "share of weights pruned", sparsity),
    "structure": Sweep(
        "Connections or neurons", "share of connections or of neurons pruned", structure
    ),
    "scope": Sweep("Scope of the pruning", "share of weights pruned", scope),
    "bagging": Sweep("Bagging of the children", "share of images that a child sees", bagging),
    "masks_and_schedule": Sweep("Masks and tuning schedules", "masks, tuning", masks_and_schedule),
    "ensemble_size": Sweep("Ensemble size", "children", ensemble_size, log=True),
    "exploration": Sweep("Parameter exploration", "", exploration),
    "q": Sweep("Global exploration rate", "drop fraction q of an escape", escape),
    "growth": Sweep("Growth", "how weights grow", growth),
    "ticket_sparsity": Sweep(
        "Sparsity of the tickets",
        "sparsity",
        ticket_sparsity,
        correlated={"EDST": "edst_sparsities", "DST": "dst_sparsities"},
    ),
    "members": Sweep("Number of tickets", "tickets", members),
}

TENTHS = tuple(round(share / 10, 1) for share in range(1, 10))
TABLE1 = prune_and_tune_cifar.TABLE1
SIZES = {f"LeNet-{size}": {"size": size} for size in ("S", "M", "L")}
# Two children of LeNet-L by SGD, as the paper's third figure; batch, budget of the parent and decay
# as everywhere else there.
PAIR = dataclasses.replace(
    TABLE1,
    optimizer="sgd",
    nesterov=True,
    weight_decay=5e-4,
    lr=0.1,
    schedule="line",
    members=2,
    tune_epochs=5,
    tune_lr="one_cycle",
)
SCALES: Mapping[str, Scale] = {
    "demo": Scale(
        pat=dataclasses.replace(prune_and_tune_cifar.DEMO, parent_epochs=8, tune_epochs=1),
        pair=dataclasses.replace(
            prune_and_tune_cifar.DEMO, parent_epochs=8, members=2, tune_epochs=3
        ),
        networks={"WRN-10-1": {}},
        crowd={},
        sparsities=(0.2, 0.5, 0.8),
        tunes=(1, 2),
        sizes=(2, 4, 8, 16),
        edst=dataclasses.replace(edst_cifar.DEMO, members=3, sparsity=0.8, explore=6, refine=4),
        dst=dataclasses.replace(dst_cifar.DEMO, epochs=8),
        ticket_sparsities=(0.5, 0.8, 0.95),
        members=(1, 2, 4),
    ),
    "small": Scale(
        pat=dataclasses.replace(TABLE1, size="M"),
        pair=dataclasses.replace(PAIR, size="M", lr=0.02),
        networks={name: SIZES[name] for name in ("LeNet-S", "LeNet-M")},
        crowd={"size": "S"},
        sparsities=(0.1, 0.3, 0.5, 0.7, 0.9),
        tunes=(1,),
        sizes=(4, 8, 16, 32),
        edst=dataclasses.replace(edst_cifar.SMALL, explore=10, refine=5),
        dst=dataclasses.replace(dst_cifar.SMALL, epochs=15),
        ticket_sparsities=(0.5, 0.8, 0.9, 0.95),
        members=(1, 3, 5),
    ),
    "paper": Scale(
        pat=TABLE1,
        pair=PAIR,
        networks=SIZES,
        crowd={"size": "M"},
        sparsities=TENTHS,
        tunes=(1, 3),
        sizes=(4, 8, 16, 32, 64, 128),
        edst=edst_cifar.PAPER,
        dst=dst_cifar.PAPER,
        ticket_sparsities=(0.5, 0.6, 0.7, 0.8, 0.9, 0.95),
        members=(1, 3, 5, 7),
    ),
}
