"""What every host has."""

from __future__ import annotations

from collections.abc import Generator

from pyinfra import host
from pyinfra.api import FactBase, StringCommand, deploy, operation
from pyinfra.operations import selinux

from bitrix_cdn.engine.files import rendered, tree
from bitrix_cdn.engine.footprint import Footprint, Place
from bitrix_cdn.engine.packages import packages
from bitrix_cdn.settings import Settings
from roles.preflight import distribution, machine


def footprint(place: Place) -> Footprint:
    """What this role takes of a host."""
    # On the shop's host cron is the shop's.
    cron = () if place.among("bitrix") else ("/etc/cron.d", "/var/spool/cron/crontabs")
    saved = ("/etc/systemd/system", "/etc/sysctl.d") if place.among("cdn") else ()
    return Footprint(trees=("/etc/bitrix-cdn", "/etc/sudoers.d", *cron), saved=saved)


@deploy("Base")
def base(settings: Settings) -> None:
    here = distribution(settings)
    if here.manager == "apt":
        tree(name="Configure apt to wait for its lock", files=rendered("base"))
        dpkg_finished(name="Repair an interrupted dpkg")
    packages(
        "Install sshfs and common tools",
        here,
        # curl: what the runbooks ask with.
        ["fuse3", "openssh-server", "openssh-sftp-server", "sshfs", "ca-certificates", "curl"],
        update=True,
    )
    if "bitrix" in host.groups and machine(settings)["selinux"] == "yes":
        selinux.boolean(
            name="Let the web server use the mount (SELinux)",
            bool_name="httpd_use_fusefs",
            value=selinux.Boolean.ON,
            persistent=True,
        )


class DpkgInterrupted(FactBase[bool]):
    """Whether dpkg was cut short, after which apt refuses to do anything."""

    default = bool

    def command(self) -> str:
        return "ls -A /var/lib/dpkg/updates; dpkg --audit; true"

    def process(self, output: list[str]) -> bool:
        return any(line.strip() for line in output)


# Half-installed (`H`) or to be installed again (`R`): only its archive helps. The first try fails for what
# needs one of those.
FINISH = r"""
export DEBIAN_FRONTEND=noninteractive
dpkg --configure -a --force-confold || :
broken=$(dpkg-query -W -f '${db:Status-Abbrev}\t${binary:Package}\n' |
    awk -F '\t' '$1 ~ /^(.H|..R)/ { print $2 }')
set -e
if [ -n "$broken" ]; then
    apt-get -qq update || :
    apt-get -qq -y -o Dpkg::Options::=--force-confold --no-install-recommends --reinstall install $broken
fi
apt-get -qq -y -o Dpkg::Options::=--force-confold --no-install-recommends --fix-broken install
dpkg --configure -a
"""


@operation()
def dpkg_finished() -> Generator[StringCommand, None, None]:
    """Configures what an interrupted dpkg unpacked, and installs again what it didn't unpack whole."""
    if not host.get_fact(DpkgInterrupted):
        host.noop("dpkg has nothing left to do")
        return
    yield StringCommand(FINISH)
