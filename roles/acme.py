"""A certificate from an ACME authority, got and renewed by Debian's certbot."""

from __future__ import annotations

import shlex
from collections.abc import Generator

from pyinfra import host
from pyinfra.api import StringCommand, deploy, operation
from pyinfra.operations import apt

from bitrix_cdn.engine.certificates import CertificateNames
from bitrix_cdn.engine.files import directory, rendered, tree
from bitrix_cdn.engine.footprint import Footprint, Place
from bitrix_cdn.engine.services import running
from bitrix_cdn.settings import Settings
from roles.nginx import ACME_ROOT, CERTIFICATE, KEY

HOOK = "/etc/letsencrypt/renewal-hooks/deploy/bitrix-cdn"
LINEAGE = "bitrix-cdn"


def footprint(place: Place) -> Footprint:
    """What this role takes of a host."""
    if place.settings.tls.mode != "acme" or not place.among("cdn"):
        return Footprint()
    # A certificate that was got may be of use elsewhere, and its authority gives only so many a week.
    return Footprint(packages=("certbot",), data=("/etc/letsencrypt",))


@deploy("ACME")
def acme(settings: Settings) -> None:
    apt.packages(name="Install certbot", packages=["certbot"], no_recommends=True)
    directory(name="Create the ACME challenge directory", path=ACME_ROOT, mode="755")
    tree(
        name="Install the hook that reloads nginx after a renewal",
        files=rendered("acme", certificate=CERTIFICATE, key=KEY, owners={HOOK: ("755", "root", "root")}),
        root="/etc/letsencrypt",
    )
    issued(
        name="Request the certificate",
        names=settings.nginx.server_names,
        email=settings.tls.acme_email,
        directory=settings.tls.acme_directory,
    )
    running(name="Enable the renewal timer", unit="certbot.timer")


@operation()
def issued(names: list[str], email: str, directory: str) -> Generator[StringCommand, None, None]:
    """Gets a certificate for exactly these names and has nginx take it; renewals are certbot's own.

    + names: the names, all of which must lead to this host already
    + email: where the authority writes; empty: nowhere
    + directory: the authority's ACME directory
    """
    lineage = f"/etc/letsencrypt/live/{LINEAGE}"
    if set(host.get_fact(CertificateNames, path=f"{lineage}/fullchain.pem")) == set(names):
        host.noop(f"the certificate is for {', '.join(names)}")
        return
    contact = f"--email {shlex.quote(email)}" if email else "--register-unsafely-without-email"
    domains = " ".join(f"-d {shlex.quote(name)}" for name in names)
    yield StringCommand(
        f"certbot certonly --non-interactive --agree-tos {contact} --server {shlex.quote(directory)} "
        f"--webroot -w {ACME_ROOT} --cert-name {LINEAGE} --renew-with-new-domains {domains}"
    )
    # certbot runs its deploy hooks at renewals only.
    yield StringCommand(f"RENEWED_LINEAGE={lineage} {HOOK}")
