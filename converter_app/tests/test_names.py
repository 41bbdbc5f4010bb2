from __future__ import annotations

import os

import pytest

from webp_converter.base.names import has_room, is_original, is_variant

EXTENSIONS = ("jpg", "webp", "avif")


@pytest.mark.parametrize(
    "name",
    ["photo.jpg", "PHOTO.JPG", "photo.webp", "photo.WebP", "photo.avif", "v1.2.webp", "photo.jpg.WEBP"],
)
def test_originals(name: str) -> None:
    assert is_original(name, EXTENSIONS)


@pytest.mark.parametrize(
    "name",
    [
        "photo.jpg.webp",
        "photo.PNG.webp",
        "photo.webp.webp",
        "photo.avif.webp",
        "photo.jpg.avif",
        "photo.jpe.webp",
    ],
)
def test_variants_are_no_originals_whoever_made_them(name: str) -> None:
    assert is_variant(name)
    assert not is_original(name, EXTENSIONS)


@pytest.mark.parametrize("name", ["photo.jpg.keep", "photo", "jpg", "photo.txt", "webp"])
def test_neither(name: str) -> None:
    assert not is_original(name, EXTENSIONS)
    assert not is_variant(name)


@pytest.mark.parametrize(
    ("name", "fits"),
    [
        ("a" * 246 + ".jpg", True),
        ("a" * 247 + ".jpg", False),
        ("\u0444" * 123 + ".jpg", True),
        ("\u0444" * 124 + ".jpg", False),
        (os.fsdecode(b"\xff" * 246 + b".jpg"), True),
        (b"\xff" * 247 + b".jpg", False),
    ],
)
def test_the_bytes_of_a_name_count(name: str | bytes, fits: bool) -> None:
    assert has_room(name) is fits
