"""Compares what a host has with what it may have. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase

from bitrix_cdn.drift.expected import Expected, Ports
from bitrix_cdn.drift.inspection import Seen, Socket
from bitrix_cdn.drift.report import ACCOUNTS, FILES, KEYS, PORTS

NO_LOGIN = ("nologin", "false", "sync", "halt", "shutdown")
"""Names of shells that refuse to run commands."""


@dataclass(frozen=True)
class Undeclared:
    """Something that is not declared."""

    check: str
    """One of :data:`bitrix_cdn.drift.report.INSPECTED`."""
    kind: str
    """`port`, `account`, `key` or `unknown-file`."""
    what: str
    summary: str


def undeclared_in(seen: Seen, expected: Expected) -> list[Undeclared]:
    """All that a host has although nothing declares it."""
    return [
        *_ports(seen, expected),
        *_accounts(seen, expected),
        *_keys(seen, expected),
        *_files(seen, expected),
    ]


def _ports(seen: Seen, expected: Expected) -> Iterator[Undeclared]:
    if expected.ports is None:
        return
    found: dict[tuple[int, str, bool], list[Socket]] = {}
    for one in seen.sockets:
        allowed = [ports for ports in expected.ports if _covers(ports, one)]
        if not any(one.local or not ports.local for ports in allowed):
            found.setdefault((one.port, one.protocol, bool(allowed)), []).append(one)
    for (port, protocol, partly), sockets in sorted(found.items()):
        addresses = ", ".join(sorted({one.address for one in sockets}))
        program = sockets[0].program or "the kernel"
        unexpected = "; expected on loopback only" if partly else ""
        summary = f"{program} listens on {addresses}{unexpected}"
        yield Undeclared(PORTS, "port", f"{port}/{protocol}", summary)


def _covers(ports: Ports, socket: Socket) -> bool:
    return ports.protocol == socket.protocol and ports.first <= socket.port <= ports.last


def _accounts(seen: Seen, expected: Expected) -> Iterator[Undeclared]:
    known = seen.distribution | expected.accounts | expected.operators
    for one in seen.accounts:
        faults = []
        may_log_in = one.shell.rpartition("/")[2] not in NO_LOGIN
        if one.uid == 0 and one.name != "root":
            faults.append("has uid 0, as root has")
        if one.password == "empty" and may_log_in:  # noqa: S105
            faults.append("logs in without a password")
        if expected.strict and one.name not in known:
            access = {"set": "with a password", "empty": "open to all"}.get(
                one.password, "without a password"
            )
            faults.append(f"is unknown: uid {one.uid}, shell {one.shell or '/bin/sh'}, {access}")
        elif expected.strict and may_log_in and one.name not in expected.operators:
            faults.append(f"may log in: its shell is {one.shell or '/bin/sh'}")
        if faults:
            yield Undeclared(ACCOUNTS, "account", one.name, "; ".join(faults))
    if not expected.strict:
        return
    for group, members in sorted(seen.members.items()):
        for member in members:
            if member not in expected.operators:
                yield Undeclared(ACCOUNTS, "account", member, f"is a member of the group {group}")


def _keys(seen: Seen, expected: Expected) -> Iterator[Undeclared]:
    if expected.keys is None:
        return
    for key in seen.keys:
        if key.fingerprint in expected.keys:
            continue
        if not expected.strict and key.account not in expected.operators:
            continue
        comment = f" ({key.comment})" if key.comment else ""
        if key.fingerprint:
            yield Undeclared(KEYS, "key", key.fingerprint, f"is a key of the account {key.account}{comment}")
        else:
            fault = "has a line among its authorized keys that is no key"
            yield Undeclared(KEYS, "account", key.account, fault)


def _files(seen: Seen, expected: Expected) -> Iterator[Undeclared]:
    kinds = {"f": "file", "l": "link", "p": "pipe", "s": "socket", "b": "device", "c": "device"}
    for one in seen.entries:
        directory, _, name = one.path.rpartition("/")
        if directory == "/etc/systemd/system" and one.kind == "l" and name not in expected.units:
            continue  # how systemd itself notes what is enabled, another name or masked
        if any(fnmatchcase(one.path, pattern) for pattern in expected.files):
            continue
        what = f"unknown {kinds.get(one.kind, 'thing')}"
        summary = f"{what}: {one.mode} {one.user}:{one.group}, {one.size} bytes, of {one.date}"
        yield Undeclared(FILES, "unknown-file", one.path, summary)
