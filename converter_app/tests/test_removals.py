"""What is remembered of removed pictures, whatever becomes of the file that it is in."""

from __future__ import annotations

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from webp_converter.variants.removals import Removals, fingerprint

ONE, OTHER, THIRD = (fingerprint(b"/photo.jpg", data) for data in (b"one", b"other", b"third"))


def test_the_same_bytes_under_the_same_name_are_the_same() -> None:
    assert fingerprint(b"/a", b"bc") == fingerprint(b"/a", b"bc")
    assert len({fingerprint(*pair) for pair in ((b"/a", b"bc"), (b"/ab", b"c"), (b"/a", b"b"))}) == 3


def test_each_is_first_once_whoever_asks(tmp_path: Path) -> None:
    file = tmp_path / "removed"
    assert [Removals(file).is_first(known) for known in (ONE, OTHER, ONE)] == [True, True, False]


def test_the_oldest_is_forgotten(tmp_path: Path) -> None:
    removals = Removals(tmp_path / "removed", most=2)
    assert [removals.is_first(known) for known in (ONE, OTHER, THIRD)] == [True, True, True]
    assert [removals.is_first(known) for known in (THIRD, OTHER, ONE)] == [False, False, True]


def test_of_many_at_once_one_is_first(tmp_path: Path) -> None:
    file = tmp_path / "removed"
    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(lambda _: Removals(file).is_first(ONE), range(40))) == 1


@pytest.mark.parametrize("length", [0, 10, 5000])
def test_what_a_power_cut_left_of_it_is_no_obstacle(tmp_path: Path, length: int) -> None:
    file = tmp_path / "removed"
    Removals(file).is_first(ONE)
    file.write_bytes(file.read_bytes()[:length] and bytes(length))
    assert [Removals(file).is_first(known) for known in (OTHER, OTHER)] == [True, False]


def test_what_cannot_be_noted_is_said(tmp_path: Path) -> None:
    with pytest.raises(sqlite3.OperationalError):
        Removals(tmp_path / "missing" / "removed").is_first(ONE)
