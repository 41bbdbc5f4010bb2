"""The footprints of all roles on a host; see :mod:`bitrix_cdn.engine.footprint`."""

from __future__ import annotations

import importlib
from collections.abc import Iterator

from pyinfra import host
from pyinfra.api import Host

from bitrix_cdn.engine.footprint import Footprint, Place, Port
from bitrix_cdn.settings import Settings
from roles.topology import members

ROLES = (
    *(
        "base",
        "agent",
        "baseline",
        "firewall",
        "sshd",
        "sftp",
        "mounts",
        "lab_site",
        "nginx",
        "originals",
        "varnish",
        "redis",
        "converter",
    ),
    *("balancer", "logs", "acme", "exporters", "prometheus", "alertmanager", "grafana", "gate", "backup"),
)
"""Those that declare one, in the order of the docs."""


def footprints(place: Place) -> dict[str, Footprint]:
    """What each role takes of a host, by role."""
    # Only now: some of them ask here themselves.
    return {role: importlib.import_module(f"roles.{role}").footprint(place) for role in ROLES}


def place_of(one: Host, settings: Settings) -> Place:
    """A host of the inventory."""
    return Place(
        settings,
        frozenset(one.groups),
        edges=bool(members("edge")),
        balanced=bool(members("balancer")),
        ssh_port=one.data.get("ssh_port", 22),
    )


def ports(place: Place) -> Iterator[Port]:
    """All ports that the roles listen on."""
    for taken in footprints(place).values():
        yield from taken.ports


def own_ports(settings: Settings) -> list[Port]:
    """Those of this host."""
    return list(ports(place_of(host, settings)))


_INTRODUCTION = """\
# Ports, accounts and directories

What each role takes of a host, with the default settings, TLS, Grafana, edges and a balancer. Made from what
the roles declare, by `bitrix-cdn docs`; a test compares them. The firewall,
the drift check, Prometheus and the backups read it in the same place: `footprint` in the role's module.

The firewall closes a port to all but those who may ask it, and on all hosts but the shop's whatever isn't
listed here or in `drift.ports` ([hardening.md](hardening.md)).
"""


def document() -> str:
    """The text of docs/footprints.md."""
    settings = Settings.model_validate({"tls": {"mode": "self-signed"}, "monitoring": {"grafana": _GRAFANA}})
    lines = [_INTRODUCTION]
    for group in ("bitrix", "cdn", "edge", "balancer", "monitoring"):
        lines += [
            f"## On a host of `{group}`",
            "",
            "| role | port | who may ask | what answers |",
            "|---|---|---|---|",
        ]
        taken = footprints(Place(settings, frozenset({group}), edges=True, balanced=True))
        for role, one in taken.items():
            lines += [
                f"| {role} | {port.number}/{port.protocol} | {_ASKERS[port.reach]} | {port.what} |"
                for port in one.ports
            ]
        for what, key in (
            ("Accounts", "accounts"),
            ("Directories in which every file is the project's or a package's", "trees"),
            ("Configuration in the backups", "saved"),
            ("Packages", "packages"),
            ("Beside its templates, the project's alone: removed by `bitrix-cdn remove`", "owned"),
            ("Data: removed with `--data` alone", "data"),
        ):
            names = dict.fromkeys(name for one in taken.values() for name in getattr(one, key))
            if names:
                lines += ["", f"{what}: {', '.join(f'`{name}`' for name in names)}"]
        lines.append("")
    return "\n".join(lines)


_GRAFANA = {"enabled": True}
_ASKERS = {
    "everybody": "everybody",
    "edges": "edges and the balancer",
    "monitoring": "monitoring hosts",
    "host": "the host itself",
}
