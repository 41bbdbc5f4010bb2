"""Settings of Grafana, which shows what Prometheus knows."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field

from bitrix_cdn.settings.types import Memory, Network, Port, Section


def _file_here(path: str) -> str:
    if path and not Path(path).expanduser().is_file():
        raise ValueError("there is no such file on this machine")
    return path


class GrafanaRepository(Section):
    """Where Grafana is installed from, as Debian has no package of it: its makers' APT repository, or a
    mirror of that. Where it can't be reached, the deploy says so in one line and leaves Grafana out."""

    url: Annotated[str, Field(pattern=r"^https?://[A-Za-z0-9.:\[\]-]+(/[A-Za-z0-9._~+-]+)*/?$")] = (
        "https://apt.grafana.com"
    )
    """Its address, or that of a mirror."""

    suite: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")] = "stable"
    """The suite: the directory below `dists/`."""

    components: list[Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]] = Field(
        default=["main"], min_length=1
    )
    """Its components."""

    version: Annotated[str, Field(pattern=r"^[0-9*][A-Za-z0-9.+~*-]*$")] = "12.*"
    """The version to install, as apt's preferences write it; `*` stands for anything. The dashboards and the
    configuration are made for 11 and 12."""

    key_url: Annotated[str, Field(pattern=r"^https?://[A-Za-z0-9.:\[\]-]+(/[A-Za-z0-9._~+-]+)+$")] = (
        "https://apt.grafana.com/gpg.key"
    )
    """Where the host gets the key that the repository is signed with."""

    key_file: Annotated[str, AfterValidator(_file_here)] = ""
    """A file with that key on the machine that deploys, instead of `key_url`; empty: none."""

    fingerprint: Annotated[str, Field(pattern=r"^[0-9A-F]{40}$")] = "B53AE77BADB630A683046005963FA27710458545"
    """The key's fingerprint, 40 hexadecimal digits. No other key is trusted, whatever came along with it."""


class GrafanaSettings(Section):
    """Grafana, on the `monitoring` hosts: docs/dashboards.md."""

    enabled: bool = True
    """Whether it is installed. Switched off later, it stays as it is."""

    port: Port = 3000
    """Its port on loopback."""

    https_port: Port = 3443
    """The port at which nginx of a CDN host brings it to you, over HTTPS only. On a monitoring host without
    the CDN's nginx there is only the port on loopback."""

    domain: Annotated[str, Field(pattern=r"^([A-Za-z0-9.-]+)?$")] = ""
    """The name that you reach it by; empty: the first of `nginx.server_names`, or else the address of the
    host."""

    allowed: list[Network] = Field(default_factory=list)
    """Addresses and networks that may reach it, such as your office's. The host itself and the private
    addresses of all hosts always may; all others may not."""

    memory_max: Memory = "512mb"
    """Memory at which the kernel ends it, and systemd restarts it: it must not take it from the pictures."""

    price_per_gb: Annotated[float, Field(ge=0, le=1000)] = 0.05
    """What a gigabyte of traffic costs you, in your currency (0 to 1000): what the CDN saves is shown in
    money, too."""

    repository: GrafanaRepository = GrafanaRepository()
