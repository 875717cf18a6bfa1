"""Synthetic pictures of four shapes in class folders, for the demo of `imagenet.py`.

JPEG files of shapes in any colour, size and place. `train`, `val` and `subset` are written; the
last has two of the classes only, smaller and noisier, as ImageNet-A has 200 of ImageNet's.

Not a script. `train`, `val` and `subset` are written; the last has two of the classes only, smaller
and noisier, as ImageNet-A has 200 of ImageNet's.
"""

from __future__ import annotations

import math
import os
import shutil
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

NAMES = ("bars", "circle", "cross", "square")
SUBSET = ("circle", "square")
TRAIN, VAL = 160, 50


def write(folder: Path, seed: int) -> Path:
    """The folder with its pictures; they are drawn, all or none, unless they are there."""
    if folder.is_dir():
        return folder
    partial = folder.with_name(f".{folder.name}.{os.getpid()}")
    shutil.rmtree(partial, ignore_errors=True)
    parts = {
        "train": (NAMES, TRAIN, 12.0, 1.0),
        "val": (NAMES, VAL, 12.0, 1.0),
        "subset": (SUBSET, VAL, 30.0, 0.7),
    }
    for number, (part, (names, count, noise, scale)) in enumerate(parts.items()):
        for name in names:
            (partial / part / name).mkdir(parents=True)
            for i in range(count):
                rng = np.random.default_rng((seed, number, NAMES.index(name), i))
                draw(name, rng, noise, scale).save(
                    partial / part / name / f"{i:04d}.JPEG", quality=90
                )
    os.replace(partial, folder)
    return folder


def draw(name: str, rng: np.random.Generator, noise: float, scale: float) -> Image.Image:
    """One picture of 48 to 64 pixels a side: the shape on a plain ground, and noise.

    The two colours are far apart.
    """
    width, height = (int(side) for side in rng.integers(48, 65, 2))
    ground = rng.integers(0, 256, 3)
    colour = (ground + 128 + rng.integers(-40, 41, 3)) % 256
    picture = Image.new("RGB", (width, height), tuple(ground.tolist()))
    pen, ink = ImageDraw.Draw(picture), tuple(colour.tolist())
    radius = scale * rng.uniform(0.3, 0.42) * min(width, height)
    x, y = rng.uniform(radius, width - radius), rng.uniform(radius, height - radius)
    turn = rng.uniform(-0.2, 0.2)

    def polygon(points: list[tuple[float, float]]) -> None:
        c, s = radius * math.cos(turn), radius * math.sin(turn)
        pen.polygon([(x + c * a - s * b, y + s * a + c * b) for a, b in points], fill=ink)

    if name == "circle":
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=ink)
    elif name == "square":
        polygon([(-0.85, -0.85), (0.85, -0.85), (0.85, 0.85), (-0.85, 0.85)])
    elif name == "cross":
        polygon([(-0.3, -1), (0.3, -1), (0.3, 1), (-0.3, 1)])
        polygon([(-1, -0.3), (1, -0.3), (1, 0.3), (-1, 0.3)])
    else:
        for low in (-0.9, -0.2, 0.5):
            polygon([(-0.9, low), (0.9, low), (0.9, low + 0.4), (-0.9, low + 0.4)])
    pixels = np.asarray(picture, np.float64) + rng.normal(0, noise, (height, width, 3))
    return Image.fromarray(pixels.clip(0, 255).round().astype(np.uint8))
