from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from skimage.metrics import structural_similarity
from tests.kit import pictures

from webp_converter.picture.similarity import Luma, Reference


def luma(data: bytes) -> Luma:
    return np.asarray(pictures.opened(data).convert("L"))


@pytest.mark.parametrize("side", [64, 120, 300, 450, 512])
@pytest.mark.parametrize("name", pictures.PHOTOGRAPHS)
def test_agrees_with_scikit_image_on_photographs(name: str, side: int) -> None:
    photograph = pictures.photograph(name, side)
    original = np.asarray(photograph.convert("L"))
    reference = Reference(original)
    for quality in (30, 60, 75, 85, 95):
        variant = luma(pictures.encoded(photograph, "WEBP", quality=quality, method=2))
        expected = structural_similarity(original, variant)
        assert reference.similarity(variant) == pytest.approx(expected, abs=0.002), quality


def test_is_exact_for_small_pictures() -> None:
    rng = np.random.default_rng(1)
    one = rng.integers(0, 256, (199, 200), dtype=np.uint8)
    other = rng.integers(0, 256, (199, 200), dtype=np.uint8)
    assert Reference(one).similarity(other) == pytest.approx(structural_similarity(one, other), abs=1e-5)


def test_bands_make_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    photograph = pictures.photograph(side=512)
    original = np.asarray(photograph.convert("L"))
    variant = luma(pictures.encoded(photograph, "WEBP", quality=70))
    whole = Reference(original).similarity(variant)
    monkeypatch.setattr("webp_converter.picture.similarity._BAND_PIXELS", 20_000)
    banded = Reference(original)
    assert len(banded._bands) > 5
    assert banded.similarity(variant) == pytest.approx(whole, abs=1e-6)


@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 255))
def test_pictures_smaller_than_the_window(width: int, height: int, value: int) -> None:
    plain = np.full((height, width), value, np.uint8)
    assert Reference(plain).similarity(plain) == pytest.approx(1)
    other = np.full((height, width), 255 - value, np.uint8)
    assert -1 <= Reference(plain).similarity(other) <= 1.0001


def test_shapes_must_agree() -> None:
    with pytest.raises(ValueError, match="shapes differ"):
        Reference(np.zeros((9, 9), np.uint8)).similarity(np.zeros((9, 8), np.uint8))
