"""Settings of the drift check: what may be on the hosts besides what the deploy installs."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from bitrix_cdn.settings.types import Account, Section


def _listener(text: str) -> str:
    ports, _, protocol = text.partition("/")
    first, dash, last = ports.partition("-")
    numbers = [first, *([last] if dash else [])]
    if protocol not in {"tcp", "udp"} or not all(one.isascii() and one.isdigit() for one in numbers):
        raise ValueError("a port such as 25/tcp or a range such as 10000-10100/udp is allowed")
    low, high = int(numbers[0]), int(numbers[-1])
    if not 1 <= low <= high <= 65535:
        raise ValueError(f"{ports}: ports from 1 to 65535, the lower one first, are allowed")
    return text


ListeningPort = Annotated[str, AfterValidator(_listener)]
PathPattern = Annotated[str, Field(pattern=r"^/[^\x00-\x1f]+$")]
Fingerprint = Annotated[str, Field(pattern=r"^SHA256:[A-Za-z0-9+/]{43}$")]


class DriftSettings(Section):
    """The drift check: docs/drift.md. The check expects what the deploy installs on a host; these settings
    name what else may be there. `bitrix-cdn drift allow` prints them for the current state of the hosts."""

    calendar: Annotated[str, Field(pattern=r"^[A-Za-z0-9*:,./~ -]+$")] = "*-*-* 05:00:00"
    """When the timer on the machine that deploys starts a check, in the form of systemd's `OnCalendar=`. At
    least once a day: after 26 hours without a check an alert fires."""

    ports: list[ListeningPort] = Field(default_factory=list)
    """Ports on which other programs listen, such as `25/tcp` or `10000-10100/udp`: on all hosts but the
    shop's."""

    accounts: list[Account] = Field(default_factory=list)
    """Other accounts, such as those of your administrators, who may log in and use sudo: on all hosts."""

    files: list[PathPattern] = Field(default_factory=list)
    """Other files in the directories that the project owns, as paths in which `*` stands for any text: on all
    hosts."""

    keys: list[Fingerprint] | None = None
    """Fingerprints of all SSH keys that may log in to the hosts, as `ssh-keygen -l` prints them. If left out,
    only the keys of the project's accounts are checked."""

    site_ports: list[ListeningPort] | None = None
    """The same as `ports` for the shop's host. If left out, its ports are not checked."""

    site_accounts: list[Account] | None = None
    """Further accounts of the shop's host. If left out, only a second account with uid 0 and accounts without
    a password are looked for."""
