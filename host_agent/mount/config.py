"""A guard's configuration: one TOML file a mount, in which each key must be known and each value typed."""

from __future__ import annotations

import tomllib
from dataclasses import MISSING, dataclass, fields, replace
from pathlib import Path
from typing import Any

from host_agent.mount.linux import resolved

DIRECTORY = Path("/etc/mount-guard")
RUN = Path("/run/mount-guard")
STATE = Path("/var/lib/mount-guard")


class ConfigError(Exception):
    """The file can't be used; the text is one line that names the key."""


@dataclass(frozen=True)
class Config:
    """One mount. Times are seconds."""

    name: str
    mount_point: str
    """The real path, an ordinary directory while nothing is mounted."""
    remote_path: str
    """The directory on the other host, as its sftp server shows it."""
    ssh_config: str
    """OpenSSH client configuration in which the other host is called `peer`."""
    known_hosts: str
    """File with the other host's pinned key, which messages name."""
    options: str
    """sshfs options, without uid and gid."""
    owner: str
    """Account that owns the files as this host sees them."""
    group: str
    spool: bool
    """Whether what is written into the ordinary directory is pushed to the other host."""
    push_workers: int
    """Files pushed at the same time."""
    push_first: float
    """For the push before the mount is laid over the spool; what is left then follows from below it."""
    probe_interval: float
    """From an answer to the next question."""
    probe_timeout: float
    """Without an answer for that long, the mount is given up."""
    connect_timeout: float
    """For sshfs to connect and answer."""
    retry_min: float
    """Pause before the first try after a failure; doubled with each further one."""
    retry_max: float
    min_free: int
    """Bytes free on the other host below which the site writes into its spool instead; 0: never."""
    metrics: str
    """Directory of node_exporter's textfile collector; empty: no metrics."""
    hold: str
    """While this path exists, the directory below the mount is somebody else's: it is left alone."""
    push_largest: int = 1_000_000_000
    """Bytes of the largest file that is pushed, holes included. One that is larger stays in the spool."""

    @property
    def run(self) -> Path:
        """What lives no longer than the host: private mounts and the status."""
        return RUN / self.name

    @property
    def private(self) -> str:
        """Where sshfs mounts."""
        return str(self.run / "remote")

    @property
    def below(self) -> str:
        """The ordinary directory, whatever is mounted over it: its parent is bound next to `private`."""
        return str(self.run / "below" / Path(self.mount_point).name)

    @property
    def state(self) -> Path:
        """What must survive a power loss."""
        return STATE / self.name

    @property
    def held(self) -> bool:
        """Whether the directory below is somebody else's, see `marker` and `hold`."""
        return not self.marker.exists() or Path(self.hold).exists()

    @property
    def marker(self) -> Path:
        """Exists once the directory below was seen empty under the mount: what appears there later was
        written during an outage and is the guard's to push."""
        return self.state / "spool"


def parse(name: str, text: str) -> Config:
    """Returns the mount that a TOML text describes.

    :raises ConfigError: a key is unknown or missing, or its value is of another type.
    """
    try:
        given: dict[str, Any] = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(str(error)) from None
    known = {field.name: str(field.type) for field in fields(Config) if field.name != "name"}
    if unknown := sorted(given.keys() - known.keys()):
        raise ConfigError(f"unknown key {unknown[0]}")
    required = {field.name for field in fields(Config) if field.default is MISSING} - {"name"}
    if missing := sorted(required - given.keys()):
        raise ConfigError(f"{missing[0]} is missing")
    for key, value in given.items():
        kind = known[key]
        if type(value).__name__ not in ({"int", "float"} if kind == "float" else {kind}):
            raise ConfigError(f"{key} = {value!r}: {kind} is needed")
    return Config(name=name, **given)


def load(name: str) -> Config:
    """Reads `/etc/mount-guard/NAME.toml`, and follows symbolic links to where its mount point really is.

    :raises ConfigError: it isn't there or can't be used.
    """
    path = DIRECTORY / f"{name}.toml"
    try:
        config = parse(name, path.read_text())
        return replace(config, mount_point=resolved(config.mount_point))
    except RuntimeError as error:  # a loop of symbolic links
        raise ConfigError(str(error)) from None
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
