"""Exported ensembles as StableHLO: writing, and running without the networks that they are of.

The file is a safetensors file: the program, which `jax.export` serialises, as bytes; the weights,
which are arguments of it; and one JSON text that describes input, output, normalisation, classes,
members, versions and the check that was made. Lengths are checked when it is read, and nothing in
it is Python.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.export
import numpy as np

from jaxtickets.dataset.conversion import as_inputs
from jaxtickets.errors import DataError, ExportError
from jaxtickets.files import paths
from jaxtickets.files.whole import whole_file
from jaxtickets.messages.checks import is_int, is_traced
from jaxtickets.messages.quoting import shown, told
from jaxtickets.tickets import file_layout
from jaxtickets.tickets.exporting import PLATFORMS, Exporting, check_target
from jaxtickets.tickets.inputs import described
from jaxtickets.tracing.precision import in_32_bits

PyTree = Any
METADATA = "jaxtickets_export"
FORMAT = 1
_PROGRAM = "program"
_CALL = re.compile(r"custom_call @\"?([\w.$-]+)")


@dataclasses.dataclass(frozen=True, eq=False)
class ExportedFunction:
    """An exported ensemble: from a batch of raw inputs to probabilities, without its networks.

    Runs under `jax.jit`; it has no derivatives.

    Args:
      about: what the file says of itself: `"task"`, `"input"`, `"batch"`, `"output"`, `"classes"`,
        `"class_names"`, `"normalisation"`, `"tickets"`, `"members"`, `"platforms"`, `"weights"`,
        `"check"` (the largest difference from `predict_proba` when it was made), `"versions"`.
      x_spec: shape (without the batch axis) and dtype of what it takes, a tree of
        `jax.ShapeDtypeStruct`.
      program: the program.
      weights: its first argument.
    """

    about: dict[str, Any] = dataclasses.field(repr=False)
    x_spec: PyTree
    program: jax.export.Exported = dataclasses.field(repr=False)
    weights: Sequence[Any] = dataclasses.field(repr=False)

    @in_32_bits
    def __call__(self, x: PyTree) -> jax.Array:
        """Probabilities, float32 [B, C] ([M, B, C] of every member, if it was exported so).

        Args:
          x: raw inputs, [B, ...] each, of the shapes and dtypes of `x_spec`.

        Raises:
          DataError: x of another tree, shape or dtype, or another number of examples than it takes.
          ExportError: it was exported for other platforms than this one.
        """
        if not any(map(is_traced, jax.tree.leaves(x))):
            x = jax.tree.map(np.asarray, as_inputs(x))
        self._check(x)
        here = jax.export.default_export_platform()
        if here not in self.program.platforms:
            raise ExportError(
                f"{self.about['task']} was exported for {', '.join(self.program.platforms)}, and"
                f" this is {here}; export it with platforms={(*self.program.platforms, here)}."
            )
        return self._run(list(self.weights), jax.tree.leaves(x))

    @functools.cached_property
    def _run(self) -> Any:
        """The program, compiled once for each number of examples."""
        return jax.jit(self.program.call)

    def _check(self, x: PyTree) -> None:
        batch = self.about["batch"]
        size = "any number of examples" if batch == "any" else f"{batch} examples at a time"
        wants = f"{self.about['task']} was exported for {described(self.x_spec, 0)} per example"
        wants += f", {size}"
        if jax.tree.structure(x) != jax.tree.structure(self.x_spec):
            raise DataError(f"x is {_tree(x)}; {wants}.")
        leaves, specs = jax.tree.leaves(x), jax.tree.leaves(self.x_spec)
        fits = all(
            leaf.shape[1:] == spec.shape
            and leaf.ndim
            and jax.dtypes.canonicalize_dtype(leaf.dtype) == spec.dtype
            for leaf, spec in zip(leaves, specs, strict=True)
        )
        counts = {leaf.shape[0] for leaf in leaves if leaf.ndim}
        if not fits or len(counts) != 1:
            raise DataError(f"x is {described(x, 0)}, of which the first axis is B; {wants}.")
        if (batch != "any" and counts != {batch}) or counts == {0}:
            raise DataError(f"x holds {counts.pop()} examples; {wants}.")


def _tree(x: PyTree) -> str:
    if not jax.tree.leaves(x):
        return shown(x)
    return f"a dictionary of {sorted(x)}" if isinstance(x, dict) else described(x, 0)


def write_program(exporting: Exporting, path: Path, platforms: Any) -> dict[str, Any]:
    """Write the StableHLO of an ensemble to `path`, and return what it says of itself.

    Raises:
      ExportError: platforms that cannot be, a file there that is no export, a network that cannot
        be lowered, or a program that is off.
    """
    platforms = check_platforms(platforms)
    check_target(path, _is_export)
    weights = [np.asarray(leaf) for leaf in jax.tree.leaves(exporting.function.weights)]
    program, text = _program(exporting, weights, platforms)
    here = jax.export.default_export_platform()
    if here in platforms:
        run = jax.jit(program.call)
        check = exporting.checked(lambda leaves: run(weights, leaves), f"JAX on {here}")
    else:  # it cannot run here
        check = {"examples": 0, "why": f"made on {here}, which is not among its platforms"}
    names = _names(exporting.function.weights)
    about = exporting.about | {"platforms": list(platforms), "arguments": names, "check": check}
    tensors = {
        name: np.ascontiguousarray(leaf).reshape(leaf.shape).view(file_layout.stored(leaf.dtype))
        for name, leaf in zip(names, weights, strict=True)
    } | {_PROGRAM: np.frombuffer(text, np.uint8)}
    # wide numbers first, so that all are aligned
    order = sorted(tensors, key=lambda name: -tensors[name].dtype.itemsize)
    sizes = {name: (tensors[name].dtype, tensors[name].shape) for name in order}
    about["sha256"] = file_layout.digest(sizes, tensors.__getitem__, about)
    with whole_file(path) as file:
        file.write(file_layout.header(sizes, METADATA, about))
        for name in order:
            file.write(tensors[name].reshape(-1).view(np.uint8).data)
    return about


def check_platforms(platforms: Any) -> tuple[str, ...]:
    """The platforms as a tuple.

    Raises:
      ExportError: none, or one that is unknown.
    """
    named = (platforms,) if isinstance(platforms, str) else platforms
    good = isinstance(named, tuple | list) and bool(named)
    unknown = [one for one in named if one not in PLATFORMS] if good else [platforms]
    if unknown or len(set(named)) != len(named):
        gpu = " A GPU of NVIDIA is cuda, one of AMD rocm." if "gpu" in unknown else ""
        raise ExportError(
            f"platforms are different ones of {', '.join(PLATFORMS)}; got"
            f" {shown(unknown[0] if unknown else platforms)}.{gpu}"
        )
    return tuple(named)


def _program(
    exporting: Exporting, weights: list[np.ndarray], platforms: tuple[str, ...]
) -> tuple[jax.export.Exported, bytes]:
    """The program as it is read back from its bytes, and those."""
    tree = jax.tree.structure(exporting.function.weights)

    def run(weights: list[Any], leaves: list[Any]) -> jax.Array:
        return exporting.of_leaves(jax.tree.unflatten(tree, weights), leaves)

    batch: Any = exporting.batch
    try:
        if batch == "any":
            (batch,) = jax.export.symbolic_shape("batch")
        inputs = [
            jax.ShapeDtypeStruct((batch, *spec.shape), spec.dtype)
            for spec in exporting.inputs.values()
        ]
        shapes = [jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for leaf in weights]
        exported = jax.export.export(jax.jit(run), platforms=platforms)(shapes, inputs)
        text = bytes(exported.serialize())
    except Exception as error:  # of the network, of JAX's tracing, lowering and shape arithmetic
        fixed = (
            " A network that computes with the number of examples may need batch=8 or the like in"
            ' place of "any".'
            if exporting.batch == "any"
            else ""
        )
        raise ExportError(
            f"{exporting.about['task']} cannot be exported for {', '.join(platforms)}:"
            f" {told(error)}{fixed}"
        ) from error
    return jax.export.deserialize(bytearray(text)), text


def _names(weights: Sequence[tuple[PyTree, PyTree]]) -> list[str]:
    """What the file calls each of the weights, in the order in which the program takes them."""
    return [
        f"{i}/{name}"
        for i, (params, state) in enumerate(weights)
        for name, _ in file_layout.named(params, state)
    ]


def _is_export(path: Path) -> bool:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            return METADATA in (file.metadata() or {})
    except (SafetensorError, OSError, ValueError):
        return False


@in_32_bits
def load_exported(path: str | Path) -> ExportedFunction:
    """The function in a file that `TicketEnsemble.export` wrote as StableHLO.

    It needs JAX and none of the networks' code. What one JAX wrote, those of the next six months
    read (https://docs.jax.dev/en/latest/export/export.html#compatibility-guarantees); for longer
    keep the ticket file and export anew.

    Args:
      path: the file.

    Returns:
      An `ExportedFunction`; its `about` says what it takes and gives.

    Raises:
      FileNotFoundError: there is no such file.
      ExportError: it is another kind of file, damaged, changed, of a format or a JAX that this one
        does not read, or calls out of the program.
    """
    path = paths.given(path)
    if not os.path.isfile(path):
        raise FileNotFoundError(f"there is no exported file {path}.")
    about, tensors = _read(path)
    try:
        if about["format"] != FORMAT:
            raise ExportError(
                f"{path} is of format {shown(about['format'])}; this version reads format {FORMAT}."
            )
        expected = about.pop("sha256")
        sizes = {name: (tensor.dtype, tensor.shape) for name, tensor in tensors.items()}
        if file_layout.digest(sizes, tensors.__getitem__, about) != expected:
            raise ExportError(f"{path} is damaged or was changed: its SHA-256 does not match.")
        names, x_spec = list(about["arguments"]), file_layout.spec_from_json(about["input"])
        text = tensors.pop(_PROGRAM)
        if (batch := about["batch"]) != "any" and not is_int(batch):
            raise ValueError(f"a batch of {shown(batch)}")
        if sorted(names) != sorted(tensors):
            raise ValueError("its arguments are not the tensors that it holds")
    except ExportError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise ExportError(
            f"{path}: its metadata is not an exported file's ({told(error)})."
        ) from None
    program = _deserialised(path, text)
    calls = sorted({name for name in _CALL.findall(program.mlir_module()) if "callback" in name})
    if calls:
        raise ExportError(
            f"{path}: its program calls out of itself ({', '.join(calls)}), which no exported"
            " ensemble does."
        )
    wanted = program.in_avals[: len(names)]
    inputs = [(batch, s.shape, s.dtype) for s in jax.tree.leaves(x_spec)]
    if len(wanted) != len(names) or inputs != [
        ((aval.shape[0] if is_int(aval.shape[0]) else "any"), aval.shape[1:], aval.dtype)
        for aval in program.in_avals[len(names) :]
        if aval.shape
    ]:
        raise ExportError(f"{path}: its program takes other inputs than its metadata says.")
    weights = []
    for name, aval in zip(names, wanted, strict=True):
        tensor = tensors[name]
        if (tensor.shape, tensor.dtype) != (aval.shape, file_layout.stored(aval.dtype)):
            raise ExportError(f"{path}: {shown(name)} is not what its program takes.")
        weights.append(tensor.view(aval.dtype))
    return ExportedFunction(about, x_spec, program, jax.device_put(weights))


def _read(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Metadata, whatever it may be, and tensors, whose lengths the library has checked."""
    from safetensors import SafetensorError, safe_open

    with path.open("rb") as file:  # what the system says is no damage
        beginning = file.read(4096)
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            if METADATA not in metadata and file_layout.METADATA in metadata:
                raise ExportError(
                    f"{path} is a ticket file, which needs its network: jaxtickets.load(path, task)"
                    " reads it, and the export method of that writes what this function reads."
                )
            about = json.loads(metadata[METADATA])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except ExportError:
        raise
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        onnx = (
            " ONNX files are for onnxruntime and the like."
            if path.suffix == ".onnx" or b"jax2onnx" in beginning
            else ""
        )
        raise ExportError(
            f"{path} holds no exported ensemble, or is damaged: {told(error)}.{onnx}"
        ) from None
    if not isinstance(about, dict):
        raise ExportError(f"{path}: its metadata is not an exported file's ({shown(about)}).")
    return about, tensors


def _deserialised(path: Path, text: np.ndarray) -> jax.export.Exported:
    try:
        return jax.export.deserialize(bytearray(text.tobytes()))
    except Exception as error:  # flatbuffers and MLIR have their own kinds
        raise ExportError(
            f"{path}: JAX {jax.__version__} does not read its program ({told(error)}). It reads"
            " those of the six months before it; export it anew from the ticket file."
        ) from None
