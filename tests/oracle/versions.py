"""Pictures that say which version they are, in every format and after every loss of quality."""

from __future__ import annotations

import io
import random
from functools import cache

import numpy as np
from PIL import Image

from tests.kit import pictures

SIDE = 96
"""Pixels of a picture, where nothing else is said."""

_CELLS = 4
_DARK, _LIGHT = 70, 185
_SCALE = 0.4
"""How much of the photograph is left in a cell: enough that no two pictures compress alike."""


def picture(version: int, side: int = SIDE) -> bytes:
    """A JPEG whose cells are dark or light, after the bits of its version.

    :param version: from 0 to 65,535.
    :param side: of the picture, in pixels; a multiple of four.
    """
    assert 0 <= version < 1 << _CELLS * _CELLS
    chance = random.Random(version)
    ground = _photograph(chance.choice(pictures.PHOTOGRAPHS), side)
    ground = np.roll(ground, (chance.randrange(side), chance.randrange(side)), (0, 1))
    bits = [version >> k & 1 for k in range(_CELLS * _CELLS)]
    levels = np.where(np.array(bits).reshape(_CELLS, _CELLS), _LIGHT, _DARK)
    cells = np.kron(levels, np.ones((side // _CELLS, side // _CELLS)))[..., None]
    image = Image.fromarray(np.clip(cells + _SCALE * (ground - 128.0), 0, 255).astype(np.uint8))
    return pictures.encoded(image, quality=95, comment=b"version %d" % version)


@cache
def _photograph(name: str, side: int) -> np.ndarray:
    return np.asarray(pictures.photograph(name, 450).resize((side, side)), dtype=float)


def version_of(data: bytes) -> int | None:
    """The version of a picture in any format; None: these bytes are no whole picture."""
    try:
        image = Image.open(io.BytesIO(data))
        image.load()
    except Exception:  # whatever a decoder says of half a file
        return None
    cells = image.convert("L").resize((_CELLS, _CELLS), Image.Resampling.BOX)
    middle = (_DARK + _LIGHT) / 2
    return sum(int(level > middle) << k for k, level in enumerate(cells.tobytes()))
