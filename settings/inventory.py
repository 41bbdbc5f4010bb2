"""Turns the hosts and settings of an inventory file into pyinfra's groups, checked."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError
from webp_converter.config import complaints

from settings.model import HostEntry, Settings, SettingsError

# A pyinfra group: hosts with their data, and the group's data.
Group = tuple[list[tuple[str, dict[str, Any]]], dict[str, Any]]

GROUPS = ("bitrix", "cdn", "edge", "balancer", "monitoring")

# Of the groups that bring hosts along: the fewest and the most that each may have; None: any number.
_NUMBERS: dict[str, tuple[int, int | None]] = {
    "bitrix": (1, 1),
    "cdn": (1, 1),
    "edge": (0, None),
    "balancer": (0, 1),
}


def groups(
    *,
    settings: Mapping[str, Any] | None = None,
    **hosts: Mapping[str, Mapping[str, Any]] | Sequence[str],
) -> tuple[Group, Group, Group, Group, Group]:
    """Checks a deployment and returns its groups `bitrix`, `cdn`, `edge`, `balancer` and `monitoring`, in
    this order.

    :param settings: what differs from the defaults of :class:`settings.Settings`, nested like it.
    :param hosts: `bitrix={name: entry}` and `cdn={name: entry}` with the keys of
        :class:`settings.model.HostEntry`, one host each; optionally `edge={name: entry, ...}`, any number of
        hosts, and `balancer={name: entry}`, one in front of these; optionally `monitoring=[name]`, hosts
        named in the other groups. By default it is the first `cdn` host.
    :raises SettingsError: with one line, before anything is connected to.
    """
    file = sys._getframe(1).f_globals.get("__file__", "inventory")
    for group in hosts:
        if group not in GROUPS:
            raise SettingsError(f'{file}: group "{group}" is unknown; allowed: {", ".join(GROUPS)}')

    entries: dict[str, HostEntry] = {}
    members: dict[str, list[str]] = {}
    home: dict[str, str] = {}
    for group, (fewest, most) in _NUMBERS.items():
        given = hosts.get(group)
        if not given and fewest:
            raise SettingsError(f'{file}: group "{group}" is missing: name its host')
        if given is None:
            given = {}
        if not isinstance(given, Mapping):
            raise SettingsError(f'{file}: group "{group}": {{name: {{"address": ...}}}} is allowed')
        if most is not None and len(given) > most:
            allowed = f"{'exactly' if fewest == most else 'at most'} one is allowed"
            raise SettingsError(f'{file}: group "{group}" has {len(given)} hosts; {allowed}')
        for name, entry in given.items():
            other = home.setdefault(name, group)
            if other != group:
                raise SettingsError(
                    f'{file}: host "{name}" is in both groups, {other} and {group}; one is allowed'
                )
            try:
                entries[name] = HostEntry.model_validate(dict(entry))
            except ValidationError as error:
                raise SettingsError(f'{file}: host "{name}": {complaints(error, HostEntry)}') from None
        members[group] = list(given)
    if members["balancer"] and not members["edge"]:
        raise SettingsError(
            f'{file}: group "balancer" has nothing to balance: name the hosts of group "edge"'
        )
    members["monitoring"] = list(hosts.get("monitoring", members["cdn"][:1]))
    for name in members["monitoring"]:
        if name not in entries:
            raise SettingsError(f'{file}: group "monitoring": host "{name}" is in no other group')

    try:
        checked = Settings.model_validate(dict(settings or {}))
    except ValidationError as error:
        raise SettingsError(f"{file}: settings: {complaints(error, Settings)}") from None
    if members["edge"]:
        _fits_edges(f"{file}: settings", checked)
    for name, host in entries.items():
        _can_log_in_afterwards(f'{file}: host "{name}"', host, checked)

    # Plain data, not the model: `pyinfra INVENTORY debug-inventory --json` prints it.
    data = {"settings": checked.model_dump(mode="json")}

    def made(name: str) -> Group:
        return [(host, _host_data(entries[host])) for host in members[name]], data

    return made("bitrix"), made("cdn"), made("edge"), made("balancer"), made("monitoring")


def _fits_edges(where: str, settings: Settings) -> None:
    """Refuses what doesn't go together with edges."""
    if settings.tls.mode == "acme":
        # The authority asks any one of the hosts that the name leads to, and each would want its own.
        raise SettingsError(
            f'{where}: tls.mode "acme" is for a cdn host without edges; with edges "files", "self-signed" or '
            '"off" is allowed'
        )
    taken = {
        "nginx.http_port": settings.nginx.http_port,
        "nginx.status_port": settings.nginx.status_port,
        "tls.port": settings.tls.port,
        "originals.port": settings.originals.port,
        "varnish.port": settings.varnish.port,
        "varnish.console_port": settings.varnish.console_port,
    }
    for name, port in taken.items():
        if port == settings.edges.shield_port:
            raise SettingsError(
                f"{where}: edges.shield_port is {name}, {port}; on the cdn host each needs a port of its own"
            )


def _can_log_in_afterwards(where: str, entry: HostEntry, settings: Settings) -> None:
    """Refuses hardening that would shut out the very login that this inventory uses."""
    if entry.ssh_password is not None and not settings.sshd.password_authentication:
        raise SettingsError(
            f"{where}: logs in with ssh_password, which settings.sshd.password_authentication = False "
            "forbids; use a key, or set it to True"
        )
    if entry.ssh_user == "root":
        if settings.sshd.root_login == "no":
            raise SettingsError(f'{where}: logs in as root, which settings.sshd.root_login = "no" forbids')
        if entry.ssh_password is not None and settings.sshd.root_login != "yes":
            raise SettingsError(
                f'{where}: logs in as root with a password, which needs settings.sshd.root_login = "yes"'
            )


def _host_data(entry: HostEntry) -> dict[str, Any]:
    data = {key: value for key, value in entry.model_dump().items() if value is not None}
    # pyinfra's own name for it; a group can't set it for all, as hosts differ in their operators.
    data["_sudo"] = data.pop("sudo")
    return data
