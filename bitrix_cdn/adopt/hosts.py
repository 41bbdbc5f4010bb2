"""The two hosts between which the pictures move."""

from __future__ import annotations

from dataclasses import dataclass

from bitrix_cdn import fleet
from bitrix_cdn.adopt.errors import MigrationError
from bitrix_cdn.fleet import Output, Remote
from bitrix_cdn.settings import Settings

__all__ = ["Deployment", "Output", "Remote", "load"]


@dataclass(frozen=True)
class Deployment:
    """What an inventory says."""

    bitrix: Remote
    cdn: Remote
    settings: Settings


def load(inventory: str) -> Deployment:
    """Reads an inventory through pyinfra, which checks it; connects to nothing.

    :raises MigrationError: a group is missing.
    :raises HostError: the inventory can't be.
    """
    found = fleet.load(inventory)
    for group in ("bitrix", "cdn"):
        if group not in found.groups:
            raise MigrationError(f"{inventory}: group {group!r} is missing")
    bitrix, cdn = (found.hosts[found.groups[group][0]] for group in ("bitrix", "cdn"))
    return Deployment(bitrix, cdn, found.settings)
