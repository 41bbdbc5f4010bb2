"""Prometheus, which scrapes all exporters."""

from __future__ import annotations

from dataclasses import dataclass, field

from pyinfra import host
from pyinfra.api import deploy
from pyinfra.operations import apt

from bitrix_cdn.engine.files import rendered, tree
from bitrix_cdn.engine.footprint import Footprint, Place, Port
from bitrix_cdn.engine.services import running
from bitrix_cdn.settings import Settings
from bitrix_cdn.settings.types import mebibytes
from roles.exporters import drop_in, listens, probe_picture
from roles.footprints import place_of, ports
from roles.topology import BEHIND, LOOPBACK, asked_at, bracketed, everybody, members, reloads

CONFIG = "/etc/prometheus/prometheus.yml"


@dataclass(frozen=True)
class Target:
    """What Prometheus asks, and as what it files the answers."""

    address: str
    labels: dict[str, str] = field(default_factory=dict)


PACKAGES = ("prometheus",)


def footprint(place: Place) -> Footprint:
    """What this role takes of a host."""
    if not place.among("monitoring"):
        return Footprint()
    port = place.settings.monitoring.prometheus.port
    ports = (Port(port, "host", "Prometheus", page=True, gate=("/",), job="prometheus"),)
    return Footprint(ports, trees=("/etc/prometheus/rules",), saved=("/etc/prometheus",), packages=PACKAGES)


@deploy("Prometheus")
def prometheus(settings: Settings) -> None:
    own = settings.monitoring.prometheus
    files = {
        file.path: file
        for file in rendered(
            "prometheus",
            settings=settings,
            prometheus=own,
            behind=BEHIND,
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
    tree(name="Write Prometheus' systemd sandbox", files=[unit], root="/etc/systemd")
    apt.packages(name="Install Prometheus", packages=[*PACKAGES], no_recommends=True)
    tree(
        name="Write prometheus.yml (checked by promtool)",
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
    found: dict[str, list[Target]] = {}
    for one in everybody():
        for port in ports(place_of(one, settings)):
            # On loopback, each asks its own.
            if port.job and (port.reach != "host" or one.name == host.name):
                address = LOOPBACK if port.reach == "host" else bracketed(asked_at(one, settings))
                target = Target(f"{address}:{port.number}", {"host": one.name, **port.labels})
                found.setdefault(port.job, []).append(target)
    return found


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
