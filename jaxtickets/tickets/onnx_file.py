"""Exported ensembles as ONNX, made by jax2onnx and checked in ONNX Runtime."""

from __future__ import annotations

import contextlib
import json
import logging
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
from jax import lax

from jaxtickets.errors import ExportError
from jaxtickets.files.whole import whole_file
from jaxtickets.messages.quoting import told
from jaxtickets.tickets.exporting import Exporting, check_target, versions
from jaxtickets.tracing.jaxprs import plain

METADATA = "jaxtickets"
"""Under which key of the model's metadata the description is, as JSON."""

LARGEST = 2**31 - 2**20
"""Bytes of weights: a file of this format is below 2 GB."""

_Attributes = dict[ModuleType | type, dict[str, Any]]


def write_onnx(exporting: Exporting, path: Path) -> dict[str, Any]:
    """Write the ONNX model of an ensemble to `path`, and return what it says of itself.

    Raises:
      ImportError: the extra `export` is not installed.
      ExportError: weights that are too many for the format, a file there that is no export, a
        layer that the format lacks, or a model that is off.
    """
    onnx = _extra()
    check_target(path, lambda there: _is_export(onnx, there))
    size = exporting.about["weights"]["bytes"]
    if size > LARGEST:
        raise ExportError(
            f"{exporting.about['task']}: its weights are {size:,} bytes, and an ONNX file holds"
            f" {LARGEST:,}. Export fewer members, as tickets[:2], or StableHLO."
        )
    model = _model(exporting)
    import onnxruntime

    names = list(exporting.inputs)

    def predict(leaves: list[Any]) -> Any:
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), providers=["CPUExecutionProvider"]
        )
        return session.run(None, dict(zip(names, leaves, strict=True)))[0]

    check = exporting.checked(predict, f"ONNX Runtime {onnxruntime.__version__}")
    about = exporting.about | {"check": check}
    about["versions"] = about["versions"] | versions("jax2onnx", "onnx", "onnxruntime")
    entry = model.metadata_props.add()
    entry.key, entry.value = METADATA, json.dumps(about, sort_keys=True)
    with whole_file(path) as file:
        file.write(model.SerializeToString())
    return about


def _extra() -> Any:
    try:
        import onnx
        import onnxruntime

        del onnxruntime
        with _jax_as_it_was():
            import jax2onnx

            del jax2onnx
    except ImportError as error:
        raise ImportError(
            f"exporting to ONNX needs the extra `export` ({told(error)}): pip install"
            ' "jaxtickets[export]".'
        ) from None
    return onnx


def _model(exporting: Exporting) -> Any:
    """The ONNX model.

    Raises:
      ExportError: names the layer that jax2onnx does not know how to write.
    """
    with _jax_as_it_was() as before:
        from jax2onnx import to_onnx

        def predict(*leaves: Any) -> Any:
            # traced with JAX's own functions: of its replacements some take fewer arguments
            with _swapped(before):
                weights = exporting.function.weights
                run = plain(lambda *x: exporting.of_leaves(weights, x), {"pad": _padded})
                return run(*leaves)

        batch = "batch" if exporting.batch == "any" else exporting.batch
        inputs: Any = [
            jax.ShapeDtypeStruct((batch, *spec.shape), spec.dtype)  # pyright: ignore[reportArgumentType]
            for spec in exporting.inputs.values()
        ]
        try:
            return to_onnx(
                predict,
                inputs,
                model_name="jaxtickets",
                input_names=list(exporting.inputs),
                output_names=[exporting.about["output"]["name"]],
            )
        except Exception as error:  # whatever a converter raises
            raise ExportError(
                f"{exporting.about['task']} cannot be exported to ONNX: {_layer(error)}"
                f"{told(error)} Export StableHLO, or write the layer with other operations."
            ) from error


def _padded(x: jax.Array, value: jax.Array, *, padding_config: Any) -> jax.Array:
    """`lax.pad` by slices and concatenation: jax2onnx 0.17 does not write one of a batch of any
    size.
    """
    if any(inside for _, _, inside in padding_config):
        return lax.pad(x, value, padding_config)
    for axis, (low, high, _) in enumerate(padding_config):
        if low < 0 or high < 0:
            end = x.shape[axis] + min(high, 0)
            x = lax.slice_in_dim(x, max(-low, 0), end, axis=axis)
        parts = [x]
        for width, at in ((low, 0), (high, 2)):
            if width > 0:
                shape = (*x.shape[:axis], width, *x.shape[axis + 1 :])
                parts.insert(at, lax.broadcast(value, shape))
        x = lax.concatenate(parts, axis) if len(parts) > 1 else x
    return x


def _layer(error: BaseException) -> str:
    """The layer and the operation that a converter was at when it failed."""
    found, frame = None, error.__traceback__
    while frame is not None:
        eqn = frame.tb_frame.f_locals.get("eqn")
        if hasattr(eqn, "primitive") and hasattr(eqn, "source_info"):
            found = eqn
        frame = frame.tb_next
    if found is None:
        return ""
    return f"{found.source_info.name_stack or 'a layer'} uses {found.primitive.name!r}: "


def _is_export(onnx: Any, path: Path) -> bool:
    try:
        model = onnx.load(path, load_external_data=False)
    except Exception:  # protobuf has kinds of its own
        return False
    return any(entry.key == METADATA for entry in model.metadata_props)


@contextlib.contextmanager
def _jax_as_it_was() -> Iterator[_Attributes]:
    """JAX and Flax as they were afterwards: jax2onnx replaces functions of theirs while it works,
    and one (`jnp.cumsum`) for good.
    """
    modules = [
        module
        for name, module in list(sys.modules.items())
        if name.partition(".")[0] in ("jax", "flax", "equinox") and isinstance(module, ModuleType)
    ]
    layers = {  # whose methods it replaces
        found
        for module in modules
        for found in vars(module).values()
        if isinstance(found, type) and found.__module__.startswith(("flax.", "equinox."))
    }
    before: _Attributes = {each: dict(vars(each)) for each in (*modules, *layers)}
    quiet = logging.getLogger("onnx_ir")
    level = quiet.level
    quiet.setLevel(logging.ERROR)  # of shapes that it leaves out of the file
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield before
    finally:
        quiet.setLevel(level)
        _put(_changed(before, before))


@contextlib.contextmanager
def _swapped(before: _Attributes) -> Iterator[None]:
    """JAX and Flax as they were, for as long as this lasts."""
    now = _changed(before, None)
    _put(_changed(before, before))
    try:
        yield
    finally:
        _put(now)


def _changed(
    before: _Attributes, values: _Attributes | None
) -> list[tuple[ModuleType | type, str, Any]]:
    """The attributes that are not what they were, with what they were or (None) are."""
    return [
        (owner, name, value if values is not None else vars(owner)[name])
        for owner, attributes in before.items()
        for name, value in attributes.items()
        if name in vars(owner) and vars(owner)[name] is not value
    ]


def _put(attributes: list[tuple[ModuleType | type, str, Any]]) -> None:
    for owner, name, value in attributes:
        setattr(owner, name, value)
