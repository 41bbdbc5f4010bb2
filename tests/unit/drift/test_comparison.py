"""What a host may have, by its groups and settings, and what is one too many."""

from __future__ import annotations

import typing
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from bitrix_cdn.drift.comparison import undeclared_in
from bitrix_cdn.drift.expected import Expected, expected, places
from bitrix_cdn.drift.inspection import Account, Entry, Key, Seen, Socket
from bitrix_cdn.engine.footprint import Place
from bitrix_cdn.settings import Settings

OWN = ("cdn", "monitoring")
SHOP = ("bitrix",)


def may(groups: tuple[str, ...] = OWN, *, asked: bool = False, **drift: Any) -> Expected:
    settings = Settings.model_validate({"drift": drift, "tls": {"mode": "self-signed"}})
    units = ["nginx.service", "redis-server@cache.service"]
    place = Place(settings, frozenset(groups), ssh_port=2222)
    return expected(place, units, ssh_user="admin", asked=asked)


def tcp(port: int, address: str = "0.0.0.0") -> Socket:
    return Socket("tcp", address, port, "python3")


def whats(seen: Seen, expected: Expected) -> list[str]:
    return [f"{one.what} {one.summary}" for one in undeclared_in(seen, expected)]


def test_what_the_roles_listen_on_is_expected() -> None:
    public = [tcp(port) for port in (2222, 80, 443)] + [Socket("udp", "*", 443, "nginx")]
    inside = [tcp(port, "127.0.0.1") for port in (6379, 6380, 6081, 6082, 8081, 8082, 8088, 9090, 9093, 9100)]
    assert whats(Seen(sockets=[*public, *inside]), may()) == []


def test_another_port_is_one_too_many_even_on_loopback() -> None:
    found = whats(Seen(sockets=[tcp(8000), tcp(8000, "::"), tcp(5000, "127.0.0.1")]), may())
    assert found == [
        "5000/tcp python3 listens on 127.0.0.1",
        "8000/tcp python3 listens on 0.0.0.0, ::",
    ]
    assert whats(Seen(sockets=[Socket("udp", "*", 80, "")]), may()) == ["80/udp the kernel listens on *"]


def test_what_belongs_on_loopback_must_not_listen_elsewhere() -> None:
    sockets = [tcp(6379, "127.0.0.1"), tcp(6379, "192.0.2.20")]
    assert whats(Seen(sockets=sockets), may()) == [
        "6379/tcp python3 listens on 192.0.2.20; expected on loopback only"
    ]


def test_an_exporter_listens_elsewhere_only_where_another_host_asks_it() -> None:
    sockets = [tcp(9100, "192.0.2.10")]
    assert len(whats(Seen(sockets=sockets), may())) == 1
    assert whats(Seen(sockets=sockets), may(asked=True)) == []


def test_the_settings_allow_ports_and_ranges() -> None:
    sockets = [tcp(25), Socket("udp", "*", 10007, "rtp")]
    assert len(whats(Seen(sockets=sockets), may())) == 2
    assert whats(Seen(sockets=sockets), may(ports=["25/tcp", "10000-10100/udp"])) == []


def test_the_ports_of_the_shop_are_its_own_business_until_the_settings_name_them() -> None:
    sockets = [tcp(3306), tcp(2222)]
    assert whats(Seen(sockets=sockets), may(SHOP)) == []
    assert [one.split()[0] for one in whats(Seen(sockets=sockets), may(SHOP, site_ports=[]))] == ["3306/tcp"]
    assert whats(Seen(sockets=sockets), may(SHOP, site_ports=["3306/tcp"])) == []
    # What is allowed elsewhere isn't here.
    assert len(whats(Seen(sockets=sockets), may(SHOP, site_ports=[], ports=["3306/tcp"]))) == 1


def test_accounts_of_the_distribution_of_packages_and_of_ours_are_expected() -> None:
    accounts = [
        Account("root", 0, "/root", "/bin/bash", "set"),
        Account("admin", 1000, "/home/admin", "/bin/bash"),
        Account("games", 5, "/usr/games", "/usr/sbin/nologin"),
        Account("sync", 4, "/bin", "/bin/sync"),
        Account("redis", 100, "/var/lib/redis", "/usr/sbin/nologin"),
        Account("bitrix-cache", 33, "/nonexistent", "/usr/sbin/nologin"),
        Account("alertmanager", 999, "/nonexistent", "/usr/sbin/nologin"),
    ]
    assert whats(Seen(accounts=accounts, distribution={"games", "sync", "root"}), may()) == []


@pytest.mark.parametrize(
    ("account", "fault"),
    [
        (Account("eve", 1000, "/home/eve", "/bin/bash", "set"), "is unknown"),
        (Account("eve", 500, "/", "/usr/sbin/nologin"), "is unknown"),
        (Account("redis", 100, "/", "/bin/bash"), "may log in"),
        (Account("redis", 100, "/", ""), "may log in"),
        (Account("admin", 0, "/", "/bin/bash"), "has uid 0"),
        (Account("admin", 1000, "/", "/bin/bash", "empty"), "without a password"),
    ],
)
def test_an_account_that_should_not_be(account: Account, fault: str) -> None:
    [found] = undeclared_in(Seen(accounts=[account]), may())
    assert found.what == account.name
    assert fault in found.summary


def test_an_account_that_the_settings_name_may_log_in_and_administer() -> None:
    seen = Seen(accounts=[Account("ann", 1001, "/home/ann", "/bin/zsh")], members={"sudo": ["ann", "admin"]})
    assert len(whats(seen, may())) == 2
    assert whats(seen, may(accounts=["ann"])) == []


def test_of_the_shop_only_a_second_root_and_an_open_account_are_told_of() -> None:
    harmless = [Account("mysql", 110, "/", "/bin/false"), Account("dev", 1002, "/", "/bin/bash", "set")]
    harmful = [Account("toor", 0, "/", "/bin/sh"), Account("open", 1003, "/", "/bin/sh", "empty")]
    seen = Seen(accounts=[*harmless, *harmful], members={"sudo": ["dev"]})
    assert [one.what for one in undeclared_in(seen, may(SHOP))] == ["toor", "open"]
    strict = may(SHOP, site_accounts=["mysql"])
    assert {one.what for one in undeclared_in(seen, strict)} == {"toor", "open", "dev"}


def test_keys_are_judged_once_the_settings_name_some() -> None:
    one, other = "SHA256:" + "a" * 43, "SHA256:" + "b" * 43
    seen = Seen(keys=[Key("root", one, ""), Key("root", other, "eve@laptop"), Key("www-data", other, "")])
    assert undeclared_in(seen, may()) == []
    assert [found.what for found in undeclared_in(seen, may(keys=[one]))] == [other, other]
    [found] = undeclared_in(seen, may(SHOP, keys=[one]))
    assert (found.what, "eve@laptop" in found.summary) == (other, True)


def entry(path: str, kind: str = "f") -> Entry:
    return Entry(path, kind, "644", "root", "root", 5, "2026-01-01")


def test_an_unknown_file_is_told_unless_the_settings_allow_it() -> None:
    seen = Seen(entries=[entry("/etc/nginx/conf.d/mine.conf"), entry("/etc/sudoers.d/90-cloud-init-users")])
    assert [one.what for one in undeclared_in(seen, may())] == ["/etc/nginx/conf.d/mine.conf"]
    assert undeclared_in(seen, may(files=["/etc/nginx/conf.d/m*.conf"])) == []


def test_links_by_which_systemd_notes_things_are_no_files_of_anybody() -> None:
    alias, replaced = "/etc/systemd/system/sshd.service", "/etc/systemd/system/nginx.service"
    seen = Seen(entries=[entry(alias, "l"), entry(replaced, "l")])
    assert [one.what for one in undeclared_in(seen, may())] == [replaced]


def test_drop_ins_of_our_services_are_looked_for_on_the_shop_too() -> None:
    assert "/etc/systemd/system/redis-server@.service.d" in places("redis-server@cache.service")
    assert "/etc/systemd/system/nginx.service.d" in may(SHOP).directories
    assert "/etc/systemd/system" not in may(SHOP).directories
    assert {"/etc/sudoers.d", "/etc/ssh/authorized_keys.d"} <= set(may(SHOP).trees)
    assert "/etc/nginx/conf.d" not in may(SHOP).trees


def _ports(model: type[BaseModel], path: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from _ports(kind, f"{path}{name}.")
        # Somebody else's server is no port of these hosts.
        elif name == "port" or (name.endswith("_port") and name != "sftp_port"):
            yield f"{path}{name}"


@pytest.mark.parametrize("setting", list(_ports(Settings)))
def test_every_port_of_the_settings_is_expected_somewhere(setting: str) -> None:
    """A role that listens on a further port says so in its `footprint`."""
    given: dict[str, Any] = {}
    *sections, name = setting.split(".")
    inner = given
    for section in sections:
        inner = inner.setdefault(section, {})
    inner[name] = 54321
    settings = Settings.model_validate({**given, "tls": {"mode": "self-signed", **given.get("tls", {})}})
    every = frozenset({"bitrix", "cdn", "edge", "balancer", "monitoring"})
    place = Place(settings, every, edges=True)
    found = expected(place, [], ssh_user="root", asked=True, everything=True)
    assert any(one.first == 54321 for one in typing.cast("list[Any]", found.ports))


@pytest.mark.parametrize(
    "listener", ["80", "80/sctp", "0/tcp", "90-80/tcp", "70000/udp", "x/tcp", "1-2-3/tcp"]
)
def test_a_listener_that_can_not_be_is_refused(listener: str) -> None:
    with pytest.raises(ValidationError, match=r"allowed"):
        Settings.model_validate({"drift": {"ports": [listener]}})
