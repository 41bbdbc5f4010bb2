"""What becomes of files that differ, and when there is room."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from bitrix_cdn.adopt import reconcile
from bitrix_cdn.adopt.errors import MigrationError
from bitrix_cdn.adopt.rsync import Item
from bitrix_cdn.adopt.transfer import Content, job
from bitrix_cdn.fleet.progress import Display, size


def differs(name: bytes) -> Item:
    return Item(name, missing=False, same_time=False)


def missing(name: bytes) -> Item:
    return Item(name, missing=True, same_time=False)


def test_only_what_nobody_can_explain_is_unverified() -> None:
    verdicts = reconcile.classify(
        [differs(b"again"), differs(b"broken"), missing(b"gone")], {b"again", b"other"}
    )
    assert verdicts.superseded == {b"again"}
    assert verdicts.removed == {b"gone"}
    assert verdicts.unverified == {b"broken"}


@pytest.mark.parametrize(("count", "of", "few"), [(100, 0, True), (101, 0, False), (9_000, 1_000_000, True)])
def test_few_files_are_a_hundred_or_one_in_a_hundred(count: int, of: int, few: bool) -> None:
    assert reconcile.few(count, of) is few
    assert reconcile.suspicious(count, of) is not few


def test_names_survive_a_list() -> None:
    names = {b"b\n", b"a\xff", b"-x y"}
    assert reconcile.join(names) == b"-x y\0a\xff\0b\n\0"
    assert reconcile.names(reconcile.join(names)) == names
    assert reconcile.names(b"") == set()


def room(free: tuple[int, int], coming: Content, there: Content) -> str:
    output = io.StringIO()
    display = Display(Console(file=output))
    reconcile.need_space(display, "cdn", free, coming, there, variants=True)
    return output.getvalue()


NOTHING = Content(0, 0, 0, 0)
SHOP = Content(files=1000, bytes=100_000_000, directories=100, others=0)


def test_there_is_room() -> None:
    assert room((1_000_000_000, 1_000_000), SHOP, NOTHING) == ""


def test_too_few_bytes_or_inodes_are_said_in_one_line() -> None:
    with pytest.raises(MigrationError, match=r"cdn: 50\.0 MB are free, 105 MB are needed"):
        room((50_000_000, 1_000_000), SHOP, NOTHING)
    with pytest.raises(MigrationError, match="cdn: 1,000 inodes are free, 1,100 are needed"):
        room((1_000_000_000, 1_000), SHOP, NOTHING)


def test_what_was_copied_already_needs_no_room() -> None:
    assert room((10_000_000, 1_000), SHOP, SHOP) == ""


def test_a_warning_where_only_the_pictures_themselves_find_room() -> None:
    assert "hardly for their WebP" in room((120_000_000, 1_000_000), SHOP, NOTHING)
    assert "hardly for their WebP" in room((1_000_000_000, 1_500), SHOP, NOTHING)


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (250_000_000, "250 MB"), (2e12, "2.0 TB")],
)
def test_sizes(count: float, text: str) -> None:
    assert size(count) == text


def test_a_job_keeps_its_arguments_apart() -> None:
    assert job(["rsync", "a b", "$x"], "") == "LC_ALL=C exec rsync 'a b' '$x'\n"
    assert "VTALRM" in job(["rsync"], "progress")
    assert "rchar" in job(["rsync"], "reads")
