"""nginx, which serves visitors on the CDN host and on edges, and serves edges on the CDN host."""

from __future__ import annotations

from pyinfra import host
from pyinfra.api import deploy
from pyinfra.operations import apt

from bitrix_cdn.engine.accounts import account, follows
from bitrix_cdn.engine.certificates import self_signed_certificate
from bitrix_cdn.engine.files import RealPath, rendered, tree
from bitrix_cdn.engine.footprint import Footprint, Place, Port
from bitrix_cdn.engine.packages import held_back
from bitrix_cdn.engine.services import running
from bitrix_cdn.settings import Settings
from bitrix_cdn.settings.model import TlsSettings
from roles.converter import SOCKET
from roles.preflight import machine
from roles.topology import LOOPBACK, addresses_of, bracketed, members, own_address

PICTURES = "jpe?g|jpe|png|gif|bmp|tiff?|webp|avif|svg"
"""Extensions that are ever served, as a regular expression."""

REFUSED = ("1c_exchange", "1c_catalog", "tmp", "support/not_image")
"""Directories of `upload/` that are no visitor's business."""

ERRORS = {
    403: "Forbidden",
    404: "Not found",
    405: "Method not allowed",
    412: "Changed",
    413: "Too large",
    416: "No such range",
    429: "Too many requests",
    500: "Error",
    502: "Unavailable",
    503: "Unavailable",
    504: "Unavailable",
}

# nginx's own number of what couldn't be read as a request, what is answered, and its text.
UNREADABLE = {
    400: (400, "Bad request"),
    414: (414, "Too long"),
    421: (421, "Misdirected"),
    494: (431, "Too long"),
    495: (400, "Bad request"),
    496: (400, "Bad request"),
    497: (400, "Bad request"),
    501: (501, "Not implemented"),
    505: (505, "Unknown version"),
}

# Seconds that a browser keeps a picture for, and then shows it once more while it asks. With twice
# `varnish.fresh_s` and `edges.fresh_s` before it, a picture that is replaced is right everywhere within 60 s.
SHORT_LIVED = "public, max-age=15, stale-while-revalidate=10"

# Debian's certbot copies to the same place, so that nginx runs before the first certificate is there.
CERTIFICATE = "/etc/nginx/tls/certificate.pem"
KEY = "/etc/nginx/tls/key.pem"
ACME_ROOT = "/var/lib/bitrix-cdn/acme"

ACCOUNT = "cdn-nginx"
"""That of the workers: nothing else runs as it, so that nothing else can look into them."""
GROUP = "www-data"
"""That of the pictures, and of the socket of the misses."""
DROP_IN = "/etc/systemd/system/nginx.service.d/bitrix-cdn.conf"
LOGS = "/var/log/nginx"

# The module changes headers of answers that are written twice, and takes headers of requests away.
PACKAGES = ("nginx", "libnginx-mod-http-headers-more-filter", "openssl")

DRAIN = "/var/lib/bitrix-cdn/drain"
"""As long as it exists, the host tells balancers not to send it visitors; it answers those that come."""
HEALTH = "/bitrix-cdn/health"
"""The path that says so: 200, or 503."""
SHIELD_PROBE = "/bitrix-cdn/shield"
SHIELD_SITE = "/etc/nginx/conf.d/shield.conf"

# Of what comes through Varnish; nginx says them itself, for all answers alike.
SAID = ("Vary", "X-Image-Variant", "Cache-Control", "X-Content-Type-Options", "Via", "X-Varnish", "X-Version")
# The CDN host's nginx has said these to an edge as well.
SAID_BY_SHIELD = (
    "Content-Security-Policy",
    "Access-Control-Allow-Origin",
    "Cross-Origin-Resource-Policy",
    "Timing-Allow-Origin",
    "Content-Disposition",
)


def accepts(format: str) -> str:
    """A regular expression for an `Accept` header that has this image format, and not with `q=0`."""
    return rf"(^|,)\s*image/{format}\s*(?=[;,]|$)(?![^,]*;\s*q\s*=\s*0(\.0*)?\s*([;,]|$))"


def shield_of() -> str:
    """The address of the CDN host, from which this host takes what it doesn't have."""
    return addresses_of(members("cdn"), "the cdn host")[0]


def behind_balancer() -> bool:
    """Whether visitors come to this host through the balancer alone, where TLS ends."""
    return "edge" in host.groups and bool(members("balancer"))


def footprint(place: Place) -> Footprint:
    """What this role takes of a host."""
    own, tls = place.settings.nginx, place.settings.tls
    if not place.among("cdn", "edge"):
        return Footprint()
    ports = [
        Port(own.http_port, "everybody", "pictures over HTTP"),
        Port(own.status_port, "host", "nginx's status"),
    ]
    if tls.enabled and not (place.among("edge") and place.balanced):
        ports.append(Port(tls.port, "everybody", "pictures over HTTPS"))
        ports += [Port(tls.port, "everybody", "pictures over HTTP/3", "udp")] if tls.http3 else []
    if place.among("cdn") and place.edges:
        ports.append(Port(place.settings.edges.shield_port, "edges", "pictures for edges"))
    trees = ("/etc/nginx/conf.d", "/etc/nginx/sites-enabled")
    return Footprint(
        tuple(ports),
        (ACCOUNT,),
        trees=trees,
        saved=("/etc/nginx",),
        packages=PACKAGES,
        owned=("/etc/nginx/tls",),
    )


def _in_a_home(path: str) -> bool:
    return host.get_fact(RealPath, path=path).startswith(("/home/", "/root/"))


@deploy("nginx")
def nginx(settings: Settings) -> None:
    held_back(name="Keep nginx stopped until it is configured", unit="nginx.service")
    apt.packages(name="Install nginx", packages=[*PACKAGES], no_recommends=True)
    account(
        name="Create the account of nginx's workers",
        user=ACCOUNT,
        group=GROUP,
        system=True,
        comment="Bitrix CDN, serves pictures",
    )
    # The package's are www-data's, as which the converter runs: what visitors ask for isn't its business.
    follows(name="Give nginx's logs to its account", user=ACCOUNT, former=GROUP, directory=LOGS)
    tls, proxies, real_ip_header = settings.tls, settings.nginx.proxies, settings.nginx.real_ip_header
    on_edge = "edge" in host.groups
    shield: list[str] = []
    if on_edge:
        source = f"{bracketed(shield_of())}:{settings.edges.shield_port}"
    else:
        source = f"{LOOPBACK}:{settings.originals.port}"
        if members("edge"):
            # Behind NAT on all of its addresses: the firewall lets only edges and the balancer in.
            shield = [bracketed(own_address())] if own_address() else ["0.0.0.0", "[::]"]  # noqa: S104
    if behind_balancer():
        tls = TlsSettings()
        # The balancer believes those proxies, and says who the client is by this header.
        proxies = [*addresses_of(members("balancer"), "the balancer"), *proxies]
        real_ip_header = "X-Forwarded-For"
    certificate, key = tls.certificate or CERTIFICATE, tls.key or KEY
    if tls.mode in {"self-signed", "acme"}:
        self_signed_certificate(
            name="Create a self-signed certificate",
            certificate=CERTIFICATE,
            key=KEY,
            names=[name for name in settings.nginx.server_names if not set(name) & set("_*")] or [host.name],
            address=host.data.address,
            placeholder=tls.mode == "acme",
        )
    configuration = rendered(
        "nginx",
        settings=settings,
        tls=tls,
        proxies=proxies,
        real_ip_header=real_ip_header,
        edge=on_edge,
        shield=shield,
        source=source,
        # On an edge as on the CDN host: a second more than Varnish waits.
        first_byte_s=settings.varnish.first_byte_s + (2 if on_edge else 0),
        said=SAID + (SAID_BY_SHIELD if on_edge else ()),
        # Debian 12's nginx knows neither `http2 on` nor QUIC.
        modern=int(machine(settings)["version"]) >= 13,
        accepts=accepts,
        pictures=PICTURES,
        refused=REFUSED,
        misses=SOCKET,
        errors=ERRORS,
        unreadable=UNREADABLE,
        short_lived=SHORT_LIVED,
        certificate=certificate,
        key=key,
        acme_root=ACME_ROOT,
        drain=DRAIN,
        account=ACCOUNT,
        group=GROUP,
        logs=LOGS,
        homes="read-only" if tls.mode == "files" and any(map(_in_a_home, (certificate, key))) else "yes",
    )
    unit = [file for file in configuration if file.path == DROP_IN]
    configuration = [file for file in configuration if file.path != DROP_IN]
    if not shield:
        configuration = [file for file in configuration if file.path != SHIELD_SITE]
    tree(name="Write nginx's systemd sandbox", files=unit, root="/etc/systemd")
    tree(
        name="Write nginx's configuration (checked by nginx)",
        files=configuration,
        root="/etc/nginx",
        check="nginx -t -q",
        shared=True,
        absent=["/etc/nginx/sites-enabled/default", *([] if shield else [SHIELD_SITE])],
    )
    # certbot's hook reloads nginx by itself, at each renewal.
    kept_by_us = tls.mode in {"self-signed", "files"}
    running(
        name="Run nginx",
        unit="nginx.service",
        start=[DROP_IN],
        # The shop has no other host to send its visitors to.
        hold=[
            settings.nginx.http_port,
            *([tls.port] if tls.enabled else []),
            *([settings.edges.shield_port] if shield else []),
        ],
        reload=[file.path for file in configuration] + ([certificate] if kept_by_us else []),
    )
