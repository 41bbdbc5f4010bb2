"""The exporters' ports, closed to all but the monitoring hosts."""

from __future__ import annotations

import ipaddress

from pyinfra import host
from pyinfra.api import deploy
from pyinfra.operations import apt

from extensions.files import rendered, tree
from extensions.services import running
from roles.watchers import askers
from settings import Settings

RULES = "/etc/bitrix-cdn/exporters.nft"
UNIT = "/etc/systemd/system/bitrix-cdn-firewall.service"
DROP_IN = "/etc/systemd/system/nftables.service.d/bitrix-cdn.conf"


@deploy("Firewall")
def firewall(settings: Settings) -> None:
    apt.packages(name="Install nftables", packages=["nftables", "iproute2"], no_recommends=True)
    allowed = [ipaddress.ip_network(one) for one in askers(settings)]
    files = {
        file.path: file
        for file in rendered(
            "firewall",
            rules=RULES,
            ports=closed_ports(settings),
            askers4=[str(one) for one in allowed if one.version == 4],
            askers6=[str(one) for one in allowed if one.version == 6],
        )
    }
    tree(
        name="Write the unit, and have it outlive the distribution's rules",
        files=[files[UNIT], files[DROP_IN]],
        root="/etc/systemd",
    )
    tree(
        name="Write the rules, if nftables agrees",
        files=[files[RULES]],
        root="/etc/bitrix-cdn",
        check=f"nft -c -f {RULES}",
    )
    running(
        name="Close the exporters' ports",
        unit="bitrix-cdn-firewall.service",
        start=[UNIT, DROP_IN],
        reload=[RULES],
        ready="nft list chain inet bitrix_cdn exporters",
    )


def closed_ports(settings: Settings) -> list[int]:
    """The ports of this host that only monitoring may ask; none that is anybody else's."""
    exporters = settings.monitoring.exporters
    ports = [exporters.node_port]
    if "cdn" in host.groups:
        ports += [
            exporters.edge_port,
            exporters.nginx_port,
            exporters.varnish_port,
            exporters.redis_cache_port,
            exporters.redis_queue_port,
            settings.converter.metrics.port,
        ]
    if "monitoring" in host.groups:
        monitoring = settings.monitoring
        ports += [
            exporters.blackbox_port,
            monitoring.prometheus.port,
            monitoring.alertmanager.port,
            monitoring.grafana.port,
        ]
    return sorted(ports)
