"""Settings of the monitoring: what is asked, how often, and how long the answers are kept."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from bitrix_cdn.settings.alerting import AlertmanagerSettings, LevelSettings
from bitrix_cdn.settings.grafana import GrafanaSettings
from bitrix_cdn.settings.types import Memory, Network, Port, Section

Url = Annotated[str, Field(pattern=r"^(https?://[A-Za-z0-9.:\[\]-]+(/[A-Za-z0-9/._~%?&=-]*)?)?$")]


class PrometheusSettings(Section):
    """Prometheus, on the `monitoring` hosts. It listens on loopback only: docs/monitoring.md."""

    port: Port = 9090
    """Its port on loopback."""

    interval_s: Annotated[int, Field(ge=5, le=300)] = 15
    """Seconds (5 to 300) between two questions to the same target, and between two looks at the rules."""

    timeout_s: Annotated[int, Field(ge=1, le=300)] = 10
    """Seconds (1 to 300) that a target has to answer; no more than `interval_s`."""

    retention_days: Annotated[int, Field(ge=1, le=3650)] = 30
    """Days (1 to 3650) that samples are kept."""

    retention_size: Memory = "4gb"
    """Size on disk at which the oldest samples go, however young. What was received last lies beside it, in a
    log of some hundred MB at most."""

    memory_max: Memory = "1gb"
    """Memory at which the kernel ends it, and systemd restarts it: it must not take it from the pictures."""

    @model_validator(mode="after")
    def _answered_in_time(self) -> Self:
        if self.timeout_s > self.interval_s:
            raise ValueError(f"timeout_s {self.timeout_s} is more than interval_s {self.interval_s}")
        return self


class ExporterSettings(Section):
    """What tells Prometheus how the parts do. On a host that only itself asks, all of it listens on
    loopback; else on the host's address, and the host refuses these ports to all but the monitoring
    hosts."""

    node_port: Port = 9100
    """The host itself: CPU, memory, disks, network, units that failed, mounts. On every host."""

    edge_port: Port = 3903
    """What visitors got, counted by mtail from nginx's access log."""

    nginx_port: Port = 9113
    """nginx's connections."""

    varnish_port: Port = 9131
    """Varnish."""

    redis_cache_port: Port = 9121
    """The Redis instance that may forget."""

    redis_queue_port: Port = 9122
    """The Redis instance of the queue."""

    haproxy_port: Port = 8405
    """HAProxy, on the balancer."""

    blackbox_port: Port = 9115
    """What asks for pictures as a visitor does, from the monitoring hosts; always on loopback."""

    probe_renewal_s: Annotated[int, Field(ge=60, le=86_400)] = 300
    """Seconds (60 to 86400) after which the picture that is asked for is renewed, without its variant: that
    it comes as WebP again proves the whole way, from the write to the visitor."""

    probe_pictures: list[Annotated[str, Field(pattern=r"^/upload/[A-Za-z0-9/._~%-]+$")]] = Field(
        default_factory=list
    )
    """Paths of further pictures to ask for, encoded as in an address, such as
    `/upload/iblock/1a2/logo.png`. Whatever the format, it must be an image."""

    probe_site: Url = ""
    """A page of the site to ask for as well, such as `https://shop.example.com/`; empty: none."""

    tls_verify: bool = True
    """Whether the probe of the certificate wants it signed by an authority that Debian trusts. To be switched
    off where only a proxy in front trusts it, such as Cloudflare its origin certificates. A self-signed one
    is never verified."""

    memory_max: Memory = "128mb"
    """Memory at which the kernel ends an exporter, and systemd restarts it; for each of them."""

    allowed: list[Network] = Field(default_factory=list)
    """Addresses and networks besides the monitoring hosts' own that may ask the exporters, such as those of
    another Prometheus of yours. It only matters where an exporter listens on the host's address."""

    @model_validator(mode="after")
    def _ports_differ(self) -> Self:
        ports: dict[int, str] = {}
        for name in type(self).model_fields:
            if name.endswith("_port"):
                other = ports.setdefault(getattr(self, name), name)
                if other != name:
                    raise ValueError(f"{name} is {other}, {getattr(self, name)}; each needs its own port")
        return self


class LogSettings(Section):
    """What logs may take of the CDN host's disk."""

    journal_size: Memory = "1gb"
    """Size at which the oldest entries of the journal go."""

    journal_days: Annotated[int, Field(ge=1, le=3650)] = 30
    """Days (1 to 3650) after which entries of the journal go."""

    nginx_size: Memory = "200mb"
    """Size at which a log of nginx's is rotated before its day is over; looked at each hour."""

    nginx_count: Annotated[int, Field(ge=1, le=365)] = 14
    """Rotated logs (1 to 365) that are kept, all but the latest compressed."""


class MonitoringSettings(Section):
    """What watches over all this, on the `monitoring` hosts, and what it asks on the others."""

    prometheus: PrometheusSettings = PrometheusSettings()
    exporters: ExporterSettings = ExporterSettings()
    alertmanager: AlertmanagerSettings = AlertmanagerSettings()
    levels: LevelSettings = LevelSettings()
    language: Literal["en", "ru"] = "en"
    """Language of alerts, of the messages about them and of the runbooks that they lead to: English (`en`) or
    Russian (`ru`)."""

    grafana: GrafanaSettings = GrafanaSettings()
    logs: LogSettings = LogSettings()

    @property
    def runbooks(self) -> str:
        """The folder of the runbooks in that language: a path in this repository, or its address."""
        folder = "docs/ru/runbooks" if self.language == "ru" else "docs/runbooks"
        return f"{self.alertmanager.runbooks_url}{folder}"
