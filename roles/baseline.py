"""What protects a host whatever runs on it; its part of the firewall is in `roles/firewall.py`."""

from __future__ import annotations

import shlex
from collections.abc import Generator, Iterable

from pyinfra import host
from pyinfra.api import FactBase, StringCommand, deploy, operation

from bitrix_cdn.engine.files import Existing, rendered, tree
from bitrix_cdn.engine.footprint import Footprint, Place
from bitrix_cdn.engine.journal import record_script
from bitrix_cdn.engine.kernel import sysctl_applied
from bitrix_cdn.engine.services import running
from bitrix_cdn.settings import Settings
from roles import agent
from roles.preflight import distribution

UPGRADES = "/etc/apt/apt.conf.d/60-bitrix-cdn-upgrades"
SYSCTL = "/etc/sysctl.d/60-bitrix-cdn-baseline.conf"
MODULES = "/etc/modprobe.d/bitrix-cdn-baseline.conf"
INTEGRITY = "bitrix-cdn-integrity"
UNITS = (f"/etc/systemd/system/{INTEGRITY}.service", f"/etc/systemd/system/{INTEGRITY}.timer")
CLOCKS = ("systemd-timesyncd", "chrony", "ntpsec", "openntpd", "ntp")
"""Packages that set a host's clock, Debian's default first."""


def footprint(place: Place) -> Footprint:
    """What this role takes of a host."""
    own = place.settings.baseline
    if place.among("bitrix") and not own.shop:
        return Footprint()
    upgrades = ("unattended-upgrades",) if own.upgrades else ()
    return Footprint(packages=(*upgrades, *(CLOCKS[:1] if own.clock else ())))


def is_wanted(settings: Settings) -> bool:
    """Whether this host has a baseline."""
    return settings.baseline.shop or "bitrix" not in host.groups


class Clocks(FactBase[list[str]]):
    """The packages on a Debian host that set its clock."""

    default = list

    def command(self) -> str:
        return (
            f"dpkg-query -W -f '${{db:Status-Status}} ${{Package}}\\n' {' '.join(CLOCKS)} 2>/dev/null; true"
        )

    def process(self, output: Iterable[str]) -> list[str]:
        return [name for status, _, name in (line.partition(" ") for line in output) if status == "installed"]


def packages_of(settings: Settings) -> list[str]:
    """The packages of this host's baseline. The role `base` installs them with its own: each call of apt
    costs more than a second."""
    if not is_wanted(settings) or distribution(settings).manager != "apt":
        return []
    clock = CLOCKS[:1] if settings.baseline.clock and not host.get_fact(Clocks) else ()
    return [*(["unattended-upgrades"] if settings.baseline.upgrades else []), *clock]


@deploy("Baseline")
def baseline(settings: Settings) -> None:
    if distribution(settings).manager != "apt":
        return
    wanted = is_wanted(settings)
    files = {file.path: file for file in rendered("baseline", agent=agent.COMMAND)}
    upgrades = wanted and settings.baseline.upgrades
    tree(
        name="Write what is upgraded by itself",
        files=[files[UPGRADES]] if upgrades else [],
        absent=[] if upgrades else [UPGRADES],
    )
    kernel = wanted and settings.baseline.kernel
    tree(
        name="Write what the kernel hides and refuses",
        files=[files[SYSCTL], files[MODULES]] if kernel else [],
        absent=[] if kernel else [SYSCTL, MODULES],
    )
    if kernel:
        sysctl_applied(name="Have the kernel hide and refuse that", path=SYSCTL)
    if not (wanted and settings.baseline.integrity):
        no_longer(name="Disable the daily check of packages' files")
        return
    tree(
        name="Write the units of the daily check of packages' files",
        files=[files[path] for path in UNITS],
        root="/etc/systemd",
    )
    running(name=f"Enable {INTEGRITY}.timer", unit=f"{INTEGRITY}.timer", start=UNITS)


@operation()
def no_longer() -> Generator[StringCommand, None, None]:
    """Takes the daily check from a host whose settings have switched it off."""
    present = host.get_fact(Existing, paths=UNITS)
    if not present:
        host.noop("packages' files aren't checked")
        return
    timer = f"{INTEGRITY}.timer"
    record = record_script(present, unit=timer, action="restart")
    yield StringCommand(
        f"set -e\n{record}\nsystemctl disable -q --now {timer}\n"
        f"rm -f {shlex.join(present)}\nsystemctl daemon-reload"
    )
