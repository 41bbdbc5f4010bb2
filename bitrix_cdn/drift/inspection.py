"""Inspects a host: its listening ports, accounts, SSH keys, and the files in our directories."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from pyinfra.api import FactBase

from bitrix_cdn.engine.keys import fingerprint

ADMINISTRATORS = ("sudo", "wheel", "root", "docker", "lxd", "disk", "shadow")
"""Groups whose members are as good as root."""


@dataclass(frozen=True)
class Socket:
    """Something that listens."""

    protocol: str
    """`tcp` or `udp`."""
    address: str
    """Without its interface; `*` for all."""
    port: int
    program: str
    """As the kernel names it, at most 15 characters; empty: the kernel itself."""

    @property
    def local(self) -> bool:
        """Whether only the host itself reaches it."""
        return self.address.startswith("127.") or self.address in {"::1", "::ffff:127.0.0.1"}


@dataclass(frozen=True)
class Account:
    """A line of /etc/passwd, and whether it has a password."""

    name: str
    uid: int
    home: str
    shell: str
    password: str = "locked"  # noqa: S105 -- which kind, not the password
    """`set`, `locked` or `empty`."""


@dataclass(frozen=True)
class Key:
    """A public key that lets somebody in."""

    account: str
    fingerprint: str
    """As `ssh-keygen -l` prints it; empty: the line could not be read."""
    comment: str


@dataclass(frozen=True)
class Entry:
    """A file, or anything else but a directory, that no package brought."""

    path: str
    kind: str
    """One letter, as `find -printf %y` has it."""
    mode: str
    user: str
    group: str
    size: int
    date: str


@dataclass(frozen=True)
class Seen:
    """All of it."""

    sockets: list[Socket] = field(default_factory=list)
    accounts: list[Account] = field(default_factory=list)
    distribution: set[str] = field(default_factory=set)
    """Accounts that packages of the distribution declare."""
    members: dict[str, list[str]] = field(default_factory=dict)
    """Of the groups of :data:`ADMINISTRATORS`, where they have any."""
    keys: list[Key] = field(default_factory=list)
    entries: list[Entry] = field(default_factory=list)


class Inspection(FactBase[Seen]):
    """What a host has, in one command; the files are those that are neither known nor a package's.

    A UDP socket with a port that the kernel hands out by itself may be that of a question under way: it
    counts if it is still there half a second later.
    """

    default = Seen

    def command(
        self, trees: Sequence[str], directories: Sequence[str], known: Sequence[str], ports: Sequence[int]
    ) -> str:
        """
        :param trees: directories in which every file is looked at, however deep.
        :param directories: those in which only what lies there directly is.
        :param known: paths that are not told of.
        :param ports: those of UDP that are expected.
        """
        q = " ".join
        whole, flat = (q(map(shlex.quote, ["/nonexistent", *paths])) for paths in (trees, directories))
        shown = "'%y %m %u %g %s %TF %p\\0'"
        # Of rpm's answers none has a path in it, so it is asked of each.
        packaged = (
            "if command -v dpkg-query >/dev/null; then tr '\\n' '\\0' | xargs -0 dpkg-query -S 2>/dev/null; "
            'else while read -r f; do rpm -qf "$f" >/dev/null 2>&1 && echo "rpm: $f"; done; fi'
        )
        return f"""export LC_ALL=C
ss=$(ss -Hlntup) || exit 3
echo :sockets; echo "$ss"
if echo "$ss" | awk -v expected=' {q(map(str, ports))} ' '
    BEGIN {{ getline range < "/proc/sys/net/ipv4/ip_local_port_range"; split(range, r) }}
    $1 == "udp" {{ port = $5; sub(/.*:/, "", port)
        if (port >= r[1] && port <= r[2] && !index(expected, " " port " ")) found = 1 }}
    END {{ exit !found }}'; then sleep 0.5; echo :again; ss -Hlnup; fi
echo :accounts; cat /etc/passwd || exit 3
echo :passwords
awk -F: '{{ print $1, $2 == "" ? "empty" : $2 ~ /^[!*]/ ? "locked" : "set" }}' /etc/shadow || exit 3
echo :distribution; cut -d: -f1 /usr/share/base-passwd/passwd.master 2>/dev/null
cut -f1 /usr/share/doc/setup/uidgid 2>/dev/null
cat /usr/lib/sysusers.d/*.conf 2>/dev/null | awk '$1 ~ /^u/ {{ print $2 }}'
echo :members; getent group {q(ADMINISTRATORS)}
echo :keys; while IFS=: read -r name x uid gid gecos home shell; do
    for f in "$home/.ssh/authorized_keys" "$home/.ssh/authorized_keys2"; do
        if [ -f "$f" ]; then sed "s/^/$name /" "$f"; echo; fi; done; done < /etc/passwd
echo :entries
{{ find {whole} ! -type d -printf {shown}
find {flat} -maxdepth 1 ! -type d ! -lname /dev/null -printf {shown}; }} 2>/dev/null |
    tr '\\n\\0' '?\\n' | {{
    found=$(KNOWN={shlex.quote(chr(10).join(known))} awk '
        BEGIN {{ n = split(ENVIRON["KNOWN"], k, "\\n"); for (i = 1; i <= n; i++) is[k[i]] = 1 }}
        {{ path = $0; for (i = 1; i <= 6; i++) sub(/^[^ ]* /, "", path) }} !(path in is)')
    [ -z "$found" ] || {{
        echo "$found"; echo :packaged
        echo "$found" | cut -d" " -f7- | {packaged}; }}; }}
true"""

    def process(self, output: Iterable[str]) -> Seen:
        return seen(output)


def seen(output: Iterable[str]) -> Seen:
    """Reads what the command of :class:`Inspection` prints."""
    parts: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in output:
        if re.fullmatch(r":[a-z]+", line):
            lines = parts.setdefault(line[1:], [])
        elif line.strip():
            lines.append(line)
    passwords = dict(line.split() for line in parts.get("passwords", []))
    packaged = {path for line in parts.get("packaged", []) if (path := line.partition(": ")[2])}
    entries = [_entry(line) for line in parts.get("entries", [])]
    return Seen(
        sockets=_sockets(parts),
        accounts=[_account(line, passwords) for line in parts.get("accounts", []) if line.count(":") == 6],
        distribution=set(parts.get("distribution", [])),
        members={
            name: members.split(",")
            for name, *_, members in (line.split(":") for line in parts.get("members", []))
            if members
        },
        keys=[key for line in parts.get("keys", []) if (key := _key(line))],
        entries=sorted((one for one in set(entries) if one.path not in packaged), key=lambda one: one.path),
    )


def _sockets(parts: dict[str, list[str]]) -> list[Socket]:
    first = [_socket(line) for line in parts.get("sockets", [])]
    if "again" in parts:
        still = {_socket(f"udp {line}") for line in parts["again"]}
        first = [one for one in first if one.protocol != "udp" or one in still]
    return list(dict.fromkeys(first))


def _socket(line: str) -> Socket:
    protocol, _, _, _, local, _, *rest = line.split(None, 6)
    address, _, port = local.rpartition(":")
    program = re.search(r'\(\("([^"]*)"', rest[0]) if rest else None
    return Socket(protocol, address.partition("%")[0].strip("[]"), int(port), program[1] if program else "")


def _account(line: str, passwords: dict[str, str]) -> Account:
    name, _, uid, _, _, home, shell = line.split(":")
    return Account(name, int(uid), home, shell, passwords.get(name, "locked"))


def _key(line: str) -> Key | None:
    account, _, rest = line.partition(" ")
    rest = rest.strip()
    if not rest or rest.startswith("#"):
        return None
    print_of = fingerprint(rest)
    comment = rest.rpartition(" ")[2] if print_of else ""
    return Key(account, print_of, "" if comment.startswith("AAAA") else comment)


def _entry(line: str) -> Entry:
    kind, mode, user, group, size, date, path = line.split(" ", 6)
    return Entry(path, kind, mode, user, group, int(size), date)
