"""A run folder: what is run, its metrics as they come, its tickets.

`config.json` says what is run and on what, `metrics.jsonl` has one object per report, `tickets/`
each ticket as it was collected, `probe/` what networks predicted on the way (where that was asked
for), `checkpoints/` the way back, and at the end there are `tickets.safetensors` and `timing.json`.
"""

from __future__ import annotations

import contextlib
import datetime
import functools
import hashlib
import json
import os
import re
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import jax
import numpy as np

from jaxtickets.engine.atomic import write_json
from jaxtickets.engine.checkpoints import numbers, tidy
from jaxtickets.engine.failing import read, reason, told
from jaxtickets.engine.identity import differences
from jaxtickets.engine.metrics import NAME, MetricsLog
from jaxtickets.engine.versions import versions
from jaxtickets.errors import RunError, TicketFileError
from jaxtickets.files import paths
from jaxtickets.plan import Plan
from jaxtickets.task import Task
from jaxtickets.tickets import reading, writing
from jaxtickets.tickets.ensemble import TicketEnsemble, load
from jaxtickets.tickets.ticket import Ticket

# What systems put into any folder.
_NOBODYS = frozenset({".DS_Store", "lost+found", ".ipynb_checkpoints"})
# Seconds until every host sees what another one wrote.
_NETWORK = 90.0
# What a run that was killed leaves half written: names of ours, the process behind them.
_HALF = {
    ".": re.compile(
        r"\.(config\.json|layout\.json|timing\.json|tickets\.safetensors|metrics\.jsonl)\.\d+"
    ),
    "tickets": re.compile(r"\.\d{3,}\.safetensors\.\d+"),
    "probe": re.compile(r"\.\d{3,}(\.\d{3,})?-\d{8,}\.npz"),
}


class RunFolder:
    """The folder of one run, for the time of a `with` block.

    While the run is not finished the folder is locked (by the operating system, which lets go when
    the process ends, however it ends). Of several processes of one run only the first writes.

    Args:
      path: the folder; made if it is not there. What is in it must be of a run.
      identity: what the run is: plan, task, data, key. It must equal that of the run already in the
        folder.

    Raises:
      RunError: the folder holds something else, or a run of another plan, task, data set or seed
        (names what differs), or is in use, or cannot be written.
    """

    def __init__(self, path: str | Path, identity: dict[str, Any]) -> None:
        self.path = out_folder(path)
        self.tickets = self.path / "tickets"
        self.checkpoints = self.path / "checkpoints"
        self.probes = self.path / "probe"
        self.final = self.path / "tickets.safetensors"
        self.writes = jax.process_index() == 0
        told_metrics = functools.partial(self._writing, NAME)
        self.metrics_log = MetricsLog(self.path, self.writes, told_metrics)
        identity = json.loads(json.dumps(identity))
        self._lock: IO[str] | None = None
        with told(f"out={self.path} cannot be a run folder"):
            if self.path.exists() and not self.path.is_dir():
                raise RunError(f"out={self.path} is a file; give a folder.")
            if self.writes:
                _check_ours(self.path)
                self.path.mkdir(parents=True, exist_ok=True)
            self.finished = self.final.exists()
            self._lock = _lock(self.path) if self.writes and not self.finished else None
        try:
            with told(f"out={self.path} cannot be a run folder"):
                recorded = self._check(identity)
                # Of what was written down when the run began: another version of JAX may trace the
                # same functions to other programs. (Tickets are the same with and without probes.)
                self.run = digest_of(
                    {name: part for name, part in recorded.items() if name != "probe"}
                )
                if self.writes and not self.finished:
                    self.tickets.mkdir(exist_ok=True)
                    self._tidy()
                    self._check_tickets()
        except BaseException:
            self.__exit__(None, None, None)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _check(self, identity: dict[str, Any]) -> dict[str, Any]:
        """The identity that the folder's run began with; writes it down for a run that begins."""
        config = self.path / "config.json"
        if not self.writes:
            _await(config)
        if config.exists():
            try:
                found = json.loads(read(config))["run"]
            except (ValueError, KeyError, TypeError, RecursionError):
                raise RunError(
                    f"{config} cannot be read; move {self.path} away or give another out folder."
                ) from None
            refusals, doubt = differences(found, identity)
            if refusals:
                more = f" (and {len(refusals) - 5} more)" if len(refusals) > 5 else ""
                raise RunError(
                    f"{self.path} holds another run: " + "; ".join(refusals[:5]) + f"{more}. "
                    "Give another out folder, or what that run was given, to go on with it."
                )
            if doubt:
                warnings.warn(f"{self.path}: {doubt}. It goes on as if they were.", stacklevel=4)
            return found
        if self.writes:
            started = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
            write_json(config, {"run": identity, "versions": versions(), "started": started})
        return identity

    def _check_tickets(self) -> None:
        """Raise `RunError` where a ticket of another run lies in the place of one of ours."""
        for file in sorted(self.tickets.glob("[0-9]*.safetensors")):
            if file.stem.isdecimal() and file == self.ticket(int(file.stem)):
                with contextlib.suppress(TicketFileError):  # damaged: it is made again
                    self._check_made_here(file, reading.about(file).get("made_by"), int(file.stem))

    def _check_made_here(self, file: Path, made_by: Any, ticket: int | None) -> None:
        if made_by == {"run": self.run, "ticket": ticket}:
            return
        if isinstance(made_by, dict) and made_by.get("run") == self.run:
            other = made_by.get("ticket")
            raise RunError(
                f"{file} holds {'all tickets' if other is None else f'ticket {other}'} of this run,"
                " under another one's name; put each file back to its place."
            )
        whose = "was not written by a run" if made_by is None else "is of another run"
        raise RunError(f"{file} {whose}, and this one's tickets belong there; move it away.")

    def _tidy(self) -> None:
        """Remove what killed processes left half written; the folder must be locked, so that nobody
        is still writing it.
        """
        if self._lock is None:
            return
        for file in self._half_written():
            file.unlink()

    def finish(self) -> None:
        """Remove the checkpoints of a run that has its tickets, and what killed processes left half
        written.
        """
        if not self.writes or not (self.checkpoints.is_dir() or self._half_written()):
            return
        # it is finished all the same, if it can only be read
        with contextlib.suppress(OSError, RunError):
            locked, self._lock = self._lock, self._lock or _lock(self.path)
            self._tidy()
            tidy(self.checkpoints, finished=True)
            if locked is None and self._lock is not None:
                self.__exit__(None, None, None)

    def _half_written(self) -> list[Path]:
        folders = [
            (self.path / name, half) for name, half in _HALF.items() if (self.path / name).is_dir()
        ]
        return [
            file
            for folder, half in folders
            for file in folder.iterdir()
            if half.fullmatch(file.name) and file.is_file()
        ]

    def load(self, task: Task, count: int) -> TicketEnsemble:
        """The tickets of a finished run, made again from `tickets/` where their own file is
        damaged.

        Args:
          task: whose they are.
          count: how many there are.

        Raises:
          RunError: the file is of another run, or cannot be read, or both it and `tickets/` are
            damaged.
        """
        with _readable(self.final):
            try:
                return self._load(self.final, task, None)
            except TicketFileError as error:
                damage = error
        if not self.writes:
            raise damage
        try:
            each = [self.read_ticket(index, task) for index in range(count)]
        except (FileNotFoundError, TicketFileError) as error:
            raise RunError(
                f"{damage} Nor can it be made again from {self.tickets}: {error} Move {self.path}"
                " away, or give another out folder."
            ) from None
        warnings.warn(f"{damage} It was made again from {self.tickets}.", stacklevel=3)
        order = sorted(range(count), key=lambda i: position_of(each[i].tickets[0].info))
        whole = TicketEnsemble(
            task, tuple(each[i].tickets[0] for i in order), each[0].x_spec, each[0].plan
        )
        self.save_final(whole)
        return self._load(self.final, task, None)

    def read_ticket(self, index: int, task: Task) -> TicketEnsemble:
        """An ensemble of the ticket `index` that was collected before.

        Raises:
          FileNotFoundError, TicketFileError: it is gone or damaged.
          RunError: it is another one's, or cannot be read.
        """
        with _readable(self.ticket(index)):
            return self._load(self.ticket(index), task, index)

    def _load(self, file: Path, task: Task, ticket: int | None) -> TicketEnsemble:
        if not file.exists():
            raise FileNotFoundError(f"there is no ticket file {file}.")
        with file.open("rb") as opened:  # what cannot be read is told apart from what is damaged
            while opened.read(2**24):
                pass
        self._check_made_here(file, reading.about(file).get("made_by"), ticket)
        return load(file, task)

    def ticket(self, index: int) -> Path:
        """Where ticket `index` (from 0, in the order of collection) is kept."""
        return self.tickets / f"{index:03d}.safetensors"

    def save_ticket(
        self, task: Task, ticket: Ticket, x_spec: Any, plan: Plan | None, index: int
    ) -> None:
        """Keep a ticket, the `index`th that is collected."""
        if self.writes:
            made_by = {"run": self.run, "ticket": index}
            with self._writing(f"tickets/{self.ticket(index).name}"):
                writing.write(self.ticket(index), task, (ticket,), x_spec, plan, made_by)

    def save_final(self, tickets: TicketEnsemble) -> None:
        """Keep all tickets, in their order."""
        what = (tickets.task, tickets.tickets, tickets.x_spec, tickets.plan)
        with self._writing(self.final.name):
            writing.write(self.final, *what, {"run": self.run, "ticket": None})

    def save_timing(self, timing: dict[str, Any]) -> None:
        """Keep what the run took."""
        with self._writing("timing.json"):
            write_json(self.path / "timing.json", timing)

    def save_probe(self, name: str, arrays: dict[str, np.ndarray]) -> None:
        """Keep what one network predicted at one time, in one atomic step: equal arrays are equal
        bytes.
        """
        if not self.writes:
            return
        with self._writing(f"probe/{name}"):
            self.probes.mkdir(exist_ok=True)
            temporary = self.probes / f".{name}"
            with temporary.open("wb") as file:
                np.savez(file, **arrays)  # pyright: ignore[reportArgumentType]
            os.replace(temporary, self.probes / name)

    @contextlib.contextmanager
    def _writing(self, name: str) -> Iterator[None]:
        """Where the disk fails, `RunError` in one sentence."""
        try:
            there = numbers(self.checkpoints)
        except OSError:
            there = []
        then = (
            f"it goes on from checkpoint {there[-1]}"
            if there
            else "it starts over, as there is no checkpoint yet"
        )
        with told(f"{self.path / name} cannot be written", f"Run again after that: {then}."):
            yield


@contextlib.contextmanager
def _readable(file: Path) -> Iterator[None]:
    """What goes wrong beside the file's bytes is not damage."""
    try:
        yield
    except FileNotFoundError:
        raise
    except (OSError, MemoryError) as error:
        raise RunError(
            f"{file} cannot be read: {reason(error)}. Nothing was changed; run again when it can."
        ) from None


def out_folder(out: str | Path) -> Path:
    """The folder that `fit(out=...)` names, absolute; `RunError` where it names none."""
    try:
        return paths.given(out, "out")
    except ValueError as error:
        raise RunError(str(error)) from None


def position_of(info: dict[str, Any]) -> tuple[int, int, int]:
    """Where a ticket stands among those of its run: lineage by lineage, child by child, and within
    each as collected.
    """
    return info["lineage"], info.get("child", -1), info["collected"]


def digest_of(identity: dict[str, Any]) -> str:
    """SHA-256 of what a run is."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def _check_ours(path: Path) -> None:
    """Raise `RunError` where files lie that no run wrote, and none that a run did."""
    if not path.exists() or (path / "config.json").exists():
        return
    there = sorted(one.name for one in path.iterdir() if one.name not in _NOBODYS)
    # A run that is killed right at its start leaves no more than this.
    strange = [name for name in there if name != ".lock" and not _HALF["."].fullmatch(name)]
    if strange:
        more = f" and {len(strange) - 3} more" if len(strange) > 3 else ""
        raise RunError(
            f"out={path} is not empty and holds no run: there is {', '.join(strange[:3])}{more}. "
            f"Give a folder that is empty or not there yet, such as out={str(path / 'run')!r}."
        )


def _await(config: Path) -> None:
    """Raise `RunError` unless what host 0 has written comes into sight: file systems over a network
    take their time.
    """
    began = time.monotonic()
    while not config.exists():
        if time.monotonic() - began > _NETWORK:
            raise RunError(
                f"out={config.parent} is not the folder that host 0 writes to: there is no"
                f" {config.name} here. Several hosts need an out folder on a file system that all"
                " of them see."
            )
        time.sleep(0.2)


def _lock(path: Path) -> IO[str] | None:
    """A lock on the folder that goes with the process; None where the system or the file system has
    none.
    """
    try:
        import fcntl
    except ImportError:
        return None
    file = (path / ".lock").open("a")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise RunError(
            f"{path} is in use by another process; wait for it, or give another out folder."
        ) from None
    except OSError:
        file.close()
        return None
    return file
