"""Writes our networks as Hugging Face checkpoints, which torch's `from_pretrained` reads."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxtickets import masks
from jaxtickets.errors import TicketError
from jaxtickets.files import paths
from jaxtickets.messages.quoting import shown
from jaxtickets.models.checkpoint_names import (
    HeadKind,
    Tensor,
    encoder_tensors,
    head_tensors,
    pooler_tensors,
    word_bias,
)
from jaxtickets.models.transformer_config import TransformerConfig
from jaxtickets.tickets.packing import unpacked
from jaxtickets.tickets.ticket import Ticket

PyTree = Any

_CLASSES = {"bert": "Bert", "roberta": "Roberta"}
_ENDINGS = {"classifier": "ForSequenceClassification", "masked_lm": "ForMaskedLM", None: "Model"}


def save_pretrained(
    network: Ticket | PyTree,
    config: TransformerConfig,
    folder: str | Path,
    *,
    class_names: Sequence[str] | None = None,
) -> Path:
    """Write a folder with `config.json` and `model.safetensors`; whole, or not at all.

    In torch, `AutoModelForSequenceClassification.from_pretrained(folder)` (`AutoModelForMaskedLM`,
    `AutoModel`) gives the same outputs; pruned weights are zeros there.

    Args:
      network: a ticket, or params: of `TextClassifier` or `MaskedLM`, or `{"encoder": ...}` alone.
        A classifier of one output is written as a regression.
      config: its sizes.
      folder: where to; must not be there, or be empty.
      class_names: what a classifier's outputs stand for, in their order, such as
        `dataset.class_names`: the `id2label` of the file. None for LABEL_0, LABEL_1, ...

    Returns:
      `folder`.

    Raises:
      FileExistsError: the folder is there and not empty.
      TicketError: params that are not those of the config, or not finite.
      ValueError: another argument that cannot be.

    >>> save_pretrained({"encoder": {}}, TransformerConfig(), "nowhere")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    jaxtickets.errors.TicketError: save_pretrained: the params lack 'encoder/word/embedding', ...
    """
    if not isinstance(config, TransformerConfig):
        raise ValueError(
            f"save_pretrained: config is the TransformerConfig of the network; got {shown(config)}."
        )
    if not isinstance(folder, str | Path) or not str(folder):
        raise ValueError(f"save_pretrained: folder is a path; got {shown(folder)}.")
    if not isinstance(network, Ticket | Mapping):
        raise ValueError(
            "save_pretrained: network is one ticket (tickets.members[0]), or params; got a"
            f" {type(network).__name__}."
        )
    folder = paths.given(folder, "save_pretrained: folder")
    params = (
        masks.apply(*jax.device_get(unpacked(network)[1::-1]))
        if isinstance(network, Ticket)
        else jax.device_get(network)
    )
    arrays = dict(zip(masks.leaf_paths(params), jax.tree.leaves(params), strict=True))
    kind: HeadKind | None = None
    if any(path.startswith("head/") for path in arrays):
        kind = "masked_lm" if "head/norm/scale" in arrays else "classifier"
    outputs = np.shape(arrays.get("head/classifier/bias", np.zeros(2)))[-1]
    if class_names is not None:
        words = (
            isinstance(class_names, Sequence)
            and not isinstance(class_names, str)
            and all(isinstance(name, str) for name in class_names)
        )
        if (
            kind != "classifier"
            or not words
            or len(set(class_names)) < len(class_names)
            or len(class_names) != outputs
        ):
            has = (
                f"the network has {outputs} outputs"
                if kind == "classifier"
                else "the network is no classifier"
            )
            raise ValueError(
                f"save_pretrained: class_names are different words, one for each output; {has}, and"
                f" they are {shown(class_names)}."
            )
    heads = head_tensors(config, kind, outputs) if kind else []
    body = encoder_tensors(config) + (
        pooler_tensors(config) if "encoder/pooler/kernel" in arrays else []
    )
    prefix = f"{config.family}." if kind else ""
    tensors = _tensors(
        {f"{prefix}{t.name}": t for t in body} | {t.name: t for t in heads}, arrays, config
    )
    # transformers wants both, and computes with the first alone
    if kind == "masked_lm" and not config.tied:
        tensors[word_bias(dataclasses.replace(config, tied=True))] = tensors[
            word_bias(config)
        ].copy()
    settings = {
        "architectures": [_CLASSES[config.family] + _ENDINGS[kind]],
        **config.to_hf(),
        "dtype": "float32",
    }
    if kind == "classifier":
        names = [f"LABEL_{i}" for i in range(outputs)] if class_names is None else list(class_names)
        settings["id2label"] = {str(i): name for i, name in enumerate(names)}
        settings["label2id"] = {name: i for i, name in enumerate(names)}
        settings["problem_type"] = "regression" if outputs == 1 else "single_label_classification"
    _write(folder, settings, tensors)
    return folder


def _tensors(
    tensor_by_name: dict[str, Tensor], arrays: dict[str, Any], config: TransformerConfig
) -> dict[str, np.ndarray]:
    """The arrays by the names and in the layout of a checkpoint."""
    unknown = sorted(set(arrays) - {tensor.path for tensor in tensor_by_name.values()})
    if unknown:
        raise TicketError(
            f"save_pretrained: a {config} has no {unknown[0]!r}. Give the config that the network"
            " was made with."
        )
    tensors = {}
    for name, tensor in tensor_by_name.items():
        if tensor.path not in arrays:
            raise TicketError(
                f"save_pretrained: the params lack {tensor.path!r}, which a {config} has."
            )
        array = np.asarray(arrays[tensor.path], np.float32)
        array = array.T if tensor.transposed else array
        if array.shape != tensor.shape:
            raise TicketError(
                f"save_pretrained: {tensor.path!r} has the shape"
                f" {list(np.shape(arrays[tensor.path]))}, which is not that of a {config}."
            )
        if not np.isfinite(array).all():
            raise TicketError(f"save_pretrained: {tensor.path!r} holds NaN or infinite values.")
        tensors[name] = np.ascontiguousarray(array)
    return tensors


def _write(folder: Path, settings: dict[str, Any], tensors: dict[str, np.ndarray]) -> None:
    """Write both files into a temporary folder beside, which then gets the name."""
    from safetensors.numpy import save_file

    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(f"save_pretrained: {folder} is there already; give another folder.")
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary_folder = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        (temporary_folder / "config.json").write_text(json.dumps(settings, indent=2) + "\n")
        save_file(tensors, temporary_folder / "model.safetensors", {"format": "pt"})
        for file in temporary_folder.iterdir():
            with file.open("rb") as opened:
                os.fsync(opened.fileno())  # a name that outlives a power cut should have its bytes
        temporary_folder.chmod(0o755)
        os.replace(temporary_folder, folder)
    except BaseException:
        shutil.rmtree(temporary_folder, ignore_errors=True)
        raise
