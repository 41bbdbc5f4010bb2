"""What restic says, in both versions, and what is made of it."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from host_agent.backup import restic
from host_agent.backup.errors import BackupError, Status, explain
from host_agent.backup.restic import Snapshot, chosen
from tests.unit.backup.hosts import config

KEY = "ssh-ed25519 AAAA bitrix-cdn backup of cdn"


@pytest.mark.parametrize(
    ("said", "status", "words"),
    [
        ("Fatal: wrong password or no key found\n", Status.WRONG_PASSWORD, "the password is not"),
        (
            "unable to create lock in backend: repository is already locked by PID 7 on vault by root\n",
            Status.LOCKED,
            "already locked by PID 7 on vault",
        ),
        ("Fatal: write /srv/x: no space left on device\n", Status.DISK_FULL, "no space is left"),
        (
            "Fatal: unable to open config file: no\nIs there a repository at the following location?\n/x\n",
            Status.NO_REPOSITORY,
            "there is no repository there",
        ),
        (
            "subprocess ssh: a@v: Permission denied (publickey).\nFatal: unable to start the session\n",
            Status.NO_REPOSITORY,
            f'restrict,command="internal-sftp" {KEY}',
        ),
        (
            "subprocess ssh: Host key verification failed.\nFatal: unable to start the sftp session\n",
            Status.NO_REPOSITORY,
            "another host key",
        ),
        (
            "subprocess ssh: ssh: connect to host vault port 22: Connection refused\nFatal: error\n",
            Status.NO_REPOSITORY,
            "can't be reached: Connection refused",
        ),
        ("something\nFatal: pack is damaged\nmore\n", Status.FAILED, "pack is damaged"),
        (
            "ignoring error for /etc/redis: chmod /x: operation not permitted\nFatal: There were 1 errors\n",
            Status.FAILED,
            "/srv: /etc/redis: chmod /x: operation not permitted",
        ),
        ("Fatal: There were 2 errors\n", Status.FAILED, "There were 2 errors"),
        ("", Status.FAILED, "said nothing"),
    ],
)
def test_each_way_to_fail_is_one_line_with_a_status_of_its_own(said: str, status: Status, words: str) -> None:
    failure = explain(said, "sftp:a@vault:/srv", KEY)
    assert failure.status == status
    assert words in str(failure)
    assert "\n" not in str(failure)
    assert str(failure).startswith("sftp:a@vault:/srv: ")


def test_snapshots_are_read_with_and_without_a_summary() -> None:
    old = Snapshot.read({"id": "a1", "time": "2026-01-02T03:04:05.123456789+03:00"})
    assert old.time == datetime(2026, 1, 2, 0, 4, 5, 123456, UTC)
    assert old.size is None
    new = Snapshot.read(
        {
            "id": "b2",
            "time": "2026-01-02T03:04:05.5Z",
            "tags": ["pictures"],
            "summary": {"total_bytes_processed": 7},
        }
    )
    assert new.time == datetime(2026, 1, 2, 3, 4, 5, 500000, UTC)
    assert new.size == 7
    assert new.tags == frozenset({"pictures"})


def snapshots() -> list[Snapshot]:
    return [
        Snapshot(name, datetime(2026, 1, day, tzinfo=UTC), frozenset(), None)
        for name, day in (("aa11", 2), ("aa22", 3), ("bb33", 1))
    ]


def test_the_latest_is_that_of_the_latest_time() -> None:
    assert chosen(snapshots(), "latest", "/srv").id == "aa22"
    assert chosen(snapshots(), "bb", "/srv").id == "bb33"


@pytest.mark.parametrize(
    ("wanted", "words"), [("aa", "more than one"), ("cc", "no such backup"), ("", "no such backup")]
)
def test_what_names_no_single_backup_is_refused(wanted: str, words: str) -> None:
    with pytest.raises(BackupError, match=words) as caught:
        chosen(snapshots(), wanted, "/srv")
    assert caught.value.status == Status.USAGE


def test_without_backups_there_is_no_latest() -> None:
    with pytest.raises(BackupError, match="no backup of this host"):
        chosen([], "latest", "/srv")


@pytest.mark.parametrize(
    "error",
    [
        # As restic 0.14 and 0.18 write it.
        {"Op": "lstat", "Path": "/a/gone.jpg", "Err": 2},
        {"message": "lstat /a/gone.jpg: no such file or directory"},
    ],
)
def test_a_file_that_vanished_is_told_apart(error: dict[str, Any]) -> None:
    [message] = restic._messages(
        "scanning\n"
        + json.dumps({"message_type": "error", "error": error, "item": "/a/gone.jpg"})
        + "\n{broken\n"
    )
    assert "no such file or directory" in restic._text_of(message)


def test_a_file_that_could_not_be_read_is_no_vanished_one() -> None:
    message = {"message_type": "error", "error": {"Op": "open", "Path": "/a", "Err": 5}, "item": "/a"}
    assert "no such file" not in restic._text_of(message)


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("a@v: Permission denied (publickey).", f'internal-sftp" {KEY}'),
        ("Connection refused", "can't be reached"),
    ],
)
def test_a_server_that_refuses_is_told_of_without_restic(tmp_path: Path, said: str, words: str) -> None:
    (tmp_path / "key.pub").write_text(f"{KEY}\n")
    refusal = f"sh -c 'echo \"{said}\" >&2; exit 255'"
    refused = config(
        tmp_path, repository="sftp:a@v:/x", sftp_command=refusal, public_key=str(tmp_path / "key.pub")
    )
    with pytest.raises(BackupError) as caught:
        restic.Repository(refused).open("", create=True)
    assert caught.value.status == Status.NO_REPOSITORY
    assert words in str(caught.value)
