"""The flags of evaluate.py."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

import tyro
from support.flags import Bins, Count, Different, Seed, There, Within

from jaxtickets.errors import ReportError

PARTS = (
    "clean",
    "corrupted",
    "shifted",
    "ood",
    "adversarial",
    "diversity",
    "features",
    "landscape",
)


@dataclasses.dataclass(frozen=True)
class Config:
    """Flags of evaluate.py: what is evaluated, on which data, and what is measured."""

    sources: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="SOURCE...")]
    """Run folders, folders of run folders, ticket files, .npz files of predictions."""
    suite: str = "clean,diversity"
    """Parts, with commas between them: clean (always made), corrupted, shifted, ood, adversarial,
    diversity, features, landscape; or all that the data can have.
    """
    dataset: Literal["digits", "cifar10", "cifar100", "imagenet", "folders"] | None = None
    """Test set; that of the runs if not given. imagenet, folders: pictures in val/CLASS of
    --data-dir, read as they are predicted; folders: of whatever data set.
    """
    model: Annotated[
        tuple[str, ...], Different(empty=True), tyro.conf.arg(metavar="MODULE:FACTORY")
    ] = ()
    """Networks of your own, as a file and a function in it (my_networks.py:make) or an importable
    module and a function (my.networks:make). Without arguments it returns the Task that was
    trained, or a network for jt.classification. The file's code is run.
    """
    data_dir: Annotated[Path | None, There("folder")] = None
    """Where the data sets lie: CIFAR, CIFAR-10-C, SVHN; ImageNet's train and val, ImageNet-C."""
    shifted: Annotated[tuple[Path, ...], There("folder"), Different(empty=True)] = ()
    """Folders of more pictures of the classes, or of some of them, in class folders, such as
    imagenet-a: of the part shifted, each scored over the classes that it has.
    """
    workers: Annotated[int | None, Within(1, 1024)] = None
    """Threads that decode pictures; one per available core, at most 16, if not given."""
    first: Annotated[int | None, Count] = None
    """Only the first so many tickets of every source; 1 for single networks."""
    examples: Annotated[int | None, Count] = None
    """Only the first so many test images, for a quick look; the tables say so."""
    combine: Literal["proba", "logits", "vote"] = "proba"
    """How members become one: mean of probabilities, mean of logits, or majority vote."""
    bins: Annotated[int, Bins] = 15
    """Bins of the calibration errors."""
    corrupted: Literal["auto", "published", "generated"] = "auto"
    """The published corrupted sets, or ones that are made here without a download; auto: the
    published ones if they are there.
    """
    corruptions: Annotated[tuple[str, ...], Different(empty=True)] = ()
    """Which of the corruptions; all that there are if not given."""
    severities: Annotated[tuple[int, ...], Within(1, 5), Different()] = (1, 2, 3, 4, 5)
    """Which of the severities."""
    ood: Annotated[tuple[str, ...], Different(empty=True)] = ()
    """Out-of-distribution sets: svhn, cifar10, cifar100, noise; those of the papers if none."""
    noise: Annotated[float, Within(0, 100)] = 0.2
    """Standard deviation of the noise, the largest pixel value being 1. (FreeTickets does not say
    which it takes.)
    """
    attack: Literal["fgsm", "pgd"] = "fgsm"
    """How adversarial examples are made."""
    step: Annotated[float | None, Within(above=0, high=1)] = None
    """Step of the attack, as a share of the pixels' range; 8/255 of fgsm and 2/255 of pgd if not
    given.
    """
    steps: Annotated[int, Within(1, 1000)] = 10
    """Steps of pgd."""
    radius: Annotated[float, Within(above=0, high=1)] = 8 / 255
    """Radius of pgd."""
    recalibrate: bool = False
    """Estimate batch statistics anew, from training images, at every place of landscape."""
    plane: Annotated[int, Within(0, 1000)] = 0
    """Places along each side of a map of the loss on the plane through three networks, of
    landscape: the first three tickets, or --parent and the first two; 0: no map.
    """
    parent: Annotated[Path | None, There("ticket file")] = None
    """Ticket file of the network that the tickets are children of: lines and plane of landscape
    begin there.
    """
    batch_size: Annotated[int, Count] = 500
    """Images predicted at a time; memory, not results."""
    seed: Annotated[int, Seed] = 0
    """Of what is generated: corruptions and noise."""
    figures: bool = True
    """Draw the pictures, each with its data as CSV."""
    out: Path = Path("runs/evaluation")
    """Folder of evaluation.json, the tables and the pictures."""

    @property
    def parts(self) -> tuple[str, ...]:
        """Names of the suite's parts that are asked for beside the clean scores."""
        names = [part.strip() for part in self.suite.split(",") if part.strip()]
        if "all" in names:
            return tuple(part for part in PARTS[1:] if part != "shifted" or self.shifted)
        if unknown := [part for part in names if part not in PARTS]:
            raise ReportError(
                f"--suite: got {unknown[0]!r}; parts are {', '.join(PARTS)}, with commas"
                " between them, or all."
            )
        if (self.plane or self.parent) and not {"landscape", "all"} & set(names):
            raise ReportError("--plane and --parent are of --suite landscape; add it.")
        if ("shifted" in names) != bool(self.shifted):
            raise ReportError(
                "--shifted names the folders of the part shifted: give both, or neither."
            )
        return tuple(part for part in PARTS[1:] if part in names)
