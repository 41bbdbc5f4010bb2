"""Packages whose services wait for our configuration."""

from __future__ import annotations

import shlex
from collections.abc import Generator, Iterable

from pyinfra import host
from pyinfra.api import FactBase, StringCommand, operation


class Missing(FactBase[bool]):
    """Whether a host has no unit of a name, as its package isn't installed."""

    default = bool

    def command(self, unit: str) -> str:
        u = shlex.quote(unit)
        return f"[ -e /lib/systemd/system/{u} ] || [ -e /etc/systemd/system/{u} ] || echo missing"

    def process(self, output: Iterable[str]) -> bool:
        return "missing" in output


@operation()
def held_back(unit: str) -> Generator[StringCommand, None, None]:
    """Keeps a unit from being started by its package, with the configuration that the package brings.

    What was installed before stays as it is. :func:`bitrix_cdn.engine.services.running` lets it start.

    + unit: name of the systemd unit, with its suffix
    """
    if not host.get_fact(Missing, unit=unit):
        host.noop(f"{unit} is there already")
        return
    yield StringCommand(f"systemctl mask -q --runtime {shlex.quote(unit)}")
