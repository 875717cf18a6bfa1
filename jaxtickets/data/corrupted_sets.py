"""Corrupted test sets: a series of which one is in memory at a time, and sets made here."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Generic, TypeVar

import numpy as np

from jaxtickets.data.corruptions import CORRUPTIONS, FUNCTIONS, SEVERITIES, corrupt
from jaxtickets.dataset import Dataset
from jaxtickets.errors import DataError

T = TypeVar("T")


@dataclasses.dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class CorruptedSet(Dataset):
    """A test set after one corruption: a `Dataset` that says which.

    Args:
      corruption: one of `CORRUPTIONS`.
      severity: 1 to 5.
      generated: whether it was made by `corrupted`; False for the published files. The name says it
        as well.
    """

    corruption: str
    severity: int
    generated: bool


class CorruptedSets(Generic[T]):
    """A series of corrupted test sets, each made or read when it is asked for.

    `len`, `sets[i]`, and iteration, any number of times.

    Args:
      name: what they are corruptions of, with "-c".
      pairs: corruption and severity of each.
      make: `(corruption, severity) -> set`.
      generated: as in `CorruptedSet`.
    """

    def __init__(
        self,
        name: str,
        pairs: Sequence[tuple[str, int]],
        make: Callable[[str, int], T],
        generated: bool,
    ) -> None:
        self.name, self.pairs, self.generated = name, tuple(pairs), generated
        self._make = make

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> T:
        return self._make(*self.pairs[index])

    def __iter__(self) -> Iterator[T]:
        for corruption, severity in self.pairs:
            yield self._make(corruption, severity)

    def __repr__(self) -> str:
        corruptions, severities = ({pair[i] for pair in self.pairs} for i in (0, 1))
        origin = " (generated)" if self.generated else ""
        return (
            f"CorruptedSets({self.name}{origin}: {len(self)} sets, {len(corruptions)} corruptions,"
            f" severities {sorted(severities)})"
        )


def corrupted(
    test: Dataset,
    corruptions: Sequence[str] | None = None,
    severities: Sequence[int] = SEVERITIES,
    *,
    seed: int,
    scale: float | None = None,
) -> CorruptedSets[CorruptedSet]:
    """Test images corrupted as in CIFAR-10-C, made here and without a download.

    These are not the published images (`cifar10_c` reads those), and scores on them are not
    comparable to those of papers: their names end in "(generated)". Each image draws from a
    generator of its own, by seed, corruption, severity and row: it does not matter which others are
    asked for.

    Args:
      test: x uint8 [N, H, W, C], C 1 or 3, at least 8 pixels high and wide.
      corruptions: names; None for all 18 that can be made (of grey images 17: no "saturate").
      severities: some of 1 to 5.
      seed: an integer that is not negative.
      scale: the largest pixel value; None for that of `test.prepare`, which `Standardise` has.

    Returns:
      `CorruptedSet`s, corruption by corruption, with the labels, names of classes and functions of
      `test`.

    Raises:
      DataError: an unknown corruption, "frost", or a severity that is not 1 to 5; images of another
        type or shape; a scale that is not known or that pixels exceed.
      ImportError: Pillow is not installed ("pixelate" and "jpeg_compression" only), when the set is
        made.

    References:
      Hendrycks and Dietterich 2019, arXiv:1903.12261. Settings are those of the authors' script for
      CIFAR.

    Differs:
      "frost" overlays photographs that come with the authors' code, and is left out. Pixels are
      rounded, not cut off (half a level brighter), and once, at the end. Streaks of "motion_blur"
      and "snow" follow ImageMagick's description, the drops of "spatter" have the rims of their
      outlines in place of Canny's edges, and "elastic_transform" interpolates at exact places, not
      at 32nds of a pixel. Lengths in pixels are meant for 32x32 images; only those of
      "elastic_transform", "pixelate" and "fog" grow with the image. The package `imagecorruptions`
      (settings of ImageNet, OpenCV and scikit-image needed) was no
      alternative: several of its corruptions fail on or destroy 32x32 images (its issues 13 and
        21), and it draws from NumPy's
      global state.

    >>> from jaxtickets.data import digits
    >>> sets = corrupted(digits("test"), ("fog", "contrast"), (1, 5), seed=0)
    >>> sets
    CorruptedSets(digits-c (generated): 4 sets, 2 corruptions, severities [1, 5])
    >>> sets[3]
    Dataset(digits-c/contrast/5 (generated): 450 examples, x=uint8[450, 8, 8, 1], classes=10)
    """
    images, scale = pixels_of(test, scale)
    if min(images.shape[1:3]) < 8:
        raise DataError(
            f"corrupted: {test.name}: images are at least 8 pixels high and wide; got"
            f" {list(images.shape[1:3])}"
        )
    possible = tuple(name for name in FUNCTIONS if images.shape[-1] == 3 or name != "saturate")
    pairs = pairs_of("corrupted", possible if corruptions is None else corruptions, severities)
    for name, _ in pairs:
        if name not in possible:
            reason = (
                "it overlays photographs that are not here"
                if name == "frost"
                else "grey images have no colours"
            )
            raise DataError(
                f"corrupted: {name!r} cannot be made: {reason}. Those that can:"
                f" {', '.join(possible)}"
            )
    check_seed("corrupted", seed)
    name = f"{test.name}-c"
    functions = {
        field: getattr(test, field)
        for field in ("num_classes", "augment", "prepare", "class_names")
    }

    def make(corruption: str, severity: int) -> CorruptedSet:
        x = corrupt(images, corruption, severity, seed, scale)
        title = f"{name}/{corruption}/{severity} (generated)"
        return CorruptedSet(
            x=x,
            y=test.y,
            name=title,
            corruption=corruption,
            severity=severity,
            generated=True,
            **functions,
        )

    return CorruptedSets(name, pairs, make, generated=True)


def noisy(
    test: Dataset, standard_deviation: float, *, seed: int, scale: float | None = None
) -> Dataset:
    """Test images with Gaussian noise, as an out-of-distribution set.

    To see whether a network notices that they are not its own.

    Noise is independent for each value, and the sum is clipped. Each image draws from a generator
    of its own.

    Args:
      test: x uint8 [N, H, W, C], C 1 or 3.
      standard_deviation: of the noise, the largest pixel value being 1. FreeTickets evaluates on
        such a set and does not say which it takes, so there is no default; say it beside the
        result.
      seed: an integer that is not negative.
      scale: as in `corrupted`.

    Returns:
      a `Dataset` as `test`, its name with the deviation in it.

    Raises:
      DataError: as `corrupted`; a deviation that is not positive.

    References:
      Liu et al. 2022, arXiv:2106.14568, appendix K, which refers to Hein et al. 2019,
      arXiv:1812.05720.

    >>> from jaxtickets.data import digits
    >>> noisy(digits("test"), 0.5, seed=0).name
    'digits with Gaussian noise 0.5 (generated)'
    """
    images, scale = pixels_of(test, scale, "noisy")
    if (
        isinstance(standard_deviation, bool)
        or not isinstance(standard_deviation, int | float)
        or not 0 < standard_deviation < np.inf
    ):
        raise DataError(
            "noisy: standard_deviation is positive, in units of the largest pixel value; got"
            f" {standard_deviation!r}"
        )
    check_seed("noisy", seed)
    x = np.empty_like(images)
    for i, image in enumerate(images):
        noise = np.random.default_rng((seed, i)).standard_normal(image.shape, np.float32)
        x[i] = np.rint(np.clip(image + np.float32(scale * standard_deviation) * noise, 0, scale))
    return dataclasses.replace(
        test, x=x, name=f"{test.name} with Gaussian noise {standard_deviation:g} (generated)"
    )


def pairs_of(
    function: str, corruptions: Sequence[str], severities: Sequence[int]
) -> list[tuple[str, int]]:
    """Every corruption with every severity, once, checked.

    Raises:
      DataError: an unknown corruption or severity, or none.
    """
    names = (corruptions,) if isinstance(corruptions, str) else tuple(corruptions)
    unknown = [name for name in names if name not in CORRUPTIONS]
    if unknown or not names:
        raise DataError(
            f"{function}: corruptions are some of {', '.join(CORRUPTIONS)}; got"
            f" {unknown[0] if unknown else ()!r}"
        )
    levels = (severities,) if isinstance(severities, int) else tuple(severities)
    if not levels or any(isinstance(level, bool) or level not in SEVERITIES for level in levels):
        raise DataError(f"{function}: severities are some of 1, 2, 3, 4, 5; got {severities!r}")
    return [(name, int(level)) for name in dict.fromkeys(names) for level in dict.fromkeys(levels)]


def pixels_of(
    test: Dataset, scale: float | None, function: str = "corrupted"
) -> tuple[np.ndarray, float]:
    """The images, checked, and their largest pixel value.

    Raises:
      DataError: they are no uint8 images, or the scale is not known or too small.
    """
    x = test.x
    if (
        not isinstance(x, np.ndarray)
        or x.dtype != np.uint8
        or x.ndim != 4
        or x.shape[-1] not in (1, 3)
    ):
        description = f"{x.dtype}{list(x.shape)}" if hasattr(x, "dtype") else type(x).__name__
        raise DataError(
            f"{function}: {test.name}: x is uint8 [N, H, W, C] with 1 or 3 channels; got"
            f" {description}"
        )
    scale = getattr(test.prepare, "scale", None) if scale is None else scale
    if scale is None:
        raise DataError(
            f"{function}: {test.name}: its prepare does not say the largest pixel value. Give it:"
            " scale=255"
        )
    if not 0 < scale <= 255 or x.max(initial=0) > scale:
        raise DataError(
            f"{function}: {test.name}: scale is the largest pixel value, up to 255; got {scale},"
            f" and pixels of {x.max(initial=0)}"
        )
    return x, float(scale)


def check_seed(function: str, seed: int) -> None:
    """Raise `DataError` for what is no seed."""
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
        raise DataError(f"{function}: seed is an integer >= 0; got {seed!r}")
