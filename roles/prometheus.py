"""Prometheus, which asks them all."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from pyinfra import host
from pyinfra.api import Host, deploy
from pyinfra.operations import apt

from bitrix_cdn.engine.files import rendered, tree
from bitrix_cdn.engine.services import running
from bitrix_cdn.settings import Settings
from roles.exporters import drop_in, listens, probe_picture
from roles.watchers import LOOPBACK, asked_at, bracketed, everybody, members, reloads

CONFIG = "/etc/prometheus/prometheus.yml"


@dataclass(frozen=True)
class Target:
    """What Prometheus asks, and as what it files the answers."""

    address: str
    labels: dict[str, str] = field(default_factory=dict)


@deploy("Prometheus")
def prometheus(settings: Settings) -> None:
    own = settings.monitoring.prometheus
    files = {
        file.path: file
        for file in rendered(
            "prometheus",
            settings=settings,
            prometheus=own,
            memory_goal_mib=mebibytes(own.memory_max) * 4 // 5,
            jobs=jobs(settings),
            probes=probes(settings),
            balanced=bool(members("balancer")),
            shield=members("cdn")[0].name,
            blackbox_port=settings.monitoring.exporters.blackbox_port,
            alertmanager_port=settings.monitoring.alertmanager.port,
        )
    }
    unit = files.pop(drop_in("prometheus"))
    # Before the package, which starts the service: it never listens where it shouldn't.
    tree(name="Write Prometheus' sandbox", files=[unit], root="/etc/systemd")
    apt.packages(name="Install Prometheus", packages=["prometheus"], no_recommends=True)
    tree(
        name="Write whom it asks, if it agrees",
        files=list(files.values()),
        root="/etc/prometheus",
        check=f"promtool check config {CONFIG}",
    )
    running(
        name="Run Prometheus",
        unit="prometheus.service",
        start=[unit.path],
        reload=list(files),
        ready=listens(own.port),
        told=reloads("prometheus", own.port),
    )


def jobs(settings: Settings) -> dict[str, list[Target]]:
    """The targets of each job, as docs/monitoring.md lists them."""
    ports = settings.monitoring.exporters
    cdn, front = members("cdn"), members("balancer")
    serving = [*cdn, *members("edge")]

    def targets(hosts: Iterable[Host], port: int, **labels: str) -> list[Target]:
        return [
            Target(f"{bracketed(asked_at(one, settings))}:{port}", {"host": one.name, **labels})
            for one in hosts
        ]

    monitoring = settings.monitoring
    return {
        "node": targets(everybody(), ports.node_port),
        "edge": targets(serving, ports.edge_port),
        "nginx": targets(serving, ports.nginx_port),
        "varnish": targets(serving, ports.varnish_port),
        "redis": [
            *targets(cdn, ports.redis_cache_port, redis="cache"),
            *targets(cdn, ports.redis_queue_port, redis="queue"),
        ],
        "converter": targets(cdn, settings.converter.metrics.port),
        **({"haproxy": targets(front, ports.haproxy_port)} if front else {}),
        "prometheus": [Target(f"{LOOPBACK}:{monitoring.prometheus.port}", {"host": host.name})],
        "alertmanager": [Target(f"{LOOPBACK}:{monitoring.alertmanager.port}", {"host": host.name})],
    }


def probes(settings: Settings) -> list[Target]:
    """What is asked for as a visitor does; the module says how, see blackbox.yml."""
    wanted = settings.monitoring.exporters
    own = probe_picture(settings).removeprefix(settings.cdn.root)
    tls = settings.tls
    scheme, port = ("https", tls.port) if tls.enabled else ("http", settings.nginx.http_port)
    found = []
    # Behind a balancer, edges are none of a visitor's business.
    for one in [*members("cdn"), *(members("balancer") or members("edge"))]:
        edge = f"{bracketed(one.data.address)}:{port}"

        def probe(address: str, what: str, module: str, name: str = one.name) -> Target:
            return Target(address, {"host": name, "probe": what, "__param_module": module})

        found += [
            probe(f"{scheme}://{edge}{own}", "webp", "picture_webp"),
            probe(f"{scheme}://{edge}{own}", "original", "picture_original"),
            *(probe(f"{scheme}://{edge}{path}", "picture", "picture") for path in wanted.probe_pictures),
        ]
        if tls.enabled:
            found.append(probe(edge, "tls", "certificate"))
    if wanted.probe_site:
        [site] = members("bitrix")
        found.append(
            Target(wanted.probe_site, {"host": site.name, "probe": "site", "__param_module": "site"})
        )
    return found


def mebibytes(memory: str) -> int:
    """A setting such as `1gb` in MiB."""
    return int(memory[:-2]) * {"kb": 1 << 10, "mb": 1 << 20, "gb": 1 << 30}[memory[-2:]] >> 20
