"""A run folder: what is run, its metrics as they come, its tickets.

`config.json` says what is run and on what, `metrics.jsonl` has one object per report, `tickets/` each ticket as it was
collected, `probe/` what networks predicted on the way (where that was asked for), `checkpoints/` the way back, and at the
end there are `tickets.safetensors` and `timing.json`.
"""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import os
import platform
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import jax
import numpy as np

from jaxtickets.ensemble import TicketEnsemble
from jaxtickets.errors import RunError

PACKAGES = ("jaxtickets", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


def versions() -> dict[str, str]:
    """Versions of Python and the packages that determine a run, and the backend it ran on."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    found["backend"] = f"{jax.default_backend()}: {jax.device_count()} x {jax.devices()[0].device_kind}"
    return found


def write_json(path: Path, data: Any) -> None:
    """JSON in one atomic step."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps(data, indent=2, allow_nan=False) + "\n")
    os.replace(temporary, path)


class RunFolder:
    """The folder of one run, for the time of a `with` block.

    While the run is not finished the folder is locked (by the operating system, which lets go when the process ends,
    however it ends). Of several processes of one run only the first writes.

    Args:
      path: the folder; made if it is not there.
      identity: what the run is: plan, task, data, key. It must equal that of the run already in the folder.

    Raises:
      RunError: the folder holds a run of another plan, task, data set or seed (names what differs), or is in use.
    """

    def __init__(self, path: str | Path, identity: dict[str, Any]) -> None:
        self.path = Path(path)
        self.tickets = self.path / "tickets"
        self.checkpoints = self.path / "checkpoints"
        self.probes = self.path / "probe"
        self.final = self.path / "tickets.safetensors"
        self.writes = jax.process_index() == 0
        if self.path.exists() and not self.path.is_dir():
            raise RunError(f"out={self.path} is a file; give a folder.")
        self.tickets.mkdir(parents=True, exist_ok=True)
        self._lock = _lock(self.path) if self.writes and not self.final.exists() else None
        try:
            self._check(json.loads(json.dumps(identity)))
        except BaseException:
            self.__exit__(None, None, None)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _check(self, identity: dict[str, Any]) -> None:
        config = self.path / "config.json"
        if config.exists():
            try:
                found = json.loads(config.read_text())["run"]
            except (ValueError, KeyError, TypeError):
                raise RunError(f"{config} cannot be read; move {self.path} away or give another out folder.") from None
            differences = list(_differences(found, identity))
            if differences:
                more = f" (and {len(differences) - 5} more)" if len(differences) > 5 else ""
                raise RunError(
                    f"{self.path} holds another run: " + "; ".join(differences[:5]) + f"{more}. "
                    "Give another out folder, or what that run was given, to go on with it."
                )
        elif self.writes:
            started = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
            write_json(config, {"run": identity, "versions": versions(), "started": started})

    def metrics(self) -> list[dict[str, Any]]:
        """All records of `metrics.jsonl`; a line cut off by a crash is passed over."""
        return read_metrics(self.path)

    def truncate_metrics(self, order: tuple[int, int, int, int]) -> None:
        """Drop the records of steps that a resumed run will take again: those after `(group, branch, phase, step)`."""
        if not self.writes:
            return
        records = [r for r in self.metrics() if (r["group"], r.get("branch", 0), r["phase"], r["step_in_phase"]) <= order]
        temporary = self.path / ".metrics.jsonl"
        temporary.write_text("".join(json.dumps(record) + "\n" for record in records))
        os.replace(temporary, self.path / "metrics.jsonl")

    def append_metrics(self, record: dict[str, Any]) -> None:
        """One more record."""
        if not self.writes:
            return
        with (self.path / "metrics.jsonl").open("a") as file:
            file.write(json.dumps(record) + "\n")

    def ticket(self, index: int) -> Path:
        """Where ticket `index` (from 0, in the order of collection) is kept."""
        return self.tickets / f"{index:03d}.safetensors"

    def save_ticket(self, alone: TicketEnsemble, index: int) -> None:
        """Keep an ensemble of that one ticket."""
        if self.writes:
            alone.save(self.ticket(index))

    def save_probe(self, name: str, arrays: dict[str, np.ndarray]) -> None:
        """Keep what one network predicted at one time, in one atomic step: equal arrays are equal bytes."""
        if not self.writes:
            return
        self.probes.mkdir(exist_ok=True)
        temporary = self.probes / f".{name}"
        with temporary.open("wb") as file:
            np.savez(file, **arrays)  # pyright: ignore[reportArgumentType]
        os.replace(temporary, self.probes / name)


def _lock(path: Path) -> IO[str] | None:
    """A lock on the folder that goes with the process; None where the system or the file system has none."""
    try:
        import fcntl
    except ImportError:
        return None
    file = (path / ".lock").open("a")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise RunError(f"{path} is in use by another process; wait for it, or give another out folder.") from None
    except OSError:
        file.close()
        return None
    return file


def read_metrics(path: str | Path) -> list[dict[str, Any]]:
    """The records of a run folder's `metrics.jsonl`, in order."""
    file = Path(path) / "metrics.jsonl"
    records = []
    for line in file.read_text().splitlines() if file.exists() else []:
        try:
            records.append(json.loads(line))
        except ValueError:
            break
    return records


def _differences(found: Any, wanted: Any, where: str = "") -> Any:
    if isinstance(found, dict) and isinstance(wanted, dict):
        for name in sorted(found.keys() | wanted.keys()):
            yield from _differences(found.get(name, "nothing"), wanted.get(name, "nothing"), f"{where}.{name}" if where else name)
    elif isinstance(found, list) and isinstance(wanted, list) and len(found) == len(wanted):
        for i, (a, b) in enumerate(zip(found, wanted, strict=True)):
            yield from _differences(a, b, f"{where}[{i}]")
    elif found != wanted:
        yield f"{where} was {_short(found)} there and is {_short(wanted)} here"


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."
