"""Settings of Grafana, which shows Prometheus' data."""

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
    """The APT repository of Grafana, as Debian has no package of it: that of Grafana Labs, or a mirror. If it
    can't be reached, the deploy says so in one line and leaves Grafana out."""

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
    """The version to install, as in apt's preferences; `*` stands for any text. The dashboards and the
    configuration are made for 11 and 12."""

    key_url: Annotated[str, Field(pattern=r"^https?://[A-Za-z0-9.:\[\]-]+(/[A-Za-z0-9._~+-]+)+$")] = (
        "https://apt.grafana.com/gpg.key"
    )
    """Where the host gets the key that signs the repository."""

    key_file: Annotated[str, AfterValidator(_file_here)] = ""
    """A file with that key on the machine that deploys, instead of `key_url`; empty: none."""

    fingerprint: Annotated[str, Field(pattern=r"^[0-9A-F]{40}$")] = "B53AE77BADB630A683046005963FA27710458545"
    """The key's fingerprint, 40 hexadecimal digits. No other key is trusted, even from the same file."""


class GrafanaSettings(Section):
    """Grafana, on the `monitoring` hosts: docs/dashboards.md."""

    enabled: bool = True
    """Whether it is installed. If you switch it off later, an installed Grafana stays as it is."""

    port: Port = 3000
    """Its port on loopback."""

    https_port: Port = 3443
    """The port at which nginx of a CDN host serves it, over HTTPS only. A monitoring host without the CDN's
    nginx has only the port on loopback."""

    domain: Annotated[str, Field(pattern=r"^([A-Za-z0-9.-]+)?$")] = ""
    """The name by which you reach it; empty: the first of `nginx.server_names`, otherwise the address of the
    host."""

    allowed: list[Network] = Field(default_factory=list)
    """Addresses and networks that may reach it, such as your office's. The host itself and the private
    addresses of all hosts always may; all others may not."""

    memory_max: Memory = "512mb"
    """Memory limit: beyond it the kernel kills Grafana and systemd restarts it, so that enough is left for
    the pictures."""

    price_per_gb: Annotated[float, Field(ge=0, le=1000)] = 0.05
    """Price of a gigabyte of traffic, in your currency (0 to 1000): the dashboards show the savings in money,
    too."""

    repository: GrafanaRepository = GrafanaRepository()
