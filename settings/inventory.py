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

GROUPS = ("bitrix", "cdn", "monitoring")


def groups(
    *,
    settings: Mapping[str, Any] | None = None,
    **hosts: Mapping[str, Mapping[str, Any]] | Sequence[str],
) -> tuple[Group, Group, Group]:
    """Checks a deployment and returns its groups `bitrix`, `cdn` and `monitoring`, in this order.

    :param settings: what differs from the defaults of :class:`settings.Settings`, nested like it.
    :param hosts: `bitrix={name: entry}` and `cdn={name: entry}` with the keys of
        :class:`settings.model.HostEntry`, one host each; optionally `monitoring=[name]`, hosts named in
        the other groups. By default it is the first `cdn` host.
    :raises SettingsError: with one line, before anything is connected to.
    """
    file = sys._getframe(1).f_globals.get("__file__", "inventory")
    for group in hosts:
        if group not in GROUPS:
            raise SettingsError(f'{file}: group "{group}" is unknown; allowed: {", ".join(GROUPS)}')

    entries: dict[str, HostEntry] = {}
    members: dict[str, list[str]] = {}
    for group in ("bitrix", "cdn"):
        given = hosts.get(group)
        if not given:
            raise SettingsError(f'{file}: group "{group}" is missing: name its host')
        if not isinstance(given, Mapping):
            raise SettingsError(f'{file}: group "{group}": {{name: {{"address": ...}}}} is allowed')
        if len(given) != 1:
            raise SettingsError(f'{file}: group "{group}" has {len(given)} hosts; exactly one is allowed')
        for name, entry in given.items():
            if name in entries:
                raise SettingsError(
                    f'{file}: host "{name}" is in both groups, bitrix and cdn; one is allowed'
                )
            try:
                entries[name] = HostEntry.model_validate(dict(entry))
            except ValidationError as error:
                raise SettingsError(f'{file}: host "{name}": {complaints(error, HostEntry)}') from None
        members[group] = list(given)
    members["monitoring"] = list(hosts.get("monitoring", members["cdn"][:1]))
    for name in members["monitoring"]:
        if name not in entries:
            raise SettingsError(f'{file}: group "monitoring": host "{name}" is in no other group')

    try:
        checked = Settings.model_validate(dict(settings or {}))
    except ValidationError as error:
        raise SettingsError(f"{file}: settings: {complaints(error, Settings)}") from None
    for name, host in entries.items():
        _can_log_in_afterwards(f'{file}: host "{name}"', host, checked)

    # Plain data, not the model: `pyinfra INVENTORY debug-inventory --json` prints it.
    data = {"settings": checked.model_dump(mode="json")}

    def made(name: str) -> Group:
        return [(host, _host_data(entries[host])) for host in members[name]], data

    return made("bitrix"), made("cdn"), made("monitoring")


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
