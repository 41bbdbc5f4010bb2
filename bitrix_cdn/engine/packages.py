"""Packages of any distribution, and services that wait for our configuration."""

from __future__ import annotations

import shlex
from collections.abc import Generator, Iterable, Sequence

from pyinfra import host
from pyinfra.api import FactBase, StringCommand, operation
from pyinfra.operations import apt

from bitrix_cdn.engine import differences
from bitrix_cdn.engine.distribution import Distribution


def packages(name: str, distribution: Distribution, wanted: Sequence[str], *, update: bool = False) -> None:
    """Installs packages, without those that they only recommend.

    :param wanted: as Debian names them.
    :param update: whether apt's lists are to be no older than a day; dnf sees to its own.
    """
    if distribution.manager == "dnf":
        installed_by_dnf(name=name, distribution=distribution, wanted=wanted)
        return
    apt.packages(
        name=name,
        packages=distribution.named(wanted),
        no_recommends=True,
        update=update,
        cache_time=86400 if update else None,
    )


class NotInstalled(FactBase[list[str]]):
    """Those of the given packages, or programs of packages, that an RPM host hasn't got."""

    default = list

    def command(self, names: Sequence[str]) -> str:
        quoted = " ".join(map(shlex.quote, names))
        return (
            f"for p in {quoted}; do case $p in /*) test -e $p ;; *) rpm -q --whatprovides $p ;; esac "
            ">/dev/null || echo $p; done"
        )

    def process(self, output: Iterable[str]) -> list[str]:
        return list(output)


@operation()
def installed_by_dnf(
    distribution: Distribution, wanted: Sequence[str]
) -> Generator[StringCommand, None, None]:
    """Installs packages and programs that an RPM host hasn't got; pyinfra's own operation asks the
    repositories each time where a package is named by its program.

    + distribution: the host's
    + wanted: as Debian names them
    """
    if not host.get_fact(NotInstalled, names=distribution.named(wanted)):
        host.noop("all are installed")
        return
    yield StringCommand(distribution.install_script(wanted))


class Missing(FactBase[bool]):
    """Whether a host has no unit of a name, as its package isn't installed."""

    default = bool

    def command(self, unit: str) -> str:
        u = shlex.quote(unit)
        return f"[ -e /lib/systemd/system/{u} ] || [ -e /etc/systemd/system/{u} ] || echo missing"

    def process(self, output: Iterable[str]) -> bool:
        return "missing" in output


@operation()
def held_back(unit: str, for_good: bool = False) -> Generator[StringCommand, None, None]:
    """Keeps a unit from being started by its package, with the configuration that the package brings.

    What was installed before stays as it is. :func:`bitrix_cdn.engine.services.running` lets it start.

    + unit: name of the systemd unit, with its suffix
    + for_good: whether that is to last, as the unit isn't wanted at all
    """
    if for_good:
        differences.manage(files=[f"/etc/systemd/system/{unit}"])
    if not host.get_fact(Missing, unit=unit):
        host.noop(f"{unit} is there already")
        return
    # No reload: systemd reads the mask when the package asks for the unit.
    how = "" if for_good else "--runtime "
    yield StringCommand(f"systemctl mask -q --no-reload {how}{shlex.quote(unit)}")
