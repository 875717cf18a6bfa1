"""Validation pictures as published in one folder: of ImageNet and Tiny ImageNet.

ImageNet's are labelled by the development kit, Tiny ImageNet's by a table.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from jaxtickets.data.class_folders import IMAGES, LeftOut, Pictures, pictures_in
from jaxtickets.data.mat import variables
from jaxtickets.errors import DataError
from jaxtickets.messages.quoting import shown, told

TRUTH, META = "ILSVRC2012_validation_ground_truth.txt", "meta.mat"
ANNOTATIONS = "val_annotations.txt"
_MOST_TEXT = 2**22


def scan_flat(folder: Path, class_names: Sequence[str]) -> Pictures:
    """The pictures of a flat folder, in the order of their names, labelled by lines of a file.

    Picture i has line i of the ground truth.

    The text file is looked for in the folder, beside it, and in the development kit
    (`ILSVRC2012_devkit_t12/data`) beside it. Its lines are class folder names, or, as published,
    the kit's own numbers: then `meta.mat` lies with it.

    Args:
      folder: with the pictures.
      class_names: of the training set.

    Raises:
      DataError: no text file; as many lines as there are no pictures; numbers without `meta.mat`;
        unknown classes.
    """
    left = LeftOut()
    files = pictures_in(folder, left)
    places = [
        folder,
        folder.parent,
        *sorted(folder.parent.glob("*devkit*/data")),
        *sorted(folder.parent.glob("*devkit*")),
    ]
    truth = next((place / TRUTH for place in places if (place / TRUTH).is_file()), None)
    if truth is None:
        raise DataError(
            f"{folder}: {len(files):,} pictures without class folders, and no {TRUTH} to label them"
            f" in {folder}, {folder.parent} or {folder.parent}/ILSVRC2012_devkit_t12/data. Put it"
            f" there, or sort the pictures into {folder}/CLASS/"
        )
    lines = _text(truth).split()
    if len(lines) != len(files):
        raise DataError(
            f"{truth}: {len(lines):,} labels for the {len(files):,} pictures of {folder}; there is"
            " one per picture, by name"
        )
    if all(line.isascii() and line.isdecimal() and len(line) < 10 for line in lines):
        names = _names_of_numbers(truth)
        unknown = sorted({line for line in lines if int(line) not in names})
        wnids = [names.get(int(line), "") for line in lines]
    else:
        unknown, wnids = [], lines
    left.counts.pop(".txt files", None)  # the labels
    left.tell(folder)
    place = {name: i for i, name in enumerate(class_names)}
    unknown = unknown or sorted({wnid for wnid in wnids if wnid not in place})
    if unknown:
        shown_label = shown(unknown[0])
        raise DataError(
            f"{truth}: {shown_label} is none of the {len(class_names)} classes of training. Is it"
            " the file of this data set?"
        )
    return Pictures(
        folder,
        tuple(files),
        np.asarray([place[wnid] for wnid in wnids], np.int32),
        tuple(class_names),
    )


def annotated(folder: Path) -> bool:
    """Whether a folder is laid out as Tiny ImageNet's `val` is."""
    return (folder / ANNOTATIONS).is_file() and (folder / IMAGES).is_dir()


def scan_annotated(folder: Path, class_names: Sequence[str] | None = None) -> Pictures:
    """The pictures of `folder/images`, labelled by `val_annotations.txt`, as of Tiny ImageNet.

    Args:
      folder: with the table, a line for each picture: its name, its class, and a box that is not
        read, with tabs between them.
      class_names: of the training set; None for those of the table, in order.

    Raises:
      DataError: a picture without a line or a line without its picture, a class that training has
        not, or a table that cannot be read.
    """
    table, left = folder / ANNOTATIONS, LeftOut()
    files = pictures_in(folder / IMAGES, left)
    labels = {}
    for number, line in enumerate(_text(table).splitlines(), 1):
        name, _, fields = line.partition("\t")
        if line.strip():
            labels[name] = number, fields.partition("\t")[0].strip()
    classes = (
        sorted({label for _, label in labels.values()}) if class_names is None else class_names
    )
    place = {name: i for i, name in enumerate(classes)}
    for name, (number, label) in labels.items():
        if label not in place:
            raise DataError(
                f"{table}: line {number}: {shown(label)} is none of the {len(classes)} classes of"
                " training"
            )
        if not (folder / IMAGES / name).is_file():
            raise DataError(
                f"{table}: line {number}: there is no picture {shown(name)} in {folder / IMAGES}."
                " Unpack the archive again"
            )
    lacking = [name for name in files if name not in labels]
    if lacking:
        raise DataError(
            f"{table}: no line for {len(lacking):,} of {len(files):,} pictures, {shown(lacking[0])}"
            " the first. Unpack the archive again"
        )
    if not files:
        raise DataError(
            f"{table}: there are no pictures in {folder / IMAGES}. Unpack the archive again"
        )
    left.tell(folder / IMAGES)
    y = np.asarray([place[labels[name][1]] for name in files], np.int32)
    return Pictures(folder, tuple(f"{IMAGES}/{name}" for name in files), y, tuple(classes))


def _text(file: Path) -> str:
    """The contents of a text file, of which a real one has less than a megabyte."""
    try:
        with file.open("rb") as opened:
            raw = opened.read(_MOST_TEXT + 1)
        if len(raw) > _MOST_TEXT:
            raise ValueError(f"more than {_MOST_TEXT:,} bytes")
        return raw.decode()
    except (OSError, ValueError) as error:
        raise DataError(
            f"{file}: cannot be read as a text with a label for each picture: {told(error)}"
        ) from None


def _names_of_numbers(truth: Path) -> dict[int, str]:
    """The class folder's name for each class number of the kit's `meta.mat`.

    Its numbers are not in the order of the names.
    """
    meta = truth.parent / META
    if not meta.is_file():
        raise DataError(
            f"{truth}: its numbers are the development kit's own, and {meta}, which says what they"
            " mean, is missing. Put it there"
        )
    synsets = next(
        (
            variable
            for variable in variables(meta)
            if variable.name == "synsets" and variable.kind == "struct"
        ),
        None,
    )
    try:
        rows = [] if synsets is None else synsets.read()
        return {
            int(row["ILSVRC2012_ID"].item()): str(row["WNID"])
            for row in rows
            if int(row["num_children"].item()) == 0
        }
    except DataError:
        raise
    except (KeyError, ValueError, AttributeError, OverflowError) as error:
        raise DataError(
            f"{meta}: its synsets are not the development kit's: {told(error)}. Fetch the"
            " development kit again"
        ) from None
