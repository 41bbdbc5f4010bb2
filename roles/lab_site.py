"""The small PHP site that stands in for Bitrix in the lab."""

from __future__ import annotations

from pyinfra.api import deploy
from pyinfra.operations import apt

from bitrix_cdn.engine.files import directory, rendered, tree
from bitrix_cdn.engine.footprint import Footprint, Place, Port
from bitrix_cdn.engine.packages import held_back
from bitrix_cdn.engine.services import running
from bitrix_cdn.settings import Settings
from roles.preflight import machine

# Debian release -> the PHP that it ships; the unit's name has the version in it.
PHPS = {"12": "8.2", "13": "8.4"}


def footprint(place: Place) -> Footprint:
    """What this role takes of a host."""
    if not (place.settings.lab_site.enabled and place.among("bitrix")):
        return Footprint()
    trees = ("/etc/nginx/conf.d", "/etc/nginx/sites-enabled")
    php = (f"php{version}-{part}" for version in PHPS.values() for part in ("fpm", "gd"))
    return Footprint((Port(80, "everybody", "site of the lab"),), trees=trees, packages=("nginx", *php))


@deploy("Lab site")
def lab_site(settings: Settings) -> None:
    php = PHPS[machine(settings)["version"]]
    held_back(name="Keep nginx stopped until it is configured", unit="nginx.service")
    apt.packages(
        name="Install nginx and PHP",
        packages=["nginx", f"php{php}-fpm", f"php{php}-gd"],
        no_recommends=True,
    )
    for path in (settings.site.root, settings.site.upload, f"{settings.site.upload}/iblock"):
        owned = path != settings.site.root
        directory(
            name=f"Create {path}",
            path=path,
            user=settings.site.user if owned else "root",
            group=settings.site.group if owned else "root",
            mode="755",
        )
    rendered_files = rendered("lab_site", settings=settings)
    configuration = [file for file in rendered_files if file.path.startswith("/etc/nginx/")]
    tree(
        name="Write the lab shop's pages",
        files=[file for file in rendered_files if file not in configuration],
    )
    tree(
        name="Write nginx's configuration (checked by nginx)",
        files=configuration,
        root="/etc/nginx",
        check="nginx -t -q",
        absent=["/etc/nginx/sites-enabled/default"],
    )
    running(name="Run PHP", unit=f"php{php}-fpm.service", ready="test -S /run/php/php-fpm.sock")
    running(name="Run nginx", unit="nginx.service", reload=[file.path for file in configuration])
