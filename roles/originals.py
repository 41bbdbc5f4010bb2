"""A second nginx, the only one that reads the mount of the originals: only this one can hang with it."""

from __future__ import annotations

from pathlib import PurePosixPath

from pyinfra.api import deploy

from bitrix_cdn.engine.accounts import account
from bitrix_cdn.engine.files import rendered, tree
from bitrix_cdn.engine.footprint import Footprint, Place, Port
from bitrix_cdn.engine.services import running
from bitrix_cdn.settings import Settings
from roles.converter import SOCKET
from roles.nginx import GROUP, PICTURES, REFUSED

UNIT = "/etc/systemd/system/nginx-originals.service"
ACCOUNT = "cdn-reader"
"""That of its workers, whose the mounted originals are as this host sees them."""
SHARED = ("/etc/nginx/conf.d/types.conf", "/etc/nginx/conf.d/negotiation.conf")
"""What it includes of the edge's configuration."""


def footprint(place: Place) -> Footprint:
    """What this role takes of a host."""
    if not place.among("cdn"):
        return Footprint()
    ports = (Port(place.settings.originals.port, "host", "originals, for Varnish and the converter"),)
    return Footprint(
        ports,
        (ACCOUNT,),
        trees=("/etc/nginx-originals",),
        saved=("/etc/nginx-originals",),
        owned=("/etc/nginx-originals",),
    )


@deploy("Originals")
def originals(settings: Settings) -> None:
    account(
        name="Create the account that reads the mounted originals",
        user=ACCOUNT,
        group=GROUP,
        system=True,
        comment="Bitrix CDN, reads originals",
    )
    files = rendered(
        "originals",
        settings=settings,
        mount=str(PurePosixPath(settings.cdn.originals).parent),
        pictures=PICTURES,
        refused=REFUSED,
        misses=SOCKET,
        account=ACCOUNT,
        group=GROUP,
    )
    configuration = [file for file in files if file.path != UNIT]
    tree(
        name="Write the unit of the originals' nginx",
        files=[file for file in files if file.path == UNIT],
        root="/etc/systemd",
    )
    tree(
        name="Write the originals' nginx configuration (checked by nginx)",
        files=configuration,
        root="/etc/nginx-originals",
        # Its own unit makes the directory, and its account is the unit's.
        check=f"mkdir -p /run/nginx-originals && nginx -e stderr -t -q -g 'user {ACCOUNT} {GROUP};' "
        "-c /etc/nginx-originals/nginx.conf",
    )
    running(
        name="Run the originals' nginx",
        unit="nginx-originals.service",
        start=[UNIT],
        reload=[*(file.path for file in configuration), *SHARED],
    )
