"""What a restore goes on with, and what it begins with."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from host_agent.backup import restore
from host_agent.backup.errors import BackupError, Status
from host_agent.backup.restic import Snapshot
from host_agent.backup.state import Restore, State
from tests.unit.backup.hosts import config


class Stored:
    """A repository with two snapshots."""

    def __init__(self, _: object) -> None:
        pass

    def open(self, known: str, *, create: bool) -> str:
        assert not create, "a restore must never begin a repository"
        return "id"

    def snapshots(self, tag: str) -> list[Snapshot]:
        assert tag == "bitrix-cdn"
        return [
            Snapshot("aa11", datetime(2026, 1, 1, tzinfo=UTC), frozenset({tag, "pictures"}), None),
            Snapshot("bb22", datetime(2026, 1, 2, tzinfo=UTC), frozenset({tag}), None),
        ]


@pytest.fixture(autouse=True)
def stored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restore, "Repository", Stored)


def begin(place: Path, wanted: str, *, pictures: bool = True, another: bool = False) -> Restore:
    return restore.begin(config(place, repository="/srv"), wanted, pictures=pictures, another=another)


def test_it_begins_with_the_latest_and_remembers_the_repository(tmp_path: Path) -> None:
    begun = begin(tmp_path, "latest")
    assert (begun.snapshot, begun.pictures, begun.done) == ("bb22", False, ())
    assert State.load(tmp_path / "state").known("/srv") == "id"


def test_it_goes_on_with_what_was_begun(tmp_path: Path) -> None:
    begin(tmp_path, "aa11").with_done("identity").save(tmp_path / "state")
    for wanted, another in (("latest", False), ("aa", False), ("latest", True), ("aa11", True)):
        begun = begin(tmp_path, wanted, another=another)
        assert (begun.snapshot, begun.pictures, begun.done) == ("aa11", True, ("identity",))


def test_pictures_can_still_be_left_out_but_not_taken_in(tmp_path: Path) -> None:
    assert begin(tmp_path, "aa11").pictures
    assert not begin(tmp_path, "latest", pictures=False).pictures
    assert not begin(tmp_path, "latest").pictures


def test_another_one_needs_force(tmp_path: Path) -> None:
    begin(tmp_path, "aa11").with_done("identity").save(tmp_path / "state")
    with pytest.raises(BackupError, match=r"aa11 .* was begun") as caught:
        begin(tmp_path, "bb22")
    assert caught.value.status == Status.USAGE
    begun = begin(tmp_path, "bb22", another=True)
    assert (begun.snapshot, begun.done) == ("bb22", ())
