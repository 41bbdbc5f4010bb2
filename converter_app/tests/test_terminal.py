from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webp_converter import terminal


@given(st.binary())
def test_a_path_is_one_printable_line(name: bytes) -> None:
    shown = terminal.path(name).plain
    assert shown.isprintable()
    shown.encode("utf-8")


def test_a_path_is_taken_literally() -> None:
    assert terminal.path(b"/a/[bold]\n\xff\x1b[31m.jpg").plain == "/a/[bold]\\n\\xff\\x1b[31m.jpg"


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 bytes"), (1023, "1023 bytes"), (1536, "1.5 KiB"), (-1536, "-1.5 KiB"), (5 << 40, "5.0 TiB")],
)
def test_size(count: int, text: str) -> None:
    assert terminal.size(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(None, ""), (1.23, "1.2 s"), (150, "2.5 min"), (9000, "2.5 h"), (864_000, "10.0 d")]
)
def test_duration(seconds: float | None, text: str) -> None:
    assert terminal.duration(seconds) == text
