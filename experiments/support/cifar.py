"""Flags of the image experiments, and the optimizer, schedule, network and data they name.

Not a script. Each script adds the flags of its methods and a plan; `running.py` goes the way from
there to tickets and tables.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_type_hints

import jax.numpy as jnp
import numpy as np
from support.flags import Bins, Count, Count0, Epochs, Hardware, Rate, Seed, There, Within

import jaxtickets as jt
from jaxtickets.masks import Units, Unstructured
from jaxtickets.plan import SGD, Adam, Optimizer, Plan
from jaxtickets.schedules import Constant, Piecewise, Polyline, Schedule

SHAPES = {
    "digits": (1347, (8, 8, 1), 10),
    "cifar10": (50_000, (32, 32, 3), 10),
    "cifar100": (50_000, (32, 32, 3), 100),
}
DEPTHS = {"wide_resnet": 28, "resnet": 18, "densenet": 121}


@dataclasses.dataclass(frozen=True)
class RunConfig(Hardware):
    """Flags of how any image experiment is run."""

    batch_size: Annotated[int, Count] = 128
    """Examples per step and member."""
    momentum: Annotated[float, Within(0, below=1)] = 0.9
    """Momentum of SGD."""
    weight_decay: Annotated[float, Rate] = 5e-4
    """Weight decay: L2 of SGD, decoupled of Adam."""
    nesterov: bool = False
    """Nesterov momentum of SGD."""
    bins: Annotated[int, Bins] = 15
    """Bins of the expected calibration error."""
    seed: Annotated[int, Seed] = 0
    """Every member's key is derived from it."""
    out: Path | None = None
    """Run folder; runs/EXPERIMENT-PRESET-seedN if not given. The same command resumes an
    interrupted run.
    """
    cost: bool = False
    """Print what the run would cost in theoretical FLOPs, and end."""


@dataclasses.dataclass(frozen=True)
class Config(RunConfig):
    """Flags of every CIFAR experiment."""

    dataset: Literal["digits", "cifar10", "cifar100"] = "cifar10"
    """digits comes with scikit-learn; CIFAR is looked for in --data-dir and downloaded if it is
    nowhere.
    """
    data_dir: Annotated[Path | None, There("folder", "Without CIFAR there is --preset demo.")] = (
        None
    )
    """Where CIFAR lies: the official binary or python folder or archive, or a prepared
    tensorflow-datasets folder.
    """
    augment: bool = True
    """Random crops and, on CIFAR, flips of the training images."""
    model: Literal["wide_resnet", "lenet", "resnet", "densenet"] = "wide_resnet"
    """Network."""
    depth: Annotated[int | None, Within(1, 1300)] = None
    """Layers; 28 of a wide_resnet (6 n + 4), 18 of a resnet, 121 of a densenet if not given."""
    width: Annotated[int, Within(1, 1024)] = 10
    """Width factor of a wide_resnet."""
    size: Literal["S", "M", "L"] = "M"
    """Size of a lenet."""
    initial: Literal["lecun", "torch"] = "lecun"
    """How a lenet's weights are drawn: LeCun's normal, or PyTorch's default, which Prune and Tune's
    code has.
    """
    dropout: Annotated[float, Within(0, below=1)] = 0.0
    """Dropout rate inside the network."""
    optimizer: Literal["sgd", "adam"] = "sgd"
    """SGD with momentum, or Adam."""
    collect: Literal["last", "best"] = "last"
    """Take the last iterate, or the best on --validation held-out training images."""
    validation: Annotated[int, Count0] = 0
    """Training images held out."""
    probe: Annotated[int, Count0] = 0
    """Epochs between records of what every network predicts of 1,000 test images (fewer where there
    are fewer), in OUT/probe; 0: none.
    """
    compare_dense: bool = False
    """Also train one dense network on the same schedule, up to the first ticket."""

    def plan(self) -> Plan:
        """The plan that the flags name."""
        raise NotImplementedError

    def network(self, plain: Any) -> Any:
        """The network that the method makes of the plain one."""
        return plain

    @property
    def name(self) -> str:
        """The method's name as run folders have it."""
        raise NotImplementedError

    @property
    def start_from(self) -> Path | None:
        """A ticket file that the plan starts from."""
        return None

    def update_rule(self) -> Optimizer:
        """The optimizer that the flags name."""
        if self.optimizer == "adam":
            return Adam(weight_decay=self.weight_decay)
        return SGD(self.momentum, self.nesterov, self.weight_decay)

    def shared(self) -> dict[str, Any]:
        """Arguments that all methods take."""
        return {"optimizer": self.update_rule()} | {
            name: getattr(self, name) for name in ("batch_size", "collect", "validation")
        }

    def own(self) -> dict[str, Any]:
        """The flags that the method's script added, by name."""
        shared = {field.name for field in dataclasses.fields(Config)}
        return {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if field.name not in shared
        }


@dataclasses.dataclass(frozen=True)
class ScheduledConfig(Config):
    """Flags of the methods that train along one learning-rate schedule."""

    lr: Annotated[float, Rate] = 0.1
    """First learning rate."""
    schedule: Literal["steps", "line", "constant"] = "steps"
    """steps: a tenth after half of the training, a hundredth after three quarters. line: on after
    half of it, along a line to a hundredth at nine tenths. constant: the first learning rate
    throughout.
    """

    def rate(self) -> Schedule:
        """The schedule that the flags name."""
        if self.schedule == "constant":
            return Constant(self.lr)
        if self.schedule == "line":
            return Polyline((self.lr, self.lr, self.lr / 100, self.lr / 100), at=(0, 0.5, 0.9, 1))
        return steps(self.lr)


@dataclasses.dataclass(frozen=True)
class Evolving:
    """Flags of masks that evolve."""

    sparsity: float = 0.8
    """Share of zeros among the kernels' weights."""
    distribution: Literal["uniform", "er", "erk"] = "erk"
    """Layer-wise sparsities."""
    update_every: int = 1000
    """Steps between mask updates (Delta T)."""
    drop_fraction: float = 0.5
    """Share of active weights replaced by a mask update."""
    decay: Literal["constant", "cosine", "linear"] = "constant"
    """Schedule of the drop fraction over each training phase."""
    growth: Literal["gradient", "random"] = "gradient"
    """Grow by the largest gradients (RigL) or at random (SET)."""
    regrown: Literal["keep", "zero"] = "keep"
    """Whether a weight dropped and regrown in one update keeps its value."""
    weight_update: bool = True
    """Also update the weights on a step that updates the mask."""
    channels: float = 0.0
    """Share of the channels that are removed and cut out on the way; edst does it exploring."""
    unit: Literal["connection", "neuron"] = "connection"
    """What goes and comes in a mask update: single weights, or whole units (channels, neurons)."""

    def evolving(self) -> dict[str, Any]:
        """Arguments of the methods whose masks evolve."""
        names = {field.name for field in dataclasses.fields(Evolving)} - {"unit"}
        structure = Units() if self.unit == "neuron" else Unstructured()
        return {name: getattr(self, name) for name in sorted(names)} | {"structure": structure}


@dataclasses.dataclass(frozen=True)
class EvolvingConfig(Evolving, Config):
    """Flags of the methods whose masks evolve."""

    def own(self) -> dict[str, Any]:
        """The flags that the method's script added, by name."""
        own = super().own()
        return {name: own[name] for name in own.keys() - {"unit"}} | self.evolving()


C = TypeVar("C", bound=Config)


def shortened(config: C, factor: float) -> C:
    """The flags with every length in epochs divided by `factor`, and the steps between updates."""
    hints = get_type_hints(type(config), include_extras=True)
    lengths = {name for name, hint in hints.items() if Epochs in getattr(hint, "__metadata__", ())}
    changes: dict[str, Any] = {}
    for name in lengths & {name for name in hints if getattr(config, name) is not None}:
        changes[name] = getattr(config, name) / factor
    if (every := getattr(config, "update_every", None)) is not None:
        changes["update_every"] = max(1, round(every / factor))
    return dataclasses.replace(config, **changes)


Preset = Literal["demo", "small", "paper"]


def steps(lr: float) -> Piecewise:
    """The learning rates of FreeTickets: a tenth at epoch 125 of 250, a hundredth at 187."""
    return Piecewise((lr, lr / 10, lr / 100), until=(125 / 250, 187 / 250))


def small_network(config: C) -> C:
    """The flags with a network that two CPU cores train on CIFAR-10: minutes per ten epochs."""
    return dataclasses.replace(config, preset="small", model="lenet", size="M")


def demo_network(config: C) -> C:
    """The flags with a network that two CPU cores train on digits in seconds."""
    return dataclasses.replace(
        config, preset="demo", dataset="digits", depth=10, width=1, batch_size=64
    )


def make_task(config: Config) -> jt.Task:
    """The network that the flags name, as a task.

    Raises:
      PlanError: a network that cannot be: a depth that is not 6 n + 4, a dropout rate of 2.
    """
    shared = {
        "num_classes": SHAPES[config.dataset][2],
        "dropout": config.dropout,
        "dtype": jnp.dtype(config.precision),
    }
    depth = DEPTHS.get(config.model, 0) if config.depth is None else config.depth
    try:
        if config.model == "lenet":
            plain: Any = jt.models.LeNet(config.size, **shared, initial=config.initial)
        elif config.model == "wide_resnet":
            plain = jt.models.WideResNet(depth, config.width, **shared)
        else:
            plain = {"resnet": jt.models.ResNet, "densenet": jt.models.DenseNet}[config.model](
                depth, **shared
            )
        return jt.classification(config.network(plain))
    except ValueError as error:
        raise jt.PlanError(str(error)) from None


def make_data(config: Config) -> tuple[jt.Dataset, jt.Dataset]:
    """The training and test data that the flags name."""
    train, test = jt.data.pair(config.dataset, data_dir=config.data_dir)
    return (train if config.augment else dataclasses.replace(train, augment=None)), test


def make_probe(config: Config, test: jt.Dataset) -> dict[str, Any]:
    """Arguments of `jt.fit` that make it probe evenly spaced test images.

    Nothing is learned or selected from them.

    Raises:
      PlanError: a negative number of epochs.
    """
    if config.probe < 0:
        raise jt.PlanError(f"--probe is a number of epochs, 0 for no probes; got {config.probe}.")
    if config.probe == 0:
        return {}
    rows = np.arange(min(1000, len(test))) * len(test) // min(1000, len(test))
    return {"probe": test.take(rows), "probe_every": config.probe}


def blank(dataset: str) -> jt.Dataset:
    """A data set of the right shapes that holds nothing: enough to count FLOPs."""
    examples, shape, classes = SHAPES[dataset]
    return jt.Dataset(
        np.broadcast_to(np.float32(0), (examples, *shape)),
        np.broadcast_to(np.int32(0), examples),
        classes,
        name=dataset,
    )
