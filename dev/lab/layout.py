"""Where a lab keeps its files, and what it may be called.

Settings, all from the environment:

`LAB_NAME`
    Name of the lab, `lab` by default. Labs of different names run side by side.
`LAB_CACHE`
    Base trees and downloaded packages, shared by all labs: `/var/cache/bitrix-cdn-lab`.
`LAB_STATE`
    What belongs to running labs, one directory each: `/var/lib/bitrix-cdn-lab`.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from dev.lab.errors import UsageError

# A host's name is used as a host name, a lab's in file names, an nftables table and a systemd unit.
_NAME = re.compile(r"[a-z](?:[a-z0-9-]{0,29}[a-z0-9])?")
_NAME_RULE = "1 to 31 of a-z, 0-9 and '-', a letter first, no '-' last"


def lab_name(given: str | None = None) -> str:
    """Return the checked name of the lab: `given`, else `LAB_NAME`, else `lab`.

    :raises UsageError: it can't be one.
    """
    name = given if given is not None else os.environ.get("LAB_NAME") or "lab"
    if not _NAME.fullmatch(name):
        raise UsageError(f"LAB_NAME={name!r} is no name for a lab: {_NAME_RULE}")
    return name


def check_host_name(name: str) -> str:
    """Return `name`.

    :raises UsageError: no host can be called that.
    """
    if not _NAME.fullmatch(name) or name == "localhost":
        raise UsageError(f"{name!r} is no name for a host: {_NAME_RULE}")
    return name


def _directory(variable: str, default: str) -> Path:
    path = Path(os.environ.get(variable) or default)
    # ':' and ',' separate the layers and the options of an overlay mount.
    if not path.is_absolute() or re.search(r"[:,\\\s]", str(path)):
        raise UsageError(
            f"{variable}={str(path)!r}: an absolute path without ':', ',', '\\' or spaces is needed"
        )
    return path


def cache_directory() -> Path:
    """Return the directory of what outlives labs.

    :raises UsageError: no directory can be called what the environment says.
    """
    return _directory("LAB_CACHE", "/var/cache/bitrix-cdn-lab")


def state_root() -> Path:
    """Return the directory that holds one directory per lab.

    :raises UsageError: no directory can be called what the environment says.
    """
    return _directory("LAB_STATE", "/var/lib/bitrix-cdn-lab")


@dataclass(frozen=True)
class HostLayout:
    """The files of one host."""

    directory: Path

    @property
    def upper(self) -> Path:
        """What the host wrote: the upper layer of its root."""
        return self.directory / "upper"

    @property
    def work(self) -> Path:
        """overlayfs' own directory."""
        return self.directory / "work"

    @property
    def packages(self) -> Path:
        """A middle layer: packages downloaded by earlier hosts, in apt's place."""
        return self.directory / "packages"

    @property
    def root(self) -> Path:
        """The mount point; the mount itself exists in the host's own mount namespace only."""
        return self.directory / "root"

    @property
    def console_log(self) -> Path:
        """What the host wrote to its console since it was last reset."""
        return self.directory / "console.log"


@dataclass(frozen=True)
class Layout:
    """The files of one lab."""

    name: str

    @property
    def directory(self) -> Path:
        """Everything of this lab."""
        return state_root() / self.name

    @property
    def record(self) -> Path:
        """The lab's record, see :mod:`dev.lab.state`."""
        return self.directory / "state.json"

    @property
    def ssh_key(self) -> Path:
        """Private key that logs in as root everywhere in this lab."""
        return self.client_keys / "ssh_key"

    @property
    def client_keys(self) -> Path:
        """Directory of the lab's own key pair."""
        return self.directory / "keys"

    @property
    def known_hosts(self) -> Path:
        """The hosts' keys in OpenSSH's format, by name and by address."""
        return self.directory / "known_hosts"

    def host_keys(self, host: str) -> Path:
        """Directory with the SSH host keys of `host`: they outlive a reset."""
        return self.directory / "host_keys" / host

    @property
    def hosts(self) -> Path:
        """The directory of the hosts' directories."""
        return self.directory / "hosts"

    def host(self, host: str) -> HostLayout:
        """Return where `host` keeps its files."""
        return HostLayout(self.hosts / host)
