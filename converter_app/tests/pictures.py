"""Pictures made from the photographs that ship inside scikit-image."""

from __future__ import annotations

import io
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import skimage
from PIL import Image
from skimage.metrics import structural_similarity

PHOTOGRAPHS = (
    "astronaut.png",
    "chelsea.png",
    "coffee.png",
    "rocket.jpg",
    "retina.jpg",
    "motorcycle_left.png",
)


@cache
def photograph(name: str = "astronaut.png", side: int = 450) -> Image.Image:
    image = Image.open(Path(skimage.__file__).parent / "data" / name).convert("RGB")
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


def decoded(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


def ssim(one: bytes, other: bytes) -> float:
    """By scikit-image, on luma."""
    lumas = [np.asarray(decoded(data).convert("RGB").convert("L")) for data in (one, other)]
    return float(structural_similarity(*lumas))
