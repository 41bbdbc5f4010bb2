"""Limits who can reach a host: some ports are for some hosts, what isn't the project's is closed, and one
address may open so many SSH connections a minute."""

from __future__ import annotations

import ipaddress
import shlex
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pyinfra import host
from pyinfra.api import FactBase, StringCommand, deploy, operation

from bitrix_cdn.engine.files import Existing, File, rendered, tree
from bitrix_cdn.engine.footprint import Footprint, Place
from bitrix_cdn.engine.journal import record_script
from bitrix_cdn.engine.packages import packages
from bitrix_cdn.engine.services import running
from bitrix_cdn.settings import Settings
from roles.baseline import is_wanted
from roles.footprints import own_ports
from roles.nginx import behind_balancer
from roles.preflight import distribution, machine
from roles.topology import Addresses, addresses_of, askers, everybody, members, monitoring_hosts

RULES = "/etc/bitrix-cdn/exporters.nft"
GATE = "/etc/bitrix-cdn/gate.nft"
"""Written by `roles/gate.py`, on hosts that have one."""
UNIT = "/etc/systemd/system/bitrix-cdn-firewall.service"
DROP_IN = "/etc/systemd/system/nftables.service.d/bitrix-cdn.conf"
POLICY = "/etc/firewalld/policies/bitrix-cdn.xml"


@dataclass(frozen=True)
class Door:
    """Ports that only some may come in by."""

    name: str
    why: str
    ports: list[int]
    allowed4: list[str]
    allowed6: list[str]


@dataclass(frozen=True)
class Limit:
    """How often SSH may be come to."""

    per_minute: int
    exempt4: list[str]
    exempt6: list[str]


PACKAGES = ("nftables", "iproute2")


def footprint(place: Place) -> Footprint:
    """What this role takes of a host."""
    return Footprint(packages=PACKAGES)


@deploy("Firewall")
def firewall(settings: Settings) -> None:
    files = {
        file.path: file
        for file in rendered(
            "firewall",
            rules=RULES,
            gate=GATE,
            doors=[
                _door("exporters", "What monitoring asks.", closed_ports(settings), askers(settings)),
                *doors(settings),
            ],
            **_baseline(settings),
        )
    }
    if machine(settings)["firewalld"] == "active":
        _by_firewalld(files[POLICY])
    else:
        _by_nftables(settings, files)


def _by_firewalld(policy: File) -> None:
    """Where firewalld refuses what no zone allows, the ports must be opened to those who may ask: a table of
    our own can only close."""
    no_rules_of_ours(name="Remove the rules that firewalld now has")
    tree(
        name="Write firewalld's policy (checked by firewalld)",
        files=[policy],
        root="/etc/firewalld",
        check="firewall-offline-cmd --check-config",
    )
    running(
        name="Load firewalld's policy",
        unit="firewalld.service",
        reload=[POLICY],
        ready="firewall-cmd --info-policy=bitrix-cdn",
    )


def _by_nftables(settings: Settings, files: dict[str, File]) -> None:
    packages("Install nftables", distribution(settings), PACKAGES)
    tree(
        name="Write the firewall's unit",
        files=[files[UNIT], files[DROP_IN]],
        root="/etc/systemd",
        absent=[POLICY],
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
        # Without the addresses that came lately.
        runs="nft -st list table inet bitrix_cdn",
    )


@operation()
def no_rules_of_ours() -> Generator[StringCommand, None, None]:
    """Takes back what an earlier deploy did without firewalld."""
    unit = UNIT.rpartition("/")[2]
    wanted = f"/etc/systemd/system/multi-user.target.wants/{unit}"
    present = host.get_fact(Existing, paths=[RULES, UNIT, DROP_IN, wanted])
    if not present:
        host.noop("there are none")
        return
    record = record_script(present, unit=unit, action="restart")
    yield StringCommand(
        f"set -e\n{record}\nsystemctl stop {unit} 2>/dev/null || :\n"
        f"rm -f {shlex.join(present)}; systemctl daemon-reload"
    )


def doors(settings: Settings) -> list[Door]:
    """What of this host is for edges and the balancer alone."""
    found = []
    front = addresses_of(members("balancer"), "the balancer")
    if "cdn" in host.groups and members("edge"):
        allowed = [*addresses_of(members("edge"), "the edge"), *front]
        found.append(_door("shield", "What edges fetch.", [settings.edges.shield_port], allowed))
    if behind_balancer():
        allowed = [*front, *addresses_of(monitoring_hosts(), "the monitoring host"), *settings.edges.allowed]
        found.append(
            _door("edge", "Visitors come through the balancer.", [settings.nginx.http_port], allowed)
        )
    return found


class SshPorts(FactBase[list[int]]):
    """The ports by which SSH can be reached on the host, whatever the inventory calls them: the one of this
    session, those of sshd, and those of a socket that starts it."""

    default = list

    def command(self) -> str:
        return (
            'echo "$SSH_CONNECTION" | cut -d " " -f 4; sshd -T 2>/dev/null | sed -n "s/^port //p"; '
            "systemctl show -p Listen --value ssh.socket sshd.socket 2>/dev/null | "
            'sed -nE "s/^.*:([0-9]+) [(]Stream[)]$/\\1/p"; true'
        )

    def process(self, output: Iterable[str]) -> list[int]:
        return sorted({int(line) for line in output if line.strip().isdigit()})


def _baseline(settings: Settings) -> dict[str, Any]:
    """What the rules say of ports that nobody is told of, and of SSH."""
    own = settings.baseline
    wanted = is_wanted(settings)
    ssh = sorted({host.data.get("ssh_port", 22), *host.get_fact(SshPorts)}) if wanted else []
    limit = None
    if wanted and own.ssh_per_minute:
        # One whose name leads nowhere from here can't come either.
        known = host.get_fact(Addresses, names=[one.data.address for one in everybody()])
        addresses = [one for name, found in known.items() if name for one in found]
        limit = Limit(own.ssh_per_minute, *_by_family([*addresses, *own.operators]))
    return {
        "closed": wanted and own.closed,
        "ssh": ssh,
        "open": {protocol: open_ports(settings, protocol, ssh) for protocol in ("tcp", "udp")},
        "limit": limit,
    }


def open_ports(settings: Settings, protocol: str, ssh: Iterable[int]) -> list[str]:
    """Ports and ranges of them that a closed host leaves to be reached, as nftables takes them."""
    declared = settings.drift.site_ports if "bitrix" in host.groups else settings.drift.ports
    # To each host comes whoever deploys, and what DHCP answers.
    ranges = [(one, one) for one in (ssh if protocol == "tcp" else (68, 546))]
    ranges += [
        (port.number, port.number)
        for port in own_ports(settings)
        if port.protocol == protocol and port.reach != "host"
    ]
    for text in declared or []:
        ports, _, kind = text.partition("/")
        first, _, last = ports.partition("-")
        ranges += [(int(first), int(last or first))] if kind == protocol else []
    return [f"{first}-{last}" if first < last else str(first) for first, last in _merged(ranges)]


def _merged(ranges: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """The same without overlaps, which nftables refuses."""
    first, last = 0, -1
    for low, high in sorted(ranges):
        if low > last + 1:
            if last >= first:
                yield first, last
            first = low
        last = max(last, high)
    if last >= first:
        yield first, last


def _door(name: str, why: str, ports: Sequence[int], allowed: Iterable[str]) -> Door:
    return Door(name, why, [*ports], *_by_family(allowed))


def _by_family(given: Iterable[str]) -> tuple[list[str], list[str]]:
    """Addresses and networks, those of IPv4 and those of IPv6."""
    networks = [ipaddress.ip_network(one) for one in given]
    # nftables refuses a set whose entries overlap.
    v4 = ipaddress.collapse_addresses(one for one in networks if isinstance(one, ipaddress.IPv4Network))
    v6 = ipaddress.collapse_addresses(one for one in networks if isinstance(one, ipaddress.IPv6Network))
    return [str(one) for one in v4], [str(one) for one in v6]


def closed_ports(settings: Settings) -> list[int]:
    """The ports of this host that only monitoring, or only the host itself, may ask."""
    return sorted(port.number for port in own_ports(settings) if port.reach in ("monitoring", "host"))
