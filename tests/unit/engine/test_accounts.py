from __future__ import annotations

import os
import pwd
import subprocess
from pathlib import Path
from typing import Any

import pytest
from pyinfra.context import host

from bitrix_cdn.engine.accounts import Account, account, follows
from tests.unit.engine.machines import machines

ROOT = {"uid": "0", "group": "root", "comment": "root", "home": "/root", "shell": "/bin/bash"}


def commands(**arguments: Any) -> list[str]:
    """What is done on a host that has no account but root."""
    wanted: dict[str, Any] = {
        "home": "/nonexistent",
        "shell": "/usr/sbin/nologin",
        "comment": "For a test",
        **arguments,
    }
    with machines("one"):
        return [str(command) for command in account._inner(**wanted | arguments)]


def test_an_account_is_what_the_host_says_it_is() -> None:
    entry = "writer:x:33:33:Bitrix CDN, writes:/nonexistent:/usr/sbin/nologin"
    assert Account().process([entry, "www-data"]) == {
        "uid": "33",
        "group": "www-data",
        "comment": "Bitrix CDN, writes",
        "home": "/nonexistent",
        "shell": "/usr/sbin/nologin",
    }


def test_this_machines_root_is_found_and_nobody_else() -> None:
    with machines("one"):
        found = host.get_fact(Account, user="root")
        assert (found["uid"], found["group"], found["home"]) == ("0", "root", "/root")
        assert host.get_fact(Account, user="no-such-account") == {}


def test_an_account_that_is_missing_is_added() -> None:
    assert commands(user="reader", system=True) == [
        "useradd -M -c 'For a test' -d /nonexistent -s /usr/sbin/nologin -r reader"
    ]
    assert commands(user="writer", twin_of="root", group="www-data") == [
        "useradd -M -c 'For a test' -d /nonexistent -s /usr/sbin/nologin -u 0 -g www-data -o writer"
    ]


def test_an_account_follows_its_twin_to_another_number(monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = {"writer": "33", "www-data": "1001"}
    entry = "{0}:x:{1}:33:For a test:/nonexistent:/usr/sbin/nologin"
    monkeypatch.setattr(
        Account, "command", lambda self, user: f"echo {entry.format(user, numbers[user])}; echo www-data"
    )
    [change] = commands(user="writer", twin_of="www-data", group="www-data", owns=["/var/www/cdn"])
    assert "usermod -u 1001 -o writer" in change
    assert "find /var/www/cdn -xdev -uid 33 -exec chown -h www-data {} +" in change
    numbers["writer"] = "1001"
    assert commands(user="writer", twin_of="www-data", group="www-data", owns=["/var/www/cdn"]) == []


def test_an_account_without_its_twin_is_an_error() -> None:
    [command] = commands(user="writer", twin_of="no-such-account")
    assert "there is no account no-such-account" in command


@pytest.mark.parametrize(
    ("difference", "expected"),
    [
        ({}, []),
        ({"shell": "/bin/false"}, ["usermod -s /bin/false root"]),
        ({"group": "www-data", "comment": "it's"}, ["usermod -c 'it'\"'\"'s' -g www-data root"]),
        # Only for a new one.
        ({"system": True}, []),
    ],
)
def test_only_what_differs_is_put_right(
    monkeypatch: pytest.MonkeyPatch, difference: dict[str, object], expected: list[str]
) -> None:
    monkeypatch.setattr(Account, "process", lambda self, output: ROOT)
    given = {key: ROOT[key] for key in ("home", "shell", "comment")} | difference
    assert commands(user="root", **given) == expected


def test_files_follow_to_the_account_that_takes_over(tmp_path: Path) -> None:
    for name in ("access.log", "error.log"):
        (tmp_path / name).touch()
    os.chown(tmp_path / "access.log", pwd.getpwnam("www-data").pw_uid, -1)
    (tmp_path / "link.log").symlink_to("/etc/passwd")

    def move() -> list[str]:
        given = {"user": "daemon", "former": "www-data", "directory": str(tmp_path)}
        with machines("one"):
            return [str(command) for command in follows._inner(**given)]

    [change] = move()
    subprocess.run(["sh", "-c", change], check=True)
    owners = {path.name: path.lstat().st_uid for path in tmp_path.iterdir()}
    daemon = pwd.getpwnam("daemon").pw_uid
    assert owners == {"access.log": daemon, "error.log": os.getuid(), "link.log": os.getuid()}
    assert move() == []
