"""HAProxy in front of the edges: it terminates TLS, and sends each picture to its edge."""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from dataclasses import dataclass

from pyinfra import host
from pyinfra.api import Host, deploy
from pyinfra.operations import apt

from bitrix_cdn.engine.certificates import joined_certificate, self_signed_certificate
from bitrix_cdn.engine.files import rendered, tree
from bitrix_cdn.engine.footprint import Footprint, Place, Port
from bitrix_cdn.engine.services import running
from bitrix_cdn.settings import Settings
from roles.exporters import drop_in, listens, visible_name
from roles.nginx import ERRORS, HEALTH
from roles.preflight import machine
from roles.topology import addresses_of, bracketed, listening_address, members

CONFIG = "/etc/haproxy/haproxy.cfg"
CERTIFICATE = "/etc/haproxy/tls/certificate.pem"
KEY = "/etc/haproxy/tls/key.pem"
PACKAGES = ("haproxy", "openssl")
JOINED = "/etc/haproxy/tls/joined.pem"
"""Certificate and key in one file, as HAProxy reads them."""
SOCKET = "/run/haproxy/admin.sock"
"""Where root asks the running process, and tells it."""

# Those for which HAProxy has a built-in text on both releases of Debian.
_STATUSES = {
    400: "Bad request",
    408: "Too slow",
    **{status: ERRORS[status] for status in (403, 405, 500, 502, 503, 504)},
}


@dataclass(frozen=True)
class Server:
    """A host behind the balancer."""

    name: str
    address: str
    """As it stands before a colon and a port."""
    number: int
    """Its place on the ring of the consistent hash is made from it."""


def footprint(place: Place) -> Footprint:
    """What this role takes of a host."""
    tls, exporters = place.settings.tls, place.settings.monitoring.exporters
    if not place.among("balancer"):
        return Footprint()
    ports = [
        Port(place.settings.nginx.http_port, "everybody", "pictures over HTTP"),
        Port(exporters.haproxy_port, "monitoring", "metrics of HAProxy", job="haproxy"),
    ]
    ports += [Port(tls.port, "everybody", "pictures over HTTPS")] if tls.enabled else []
    return Footprint(tuple(ports), packages=PACKAGES, owned=("/etc/haproxy/tls",))


@deploy("Balancer")
def balancer(settings: Settings) -> None:
    tls = settings.tls
    listen = listening_address(settings)
    files = {
        file.path: file
        for file in rendered(
            "balancer",
            settings=settings,
            edges=servers(members("edge"), "the edge"),
            shield=servers(members("cdn"), "the cdn host")[0],
            certificate=JOINED,
            socket=SOCKET,
            health=HEALTH,
            health_host=visible_name(settings) or "health",
            errors=_STATUSES,
            # A second more than the edge's nginx waits for its Varnish, and that for the CDN host.
            answer_s=settings.varnish.first_byte_s + 4,
            listen=bracketed(listen) or "*",
            modern=int(machine(settings)["version"]) >= 13,
        )
    }
    unit = files.pop(drop_in("haproxy"))
    tree(name="Write HAProxy's systemd sandbox", files=[unit], root="/etc/systemd")
    apt.packages(name="Install HAProxy", packages=[*PACKAGES], no_recommends=True)
    if tls.mode == "self-signed":
        self_signed_certificate(
            name="Create a self-signed certificate",
            certificate=CERTIFICATE,
            key=KEY,
            names=[name for name in settings.nginx.server_names if not set(name) & set("_*")] or [host.name],
            address=host.data.address,
        )
    if tls.enabled:
        joined_certificate(
            name="Write certificate and key into one file for HAProxy",
            certificate=tls.certificate or CERTIFICATE,
            key=tls.key or KEY,
            path=JOINED,
        )
    tree(
        name="Write haproxy.cfg (checked by haproxy)",
        files=list(files.values()),
        root="/etc/haproxy",
        check=f"haproxy -c -q -f {CONFIG}",
    )
    running(
        name="Run HAProxy",
        unit="haproxy.service",
        start=[unit.path],
        hold=[settings.nginx.http_port, *([tls.port] if tls.enabled else [])],
        reload=[*files, *([JOINED] if tls.enabled else [])],
        ready=listens(settings.nginx.http_port),
    )


def servers(hosts: Iterable[Host], what: str) -> list[Server]:
    """Hosts as HAProxy's servers.

    :raises PyinfraError: a host's name leads nowhere on this host.
    """
    return [Server(one.name, bracketed(addresses_of([one], what)[0]), number(one.name)) for one in hosts]


def number(name: str) -> int:
    """A number of a host's own, 1 to 2^20 - 1; HAProxy's ring knows no more."""
    return zlib.crc32(name.encode()) % ((1 << 20) - 1) + 1
