"""Reads GLUE's examples from TSV files, tensorflow-datasets or Hugging Face's `datasets`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jaxtickets.data.glue_files import Texts, read_rows, read_tsv
from jaxtickets.data.glue_tasks import GlueTask
from jaxtickets.data.search_paths import ENVIRONMENT, StrPath, search
from jaxtickets.data.tfds import find_prepared, prepared_examples
from jaxtickets.errors import DataError, DataNotFoundError
from jaxtickets.files import paths

SOURCES = ("auto", "files", "tfds", "huggingface")
HUB = "nyu-mll/glue"
"""The repository on the Hugging Face hub; all of its data are parquet files."""

Splits = dict[str, Texts]


def read_glue(
    task: GlueTask, splits: tuple[str, ...], root: StrPath | None, source: str, download: bool
) -> Splits:
    """The texts of a task's splits from the first place that holds all of them.

    Args:
      task: which.
      splits: of `task.splits`.
      root: as in `glue`.
      source: as in `glue`.
      download: as in `glue`.

    Returns:
      the texts by split.

    Raises:
      DataError: files that are damaged or of something else.
      DataNotFoundError: the task, or a split of it, is nowhere.
      ImportError: what is needed to read a source is not installed.
    """
    if source not in SOURCES:
        raise DataError(f"glue: source is one of {', '.join(SOURCES)}; got {source!r}")
    if root is not None and not paths.given(root, "root").is_dir():
        raise DataNotFoundError(f"glue/{task.name}: root: {root}: no such folder. {_advice(task)}")
    texts_by_split, looked = search(
        root,
        lambda place, remarks: _search(task, splits, place, source, remarks),
        lambda place: _nothing(task, place, source),
        argument="root",
    )
    if texts_by_split is not None:
        return texts_by_split
    failure = (
        "root was given"
        if root is not None
        else "it was off (download=False)"
        if not download
        else f"source is {source!r}"
    )
    if source in ("auto", "huggingface") and root is None and download:
        try:
            return _hub(task, splits)
        except (ImportError, DataNotFoundError) as error:
            if source == "huggingface":
                raise
            failure = str(error)
    raise DataNotFoundError(
        f"glue/{task.name}, {' and '.join(splits)}, was not found. Looked in\n{looked}\n"
        f"The Hugging Face hub was not reached or not tried: {failure}\n{_advice(task)}"
    )


def _search(
    task: GlueTask, splits: tuple[str, ...], root: Path, source: str, remarks: list[str]
) -> Splits | None:
    """All of the splits from one place, or None, with remarks on what is there but lacks one."""
    if source in ("auto", "files"):
        for base in dict.fromkeys((root / "glue_data" / task.folder, root / task.folder, root)):
            if base == root and root.name != task.folder:
                continue
            lacking = [
                task.file(split) for split in splits if not (base / task.file(split)).is_file()
            ]
            if not lacking:
                return {split: read_tsv(task, base / task.file(split)) for split in splits}
            if base.is_dir():
                remarks.append(f"{base} lacks {', '.join(lacking)}{_rest(task, splits, lacking)}")
    if source in ("auto", "tfds"):
        prepared = find_prepared(root, f"glue/{task.name}")
        if prepared is not None:
            texts_by_split = {split: _prepared(task, split, prepared) for split in splits}
            complete = {
                split: texts for split, texts in texts_by_split.items() if texts is not None
            }
            if len(complete) == len(splits):
                return complete
            remarks.append(
                f"{prepared} lacks {', '.join(split for split in splits if split not in complete)}"
            )
    if source in ("auto", "huggingface"):
        for folder in (root / task.name, root / "glue" / task.name):
            if (
                any(folder.glob("*.parquet"))
                and (clone := _clone(task, splits, folder, remarks)) is not None
            ):
                return clone
    return None


def _prepared(task: GlueTask, split: str, folder: Path) -> Texts | None:
    prepared = prepared_examples(folder, split, "vision,nlp")
    if prepared is None:
        return None
    total, examples = prepared
    texts = read_rows(task, examples, f"{folder}: {split!r}")
    if len(texts) != total:
        raise DataError(
            f"{folder}: {len(texts)} examples of {split!r} found, {total} expected. Prepare it"
            " again"
        )
    return texts


def _hub(task: GlueTask, splits: tuple[str, ...]) -> Splits:
    """The splits from the Hugging Face hub or its cache; no repository's code is run."""
    try:
        import datasets
    except ImportError as error:
        raise ImportError(
            f"{HUB} is loaded with Hugging Face's datasets: pip install 'jaxtickets[nlp]' ({error})"
        ) from error
    texts_by_split = {}
    for split in splits:
        try:
            loaded: Any = datasets.load_dataset(HUB, task.name, split=split)
            rows = loaded.to_list()
        except Exception as error:  # whatever the network, the cache or Arrow says
            raise DataNotFoundError(
                f"{HUB}, {task.name}, {split!r} is not to be had: {type(error).__name__}: {error}"
            ) from error
        texts_by_split[split] = read_rows(task, rows, f"{HUB}, {task.name}, {split!r}")
    return texts_by_split


def _clone(
    task: GlueTask, splits: tuple[str, ...], folder: Path, remarks: list[str]
) -> Splits | None:
    """The splits from the parquet files of a clone of the repository."""
    files = {split: sorted(folder.glob(f"{split}-*.parquet")) for split in splits}
    if not all(files.values()):
        remarks.append(
            f"{folder} lacks"
            f" {', '.join(f'{split}-*.parquet' for split in splits if not files[split])}"
        )
        return None
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise ImportError(
            f"{folder} is read by pyarrow: pip install 'jaxtickets[nlp]' ({error})"
        ) from error
    texts_by_split = {}
    for split, parts in files.items():
        rows = []
        for path in parts:
            try:
                rows += parquet.ParquetFile(path).read().to_pylist()
            except (pyarrow.ArrowException, OSError) as error:
                raise DataError(f"{path}: cannot be read: {error}. Fetch it again") from error
        texts_by_split[split] = read_rows(task, rows, f"{folder}: {split!r}")
    return texts_by_split


def _rest(task: GlueTask, splits: tuple[str, ...], lacking: list[str]) -> str:
    present = tuple(split for split in splits if task.file(split) not in lacking)
    return f" (for what is there: splits={present})" if present else ""


def _nothing(task: GlueTask, place: Path, source: str) -> str:
    if not place.is_dir():
        return "no such folder"
    kinds = {
        "files": f"glue_data/{task.folder} or {task.folder}",
        "tfds": f"glue/{task.name}/<version>",
        "huggingface": f"{task.name}/*.parquet",
    }
    return f"no {', '.join(kinds[kind] for kind in SOURCES[1:] if source in ('auto', kind))}"


def _advice(task: GlueTask) -> str:
    return (
        f"Put {task.folder} with {', '.join(task.file(split) for split in task.splits)} from"
        " https://gluebenchmark.com/tasks into a folder glue_data and pass the folder that holds"
        f" it as root, or name it in {ENVIRONMENT}"
    )
