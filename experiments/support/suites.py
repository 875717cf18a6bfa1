"""The test sets that tickets are evaluated on, and the parts of an evaluation."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from support.evaluation_flags import Config
from support.sources import Source

import jaxtickets as jt
from jaxtickets import evaluation
from jaxtickets.data import ImageTest
from jaxtickets.data.corruptions import CORRUPTIONS
from jaxtickets.errors import ReportError

SETS = ("svhn", "noise", "cifar10", "cifar100")
OOD = {
    "cifar10": ("svhn", "cifar100", "noise"),
    "cifar100": ("svhn", "cifar10", "noise"),
    "digits": ("noise",),
}


def check_names(config: Config) -> None:
    """Check that the corruptions and sets that the flags name exist, before anything is read.

    Raises:
      ReportError: a name that is none.
    """
    rules = (
        ("--corruptions", "corruptions", config.corruptions, CORRUPTIONS),
        ("--ood", "sets", config.ood, SETS),
    )
    for flag, noun, names, allowed in rules:
        if unknown := [name for name in names if name not in allowed]:
            raise ReportError(f"{flag}: got {unknown[0]!r}; {noun} are {', '.join(allowed)}.")


def test_set(config: Config, found: list[Source]) -> jt.Dataset | ImageTest:
    """The one test set of all sources.

    Raises:
      ReportError: runs of different data sets, none that is known, or predictions whose labels are
        not those of the test set.
    """
    names = {source.name: source.dataset for source in found if source.dataset}
    name = config.dataset or next(iter(names.values()), None)
    if name is None:
        raise ReportError(
            "--dataset: ticket files and predictions do not say what they are of; give digits,"
            " cifar10, cifar100, imagenet or folders."
        )
    if name == "folders":
        name = next(iter(names.values()), name)
    for source, other in names.items():
        if other != name:
            raise ReportError(
                f"{source} is of {other}, and not of {name}: results on different test sets do not"
                " stand in one table."
            )
    streamed = "imagenet" in (name, config.dataset) or config.dataset == "folders"
    if not streamed and name not in OOD:
        raise ReportError(
            f"{next(iter(names))} is of {name}; this script evaluates on {', '.join(OOD)}, imagenet"
            " and pictures in class folders (--dataset folders --data-dir DIR). Elsewhere call"
            " jt.evaluate."
        )
    test = (
        pictures(config, found, name) if streamed else jt.data.load(name, "test", config.data_dir)
    )
    for source in found:
        if source.stored and not np.array_equal(source.tickets.y, test.y):
            y = source.tickets.y
            difference = (
                f"{np.count_nonzero(y != test.y):,} labels differ"
                if y.shape == test.y.shape
                else f"{y.shape} labels, {test.y.shape} wanted"
            )
            raise ReportError(
                f"{source.path}: y is not that of the test set of {name}, in its order:"
                f" {difference}."
            )
    if config.examples is None or config.examples >= len(test):
        return test
    if isinstance(test, ImageTest):
        raise ReportError("--examples: pictures lie class by class, and the first are of a few.")
    if config.examples < 1 or any(source.stored for source in found):
        raise ReportError(
            f"--examples {config.examples}: at least one, and not together with stored predictions,"
            " which are of all."
        )
    return test.take(slice(config.examples), f"{test.name}, first {config.examples:,}")


def pictures(config: Config, found: list[Source], name: str) -> ImageTest:
    """The pictures in `val` of the data folder, as large as the networks take them."""
    sizes = {network_size(source) for source in found if not source.stored}
    if len(sizes) > 1:
        raise ReportError(
            f"the networks take pictures of {' and '.join(map(str, sorted(sizes)))} pixels; one"
            " table is of one test set."
        )
    size = sizes.pop() if sizes else 224
    _, val = jt.data.imagenet(config.data_dir, size=size, workers=config.workers)
    return dataclasses.replace(val, name=name)


def network_size(source: Source) -> int:
    """Height and width that a source's network takes."""
    shape = getattr(source.tickets.x_spec, "shape", ())
    if len(shape) != 3 or shape[0] != shape[1]:
        raise ReportError(f"{source.path}: a network of {list(shape)}, and no square pictures.")
    return shape[0]


def make_parts(
    config: Config, test: jt.Dataset | ImageTest, names: tuple[str, ...]
) -> dict[str, Any]:
    """The parts of the suite that the flags ask for, by name.

    Sets that are missing are missed before anything is predicted.

    Raises:
      ReportError: a part that the test set cannot have.
    """
    streamed = isinstance(test, ImageTest)
    if not streamed and config.shifted:
        raise ReportError(f"--shifted: of pictures in class folders, not of {test.name}.")
    if streamed and "all" in config.suite:
        names = tuple(name for name in names if name not in ("ood", "adversarial"))
    elif streamed and (asked := [name for name in names if name in ("ood", "adversarial")]):
        raise ReportError(
            f"--suite {asked[0]}: of images in memory; {test.name} is read as it is predicted."
        )
    if streamed and config.recalibrate:
        raise ReportError("--recalibrate: of training images in memory; leave it out.")
    makers: Mapping[str, Callable[[], Any]] = {
        "corrupted": lambda: evaluation.Corrupted(corrupted_sets(config, test)),
        "shifted": lambda: Shifted(shifted_sets(config, test)),
        "ood": lambda: evaluation.OutOfDistribution(other_sets(config, test)),
        "adversarial": lambda: evaluation.Adversarial(
            config.attack, config.step, config.steps, config.radius
        ),
        "diversity": evaluation.Diverse,
        "features": evaluation.Features,
        "landscape": lambda: Landscape(
            jt.data.load(test_name(test), "train", config.data_dir) if config.recalibrate else None,
            config.plane,
            config.parent,
        ),
    }
    return {name: makers[name]() for name in names}


def shifted_sets(config: Config, test: Any) -> dict[str, ImageTest]:
    """The folders of more pictures by name, read as the test set is."""
    settings = {name: getattr(test, name) for name in ("size", "resize", "workers")}
    sets = {}
    for folder in config.shifted:
        name = re.sub("[^a-z0-9]+", "_", folder.absolute().name.lower()).strip("_")
        if name in sets:
            raise ReportError(f"--shifted: two folders are called {name}; rename one.")
        sets[name] = jt.data.image_test(folder, test.class_names, name=name, **settings)
    return sets


def test_name(test: Any) -> str:
    """The name of the whole test set."""
    return test.name.partition(",")[0]


def corrupted_sets(config: Config, test: Any) -> Any:
    """The corrupted test sets that the flags ask for: published or generated ones."""
    if isinstance(test, ImageTest):
        if config.corrupted == "generated":
            raise ReportError(
                "--corrupted generated: of images in memory; ImageNet-C is published."
            )
        which = {"corruptions": config.corruptions} if config.corruptions else {}
        how = {"severities": config.severities, "size": test.size, "workers": test.workers}
        return jt.data.imagenet_c(config.data_dir, test.class_names, **which, **how)
    published = {"cifar10": jt.data.cifar10_c, "cifar100": jt.data.cifar100_c}.get(test_name(test))
    which = {"corruptions": config.corruptions} if config.corruptions else {}
    if config.corrupted != "generated" and len(test) == 10_000 and published is not None:
        try:
            return published(config.data_dir, severities=config.severities, **which)
        except jt.data.DataNotFoundError:
            if config.corrupted == "published":
                raise
    elif config.corrupted == "published":
        raise ReportError(
            "--corrupted published: there are published sets of cifar10 and cifar100, of all"
            f" images; not of {test.name}."
        )
    return jt.data.corrupted(test, config.corruptions or None, config.severities, seed=config.seed)


def other_sets(config: Config, test: Any) -> dict[str, jt.Dataset]:
    """The out-of-distribution sets, prepared as the test set is."""
    names = config.ood or OOD[test_name(test)]
    makers: Mapping[str, Callable[[], jt.Dataset]] = {
        "svhn": lambda: jt.data.svhn("test", config.data_dir, prepare=test.prepare),
        "noise": lambda: jt.data.noisy(test, config.noise, seed=config.seed),
        **{
            name: lambda name=name: jt.data.load(name, "test", config.data_dir)
            for name in ("cifar10", "cifar100")
        },
    }
    sets = {}
    for name in names:
        if name not in makers or name == test_name(test):
            raise ReportError(
                f"--ood: got {name!r}; sets are"
                f" {', '.join(other for other in makers if other != test_name(test))}."
            )
        try:
            sets[name] = dataclasses.replace(makers[name](), prepare=test.prepare)
        except jt.data.DataNotFoundError as error:
            remaining = " ".join(other for other in names if other != name)
            raise ReportError(f"{error}\nOr go without it: --ood {remaining}") from None
    return sets


@dataclasses.dataclass(frozen=True)
class Landscape:
    """The part "landscape": loss and accuracy between tickets.

    On straight lines from the first ticket, or the parent's, to each other one; and on the plane
    through the first three.
    """

    recalibrate: jt.Dataset | None = None
    plane: int = 0
    parent: Path | None = None
    name = "landscape"

    def __call__(
        self, tickets: Any, test: jt.Dataset, *, batch_size: int, **_: Any
    ) -> dict[str, Any]:
        """Scores along the lines from the first ticket; none where there is one ticket."""
        if self.parent is not None:
            parent = jt.load(self.parent, tickets.task).tickets
            if len(parent) != 1:
                raise evaluation.EvaluationError(
                    f"--parent {self.parent}: {len(parent)} tickets, and a parent is one network."
                )
            tickets = dataclasses.replace(tickets, tickets=(*parent, *tickets.tickets))
        ways = range(1, min(len(tickets), 8))
        options = {"recalibrate": self.recalibrate, "batch_size": batch_size}
        found = {
            "recalibrated": self.recalibrate is not None,
            "parent": self.parent is not None,
            "lines": [evaluation.line(tickets, 0, j, test, **options) for j in ways],
        }
        if self.plane and len(tickets) > 2:
            found["plane"] = evaluation.plane(
                tickets, 0, 1, 2, test, points=max(self.plane, 2), **options
            )
        return found


@dataclasses.dataclass(frozen=True)
class Shifted:
    """The part "shifted": scores on more pictures of the classes, or of some of them.

    Predictions are restricted to the classes that a set has, as ImageNet-A's are to its 200.
    """

    sets: Mapping[str, ImageTest]
    name = "shifted"

    def __call__(
        self, tickets: Any, test: Any, *, bins: int, batch_size: int, combine: Any
    ) -> dict[str, Any]:
        """Scores of the ensemble and of its members' mean, by set."""
        options = {"bins": bins, "batch_size": batch_size, "combine": combine}
        found = {}
        for name, pictures in self.sets.items():
            scores = evaluation.evaluate(tickets, pictures, **options).to_dict()
            found[name] = {part: scores[part] for part in ("ensemble", "members_mean", "examples")}
            found[name]["classes"] = pictures.num_classes
        return found
