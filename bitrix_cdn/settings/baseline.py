"""Settings of what protects a host whatever runs on it."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from bitrix_cdn.settings.types import Network, Section


class BaselineSettings(Section):
    """What protects every host but the shop's, whatever runs on it: docs/hardening.md."""

    shop: bool = False
    """Whether the shop's host has this as well. Its own software decides otherwise. With `closed`,
    `drift.site_ports` must say what the shop listens on."""

    closed: bool = True
    """Whether the firewall refuses all ports but SSH, those of the project, and those of `drift.ports`."""

    ssh_per_minute: Annotated[int, Field(ge=0, le=10_000)] = 60
    """New SSH connections a minute (0 to 10000) that one address may open, or one IPv6 network of 64 bits. 0:
    no limit. The other hosts of the inventory are exempt."""

    operators: list[Network] = Field(default_factory=list)
    """Addresses and networks that `ssh_per_minute` doesn't hold for, such as the one you deploy from."""

    upgrades: bool = True
    """Whether Debian's security updates are installed each day, by unattended-upgrades. The host is never
    restarted for them."""

    clock: bool = True
    """Whether systemd-timesyncd is installed where nothing else, such as chrony, sets the clock."""

    kernel: bool = True
    """Whether the kernel hides its addresses and log from accounts, takes and sends no redirects, and loads
    no protocols and file systems that nobody needs, such as SCTP."""

    integrity: bool = True
    """Whether the programs of all packages are compared each day with the checksums that came with them. The
    unit `bitrix-cdn-integrity` fails when one differs, which rings the alert ServiceFailed."""
