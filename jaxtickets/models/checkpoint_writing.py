"""Writes our networks as Hugging Face checkpoints, which torch's `from_pretrained` reads."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxtickets import masks
from jaxtickets.ensemble import Ticket
from jaxtickets.errors import TicketError
from jaxtickets.models.checkpoint_names import HeadKind, Tensor, encoder_tensors, head_tensors, pooler_tensors
from jaxtickets.models.transformer_config import TransformerConfig

PyTree = Any

_CLASSES = {"bert": "Bert", "roberta": "Roberta"}
_ENDINGS = {"classifier": "ForSequenceClassification", "masked_lm": "ForMaskedLM", None: "Model"}


def save_pretrained(network: Ticket | PyTree, config: TransformerConfig, folder: str | Path) -> Path:
    """A folder with `config.json` and `model.safetensors`; whole, or not there.

    In torch, `AutoModelForSequenceClassification.from_pretrained(folder)` (`AutoModelForMaskedLM`, `AutoModel`) gives the
    same outputs; pruned weights are zeros there.

    Args:
      network: a ticket, or params: of `TextClassifier` or `MaskedLM`, or `{"encoder": ...}` alone. A classifier of one output
        is written as a regression.
      config: its sizes.
      folder: where to; must not be there, or be empty.

    Returns:
      `folder`.

    Raises:
      FileExistsError: the folder is there and not empty.
      TicketError: params that are not those of the config.

    >>> save_pretrained({"encoder": {}}, TransformerConfig(), "nowhere")
    Traceback (most recent call last):
    jaxtickets.errors.TicketError: save_pretrained: the params lack 'encoder/word/embedding', which a bert 12x768 has.
    """
    folder = Path(folder)
    params = masks.apply(*jax.device_get((network.mask, network.params))) if isinstance(network, Ticket) else jax.device_get(network)
    arrays = dict(zip(masks.leaf_paths(params), jax.tree.leaves(params), strict=True))
    kind: HeadKind | None = None
    if any(path.startswith("head/") for path in arrays):
        kind = "masked_lm" if "head/norm/scale" in arrays else "classifier"
    outputs = np.shape(arrays.get("head/classifier/bias", np.zeros(2)))[-1]
    heads = head_tensors(config, kind, outputs) if kind else []
    body = encoder_tensors(config) + (pooler_tensors(config) if "encoder/pooler/kernel" in arrays else [])
    prefix = f"{config.family}." if kind else ""
    tensors = _tensors({f"{prefix}{t.name}": t for t in body} | {t.name: t for t in heads}, arrays, config)
    settings = {"architectures": [_CLASSES[config.family] + _ENDINGS[kind]], **config.to_hf(), "dtype": "float32"}
    if kind == "classifier":
        names = [f"LABEL_{i}" for i in range(outputs)]
        settings["id2label"] = {str(i): name for i, name in enumerate(names)}
        settings["label2id"] = {name: i for i, name in enumerate(names)}
        settings["problem_type"] = "regression" if outputs == 1 else "single_label_classification"
    _write(folder, settings, tensors)
    return folder


def _tensors(wanted: dict[str, Tensor], arrays: dict[str, Any], config: TransformerConfig) -> dict[str, np.ndarray]:
    """The arrays by the names and in the layout of a checkpoint."""
    over = sorted(set(arrays) - {tensor.path for tensor in wanted.values()})
    if over:
        raise TicketError(f"save_pretrained: a {config} has no {over[0]!r}. Give the config that the network was made with.")
    tensors = {}
    for name, tensor in wanted.items():
        if tensor.path not in arrays:
            raise TicketError(f"save_pretrained: the params lack {tensor.path!r}, which a {config} has.")
        array = np.asarray(arrays[tensor.path], np.float32)
        array = array.T if tensor.transposed else array
        if array.shape != tensor.shape:
            raise TicketError(
                f"save_pretrained: {tensor.path!r} has the shape {list(np.shape(arrays[tensor.path]))}, which is not that of a {config}."
            )
        tensors[name] = np.ascontiguousarray(array)
    return tensors


def _write(folder: Path, settings: dict[str, Any], tensors: dict[str, np.ndarray]) -> None:
    """Both files into a folder beside, which then gets the name."""
    from safetensors.numpy import save_file

    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(f"save_pretrained: {folder} is there already; delete it, or give another folder.")
    folder.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        (beside / "config.json").write_text(json.dumps(settings, indent=2) + "\n")
        save_file(tensors, beside / "model.safetensors", {"format": "pt"})
        for file in beside.iterdir():
            with file.open("rb") as opened:
                os.fsync(opened.fileno())  # a name that outlives a power cut should have its bytes
        beside.chmod(0o755)
        os.replace(beside, folder)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise
