"""The connections between hosts: the hosts of other groups, and the addresses where they answer."""

from __future__ import annotations

import ipaddress
import shlex
from collections.abc import Iterable, Sequence

from pyinfra import host, inventory
from pyinfra.api import FactBase, Host
from pyinfra.api.exceptions import PyinfraError

from bitrix_cdn.settings import Settings
from bitrix_cdn.settings.inventory import GROUPS

LOOPBACK = "127.0.0.1"
BEHIND = "127.0.0.2"
"""Where programs listen that have the gate in front of them, at the same ports: see `roles/gate.py`."""
GATED = frozenset({"cdn", "edge", "monitoring"})
"""The groups of the hosts that have a gate: others show how they are, and nothing else."""
HOST_KEY = "/etc/ssh/ssh_host_ed25519_key.pub"
"""What a host is known by to its peer."""


class Addresses(FactBase[dict[str, list[str]]]):
    """The addresses that names have as this host sees them, and under `""` the host's own ones."""

    default = dict

    def command(self, names: Sequence[str]) -> str:
        quoted = " ".join(map(shlex.quote, names))
        return (
            f'for n in {quoted}; do echo "$n" $(getent ahosts "$n" | cut -d " " -f 1 | sort -u); done; '
            'echo "" $(ip -o address show scope global | sed -E "s|.* inet6? ([^/ ]+).*|\\1|"); true'
        )

    def process(self, output: Iterable[str]) -> dict[str, list[str]]:
        lines = [line.split(" ") for line in output]
        return {name: [one for one in addresses if one] for name, *addresses in lines}


def members(group: str) -> list[Host]:
    """The hosts of a group; none where the inventory hasn't got it."""
    return list(inventory.get_group(group, default=[]))


def peer() -> Host:
    """The host on the other side of this one's mount."""
    return members("cdn" if "bitrix" in host.groups else "bitrix")[0]


def everybody() -> list[Host]:
    """All hosts, each once."""
    return list({one.name: one for group in GROUPS for one in members(group)}.values())


def addresses_of(hosts: Iterable[Host], what: str) -> list[str]:
    """The addresses of other hosts as numbers, as this host sees them; those of this host are left out.

    :param what: what they are, for the error's text, such as `the balancer`.
    :raises PyinfraError: a host's name leads nowhere on this host.
    """
    names = [one.data.address for one in hosts if one.name != host.name]
    found = host.get_fact(Addresses, names=names) if names else {}
    for name in names:
        if not found.get(name):
            raise PyinfraError(f"{host.name}: {what}'s address {name} leads nowhere from here")
    return list(dict.fromkeys(one for name in names for one in found[name]))


def own_address() -> str:
    """The address that the other hosts know this one by, as a number; empty where it doesn't have it."""
    found = host.get_fact(Addresses, names=[host.data.address])
    own = [address for address in found.get(host.data.address, []) if address in found.get("", [])]
    return own[0] if own else ""


def monitoring_hosts() -> list[Host]:
    """The monitoring hosts."""
    return members("monitoring")


def asked_from_elsewhere(target: Host, settings: Settings) -> bool:
    """Whether anybody but the host itself asks its exporters."""
    others = any(one.name != target.name for one in monitoring_hosts())
    return others or bool(settings.monitoring.exporters.allowed)


def asked_at(target: Host, settings: Settings) -> str:
    """The address, or name, at which all of Prometheus asks a host's exporters."""
    return target.data.address if asked_from_elsewhere(target, settings) else LOOPBACK


def listening_address(settings: Settings) -> str:
    """Where this host's exporters listen; empty: on all of its addresses.

    That is the case where the host doesn't have the address that others know it by, such as behind NAT; the
    firewall closes it to all but the monitoring hosts in any case.
    """
    if not asked_from_elsewhere(host, settings):
        return LOOPBACK
    return own_address()


def askers(settings: Settings) -> list[str]:
    """Addresses and networks besides this host's own that may ask its exporters, as numbers.

    :raises PyinfraError: a monitoring host's name leads nowhere on this host.
    """
    return [*addresses_of(monitoring_hosts(), "the monitoring host"), *settings.monitoring.exporters.allowed]


def bracketed(address: str) -> str:
    """An address or name as it stands before a colon and a port."""
    try:
        return f"[{address}]" if ipaddress.ip_address(address).version == 6 else address
    except ValueError:
        return address


def reloads(program: str, port: int) -> str:
    """A command that prints when a program of Prometheus' last read its files again."""
    metric = f"{program}_config_last_reload_success_timestamp_seconds"
    return f"curl -s -m 5 http://{BEHIND}:{port}/metrics | grep ^{metric}"
