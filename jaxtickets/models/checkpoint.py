"""Pretrained encoders: Hugging Face checkpoints as params."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from jaxtickets.errors import CheckpointError
from jaxtickets.models.checkpoint_files import finder, read_json, read_tensors
from jaxtickets.models.checkpoint_names import HeadKind, Tensor, build, encoder_tensors, head_tensors, is_head, plain_names, pooler_tensors
from jaxtickets.models.transformer_config import TransformerConfig

PyTree = Any


@dataclasses.dataclass(frozen=True, eq=False)
class Checkpoint:
    """A pretrained network. Two of equal content are equal, wherever they were read.

    Args:
      config: its sizes.
      params: `{"encoder": ...}`, with `"head"` if it was asked for: numpy float32 arrays, as `Encoder` and the heads name them.
      name: what a task calls it: the last part of where it is from.
      digest: SHA-256 over config, names and bytes.
    """

    config: TransformerConfig
    params: PyTree
    name: str
    digest: str

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Checkpoint) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    def __repr__(self) -> str:
        return f"Checkpoint({self.name}: {self.config})"

    @property
    def has_pooler(self) -> bool:
        """Whether a pooler came with it; masked language models have none."""
        return "pooler" in self.params["encoder"]


def read_checkpoint(where: str | Path, head: HeadKind | None = None, revision: str | None = None) -> Checkpoint:
    """The encoder of a Hugging Face checkpoint, and if asked for its head.

    Reads `config.json` and `model.safetensors` or `pytorch_model.bin`, whole or in shards; nothing in them is executed.
    Names may have the prefix `bert.` or `roberta.` or none, norms their old names (gamma, beta); heads that were not
    asked for and buffers are left out.

    Args:
      where: a folder, or a model's name on the Hugging Face hub (from its cache, or fetched into it).
      head: "classifier" or "masked_lm" to read that head too, as `params["head"]`.
      revision: of a model on the hub: a branch, a tag or a commit.

    Returns:
      A `Checkpoint` of float32 arrays.

    Raises:
      CheckpointError: nothing there; another architecture; a file damaged; tensors missing, left over, of another shape, not
        floating or not finite. Names the file and the tensor.
      ImportError: a name of the hub, and huggingface_hub is not installed.

    >>> read_checkpoint("./nowhere")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    jaxtickets.errors.CheckpointError: there is no folder './nowhere'. A model of the Hugging Face hub is named like ...
    """
    find = finder(where, revision)
    path = find("config.json")
    if path is None:
        raise CheckpointError(f"{where}: holds no config.json, so it is no Hugging Face checkpoint.")
    config = TransformerConfig.from_hf(read_json(path), str(path))
    tensors, files = read_tensors(find, str(where))
    source = next(iter(files.values()), str(where))
    plain = plain_names(list(tensors), config, source)
    wanted = encoder_tensors(config)
    pooler = pooler_tensors(config)
    if any(tensor.name in plain for tensor in pooler):
        wanted += pooler
    if head is not None:
        wanted += head_tensors(config, head, _outputs(config, tensors, plain))
    arrays = {}
    for tensor in wanted:
        given = plain.pop(tensor.name, None)
        if given is None:
            raise CheckpointError(f"{source}: lacks {tensor.name!r}, which a {config} has.")
        arrays[tensor.path] = _checked(tensor, tensors[given], f"{files[given]}: {given!r}", config)
    for name, given in plain.items():
        if not is_head(name):
            raise CheckpointError(f"{files[given]}: a {config} has no use for {given!r}. Does config.json belong to it?")
    name = Path(where).expanduser().resolve().name if Path(where).expanduser().is_dir() else str(where).rpartition("/")[2]
    return Checkpoint(config, build(arrays), name, _digest(config, arrays))


def _outputs(config: TransformerConfig, tensors: dict[str, np.ndarray], plain: dict[str, str]) -> int:
    """How many outputs a classifier has: the rows of its last kernel."""
    kernel = tensors.get(plain.get(head_tensors(config, "classifier")[-2].name, ""))
    return len(kernel) if kernel is not None and kernel.ndim else 2


def _checked(tensor: Tensor, array: np.ndarray, where: str, config: TransformerConfig) -> np.ndarray:
    if array.shape != tensor.shape:
        sizes = f"the config's vocab_size is {config.vocabulary}, so " if tensor.path == "encoder/word/embedding" else ""
        raise CheckpointError(f"{where} has the shape {list(array.shape)}; {sizes}{list(tensor.shape)} was expected.")
    if array.dtype.kind not in "fV":  # V: bfloat16
        raise CheckpointError(f"{where} is not of a floating dtype; weights are.")
    array = array.astype(np.float32)
    if not np.isfinite(array).all():
        raise CheckpointError(f"{where} holds NaN or infinite values.")
    return np.ascontiguousarray(array.T) if tensor.transposed else array


def _digest(config: TransformerConfig, arrays: dict[str, np.ndarray]) -> str:
    digest = hashlib.sha256(json.dumps(dataclasses.asdict(config), sort_keys=True).encode())
    for path in sorted(arrays):
        digest.update(f"{path}{arrays[path].shape}".encode())
        digest.update(arrays[path].data)
    return digest.hexdigest()
