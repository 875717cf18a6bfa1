"""Probes: what every network predicts of the same few inputs, along its training.

There is one file for each network and time: `probe/LINEAGE-STEP.npz` of a run folder, of a child
`probe/LINEAGE.CHILD-STEP.npz`. It is written before the next checkpoint is, so a run that goes on
from a checkpoint has all files before it, and writes those after it again, in equal bytes.
"""

from __future__ import annotations

import dataclasses
import io
import math
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxtickets.dataset import Dataset, EvaluationStream, Stream
from jaxtickets.dataset.conversion import as_arrays
from jaxtickets.errors import DataError, RunError
from jaxtickets.files import paths
from jaxtickets.files.archives import open_zip, stored
from jaxtickets.messages.quoting import shown, told
from jaxtickets.task import Task
from jaxtickets.tickets.ensemble import TicketEnsemble
from jaxtickets.tickets.inputs import check_inputs
from jaxtickets.tracing.index_ranges import check_values

PyTree = Any


@dataclasses.dataclass(frozen=True, eq=False)
class Probe:
    """Inputs that are predicted every so many epochs."""

    inputs: Dataset
    every: int

    def identity(self) -> dict[str, Any]:
        """What makes it this probe and no other, as JSON."""
        return {
            "inputs": self.inputs.fingerprint(),
            "examples": len(self.inputs),
            "every": self.every,
        }


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
        raise ValueError(
            "probe: predictions are kept in the run folder, and there is none; give out, or leave"
            " probe out."
        )
    if isinstance(probe, Stream | EvaluationStream):
        raise DataError(
            "probe is a Dataset, or arrays as the network takes them; got a stream. Take some"
            " examples of it into memory."
        )
    if not isinstance(probe, Dataset):
        probe = Dataset(
            jax.device_get(as_arrays(probe, "probe")), np.zeros(0, np.int32), None, name="probe"
        )
    probe = dataclasses.replace(probe, x=as_arrays(probe.x, "probe"))
    check_inputs(probe.x, probe.prepare, x_spec, f"{task.name} takes", "probe")
    params, model_state = jax.eval_shape(
        task.init,
        jax.random.key(0),
        jax.eval_shape(probe.prepare, jax.tree.map(lambda a: a[:2], probe.x)),
    )
    check_values(task, probe.prepare, params, model_state, probe.x, "probe")
    examples = len(jax.tree.leaves(probe.x)[0])
    return Probe(
        dataclasses.replace(probe, y=np.zeros(examples, np.int32), num_classes=None), every
    )


def probe_files(
    probe: Probe, tickets: TicketEnsemble, networks: Sequence[Any], step: int, epoch: float
) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    """What every network of a group predicts of the probe's inputs: name and arrays of its file.

    Args:
      probe: the inputs.
      tickets: the networks as they are now.
      networks: who they are.
      step: training steps of one network by now.
      epoch: its epochs.
    """
    for who, log_proba in zip(networks, tickets.ticket_log_proba(probe.inputs), strict=True):
        child = -1 if who.child is None else who.child
        name = f"{who.lineage:03d}" + (f".{child:03d}" if child >= 0 else "")
        numbers = {
            "lineage": np.int64(who.lineage),
            "child": np.int64(child),
            "step": np.int64(step),
            "epoch": np.float64(epoch),
        }
        yield f"{name}-{step:08d}.npz", {"log_proba": log_proba.astype(np.float32)} | numbers


def read_probes(path: str | Path) -> list[dict[str, Any]]:
    """What the networks of a run folder predicted along their training (`fit(..., probe=...)`).

    Returns:
      For each network and time, in this order: `{"lineage", "child" (None of a lineage itself),
        "step", "epoch", "log_proba"}`. Steps and
      epochs are those of one network since Start, those before a Fork included; log-probabilities
      are float32 [N, C] (of a regression predictions [N]), of a network of several heads those of
      their mean. Empty where nothing was probed.

    Raises:
      RunError: a file that is no such record, or is damaged.
    """
    found = [_read(file) for file in sorted((paths.given(path) / "probe").glob("[!.]*.npz"))]
    return sorted(
        found,
        key=lambda one: (one["lineage"], -1 if one["child"] is None else one["child"], one["step"]),
    )


def _read(file: Path) -> dict[str, Any]:
    names = {"lineage": "i", "child": "i", "step": "i", "epoch": "f", "log_proba": "f"}
    try:
        with open_zip(file) as archive:
            found = {name: _array(stored(archive, f"{name}.npy"), name) for name in names}
        for name, array in found.items():
            axes = (1, 2) if name == "log_proba" else (0,)
            if (
                array.dtype.kind != names[name]
                or array.ndim not in axes
                or (name == "log_proba" and array.dtype != np.float32)
            ):
                raise ValueError(f"its {name} is {array.dtype}{list(array.shape)}")
        numbers = {name: found[name].item() for name in names if name != "log_proba"}
    except OSError as error:
        raise RunError(f"{file} cannot be read: {told(error)}.") from error
    except (ValueError, zipfile.BadZipFile) as error:
        raise RunError(
            f"{file} is no record of a probe, or is damaged ({told(error)}); move it out of the"
            " folder, or run again in another folder."
        ) from error
    return numbers | {
        "child": None if numbers["child"] < 0 else numbers["child"],
        "log_proba": found["log_proba"],
    }


def _array(raw: bytes, name: str) -> np.ndarray:
    """An array of the archive; nothing is allocated that its bytes do not fill."""
    file = io.BytesIO(raw)
    try:
        if np.lib.format.read_magic(file) != (1, 0):
            raise ValueError("another version")
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
    except (
        Exception
    ) as error:  # NumPy evaluates the header as a literal, and raises what its tokenizer likes
        raise ValueError(f"{name}: {told(error)}") from None
    size = len(raw) - file.tell()
    if fortran or dtype.hasobject or math.prod(shape) * dtype.itemsize != size:
        raise ValueError(f"{name} has {size} bytes for {dtype}{shown(list(shape))}")
    return np.frombuffer(raw, dtype, offset=file.tell()).reshape(shape)
