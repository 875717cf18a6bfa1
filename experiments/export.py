"""Exports the tickets of a run to one file that runs without them, as StableHLO or ONNX.

    python experiments/export.py runs/edst -o edst.onnx
    python experiments/export.py runs/edst -o edst.jax --platforms cpu cuda
    python experiments/export.py t.safetensors -o t.onnx --dataset cifar10 --data-dir DIR --batch 1

RUN is a run folder (what --out of an experiment was) or a ticket file. The exported function takes
raw pixels or token ids, normalisation inside, and gives probabilities [B, C], the mean of the
members'. A file that ends in .onnx is ONNX, which ONNX Runtime and others run, and needs
`pip install "jaxtickets[export]"`; any other is StableHLO, which `jaxtickets.load_exported` runs on
each of --platforms.

What is made is run and compared with `predict_proba`; the largest difference is in the file, and
nothing is written that is off. Zeros of masks are stored like other numbers: the file of a masked
network is as large as a dense one's, that of a smaller network smaller.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from rich.console import Console
from support import command, own_networks, sources
from support.flags import Count, Different, There, Within
from support.suites import OOD

import jaxtickets as jt
from jaxtickets.errors import ReportError
from jaxtickets.files import paths

SETS = tuple(OOD)
Platform = Literal["cpu", "cuda", "rocm", "tpu"]


@dataclasses.dataclass(frozen=True)
class Config:
    """Flags of export.py: which tickets, to which file, and what it takes."""

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """A run folder or a ticket file."""
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    """The file to write; an earlier export is replaced, another file is not."""
    format: Literal["stablehlo", "onnx"] | None = None
    """By the file's name if not given: .onnx is ONNX, anything else StableHLO."""
    platforms: Annotated[tuple[Platform, ...], Different()] = ("cpu", "cuda", "tpu")
    """What StableHLO is lowered for; none of them need be here."""
    batch: Annotated[int | None, Count] = None
    """Examples at a time; any number if not given."""
    members: bool = False
    """Probabilities of every member, [M, B, C], instead of their mean."""
    dataset: Literal["digits", "cifar10", "cifar100"] | None = None
    """The data set whose raw inputs the function takes; that of the run if not given."""
    data_dir: Annotated[Path | None, There("folder")] = None
    """Where CIFAR lies."""
    model: Annotated[str | None, tyro.conf.arg(metavar="MODULE:FACTORY")] = None
    """A network of your own, as evaluate.py takes it. The file's code is run."""
    tolerance: Annotated[float, Within(above=0, high=1)] = 1e-4
    """How far probabilities may be off."""


def main() -> None:
    """Parse the flags and export."""
    command.main(export, Config, __doc__)


def export(config: Config) -> dict[str, Any]:
    """Read the tickets, write the file, and say what is in it."""
    out = paths.given(config.out, "--out")
    command.writable_file(out, "--out")
    found = sources.read(config.run, [own_networks.load(config.model)] if config.model else [])
    if len(found) != 1 or found[0].stored:
        raise ReportError(
            f"{config.run}: one run folder or ticket file is exported at a time, and here are"
            f" {'predictions' if len(found) == 1 else f'{len(found)} runs'}."
        )
    source, console = found[0], Console()
    name = config.dataset or source.dataset
    data = jt.data.load(name, "test", config.data_dir) if name in SETS else None
    if data is None:
        console.print(
            f"{source.name} is of {name or 'no data set that is told'}: inputs are as the network"
            " takes them. Of raw ones give --dataset, or call TicketEnsemble.export.",
            markup=False,
            highlight=False,
        )
    about = source.tickets.export(
        out,
        data,
        platforms=config.platforms,
        batch="any" if config.batch is None else config.batch,
        members=config.members,
        format=config.format,
        tolerance=config.tolerance,
    )
    weights, check = about["weights"], about["check"]
    lines = [
        f"{about['members']} members of {about['task']}, {weights['numbers']:,} weights of which"
        f" {weights['zeros']:,} are zeros, which are stored",
        f"takes {about['input']} per example, batch {about['batch']}; normalisation:"
        f" {about['normalisation']}",
        f"off by at most {check['largest_difference']:.2g} on {check['examples']} examples, in"
        f" {check['in']}"
        if check["examples"]
        else f"not checked: {check['why']}",
        f"wrote {out}, {out.stat().st_size:,} bytes",
    ]
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    return about


if __name__ == "__main__":
    main()
