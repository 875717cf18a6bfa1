"""FreeTickets on ImageNet with ResNet-50: DST and EDST ensembles, and what they are compared with.

Paper: Liu et al., Deep Ensembling with No Overhead for either Training or Testing, ICLR 2022,
arXiv:2106.14568, table 3.

    python experiments/imagenet.py --preset demo  # pictures of shapes, drawn for it; a minute
    python experiments/imagenet.py --preset paper --method edst --data-dir DIR --imagenet-a DIR
    python experiments/imagenet.py --preset paper --method mimo --data-dir DIR
    python experiments/imagenet.py --preset paper --method dst --cost  # what it would take

Its corrupted pictures are of `evaluate.py RUN --suite corrupted`.

DIR/train and DIR/val hold one folder of pictures per class. Without one the demo draws its own:
that set is synthetic, and its scores say that everything works and nothing else.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import jax.numpy as jnp
import numpy as np
from rich.console import Console
from support import cifar, command, hosts, running, shapes
from support.flags import Epochs, Members, Rate, There, Within
from support.published import published

import jaxtickets as jt
from jaxtickets.plan import SGD, Length, Override, Plan
from jaxtickets.schedules import Constant, Piecewise, Schedule, Warmup

NO_DECAY = r"bn\d*/(scale|bias)$"
"""Paths of batch-norm's parameters, which weight decay leaves alone."""
BRANCHES = {50: "group3_block5"}
"""Where TreeNet branches: with two branches 1.31x of ResNet-50, which is nearest to 1.33."""


@dataclasses.dataclass(frozen=True)
class Config(cifar.Evolving, cifar.RunConfig):
    """Flags of imagenet.py: a method of the FreeTickets paper on pictures in class folders."""

    method: Literal[
        "dst", "edst", "dense", "static_sparse", "treenet", "batch_ensemble", "mimo"
    ] = "edst"
    """dst, edst: masks that evolve. static_sparse: random masks that stay. dense: no masks.
    treenet, batch_ensemble, mimo: several predictions of one network.
    """
    preset: Literal["demo", "paper"] = "demo"
    """What the other flags start from. demo: a small network on synthetic pictures, a minute.
    paper: as published.
    """
    data_dir: Annotated[Path | None, There("folder")] = None
    """Holds train/CLASS/*.JPEG and val/CLASS/*.JPEG; also looked for in the folder that
    JAXTICKETS_DATA names.
    """
    imagenet_a: Annotated[Path | None, There("folder")] = None
    """Holds ImageNet-A, one folder per class; evaluated on as well, over its 200 classes."""
    depth: Annotated[int, Within(1, 1300)] = 50
    """Layers of the ResNet."""
    width: Annotated[int, Within(1, 1024)] = 64
    """Channels of its first group."""
    stem: Literal["imagenet", "cifar"] = "imagenet"
    """Its first layers: a 7x7 convolution and pooling, each with stride 2, or a 3x3 convolution."""
    size: Annotated[int, Within(1, 8192)] = 224
    """Height and width that the network sees, pixels."""
    workers: Annotated[int | None, Within(1, 1024)] = None
    """Threads that decode pictures; one per available core, at most 16, if not given."""
    label_smoothing: Annotated[float, Within(0, below=1)] = 0.1
    """Share of the target that goes to all classes alike."""
    members: Annotated[int | None, Members] = None
    """Tickets, networks or predictions of one; 2, or 1 for dense and 4 for batch_ensemble, if not
    given.
    """
    epochs: Annotated[float | None, Epochs] = None
    """Epochs of each network (all but edst); 200 of dst and static_sparse and 150 of the others, if
    not given.
    """
    lr: Annotated[float, Rate] = 0.1
    """Learning rate after the warm-up; for all but edst a tenth of it after each of 30, 60 and 90 %
    of the training.
    """
    warmup: Annotated[float, Epochs] = 5
    """Epochs in which the learning rate rises from 0; 0 for none."""
    explore: Annotated[float, Epochs] = 30
    """Epochs of exploration (edst); 0 for none."""
    refine: Annotated[float, Epochs] = 70
    """Epochs of each refinement (edst)."""
    refine_lr: Annotated[tuple[float, float, float], Rate] = (0.01, 0.001, 0.0001)
    """Learning rates of a refinement (edst): for three, three and one seventh of it."""
    escape: float = 0.8
    """Drop fraction q of the global exploration between refinements (edst)."""
    branch_at: str | None = None
    """Block that the branches begin with (treenet); of depth 50 the one that comes nearest to the
    paper's cost, if not given.
    """
    repetition: Annotated[int, Within(1, 1000)] = 4
    """How many times a training step shows an example to each head (mimo)."""
    input_repetition: Annotated[float, Within(0, 1)] = 0.6
    """Share of rows in which all heads see the same example, rho (mimo)."""
    reference: Annotated[float, Epochs] = 150
    """Epochs of the dense training run that costs are compared with."""

    def update_rule(self) -> SGD:
        """The optimizer: SGD without weight decay on batch-norm.

        BatchEnsemble's fast weights have none either, and learn half as fast.
        """
        fast = (Override("fast_", lr=0.5, weight_decay=0.0),)
        return SGD(
            self.momentum,
            self.nesterov,
            self.weight_decay,
            overrides=(
                Override(NO_DECAY, weight_decay=0.0),
                *(fast if self.method == "batch_ensemble" else ()),
            ),
        )

    @property
    def size_of_ensemble(self) -> int:
        """Members, those of the paper if the flag is not given."""
        if self.members is not None:
            return self.members
        return {"dense": 1, "batch_ensemble": 4}.get(self.method, 2)


def make_plan(config: Config) -> Plan:
    """The plan that the flags name."""
    members = config.size_of_ensemble
    epochs = config.epochs
    if epochs is None:
        epochs = 200 if config.method in ("dst", "static_sparse") else 150
    shared: dict[str, Any] = {"optimizer": config.update_rule(), "batch_size": config.batch_size}
    evolving = config.evolving()
    with command.planning():
        if config.method == "edst":
            refine_lr = Piecewise(config.refine_lr, until=(30 / 70, 60 / 70))
            rates = {
                "lr": warmed(Constant(config.lr), config.warmup, config.explore or 1),
                "refine_lr": refine_lr,
            }
            plan = jt.edst(
                members,
                explore=config.explore,
                refine=config.refine,
                escape=config.escape,
                **rates,
                **evolving,
                **shared,
            )
        else:
            steps = Piecewise(
                tuple(config.lr / 10**i for i in range(4)), until=(60 / 200, 120 / 200, 180 / 200)
            )
            lr = warmed(steps, config.warmup, epochs)
            if config.method == "dst":
                plan = jt.dst(members, epochs=epochs, lr=lr, **evolving, **shared)
            elif config.method == "static_sparse":
                plan = jt.static_sparse(
                    members,
                    config.sparsity,
                    epochs,
                    lr=lr,
                    distribution=config.distribution,
                    **shared,
                )
            elif config.method in NETWORKS:
                plan = jt.dense(1, epochs, lr=lr, **shared)
                plan = dataclasses.replace(plan, name=config.method)
            else:
                plan = jt.dense(members, epochs, lr=lr, **shared)
                name = "dense_ensemble" if members > 1 else "dense"
                plan = dataclasses.replace(plan, name=name)
        return dataclasses.replace(plan, reference=Length(config.reference))


def warmed(schedule: Constant | Piecewise, warmup: float, epochs: float) -> Schedule:
    """The schedule of a phase of `epochs`, with a linear rise from 0 over the first `warmup`."""
    if not 0 <= warmup < epochs:
        raise jt.PlanError(
            f"--warmup is shorter than the first {epochs:g} epochs of training, or 0 for none; got"
            f" {warmup:g}."
        )
    return Warmup(warmup / epochs, schedule) if warmup else schedule


NETWORKS: Mapping[str, Callable[[Config, Any], Any]] = {
    "treenet": lambda config, plain: jt.models.TreeNet(
        plain, config.size_of_ensemble, branch_at=config.branch_at or BRANCHES.get(config.depth)
    ),
    "batch_ensemble": lambda config, plain: jt.models.BatchEnsemble(plain, config.size_of_ensemble),
    "mimo": lambda config, plain: jt.models.MIMO(
        plain, config.size_of_ensemble, config.repetition, config.input_repetition
    ),
}
"""Networks of several predictions, made of the plain one."""


def make_task(config: Config, num_classes: int) -> jt.Task:
    """The network that the flags name, as a task."""
    with command.planning():
        network = jt.models.ResNet(
            config.depth,
            num_classes=num_classes,
            stem=config.stem,
            width=config.width,
            dtype=jnp.dtype(config.precision),
        )
        if config.method in NETWORKS:
            network = NETWORKS[config.method](config, network)
        return jt.classification(network, label_smoothing=config.label_smoothing)


def blank(config: Config) -> jt.Dataset:
    """A data set of the right shapes that holds nothing: enough to count FLOPs."""
    examples, classes = (
        (shapes.TRAIN * len(shapes.NAMES), len(shapes.NAMES))
        if config.preset == "demo"
        else (1_281_167, 1000)
    )
    x = np.broadcast_to(np.float32(0), (examples, config.size, config.size, 3))
    return jt.Dataset(x, np.broadcast_to(np.int32(0), examples), classes, name="blank")


def show_paper(config: Config, plan: Plan, task: jt.Task) -> None:
    """Print what the paper's table 3 says of a method's cost, where it has that row."""
    method = {"dense": "independent"}.get(plan.name, plan.name)
    members = plan.members * task.heads
    paper = published("paper", "imagenet", task.name, method, members)
    if config.preset != "paper" or paper is None or paper.training is None:
        return
    runs = f"{paper.training_runs:g} training run{'' if paper.training_runs == 1 else 's'}"
    ours = plan.training_runs
    told = f"{paper.source}: {paper.training:.2f}x in {runs}, here in {ours}"
    told += f": {paper.counted}" if paper.counted else "."
    Console().print(told, highlight=False, soft_wrap=True)


def run(config: Config) -> None:
    """Find or draw the pictures, then train, evaluate, write and show the experiment."""
    plan, data = make_plan(config), blank(config)
    ledger = running.priced(config, plan, make_task(config, data.num_classes or 0), data)
    if config.cost and config.data_dir is None:
        running.show_cost(ledger)
        show_paper(config, plan, make_task(config, data.num_classes or 0))
        return
    out = command.out_folder(
        config.out or f"runs/imagenet-{config.method}-{config.preset}-seed{config.seed}"
    )
    # a run folder is empty when its run begins
    picture_folder = out.with_name(f"{out.name}-pictures")
    synthetic = config.preset == "demo" and config.data_dir is None
    folder = config.data_dir
    if synthetic:
        folder = hosts.together(lambda: shapes.write(picture_folder, config.seed))
        Console().print(
            f"The pictures in {folder} are synthetic: shapes that the demo drew.",
            highlight=False,
            soft_wrap=True,
        )
    train, val = jt.data.imagenet(folder, size=config.size, workers=config.workers)
    settings = {"size": config.size, "workers": config.workers}
    also = {}
    if synthetic:
        train, val = (
            dataclasses.replace(train, name="synthetic shapes"),
            dataclasses.replace(val, name="synthetic shapes"),
        )
        also["subset"] = jt.data.image_test(
            picture_folder / "subset",
            train.class_names,
            name="subset",
            resize=val.resize,
            **settings,
        )
    if config.imagenet_a is not None:
        also["imagenet_a"] = jt.data.imagenet_a(config.imagenet_a, train.class_names, **settings)
    task = make_task(config, train.num_classes)
    if config.cost:
        running.show_cost(running.priced(config, plan, task, train))
        return
    running.run_and_report(
        config, plan.name, plan, task, (train, val), out, also=also, predict_batch=config.batch_size
    )


PAPER = Config(preset="paper", batch_size=64, weight_decay=1e-4, update_every=4000, decay="cosine")
DEMO = dataclasses.replace(
    PAPER,
    preset="demo",
    depth=10,
    width=8,
    stem="cifar",
    size=32,
    batch_size=32,
    sparsity=0.5,
    update_every=20,
    epochs=8,
    warmup=1,
    explore=5,
    refine=4,
    refine_lr=(0.05, 0.01, 0.001),
    reference=8,
)

if __name__ == "__main__":
    command.main(run, {"demo": DEMO, "paper": PAPER}, __doc__)
