"""Reads files of a Hugging Face checkpoint, of a folder or of a model of the hub.

All tensors in them, by name.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxtickets.errors import CheckpointError
from jaxtickets.files import paths
from jaxtickets.messages.quoting import cut, shown, told
from jaxtickets.models.torch_weights import read_torch

Find = Callable[[str], Path | None]
"""The file of a name in the checkpoint, or None."""

_WEIGHTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
_FLOATS = {"F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": jnp.bfloat16}
_MOST_JSON = 2**23  # bytes; an index of a thousand shards has less
_MOST_DEPTH = 100


def finder(where: str | Path, revision: str | None = None) -> Find:
    """A function that finds a checkpoint's file by its name.

    Args:
      where: a folder; or a model's name on the Hugging Face hub, whose files are taken from its
        cache or fetched into it.
      revision: of a model on the hub: a branch, a tag or a commit.

    Raises:
      CheckpointError: neither a folder nor a name.
      ImportError: a name, and huggingface_hub is not installed.
    """
    folder = paths.given(where, "the checkpoint's folder")
    if os.path.isdir(folder):
        return lambda name: folder / name if (folder / name).is_file() else None
    if isinstance(where, Path) or not re.fullmatch(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", where):
        shown_name = cut(repr(str(where)), 300)
        raise CheckpointError(
            f"there is no folder {shown_name}. A model of the Hugging Face hub is named like"
            " 'google-bert/bert-base-uncased'."
        )
    try:
        import huggingface_hub
        from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, HFValidationError
    except ImportError as error:
        raise ImportError(
            "models of the Hugging Face hub need huggingface_hub: pip install 'jaxtickets[nlp]'"
        ) from error

    def find(name: str) -> Path | None:
        try:
            return Path(huggingface_hub.hf_hub_download(where, name, revision=revision))
        except (
            EntryNotFoundError
        ) as error:  # also of a file that is not cached where the hub cannot be asked
            if name == "config.json":
                raise CheckpointError(
                    f"{where}: no folder of that name, and its config.json is not in the hub's"
                    f" cache nor to be had: {error}"
                ) from None
            return None
        except (HfHubHTTPError, HFValidationError, OSError) as error:
            raise CheckpointError(
                f"{where}: no folder of that name, and the Hugging Face hub does not give it:"
                f" {error}"
            ) from None

    return find


def read_json(path: Path) -> Any:
    """The contents of a JSON file, checked.

    Raises:
      CheckpointError: not JSON, or far too large for what these files hold.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(_MOST_JSON + 1)
        if len(raw) > _MOST_JSON:
            raise ValueError(f"more than {_MOST_JSON:,} bytes")
        content = json.loads(raw)
        if _deeper(content, _MOST_DEPTH):
            raise RecursionError
        return content
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {told(error)}.") from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: not a JSON file, or damaged: {told(error)}.") from None


def _deeper(content: Any, most: int) -> bool:
    """Whether JSON is nested in more than `most` levels.

    Whoever walks or prints it afterwards would fail.
    """
    level = [content]
    for _ in range(most):
        level = [
            inner
            for node in level
            if isinstance(node, dict | list)
            for inner in (node.values() if isinstance(node, dict) else node)
        ]
        if not level:
            return False
    return True


def read_tensors(find: Find, where: str) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """All tensors of a checkpoint, in one file or several.

    Returns:
      the tensors, and the file that each is from, by name.

    Raises:
      CheckpointError: no weights, a shard is missing or lacks what the index says, or a file is
        damaged.
    """
    for name in _WEIGHTS:
        path = find(name)
        if path is None:
            continue
        if not name.endswith(".index.json"):
            tensors = _read(path)
            return tensors, dict.fromkeys(tensors, str(path))
        return _read_shards(find, path, name.removesuffix(".index.json").rpartition(".")[2])
    raise CheckpointError(f"{where}: holds no weights; one of {', '.join(_WEIGHTS)} was expected.")


def _read_shards(
    find: Find, index: Path, suffix: str
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    content = read_json(index)
    shards = content.get("weight_map") if isinstance(content, dict) else None
    if (
        not isinstance(shards, dict)
        or not shards
        or not all(isinstance(shard, str) for shard in shards.values())
    ):
        raise CheckpointError(f"{index}: has no weight_map of the tensors' files.")
    tensors: dict[str, np.ndarray] = {}
    files: dict[str, str] = {}
    announced: dict[str, set[str]] = {}
    for name, shard in shards.items():
        announced.setdefault(shard, set()).add(name)
    for shard, announced_names in sorted(announced.items()):
        if not re.fullmatch(rf"[\w-][\w.-]*\.{suffix}", shard):
            raise CheckpointError(f"{index}: {shown(shard)} is not the name of a shard beside it.")
        path = find(shard)
        if path is None:
            raise CheckpointError(
                f"{index}: the shard {shard} is missing; fetch the checkpoint again."
            )
        shard_tensors = _read(path)
        for name in sorted(announced_names ^ set(shard_tensors)):
            raise CheckpointError(
                f"{path}: {'lacks' if name in announced_names else 'holds'} {shown(name)}, against"
                f" what {index.name} says."
            )
        tensors |= shard_tensors
        files |= dict.fromkeys(shard_tensors, str(path))
    return tensors, files


def _read(path: Path) -> dict[str, np.ndarray]:
    return read_torch(path) if path.suffix == ".bin" else _read_safetensors(path)


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    """Floating tensors as views of the mapped file.

    Their bytes are read when they are used.

    Of others, which no weight is, an array of their shape without content.
    """
    from safetensors import SafetensorError, safe_open

    tensors: dict[str, np.ndarray] = {}
    try:
        with safe_open(path, framework="numpy"):  # checks the header against the file's length
            pass
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(size))
        raw = np.asarray(np.memmap(path, np.uint8, "r"))
        for name, entry in header.items():
            if name == "__metadata__":
                continue
            begin, end = (8 + size + offset for offset in entry["data_offsets"])
            if entry["dtype"] in _FLOATS:
                tensors[name] = raw[begin:end].view(_FLOATS[entry["dtype"]]).reshape(entry["shape"])
            else:
                tensors[name] = np.broadcast_to(np.int8(0), entry["shape"])
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {told(error)}.") from error
    except (
        SafetensorError,
        ValueError,
        KeyError,
        TypeError,
        OverflowError,
        AttributeError,
        RecursionError,
    ) as error:
        raise CheckpointError(
            f"{path}: not a safetensors file, or damaged: {told(error)}."
        ) from None
    return tensors
