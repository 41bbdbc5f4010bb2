"""What rsync prints, as rsync 3.2 and 3.5 print it."""

from __future__ import annotations

import pytest

from bitrix_cdn.adopt import rsync
from bitrix_cdn.adopt.rsync import Item
from bitrix_cdn.fleet.progress import Copied


@pytest.mark.parametrize("text", ["8M", "1.5G", "500K"])
def test_a_bandwidth_is_passed_on(text: str) -> None:
    assert rsync.bandwidth(text) == text


@pytest.mark.parametrize("text", ["", "8", "8MB", "0M", "-1M", "M", "8 M", "1e3K"])
def test_what_is_no_bandwidth_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no bandwidth"):
        rsync.bandwidth(text)


def test_progress() -> None:
    line = b"     27,216,866  76%    9.16MB/s    0:00:02 (xfr#3212, ir-chk=1016/4892)"
    assert rsync.parse_progress(line) == Copied(27_216_866, 9_160_000, copied=3212, passed=3876)
    line = b"              0   0%    0.00kB/s    0:00:00 (xfr#0, to-chk=1/2)\r"
    assert rsync.parse_progress(line) == Copied(0, 0, copied=0, passed=1)


@pytest.mark.parametrize(
    "line", [b"", b"iblock/031/00989.jpg", b"          8,000   0%    0.00kB/s    0:00:00  "]
)
def test_other_lines_are_no_progress(line: bytes) -> None:
    assert rsync.parse_progress(line) is None


@pytest.mark.parametrize(
    ("line", "item"),
    [
        (b"item <f+++++++++ new.jpg", Item(b"new.jpg", missing=True, same_time=False)),
        (b"item <fc........ a b .jpg ", Item(b"a b .jpg ", missing=False, same_time=True)),
        (b"item <fcst...... x", Item(b"x", missing=False, same_time=False)),
        (b"item <fc.t...... x", Item(b"x", missing=False, same_time=False)),
    ],
)
def test_a_file_that_differs(line: bytes, item: Item) -> None:
    assert rsync.parse_item(line) == item


@pytest.mark.parametrize(
    "line",
    [
        b"item .f..t...... only its time differs",
        b"item cd+++++++++ directory/",
        b"item cL+++++++++ link -> x",
        b"read 1234",
        b"",
    ],
)
def test_what_is_no_differing_file(line: bytes) -> None:
    assert rsync.parse_item(line) is None


@pytest.mark.parametrize(
    ("printed", "name"),
    [
        (rb"n\#012ew", b"n\new"),
        (rb"bad\#377\#376.jpg", b"bad\xff\xfe.jpg"),
        # rsync writes the backslash of a name that looks like its own escape as \#134.
        (rb"\#134#012.jpg", rb"\#012.jpg"),
        (rb"back\slash", rb"back\slash"),
        (rb"\#9", rb"\#9"),
    ],
)
def test_names_are_bytes_again(printed: bytes, name: bytes) -> None:
    assert rsync.unescape(printed) == name


def test_stats() -> None:
    lines = [
        b"Number of files: 11,066 (reg: 10,042, dir: 1,024)",
        b"Number of regular files transferred: 10,042",
        b"Total file size: 84,995,436 bytes",
        b"Total transferred file size: 84,995,430 bytes",
    ]
    assert rsync.parse_stats(lines) == (10_042, 84_995_430)
    assert rsync.parse_stats([]) == (0, 0)
