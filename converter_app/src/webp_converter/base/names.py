"""Recognises the names of originals, and those that leave room for a suffix.

A variant has its original's name with a suffix, `photo.jpg.webp`. Add-ons of the site write such files too:
whatever is called like a variant is never taken for an original.
"""

from __future__ import annotations

import os
from collections.abc import Collection

_PICTURES = frozenset(("jpg", "jpeg", "jpe", "png", "gif", "bmp", "tif", "tiff", "webp", "avif"))
VARIANTS = ("webp", "avif")
"""Extensions that originals and variants have."""

SUFFIX_BYTES = 5
"""Of `.webp`, `.avif` and `.keep`."""

LONGEST_BYTES = 255 - SUFFIX_BYTES
"""Bytes that an original's name may have: Linux allows 255 in a name, suffix included (NAME_MAX)."""


TOO_LONG = f"its name takes more than {LONGEST_BYTES} bytes, and leaves no room for a suffix such as .webp"


def is_variant(name: str) -> bool:
    """Whether a name is that of a variant, whoever made it."""
    stem, _, extension = name.rpartition(".")
    return extension in VARIANTS and stem.rpartition(".")[2].lower() in _PICTURES and "." in stem


def is_original(name: str, extensions: Collection[str]) -> bool:
    """Whether a name is that of an original, with one of these extensions in lower case."""
    _, dot, extension = name.rpartition(".")
    return bool(dot) and extension.lower() in extensions and not is_variant(name)


def has_room(name: str | bytes) -> bool:
    """Whether a name, without directories, leaves room for a suffix. Bytes count, not letters."""
    # A letter has at most four: most names need no counting.
    return len(name) <= LONGEST_BYTES // 4 or len(os.fsencode(name)) <= LONGEST_BYTES
