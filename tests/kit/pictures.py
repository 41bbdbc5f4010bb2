"""One way to make pictures, and to compare them."""

from __future__ import annotations

import io
import random
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import skimage
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from skimage.metrics import structural_similarity

PHOTOGRAPHS = (
    "astronaut.png",
    "chelsea.png",
    "coffee.png",
    "rocket.jpg",
    "retina.jpg",
    "motorcycle_left.png",
)
"""Of those that ship inside scikit-image."""

# Photographs with enough detail everywhere that no two crops look alike.
_SOURCES = ("astronaut.png", "chelsea.png", "coffee.png", "motorcycle_left.png", "rocket.jpg", "ihc.png")


@cache
def _source(name: str) -> Image.Image:
    with Image.open(Path(skimage.__file__).parent / "data" / name) as source:
        return source.convert("RGB")


@cache
def photograph(name: str = "astronaut.png", side: int = 450) -> Image.Image:
    """A photograph, no side of it longer than `side` pixels."""
    image = _source(name).copy()
    image.thumbnail((side, side))
    return image


def encoded(image: Image.Image, format: str = "JPEG", **options: Any) -> bytes:
    output = io.BytesIO()
    if format == "JPEG":
        options.setdefault("quality", 90)
    image.save(output, format, **options)
    return output.getvalue()


@cache
def jpeg(name: str = "astronaut.png", side: int = 450) -> bytes:
    return encoded(photograph(name, side))


def photo(seed: str, width: int, height: int, *, form: str = "JPEG", quality: int = 92) -> bytes:
    """A picture file that no other seed gives: a crop of a photograph, chosen by the seed.

    :param seed: stands in the file as well, so that the bytes differ even where the crops are the same.
    :param form: Pillow's name of the format, `JPEG` or `PNG`.
    """
    chance = random.Random(seed)
    source = _source(chance.choice(_SOURCES))
    side = chance.uniform(0.6, 0.9)
    crop_width = round(min(source.width, source.height * width / height) * side)
    crop_height = round(crop_width * height / width)
    left = chance.randint(0, source.width - crop_width)
    top = chance.randint(0, source.height - crop_height)
    picture = source.resize(
        (width, height), Image.Resampling.LANCZOS, box=(left, top, left + crop_width, top + crop_height)
    )
    if form == "PNG":
        info = PngInfo()
        info.add_text("Comment", seed)
        return encoded(picture, form, pnginfo=info)
    return encoded(picture, form, quality=quality, comment=seed.encode())


def opened(content: bytes) -> Image.Image:
    """The picture in a file, decoded whole."""
    picture = Image.open(io.BytesIO(content))
    picture.load()
    return picture


def ssim(one: bytes, other: bytes) -> float:
    """Similarity of two picture files' luma by scikit-image, 1 for equal ones."""
    first, second = (np.asarray(opened(content).convert("RGB").convert("L")) for content in (one, other))
    assert first.shape == second.shape, f"sizes differ: {first.shape[::-1]} and {second.shape[::-1]}"
    return float(structural_similarity(first, second, data_range=255))  # type: ignore[no-untyped-call]
