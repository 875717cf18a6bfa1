"""Sources of an evaluation: run folders, ticket files, and predictions from elsewhere."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from support.own_networks import OwnNetwork

import jaxtickets as jt
from jaxtickets import evaluation
from jaxtickets import tickets as ticket_file
from jaxtickets.errors import ReportError
from jaxtickets.files import paths

TICKETS, RESULTS = "tickets.safetensors", "results.json"
PREDICTIONS = ("log_proba", "proba", "predictions")


class Predictions:
    """Predictions of a test set from anywhere, in the place of the ensemble that made them."""

    masks = None

    def __init__(self, log_proba: np.ndarray, y: np.ndarray) -> None:
        self._log_proba, self.y = log_proba, y

    def __len__(self) -> int:
        return len(self._log_proba)

    def member_log_proba(self, x: Any, *, batch_size: int | None = None) -> np.ndarray:
        """Log-probabilities [M, B, C], whatever x is: the labels have been compared."""
        return self._log_proba


@dataclasses.dataclass(frozen=True)
class Source:
    """Something to be evaluated, which becomes a row of the table.

    Args:
      name: in tables.
      path: as it was given.
      tickets: a `TicketEnsemble` or `Predictions`.
      digest: equal for equal tickets.
      run: contents of the run's results.json, if there is one.
      folder: the run folder, if it is one.
      method: the plan's name.
      model: the network's name.
      code: digest of the file that a network of the user's own is from; None for the package's.
      part: whether it is a part of the run's tickets, whose cost is not the run's.
    """

    name: str
    path: Path
    tickets: Any
    digest: str
    run: dict[str, Any] | None = None
    folder: Path | None = None
    method: str | None = None
    model: str = "not told"
    code: str | None = None
    part: bool = False

    @property
    def stored(self) -> bool:
        """Whether the source holds predictions and no networks."""
        return isinstance(self.tickets, Predictions)

    @property
    def dataset(self) -> str | None:
        """The data set of the source's run, if that is known."""
        return None if self.run is None else str((self.run.get("dataset") or {}).get("name"))


def read(path: Path, own: Sequence[OwnNetwork] = ()) -> list[Source]:
    """The sources at a path: run folder, folder of run folders, ticket file, .npz of predictions.

    Args:
      path: as it was given.
      own: networks of the user's own.

    Raises:
      ReportError: nothing of these, a run that is not finished, a damaged file.
      TicketFileError: a ticket file that is damaged or of a network that this package does not
        know.
    """
    path = paths.given(path)
    if path.is_dir():
        if (path / TICKETS).is_file():
            return [_tickets(path / TICKETS, path, own)]
        inside = sorted(folder for folder in path.iterdir() if (folder / TICKETS).is_file())
        if inside:
            return [_tickets(folder / TICKETS, folder, own) for folder in inside]
        begun = (path / "config.json").is_file()
        raise ReportError(
            f"{path}: "
            + (
                f"not finished: no {TICKETS} yet"
                if begun
                else f"no run folder: no {TICKETS}, here or one folder down"
            )
        )
    if not path.is_file():
        raise ReportError(f"{path}: there is no such file or folder.")
    return [_predictions(path) if path.suffix == ".npz" else _tickets(path, None, own)]


def name_apart(sources: list[Source]) -> list[Source]:
    """The same sources with names that differ.

    The folder above, and then a number, is added where two are equal.
    """
    named = []
    for source in sources:
        name = source.name
        if sum(other.name == name for other in sources) > 1:
            name = f"{(source.folder or source.path).absolute().parent.name}/{name}"
        number = sum(other.name == name or other.name.startswith(f"{name} (") for other in named)
        named.append(dataclasses.replace(source, name=f"{name} ({number + 1})" if number else name))
    return named


def only_first(source: Source, count: int) -> Source:
    """The source's first so many tickets, or predictions, as a source of its own.

    Raises:
      ReportError: it has fewer.
    """
    tickets = source.tickets
    if count > len(tickets):
        raise ReportError(f"--first {count}: {source.path} has {len(tickets)}.")
    part = (
        Predictions(tickets.member_log_proba(None)[:count], tickets.y)
        if isinstance(tickets, Predictions)
        else tickets[:count]
    )
    name = f"{source.name}, first" + (f" {count}" if count > 1 else "")
    digest = f"{source.digest}[:{count}]"
    return dataclasses.replace(source, name=name, tickets=part, digest=digest, part=True)


def _task(file: Path, name: str, models: Sequence[OwnNetwork]) -> tuple[jt.Task, str | None]:
    """The network of a ticket file: the user's by name, the package's, or the user's only one."""
    matches = [network for network in models if network.task.name == name]
    if matches:
        return matches[0].task, matches[0].code
    try:
        return jt.classification(jt.models.network(name)), None
    except ValueError as error:
        if len(models) == 1:
            return models[0].task, models[0].code
        made = ", ".join(network.task.name for network in models)
        raise jt.TicketFileError(
            f"{file}: {error} Of a network of your own give"
            f" {f'one of that name; --model makes {made}' if models else '--model module:factory'}."
        ) from None


def _tickets(file: Path, folder: Path | None, networks: Sequence[OwnNetwork]) -> Source:
    metadata = ticket_file.about(file)
    task, code = _task(file, metadata["task"], networks)
    run = None
    if folder is not None and (folder / RESULTS).is_file():
        try:
            run = json.loads((folder / RESULTS).read_bytes())
            if not isinstance(run, dict) or not isinstance(run.get("dataset"), dict | None):
                raise ValueError("it is no object with a dataset")
        except (OSError, ValueError) as error:
            raise ReportError(
                f"{folder / RESULTS}: damaged ({error}); run the experiment's command again."
            ) from None
    plan = metadata["plan"]
    return Source(
        name=folder.absolute().name if folder else file.stem,
        path=folder or file,
        tickets=jt.load(file, task),
        digest=metadata["sha256"],
        run=run,
        folder=folder,
        method=plan.name if plan else None,
        model=metadata["task"],
        code=code,
    )


def _predictions(file: Path) -> Source:
    """The source in an .npz of probabilities [M, B, C] or [B, C], and labels `y` [B].

    They are called `log_proba`, `proba` or `predictions` (probabilities).
    """
    try:
        with np.load(file, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files if name in (*PREDICTIONS, "y")}
    except (OSError, ValueError, KeyError, EOFError, SyntaxError, MemoryError) as error:
        raise ReportError(f"{file}: no .npz of numbers, or damaged: {error}.") from None
    except Exception as error:  # zipfile and zlib have kinds of their own
        raise ReportError(f"{file}: damaged: {type(error).__name__}: {error}.") from None
    kinds = [name for name in PREDICTIONS if name in arrays]
    if not kinds or "y" not in arrays:
        raise ReportError(
            f"{file}: has {', '.join(arrays) or 'none of them'}; wanted one of"
            f" {', '.join(PREDICTIONS)} [M, B, C], and y [B]."
        )
    predictions = arrays[kinds[0]]
    log_proba = predictions if kinds[0] == "log_proba" else evaluation.as_log_proba(predictions)
    log_proba = log_proba[None] if log_proba.ndim == 2 else log_proba
    y = arrays["y"]
    digest = hashlib.sha256(
        np.ascontiguousarray(log_proba).tobytes() + np.ascontiguousarray(y).tobytes()
    ).hexdigest()
    return Source(file.stem, file, Predictions(log_proba, y), digest)
