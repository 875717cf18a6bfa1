"""The flags that every experiment has, and rules for the values of flags.

They are checked before anything is read, downloaded or trained.
"""

from __future__ import annotations

import dataclasses
import math
import typing
from pathlib import Path
from typing import Annotated, Any, Literal

import jax

import jaxtickets as jt
from jaxtickets.files import paths
from jaxtickets.members import member_mesh


class FlagError(ValueError):
    """A flag that has no valid value; it names the flag, what was given and what is allowed."""


@dataclasses.dataclass(frozen=True)
class Within:
    """Rule of a flag: the bounds of its number, or of each of its numbers.

    From `low` to `high`, above `above`, below `below`.
    """

    low: float = -math.inf
    high: float = math.inf
    above: float = -math.inf
    below: float = math.inf

    def __contains__(self, value: float) -> bool:
        return (
            abs(value) < 2**63
            and self.low <= value <= self.high
            and self.above < value < self.below
        )

    def __str__(self) -> str:
        """The bounds in words, as they follow "is" in a message."""
        bounds = {
            "at least": self.low,
            "above": self.above,
            "at most": self.high,
            "below": self.below,
        }
        limits = " and ".join(
            f"{word} {bound:,.10g}" for word, bound in bounds.items() if math.isfinite(bound)
        )
        return limits or "a finite number"


@dataclasses.dataclass(frozen=True)
class Different:
    """Rule of a flag of several values: no two of them are equal.

    There is at least one unless none may be given.
    """

    empty: bool = False


@dataclasses.dataclass(frozen=True)
class There:
    """Rule of a flag that names a file or folder to read: it is there.

    `what` it names, and a `hint` what to do where it is not there.
    """

    what: str
    hint: str = ""


NUMBER = Within()
# The largest are far beyond what anybody has run, and small enough that a plan of them is made and
# priced in seconds.
Members = Within(high=10_000)
Rate = Within(0)
Count = Within(1, 2**31 - 1)
Epochs = Within(0, 1_000_000)
Count0 = Within(0, 2**31 - 1)
Seed = Within(0, 2**32 - 1)
Bins = Within(1, 10_000)


def check(config: Any) -> None:
    """Check that every flag has a value that it may have.

    Whatever a flag is for, a number is finite and below 2^63; more is said where it is declared, by
    `Annotated`.

    Raises:
      FlagError: the first that cannot.
    """
    hints = typing.get_type_hints(type(config), include_extras=True)
    for field in dataclasses.fields(config):
        value, hint = getattr(config, field.name), hints[field.name]
        rules = getattr(hint, "__metadata__", ())
        positional = any("positional" in str(rule).lower() for rule in rules)
        flag = field.name if positional else f"--{field.name.replace('_', '-')}"
        values = value if isinstance(value, tuple) else (value,)
        for item in values:
            _check_one(flag, item, rules)
        for rule in rules:
            if isinstance(rule, Different) and (
                len(set(values)) < len(values) or not (values or rule.empty)
            ):
                raise FlagError(
                    f"{flag}: one or more, no two of them equal; got"
                    f" {' '.join(map(str, values)) or 'none'}."
                )


def _check_one(flag: str, value: Any, rules: tuple[Any, ...]) -> None:
    if isinstance(value, int | float) and not isinstance(value, bool):
        allowed = next((rule for rule in rules if isinstance(rule, Within)), NUMBER)
        if value not in allowed:
            finite = "" if abs(value) < math.inf or allowed == NUMBER else "a finite number, "
            raise FlagError(f"{flag} is {finite}{allowed}; got {str(value)[:40]}.")
    if isinstance(value, Path):
        for rule in rules:
            if isinstance(rule, There) and not _exists(value):
                raise FlagError(
                    f"{flag} {value}: there is no {rule.what} of that"
                    f" name.{f' {rule.hint}' if rule.hint else ''}"
                )


def _exists(path: Path) -> bool:
    try:
        return paths.given(path).exists()
    except (OSError, ValueError):  # a name too long, or ~ where nobody is at home
        return False


@dataclasses.dataclass(frozen=True)
class Hardware:
    """Flags of how any experiment is carried out, such as its precision and layout."""

    preset: str = "demo"
    """What the other flags start from."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Precision of computation; parameters, scores and statistics stay float32."""
    layout: Literal["auto", "measured", "one_by_one", "unroll", "vmap", "map"] = "auto"
    """How members lie on the hardware; auto chooses by network and device, measured tries all."""
    members_together: Annotated[int | None, Within(1, 10_000)] = None
    """How many members train at a time, whatever the device's memory."""
    checkpoint_every: Annotated[float, Within(0, 604_800)] = 60.0
    """Seconds between checkpoints."""
    distributed: bool = False
    """Run on several hosts, on each of which the same command is started: those that SLURM or Cloud
    TPU names, or JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID. Files lie where all
    of them see them.
    """
    wait: Annotated[float, Within(1, 86_400)] = 300.0
    """Seconds that --distributed waits for the other hosts."""

    def fit_kwargs(self, members: int) -> dict[str, Any]:
        """Arguments of `jt.fit` for a plan of so many members."""
        together, layout = self.members_together, None
        if self.layout == "one_by_one":
            if (together or 1) > 1:
                raise FlagError(
                    f"--members-together {together} and --layout one_by_one exclude each other."
                )
            layout = self._lying(1, "unroll")
        elif self.layout in ("unroll", "vmap", "map"):
            layout = self._lying(min(together or members, members), self.layout)
        elif together is not None or self.layout == "measured":
            layout = jt.AutoLayout(together, measure=True if self.layout == "measured" else None)
        return {"layout": layout, "checkpoint_every": self.checkpoint_every}

    def _lying(self, group: int, across: Literal["unroll", "vmap", "map"]) -> jt.Layout:
        """So many members at a time; of several hosts over the devices of all."""
        if not self.distributed:
            return jt.Layout(group, across)
        if self.layout == "unroll":
            raise FlagError("--layout: of several hosts it is auto, vmap, map or one_by_one.")
        across = "vmap" if across == "unroll" else across
        return jt.Layout(group, across, mesh=member_mesh(group, jax.devices()))


@dataclasses.dataclass(frozen=True)
class SeedsConfig(Hardware):
    """Flags of scripts that run other scripts' experiments, each from several seeds."""

    seeds: Annotated[tuple[int, ...], Seed, Different()] = (0,)
    """One run of everything for each; tables and figures have the mean and, for several, its
    standard error.
    """
    dataset: Literal["digits", "cifar10", "cifar100"] | None = None
    """Another data set than the preset's."""
    data_dir: Annotated[
        Path | None, There("folder", "Without CIFAR there is --dataset digits.")
    ] = None
    """Where CIFAR lies; see the other scripts."""
    bins: Annotated[int, Bins] = 15
    """Bins of the expected calibration error."""
    cost: bool = False
    """Print what everything would cost in theoretical FLOPs, and end."""

    def override(self, experiment: Any, seed: int, *names: str) -> Any:
        """The experiment with these flags, and with those named here that are set."""
        changes = {
            name: getattr(self, name)
            for name in (
                "data_dir",
                "precision",
                "bins",
                "checkpoint_every",
                "layout",
                "distributed",
                "members_together",
            )
        } | {"seed": seed}
        changes |= {
            name: getattr(self, name)
            for name in ("dataset", *names)
            if getattr(self, name) is not None
        }
        return dataclasses.replace(experiment, **changes)
