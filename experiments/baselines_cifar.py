"""The papers' baselines on CIFAR (or, as a demo, on digits): thirteen methods.

python experiments/baselines_cifar.py --method independent --preset demo
python experiments/baselines_cifar.py --method snapshot --preset small --data-dir DIR
python experiments/baselines_cifar.py --method ltr --preset paper --cost
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal, get_args

from support import cifar, command, running
from support.flags import Epochs, Members, Within

import jaxtickets as jt
from jaxtickets.plan import Optimizer, Override, Plan

Name = Literal[
    "independent",
    "dropout",
    "bagged",
    "dense_ensemble",
    "static_sparse",
    "ltr",
    "prune_finetune",
    "snapshot",
    "fge",
    "mc_dropout",
    "treenet",
    "batch_ensemble",
    "mimo",
    "dense",
]


@dataclasses.dataclass(frozen=True)
class Config(cifar.ScheduledConfig):
    """Flags of a baseline of the FreeTickets or the Prune and Tune paper.

    `--preset` and `--method` together choose the defaults.
    """

    preset: cifar.Preset = "demo"
    """What the other flags start from. demo: digits, no download, a minute. small: CIFAR-10 on a
    CPU. paper: as published.
    """
    method: Name = "independent"
    """independent: one dense network (also called dense). dropout: one with dropout. bagged: dense
    networks on random shares of the data. dense_ensemble, static_sparse: networks from scratch,
    dense or under random masks that stay. ltr: one mask, rewound and trained several times.
    prune_finetune: dense networks pruned by magnitude. snapshot, fge: networks collected along one
    run. mc_dropout, treenet, batch_ensemble, mimo: several predictions of one network.
    """
    epochs: Annotated[float, Epochs] = 250
    """Epochs of each network; of the whole run (snapshot, fge)."""
    members: Annotated[int | None, Members] = None
    """Members of the ensemble."""
    sparsity: float | None = None
    """Share of zeros among the kernels' weights (static_sparse, ltr, prune_finetune)."""
    distribution: Literal["uniform", "er", "erk"] = "erk"
    """Layer-wise sparsities (static_sparse)."""
    bag: float | None = None
    """Share of the training images that each network sees (bagged)."""
    finetune: Annotated[float | None, Epochs] = None
    """Epochs of each fine-tuning (prune_finetune)."""
    update_every: int | None = None
    """Steps between prunings (ltr)."""
    cycle: Annotated[float | None, Epochs] = None
    """Epochs of a cycle (fge; snapshot, where it is an equal share of the epochs if not given)."""
    repetition: Annotated[int | None, Within(1, 1000)] = None
    """How many times a training step shows an example to each head (mimo)."""

    @property
    def name(self) -> str:
        """The method's name as run folders have it."""
        return f"baseline-{self.method}"

    def plan(self) -> Plan:
        """The plan that the flags name."""
        method = METHODS[self.method]
        flag_names = {name for other in METHODS.values() for name in other.flags}
        for flag in sorted(flag_names - set(method.flags)):
            if getattr(self, flag) is not None:
                shown = f"--{flag.replace('_', '-')}"
                method_names = ", ".join(
                    sorted(name for name, other in METHODS.items() if flag in other.flags)
                )
                raise jt.PlanError(
                    f"{shown} says nothing about --method {self.method}; it is a flag of"
                    f" {method_names}. Leave it out."
                )
        for flag in method.flags:
            if getattr(self, flag) is None and flag != "cycle":
                raise jt.PlanError(f"--method {self.method} needs --{flag.replace('_', '-')}.")
        return method.plan(self)

    def network(self, plain: Any) -> Any:
        """The network that the method makes of the plain one."""
        return METHODS[self.method].network(self, plain)

    def update_rule(self) -> Optimizer:
        """The optimizer that the flags name.

        BatchEnsemble's fast weights learn half as fast as the others, and do not decay.
        """
        rule = super().update_rule()
        fast = (Override("fast_", lr=0.5, weight_decay=0.0),)
        return (
            dataclasses.replace(rule, overrides=fast) if self.method == "batch_ensemble" else rule
        )


@dataclasses.dataclass(frozen=True)
class Method:
    """One row of the table of methods.

    What the method is called, which of the flags it listens to besides the epochs, and what it
    does.
    """

    title: str
    plan: Callable[[Config], Plan]
    flags: tuple[str, ...] = ()
    network: Callable[[Config, Any], Any] = lambda config, plain: plain


def one_network(config: Config) -> Plan:
    """The plan of one dense network."""
    return jt.dense(1, config.epochs, lr=config.rate(), **config.shared())


def one_of_several_heads(config: Config) -> Plan:
    """The plan of one network whose heads are the members."""
    return dataclasses.replace(one_network(config), name=config.method)


def dense_ensemble(config: Config) -> Plan:
    """The plan of dense networks that are trained from scratch."""
    plan = jt.dense(config.members or 0, config.epochs, lr=config.rate(), **config.shared())
    return dataclasses.replace(plan, name="dense_ensemble")


def of(make: Callable[..., Plan], *flags: str, scheduled: bool = True) -> Callable[[Config], Plan]:
    """A function from flags to the plan that `make` makes of them, the epochs and the schedule."""

    def plan(config: Config) -> Plan:
        arguments = {flag: getattr(config, flag) for flag in ("epochs", *flags)} | (
            {"lr": config.rate()} if scheduled else {"lr": config.lr}
        )
        return make(**arguments, **config.shared())

    return plan


def prune_finetune(config: Config) -> Plan:
    """The plan of dense networks that are pruned by magnitude and fine-tuned.

    They are fine-tuned at the smallest learning rate of the schedule.
    """
    names = ("members", "sparsity", "epochs", "finetune")
    last = jt.schedules.Constant(config.rate()(99_999, 100_000))
    return jt.prune_finetune(
        **{name: getattr(config, name) for name in names},
        lr=config.rate(),
        finetune_lr=last,
        **config.shared(),
    )


def fge(config: Config) -> Plan:
    """The plan of fast geometric ensembling: short cycles from two points of one run.

    Their learning rate goes from a half to a two-hundredth of the run's first one.
    """
    high = {"high": config.lr / 2, "low": config.lr / 200}
    return jt.fge(
        config.members or 0,
        config.epochs,
        cycle=config.cycle or 4,
        lr=config.rate(),
        **high,
        **config.shared(),
    )


METHODS: Mapping[str, Method] = {
    "independent": Method("Independent", one_network),
    "dropout": Method("Dropout", one_network),
    "bagged": Method("Bagged", of(jt.bagged, "members", "bag"), ("members", "bag")),
    "dense_ensemble": Method("Dense ensemble", dense_ensemble, ("members",)),
    "static_sparse": Method(
        "Static sparse ensemble",
        of(jt.static_sparse, "members", "sparsity", "distribution"),
        ("members", "sparsity"),
    ),
    "ltr": Method(
        "LTR ensemble",
        of(jt.ltr, "members", "sparsity", "update_every"),
        ("members", "sparsity", "update_every"),
    ),
    "prune_finetune": Method("PF ensemble", prune_finetune, ("members", "sparsity", "finetune")),
    "snapshot": Method(
        "Snapshot", of(jt.snapshot, "members", "cycle", scheduled=False), ("members", "cycle")
    ),
    "fge": Method("FGE", fge, ("members", "cycle")),
    "mc_dropout": Method(
        "MC dropout",
        one_of_several_heads,
        ("members",),
        lambda config, plain: jt.models.MCDropout(plain, config.members or 0, key=config.seed),
    ),
    "treenet": Method(
        "TreeNet",
        one_of_several_heads,
        ("members",),
        lambda config, plain: jt.models.TreeNet(plain, config.members or 0),
    ),
    "batch_ensemble": Method(
        "BatchEnsemble",
        one_of_several_heads,
        ("members",),
        lambda config, plain: jt.models.BatchEnsemble(plain, config.members or 0),
    ),
    "mimo": Method(
        "MIMO",
        one_of_several_heads,
        ("members", "repetition"),
        lambda config, plain: jt.models.MIMO(
            plain, config.members or 0, batch_repetition=config.repetition or 0
        ),
    ),
}
METHODS |= {"dense": METHODS["independent"]}

# Whitaker and Whitley's training of WRN-28-10, 200 epochs
LINE: dict[str, Any] = {"schedule": "line", "nesterov": True}
SPARSE: dict[str, Any] = {"members": 3, "sparsity": 0.8}
PAPER: dict[str, dict[str, Any]] = {
    "independent": {},
    "dropout": {"epochs": 200, "dropout": 0.3, **LINE},
    "bagged": {"members": 8, "epochs": 25, "bag": 0.9, **LINE},
    "dense_ensemble": {"members": 4},
    "static_sparse": SPARSE,
    "ltr": {**SPARSE, "update_every": 1000},
    "prune_finetune": {**SPARSE, "finetune": 250},
    "snapshot": {"members": 5, "epochs": 200, "nesterov": True},
    "fge": {"members": 12, "epochs": 200, "cycle": 4, **LINE},
    "mc_dropout": {"members": 8, "epochs": 200, "dropout": 0.3, **LINE},
    "treenet": {"members": 3},
    "batch_ensemble": {"members": 4},
    "mimo": {"members": 3, "repetition": 4},
}
# 30 epochs in all of networks that start together, and as long for each that starts alone.
SMALL: dict[str, dict[str, Any]] = {
    **{
        name: {"epochs": 30, **settings}
        for name, settings in PAPER.items()
        if "epochs" not in settings
    },
    "dropout": {"epochs": 30, "dropout": 0.2},
    "bagged": {"members": 5, "epochs": 6, "bag": 0.9},
    "ltr": {"epochs": 30, **SPARSE, "update_every": 500},
    "prune_finetune": {"epochs": 30, **SPARSE, "finetune": 10},
    "snapshot": {"members": 5, "epochs": 30},
    "fge": {"members": 6, "epochs": 30, "cycle": 1, "schedule": "line"},
    "mc_dropout": {"members": 8, "epochs": 30, "dropout": 0.2},
}
SMALL = {name: {"lr": 0.02, **settings} for name, settings in SMALL.items()}
# No more theoretical FLOPs than one dense network of 24 epochs.
DEMO: dict[str, dict[str, Any]] = {
    "independent": {"epochs": 24},
    "dropout": {"epochs": 24, "dropout": 0.2},
    "bagged": {"members": 4, "epochs": 6, "bag": 0.9},
    "dense_ensemble": {"members": 4, "epochs": 6},
    "static_sparse": {**SPARSE, "epochs": 24},
    "ltr": {**SPARSE, "epochs": 24, "update_every": 20},
    "prune_finetune": {**SPARSE, "epochs": 6, "finetune": 6},
    "snapshot": {"members": 4, "epochs": 24},
    "fge": {"members": 4, "epochs": 24, "cycle": 1.5, "schedule": "line"},
    "mc_dropout": {"members": 8, "epochs": 24, "dropout": 0.2},
    "treenet": {"members": 3, "epochs": 15},
    "batch_ensemble": {"members": 4, "epochs": 6},
    "mimo": {"members": 2, "epochs": 11, "repetition": 2},
}


def default(preset: str, method: str) -> Config:
    """The default flags of a method under a preset."""
    method = "independent" if method == "dense" else method
    settings = {"demo": DEMO, "small": SMALL, "paper": PAPER}[preset].get(method, {})
    config = Config(preset="paper", method=method, **settings)  # pyright: ignore[reportArgumentType]
    return {"demo": cifar.demo_network, "small": cifar.small_network}.get(
        preset, lambda config: config
    )(config)


def presets(words: Sequence[str] | None = None) -> dict[str, Config]:
    """The presets of the method that the command line, or `words`, names."""
    asked = command.chosen("method", "independent", words)
    method = asked if asked in get_args(Name) else "independent"
    return {preset: default(preset, method) for preset in ("demo", "small", "paper")}


def main() -> None:
    """Parse the flags, whose defaults are those of the method named, and run the experiment."""
    running.main(presets(), __doc__)


if __name__ == "__main__":
    main()
