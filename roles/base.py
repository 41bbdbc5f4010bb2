"""The base of every host."""

from __future__ import annotations

from collections.abc import Generator

from pyinfra import host
from pyinfra.api import FactBase, StringCommand, deploy, operation
from pyinfra.operations import selinux

from bitrix_cdn.engine.files import rendered, tree
from bitrix_cdn.engine.footprint import Footprint, Place
from bitrix_cdn.engine.kernel import sysctl_applied
from bitrix_cdn.engine.packages import packages
from bitrix_cdn.engine.services import STAMPS
from bitrix_cdn.settings import Settings
from roles.baseline import packages_of
from roles.preflight import distribution, machine

PACKAGES = (
    *("fuse3", "openssh-server", "openssh-sftp-server", "sshfs", "ca-certificates"),
    "curl",  # what the runbooks ask with
)


APT = "/etc/apt/apt.conf.d/80-bitrix-cdn"
SYSCTL = "/etc/sysctl.d/05-bitrix-cdn.conf"


def footprint(place: Place) -> Footprint:
    """What this role takes of a host."""
    # On the shop's host cron is the shop's.
    cron = () if place.among("bitrix") else ("/etc/cron.d", "/var/spool/cron/crontabs")
    saved = ("/etc/systemd/system", "/etc/sysctl.d") if place.among("cdn") else ()
    return Footprint(
        trees=("/etc/bitrix-cdn", "/etc/sudoers.d", *cron),
        saved=saved,
        packages=PACKAGES,
        owned=("/etc/bitrix-cdn",),
    )


BEFORE = "/var/lib/bitrix-cdn/before"
"""What the host had before the first deploy, for `bitrix-cdn remove`."""


@deploy("Base")
def base(settings: Settings) -> None:
    here = distribution(settings)
    remembered(name="Remember what the host had before the first deploy", manager=here.manager)
    files = {file.path: file for file in rendered("base")}
    if here.manager == "apt":
        tree(name="Configure apt to wait for its lock", files=[files[APT]])
        dpkg_finished(name="Repair an interrupted dpkg")
    packages(
        "Install sshfs and common tools",
        here,
        [*PACKAGES, *packages_of(settings)],
        update=True,
    )
    # The shop's host keeps its own ways.
    if "bitrix" not in host.groups:
        tree(name="Write the kernel's ptrace limit", files=[files[SYSCTL]], root="/etc/sysctl.d")
        sysctl_applied(name="Apply the kernel's ptrace limit", path=SYSCTL, least=True)
    if "bitrix" in host.groups and machine(settings)["selinux"] == "yes":
        selinux.boolean(
            name="Let the web server use the mount (SELinux)",
            bool_name="httpd_use_fusefs",
            value=selinux.Boolean.ON,
            persistent=True,
        )


class Remembered(FactBase[bool]):
    """Whether it is recorded what the host had before; no: a version that didn't record it deployed it."""

    default = bool

    def command(self) -> str:
        return f"if [ -d {BEFORE} ] || ls {STAMPS}/* >/dev/null 2>&1; then echo yes; fi"

    def process(self, output: list[str]) -> bool:
        return bool(output)


def remember_script(manager: str) -> str:
    """A shell script that writes down what the host has, whole or not at all.

    :param manager: what installs packages there.
    """
    listed = {
        "apt": r"dpkg-query -W -f '${db:Status-Status} ${Package}\n' | sed -n 's/^installed //p'",
        "dnf": r"rpm -qa --qf '%{NAME}\n'",
    }[manager]
    return f"""
set -e
rm -rf {BEFORE}.new
mkdir -p {BEFORE}.new
cd {BEFORE}.new
{listed} | sort -u > packages
systemctl list-unit-files --state=enabled --no-legend --no-pager | cut -d' ' -f1 | sort > units
cut -d: -f1 /etc/passwd | sort > accounts
cut -d: -f1 /etc/group | sort > groups
sync -- *
mv -T {BEFORE}.new {BEFORE}
"""


@operation()
def remembered(manager: str) -> Generator[StringCommand, None, None]:
    """Writes down packages, enabled units, accounts and groups, before the first deploy changes them.

    + manager: what installs packages there
    """
    if host.get_fact(Remembered):
        host.noop("it is remembered")
        return
    yield StringCommand(remember_script(manager))


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
