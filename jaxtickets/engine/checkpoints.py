"""Checkpoints of a run: atomic, asynchronous, the last few kept, read back only if every byte is
right.

A checkpoint is a folder with a number for a name: `state/`, which orbax writes, and `place/`, which
is written when orbax has done: where in the run it is, which run that is, and digests of the state
and of every file of it. The folder gets its number last. What was read and does not match its
digest is damaged: it is set aside under another name, and the checkpoint before it is used. What
matches, and cannot be restored all the same, is not damaged: that is an error, and nothing is
moved.
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import re
import shutil
import time
import warnings
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import jax
import numpy as np

from jaxtickets import members
from jaxtickets.engine.failing import read, reason, told
from jaxtickets.errors import RunError, TicketFileError

PyTree = Any
_PARTS = frozenset({"place", "state"})
_UNFINISHED = re.compile(r"\.(writing|removing)-\d+")


class Damaged(Exception):
    """Bytes were read, and are wrong."""


class Checkpoints:
    """The checkpoints of one run folder.

    Args:
      folder: where they lie; made if it is not there.
      run: the digest of what the run is, held against that of a checkpoint.
      writes: whether this process is the one that names and removes them; orbax's part of the
        writing is every process's.
      keep: how many of the newest stay.

    Raises:
      RunError: no checkpoint could be written there.
    """

    def __init__(self, folder: Path, run: str, writes: bool = True, keep: int = 3) -> None:
        import orbax.checkpoint as ocp

        # orbax reports every file it touches at INFO, complains of shardings that a single device
        # does not need, and prints the whole way of an error from each of its threads; the error
        # itself is raised here.
        logging.getLogger("absl").setLevel(logging.CRITICAL)
        logging.getLogger("asyncio").addFilter(_not_of_the_writer)
        self._ocp, self._folder, self._run, self._writes, self._keep = (
            ocp,
            folder,
            run,
            writes,
            keep,
        )
        if writes:
            with told(f"no checkpoint can be written to {folder}", "Nothing was trained."):
                folder.mkdir(exist_ok=True)
                (trial := folder / f".writing-{os.getpid()}").mkdir(exist_ok=True)
                trial.rmdir()
            tidy(folder, finished=False)
        self._next = max(numbers(folder), default=-1) + 1
        self._address, self._handle = _address(folder)
        # (Folders that are made in the background and cannot be made keep threads waiting for five
        # minutes.) Its time limit is measured on a clock that may be set while it writes, so it has
        # none; the disk's own errors end a write.
        options = ocp.options.AsyncOptions(
            timeout_secs=10**9, create_directories_asynchronously=False
        )
        self._writer = ocp.AsyncCheckpointer(ocp.StandardCheckpointHandler(), async_options=options)
        self._pending: tuple[int, dict[str, Any], PyTree] | None = None
        self._verified = False
        self._took = 0  # bytes of the disk, by the newest
        self._saved = time.monotonic()

    def age(self) -> float:
        """Seconds since the last checkpoint, whichever group of the run wrote it, or since the run
        began.
        """
        return time.monotonic() - self._saved

    def save(self, state: PyTree, host: PyTree, place: dict[str, Any]) -> None:
        """Write `state` and `place` as the newest checkpoint; returns as soon as the arrays are
        copied.

        Args:
          state: arrays on the devices.
          host: the same arrays on the host, for the digest.
          place: where in the run it is, as JSON.

        Raises:
          RunError: it cannot be written, or the one before it could not.
        """
        self.finish()
        self._saved = time.monotonic()
        number, self._next = self._next, self._next + 1
        try:
            if self._writes:
                self._look_for_room(host)
                (self._folder / f".writing-{number}").mkdir()
            self._writer.save(
                self._address / f".writing-{number}" / "state",
                args=self._ocp.args.StandardSave(state),
            )
        except Exception as error:  # orbax raises many kinds
            raise self._failed(number, error) from None
        # The first is read back when it is there; until then what it should hold is kept.
        like = None if self._verified else jax.tree.map(_hollow, host)
        self._pending = (number, {"run": self._run, "place": place, "state": digest(host)}, like)

    def _look_for_room(self, host: PyTree) -> None:
        """Raise `OSError` where the disk has none for one more: a write that runs into its end
        fails in many threads at once, some of which print what cannot be caught.
        """
        wanted = max(self._took, sum(leaf.nbytes for leaf in jax.tree.leaves(host)))
        if shutil.disk_usage(self._folder).free < 1.25 * wanted:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def poll(self) -> None:
        """Name the checkpoint that was being written, if that is done.

        Raises:
          RunError: it could not be written.
        """
        if self._pending is None:
            return
        number = self._pending[0]
        try:
            self._writer.check_for_errors()
        except Exception as error:
            raise self._failed(number, error) from None
        if self._writes and (self._folder / f".writing-{number}" / "state").exists():
            self.finish()

    def finish(self) -> None:
        """Wait for the last write, and name it.

        Raises:
          RunError: it could not be written.
        """
        if self._pending is None:
            return
        (number, about, like), self._pending = self._pending, None
        unnamed = self._folder / f".writing-{number}"
        try:
            self._writer.wait_until_finished()
            if like is not None and jax.process_count() == 1:
                self._read_back(number, about["state"], like)
            self._verified = True
            if self._writes:
                about["files"] = {
                    name: [len(data), zlib.crc32(data)] for name, data in _files(unnamed / "state")
                }
                text = json.dumps(about)
                (unnamed / "place").mkdir()
                with (unnamed / "place" / "place.json").open("w") as file:
                    file.write(json.dumps({"about": text, "crc32": zlib.crc32(text.encode())}))
                    file.flush()
                    os.fsync(file.fileno())
                unnamed.rename(named := self._folder / str(number))
                # (a file or folder takes whole blocks)
                self._took = sum(path.stat().st_size + 4096 for path in named.rglob("*"))
        except RunError:
            raise
        except Exception as error:
            raise self._failed(number, error) from None
        if self._writes:
            for old in numbers(self._folder)[: -self._keep]:
                _remove(self._folder, str(old))

    def _read_back(self, number: int, expected: int, like: PyTree) -> None:
        """Raise `RunError` unless what was written is what is read."""
        try:
            found = self._writer.restore(
                self._address / f".writing-{number}" / "state",
                args=self._ocp.args.StandardRestore(like),  # pyright: ignore[reportCallIssue]
            )
            says = "" if digest(found) == expected else "what is read is not what was written"
        except Exception as error:
            says = reason(error)
        if says:
            raise RunError(
                f"the first checkpoint in {self._folder} cannot be read back: {says}. Training was"
                " ended, as it could not be gone on with; give another out folder."
            )

    def _failed(self, number: int, error: Exception) -> RunError:
        self._pending = None
        if self._writes:
            # the space is wanted
            shutil.rmtree(self._folder / f".writing-{number}", ignore_errors=True)
        there = numbers(self._folder)
        then = (
            f"it goes on from checkpoint {there[-1]}"
            if there
            else "it starts over, as there is no checkpoint yet"
        )
        return RunError(
            f"checkpoint {number} cannot be written to {self._folder}: {reason(error)}. Run again"
            f" after that: {then}."
        )

    def newest(
        self, like: Callable[[dict[str, Any]], PyTree]
    ) -> tuple[dict[str, Any], PyTree] | None:
        """Place and state of the newest checkpoint that is whole; None if there is none. Damaged
        ones are set aside, with a warning.

        Args:
          like: makes, from a place, a tree of `jax.ShapeDtypeStruct` with the shardings that a
            checkpoint there has. It may raise `RunError`: that checkpoint is whole, and not for
            this run; or `FileNotFoundError` and `TicketFileError`: tickets collected before it are
            gone or damaged, and have to be made again.

        Raises:
          RunError: a checkpoint of another run, or one that is not damaged and cannot be read or
            restored.
        """
        for number in reversed(numbers(self._folder)):
            folder = self._folder / str(number)
            try:
                about = _about(folder)
                if about["run"] != self._run:
                    raise RunError(
                        f"checkpoint {folder} is of another run than {self._folder.parent}; move it"
                        " away."
                    )
                try:
                    target = like(about["place"])
                except (FileNotFoundError, TicketFileError) as error:
                    raise Damaged(f"a ticket collected before it is not there: {error}") from None
                state = self._restore(number, target)
                if digest(members.fetch(state)) != about["state"]:
                    raise Damaged("its digest does not match")
            except Damaged as error:
                aside = self._set_aside(folder)
                warnings.warn(
                    f"checkpoint {folder} is damaged ({error}); using the one before it. It was set"
                    f" aside as {aside}.",
                    stacklevel=4,
                )
                continue
            return about["place"], state
        return None

    def _restore(self, number: int, target: PyTree) -> PyTree:
        """The state, every byte of which is known to be right: what goes wrong now is no damage."""
        try:
            return self._writer.restore(
                self._address / str(number) / "state",
                args=self._ocp.args.StandardRestore(target),  # pyright: ignore[reportCallIssue]
            )
        except Exception as error:  # orbax and JAX raise many kinds
            raise RunError(
                f"checkpoint {self._folder / str(number)} is whole and cannot be restored:"
                f" {reason(error)}. Nothing was changed; run again when that is mended."
            ) from error

    def _set_aside(self, folder: Path) -> Path:
        aside = folder.with_name(f"damaged-{folder.name}")
        for more in range(1, 1000):
            if not aside.exists():
                break
            aside = folder.with_name(f"damaged-{folder.name}-{more}")
        if self._writes:
            with told(f"the damaged checkpoint {folder} cannot be set aside as {aside.name}"):
                folder.rename(aside)
        return aside

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Wait for the last write. Whether it fails matters only where nothing else has."""
        try:
            self.finish()
        except Exception:
            if error is None:
                raise
        finally:
            with contextlib.suppress(Exception):  # which is what was raised before
                self._writer.close()
            if self._handle is not None:
                os.close(self._handle)


def numbers(folder: Path) -> list[int]:
    """The checkpoints in a folder, oldest first; what nobody wrote as one is not counted."""
    if not folder.is_dir():
        return []
    ours = [
        one.name
        for one in folder.iterdir()
        if one.name.isdecimal() and any((one / part).exists() for part in _PARTS)
    ]
    return sorted(int(name) for name in ours if name == str(int(name)))


def tidy(folder: Path, finished: bool) -> None:
    """Remove what killed processes left half written or half removed; of a finished run all
    checkpoints, and the folder when it is empty.

    Only what a run wrote: whatever else is there stays, and so does what was set aside as damaged.
    """
    if not folder.is_dir():
        return
    for one in list(folder.iterdir()):
        if _UNFINISHED.fullmatch(one.name):
            _remove(folder, one.name)
    if finished:
        for number in numbers(folder):
            _remove(folder, str(number))
        if not any(folder.iterdir()):
            folder.rmdir()


def _remove(folder: Path, name: str) -> None:
    """Remove a checkpoint; a stranger's file in it stays. What the system does not let go of is
    tried again at the next start.
    """
    one, gone = folder / name, folder / f".removing-{name.rpartition('-')[2]}"
    try:
        if one != gone and not gone.exists() and {part.name for part in one.iterdir()} <= _PARTS:
            one = one.rename(gone)  # a kill from here on leaves no half checkpoint
        for part in list(one.iterdir()):
            if part.name in _PARTS or part.name.startswith("state.orbax-checkpoint-tmp"):
                shutil.rmtree(part, ignore_errors=True)
        one.rmdir()
    except OSError:
        pass


def _about(folder: Path) -> dict[str, Any]:
    """What a checkpoint says of itself, all of whose files are as they were written.

    Raises:
      Damaged: they are not.
      RunError: they cannot be read.
    """
    try:
        sealed = json.loads(read(folder / "place" / "place.json"))
        text = sealed["about"]
        if zlib.crc32(text.encode()) != sealed["crc32"]:
            raise Damaged("place.json was changed")
        about = json.loads(text)
        files = dict(about["files"])
        for name in files:
            data = read(folder / "state" / name)
            if [len(data), zlib.crc32(data)] != files[name]:
                raise Damaged(f"{name} is not what was written")
    except FileNotFoundError as error:
        raise Damaged(str(error)) from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise Damaged("place.json is not what was written") from None
    return about


def _files(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Relative names and bytes of all files below a folder."""
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        yield file.relative_to(folder).as_posix(), file.read_bytes()


def _address(folder: Path) -> tuple[Path, int | None]:
    """How orbax is told of the folder: it looks for its files by patterns, in which `[` and the
    like mean something else.

    Raises:
      RunError: there is such a letter, and no other way to name the folder.
    """
    if not re.search(r"[*?[]", str(folder)):
        return folder, None
    handle = os.open(folder, os.O_RDONLY)
    if (address := Path(f"/proc/self/fd/{handle}")).is_dir():
        return address, handle
    os.close(handle)
    raise RunError(
        f"checkpoints cannot be written below {folder}: orbax takes the *, ? or [ in it for a"
        " pattern; give another out folder."
    )


def _not_of_the_writer(record: logging.LogRecord) -> bool:
    """Whether a line of asyncio's is not about a failed write of one more array: the first has been
    raised.
    """
    error = record.exc_info[1] if record.exc_info else None
    return "OCDBT" not in str(error)


def _hollow(leaf: Any) -> np.ndarray:
    """An array of that shape and dtype, of no size in memory."""
    return np.broadcast_to(np.zeros((), leaf.dtype), leaf.shape)


def digest(state: PyTree) -> int:
    """CRC-32 of every leaf in order, with dtypes and shapes."""
    crc = 0
    for leaf in jax.tree.leaves(state):
        array = np.ascontiguousarray(leaf)
        crc = zlib.crc32(f"{array.dtype}{array.shape}".encode(), crc)
        crc = zlib.crc32(array.reshape(-1).view(np.uint8).data, crc)
    return crc
