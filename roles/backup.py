"""Backups by restic: the command on each host, its units and timers, and the keys of the repository."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Generator, Iterable
from pathlib import PurePosixPath
from typing import Any

from pyinfra import host
from pyinfra.api import FactBase, StringCommand, deploy, operation

from bitrix_cdn.engine.files import Existing, File, directory, rendered, tree
from bitrix_cdn.engine.footprint import Footprint, Place
from bitrix_cdn.engine.keys import key_pair
from bitrix_cdn.engine.packages import packages
from bitrix_cdn.engine.services import running
from bitrix_cdn.settings import Settings
from bitrix_cdn.settings.backup import password_of
from host_agent.audit.log import DIRECTORY
from host_agent.backup.state import METRICS
from host_agent.redis import INSTANCES, socket_of
from roles import agent
from roles.footprints import footprints
from roles.nginx import CERTIFICATE
from roles.preflight import distribution
from roles.redis import TEXTFILES

HOME = "/etc/bitrix-cdn/backup"
CONFIG = f"{HOME}/config.toml"
PASSWORD = f"{HOME}/password"
KEY = f"{HOME}/ssh/id_ed25519"
KNOWN_HOSTS = f"{HOME}/known_hosts"
SSH_CONFIG = f"{HOME}/ssh_config"
COMMAND = "/usr/local/bin/bitrix-cdn-backup"
STATE = "/var/lib/bitrix-cdn/backup"
CACHE = "/var/cache/bitrix-cdn-backup"
PROMETHEUS = "/var/lib/prometheus/metrics2"
PACKAGES = ("restic", "python3", "openssh-client")
UNITS = ("bitrix-cdn-backup", "bitrix-cdn-backup-check", "bitrix-cdn-backup-drill")
TIMERS = tuple(f"{unit}.timer" for unit in UNITS)


def footprint(place: Place) -> Footprint:
    """What this role takes of a host."""
    own = place.settings.backup
    if not own.repository:
        return Footprint()
    return Footprint(
        packages=PACKAGES,
        owned=(CACHE, f"{metrics(place.settings)}/{METRICS}"),
        data=() if own.sftp else (own.repository,),
    )


@deploy("Backup")
def backup(settings: Settings) -> None:
    if not settings.backup.repository:
        no_longer(name="Disable backups", metrics=metrics(settings))
        return
    packages("Install restic", distribution(settings), PACKAGES)
    if settings.backup.sftp:
        key_pair(name="Create the SSH key for the backup repository", path=KEY, comment=comment(host.name))
    else:
        directory(name="Create the repository's directory", path=settings.backup.repository, mode="700")
    for path in (STATE, CACHE):
        directory(name=f"Create {path}", path=path, mode="700")
    directory(name="Create the directory for metrics", path=metrics(settings), mode="755")
    written = command_files(settings, host.name, host.groups)
    tree(name="Install the backup command, its settings and units", files=written, root="/")
    units = [file.path for file in written if file.path.startswith("/etc/systemd/")]
    for timer in TIMERS:
        running(name=f"Enable {timer}", unit=timer, start=units)


def comment(name: str) -> str:
    """What the key of a host says of itself."""
    return f"bitrix-cdn backup of {name}"


def metrics(settings: Settings) -> str:
    """The directory that node_exporter reads."""
    return settings.mounts.metrics or TEXTFILES


def command_files(settings: Settings, name: str, groups: Collection[str]) -> list[File]:
    """All files of the role on one host; `bitrix-cdn restore` writes them to a bare one.

    :param name: the host's name in the inventory.
    :param groups: its groups.
    :raises PyinfraError: the password isn't where the settings say; no host was touched yet.
    """
    own = settings.backup
    config = configuration(settings, name, groups)
    sftp = (SSH_CONFIG, KNOWN_HOSTS)
    made = rendered(
        "backup",
        owners={
            CONFIG: ("600", "root", "root"),
            COMMAND: ("755", "root", "root"),
            # In the directory of the key, which is closed.
            **dict.fromkeys(sftp if own.sftp else (), ("600", "root", "root")),
        },
        only=[
            CONFIG,
            COMMAND,
            *(f"/etc/systemd/system/{unit}.{kind}" for unit in UNITS for kind in ("service", "timer")),
            *(sftp if own.sftp else ()),
        ],
        settings=settings,
        sftp=own.sftp,
        config={key: value for key, value in config.items() if key != "redis"},
        redis=config["redis"],
        key=KEY,
        known_hosts=KNOWN_HOSTS,
        agent=agent.COMMAND,
        command=COMMAND,
        writable=[
            STATE,
            CACHE,
            metrics(settings),
            *([] if own.sftp else [own.repository]),
            *([str(PurePosixPath(PROMETHEUS).parent)] if config["prometheus"] else []),
        ],
        # A shop may lie in one, as BitrixVM's does, and what waits in its spool is saved.
        homes="read-only" if "bitrix" in groups else "yes",
        # Another host's files, and a mount that may hang.
        hidden=[f"-{settings.cdn.originals_parent}"] if "cdn" in groups else [f"-{settings.sftp.export}"],
    )
    password = File(PASSWORD, f"{password_of(own)}\n", mode="600")
    return [*made, password]


def configuration(settings: Settings, name: str, groups: Collection[str]) -> dict[str, Any]:
    """What :class:`host_agent.backup.config.Config` reads, for one host."""
    own = settings.backup
    sftp = own.sftp
    cdn, bitrix, monitoring = ("cdn" in groups, "bitrix" in groups, "monitoring" in groups)
    instances = [
        {
            "name": instance,
            "socket": str(socket_of(instance)),
            "directory": f"/var/lib/redis/{instance}",
            "unit": f"redis-server@{instance}.service",
        }
        for instance in (INSTANCES if cdn else ())
    ]
    return {
        "host": name,
        "repository": f"{own.repository}/{name}",
        "password_file": PASSWORD,
        "sftp_command": f"ssh -F {SSH_CONFIG} -s repository sftp" if sftp else "",
        "public_key": f"{KEY}.pub" if sftp else "",
        "state": STATE,
        "cache": CACHE,
        "metrics": metrics(settings),
        "bandwidth_kib_s": own.bandwidth_kib_s,
        "keep_daily": own.keep_daily,
        "keep_weekly": own.keep_weekly,
        "keep_monthly": own.keep_monthly,
        "check_percent": own.check_percent,
        "identity": identity(settings, groups),
        "configuration": sorted(
            path for taken in footprints(Place(settings, frozenset(groups))).values() for path in taken.saved
        ),
        "excluded": [
            # What opens the backups is no part of them; a host that is reinstalled makes its own key.
            HOME,
            f"{settings.cdn.root}/.webp-converter",
            f"{settings.cdn.root}/.transfer",
            f"{settings.cdn.variants}/.webp-converter",
            "*.bitrix-cdn-new",
        ],
        "with_pictures": own.pictures and cdn,
        "pictures": [settings.cdn.resize_cache, settings.cdn.variants] if cdn else [],
        "spool": settings.site.resize_cache if bitrix else "",
        "redis": instances,
        "prometheus": PROMETHEUS if monitoring else "",
        "alertmanager": "/var/lib/alertmanager" if monitoring else "",
        "grafana": "/var/lib/grafana" if monitoring and settings.monitoring.grafana.enabled else "",
        "picture_users": [
            "nginx.service",
            "nginx-originals.service",
            "edge-probe-picture.timer",
            "webp-converter.service",
        ]
        if cdn
        else [],
        "data_users": ["webp-converter.service"] if cdn else [],
        "services": [
            *(instance["unit"] for instance in instances),
            *(["nginx.service", "varnish.service", "webp-converter.service"] if cdn else []),
            *(["prometheus.service", "prometheus-alertmanager.service"] if monitoring else []),
        ],
    }


def identity(settings: Settings, groups: Collection[str]) -> list[str]:
    """What makes a host that host, to the other hosts and to visitors: the deploy can't make it again."""
    found = ["/etc/ssh/ssh_host_*", "/etc/bitrix-cdn", str(DIRECTORY)]
    if "cdn" in groups:
        found.append(str(settings.converter.api.token_file))
    if {"cdn", "edge"} & set(groups):
        tls = settings.tls
        found.append(str(PurePosixPath(CERTIFICATE).parent))
        found += ["/etc/letsencrypt"] if tls.mode == "acme" else []
        found += [path for path in (tls.certificate, tls.key) if path]
    return found


class ActiveUnits(FactBase[list[str]]):
    """Those of the given units that are running or enabled."""

    default = list

    def command(self, units: Iterable[str]) -> str:
        quoted = " ".join(map(shlex.quote, units))
        return (
            f"for u in {quoted}; do systemctl is-active -q $u || systemctl is-enabled -q $u 2>/dev/null "
            "|| continue; echo $u; done; true"
        )

    def process(self, output: Iterable[str]) -> list[str]:
        return list(output)


@operation()
def no_longer(metrics: str) -> Generator[StringCommand, None, None]:
    """Stops the timers of a host whose backups were switched off; its password and metrics go.

    + metrics: the directory of the metrics
    """
    paths = [f"/etc/systemd/system/{unit}.{kind}" for unit in UNITS for kind in ("service", "timer")]
    paths += [CONFIG, PASSWORD, f"{metrics}/{METRICS}"]
    present = host.get_fact(Existing, paths=paths)
    active = host.get_fact(ActiveUnits, units=TIMERS) if present else []
    if not present and not active:
        host.noop("no backups are made")
        return
    if active:
        yield StringCommand(f"systemctl disable -q --now {' '.join(active)}")
    quoted = " ".join(map(shlex.quote, present))
    yield StringCommand(f"rm -f {quoted} && systemctl daemon-reload")
