from __future__ import annotations

from typing import Any

import pytest
from pyinfra.context import host

from extensions.accounts import Account, account
from tests.unit.extensions.machines import machines

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
    assert commands(user="writer", uid=33, group="www-data", unique=False) == [
        "useradd -M -c 'For a test' -d /nonexistent -s /usr/sbin/nologin -u 33 -g www-data -o writer"
    ]


@pytest.mark.parametrize(
    ("difference", "expected"),
    [
        ({}, []),
        ({"shell": "/bin/false"}, ["usermod -s /bin/false root"]),
        ({"uid": 7, "unique": False}, ["usermod -u 7 -o root"]),
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
