"""What a host may have: from its roles, from its distribution, and by the settings."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from bitrix_cdn.engine.footprint import Place, Port
from roles.footprints import footprints

# Made by packages that the roles install, where these don't declare it to systemd.
ACCOUNTS_OF_PACKAGES = frozenset(
    {
        *("_apt", "_chrony", "grafana", "haproxy", "messagebus", "mtail", "polkitd", "prometheus", "redis"),
        *("sshd", "systemd-coredump", "systemd-network", "systemd-resolve", "systemd-timesync"),
        *("varnish", "varnishlog", "vcache"),
    }
)

# What Debian's own services listen on: name resolution on loopback, DHCP, the clock.
DISTRIBUTION = ("53/tcp local", "53/udp local", "68/udp", "546/udp", "123/udp", "323/udp local")

# What the images of hosting providers have in the directories that we look at.
FILES_OF_PROVIDERS = ("/etc/sudoers.d/90-cloud-init-users", "/etc/ssh/sshd_config.d/50-cloud-init.conf")


@dataclass(frozen=True)
class Ports:
    """A range of ports that something may listen on."""

    first: int
    last: int
    protocol: str
    local: bool = False
    """On loopback only."""

    @classmethod
    def of(cls, port: Port, *, asked: bool) -> Ports:
        """A port of a role; what monitoring asks is on loopback too, unless another host asks."""
        local = port.reach == "host" or (port.reach == "monitoring" and not (asked or port.anywhere))
        return cls(port.number, port.number, port.protocol, local)

    @classmethod
    def read(cls, text: str) -> Ports:
        """From a setting such as `25/tcp`, with `local` behind it where that's all."""
        listener, _, scope = text.partition(" ")
        ports, _, protocol = listener.partition("/")
        first, _, last = ports.partition("-")
        return cls(int(first), int(last or first), protocol, scope == "local")


@dataclass(frozen=True)
class Expected:
    """What a host may have."""

    ports: list[Ports] | None
    """None: its ports aren't judged."""
    accounts: frozenset[str]
    """Beside those that packages declare; they may log in if they are among `operators`."""
    operators: frozenset[str]
    """Accounts that may log in and be administrators."""
    strict: bool
    """Whether any other account is one too many."""
    keys: frozenset[str] | None
    """Fingerprints; None: keys aren't judged."""
    files: tuple[str, ...]
    """Patterns of paths."""
    trees: list[str] = field(default_factory=list)
    directories: list[str] = field(default_factory=list)
    """See :meth:`bitrix_cdn.drift.inspection.Look.command`."""
    units: frozenset[str] = frozenset()
    """Those that the deploy runs."""

    @property
    def udp(self) -> list[int]:
        """Single ports of UDP that are expected."""
        return [one.first for one in self.ports or [] if one.protocol == "udp" and one.first == one.last]


def expected(
    place: Place,
    units: Iterable[str],
    *,
    ssh_user: str,
    asked: bool,
    everything: bool = False,
) -> Expected:
    """What a host may have.

    :param units: those that the deploy runs there.
    :param asked: whether another host asks its exporters.
    :param everything: judge also what the settings leave alone.
    """
    own, shop = place.settings.drift, place.among("bitrix")
    taken = footprints(place).values()
    judged = not shop or own.site_ports is not None or everything
    allowed = (own.site_ports or []) if shop else own.ports
    ports = [
        *(Ports.of(port, asked=asked) for one in taken for port in one.ports),
        *map(Ports.read, (*DISTRIBUTION, *allowed)),
    ]
    strict = not shop or own.site_accounts is not None or everything
    administrators = {"root", ssh_user, *own.accounts, *((own.site_accounts or []) if shop else ())}
    keys = frozenset(own.keys) if own.keys is not None else frozenset() if everything else None
    units = frozenset(units)
    return Expected(
        ports=ports if judged else None,
        accounts=ACCOUNTS_OF_PACKAGES.union(*(one.accounts for one in taken)),
        operators=frozenset(administrators),
        strict=strict,
        keys=keys,
        files=(*FILES_OF_PROVIDERS, *own.files),
        trees=list(dict.fromkeys(tree for one in taken for tree in one.trees)),
        directories=[
            *([] if shop else ["/etc/systemd/system"]),
            *(path for unit in sorted(units) for path in places(unit)),
        ],
        units=units,
    )


def places(unit: str) -> list[str]:
    """Where a unit could be replaced or added to, in an order of no meaning."""
    name, at, rest = unit.partition("@")
    names = [unit, f"{name}@.{rest.rpartition('.')[2]}"] if at else [unit]
    above = ("/etc/systemd/system", "/run/systemd/system", "/etc/systemd/system.control")
    return [f"{place}/{one}{end}" for place in above for one in names for end in ("", ".d")]
