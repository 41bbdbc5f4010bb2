"""SSIMULACRA 2 against libjxl's own program."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from webp_converter.picture.visible import Judge

Rgb = NDArray[np.uint8]


def waves(width: int, height: int) -> NDArray[np.float64]:
    """A picture that needs no decoder and no random numbers."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    red = 120 + 80 * np.sin(x / 9) * np.cos(y / 13)
    green = 110 + 60 * np.sin((x + y) / 17) + 30 * ((x // 20 + y // 20) % 2)
    blue = 90 + 70 * np.cos(x / 31 - y / 7)
    return np.stack([red, green, blue], -1)


def whole(values: NDArray[np.float64]) -> Rgb:
    return np.clip(values.round(), 0, 255).astype(np.uint8)


def coarse(values: NDArray[np.float64], step: float) -> Rgb:
    return whole((values / step).round() * step)


def shifted(values: NDArray[np.float64], *by: float) -> Rgb:
    return whole(values + np.array(by))


def pale(values: NDArray[np.float64]) -> Rgb:
    """Chroma of a quarter of the size."""
    height, width = (side // 4 * 4 for side in values.shape[:2])
    luma = values @ np.array([0.299, 0.587, 0.114])
    chroma = (values - luma[..., None])[:height, :width]
    small = chroma.reshape(height // 4, 4, width // 4, 4, 3).mean((1, 3))
    blurred = values - luma[..., None]
    blurred[:height, :width] = small.repeat(4, 0).repeat(4, 1)
    return whole(luma[..., None] + blurred)


PAIRS: dict[str, Callable[[], tuple[Rgb, Rgb]]] = {
    "coarse": lambda: (whole(waves(200, 150)), coarse(waves(200, 150), 12)),
    "hardly coarse": lambda: (whole(waves(200, 150)), coarse(waves(200, 150), 3)),
    "odd sides": lambda: (whole(waves(157, 211)), coarse(waves(157, 211), 9)),
    "four scales": lambda: (whole(waves(64, 64)), coarse(waves(64, 64), 10)),
    "an icon": lambda: (whole(waves(16, 20)), coarse(waves(16, 20), 10)),
    "colour shifted": lambda: (whole(waves(200, 150)), shifted(waves(200, 150), 9, 0, -9)),
    "lighter": lambda: (whole(waves(200, 150)), shifted(waves(200, 150), 5, 5, 5)),
    "pale": lambda: (whole(waves(200, 152)), pale(waves(200, 152))),
}

LIBJXL = {
    "coarse": 81.275,
    "hardly coarse": 95.538,
    "odd sides": 87.951,
    "four scales": 82.226,
    "an icon": 91.671,
    "colour shifted": 81.681,
    "lighter": 88.569,
    "pale": 92.243,
}
"""What `ssimulacra2` of libjxl 0.11.2 (Debian's libjxl-devtools) tells of these pairs."""


@pytest.mark.parametrize("name", PAIRS)
def test_as_libjxl(name: str) -> None:
    original, variant = PAIRS[name]()
    assert Judge(original).score(variant) == pytest.approx(LIBJXL[name], abs=0.1)


def test_the_same_is_100() -> None:
    original, _ = PAIRS["coarse"]()
    assert Judge(original).score(original) == 100.0


def test_less_than_eight_pixels() -> None:
    original = whole(waves(5, 30))
    assert Judge(original).score(original) == 100.0
    assert Judge(original).score(255 - original) < 90


def test_of_another_size_there_is_no_score() -> None:
    with pytest.raises(ValueError, match="shapes differ"):
        Judge(whole(waves(20, 20))).score(whole(waves(20, 21)))
