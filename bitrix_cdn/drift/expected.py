"""What a host may have: what its roles bring there, the distribution's, and what the settings allow."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from bitrix_cdn.settings import Settings

# Made by packages that the roles install, where these don't declare it to systemd.
ACCOUNTS_OF_PACKAGES = frozenset(
    {
        *("_apt", "_chrony", "grafana", "haproxy", "messagebus", "mtail", "polkitd", "prometheus", "redis"),
        *("sshd", "systemd-coredump", "systemd-network", "systemd-resolve", "systemd-timesync"),
        *("varnish", "varnishlog", "vcache"),
    }
)

# What Debian's own services listen on: name resolution on loopback, DHCP, the clock.
DISTRIBUTION = ("53/tcp local", "53/udp local", "68/udp", "546/udp", "123/udp", "323/udp local")

# What the images of hosting providers have in the directories that we look at.
FILES_OF_PROVIDERS = ("/etc/sudoers.d/90-cloud-init-users", "/etc/ssh/sshd_config.d/50-cloud-init.conf")

LOOPBACK = ("127.0.0.1", "::1", "localhost")


@dataclass(frozen=True)
class Ports:
    """A range of ports that something may listen on."""

    first: int
    last: int
    protocol: str
    local: bool = False
    """On loopback only."""

    @classmethod
    def read(cls, text: str) -> Ports:
        """From a setting such as `25/tcp`, with `local` behind it where that's all."""
        listener, _, scope = text.partition(" ")
        ports, _, protocol = listener.partition("/")
        first, _, last = ports.partition("-")
        return cls(int(first), int(last or first), protocol, scope == "local")


@dataclass(frozen=True)
class Expected:
    """What a host may have."""

    ports: list[Ports] | None
    """None: its ports aren't judged."""
    accounts: frozenset[str]
    """Beside those that packages declare; they may log in if they are among `operators`."""
    operators: frozenset[str]
    """Accounts that may log in and be administrators."""
    strict: bool
    """Whether any other account is one too many."""
    keys: frozenset[str] | None
    """Fingerprints; None: keys aren't judged."""
    files: tuple[str, ...]
    """Patterns of paths."""
    trees: list[str] = field(default_factory=list)
    directories: list[str] = field(default_factory=list)
    """See :meth:`bitrix_cdn.drift.look.Look.command`."""
    units: frozenset[str] = frozenset()
    """Those that the deploy runs."""

    @property
    def udp(self) -> list[int]:
        """Single ports of UDP that are expected."""
        return [one.first for one in self.ports or [] if one.protocol == "udp" and one.first == one.last]


def expected(
    settings: Settings,
    groups: Collection[str],
    units: Iterable[str],
    *,
    ssh_user: str,
    ssh_port: int,
    asked: bool,
    edges: bool = False,
    balanced: bool = False,
    everything: bool = False,
) -> Expected:
    """What a host of these groups may have.

    :param units: those that the deploy runs there.
    :param asked: whether another host asks its exporters.
    :param edges: whether there are edges, which the CDN host feeds.
    :param balanced: whether visitors come to edges through a balancer, where TLS ends.
    :param everything: judge also what the settings leave alone.
    """
    own, shop, lab = settings.drift, "bitrix" in groups, settings.lab_site.enabled
    judged = not shop or own.site_ports is not None or everything
    allowed = (own.site_ports or []) if shop else own.ports
    ports = [
        *listeners(settings, groups, ssh_port=ssh_port, asked=asked, edges=edges, balanced=balanced),
        *map(Ports.read, allowed),
    ]
    strict = not shop or own.site_accounts is not None or everything
    administrators = {"root", ssh_user, *own.accounts, *((own.site_accounts or []) if shop else ())}
    keys = frozenset(own.keys) if own.keys is not None else frozenset() if everything else None
    units = frozenset(units)
    return Expected(
        ports=ports if judged else None,
        accounts=frozenset(accounts(settings, groups)),
        operators=frozenset(administrators),
        strict=strict,
        keys=keys,
        files=(*FILES_OF_PROVIDERS, *own.files),
        trees=trees(groups, lab_site=lab),
        directories=[
            *([] if shop else ["/etc/systemd/system"]),
            *(path for unit in sorted(units) for path in places(unit)),
        ],
        units=units,
    )


def listeners(
    settings: Settings,
    groups: Collection[str],
    *,
    ssh_port: int,
    asked: bool,
    edges: bool = False,
    balanced: bool = False,
) -> list[Ports]:
    """What the roles of these groups listen on, and the distribution; see :func:`expected`."""
    monitoring, exporters = settings.monitoring, settings.monitoring.exporters
    visitors: list[int] = [ssh_port]
    outside: list[int] = [exporters.node_port]  # on loopback too, unless another host asks
    inside: list[int] = []
    udp: list[int] = []
    if "bitrix" in groups and settings.lab_site.enabled:
        visitors += [80]
    if {"cdn", "edge", "balancer"} & set(groups):
        visitors += [settings.nginx.http_port]
        if settings.tls.enabled and not ("edge" in groups and balanced):
            visitors += [settings.tls.port]
            udp += [settings.tls.port] if settings.tls.http3 and "balancer" not in groups else []
    if "balancer" in groups:
        outside += [exporters.haproxy_port]
    if {"cdn", "edge"} & set(groups):
        outside += [exporters.edge_port, exporters.nginx_port, exporters.varnish_port]
        inside += [settings.nginx.status_port, settings.varnish.port, settings.varnish.console_port]
    if "cdn" in groups:
        visitors += [settings.edges.shield_port] if edges else []
        api, metrics = settings.converter.api, settings.converter.metrics
        (inside if api.address in LOOPBACK else visitors).append(api.port)
        (outside if metrics.address in LOOPBACK else visitors).append(metrics.port)
        outside += [exporters.redis_cache_port, exporters.redis_queue_port]
        inside += [settings.originals.port, settings.redis.cache_port, settings.redis.queue_port]
    if "monitoring" in groups:
        inside += [monitoring.prometheus.port, monitoring.alertmanager.port, exporters.blackbox_port]
        if monitoring.grafana.enabled:
            inside += [monitoring.grafana.port]
            visitors += [monitoring.grafana.https_port] if {"cdn", "edge"} & set(groups) else []
    return [
        *(Ports(port, port, "tcp") for port in visitors),
        *(Ports(port, port, "tcp", local=not asked) for port in outside),
        *(Ports(port, port, "tcp", local=True) for port in inside),
        *(Ports(port, port, "udp") for port in udp),
        *map(Ports.read, DISTRIBUTION),
    ]


def accounts(settings: Settings, groups: Collection[str]) -> set[str]:
    """Accounts that the roles of these groups add, or that the site runs as."""
    found = set(ACCOUNTS_OF_PACKAGES)
    if "cdn" in groups:
        found.add(settings.sftp.cache_account)
    if "bitrix" in groups:
        found |= {settings.sftp.originals_account, settings.site.user}
    if "monitoring" in groups:
        found.add("alertmanager")
    return found


def trees(groups: Collection[str], *, lab_site: bool) -> list[str]:
    """Directories in which every file is the project's, a package's, or one too many."""
    found = [
        "/etc/bitrix-cdn",
        "/etc/mount-guard",
        "/etc/ssh/authorized_keys.d",
        "/etc/ssh/sshd_config.d",
        "/etc/sudoers.d",
    ]
    if "bitrix" not in groups:
        found += ["/etc/cron.d", "/var/spool/cron/crontabs"]
    if {"cdn", "edge"} & set(groups) or lab_site:
        found += ["/etc/nginx/conf.d", "/etc/nginx/sites-enabled"]
    if {"cdn", "edge"} & set(groups):
        found += ["/etc/nginx-originals", "/etc/webp-converter", "/etc/mtail"]
    if "monitoring" in groups:
        found += ["/etc/prometheus/rules", "/etc/prometheus/alertmanager_templates"]
        found += ["/etc/grafana/provisioning", "/etc/grafana/dashboards"]
    return found


def places(unit: str) -> list[str]:
    """Where a unit could be replaced or added to, in an order of no meaning."""
    name, at, rest = unit.partition("@")
    names = [unit, f"{name}@.{rest.rpartition('.')[2]}"] if at else [unit]
    above = ("/etc/systemd/system", "/run/systemd/system", "/etc/systemd/system.control")
    return [f"{place}/{one}{end}" for place in above for one in names for end in ("", ".d")]
