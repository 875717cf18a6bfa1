"""What a device's memory holds, what a compiled program needs of it, and whether it ran out."""

from __future__ import annotations

import os
import re
from typing import Any

import jax
import numpy as np

from jaxtickets.errors import PlanError

PyTree = Any

VARIABLE = "JAXTICKETS_DEVICE_MEMORY"
"""Environment variable: the memory of a device that a run may use, such as 12GiB."""

_UNITS = {"": 1, "k": 1000, "m": 1000**2, "g": 1000**3, "t": 1000**4}
_UNITS |= {f"{unit}i": 1024 ** (1 + i) for i, unit in enumerate("kmgt")}
# The rest is lost between buffers.
_USABLE = 0.95


class DoesNotFit(Exception):
    """A program needs more than the memory that it may use; `needed` bytes, None if unknown."""

    def __init__(self, needed: int | None) -> None:
        super().__init__(needed)
        self.needed = needed


def stated_memory() -> int | None:
    """The bytes that JAXTICKETS_DEVICE_MEMORY states; None where it states none.

    Raises:
      PlanError: it is no amount of memory.
    """
    text = os.environ.get(VARIABLE, "").strip()
    if not text:
        return None
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgt]i?|)b?", text.lower())
    amount = float(found[1]) * _UNITS[found[2]] if found else 0.0
    if not 1 <= amount < 2**63:
        raise PlanError(
            f"{VARIABLE} is the memory of a device that a run may use, such as 12GiB, 800MB or"
            f" 16000000000 (bytes); got {text[:40]!r}."
        )
    return int(amount)


def usable_memory() -> int | None:
    """Bytes of the smallest device that a run may fill, as the devices tell; None where they do
    not, as CPUs do not.
    """
    stats = [device.memory_stats() or {} for device in jax.local_devices()]
    limits = [each["bytes_limit"] for each in stats if each.get("bytes_limit")]
    return int(min(limits) * _USABLE) if limits else None


def bytes_needed(program: Any) -> int | None:
    """Bytes that a device needs while a compiled program runs: arguments, results, temporaries and
    the program itself; None where the backend does not tell.
    """
    try:
        stats = program.memory_analysis()
    except (NotImplementedError, jax.errors.JaxRuntimeError):
        return None
    if stats is None:
        return None
    new = stats.output_size_in_bytes - stats.alias_size_in_bytes
    return (
        stats.argument_size_in_bytes
        + max(0, new)
        + stats.temp_size_in_bytes
        + stats.generated_code_size_in_bytes
    )


def bytes_of(tree: PyTree) -> int:
    """Bytes of the arrays of a tree, or of their shapes."""
    return sum(
        int(np.prod(leaf.shape, dtype=np.int64)) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(tree)
    )


def ran_out(error: BaseException) -> bool:
    """Whether it is a device's word that its memory ran out."""
    return isinstance(error, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" in str(error)


def amount(size: int) -> str:
    """Bytes for people.

    >>> amount(1536 * 2**20)
    '1.5 GiB'
    """
    for power, unit in ((3, "GiB"), (2, "MiB"), (1, "KiB")):
        if size >= 1024**power:
            return f"{size / 1024**power:.1f} {unit}"
    return f"{size} bytes"
