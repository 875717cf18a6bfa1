"""Checkpoints of a run: atomic, asynchronous, the last few kept, read back only if every byte is right.

orbax writes them. A digest of all leaves stands beside each, because a file that lost its end can still be readable as
zeros: what does not match is passed over with a warning, and the checkpoint before it is used.
"""

from __future__ import annotations

import logging
import time
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxtickets import members
from jaxtickets.errors import RunError

PyTree = Any


class Checkpoints:
    """The checkpoints of one run folder.

    Args:
      folder: where they lie; made when the first one is saved.
      keep: how many of the newest stay.
    """

    def __init__(self, folder: Path, keep: int = 3) -> None:
        import orbax.checkpoint as ocp

        # orbax reports every file it touches at INFO and complains of shardings that a single device does not need.
        logging.getLogger("absl").setLevel(logging.ERROR)
        self._ocp = ocp
        self._folder = folder.resolve()
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, create=True, enable_async_checkpointing=True)
        self._manager = ocp.CheckpointManager(self._folder, options=options)
        self._saved = time.monotonic()

    def age(self) -> float:
        """Seconds since the last checkpoint, whichever group of the run wrote it, or since the run began."""
        return time.monotonic() - self._saved

    def save(self, state: PyTree, host: PyTree, place: dict[str, Any]) -> None:
        """Write `state` and `place` as the newest checkpoint; returns as soon as the arrays are copied.

        Args:
          state: arrays on the devices.
          host: the same arrays on the host, for the digest.
          place: where in the run it is, as JSON.
        """
        self._saved = time.monotonic()
        number = max(self._manager.all_steps(), default=-1) + 1
        place = place | {"digest": digest(host)}
        arguments = self._ocp.args.Composite(state=self._ocp.args.StandardSave(state), place=self._ocp.args.JsonSave(place))
        self._manager.save(number, args=arguments, force=True)

    def newest(self, like: Callable[[dict[str, Any]], PyTree]) -> tuple[dict[str, Any], PyTree] | None:
        """Place and state of the newest checkpoint that is whole; None if there is none. Damaged ones are removed.

        Args:
          like: makes, from a place, a tree of `jax.ShapeDtypeStruct` with the shardings that a checkpoint there has. It
            may raise `RunError`: that checkpoint is whole, and not for this run.
        """
        for number in sorted(self._manager.all_steps(), reverse=True):
            try:
                args = self._ocp.args
                place = dict(self._manager.restore(number, args=args.Composite(place=args.JsonRestore()))["place"])
                expected = place.pop("digest")
                state = self._manager.restore(number, args=args.Composite(state=args.StandardRestore(like(place))))["state"]
                if digest(members.fetch(state)) != expected:
                    raise ValueError("its digest does not match")
            except RunError:
                raise
            except Exception as error:  # orbax raises many kinds for a damaged file; each means the same here
                reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
                warnings.warn(f"checkpoint {self._folder / str(number)} is damaged ({reason}); using the one before it.", stacklevel=4)
                self._manager.delete(number)
                continue
            return place, state
        return None

    def close(self) -> None:
        """Wait for the last write."""
        self._manager.wait_until_finished()
        self._manager.close()


def digest(state: PyTree) -> int:
    """CRC-32 of every leaf in order, with dtypes and shapes."""
    crc = 0
    for leaf in jax.tree.leaves(state):
        array = np.ascontiguousarray(leaf)
        crc = zlib.crc32(f"{array.dtype}{array.shape}".encode(), crc)
        crc = zlib.crc32(array.reshape(-1).view(np.uint8).data, crc)
    return crc
