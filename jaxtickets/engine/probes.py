"""Probes: what every network predicts of the same few inputs, along its training.

There is one file for each network and time: `probe/LINEAGE-STEP.npz` of a run folder, of a child `probe/LINEAGE.CHILD-STEP.npz`. It is
written before the next checkpoint is, so a run that goes on from a checkpoint has all files before it, and writes those after it again,
in equal bytes.
"""

from __future__ import annotations

import dataclasses
import math
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from jaxtickets import members
from jaxtickets.dataset import Dataset, EvaluationStream, Stream
from jaxtickets.ensemble import Ticket, TicketEnsemble, check_inputs
from jaxtickets.errors import DataError, RunError
from jaxtickets.task import Task

if TYPE_CHECKING:
    from jaxtickets.engine.group import GroupRun

PyTree = Any


@dataclasses.dataclass(frozen=True, eq=False)
class Probe:
    """Inputs that are predicted every so many epochs."""

    inputs: Dataset
    every: int

    def identity(self) -> dict[str, Any]:
        """What makes it this probe and no other, as JSON."""
        return {"inputs": self.inputs.fingerprint(), "examples": len(self.inputs), "every": self.every}


def make_probe(probe: Any, every: int, out: Any, task: Task, x_spec: PyTree) -> Probe | None:
    """A probe, checked; nothing is compiled.

    Raises:
      ValueError: no run folder for it, or not every so many whole epochs.
      DataError: inputs that the network cannot take.
    """
    if isinstance(every, bool) or not isinstance(every, int) or every < 1:
        raise ValueError(f"probe_every is a whole number of epochs, at least 1; got {every!r}.")
    if probe is None:
        return None
    if out is None:
        raise ValueError("probe: predictions are kept in the run folder, and there is none; give out, or leave probe out.")
    if isinstance(probe, Stream | EvaluationStream):
        raise DataError("probe is a Dataset, or arrays as the network takes them; got a stream. Take some examples of it into memory.")
    if not isinstance(probe, Dataset):
        probe = Dataset(jax.tree.map(np.asarray, probe), np.zeros(0, np.int32), None, name="probe")
    check_inputs(probe.x, probe.prepare, x_spec, f"{task.name} takes", "probe")
    examples = len(jax.tree.leaves(probe.x)[0])
    return Probe(dataclasses.replace(probe, y=np.zeros(examples, np.int32), num_classes=None), every)


def due(group: GroupRun, epochs: int | None, last: bool) -> bool:
    """Whether to predict now: so many whole epochs are done (None in the middle of one), the phase's `last` step perhaps too."""
    probe = group.run.probe
    return probe is not None and (last or (epochs is not None and epochs % probe.every == 0))


def record(group: GroupRun, step: int, epoch: float) -> None:
    """Predict the probe's inputs with every network of a group, and keep that; nothing where there is no probe."""
    probe, folder = group.run.probe, group.run.folder
    if probe is None or folder is None:
        return
    lineage = group.state["lineage"]
    host = members.fetch((lineage.params, lineage.mask, lineage.model_state))
    if not folder.writes:
        return
    tickets = tuple(Ticket(*members.member(host, i), info={}) for i in range(len(group.who)))
    predictions = TicketEnsemble(group.run.task, tickets, group.run.x_spec).ticket_log_proba(probe.inputs)
    for who, log_proba in zip(group.who, predictions, strict=True):
        child = -1 if who.child is None else who.child
        name = f"{who.lineage:03d}" + (f".{child:03d}" if child >= 0 else "")
        numbers = {"lineage": np.int64(who.lineage), "child": np.int64(child), "step": np.int64(step), "epoch": np.float64(epoch)}
        folder.save_probe(f"{name}-{step:08d}.npz", {"log_proba": log_proba.astype(np.float32)} | numbers)


def read_probes(path: str | Path) -> list[dict[str, Any]]:
    """What the networks of a run folder predicted along their training (`fit(..., probe=...)`).

    Returns:
      For each network and time, in this order: `{"lineage", "child" (None of a lineage itself), "step", "epoch", "log_proba"}`. Steps and
      epochs are those of one network since Start, those before a Fork included; log-probabilities are float32 [N, C] (of a regression
      predictions [N]), of a network of several heads those of their mean. Empty where nothing was probed.

    Raises:
      RunError: a file that is no such record, or is damaged.
    """
    found = [_read(file) for file in sorted((Path(path) / "probe").glob("[!.]*.npz"))]
    return sorted(found, key=lambda one: (one["lineage"], -1 if one["child"] is None else one["child"], one["step"]))


def _read(file: Path) -> dict[str, Any]:
    names = ("lineage", "child", "step", "epoch", "log_proba")
    try:
        with zipfile.ZipFile(file) as archive:
            found = {name: _array(archive, f"{name}.npy", file.stat().st_size) for name in names}
        numbers = {name: found[name].item() for name in names[:-1]}
        if found["log_proba"].dtype != np.float32 or found["log_proba"].ndim not in (1, 2):
            raise ValueError(f"its predictions are {found['log_proba'].dtype}{list(found['log_proba'].shape)}")
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise RunError(f"{file} is no record of a probe, or is damaged ({error}); remove it, or run again in another folder.") from error
    return numbers | {"child": None if numbers["child"] < 0 else numbers["child"], "log_proba": found["log_proba"]}


def _array(archive: zipfile.ZipFile, name: str, limit: int) -> np.ndarray:
    """An array of the archive; nothing is allocated that its bytes do not fill."""
    about = archive.getinfo(name)
    if about.compress_type != zipfile.ZIP_STORED or about.file_size > limit:
        raise ValueError(f"{name} says {about.file_size} bytes in a file of {limit}")
    with archive.open(about) as file:
        if np.lib.format.read_magic(file) != (1, 0):
            raise ValueError(f"{name} is of another version")
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
        data = file.read()
    if fortran or dtype.hasobject or math.prod(shape) * dtype.itemsize != len(data):
        raise ValueError(f"{name} has {len(data)} bytes for {dtype}{list(shape)}")
    return np.frombuffer(data, dtype).reshape(shape)
