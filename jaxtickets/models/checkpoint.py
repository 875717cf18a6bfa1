"""Reads pretrained encoders: Hugging Face checkpoints as params."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np

from jaxtickets.errors import CheckpointError
from jaxtickets.files import paths
from jaxtickets.messages.quoting import shown
from jaxtickets.models.checkpoint_classes import (
    check_classifier,
    names_of_classes,
    order_of_classes,
)
from jaxtickets.models.checkpoint_files import finder, read_json, read_tensors
from jaxtickets.models.checkpoint_names import (
    HeadKind,
    Tensor,
    build,
    encoder_tensors,
    head_tensors,
    is_head,
    plain_names,
    pooler_tensors,
    word_bias,
)
from jaxtickets.models.transformer_config import TransformerConfig

PyTree = Any


@dataclasses.dataclass(frozen=True, eq=False)
class Checkpoint:
    """A pretrained network; two of equal content are equal, wherever they were read.

    Args:
      config: its sizes.
      params: `{"encoder": ...}`, with `"head"` if it was asked for: numpy float32 arrays, as
        `Encoder` and the heads name them.
      name: what a task calls it: the last part of where it is from.
      digest: SHA-256 over config, names and bytes.
      class_names: what the outputs of a classifier stand for, where its head was read and the file
        says it; or empty.
    """

    config: TransformerConfig
    params: PyTree
    name: str
    digest: str
    class_names: tuple[str, ...] = ()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Checkpoint) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    def __repr__(self) -> str:
        return (
            f"Checkpoint({self.name}:"
            f" {self.config}{''.join(f', {name}' for name in self.class_names)})"
        )

    @property
    def has_pooler(self) -> bool:
        """Whether the checkpoint has a pooler; masked language models have none."""
        return "pooler" in self.params["encoder"]


def read_checkpoint(
    where: str | Path,
    head: HeadKind | None = None,
    revision: str | None = None,
    *,
    ignore: Sequence[str] = (),
    class_names: Sequence[str] | None = None,
) -> Checkpoint:
    """The encoder of a Hugging Face checkpoint, and if asked for its head.

    Reads `config.json` and `model.safetensors` or `pytorch_model.bin`, whole or in shards; nothing
    in them is executed. Names may have a prefix (`bert.`, `roberta.`, `module.`, `backbone.`, ...)
    or none, norms their old names (gamma, beta); BERT's and RoBERTa's own heads that were not asked
    for and buffers are left out.

    Args:
      where: a folder, or a model's name on the Hugging Face hub (from its cache, or fetched into
        it).
      head: "classifier" or "masked_lm" to read that head too, as `params["head"]`.
      revision: of a model on the hub: a branch, a tag or a commit.
      ignore: patterns of tensors that are left out: regular expressions that match somewhere in
        their names, such as "^crf" for a head that is neither's.
      class_names: with `head="classifier"`, the order that its outputs are put into, such as
        `dataset.class_names`: the config's `id2label` says which they are. None for the order of
        the file.

    Returns:
      A `Checkpoint` of float32 arrays.

    Raises:
      CheckpointError: nothing there; another architecture; a file damaged; tensors missing, left
        over, of another shape, not floating or not finite; classes that are not `class_names`.
        Names the file and the tensor.
      ValueError: an argument that cannot be.
      ImportError: a name of the hub, and huggingface_hub is not installed.

    >>> read_checkpoint("./nowhere")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    jaxtickets.errors.CheckpointError: there is no folder './nowhere'. A model of the ...
    """
    _check_arguments(where, head, revision, ignore, class_names)
    find = finder(where, revision)
    path = find("config.json")
    if path is None:
        raise CheckpointError(
            f"{where}: holds no config.json, so it is no Hugging Face checkpoint."
        )
    settings = read_json(path)
    config = TransformerConfig.from_hf(settings, str(path))
    if head == "classifier":
        check_classifier(settings, str(path))
    tensors, files = read_tensors(find, str(where))
    source = next(iter(files.values()), str(where))
    for pattern in ignore:
        if not any(re.search(pattern, name) for name in tensors):
            raise CheckpointError(
                f"{source}: ignore: {pattern!r} matches none of its tensors,"
                f" {', '.join(list(tensors)[:5])}, ..."
            )
    plain = plain_names(
        [name for name in tensors if not any(re.search(pattern, name) for pattern in ignore)],
        config,
        source,
    )
    if head == "masked_lm" and word_bias(config) not in plain:
        # Whoever ties the tables ties their biases; older files have one of both names.
        other = word_bias(dataclasses.replace(config, tied=not config.tied))
        plain |= {word_bias(config): plain.pop(other)} if other in plain else {}
    expected = encoder_tensors(config)
    pooler = pooler_tensors(config)
    if any(tensor.name in plain for tensor in pooler):
        expected += pooler
    if head is not None:
        expected += head_tensors(config, head, _outputs(config, tensors, plain))
    arrays = {}
    for tensor in expected:
        stored_name = plain.pop(tensor.name, None)
        if stored_name is None:
            raise CheckpointError(f"{source}: lacks {tensor.name!r}, which a {config} has.")
        arrays[tensor.path] = _checked(
            tensor, tensors[stored_name], f"{files[stored_name]}: {stored_name!r}", config
        )
    unused = [name for name in plain if not is_head(name)]
    if unused:
        more = f" and {len(unused) - 1} more" if len(unused) > 1 else ""
        of_encoder = unused[0].startswith(("embeddings.", "encoder.", "pooler."))
        hint = (
            ""
            if of_encoder
            else (
                " A head of another kind is left out by"
                f" ignore=['{re.escape(unused[0].partition('.')[0])}']."
            )
        )
        raise CheckpointError(
            f"{files[plain[unused[0]]]}: a {config} has no use for {plain[unused[0]]!r}{more}. Does"
            f" config.json belong to it?{hint}"
        )
    names: tuple[str, ...] = ()
    if head == "classifier":
        names = names_of_classes(settings, len(arrays["head/classifier/bias"]), str(path))
        if class_names is not None:
            order = order_of_classes(names, tuple(class_names), str(path))
            arrays |= {
                leaf: np.ascontiguousarray(arrays[leaf][..., order])
                for leaf in ("head/classifier/kernel", "head/classifier/bias")
            }
            names = tuple(class_names)
    folder = paths.given(where, "the checkpoint's folder")
    name = folder.resolve().name if os.path.isdir(folder) else str(where).rpartition("/")[2]
    return Checkpoint(config, build(arrays), name, _digest(config, arrays), names)


def _check_arguments(where: Any, head: Any, revision: Any, ignore: Any, class_names: Any) -> None:
    if not isinstance(where, str | Path) or not str(where) or "\0" in str(where):
        raise ValueError(
            f"read_checkpoint: where is a folder or a model's name on the hub; got {shown(where)}."
        )
    if head is not None and head not in get_args(HeadKind):
        raise ValueError(
            f"read_checkpoint: head is {', '.join(map(repr, get_args(HeadKind)))} or None; got"
            f" {shown(head)}."
        )
    if revision is not None and not isinstance(revision, str):
        raise ValueError(
            "read_checkpoint: revision is a branch, a tag or a commit, or None; got"
            f" {shown(revision)}."
        )
    if (
        isinstance(ignore, str)
        or not isinstance(ignore, Sequence)
        or not all(map(_is_pattern, ignore))
    ):
        raise ValueError(
            "read_checkpoint: ignore is a list of regular expressions, such as ['^crf']; got"
            f" {shown(ignore)}."
        )
    if class_names is not None:
        words = (
            isinstance(class_names, Sequence)
            and not isinstance(class_names, str)
            and all(isinstance(name, str) for name in class_names)
        )
        if not words or len(set(class_names)) < len(class_names) or not class_names:
            raise ValueError(
                "read_checkpoint: class_names are different words, one for each output; got"
                f" {shown(class_names)}."
            )
        if head != "classifier":
            raise ValueError(
                "read_checkpoint: class_names are those of a classifier, so they need"
                f" head='classifier'; got head={head!r}."
            )


def _is_pattern(pattern: Any) -> bool:
    try:
        return isinstance(pattern, str) and bool(re.compile(pattern))
    except (re.error, RecursionError, OverflowError):
        return False


def _outputs(
    config: TransformerConfig, tensors: dict[str, np.ndarray], plain: dict[str, str]
) -> int:
    """The number of a classifier's outputs: the rows of its last kernel."""
    kernel = tensors.get(plain.get(head_tensors(config, "classifier")[-2].name, ""))
    return len(kernel) if kernel is not None and kernel.ndim else 2


def _checked(
    tensor: Tensor, array: np.ndarray, where: str, config: TransformerConfig
) -> np.ndarray:
    if array.shape != tensor.shape:
        sizes = (
            f"the config's vocab_size is {config.vocabulary}, so "
            if tensor.path == "encoder/word/embedding"
            else ""
        )
        raise CheckpointError(
            f"{where} has the shape {list(array.shape)}; {sizes}{list(tensor.shape)} was expected."
        )
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
