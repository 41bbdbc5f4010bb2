"""nginx, which visitors meet."""

from __future__ import annotations

from pyinfra import host
from pyinfra.api import deploy
from pyinfra.operations import apt

from extensions.certificates import self_signed_certificate
from extensions.files import rendered, tree
from extensions.services import running
from roles.converter import SOCKET
from roles.preflight import machine
from settings import Settings

PICTURES = "jpe?g|png|gif|bmp|tiff?|webp|avif|svg"
"""Extensions that are ever served, as a regular expression."""

REFUSED = ("1c_exchange", "1c_catalog", "tmp", "support/not_image")
"""Directories of `upload/` that are no visitor's business."""

# Not those of a request that couldn't be read (400, 414): it has no path that a location could be found for.
ERRORS = {
    403: "Forbidden",
    404: "Not found",
    405: "Method not allowed",
    413: "Too large",
    416: "No such range",
    429: "Too many requests",
    500: "Error",
    502: "Unavailable",
    503: "Unavailable",
    504: "Unavailable",
}

# Debian's certbot copies to the same place, so that nginx runs before the first certificate is there.
CERTIFICATE = "/etc/nginx/tls/certificate.pem"
KEY = "/etc/nginx/tls/key.pem"
ACME_ROOT = "/var/lib/bitrix-cdn/acme"


def accepts(format: str) -> str:
    """A regular expression for an `Accept` header that has this image format, and not with `q=0`."""
    return rf"(^|,)\s*image/{format}\s*(?=[;,]|$)(?![^,]*;\s*q\s*=\s*0(\.0*)?\s*([;,]|$))"


@deploy("nginx")
def nginx(settings: Settings) -> None:
    apt.packages(name="Install nginx", packages=["nginx", "openssl"], no_recommends=True)
    tls = settings.tls
    certificate, key = tls.certificate or CERTIFICATE, tls.key or KEY
    if tls.mode in {"self-signed", "acme"}:
        self_signed_certificate(
            name="Make a certificate of the host's own",
            certificate=CERTIFICATE,
            key=KEY,
            names=[name for name in settings.nginx.server_names if not set(name) & set("_*")] or [host.name],
            address=host.data.address,
            placeholder=tls.mode == "acme",
        )
    configuration = rendered(
        "nginx",
        settings=settings,
        # Debian 12's nginx knows neither `http2 on` nor QUIC.
        modern=int(machine(settings)["version"]) >= 13,
        accepts=accepts,
        pictures=PICTURES,
        refused=REFUSED,
        misses=SOCKET,
        errors=ERRORS,
        certificate=certificate,
        key=key,
        acme_root=ACME_ROOT,
    )
    tree(
        name="Write the configuration, if nginx agrees",
        files=configuration,
        root="/etc/nginx",
        check="nginx -t -q",
        absent=["/etc/nginx/sites-enabled/default"],
    )
    # certbot's hook reloads nginx by itself, at each renewal.
    kept_by_us = tls.mode in {"self-signed", "files"}
    running(
        name="Serve the pictures",
        unit="nginx.service",
        reload=[file.path for file in configuration] + ([certificate] if kept_by_us else []),
    )
