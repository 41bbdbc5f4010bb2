"""The footprint of a role on a host: ports, accounts, directories, and which of them are backed up.

Each role declares it once, in its own module, as `footprint(place)`; `roles/footprints.py` collects them.
The firewall, drift, Prometheus, the backups and docs/footprints.md read it from there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from bitrix_cdn.settings import Settings

Reach = Literal["everybody", "edges", "monitoring", "host"]
"""Who may ask a port: everybody, edges and the balancer, the monitoring hosts, or the host itself alone."""


@dataclass(frozen=True)
class Place:
    """A host of a deployment, as far as it decides what a role takes of it."""

    settings: Settings
    groups: frozenset[str]
    edges: bool = False
    """Whether the deployment has edges, which the CDN host feeds."""
    balanced: bool = False
    """Whether visitors come to edges through a balancer, where TLS ends."""
    ssh_port: int = 22

    def among(self, *groups: str) -> bool:
        """Whether the host is in one of these groups."""
        return not self.groups.isdisjoint(groups)


@dataclass(frozen=True)
class Port:
    """A port that a service listens on."""

    number: int
    reach: Reach
    what: str
    """What answers there, for people."""
    protocol: Literal["tcp", "udp"] = "tcp"
    anywhere: bool = False
    """Whether it listens on an address of the network even where only this host may ask it."""
    page: bool = False
    """Whether it shows pages to operators, who come to it through an SSH tunnel."""
    gate: tuple[str, ...] = ()
    """Paths that the gate lets through to it; `/` is all of them. Empty: it listens there itself."""
    job: str = ""
    """The job by which Prometheus asks it; empty: it doesn't."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """Of that job's target, besides `host`."""


@dataclass(frozen=True)
class Footprint:
    """What a role takes of one host."""

    ports: tuple[Port, ...] = ()
    accounts: tuple[str, ...] = ()
    """Accounts that it adds, beside those of packages."""
    trees: tuple[str, ...] = ()
    """Directories in which every file is the project's, a package's, or one too many."""
    saved: tuple[str, ...] = ()
    """Directories of configuration that a backup keeps."""
    packages: tuple[str, ...] = ()
    """Packages that it installs."""
    owned: tuple[str, ...] = ()
    """Files and directories that are the project's alone, beside what its templates write:
    `bitrix-cdn remove` takes them."""
    empty: tuple[str, ...] = ()
    """Directories that it makes for others' files, and that go only when nothing is in them."""
    data: tuple[str, ...] = ()
    """What would be lost with it: removed only where an operator says so."""
