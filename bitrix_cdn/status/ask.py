"""Queries the state of all hosts at once."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

from bitrix_cdn.fleet import HostError, Inventory
from bitrix_cdn.settings.inventory import GROUPS
from bitrix_cdn.status.facts import HostStatus, read, script


def ask(inventory: Inventory, names: Sequence[str]) -> list[HostStatus]:
    """How these hosts are; one that can't be asked says why."""
    with ThreadPoolExecutor(max_workers=8) as threads:
        return list(threads.map(lambda name: _ask(inventory, name), names))


def _ask(inventory: Inventory, name: str) -> HostStatus:
    groups = tuple(group for group in GROUPS if name in inventory.groups.get(group, ()))
    remote = inventory.hosts[name]
    try:
        remote.connect()
        printed = remote.run(script(inventory.settings, groups), check=False, silence=30).text
    except HostError as error:
        return HostStatus(name, groups, failed=str(error).removeprefix(f"{name}: "))
    return read(name, groups, printed, datetime.now(UTC))
