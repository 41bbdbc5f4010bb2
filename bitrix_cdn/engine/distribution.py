"""The distribution of a host: its packages, units and programs, and their names.

Roles use Debian's names of packages; all other names are here, and only here.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

LOOK = ". /etc/os-release; echo id $ID; echo version $VERSION_ID"
"""A command that prints what :func:`known` wants, one word before each."""


@dataclass(frozen=True)
class Distribution:
    """A release of a distribution."""

    title: str
    manager: Literal["apt", "dnf"] = "apt"
    """What installs packages."""
    names: Mapping[str, str] = field(default_factory=dict)
    """Debian's name of a package -> what is installed for it: a package, or the path of a program in one;
    empty: nothing, as it is part of another one."""
    python: str = "/usr/bin/python3"
    """The interpreter of the host agent, which needs Python 3.11."""
    ssh_unit: str = "ssh.service"
    node_exporter: str = "/usr/bin/prometheus-node-exporter"
    every_role: bool = False
    """Whether such a host can be anything; else it can be the shop's host and nothing more."""

    def named(self, packages: Iterable[str]) -> list[str]:
        """The packages as they are called here."""
        return [name for package in packages if (name := self.names.get(package, package))]

    def install_script(self, packages: Iterable[str], *, commands: Iterable[str] = ()) -> str:
        """A shell script that installs packages, and fails where it can't.

        :param packages: as Debian names them.
        :param commands: what they are for; where all of these are there, nothing is done.
        """
        names = shlex.join(self.named(packages))
        if self.manager == "dnf":
            # sshfs, restic and node_exporter are EPEL's.
            script = (
                "rpm -q epel-release >/dev/null || dnf install -y -q epel-release && "
                f"dnf install -y -q --setopt=install_weak_deps=False {names}"
            )
        else:
            install = f"apt-get install -qq -y --no-install-recommends {names} >/dev/null </dev/null"
            script = (
                f"export DEBIAN_FRONTEND=noninteractive; fetch() {{ {install}; }}; "
                "fetch 2>/dev/null || { apt-get update -qq </dev/null && fetch; }"
            )
        there = " && ".join(f"command -v {shlex.quote(command)} >/dev/null" for command in commands)
        # `set -e` alone would pass over what fails before the last `&&`.
        return f"{there}{' || ' if there else ''}{{ {script}; }} || exit 1"


def _enterprise_linux(title: str) -> Distribution:
    return Distribution(
        title,
        manager="dnf",
        names={
            # The server's package has it.
            "openssh-sftp-server": "",
            "openssh-client": "openssh-clients",
            "sshfs": "fuse-sshfs",
            "iproute2": "iproute",
            # A bare host has curl-minimal, with which the package curl is at odds.
            "curl": "/usr/bin/curl",
            "python3": "python3.11",
            # Repositories don't agree on the package's name.
            "prometheus-node-exporter": "/usr/bin/node_exporter",
        },
        python="/usr/bin/python3.11",
        ssh_unit="sshd.service",
        node_exporter="/usr/bin/node_exporter",
    )


_DISTRIBUTIONS = {
    ("debian", "12"): Distribution("Debian 12", every_role=True),
    ("debian", "13"): Distribution("Debian 13", every_role=True),
    ("ubuntu", "22.04"): Distribution(
        "Ubuntu 22.04", names={"python3": "python3.11"}, python="/usr/bin/python3.11"
    ),
    ("ubuntu", "24.04"): Distribution("Ubuntu 24.04"),
    ("rocky", "9"): _enterprise_linux("Rocky Linux 9"),
    ("almalinux", "9"): _enterprise_linux("AlmaLinux 9"),
    ("centos", "9"): _enterprise_linux("CentOS Stream 9"),
}

DEBIAN = _DISTRIBUTIONS["debian", "12"]
"""What all hosts but the shop's have, as far as packages, units and programs go."""


def read(text: str) -> Distribution | None:
    """The distribution of which :data:`LOOK` printed the text; None: as for :func:`known`."""
    return known(dict(line.split(" ", 1) for line in text.splitlines() if " " in line))


def known(found: Mapping[str, str]) -> Distribution | None:
    """The distribution that a host has; None: one that nothing is known of.

    :param found: its `id` and `version`, as `/etc/os-release` has them.
    """
    name, version = found.get("id", ""), found.get("version", "")
    # Those with dnf count minor releases as well, Ubuntu's are releases of their own.
    major = version if name == "ubuntu" else version.partition(".")[0]
    return _DISTRIBUTIONS.get((name, major))


def supported(*, only_shop: bool) -> str:
    """What a host may have, in words.

    :param only_shop: whether it is the shop's host and nothing else.
    """
    titles = [one.title for one in _DISTRIBUTIONS.values() if only_shop or one.every_role]
    return f"{', '.join(titles[:-1])} or {titles[-1]}"
