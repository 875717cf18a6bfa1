"""Exporting an ensemble: what is told of it in the file, and the check of what was made."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import platform
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from jaxtickets.dataset import Dataset
from jaxtickets.dataset.conversion import as_inputs
from jaxtickets.errors import ExportError
from jaxtickets.messages.checks import LONGEST, Checks, is_int
from jaxtickets.messages.pytrees import leaf_paths
from jaxtickets.messages.quoting import shown, told
from jaxtickets.tickets.file_layout import spec_to_json
from jaxtickets.tickets.function import PredictiveFunction, predictive_function
from jaxtickets.tickets.inputs import check_inputs

if TYPE_CHECKING:
    from jaxtickets.tickets.ensemble import TicketEnsemble

PyTree = Any
Batch = int | Literal["any"]
PLATFORMS = ("cpu", "cuda", "rocm", "tpu")
ROWS = 3
"""Examples that an exported function of any batch is checked on."""

_check = Checks(ExportError)


@dataclasses.dataclass(frozen=True)
class Exporting:
    """An ensemble on its way into a file.

    Args:
      function: what it predicts.
      spec: shape (without the batch axis) and dtype of the raw inputs.
      batch: how many examples the exported function takes at a time.
      examples: raw inputs [N, ...] that it is checked on.
      expect: gives what the ensemble predicts of them.
      tolerance: how far the exported function may be off.
      about: what the file says of itself.
    """

    function: PredictiveFunction
    spec: PyTree
    batch: Batch
    examples: PyTree
    expect: Callable[[], np.ndarray]
    tolerance: float
    about: dict[str, Any]

    @property
    def inputs(self) -> dict[str, jax.ShapeDtypeStruct]:
        """The raw inputs by name, `"x"` where there is one array."""
        leaves = jax.tree.leaves(self.spec)
        names = [name.replace("/", "_") for name in leaf_paths(self.spec)]
        return {"x": leaves[0]} if leaves == [self.spec] else dict(zip(names, leaves, strict=True))

    def of_leaves(self, weights: PyTree, leaves: Sequence[Any]) -> jax.Array:
        """The function of the raw inputs' arrays, in the order of `inputs`."""
        x = jax.tree.unflatten(jax.tree.structure(self.spec), list(leaves))
        return self.function.apply(weights, x)

    def checked(self, predict: Callable[[list[Any]], Any], what: str) -> dict[str, Any]:
        """What the file says of its check: `predict`, which takes the raw inputs' arrays, against
        the ensemble.

        Raises:
          ExportError: it fails, or is off by more than the tolerance.
        """
        expected = self.expect()
        try:
            found = np.asarray(predict(jax.tree.leaves(self.examples)))
        except Exception as error:  # every runtime has its own kinds
            raise ExportError(
                f"{self.about['task']}: what was exported does not run in {what}: {told(error)}"
            ) from error
        if found.shape != expected.shape:
            raise ExportError(
                f"{self.about['task']}: what was exported gives {list(found.shape)} in {what}; the"
                f" ensemble predicts {list(expected.shape)}. Nothing was written."
            )
        # of probabilities the difference itself, of a regression as a share of the largest
        unit = max(1.0, float(np.abs(expected).max()))
        off = float(np.abs(found.astype(np.float64) - expected).max())
        if not off <= self.tolerance * unit:
            raise ExportError(
                f"{self.about['task']}: what was exported is off by {off:.3g} in {what}, on"
                f" {len(jax.tree.leaves(self.examples)[0])} examples; at most"
                f" {self.tolerance * unit:.3g} is allowed (tolerance={self.tolerance:g}). Nothing"
                " was written."
            )
        return {
            "examples": len(jax.tree.leaves(self.examples)[0]),
            "largest_difference": off,
            "in": what,
            "against": "predict_proba",
        }


def prepare_export(
    ensemble: TicketEnsemble,
    data: Any,
    batch: Any,
    members: bool,
    tolerance: Any,
) -> Exporting:
    """What is exported, with all that can be told beforehand checked.

    Raises:
      ExportError, DataError: an argument that cannot be; says what is allowed.
    """
    fixed = is_int(batch) and 1 <= int(batch) <= LONGEST
    if not fixed and not (isinstance(batch, str) and batch == "any"):
        raise ExportError(
            'batch is how many examples are predicted at a time, at least 1, or "any"; got'
            f" {shown(batch)}."
        )
    _check.flag("members", members)
    _check.number("tolerance", tolerance, "a number above 0", least=np.nextafter(0, 1))
    task, x_spec = ensemble.task, ensemble.x_spec
    prepare, raw, names = _of_data(data)
    if raw is not None:
        check_inputs(raw, prepare, x_spec, f"{task.name} was trained on", "data")
    rows = ROWS if batch == "any" else int(batch)
    examples = _drawn(x_spec, rows) if raw is None else _first(raw, rows)
    spec = jax.tree.map(
        lambda a: jax.ShapeDtypeStruct(a.shape[1:], jax.dtypes.canonicalize_dtype(a.dtype)),
        examples,
    )

    def expect() -> np.ndarray:
        given = Dataset(examples, np.zeros(rows), None, prepare=prepare)
        each = ensemble.member_log_proba(given, rows)
        if task.num_classes is not None:
            each = np.exp(each)
        return each if members else each.mean(0)

    function = predictive_function(task, ensemble.tickets, x_spec, prepare, members)
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(function.weights)]
    classes = task.num_classes
    axes = ["members"] * members + ["batch"] + ["classes"] * (classes is not None)
    about = {
        "format": 1,
        "task": task.name,
        "input": spec_to_json(spec),
        "batch": batch if batch == "any" else rows,
        "output": {
            "name": "prediction" if classes is None else "probabilities",
            "axes": axes,
            "dtype": "float32",
        },
        "classes": classes,
        "class_names": list(names),
        "normalisation": _described(prepare, data),
        "tickets": len(ensemble),
        "members": len(ensemble) * task.heads,
        "weights": {
            "numbers": sum(leaf.size for leaf in leaves),
            "zeros": sum(leaf.size - int(np.count_nonzero(leaf)) for leaf in leaves),
            "bytes": sum(leaf.nbytes for leaf in leaves),
            "note": (
                "Zeros are stored and multiplied by like other numbers: a masked network is as"
                " large and as fast as a dense one. One whose units were cut out is smaller."
            ),
        },
        "versions": versions("jaxtickets", "jax", "jaxlib", "numpy"),
    }
    return Exporting(function, spec, about["batch"], examples, expect, float(tolerance), about)


def versions(*packages: str) -> dict[str, str]:
    """The versions of Python and of packages."""
    found = {"python": platform.python_version()}
    for name in packages:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:  # run from its folder
            found[name] = "not installed"
    return found


def _of_data(data: Any) -> tuple[Callable[[PyTree], PyTree], PyTree, tuple[str, ...]]:
    """What prepares raw inputs, some of them (None for none), and the classes' names."""
    if data is None:
        return as_is, None, ()
    if isinstance(data, Dataset):
        return data.prepare, as_inputs(data.x, f"{data.name}: x"), data.class_names
    return as_is, as_inputs(data), ()


def prepare_of(data: Any) -> Callable[[PyTree], PyTree]:
    """What makes inputs of a network from those of a data set; without one they are that already.

    Raises:
      ExportError: no data set.
    """
    if data is not None and not isinstance(data, Dataset):
        raise ExportError(
            "data is the Dataset whose raw inputs the function takes, or None where it takes them"
            f" as the network does; got {shown(data)}."
        )
    return as_is if data is None else data.prepare


def as_is(x: PyTree) -> PyTree:
    """What prepares nothing."""
    return x


def _first(x: PyTree, rows: int) -> PyTree:
    return jax.tree.map(lambda a: np.asarray(a[np.arange(rows) % len(a)]), x)


def _drawn(x_spec: PyTree, rows: int) -> PyTree:
    """Inputs as a network takes them: normal numbers, and of whole numbers 0 and 1, which are rows
    of every table.
    """
    draw = np.random.default_rng(0)

    def one(s: jax.ShapeDtypeStruct) -> np.ndarray:
        shape = (rows, *s.shape)
        floats = jnp.issubdtype(s.dtype, jnp.floating)
        return (draw.normal(size=shape) if floats else draw.integers(0, 2, shape)).astype(s.dtype)

    return jax.tree.map(one, x_spec)


def _described(prepare: Any, data: Any) -> str:
    if prepare is as_is or not isinstance(data, Dataset) or prepare is Dataset.prepare:
        return "none: inputs are as the network takes them"
    if dataclasses.is_dataclass(prepare):
        return repr(prepare)
    return str(getattr(prepare, "__qualname__", type(prepare).__name__))


def check_target(path: Path, is_export: Callable[[Path], bool]) -> None:
    """Raise `ExportError` where writing would take the place of anything but an earlier export."""
    if path.is_dir():
        raise ExportError(f"{path} is a folder; name a file in it.")
    if path.exists() and not is_export(path):
        raise ExportError(
            f"{path} is there, and is nothing that an export of this format wrote; give another"
            " name, or move it away."
        )
