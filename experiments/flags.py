"""The flags that every experiment has: how its members lie on the hardware. Not a script."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, Literal

import jaxtickets as jt


@dataclasses.dataclass(frozen=True)
class Hardware:
    """Flags of how any experiment is carried out."""

    preset: str = "demo"
    """What the other flags start from."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Precision of computation; parameters, scores and statistics stay float32."""
    layout: Literal["auto", "one_by_one", "unroll", "vmap"] = "auto"
    """How members lie on the hardware; auto chooses what was fastest for the backend."""
    checkpoint_every: float = 60.0
    """Seconds between checkpoints."""

    def how(self, members: int) -> dict[str, Any]:
        """Arguments of `jt.fit` for a plan of so many members."""
        layouts = {"one_by_one": jt.Layout(1, "unroll"), "unroll": jt.Layout(members, "unroll"), "vmap": jt.Layout(members, "vmap")}
        return {"layout": layouts.get(self.layout), "checkpoint_every": self.checkpoint_every}


@dataclasses.dataclass(frozen=True)
class Several(Hardware):
    """Flags of scripts that run other scripts' experiments, each from several seeds."""

    seeds: tuple[int, ...] = (0,)
    """One run of everything for each; tables and figures have the mean and, for several, its standard error."""
    dataset: Literal["digits", "cifar10", "cifar100"] | None = None
    """Another data set than the preset's."""
    data_dir: Path | None = None
    """Where CIFAR lies; see the other scripts."""
    bins: int = 15
    """Bins of the expected calibration error."""
    cost: bool = False
    """Print what everything would cost in theoretical FLOPs, and end."""

    def hand_on(self, experiment: Any, seed: int, *names: str) -> Any:
        """The experiment with these flags, and with those named here that are set."""
        given = {name: getattr(self, name) for name in ("data_dir", "precision", "bins", "checkpoint_every", "layout")} | {"seed": seed}
        given |= {name: getattr(self, name) for name in ("dataset", *names) if getattr(self, name) is not None}
        return dataclasses.replace(experiment, **given)
