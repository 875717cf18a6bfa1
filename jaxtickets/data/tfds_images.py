"""`load("tfds:NAME")`: any labelled image set that tensorflow-datasets has prepared."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import numpy as np

from jaxtickets.data.labelled_images import ImageOptions, choose_features, collect, image_dataset
from jaxtickets.data.search_paths import StrPath, search
from jaxtickets.data.tfds import find_prepared, prepared_examples
from jaxtickets.dataset import Dataset
from jaxtickets.errors import DataError, DataNotFoundError
from jaxtickets.files import paths
from jaxtickets.messages.quoting import told

_NAME = re.compile(r"\w+(/[\w.+-]*\w)?")


def tfds_images(
    name: str, split: str, data_dir: StrPath | None, download: bool, options: ImageOptions
) -> Dataset:
    """A labelled image set of tensorflow-datasets; see `jaxtickets.data.load`.

    Raises:
      DataError: no such name or split; features that are unclear; images of several sizes; damage.
      DataNotFoundError: it has not been prepared, and that was off or failed.
      ImportError: tensorflow-datasets is not installed.
    """
    where = f"tfds:{name}"
    if not _NAME.fullmatch(name):
        raise DataError(f"{where}: a name is like 'tfds:mnist' or 'tfds:name/config'")
    folder, looked = search(
        data_dir,
        lambda root, remarks: find_prepared(root, name),
        lambda root: f"no {name}/<version>" if root.is_dir() else "no such folder",
    )
    library_folder = paths.given(
        os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets", "TFDS_DATA_DIR"
    )
    if folder is None and data_dir is None:
        folder = find_prepared(library_folder, name)
        looked += f"\n  tensorflow-datasets: {library_folder}: no {name}/<version>"
    if folder is None:
        target = library_folder if data_dir is None else paths.given(data_dir, "data_dir")
        folder = _prepare(name, target, looked, download)
    info = _info(folder)
    kinds = _kinds(info.features)
    image, label = choose_features(kinds, options, info.supervised_keys or (), str(folder))
    dtype = np.dtype(info.features[image].np_dtype)
    if dtype != np.uint8:
        raise DataError(
            f"{folder}: {image} holds {dtype}, and uint8 is expected. Read it"
            " with tfds, and give the arrays: from_arrays(x, y)"
        )
    counted_examples = prepared_examples(folder, split, "vision")
    if counted_examples is None:
        raise DataError(
            f"{folder}: no split {split!r}; there are {', '.join(map(repr, info.splits))}. Write"
            f" load({where!r}, {next(iter(info.splits), 'train')!r})"
        )
    names = tuple(info.features[label].names)
    pairs = ((example[image], example[label]) for example in counted_examples[1])
    x, y = collect(pairs, counted_examples[0], str(folder), split, len(names), options.size)
    return image_dataset(x, y, names, where)


def _info(folder: Path) -> Any:
    try:
        import tensorflow_datasets as tfds

        return tfds.builder_from_directory(folder).info
    except ImportError as error:
        raise _not_installed(error) from error
    except Exception as error:  # what the library makes of a damaged file
        raise DataError(
            f"{folder}: dataset_info.json or features.json cannot be read: {told(error)}. Prepare"
            " it again"
        ) from error


def _kinds(features: Any) -> dict[str, str]:
    import tensorflow_datasets as tfds

    def kind(feature: Any) -> str:
        if isinstance(feature, tfds.features.ClassLabel):
            return "label"
        # (a LabeledImage has a class in every pixel)
        return "image" if type(feature) is tfds.features.Image else type(feature).__name__

    return {name: kind(feature) for name, feature in features.items()}


def _prepare(name: str, target: Path, looked: str, download: bool) -> Path:
    """Let the library fetch and prepare the set, as files that are read without TensorFlow."""
    failure = "it was off (download=False)"
    if download:
        try:
            import tensorflow_datasets as tfds

            builder = tfds.builder(name, data_dir=target, file_format="array_record")
            builder.download_and_prepare()
            return Path(builder.data_dir)
        except ImportError as error:
            if error.name == "tensorflow_datasets":
                raise _not_installed(error) from error
            failure = told(error)
        except Exception as error:  # whatever the network, the disk or the set's own code says
            failure = told(error)
    raise DataNotFoundError(
        f"tfds:{name} was not found. Looked in\n{looked}\nPreparing it failed or was not tried:"
        f" {failure}\nPrepare it where there is a network, tfds.builder({name!r},"
        " file_format='array_record').download_and_prepare(), and pass its data_dir"
    )


def _not_installed(error: ImportError) -> ImportError:
    return ImportError(
        f"tfds: is read by tensorflow-datasets: pip install 'jaxtickets[vision]' ({error})"
    )
