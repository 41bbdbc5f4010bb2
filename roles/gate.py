"""The gate: an nginx in front of pages and metrics, which answers only to known names and paths.

The programs behind it check neither: a web page in an operator's browser could point its own name to the
tunnel, and set a silence. They keep their ports, on another loopback address that only the gate may use.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass

from pyinfra import host
from pyinfra.api import StringCommand, deploy, operation
from pyinfra.operations import apt

from bitrix_cdn.engine.accounts import Account, account
from bitrix_cdn.engine.files import rendered, tree
from bitrix_cdn.engine.footprint import Footprint, Place, Port
from bitrix_cdn.engine.packages import held_back
from bitrix_cdn.engine.services import running
from bitrix_cdn.settings import Settings
from roles.firewall import GATE as RULES
from roles.footprints import own_ports
from roles.topology import BEHIND, GATED, LOOPBACK, Addresses, askers, bracketed, listening_address

ACCOUNT = "cdn-gate"
CONFIG = "/etc/nginx-gate/nginx.conf"
UNIT = "/etc/systemd/system/nginx-gate.service"
PACKAGES = ("nginx",)


@dataclass(frozen=True)
class Door:
    """A port of the gate, and what is behind it."""

    port: int
    what: str
    listen: list[str]
    paths: tuple[str, ...]
    """That are let through; `/` is all of them."""


def footprint(place: Place) -> Footprint:
    """What this role takes of a host."""
    if not place.among(*GATED):
        return Footprint()
    return Footprint(
        accounts=(ACCOUNT,),
        trees=("/etc/nginx-gate",),
        packages=PACKAGES,
        owned=("/etc/nginx-gate",),
    )


@deploy("Gate")
def gate(settings: Settings) -> None:
    account(
        name="Create the account of the gate",
        user=ACCOUNT,
        system=True,
        comment="Bitrix CDN, nginx in front of pages and metrics",
    )
    if not {"cdn", "edge"} & set(host.groups):
        held_back(name="Keep Debian's own nginx stopped", unit="nginx.service", for_good=True)
    apt.packages(name="Install nginx for the gate", packages=[*PACKAGES], no_recommends=True)
    ports = own_ports(settings)
    gated = [port for port in ports if port.gate]
    [unit] = rendered(
        "gate", only=[UNIT], account=ACCOUNT, askers=askers(settings), config=CONFIG, rules=RULES
    )
    tree(name="Write the gate's unit", files=[unit], root="/etc/systemd")
    # It is left out where its repository can't be reached. It has accounts, and nginx brings it outside.
    grafana = settings.monitoring.grafana.port
    written(
        name="Write the gate's configuration and firewall rules (checked by nginx and nft)",
        doors=[door(port, settings) for port in gated],
        pages=sorted(port.number for port in ports if port.page and port.number != grafana),
        grafana=grafana,
        names=names(host.data.address),
    )
    running(
        name="Run the gate",
        unit="nginx-gate.service",
        start=[UNIT],
        reload=[RULES, CONFIG],
        # What is behind it listens at the same ports.
        ready=" && ".join(
            f"ss -Hltnp sport = :{port.number} | grep -q '\"nginx\"'"
            for port in gated
            if port.number != grafana
        ),
        runs="nft -s list table inet bitrix_cdn_gate",
    )


def door(port: Port, settings: Settings) -> Door:
    """What the gate does for a port of this host."""
    if port.reach == "host":
        listen = [LOOPBACK]
    elif address := listening_address(settings):
        listen = [bracketed(address)]
    else:
        # Behind NAT, on each of its addresses: on all of them at once there would be no place behind it.
        listen = [LOOPBACK, *map(bracketed, host.get_fact(Addresses, names=[host.data.address])[""])]
    return Door(port.number, port.what, listen, port.gate)


def names(address: str) -> list[str]:
    """By which a port of this host may be addressed: a number is never somebody else's name."""
    numbers = [r"~^\d+\.\d+\.\d+\.\d+$", r"~^\[[0-9a-f:.]+\]$"]
    return [*dict.fromkeys(["localhost", address.lower()]), *numbers]


@operation()
def written(
    doors: Sequence[Door], pages: Sequence[int], grafana: int, names: Sequence[str]
) -> Generator[StringCommand, None, None]:
    """Writes what the gate does, and which accounts of this host may ask which ports of it.

    + doors: its ports
    + pages: the ports of this host that people come to, but Grafana's
    + grafana: that one's port
    + names: by which the host is addressed
    """
    installed = bool(host.get_fact(Account, user="grafana"))
    behind = [door.port for door in doors if door.port != grafana]
    files = rendered(
        "gate",
        only=[CONFIG, RULES],
        account=ACCOUNT,
        askers=["root", "prometheus", *(["grafana"] if installed else [])],
        behind=BEHIND,
        doors=[door for door in doors if installed or door.port != grafana],
        exporters=sorted(set(behind) - set(pages)),
        names=names,
        pages=pages,
        ports=sorted(behind),
    )
    yield from tree._inner(
        files=files,
        # As root it would take directories of the other nginx for its own.
        check=f"nft -c -f {RULES} && install -d -o {ACCOUNT} -g {ACCOUNT} /run/nginx-gate && "
        f"setpriv --reuid={ACCOUNT} --regid={ACCOUNT} --clear-groups nginx -e stderr -t -q -c {CONFIG}",
    )
