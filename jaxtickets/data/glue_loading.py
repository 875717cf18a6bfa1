"""Loads GLUE's nine tasks as token ids: found, checked, tokenised once."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxtickets.data.glue_files import Texts
from jaxtickets.data.glue_sources import read_glue
from jaxtickets.data.glue_tasks import GlueTask, glue_task
from jaxtickets.data.search_paths import CACHE, StrPath
from jaxtickets.data.token_cache import cached_tokens, token_key
from jaxtickets.data.tokenizing import Encoder, encoder
from jaxtickets.dataset import Dataset
from jaxtickets.errors import DataError
from jaxtickets.files import paths

BUCKETS = (32, 64, 96, 128)
"""Token lengths that batches of GLUE are cut to, up to `max_length`. Half of MRPC's pairs have at
most 53 tokens of bert-base-uncased.
"""


def glue(
    task: str,
    tokenizer: Any,
    root: StrPath | None = None,
    *,
    source: str = "auto",
    max_length: int = 128,
    splits: Sequence[str] | None = None,
    buckets: Sequence[int] | None = None,
    cache: StrPath | bool = True,
    download: bool = True,
) -> dict[str, Dataset]:
    """A task of GLUE, tokenised: its training and validation splits (of MNLI two of them).

    Looks in `root`, and nowhere else if that is given; otherwise in the folder that the variable
    JAXTICKETS_DATA names, then in ~/.cache/jaxtickets, each time for: the published TSV files
    (`glue_data/MRPC` or `MRPC`), a set prepared by tensorflow-datasets (`glue/mrpc/2.0.0`), and a
    clone of the Hugging Face repository (`mrpc/*.parquet`). The first that holds all of the splits
    is taken. When there is none, `nyu-mll/glue` is loaded with Hugging Face's `datasets`, from its
    own cache or the hub.

    Ids are kept in `tokens` in the cache folder, by a digest of the texts, the tokenizer and
    `max_length`.

    Args:
      task: "cola", "sst2", "mrpc", "stsb", "qqp", "mnli", "qnli", "rte" or "wnli".
      tokenizer: a fast tokenizer of transformers (it is not changed); a `vocab.txt` of BERT, which
        gives the lower-casing WordPiece of the uncased models; a folder with a tokenizer's files;
        or a name on the hub.
      root: the folder that holds `glue_data`, the task's folder, or is it.
      source: "files", "tfds" or "huggingface" to look for one of them only; "auto" for all, in this
        order.
      max_length: T, tokens of an example with the special ones. A longer pair loses tokens from the
        longer text.
      splits: some of "train" and "validation" (of MNLI: "validation_matched" and
        "validation_mismatched"); None for all. Test splits have no published labels.
      buckets: token lengths that batches may be cut to, the last of them T; None for (32, 64, 96,
        128) up to T, and T; () for none.
      cache: the folder for `tokens`; True for ~/.cache/jaxtickets, False for not keeping them.
      download: load from the Hugging Face hub when nothing is found. A `tokenizer` by name is not
        affected.

    Returns:
      a `Dataset` by split, named "glue/mrpc" (mismatched: "glue/mnli-mm"): x is a dictionary of
      input_ids int32, token_type_ids uint8 and attention_mask bool, each [N, T], filled up on the
      right; y int32 [N] with the class names of the Hugging Face hub in their order, or for STS-B
      float32 [N] from 0 to 5 and `num_classes=None`.

    Raises:
      DataError: an unknown task, split or source; a file that is malformed (its name and the line);
        a `max_length` or `buckets` that cannot be; a tokenizer that is no fast one.
      DataNotFoundError: the data or the tokenizer is nowhere.
      ImportError: transformers, or what a source needs, is not installed.

    References:
      Wang et al. 2018, arXiv:1804.07461. Truncation and padding as the examples of transformers
      have them.

    Differs:
      WNLI is offered, though its validation split contradicts its training split and results are
      usually left out.

    >>> glue("mrpcc", "vocab.txt")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    jaxtickets.errors.DataError: glue: task is one of cola, sst2, mrpc, stsb, ... wnli; got 'mrpcc'.
    """
    definition = glue_task(task)
    _check_arguments(root, cache, download, buckets)
    split_names = _splits(definition, splits)
    tool = encoder(tokenizer)
    # its errors before anything is read
    tool.encode([], [] if len(definition.texts) == 2 else None, max_length)
    if buckets is None:
        buckets = (*(size for size in BUCKETS if size < max_length), max_length)
    place = (
        None
        if cache is False
        else paths.in_home(CACHE)
        if cache is True
        else paths.given(cache, "cache")
    )
    folder = None if place is None else place / "tokens"
    texts_by_split = read_glue(definition, split_names, root, source, download)
    return {
        split: _dataset(definition, split, texts, tool, max_length, tuple(buckets), folder)
        for split, texts in texts_by_split.items()
    }


def _check_arguments(root: Any, cache: Any, download: Any, buckets: Any) -> None:
    if not isinstance(root, str | os.PathLike | None):
        raise DataError(
            f"glue: root is a folder, or None to look where data usually is; got {root!r}"
        )
    if not isinstance(cache, bool | str | os.PathLike):
        raise DataError(f"glue: cache is a folder, True or False; got {cache!r}")
    if not isinstance(download, bool):
        raise DataError(f"glue: download is True or False; got {download!r}")
    if isinstance(buckets, str) or not isinstance(buckets, Sequence | None):
        raise DataError(
            f"glue: buckets are token lengths such as (32, 64, 128), or None; got {buckets!r}"
        )


def _splits(task: GlueTask, splits: Sequence[str] | None) -> tuple[str, ...]:
    if splits is None:
        return task.splits
    names = (
        (splits,)
        if isinstance(splits, str)
        else tuple(splits)
        if isinstance(splits, Sequence)
        else ()
    )
    if not names or any(name not in task.splits for name in names):
        raise DataError(
            f"glue/{task.name}: splits are some of {', '.join(task.splits)}; got {splits!r}"
        )
    return tuple(dict.fromkeys(names))


def _dataset(
    task: GlueTask,
    split: str,
    texts: Texts,
    tool: Encoder,
    max_length: int,
    buckets: tuple[int, ...],
    folder: Path | None,
) -> Dataset:
    key = token_key(texts.first, texts.second, tool.digest(max_length))
    x = cached_tokens(
        folder,
        key,
        (len(texts), max_length),
        lambda: tool.encode(texts.first, texts.second, max_length),
    )
    return Dataset(
        x=x,
        y=texts.y,
        num_classes=None if task.regression else len(task.class_names),
        name=f"glue/{task.name}" + ("-mm" if split == "validation_mismatched" else ""),
        class_names=task.class_names,
        buckets=buckets,
    )
