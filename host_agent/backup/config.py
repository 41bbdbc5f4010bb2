"""The configuration of this host's backup, written by the deploy."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from host_agent.backup.errors import BackupError

CONFIG = Path("/etc/bitrix-cdn/backup/config.toml")


@dataclass(frozen=True)
class Redis:
    """One instance of Redis."""

    name: str
    socket: str
    directory: str
    """Of its data."""
    unit: str


@dataclass(frozen=True)
class Config:
    """`/etc/bitrix-cdn/backup/config.toml`, written by the deploy."""

    host: str
    """The name in the inventory, by which snapshots are filed."""
    repository: str
    """In restic's notation, this host's own."""
    password_file: str
    sftp_command: str
    """Command that starts an sftp session; empty: the repository is a path."""
    public_key: str
    """File with the key that the repository's server must accept; empty likewise."""
    state: str
    """Directory of what is remembered, and of what is prepared for a snapshot."""
    cache: str
    metrics: str
    """Directory that node_exporter's textfile collector reads."""
    bandwidth_kib_s: int
    keep_daily: int
    keep_weekly: int
    keep_monthly: int
    check_percent: int
    identity: list[str]
    """What must be in place before the deploy: keys, tokens, certificates. Patterns of names at the end."""
    configuration: list[str]
    """Kept to look things up; the deploy makes it again."""
    excluded: list[str]
    with_pictures: bool
    """Whether the pictures are saved, too."""
    pictures: list[str]
    """Trees of pictures; where they are restored to, whether or not they are still saved."""
    spool: str
    """Directory in which the shop's pictures wait while it isn't a mount; empty: none on this host."""
    redis: list[Redis]
    prometheus: str
    """Directory of Prometheus' data; empty: none on this host. The same for the following."""
    alertmanager: str
    grafana: str
    picture_users: list[str]
    """Units that read or write pictures: stopped while these are put back. The deploy starts them again."""
    data_users: list[str]
    """Units that use the data of others: stopped while that is put back, then started."""
    services: list[str]
    """Units that must run when a restore is finished."""


def load(path: Path = CONFIG) -> Config:
    """Reads the configuration.

    :raises BackupError: it isn't there, or isn't what this version expects.
    """
    try:
        values: dict[str, Any] = tomllib.loads(path.read_text())
    except OSError as error:
        raise BackupError(f"{path}: {error.strerror}") from None
    except ValueError as error:
        raise BackupError(f"{path}: {error}") from None
    names = {field.name for field in fields(Config)}
    if differing := names ^ set(values):
        raise BackupError(f"{path}: {sorted(differing)[0]}: unknown or missing; deploy again")
    try:
        redis = [Redis(**instance) for instance in values.pop("redis")]
    except TypeError as error:
        raise BackupError(f"{path}: redis: {error}; deploy again") from None
    return Config(redis=redis, **values)
