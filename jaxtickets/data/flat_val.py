"""ImageNet's validation pictures as published: 50,000 in one folder, labelled by a text file of the development kit."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from jaxtickets.data.class_folders import Pictures, pictures_in
from jaxtickets.data.errors import DataError

TRUTH, META = "ILSVRC2012_validation_ground_truth.txt", "meta.mat"


def scan_flat(folder: Path, class_names: Sequence[str]) -> Pictures:
    """The pictures of a flat folder, in the order of their names, labelled by line i of the ground truth.

    The text file is looked for in the folder, beside it, and in the development kit (`ILSVRC2012_devkit_t12/data`)
    beside it. Its lines are class folder names, or, as published, the kit's own numbers: then `meta.mat` lies with it.

    Args:
      folder: with the pictures.
      class_names: of the training set.

    Raises:
      DataError: no text file; as many lines as there are no pictures; numbers without `meta.mat`; unknown classes.
    """
    files = sorted(pictures_in(folder))
    places = [folder, folder.parent, *sorted(folder.parent.glob("*devkit*/data")), *sorted(folder.parent.glob("*devkit*"))]
    truth = next((place / TRUTH for place in places if (place / TRUTH).is_file()), None)
    if truth is None:
        raise DataError(
            f"{folder}: {len(files):,} pictures without class folders, and no {TRUTH} to label them in {folder}, {folder.parent} or "
            f"{folder.parent}/ILSVRC2012_devkit_t12/data. Put it there, or sort the pictures into {folder}/CLASS/"
        )
    lines = truth.read_text().split()
    if len(lines) != len(files):
        raise DataError(f"{truth}: {len(lines):,} labels for the {len(files):,} pictures of {folder}; there is one per picture, by name")
    if all(line.isdecimal() for line in lines):
        names = _names_of_numbers(truth)
        strange = sorted({line for line in lines if int(line) not in names})
        wnids = [names.get(int(line), "") for line in lines]
    else:
        strange, wnids = [], lines
    place = {name: i for i, name in enumerate(class_names)}
    strange = strange or sorted({wnid for wnid in wnids if wnid not in place})
    if strange:
        raise DataError(f"{truth}: {strange[0]!r} is none of the {len(class_names)} classes of training. Is it the file of this data set?")
    return Pictures(folder, tuple(files), np.asarray([place[wnid] for wnid in wnids], np.int32), tuple(class_names))


def _names_of_numbers(truth: Path) -> dict[int, str]:
    """What the kit's `meta.mat` calls its classes: number to folder name. Its numbers are not in the order of the names."""
    meta = truth.parent / META
    if not meta.is_file():
        raise DataError(
            f"{truth}: its numbers are the development kit's own, and {meta}, which says what they mean, is missing. Put it there"
        )
    try:
        from scipy.io import loadmat
    except ImportError as error:
        raise ImportError(f"{meta} is read by SciPy: pip install 'jaxtickets[vision]'") from error
    try:
        synsets = np.atleast_1d(loadmat(meta, squeeze_me=True)["synsets"])
        return {int(row["ILSVRC2012_ID"]): str(row["WNID"]) for row in synsets if int(row["num_children"]) == 0}
    except Exception as error:  # SciPy's reader raises what it likes
        raise DataError(f"{meta}: cannot be read: {type(error).__name__}: {error}. Fetch the development kit again") from error
