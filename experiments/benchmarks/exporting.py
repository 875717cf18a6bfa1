"""Parts of `benchmark.py` about exports: files that run by themselves, against `predict_proba`."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import onnxruntime
from benchmarks import texts
from benchmarks.smaller import halved
from benchmarks.timing import Row, row, take_turns

import jaxtickets as jt


def exports(networks: dict[str, Any], images: np.ndarray, rounds: int) -> list[Row]:
    """Predictions of three tickets that lost half of their units, from files of both formats.

    Of pictures by those networks, and of texts by a BERT.
    """
    cases: dict[str, tuple[jt.Task, Any]] = {
        name: (jt.classification(model), images) for name, (model, _) in networks.items()
    }
    tokens, _ = texts.token_batch(texts.SMALL, 8, 128)
    cases["BERT 6x384"] = (texts.network(texts.SMALL), tokens)
    return [line for name, case in cases.items() for line in _of(name, *case, rounds)]


def _of(name: str, task: jt.Task, x: Any, rounds: int) -> list[Row]:
    _, small = halved(task, x, members=3)
    rows, count = [], len(jax.tree.leaves(x)[0])
    with tempfile.TemporaryDirectory() as folder:
        for kind, suffix in (("StableHLO", "jax"), ("ONNX", "onnx")):
            file = Path(folder) / f"tickets.{suffix}"
            about = small.export(file, x)
            run = _onnx(file, x) if suffix == "onnx" else _stablehlo(file, x)
            calls = {"file": run, "here": lambda: small.predict_proba(x, batch_size=count)}
            seconds = take_turns(calls, rounds)
            size, off = file.stat().st_size / 1e6, about["check"]["largest_difference"]
            label = f"{name}, three tickets of half the units as {kind}: {size:.1f} MB, off by"
            label += f" {off:.0e}; a prediction / predict_proba's"
            rows.append(row(label, seconds["file"], seconds["here"], "<=", None))
    return rows


def _stablehlo(file: Path, x: Any) -> Callable[[], Any]:
    exported = jt.load_exported(file)
    return lambda: np.asarray(exported(x))


def _onnx(file: Path, x: Any) -> Callable[[], Any]:
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    names = [given.name for given in session.get_inputs()]
    feed = dict(zip(names, map(np.asarray, jax.tree.leaves(x)), strict=True))
    return lambda: session.run(None, feed)
