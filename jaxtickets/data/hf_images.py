"""`load("hf:NAME")`: any labelled image set that Hugging Face's `datasets` can read."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from jaxtickets.data.image_files import decode_bytes
from jaxtickets.data.labelled_images import ImageOptions, choose_features, collect, image_dataset
from jaxtickets.data.search_paths import StrPath, search
from jaxtickets.dataset import Dataset
from jaxtickets.errors import DataError, DataNotFoundError
from jaxtickets.messages.quoting import told

_NAME = re.compile(r"([\w.-]*\w/)?[\w.-]*\w(@[\w.+-]+)?")
_FILES = ("*.parquet", "data/*.parquet", "dataset_dict.json", "state.json")


def hf_images(
    name: str, split: str, data_dir: StrPath | None, download: bool, options: ImageOptions
) -> Dataset:
    """A labelled image set of the Hugging Face hub; see `jaxtickets.data.load`.

    Raises:
      DataError: no such name or split; features that are unclear; images of several sizes; damage.
      DataNotFoundError: it is neither in a folder nor in the library's cache, and the download was
        off or failed.
      ImportError: `datasets` is not installed.
    """
    if not _NAME.fullmatch(name):
        raise DataError(
            f"hf:{name}: a name is like 'hf:mnist', 'hf:owner/name' or 'hf:owner/name@config'"
        )
    try:
        import datasets
    except ImportError as error:
        raise ImportError(
            f"hf: is read by Hugging Face's datasets: pip install 'jaxtickets[nlp]' ({error})"
        ) from error
    where, (repository, _, config) = f"hf:{name}", name.partition("@")
    folder, looked = search(
        data_dir,
        lambda root, remarks: _folder(root, repository),
        lambda root: (
            f"no {repository} with parquet files or of save_to_disk"
            if root.is_dir()
            else "no such folder"
        ),
    )
    if folder is None and data_dir is not None:
        raise DataNotFoundError(f"{where} was not found. Looked in\n{looked}")
    with contextlib.nullcontext() if download else _offline(datasets):
        splits = _splits(datasets, where, folder, repository, config or None, looked)
    if split not in splits:
        raise DataError(
            f"{where}: no split {split!r}; there are {', '.join(map(repr, splits))}. Write"
            f" load({where!r}, {next(iter(splits))!r})"
        )
    rows = splits[split]
    kinds = {column: _kind(datasets, feature) for column, feature in rows.features.items()}
    image, label = choose_features(kinds, options, (), f"{where}, {split!r}")
    rows = rows.select_columns([image, label]).cast_column(image, datasets.Image(decode=False))
    names = tuple(rows.features[label].names)
    x, y = collect(
        _pairs(rows, image, label, f"{where}, {split!r}"),
        len(rows),
        where,
        split,
        len(names),
        options.size,
        again="Fetch it again",
    )
    return image_dataset(x, y, names, where)


def _folder(root: Path, repository: str) -> Path | None:
    """The folder of a clone of the repository, or of what `save_to_disk` wrote; None if neither."""
    for folder in dict.fromkeys((root / repository, root / repository.rpartition("/")[2])):
        if any(any(folder.glob(pattern)) for pattern in _FILES):
            return folder
    return None


def _splits(
    datasets: Any,
    where: str,
    folder: Path | None,
    repository: str,
    config: str | None,
    looked: str,
) -> dict[str, Any]:
    try:
        if folder is not None and any((folder / name).is_file() for name in _FILES[2:]):
            stored = datasets.load_from_disk(str(folder))
            return dict(stored) if isinstance(stored, dict) else {str(stored.split): stored}
        return dict(datasets.load_dataset(str(folder or repository), config))
    except ValueError as error:  # a config to choose, or one that is none
        text = told(error)
        advice = f" Write load('{where.partition('@')[0]}@CONFIG')" if "onfig" in text else ""
        raise DataError(f"{where}: {text}{advice}") from error
    except Exception as error:  # whatever the network, the cache or Arrow says
        kind = DataNotFoundError if folder is None else DataError
        raise kind(f"{where} is not to be had: {told(error)}. Looked in\n{looked}") from error


@contextlib.contextmanager
def _offline(datasets: Any) -> Iterator[None]:
    """A context in which the library reads its cache only, as under HF_HUB_OFFLINE=1.

    It reads that variable when it is imported.
    """
    previous = datasets.config.HF_HUB_OFFLINE
    datasets.config.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        datasets.config.HF_HUB_OFFLINE = previous


def _kind(datasets: Any, feature: Any) -> str:
    if isinstance(feature, datasets.Image):
        return "image"
    if isinstance(feature, datasets.ClassLabel):
        return "label"
    return str(getattr(feature, "dtype", type(feature).__name__))


def _pairs(rows: Any, image: str, label: str, where: str) -> Iterator[tuple[np.ndarray, int]]:
    try:
        for number, row in enumerate(rows):
            stored, name = row[image] or {}, f"{where}, image {number}"
            raw = stored.get("bytes")
            if raw is None and stored.get("path") and Path(stored["path"]).is_file():
                raw = Path(stored["path"]).read_bytes()
            if raw is None:
                raise DataError(f"{name}: there is none. Fetch it again")
            pixels = np.asarray(decode_bytes(raw, name, grey=True))
            yield pixels[..., None] if pixels.ndim == 2 else pixels, _label(row[label])
    except DataError:
        raise
    except Exception as error:  # Arrow's, of a file that is cut short
        raise DataError(f"{where}: cannot be read: {told(error)}. Fetch it again") from error


def _label(label: int | None) -> int:
    return -1 if label is None else label
