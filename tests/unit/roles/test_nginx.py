"""What nginx serves is what the converter explains."""

from __future__ import annotations

import re

import pytest
from webp_converter.api.explain import REFUSED as NOT_EXPLAINED
from webp_converter.api.explain import SERVED
from webp_converter.config import Watch

from roles.nginx import PICTURES, REFUSED


@pytest.mark.parametrize("extension", [*Watch().extensions, *SERVED])
def test_whatever_is_explained_is_served(extension: str) -> None:
    assert re.fullmatch(PICTURES, extension)


def test_nothing_is_served_that_is_not_explained() -> None:
    assert not [name for name in ("php", "txt", "keep", "html") if re.fullmatch(PICTURES, name)]
    spelled = {"jpe?g": ("jpg", "jpeg"), "tiff?": ("tif", "tiff")}
    names = [name for pattern in PICTURES.split("|") for name in spelled.get(pattern, (pattern,))]
    assert {name for name in names if name.isalpha()} <= {*Watch().extensions, *SERVED}


def test_the_same_directories_are_refused() -> None:
    assert tuple(name.decode() for name in NOT_EXPLAINED) == REFUSED
