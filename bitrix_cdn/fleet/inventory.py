"""An inventory as pyinfra reads and checks it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyinfra.api import Config, State
from pyinfra.api import Inventory as PyinfraInventory

from bitrix_cdn.fleet.remote import HostError, Remote
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
    entries: tuple[dict[str, Any], ...]
    """Name, groups and data of each host, as `debug-inventory --json` prints them; they may hold secrets."""

    def address(self, name: str) -> str:
        """How the other hosts reach this one."""
        data = next(entry["data"] for entry in self.entries if entry["name"] == name)
        return str(data.get("address", name))

    def close(self) -> None:
        for remote in self.hosts.values():
            remote.close()


def load(inventory: str) -> Inventory:
    """Reads an inventory through pyinfra, which checks it; connects to nothing.

    :raises HostError: the inventory can't be.
    """
    if not Path(inventory).is_file():
        raise HostError(f"{inventory}: no such inventory")
    result = subprocess.run(
        [str(Path(sys.executable).parent / "pyinfra"), inventory, "debug-inventory", "--json"],
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode == 2:
        # What pyinfra says of itself begins with an arrow.
        said = [line for line in result.stderr.splitlines() if line and not line.startswith("-->")]
        raise HostError("\n".join(said))
    if result.returncode or not result.stdout.strip():
        raise HostError(complaint(result.stderr) or f"{inventory}: pyinfra can't read it")
    entries: list[dict[str, Any]] = json.loads(result.stdout)
    if not entries or "settings" not in entries[0]["data"]:
        raise HostError(f"{inventory}: has no settings; make it like inventories/production.py")
    state = State(PyinfraInventory(([(e["name"], e["data"]) for e in entries], {})), Config())  # type: ignore[no-untyped-call]
    groups: dict[str, tuple[str, ...]] = {}
    for entry in entries:
        for group in entry["groups"]:
            groups[group] = (*groups.get(group, ()), entry["name"])
    return Inventory(
        inventory,
        {entry["name"]: Remote(state.inventory.get_host(entry["name"])) for entry in entries},
        groups,
        Settings.model_validate(entries[0]["data"]["settings"]),
        tuple(entries),
    )


def complaint(errors: str) -> str:
    """What pyinfra says is wrong, without where in the code it noticed."""
    lines = [line.strip() for line in errors.splitlines() if line.strip()]
    for line in reversed(lines):
        if match := re.search(r"pyinfra error(?: in \S+ line \d+)?: (.*)", line):
            return match[1]
    return lines[-1] if lines else ""
