"""Reads pictures from files: decoded by Pillow, cut at random or at the centre, standardised."""

from __future__ import annotations

import io
import math
from typing import TYPE_CHECKING

import numpy as np

from jaxtickets.errors import DataError
from jaxtickets.messages.quoting import told

if TYPE_CHECKING:
    from PIL.Image import Image

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet's training images in the 0..1 scale, as everybody uses them."""

FORMATS = ("JPEG", "PNG")
"""What a file may hold, whatever it is called: ImageNet has a PNG that is named .JPEG."""

MAX_PIXELS = 2**26
"""A picture of more is refused before it is decoded; ImageNet's largest has 61 million."""

MAX_BYTES = 2**28
"""Of a picture's file."""

MAX_SCANS = 128
"""Passes over a JPEG: each may be a hundred bytes, and takes as long as a whole picture. Real ones
have about ten.
"""

FILTERS = ("bilinear", "bicubic")

_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr")


def decode(path: str) -> Image:
    """The picture in a file, as RGB whatever it was.

    It may be grey, CMYK, with a palette or with transparency (which is dropped).

    Args:
      path: a JPEG or PNG file, of any name.

    Returns:
      a Pillow image of mode RGB. Orientation tags are not followed, as elsewhere in the literature.

    Raises:
      DataError: the file cannot be opened, is neither JPEG nor PNG, is cut short or damaged, holds
        16-bit samples, or has more than `MAX_PIXELS` pixels, `MAX_BYTES` bytes or `MAX_SCANS`
        scans.
    """
    try:
        with open(path, "rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    return decode_bytes(raw, path)


def decode_bytes(raw: bytes, path: str, grey: bool = False) -> Image:
    """The picture in a file's bytes; see `decode`.

    Args:
      raw: the file, or so much of it that more than `MAX_BYTES` can be seen.
      path: its name, for messages.
      grey: leave a picture without colours as mode L.
    """
    from PIL import Image

    scans = raw.count(b"\xff\xda") if raw.startswith(b"\xff\xd8") else 0
    if len(raw) > MAX_BYTES or scans > MAX_SCANS:
        problem = (
            f"a JPEG of {scans:,} scans" if scans > MAX_SCANS else f"more than {MAX_BYTES:,} bytes"
        )
        raise DataError(f"{path}: {problem}, which no picture has. Fetch it again")
    try:
        with Image.open(io.BytesIO(raw), formats=FORMATS) as picture:
            _refuse_large(path, *picture.size)
            if picture.mode not in _MODES:
                raise DataError(
                    f"{path}: its pixels are {picture.mode!r}, and 8 bits a channel are expected."
                    " Convert it to RGB"
                )
            if picture.mode == "P" and isinstance(picture.info.get("transparency"), bytes):
                picture = picture.convert("RGBA")
            return picture.convert("L" if grey and picture.mode in ("1", "L") else "RGB")
    except DataError:
        raise
    except Image.UnidentifiedImageError:
        raise DataError(
            f"{path}: not recognised as JPEG or PNG; it begins with {raw[:8]!r}. Fetch it again"
        ) from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(
            f"{path}: {error} At most {MAX_PIXELS:,} pixels are decoded. Make it smaller"
        ) from None
    except Exception as error:  # Pillow's plugins raise what they like
        raise DataError(f"{path}: cut short or damaged: {told(error)}. Fetch it again") from error


def _refuse_large(path: str, width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise DataError(
            f"{path}: {width:,} x {height:,} pixels, and at most {MAX_PIXELS:,} in all are decoded."
            " Make it smaller"
        )


def random_box(
    rng: np.random.Generator,
    width: int,
    height: int,
    scale: tuple[float, float],
    ratio: tuple[float, float],
) -> tuple[int, int, int, int]:
    """The box of a random resized crop: of a random area and aspect ratio, at a random place.

    The area is uniform in `scale` times the picture's, the logarithm of width / height uniform
    between those of `ratio`, and a box that does not fit is drawn again. After ten such draws: the
    largest central box of an allowed ratio.

    Args:
      rng: where the draws come from.
      width, height: of the picture, pixels.
      scale: least and largest share of the area.
      ratio: least and largest width / height.

    Returns:
      `(left, top, right, bottom)`, pixels.

    References:
      Szegedy et al. 2015, arXiv:1409.4842, section 6; torchvision's `RandomResizedCrop`.

    >>> random_box(np.random.default_rng(0), 10, 1000, (1.0, 1.0), (3 / 4, 4 / 3))
    (0, 493, 10, 506)
    """
    low, high = math.log(ratio[0]), math.log(ratio[1])
    for _ in range(10):
        area = width * height * rng.uniform(*scale)
        aspect = math.exp(rng.uniform(low, high))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            top, left = int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1))
            return left, top, left + w, top + h
    w, h = width, height
    if width / height < ratio[0]:
        h = max(1, round(width / ratio[0]))
    elif width / height > ratio[1]:
        w = max(1, round(height * ratio[1]))
    left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h


def training_view(
    picture: Image,
    rng: np.random.Generator,
    size: int,
    scale: tuple[float, float],
    ratio: tuple[float, float],
    flip: bool,
    interpolation: str,
) -> np.ndarray:
    """A random box of the picture, resized, and with `flip` mirrored half of the time.

    uint8 [size, size, 3].
    """
    box = random_box(rng, *picture.size, scale, ratio)
    # Cut first: a resize with a box would look at pixels outside of it.
    view = picture.crop(box).resize((size, size), _filter(interpolation))
    pixels = np.asarray(view)
    return pixels[:, ::-1] if flip and rng.random() < 0.5 else pixels


def centre_view(picture: Image, size: int, resize: int, interpolation: str) -> np.ndarray:
    """The short side resized to `resize` pixels, then the centre: uint8 [size, size, 3].

    References:
      torchvision's `Resize(256)`, `CenterCrop(224)`: the long side is rounded down, half a pixel to
      the even number.
    """
    width, height = picture.size
    short = min(width, height)
    width, height = int(resize * width / short), int(resize * height / short)
    resized = picture.resize((width, height), _filter(interpolation))
    left, top = round((width - size) / 2), round((height - size) / 2)
    return np.asarray(resized.crop((left, top, left + size, top + size)))


def standardise(pixels: np.ndarray, mean: tuple[float, ...], std: tuple[float, ...]) -> np.ndarray:
    """Pixels 0..255 as float32 (pixel / 255 - mean) / std, channel by channel.

    >>> standardise(np.array([[[0, 255]]], np.uint8), (0.5, 0.5), (0.25, 0.5)).ravel().tolist()
    [-2.0, 1.0]
    """
    deviation = np.asarray(std, np.float64)
    x = pixels.astype(np.float32)
    x *= (1 / (255 * deviation)).astype(np.float32)
    x -= (np.asarray(mean, np.float64) / deviation).astype(np.float32)
    return x


def _filter(interpolation: str) -> int:
    from PIL import Image

    return {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}[
        interpolation
    ]
