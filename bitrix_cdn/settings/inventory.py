"""Turns the hosts and settings of an inventory file into pyinfra's groups, checked."""

from __future__ import annotations

import difflib
import ipaddress
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import PurePosixPath
from typing import Any, NamedTuple

from pydantic import BaseModel, ValidationError
from webp_converter.config import each_complaint

from bitrix_cdn.settings.model import HostEntry, Settings
from bitrix_cdn.settings.source import Place, Source
from bitrix_cdn.settings.types import InventoryError

# A pyinfra group: hosts with their data, and the group's data.
Group = tuple[list[tuple[str, dict[str, Any]]], dict[str, Any]]


class Mistake(NamedTuple):
    """Something that can't be, and where it stands."""

    place: Place
    text: str


GROUPS = ("bitrix", "cdn", "edge", "balancer", "monitoring")

# Of the groups that bring hosts along: the fewest and the most that each may have; None: any number.
_NUMBERS: dict[str, tuple[int, int | None]] = {
    "bitrix": (1, 1),
    "cdn": (1, 1),
    "edge": (0, None),
    "balancer": (0, 1),
}

# RFC 5737, 3849 and 2606: addresses and names reserved for examples.
_EXAMPLE_NETWORKS = [
    ipaddress.ip_network(text)
    for text in ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "2001:db8::/32")
]
_OF_CDN = re.compile(r"(?i)(^|[^a-z])(cdn|img|images|pics|static)\d*([^a-z]|$)")
_OF_SITE = re.compile(r"(?i)(^|[^a-z])(bitrix|shop|site|www|web)\d*([^a-z]|$)")
_EXAMPLE_NAME = re.compile(r"(?i)(^|\.)example(\.(com|net|org))?\.?$")
_NAME = re.compile(
    r"(?=.{1,253}\.?$)[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?(\.[A-Za-z0-9_-]{1,63})*\.?"
)

# Directories of the system, in and below which nothing of ours may be; and those that are others' too, in
# which a directory of our own may be.
_SYSTEM = (
    "/bin",
    "/boot",
    "/dev",
    "/etc",
    "/lib",
    "/lib64",
    "/proc",
    "/root",
    "/run",
    "/sbin",
    "/sys",
    "/usr",
)
_SHARED = (
    "/",
    "/home",
    "/media",
    "/mnt",
    "/opt",
    "/srv",
    "/tmp",  # noqa: S108 -- named to be refused
    "/var",
    "/var/cache",
    "/var/lib",
    "/var/www",
)
_SYSTEM_ACCOUNTS = {
    *(
        "root",
        "daemon",
        "bin",
        "sys",
        "sync",
        "games",
        "man",
        "lp",
        "mail",
        "news",
        "uucp",
        "proxy",
        "backup",
    ),
    *("list", "irc", "nobody", "sshd", "www-data", "redis", "varnish", "vcache", "prometheus", "haproxy"),
    *("cdn-nginx", "cdn-reader", "alertmanager"),
}


def groups(
    *,
    settings: Mapping[str, Any] | None = None,
    **hosts: Mapping[str, Mapping[str, Any]] | Sequence[str],
) -> tuple[Group, Group, Group, Group, Group]:
    """Checks a deployment and returns its groups `bitrix`, `cdn`, `edge`, `balancer` and `monitoring`, in
    this order.

    :param settings: what differs from the defaults of :class:`Settings`, nested like it.
    :param hosts: `bitrix={name: entry}` and `cdn={name: entry}` with the keys of
        :class:`HostEntry`, one host each; optionally `edge={name: entry, ...}`, any number of
        hosts, and `balancer={name: entry}`, one in front of these; optionally `monitoring=[name]`, hosts
        named in the other groups. By default it is the first `cdn` host.
    :raises InventoryError: with a line for each mistake, before anything is connected to.
    """
    source = Source.of_caller(sys._getframe(1))
    mistakes: list[Mistake] = [
        Mistake((group, name), f'host "{name}" is named twice; one is allowed')
        for group, name in source.repeated(_NUMBERS)
    ]
    entries: dict[str, HostEntry] = {}
    members = _members(hosts, entries, mistakes)
    checked = _settings(settings, mistakes)
    mistakes += _addresses(members, entries)
    mistakes += _swapped(members)
    if checked:
        mistakes += _paths(checked)
        mistakes += _accounts(checked)
        mistakes += _ports(checked, members, entries)
        mistakes += _names(checked)
        if members["edge"] and checked.tls.mode == "acme":
            # The authority asks any one of the hosts that the name leads to, and each would want its own.
            mistakes.append(
                Mistake(
                    ("settings", "tls", "mode"),
                    'tls.mode "acme" is for a cdn host without edges; with edges "files", "self-signed" or '
                    '"off" is allowed',
                )
            )
        for name, host in entries.items():
            mistakes += _logins(name, host, checked)
    if mistakes or checked is None:
        raise InventoryError(source.lines(mistakes))

    # Plain data, not the model: `pyinfra INVENTORY debug-inventory --json` prints it.
    data = {"settings": checked.model_dump(mode="json")}

    def made(name: str) -> Group:
        return [(host, _host_data(entries[host])) for host in members[name]], data

    return made("bitrix"), made("cdn"), made("edge"), made("balancer"), made("monitoring")


def _members(
    hosts: Mapping[str, Any], entries: dict[str, HostEntry], mistakes: list[Mistake]
) -> dict[str, list[str]]:
    """The names of each group's hosts; fills in the entries that can be."""
    for group in hosts:
        if group not in GROUPS:
            meant = difflib.get_close_matches(group, GROUPS, 1)
            hint = f'did you mean "{meant[0]}"? ' if meant else ""
            mistakes.append(
                Mistake((group,), f'group "{group}" is unknown; {hint}allowed: {", ".join(GROUPS)}')
            )
    members: dict[str, list[str]] = {}
    home: dict[str, str] = {}
    for group, (fewest, most) in _NUMBERS.items():
        given = hosts.get(group)
        members[group] = []
        if given is not None and not isinstance(given, Mapping):
            mistakes.append(
                Mistake(
                    (group,), f'group "{group}": {_shown(given)}: {{name: {{"address": ...}}}} is allowed'
                )
            )
            continue
        if not given:
            if fewest:
                mistakes.append(Mistake((group,), f'group "{group}" is missing: name its host'))
            continue
        if most is not None and len(given) > most:
            allowed = f"{'exactly' if fewest == most else 'at most'} one is allowed"
            mistakes.append(Mistake((group,), f'group "{group}" has {len(given)} hosts; {allowed}'))
        for name, entry in given.items():
            other = home.setdefault(name, group)
            if other != group:
                mistakes.append(
                    Mistake(
                        (group, name), f'host "{name}" is in both groups, {other} and {group}; one is allowed'
                    )
                )
                continue
            members[group].append(name)
            place = (group, name)
            if not isinstance(name, str) or not _NAME.fullmatch(name):
                mistakes.append(Mistake(place, f"host {_shown(name)}: a name or an address is allowed"))
            elif not isinstance(entry, Mapping):
                mistakes.append(
                    Mistake(place, f'host "{name}": {_shown(entry)}: {{"address": ...}} is allowed')
                )
            else:
                try:
                    entries[name] = HostEntry.model_validate(dict(entry))
                except ValidationError as error:
                    mistakes += _mistakes_of(error, HostEntry, place, f'host "{name}": ')
    if members["balancer"] and not members["edge"]:
        mistakes.append(
            Mistake(("balancer",), 'group "balancer" has nothing to balance: name the hosts of group "edge"')
        )
    monitoring = hosts.get("monitoring", members["cdn"][:1])
    if isinstance(monitoring, str) or not isinstance(monitoring, Sequence):
        mistakes.append(
            Mistake(
                ("monitoring",),
                f'group "monitoring": {_shown(monitoring)}: a list of hosts\' names is allowed',
            )
        )
        monitoring = []
    members["monitoring"] = [name for name in monitoring if isinstance(name, str)]
    for name in monitoring:
        if not isinstance(name, str) or name not in home:
            why = f'host "{name}" is in no other group'
        elif members["monitoring"].count(name) > 1:
            why = f'host "{name}" is named twice; once is allowed'
        else:
            continue
        mistakes.append(Mistake(("monitoring",), f'group "monitoring": {why}'))
    return members


def _settings(given: Any, mistakes: list[Mistake]) -> Settings | None:
    if given is not None and not isinstance(given, Mapping):
        mistakes.append(Mistake(("settings",), f"settings: {_shown(given)}: {{section: {{...}}}} is allowed"))
        return None
    try:
        return Settings.model_validate(dict(given or {}))
    except ValidationError as error:
        mistakes += _mistakes_of(error, Settings, ("settings",), "settings: ")
        return None


def _mistakes_of(
    error: ValidationError, model: type[BaseModel], place: Place, before: str
) -> Iterator[Mistake]:
    for location, text in each_complaint(error, model):
        yield Mistake((*place, *location), before + text)


def _shown(given: object) -> str:
    """A value that is of no use, in short."""
    text = repr(given)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _addresses(members: Mapping[str, Sequence[str]], entries: Mapping[str, HostEntry]) -> Iterator[Mistake]:
    home = {name: group for group in _NUMBERS for name in members[group]}
    for name, entry in entries.items():
        place = (home[name], name)
        wrong = {"address": unreachable(entry.address, loopback=False)}
        if entry.ssh_hostname is None:
            # Its name is how the operator reaches it.
            wrong["name"] = placeholder(name)
        else:
            wrong["ssh_hostname"] = unreachable(entry.ssh_hostname, loopback=True)
        for key, why in wrong.items():
            if why:
                given = getattr(entry, key, name)
                yield Mistake((*place, key), f'host "{name}": {key}: {_shown(given)}: {why}')
    for (one, first), (other, second) in combinations(entries.items(), 2):
        if _same(first.address, second.address):
            yield Mistake(
                (home[other], other, "address"),
                f'host "{other}": address: {second.address!r} is that of host "{one}" as well; '
                "each host needs its own",
            )
        for name, taken, entry in ((one, other, second), (other, one, first)):
            if _same(name, entry.address):
                yield Mistake(
                    (home[name], name),
                    f'host "{name}": its name is the address of host "{taken}"; each host needs its own',
                )


def _swapped(members: Mapping[str, Sequence[str]]) -> Iterator[Mistake]:
    """Refuses a site's host that is named as a CDN's while the CDN host is named as a site's."""
    for site, cdn in zip(members["bitrix"], members["cdn"], strict=False):
        if _OF_CDN.search(str(site)) and _OF_SITE.search(str(cdn)) and not _OF_CDN.search(str(cdn)):
            yield Mistake(
                ("bitrix", site),
                f'host "{site}" is in group "bitrix" and host "{cdn}" in group "cdn": are they swapped? The '
                'host with the shop belongs in "bitrix"',
            )


def _same(one: str, other: str) -> bool:
    """Whether two addresses or names lead to one host: an IPv4 address may be written as an IPv6 one."""
    try:
        first, second = (ipaddress.ip_address(text.strip("[]")) for text in (one, other))
    except ValueError:
        return one.lower().rstrip(".") == other.lower().rstrip(".")
    return _plain(first) == _plain(second)


def _plain(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> object:
    return getattr(address, "ipv4_mapped", None) or address


def unreachable(address: str, *, loopback: bool) -> str:
    """What is wrong with an address; empty: nothing that can be told from here."""
    if not address.isascii() or address.startswith("-") or re.search(r"[\s/@=]", address) or not address:
        return "an address or a host's name is allowed"
    try:
        found = ipaddress.ip_address(address.strip("[]"))
    except ValueError:
        if re.fullmatch(r"[\d.]+", address):
            return "an IPv4 address has four numbers from 0 to 255"
        if re.fullmatch(r"[^:]+:\d+", address):
            return "an address without a port is allowed; the port of SSH is ssh_port"
        if address.lower().rstrip(".") == "localhost" and not loopback:
            return "the other hosts can't reach it; an address of the network is allowed"
        return placeholder(address) or (
            "" if _NAME.fullmatch(address) else "an address or a host's name is allowed"
        )
    if isinstance(mapped := _plain(found), ipaddress.IPv4Address):
        found = mapped
    elsewhere = found.is_unspecified or found.is_multicast or found.is_link_local or found.is_reserved
    if elsewhere or (found.is_loopback and not loopback):
        return "the other hosts can't reach it; an address of the network is allowed"
    return placeholder(address)


def placeholder(text: str) -> str:
    """Whether a name or an address is one of the examples, in words; empty: it is not."""
    try:
        first = ipaddress.ip_network(text).network_address
    except ValueError:
        example = bool(_EXAMPLE_NAME.search(text))
    else:
        example = any(first in one for one in _EXAMPLE_NETWORKS)
    return "it is the example's; write your own" if example else ""


def _names(settings: Settings) -> Iterator[Mistake]:
    for key in ("server_names", "proxies"):
        for name in getattr(settings.nginx, key):
            if why := placeholder(name):
                yield Mistake(("settings", "nginx", key), f"settings: nginx.{key}: {name!r}: {why}")


def _paths(settings: Settings) -> Iterator[Mistake]:
    """Refuses directories that are not ours to have, and those that hold each other on the CDN host."""
    ours = {
        ("site", "root"): settings.site.root,
        ("cdn", "root"): settings.cdn.root,
        ("cdn", "originals"): settings.cdn.originals,
        ("cdn", "variants"): settings.cdn.variants,
        ("sftp", "export"): settings.sftp.export,
    }
    store, originals = settings.converter.store, settings.converter.originals
    temporary: dict[tuple[str, ...], str] = {
        ("converter", "store", "temporary"): str(store.temporary),
        ("converter", "originals", "temporary"): str(originals.temporary),
    }
    for key, path in [*ours.items(), *temporary.items()]:
        if path in _SHARED or any(path == one or path.startswith(f"{one}/") for one in _SYSTEM):
            allowed: Any = Settings().model_dump(mode="json")
            for part in key:
                allowed = allowed[part]
            yield Mistake(
                ("settings", *key),
                f"settings: {'.'.join(key)}: {path!r} is the system's; name a directory such as "
                f"{allowed} is allowed",
            )
    # nginx serves what the converter writes.
    for section, given, served, source in (
        (("store", "root"), str(store.root), settings.cdn.resize_cache, "cdn.root"),
        (
            ("originals", "variants"),
            str(originals.variants),
            f"{settings.cdn.variants}/upload",
            "cdn.variants",
        ),
    ):
        if given != served:
            yield Mistake(
                ("settings", "converter", *section),
                f"settings: converter.{'.'.join(section)}: {given!r} is not where nginx looks, which is "
                f"{served!r}; leave it out, it follows {source}",
            )
    on_cdn = {key: path for key, path in ours.items() if key[0] == "cdn"}
    for (one, first), (other, second) in combinations(on_cdn.items(), 2):
        if _holds(first, second) or _holds(second, first):
            yield Mistake(
                ("settings", *other),
                f"settings: {'.'.join(other)}: {second!r} and {'.'.join(one)}, {first!r}, are one in the "
                "other; each needs its own tree",
            )
    if _holds(settings.site.root, settings.sftp.export) or _holds(settings.sftp.export, settings.site.root):
        yield Mistake(
            ("settings", "sftp", "export"),
            f"settings: sftp.export: {settings.sftp.export!r} and site.root, {settings.site.root!r}, are one "
            "in the other; each needs its own tree",
        )


def _holds(one: str, other: str) -> bool:
    return PurePosixPath(other).is_relative_to(one)


def _accounts(settings: Settings) -> Iterator[Mistake]:
    for key in ("cache_account", "originals_account"):
        name = getattr(settings.sftp, key)
        if name in _SYSTEM_ACCOUNTS or name == settings.site.user:
            yield Mistake(
                ("settings", "sftp", key),
                f"settings: sftp.{key}: {name!r} is somebody else's; an account that has no other use is "
                "allowed",
            )
    if settings.site.user == "root":
        yield Mistake(
            ("settings", "site", "user"),
            "settings: site.user: 'root': the account that PHP runs as is allowed",
        )


def _ports(
    settings: Settings, members: Mapping[str, Sequence[str]], entries: Mapping[str, HostEntry]
) -> Iterator[Mistake]:
    """Refuses one port for two services that may be on the same host."""
    monitoring, tls = settings.monitoring, settings.tls
    own = [
        *(("nginx", "http_port"), ("nginx", "status_port"), ("originals", "port")),
        *(("varnish", "port"), ("varnish", "console_port"), ("redis", "cache_port"), ("redis", "queue_port")),
        *(("converter", "api", "port"), ("converter", "metrics", "port")),
        *(("monitoring", "prometheus", "port"), ("monitoring", "alertmanager", "port")),
        *(
            ("monitoring", "exporters", key)
            for key in type(monitoring.exporters).model_fields
            if key.endswith("_port")
        ),
    ]
    if tls.mode != "off":
        own.append(("tls", "port"))
    if monitoring.grafana.enabled:
        own += [("monitoring", "grafana", "port"), ("monitoring", "grafana", "https_port")]
    if members["edge"]:
        own.append(("edges", "shield_port"))
    taken = {entry.ssh_port: "the SSH server" for entry in entries.values()} or {22: "the SSH server"}
    for key in own:
        value: Any = settings
        for part in key:
            value = getattr(value, part)
        name = ".".join(key)
        if value in taken:
            yield Mistake(
                ("settings", *key),
                f"settings: {name}: port {value} is {taken[value]}'s; each service needs another one",
            )
        else:
            taken[value] = name


def _logins(name: str, entry: HostEntry, settings: Settings) -> Iterator[Mistake]:
    """Refuses hardening that would shut out the very login that this inventory uses."""
    place, where = ("settings", "sshd"), f'host "{name}"'
    if entry.ssh_password is not None and not settings.sshd.password_authentication:
        yield Mistake(
            place,
            f"{where}: logs in with ssh_password, which settings.sshd.password_authentication = False "
            "forbids; use a key, or set it to True",
        )
    if entry.ssh_user == "root":
        if settings.sshd.root_login == "no":
            yield Mistake(place, f'{where}: logs in as root, which settings.sshd.root_login = "no" forbids')
        elif entry.ssh_password is not None and settings.sshd.root_login != "yes":
            yield Mistake(
                place,
                f'{where}: logs in as root with a password, which needs settings.sshd.root_login = "yes"',
            )


def _host_data(entry: HostEntry) -> dict[str, Any]:
    data = {key: value for key, value in entry.model_dump().items() if value is not None}
    # pyinfra's own name for it; a group can't set it for all, as hosts differ in their operators.
    data["_sudo"] = data.pop("sudo")
    return data
