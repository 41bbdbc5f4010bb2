"""Real photographs, as they ship inside the scikit-image package."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import skimage
from PIL import Image

_DATA = Path(skimage.__file__).parent / "data"

# As they ship. All are larger than the sizes asked for: of a smaller one Bitrix shows the original itself.
_AS_THEY_ARE = ("rocket.jpg", "hubble_deep_field.jpg", "retina.jpg", "astronaut.png", "ihc.png", "logo.png")
# Photographs that ship as PNG only; shops get such pictures from cameras, as JPEG.
_AS_JPEG = ("astronaut", "chelsea", "coffee", "motorcycle_left", "camera")
_CAMERA_QUALITY = 92


@dataclass(frozen=True)
class Photograph:
    """A picture file: its name and its bytes."""

    name: str
    content: bytes


def photographs() -> Iterator[Photograph]:
    """Yield each photograph of the demo, JPEG and PNG."""
    for name in _AS_THEY_ARE:
        yield Photograph(name, (_DATA / name).read_bytes())
    for name in _AS_JPEG:
        with Image.open(_DATA / f"{name}.png") as picture:
            file = io.BytesIO()
            mode = "L" if picture.mode in {"L", "I;16"} else "RGB"
            picture.convert(mode).save(file, "JPEG", quality=_CAMERA_QUALITY)
        yield Photograph(f"{name}.jpg", file.getvalue())
