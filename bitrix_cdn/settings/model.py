"""Every setting of a deployment: name, type, default and meaning.

Units are part of the meaning or of the type. `docs/settings.md` is generated from this module by
`bitrix-cdn docs`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)
from webp_converter.config import Config as ConverterSettings

from bitrix_cdn.settings.backup import BackupSettings
from bitrix_cdn.settings.baseline import BaselineSettings
from bitrix_cdn.settings.drift import DriftSettings
from bitrix_cdn.settings.monitoring import MonitoringSettings
from bitrix_cdn.settings.types import AbsolutePath, Account, Memory, Network, Port, Section, SettingsError
from host_agent.redis import password_file

__all__ = ["HostEntry", "Section", "Settings", "SettingsError"]


def _mount_of_upload(path: str) -> str:
    # nginx finds an original below the directory above it, by the path of the request; and that directory is
    # hidden from the converter, so it must not be the root.
    if PurePosixPath(path).name != "upload" or len(PurePosixPath(path).parts) < 3:
        raise ValueError("a path such as /mnt/bitrix/upload is allowed, which ends in /upload")
    return path


class _Tree(Section):
    root: AbsolutePath

    @property
    def upload(self) -> str:
        return f"{self.root}/upload"

    @property
    def resize_cache(self) -> str:
        return f"{self.upload}/resize_cache"


class SiteSettings(_Tree):
    """The Bitrix site, as it stands on the `bitrix` host."""

    root: AbsolutePath = "/var/www/bitrix"
    """The site's document root. `upload/` and `upload/resize_cache/` are below it."""

    user: Account = "www-data"
    """The account that PHP runs as; it owns the mounted pictures as the site sees them."""

    group: Account = "www-data"
    """That account's group; the reader of the originals becomes a member."""


class CdnSettings(_Tree):
    """The tree of pictures on the `cdn` host."""

    root: AbsolutePath = "/var/www/cdn"
    """nginx's document root. All below it must be on one file system, because publishing is a rename."""

    originals: Annotated[AbsolutePath, AfterValidator(_mount_of_upload)] = "/mnt/bitrix/upload"
    """Where the site's originals are mounted, read-only; a path that ends in `/upload`. The directory above
    it is hidden from the converter, so it must hold nothing but mounts."""

    variants: AbsolutePath = "/var/cache/webp"
    """Directory of the variants and verdicts of the mounted originals, as that mount is read-only."""

    @property
    def originals_parent(self) -> str:
        return str(PurePosixPath(self.originals).parent)


class ReleaseSettings(Section):
    """The converter's releases on the `cdn` host."""

    keep: Annotated[int, Field(ge=2, le=50)] = 3
    """Releases (2 to 50) kept on the host, the current one included: you can go back to these. Each takes
    about 140 MB."""

    healthy_within_s: Annotated[int, Field(ge=3, le=600)] = 30
    """Seconds (3 to 600) after its start within which a release must be healthy; otherwise the deploy undoes
    it. A running scan doesn't count against it."""


class SftpSettings(Section):
    """The two sftp accounts through which the hosts reach each other's files."""

    cache_account: Account = "bitrix-cache"
    """On the `cdn` host: writes `resize_cache/`. Its uid is that of `www-data`, which thus owns the files."""

    originals_account: Account = "cdn-originals"
    """On the `bitrix` host: reads `upload/`; the SSH server allows it nothing else."""

    export: AbsolutePath = "/srv/originals"
    """On the `bitrix` host: the root-owned chroot that shows `upload/` read-only."""

    sentinel: Annotated[str, Field(pattern=r"^\.[A-Za-z0-9][A-Za-z0-9._-]*$")] = ".bitrix-cdn"
    """Name of the empty file in the site's `upload/` that proves to the CDN host that it sees the mount. Only
    root can read or remove it, and the site never serves it. Such a file also lies in the directories of
    `upload/` that aren't exported, so that Bitrix doesn't remove them."""

    alive_interval: Annotated[int, Field(ge=1, le=3600)] = 5
    """Seconds between the server's keep-alive messages to a silent client; the second one without an answer
    ends the session. A half-written picture stays open that long after its writer has vanished."""


class MountSettings(Section):
    """The two sshfs mounts."""

    connect_timeout: Annotated[int, Field(ge=1, le=60)] = 5
    """Seconds to wait for the other host to answer when connecting."""

    alive_interval: Annotated[int, Field(ge=1, le=60)] = 1
    """Seconds between two keep-alive messages to the other host."""

    alive_count: Annotated[int, Field(ge=1, le=60)] = 2
    """Keep-alive messages without an answer after which the guard unmounts, so that no access waits longer
    than `alive_interval` times (`alive_count` + 1) seconds."""

    probe_interval: Annotated[float, Field(ge=0.5, le=60)] = 2.0
    """Seconds between two probes. A probe asks through the mount for the free space of the other host, which
    finds faults that a keep-alive message doesn't, such as a disk that hangs."""

    probe_timeout: Annotated[float, Field(ge=0.5, le=60)] = 2.5
    """Seconds after which the guard unmounts if a probe has no answer. No access waits on the mount longer
    than this and `probe_interval` together."""

    retry_min: Annotated[float, Field(ge=0.05, le=60)] = 0.2
    """Seconds before the first attempt to mount again; doubled before each further one, and varied at random
    by up to a quarter."""

    retry_max: Annotated[float, Field(ge=0.05, le=600)] = 2.0
    """The longest such pause, in seconds."""

    min_free_mb: Annotated[int, Field(ge=0, le=10_000_000)] = 256
    """Free megabytes on the CDN host below which the site writes into its own spool, until twice as many are
    free; 0: never."""

    push_workers: Annotated[int, Field(ge=1, le=64)] = 8
    """Files of the spool that are pushed at the same time after an outage."""

    push_first: Annotated[float, Field(ge=0, le=3600)] = 5.0
    """Seconds for pushing before the guard mounts again over the spool. Files left then are pushed later; if
    one of them is requested before, the shop makes it again."""

    push_largest_mb: Annotated[int, Field(ge=1, le=10_000_000)] = 1000
    """Megabytes of the largest file of the spool that is pushed, holes included. A larger one stays in the
    spool, and the log names it."""

    metrics: Annotated[str, Field(pattern=r"^(/[A-Za-z0-9._+-]+)*$")] = "/var/lib/prometheus/node-exporter"
    """Directory of node_exporter's textfile collector; empty: no metrics."""

    @model_validator(mode="after")
    def _pauses_in_order(self) -> Self:
        if self.retry_min > self.retry_max:
            raise ValueError(f"retry_min {self.retry_min:g} is more than retry_max {self.retry_max:g}")
        return self


class SshdSettings(Section):
    """Hardening of the SSH server on both hosts."""

    password_authentication: bool = False
    """Whether passwords are accepted. Must stay on when the inventory itself logs in with one."""

    root_login: Annotated[str, Field(pattern="^(no|prohibit-password|yes)$")] = "prohibit-password"
    """`PermitRootLogin`: `no`, `prohibit-password` or `yes`. `no` needs another operator's account."""

    forwarding: Literal["no", "pages", "yes"] = "pages"
    """What operators may reach through a tunnel (`ssh -L`). `no`: nothing. `pages`: the project's pages on
    loopback, which are Prometheus, Alertmanager, Grafana and the status page. `yes`: whatever sshd allows by
    itself. On the site's host, whose users may need other tunnels, `pages` leaves sshd as it is."""

    allowed_users: list[Annotated[str, Field(pattern=r"^[a-z_][a-z0-9_-]*$")]] = Field(default_factory=list)
    """`AllowUsers`: the accounts that may log in, besides the one that deploys and those of the file
    transfer. Empty: sshd lets in whoever has a key."""

    confirm_timeout: Annotated[int, Field(ge=10, le=600)] = 60
    """Seconds that the host waits for a new connection of the operator after a change, before it undoes the
    change by itself."""


class RedisSettings(Section):
    """The two Redis instances of the `cdn` host. Both listen on loopback and a Unix socket only, and require
    a password from every client."""

    cache_port: Port = 6379
    """TCP port of the instance that may evict keys: statistics."""

    cache_maxmemory: Memory = "512mb"
    """Memory at which the cache instance evicts its least recently used keys."""

    queue_port: Port = 6380
    """TCP port of the instance that never evicts keys: the queue."""

    queue_maxmemory: Memory = "256mb"
    """Memory at which the queue instance refuses new jobs; the next scan finds their pictures."""


class NginxSettings(Section):
    """What visitors of the `cdn` host meet."""

    server_names: list[Annotated[str, Field(pattern=r"^[A-Za-z0-9.*_-]+$")]] = Field(
        default=["_"], min_length=1
    )
    """Names that the server answers to; `_` answers to any."""

    http_port: Port = 80
    """The port for HTTP."""

    status_port: Port = 8082
    """The port on loopback where the exporter reads nginx's counters, at `/status`."""

    requests_per_second: Annotated[int, Field(ge=1, le=100_000)] = 200
    """Requests a second (1 to 100000) that one client's address may make on average; others get 429."""

    burst: Annotated[int, Field(ge=0, le=100_000)] = 1000
    """Requests (0 to 100000) that it may make beyond that rate: a page requests its pictures at once."""

    connections: Annotated[int, Field(ge=1, le=65_535)] = 100
    """Connections (1 to 65535) that one client's address may have open; with HTTP/2, requests in progress."""

    unlimited: list[Network] = Field(default_factory=list)
    """Addresses and networks without these limits, such as your monitoring's."""

    proxies: list[Network] = Field(default_factory=list)
    """Addresses and networks of proxies in front, such as Cloudflare's. They send the client's address."""

    real_ip_header: Literal["X-Forwarded-For", "X-Real-IP", "CF-Connecting-IP"] = "X-Forwarded-For"
    """The header in which those proxies send the client's address."""


class TlsSettings(Section):
    """HTTPS for the visitors of the `cdn` host."""

    mode: Literal["off", "self-signed", "files", "acme"] = "off"
    """`off`: no HTTPS. `self-signed`: made on the host, for trials. `files`: you keep `certificate` and `key`
    on the host. `acme`: Debian's certbot gets and renews a certificate for `nginx.server_names`."""

    port: Port = 443
    """The port for HTTPS."""

    certificate: AbsolutePath | None = None
    """With `files`: the certificate with its chain, PEM, on the CDN host. nginx loads a changed one at the
    next deploy, or by `systemctl reload nginx`."""

    key: AbsolutePath | None = None
    """With `files`: its private key, PEM, on the CDN host."""

    acme_email: Annotated[str, Field(pattern=r"^([^@\s'\"\\]+@[A-Za-z0-9.-]+)?$")] = ""
    """With `acme`: where the authority writes when renewals fail; empty: nowhere."""

    acme_directory: Annotated[str, Field(pattern=r"^https://[A-Za-z0-9./:_-]+$")] = (
        "https://acme-v02.api.letsencrypt.org/directory"
    )
    """With `acme`: the authority. By default Let's Encrypt, whose terms you then accept."""

    redirect: bool = True
    """Whether HTTP answers with a redirect to HTTPS. Off, both serve the pictures."""

    hsts_seconds: Annotated[int, Field(ge=0, le=63_072_000)] = 0
    """Seconds (0 to 63072000) for which browsers refuse plain HTTP to this name; 0: the header is not sent.
    You can't take it back before that time is over."""

    http3: bool = True
    """Whether HTTP/3 is offered where Debian's nginx has it (Debian 13): UDP on the same port."""

    @property
    def enabled(self) -> bool:
        return self.mode != "off"

    @property
    def redirects(self) -> bool:
        return self.enabled and self.redirect

    @model_validator(mode="after")
    def _has_files(self) -> Self:
        given = [path for path in (self.certificate, self.key) if path is not None]
        if len(given) != (2 if self.mode == "files" else 0):
            raise ValueError('mode "files" needs certificate and key, and no other mode takes them')
        return self


class OriginalsSettings(Section):
    """The nginx on the `cdn` host that alone reads the mount of the originals."""

    port: Port = 8081
    """Its port on loopback."""

    workers: Annotated[int, Field(ge=1, le=128)] = 8
    """Processes (1 to 128). The site's host can block each of them for seconds."""


class VarnishSettings(Section):
    """The cache of the originals and their variants on the `cdn` host. Its ports, `absent_s` and `stale_days`
    hold for the cache of an edge as well."""

    port: Port = 6081
    """Its port on loopback."""

    console_port: Port = 6082
    """The port on loopback of its console, which is protected by a secret."""

    memory: Memory = "256mb"
    """Memory for cached pictures; Varnish itself takes some MB more."""

    fresh_s: Annotated[int, Field(ge=5, le=86_400)] = 10
    """Seconds (5 to 86400) after which a requested picture is compared with the site's; for as many more,
    visitors still get the old copy. With 10, a replaced original is right everywhere within a minute."""

    pending_s: Annotated[int, Field(ge=1, le=3600)] = 10
    """The same (1 to 3600) for an original whose variant is pending. A published variant ends it at once."""

    absent_s: Annotated[int, Field(ge=1, le=3600)] = 5
    """The same (1 to 3600) for a picture that doesn't exist."""

    stale_days: Annotated[int, Field(ge=1, le=7)] = 7
    """Days (1 to 7) that a cached picture is served while the site's host is down. 7 at most, because
    eviction uses the time of a variant's last read, and a cached answer reads no file."""

    first_byte_s: Annotated[int, Field(ge=1, le=60)] = 3
    """Seconds (1 to 60) that a visitor waits for an original; then the answer is an old copy, or 503."""


class EdgesSettings(Section):
    """The `edge` hosts, if there are any, and their connection to the `cdn` host: docs/edges.md."""

    shield_port: Port = 8083
    """The port on the CDN host's private address for edges and the balancer; closed to others."""

    fresh_s: Annotated[int, Field(ge=2, le=3600)] = 10
    """Seconds (2 to 3600) that an edge may lag behind the CDN host. An older copy is compared with the CDN
    host's before it is served."""

    pending_s: Annotated[int, Field(ge=1, le=60)] = 10
    """The same (1 to 60) for a picture whose variant is pending."""

    memory: Memory = "512mb"
    """Memory of an edge for cached pictures, resized ones included; Varnish itself takes some MB more."""

    allowed: list[Network] = Field(default_factory=list)
    """Addresses and networks besides the balancer's and the monitoring hosts' that may request pictures from
    edges directly, such as your own for trials. Without a balancer edges are open to everybody."""


class BalancerSettings(Section):
    """HAProxy on the `balancer` host, if there is one, in front of the edges: docs/edges.md."""

    connections: Annotated[int, Field(ge=100, le=1_000_000)] = 4000
    """Connections of visitors (100 to 1000000) that it accepts at the same time; further ones wait."""

    retries: Annotated[int, Field(ge=0, le=10)] = 3
    """How often (0 to 10) a GET or HEAD that an edge didn't answer, or answered with 502, 503 or 504, is sent
    to another edge."""

    drain_s: Annotated[int, Field(ge=1, le=86_400)] = 600
    """Seconds (1 to 86400) after a reload for which the old process may finish its connections; then it
    ends."""


class LabSiteSettings(Section):
    """The small PHP site that stands in for Bitrix in the lab."""

    enabled: bool = False
    """Install it. Never on a host that has a site."""

    cdn_url: Annotated[str, Field(pattern=r"^(https?://[A-Za-z0-9.:\[\]-]+)?$")] = ""
    """The beginning of the addresses of pictures, such as `http://192.0.2.20`; empty: the site itself."""


class HostEntry(BaseModel):
    """One host of the inventory: its address, and how the operator reaches it."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    address: str
    """Address (or name) by which the *other* hosts reach this one; private where there is such a network."""

    ssh_hostname: str | None = None
    """Address by which the operator reaches it; by default the host's name in the inventory."""

    ssh_port: Port = 22
    """Port of its SSH server, for the operator and for the other hosts."""

    ssh_user: str = "root"
    """The operator's account: root, or one that may use sudo."""

    ssh_key: str | None = None
    """Private key file; by default the operator's agent and usual keys are tried."""

    ssh_key_password: str | None = None
    """Passphrase of that key file."""

    ssh_password: str | None = None
    """Password, if no key is installed yet."""

    ssh_config_file: str | None = None
    """An OpenSSH client configuration to use instead of `~/.ssh/config`."""

    ssh_known_hosts_file: str | None = None
    """File with the hosts' keys; by default `~/.ssh/known_hosts`."""

    ssh_strict_host_key_checking: Annotated[str, Field(pattern="^(yes|accept-new)$")] = "accept-new"
    """`yes`: the host's key must be known. `accept-new`: a new host's key is accepted, and no other later."""

    sudo: bool = False
    """Run all commands through sudo; needed if `ssh_user` isn't root."""

    @field_validator("ssh_key", "ssh_config_file", "ssh_known_hosts_file")
    @classmethod
    def _there(cls, path: str | None) -> str | None:
        if path is not None and not Path(path).expanduser().is_file():
            raise ValueError("there is no such file on this machine")
        return path

    @field_validator("ssh_user")
    @classmethod
    def _account(cls, name: str) -> str:
        # ssh takes what begins with a dash for an option.
        if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.@-]*", name):
            raise ValueError("an account's name is allowed")
        return name

    @model_validator(mode="after")
    def _root_or_sudo(self) -> Self:
        if self.ssh_user != "root" and not self.sudo:
            raise ValueError(f"ssh_user {self.ssh_user!r} needs sudo: True (or log in as root)")
        return self


class Settings(Section):
    """A whole deployment, the same for all of its hosts."""

    site: SiteSettings = SiteSettings()
    cdn: CdnSettings = CdnSettings()
    sftp: SftpSettings = SftpSettings()
    mounts: MountSettings = MountSettings()
    sshd: SshdSettings = SshdSettings()
    baseline: BaselineSettings = BaselineSettings()
    redis: RedisSettings = RedisSettings()
    nginx: NginxSettings = NginxSettings()
    tls: TlsSettings = TlsSettings()
    originals: OriginalsSettings = OriginalsSettings()
    varnish: VarnishSettings = VarnishSettings()
    edges: EdgesSettings = EdgesSettings()
    balancer: BalancerSettings = BalancerSettings()
    converter: ConverterSettings = ConverterSettings()
    releases: ReleaseSettings = ReleaseSettings()
    monitoring: MonitoringSettings = MonitoringSettings()
    backup: BackupSettings = BackupSettings()
    drift: DriftSettings = DriftSettings()
    lab_site: LabSiteSettings = LabSiteSettings()

    @model_validator(mode="after")
    def _acme_has_names(self) -> Self:
        if self.tls.mode == "acme" and any(set(name) & set("_*") for name in self.nginx.server_names):
            raise ValueError('tls.mode "acme" needs the names themselves in nginx.server_names')
        return self

    @model_validator(mode="after")
    def _a_closed_shop_has_ports(self) -> Self:
        if self.baseline.shop and self.baseline.closed and self.drift.site_ports is None:
            raise ValueError("baseline.shop with baseline.closed needs drift.site_ports, such as 80/tcp")
        return self

    @model_validator(mode="before")
    @classmethod
    def _converter_follows_cdn(cls, given: Any) -> Any:
        """The converter works in the trees of `cdn` and asks the ports of the others, unless told not to."""
        if not isinstance(given, Mapping):
            return given
        try:
            cdn = CdnSettings.model_validate(given.get("cdn", {}))
            nginx = NginxSettings.model_validate(given.get("nginx", {}))
            tls = TlsSettings.model_validate(given.get("tls", {}))
            ports = (
                OriginalsSettings.model_validate(given.get("originals", {})).port,
                VarnishSettings.model_validate(given.get("varnish", {})).port,
            )
        except ValidationError:
            return given  # reported where it stands
        places = {
            "store": {"root": cdn.resize_cache, "temporary": f"{cdn.root}/.webp-converter"},
            "originals": {
                "variants": f"{cdn.variants}/upload",
                "temporary": f"{cdn.variants}/.webp-converter",
                "url": f"http://127.0.0.1:{ports[0]}",
                "purge_url": f"http://127.0.0.1:{ports[1]}",
            },
            "delivery": {
                "url": f"https://127.0.0.1:{tls.port}"
                if tls.redirects
                else f"http://127.0.0.1:{nginx.http_port}"
            },
        }
        converter = given.get("converter", {})
        if isinstance(converter, Mapping):
            for section in ("queue", "cache"):
                own = converter.get(section, {})
                # Of another Redis, the settings say as whom it is asked.
                if isinstance(own, Mapping) and "url" not in own:
                    password = str(password_file(section, "converter"))
                    places[section] = {"user": "converter", "password_file": password}
            merged = {section: {**place, **converter.get(section, {})} for section, place in places.items()}
            return {**given, "converter": {**converter, **merged}}
        return given
