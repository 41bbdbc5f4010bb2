"""Ports that are closed to all but some hosts: the exporters', and those that edges are fed and asked by."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass

from pyinfra import host
from pyinfra.api import deploy
from pyinfra.operations import apt

from bitrix_cdn.engine.files import rendered, tree
from bitrix_cdn.engine.services import running
from bitrix_cdn.settings import Settings
from roles.footprints import own_ports
from roles.nginx import behind_balancer
from roles.topology import addresses_of, askers, members, monitoring_hosts

RULES = "/etc/bitrix-cdn/exporters.nft"
UNIT = "/etc/systemd/system/bitrix-cdn-firewall.service"
DROP_IN = "/etc/systemd/system/nftables.service.d/bitrix-cdn.conf"


@dataclass(frozen=True)
class Door:
    """Ports that only some may come in by."""

    name: str
    why: str
    ports: list[int]
    allowed4: list[str]
    allowed6: list[str]


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
            doors=doors(settings),
        )
    }
    tree(
        name="Write the firewall's unit",
        files=[files[UNIT], files[DROP_IN]],
        root="/etc/systemd",
    )
    tree(
        name="Write the firewall's rules (checked by nft)",
        files=[files[RULES]],
        root="/etc/bitrix-cdn",
        check=f"nft -c -f {RULES}",
    )
    running(
        name="Load the firewall's rules",
        unit="bitrix-cdn-firewall.service",
        start=[UNIT, DROP_IN],
        reload=[RULES],
        ready="nft list chain inet bitrix_cdn exporters",
        runs="nft -s list table inet bitrix_cdn",
    )


def doors(settings: Settings) -> list[Door]:
    """What of this host is for edges and the balancer alone."""
    found = []
    front = addresses_of(members("balancer"), "the balancer")
    if "cdn" in host.groups and members("edge"):
        allowed = [*addresses_of(members("edge"), "the edge"), *front]
        found.append(_door("shield", "What edges fetch.", settings.edges.shield_port, allowed))
    if behind_balancer():
        allowed = [*front, *addresses_of(monitoring_hosts(), "the monitoring host"), *settings.edges.allowed]
        found.append(_door("edge", "Visitors come through the balancer.", settings.nginx.http_port, allowed))
    return found


def _door(name: str, why: str, port: int, allowed: Iterable[str]) -> Door:
    networks = [ipaddress.ip_network(one) for one in allowed]
    # nftables refuses a set whose entries overlap.
    v4 = ipaddress.collapse_addresses(one for one in networks if isinstance(one, ipaddress.IPv4Network))
    v6 = ipaddress.collapse_addresses(one for one in networks if isinstance(one, ipaddress.IPv6Network))
    return Door(name, why, [port], [str(one) for one in v4], [str(one) for one in v6])


def closed_ports(settings: Settings) -> list[int]:
    """The ports of this host that only monitoring, or only the host itself, may ask."""
    return sorted(port.number for port in own_ports(settings) if port.reach in ("monitoring", "host"))
