"""An inventory as pyinfra reads and checks it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from pyinfra.api import Config, State
from pyinfra.api import Inventory as PyinfraInventory

from bitrix_cdn.fleet.deploys import run
from bitrix_cdn.fleet.errors import UsageError
from bitrix_cdn.fleet.remote import Remote
from bitrix_cdn.fleet.results import Entry
from bitrix_cdn.settings import Settings


@dataclass(frozen=True)
class Inventory:
    """What an inventory says."""

    file: str
    hosts: Mapping[str, Remote]
    """By name, in the inventory's order."""
    groups: Mapping[str, tuple[str, ...]]
    """The names of each group's hosts; a group without hosts is left out."""
    settings: Settings
    entries: tuple[Entry, ...]

    def address(self, name: str) -> str:
        """How the other hosts reach this one."""
        data = next(entry.data for entry in self.entries if entry.name == name)
        return str(data.get("address", name))

    def chosen(self, limit: Sequence[str]) -> list[str]:
        """The hosts that a limit names; see :func:`chosen`."""
        groups = {
            name: [group for group, names in self.groups.items() if name in names] for name in self.hosts
        }
        return chosen(self.file, groups, limit)

    def close(self) -> None:
        for remote in self.hosts.values():
            remote.close()


def load(inventory: str) -> Inventory:
    """Reads an inventory through pyinfra, which checks it; connects to nothing.

    :raises UsageError: the inventory can't be.
    """
    if not Path(inventory).is_file():
        raise UsageError(f"{inventory}: no such inventory")
    found = run(inventory, None)
    if found.failure:
        raise found.failure.error()
    entries = found.entries
    state = State(PyinfraInventory(([(one.name, dict(one.data)) for one in entries], {})), Config())  # type: ignore[no-untyped-call]
    groups: dict[str, tuple[str, ...]] = {}
    for entry in entries:
        for group in entry.groups:
            groups[group] = (*groups.get(group, ()), entry.name)
    return Inventory(
        inventory,
        {entry.name: Remote(state.inventory.get_host(entry.name)) for entry in entries},
        groups,
        Settings.model_validate(entries[0].data["settings"]),
        entries,
    )


def chosen(inventory: str, groups: Mapping[str, Sequence[str]], limit: Sequence[str]) -> list[str]:
    """The hosts that a limit names.

    :param groups: of each host.
    :param limit: names or groups of hosts; `*` in them stands for anything. Empty: all.
    :raises UsageError: one of its names stands for no host.
    """
    found: set[str] = set()
    for pattern in limit:
        matching = {name for name, of in groups.items() if pattern in of or fnmatchcase(name, pattern)}
        if not matching:
            known = sorted({*groups, *(group for of in groups.values() for group in of)})
            raise UsageError(
                f"{inventory}: no host or group is named {pattern}; there are: {', '.join(known)}"
            )
        found |= matching
    return [name for name in groups if not limit or name in found]
