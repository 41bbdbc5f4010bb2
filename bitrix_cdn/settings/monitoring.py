"""Settings of the monitoring: what is scraped, how often, and how long samples are kept."""

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
    """Seconds (5 to 300) between two scrapes of a target, and between two evaluations of the rules."""

    timeout_s: Annotated[int, Field(ge=1, le=300)] = 10
    """Seconds (1 to 300) that a target has to answer; no more than `interval_s`."""

    retention_days: Annotated[int, Field(ge=1, le=3650)] = 30
    """Days (1 to 3650) that samples are kept."""

    retention_size: Memory = "4gb"
    """Size on disk at which the oldest samples are removed, whatever their age. The write-ahead log of the
    latest samples takes some hundred MB more at most."""

    memory_max: Memory = "1gb"
    """Memory limit: beyond it the kernel kills Prometheus and systemd restarts it, so that enough is left for
    the pictures."""

    @model_validator(mode="after")
    def _answered_in_time(self) -> Self:
        if self.timeout_s > self.interval_s:
            raise ValueError(f"timeout_s {self.timeout_s} is more than interval_s {self.interval_s}")
        return self


class ExporterSettings(Section):
    """The exporters that Prometheus scrapes. On a host that only itself scrapes, all listen on loopback;
    otherwise they listen on the host's address, and the host refuses their ports to all but the monitoring
    hosts."""

    node_port: Port = 9100
    """Port of node_exporter, on every host: CPU, memory, disks, network, failed units, mounts."""

    edge_port: Port = 3903
    """Port of mtail, which counts the answers to visitors from nginx's access log."""

    nginx_port: Port = 9113
    """Port of nginx's exporter: connections."""

    varnish_port: Port = 9131
    """Port of Varnish's exporter."""

    redis_cache_port: Port = 9121
    """Port of the exporter of the Redis instance for statistics."""

    redis_queue_port: Port = 9122
    """Port of the exporter of the Redis instance for the queue."""

    haproxy_port: Port = 8405
    """Port of HAProxy's metrics, on the balancer."""

    blackbox_port: Port = 9115
    """Port of blackbox_exporter, which requests pictures as a visitor does, on the monitoring hosts; always
    on loopback."""

    probe_renewal_s: Annotated[int, Field(ge=60, le=86_400)] = 300
    """Seconds (60 to 86400) after which the probe picture is written again, without its variant. When it
    comes as WebP again, all stages work, from the write to the visitor."""

    probe_pictures: list[Annotated[str, Field(pattern=r"^/upload/[A-Za-z0-9/._~%-]+$")]] = Field(
        default_factory=list
    )
    """Paths of further pictures to probe, encoded as in an address, such as `/upload/iblock/1a2/logo.png`.
    The answer must be an image of any format."""

    probe_site: Url = ""
    """A page of the site to probe as well, such as `https://shop.example.com/`; empty: none."""

    tls_verify: bool = True
    """Whether the certificate must be signed by an authority that Debian trusts. Switch this off if only a
    proxy in front trusts it, as Cloudflare does its origin certificates. A self-signed certificate is never
    verified."""

    memory_max: Memory = "128mb"
    """Memory limit of each exporter: beyond it the kernel kills the exporter and systemd restarts it."""

    allowed: list[Network] = Field(default_factory=list)
    """Addresses and networks besides the monitoring hosts that may scrape the exporters, such as those of
    another Prometheus of yours. It matters only if an exporter listens on the host's address."""

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
    """Limits of the logs on the CDN host's disk."""

    journal_size: Memory = "1gb"
    """Size at which the oldest entries of the journal are removed."""

    journal_days: Annotated[int, Field(ge=1, le=3650)] = 30
    """Days (1 to 3650) after which entries of the journal are removed."""

    nginx_size: Memory = "200mb"
    """Size at which a log of nginx is rotated before its day is over; checked each hour."""

    nginx_count: Annotated[int, Field(ge=1, le=365)] = 14
    """Rotated logs (1 to 365) that are kept, all but the latest compressed."""


class MonitoringSettings(Section):
    """The monitoring: its services on the `monitoring` hosts, and the exporters on the others."""

    prometheus: PrometheusSettings = PrometheusSettings()
    exporters: ExporterSettings = ExporterSettings()
    alertmanager: AlertmanagerSettings = AlertmanagerSettings()
    levels: LevelSettings = LevelSettings()
    language: Literal["en", "ru"] = "en"
    """Language of alerts, of the messages about them and of the runbooks that they link to: English (`en`) or
    Russian (`ru`)."""

    grafana: GrafanaSettings = GrafanaSettings()
    logs: LogSettings = LogSettings()

    @property
    def runbooks(self) -> str:
        """The folder of the runbooks in that language: a path in this repository, or its address."""
        folder = "docs/ru/runbooks" if self.language == "ru" else "docs/runbooks"
        return f"{self.alertmanager.runbooks_url}{folder}"
