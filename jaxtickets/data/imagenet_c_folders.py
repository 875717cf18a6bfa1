"""ImageNet-C: ImageNet's validation pictures after corruption, from the published folders."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from jaxtickets.data.corrupted_sets import CorruptedSets, pairs_of
from jaxtickets.data.corruptions import CORRUPTIONS, SEVERITIES
from jaxtickets.data.image_stream import ImageTest
from jaxtickets.data.imagenet_folders import image_test
from jaxtickets.data.search_paths import ENVIRONMENT, StrPath, search
from jaxtickets.errors import DataNotFoundError

FOLDER = "ImageNet-C"


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class CorruptedImages(ImageTest):
    """Pictures after one corruption: an `ImageTest` that says which. See `imagenet_c`.

    Args:
      corruption: one of those of `imagenet_c`.
      severity: 1 to 5.
      generated: False: these are the published files.
    """

    corruption: str
    severity: int
    generated: bool = False


def imagenet_c(
    data_dir: StrPath | None,
    class_names: Sequence[str],
    corruptions: Sequence[str] = CORRUPTIONS,
    severities: Sequence[int] = SEVERITIES,
    *,
    size: int = 224,
    resize: int | None = None,
    interpolation: str = "bilinear",
    workers: int | None = None,
) -> CorruptedSets[CorruptedImages]:
    """ImageNet-C: the validation pictures of ImageNet after 19 corruptions in 5 severities.

    Each set has 50,000 pictures.

    Looks where `cifar10` does, each time in `ImageNet-C`, then in the folder itself, for
    `fog/3/n01440764/*.JPEG`; `fog` may lie in the folder that its archive is named after
    (`weather/fog`). Folders are looked for at once; their pictures are listed when a set is asked
    for.

    Args:
      data_dir: the only folder to look in; None for JAXTICKETS_DATA, then ~/.cache/jaxtickets.
        Nothing is downloaded.
      class_names: those of the training set, `train.class_names`. If the folders have only some of
        them, the sets' `classes` say which, and `evaluate` restricts the predictions to those.
      corruptions: names; "speckle_noise", "gaussian_blur", "spatter" and "saturate" are in the
        archive `extra.tar`.
      severities: some of 1 to 5.
      size: height and width that the network sees, pixels.
      resize: length of the short side before the centre is cut out; None for `size`, as the
        published pictures are cut already.
      interpolation, workers: as in `imagenet`.

    Returns:
      `CorruptedImages`, corruption by corruption: `EvaluationStream`s with `corruption`, `severity`
        and `generated=False`.

    Raises:
      DataNotFoundError: a folder is nowhere.
      DataError: an unknown corruption or severity; a class folder without pictures or that is none
        of the network's, when its set is asked for.
      ImportError: Pillow or Grain is not installed, when a set is asked for.

    References:
      Hendrycks and Dietterich 2019, arXiv:1903.12261.
    """
    pairs = pairs_of("imagenet_c", corruptions, severities)
    folders, looked = search(
        data_dir, lambda root, remarks: _search(root, pairs, remarks), _nothing
    )
    if folders is None:
        raise DataNotFoundError(
            f"imagenet-c was not found. Looked in\n{looked}\nUnpack noise.tar, blur.tar,"
            " weather.tar, digital.tar and extra.tar from https://zenodo.org/records/2235448 into"
            f" {FOLDER} in a folder and pass that as data_dir, or name it in {ENVIRONMENT}. For"
            " less of it: corruptions=('fog',), severities=(3,)"
        )
    settings = {
        "size": size,
        "resize": size if resize is None else resize,
        "interpolation": interpolation,
        "workers": workers,
    }

    def make(corruption: str, severity: int) -> CorruptedImages:
        test = image_test(
            folders[corruption, severity],
            class_names,
            name=f"imagenet-c/{corruption}/{severity}",
            **settings,
        )
        parts = {field.name: getattr(test, field.name) for field in dataclasses.fields(test)}
        return CorruptedImages(**parts, corruption=corruption, severity=severity)

    return CorruptedSets("imagenet-c", pairs, make, generated=False)


def _search(
    root: Path, pairs: list[tuple[str, int]], remarks: list[str]
) -> dict[tuple[str, int], Path] | None:
    """The folder of each pair, or None, with remarks on what is there but lacks some."""
    for base in (root / FOLDER, root):
        folders = {}
        for corruption, severity in pairs:
            places = [base / corruption, *sorted(base.glob(f"*/{corruption}"))]
            folders[corruption, severity] = next(
                (p / str(severity) for p in places if (p / str(severity)).is_dir()), None
            )
        present_folders = {pair: folder for pair, folder in folders.items() if folder is not None}
        if len(present_folders) == len(pairs):
            return present_folders
        if present_folders or (base != root and base.is_dir()):
            lacking = [
                f"{name}/{level}" for name, level in pairs if (name, level) not in present_folders
            ]
            remarks.append(f"{base} lacks {', '.join(lacking)}")
    return None


def _nothing(place: Path) -> str:
    return f"no {FOLDER}" if place.is_dir() else "no such folder"
