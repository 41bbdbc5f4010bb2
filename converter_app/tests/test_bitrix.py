from __future__ import annotations

import pytest

from webp_converter.base.bitrix import Box, box_of, source_of


@pytest.mark.parametrize(
    ("path", "box"),
    [
        (b"/c/resize_cache/iblock/1a2/450_300_1/photo.jpg", Box(450, 300, 1)),
        (b"/c/1a2/450_300_2d41d8cd98f00b204e9800998ecf8427e/photo.jpg", Box(450, 300, 2)),
        (b"/c/1a2/0_300_0/photo.jpg", Box(0, 300, 0)),
        (b"/c/1a2/450_300/photo.jpg", None),
        (b"/c/1a2/450_300_1x/photo.jpg", None),
        (b"/c/450_300_1/sub/photo.jpg", None),
        (b"/c/banner.jpg", None),
    ],
)
def test_boxes_are_read_from_directories(path: bytes, box: Box | None) -> None:
    assert box_of(path) == box


@pytest.mark.parametrize(
    ("box", "width", "height", "holds"),
    [
        (Box(450, 300, 1), 450, 300, True),
        (Box(450, 300, 1), 451, 300, False),
        (Box(450, 300, 1), 300, 450, False),
        (Box(450, 300, 0), 300, 450, True),
        (Box(450, 300, 0), 301, 451, False),
        (Box(0, 300, 1), 5000, 300, True),
        (Box(0, 300, 1), 5000, 301, False),
        (Box(0, 0, 2), 5000, 5000, True),
    ],
)
def test_what_a_box_holds(box: Box, width: int, height: int, holds: bool) -> None:
    assert box.holds(width, height) is holds


@pytest.mark.parametrize(
    ("resized", "original"),
    [
        (b"iblock/1a2/450_300_1/photo.jpg", b"iblock/1a2/photo.jpg"),
        (b"iblock/450_300_1/photo.jpg", b"iblock/photo.jpg"),
        (b"450_300_1/photo.jpg", b"photo.jpg"),
    ],
)
def test_what_a_resized_picture_was_made_from(resized: bytes, original: bytes) -> None:
    assert source_of(resized) == original
