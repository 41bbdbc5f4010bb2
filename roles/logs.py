"""Limits of the logs on the disks of all hosts but the site's."""

from __future__ import annotations

from pyinfra import host
from pyinfra.api import deploy
from pyinfra.operations import apt

from bitrix_cdn.engine.files import rendered, tree
from bitrix_cdn.engine.footprint import Footprint, Place
from bitrix_cdn.engine.services import running
from bitrix_cdn.settings import Settings
from roles.nginx import ACCOUNT

JOURNAL = "/etc/systemd/journald.conf.d/60-bitrix-cdn.conf"
NGINX = "/etc/logrotate.d/nginx"
TIMER = "/etc/systemd/system/logrotate.timer.d/bitrix-cdn.conf"
SANDBOX = "/etc/systemd/system/logrotate.service.d/bitrix-cdn.conf"


def footprint(place: Place) -> Footprint:
    """What this role takes of a host."""
    return Footprint(packages=("logrotate",) if place.among("cdn", "edge") else ())


@deploy("Logs")
def logs(settings: Settings) -> None:
    files = {file.path: file for file in rendered("logs", logs=settings.monitoring.logs, account=ACCOUNT)}
    if "balancer" in host.groups:
        # HAProxy has the journal only.
        tree(name="Limit the journal", files=[files[JOURNAL]], root="/etc/systemd")
        running(name="Apply the journal's limits", unit="systemd-journald.service", start=[JOURNAL])
        return
    apt.packages(name="Install logrotate", packages=["logrotate"], no_recommends=True)
    tree(
        name="Limit the journal, and run logrotate each hour",
        files=[files[JOURNAL], files[TIMER], files[SANDBOX]],
        root="/etc/systemd",
    )
    tree(
        name="Write the rotation of nginx's logs (checked by logrotate)",
        files=[files[NGINX]],
        root="/etc/logrotate.d",
        check=f"logrotate --debug --state /dev/null {NGINX}",
    )
    running(name="Apply the journal's limits", unit="systemd-journald.service", start=[JOURNAL])
    running(name="Enable logrotate's timer", unit="logrotate.timer", start=[TIMER, SANDBOX])
