"""Settings of the backup: where, when, for how long, and its password."""

from __future__ import annotations

import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator
from pyinfra.api.exceptions import PyinfraError

from bitrix_cdn.settings.alerting import Secret, secret
from bitrix_cdn.settings.types import Port, Section

_SFTP = re.compile(r"sftp:([a-z_][a-z0-9_-]{0,31})@([A-Za-z0-9.-]+):((?:/[A-Za-z0-9._+-]+)+)")
_HOST_KEY = r"^((ssh-ed25519|ssh-rsa|ecdsa-sha2-nistp(256|384|521)) [A-Za-z0-9+/]+=*)?$"


Day = Literal["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"]


def _repository(text: str) -> str:
    place = text.rpartition(":")[2]
    allowed = re.fullmatch(r"(/[A-Za-z0-9._+-]+)+", text) or _SFTP.fullmatch(text)
    if text and (not allowed or ".." in place.split("/")):
        raise ValueError(
            "/path or sftp:user@host:/path is allowed, without a trailing slash; empty: no backup"
        )
    return text


@dataclass(frozen=True)
class SftpTarget:
    """A repository that is reached over sftp."""

    user: str
    host: str
    path: str


class BackupSettings(Section):
    """Backups by restic. Each host backs itself up and encrypts its data before sending: docs/backup.md."""

    repository: Annotated[str, AfterValidator(_repository)] = ""
    """Where backups are stored: `/path` on the host itself (another disk, a network file system) or
    `sftp:user@host:/path`. Each host has a directory of its name there. Empty: no backups."""

    sftp_port: Port = 22
    """Port of that SSH server."""

    sftp_host_key: Annotated[str, Field(pattern=_HOST_KEY)] = ""
    """Its public host key, as in its `/etc/ssh/ssh_host_ed25519_key.pub`, without the comment. A server with
    another key is refused."""

    password: Secret = ""
    """The password that encrypts the backups: `file:PATH` or `env:NAME` on the machine that deploys.
    `bitrix-cdn backup init` makes such a file. Keep a copy elsewhere: without it no backup can be read."""

    at: Annotated[str, Field(pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]$")] = "02:30"
    """Time of the daily backup, by the host's clock. A missed one is made at the next boot."""

    spread_min: Annotated[int, Field(ge=0, le=720)] = 30
    """Minutes (0 to 720) of random delay for each host, so that not all start at once."""

    check_day: Day = "Sun"
    """Day of the week when expired backups are removed and the repository is checked."""

    check_percent: Annotated[int, Field(ge=0, le=100)] = 5
    """Percentage (0 to 100) of the stored data that this check reads, another part each time; 0: none."""

    drill_day: Day = "Wed"
    """The day of the week when the last backup is restored beside what is there and compared with what was
    saved."""

    keep_daily: Annotated[int, Field(ge=1, le=3650)] = 7
    """Days (1 to 3650) for each of which the last backup is kept."""

    keep_weekly: Annotated[int, Field(ge=0, le=520)] = 4
    """Weeks (0 to 520) for each of which the last backup is kept."""

    keep_monthly: Annotated[int, Field(ge=0, le=120)] = 6
    """Months (0 to 120) for each of which the last backup is kept."""

    pictures: bool = False
    """Whether backups contain the pictures: `resize_cache/` and all variants. Without them the shop makes its
    pictures again after a restore, and the converter makes their variants."""

    bandwidth_kib_s: Annotated[int, Field(ge=0, le=10_000_000)] = 0
    """KiB a second of the network that a backup or restore may use; 0: no limit."""

    stale_h: Annotated[int, Field(ge=2, le=8760)] = 30
    """Hours (2 to 8760) after which a missing backup raises an alert."""

    @property
    def sftp(self) -> SftpTarget | None:
        """The repository's server; None: it is a path."""
        found = _SFTP.fullmatch(self.repository)
        return SftpTarget(*found.groups()) if found else None

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.repository and not self.password:
            raise ValueError(
                'repository needs password, such as "file:~/bitrix-cdn-backup-password" '
                "(bitrix-cdn backup init makes it)"
            )
        if self.sftp and not self.sftp_host_key:
            raise ValueError("an sftp repository needs sftp_host_key, the server's public host key")
        return self


def password_file(settings: BackupSettings) -> Path | None:
    """The file on this machine that the password is in; None: it is in the environment."""
    kind, _, place = settings.password.partition(":")
    return Path(place).expanduser() if kind == "file" else None


def password_of(settings: BackupSettings) -> str:
    """The password that the backups are encrypted with.

    :raises PyinfraError: it isn't there, or others may read its file; one line.
    """
    path = password_file(settings)
    if path is not None:
        try:
            mode = stat.S_IMODE(path.stat().st_mode)
        except OSError as error:
            raise PyinfraError(
                f"backup.password: {path}: {error.strerror} (bitrix-cdn backup init makes it)"
            ) from None
        if mode & 0o077:
            raise PyinfraError(f"backup.password: {path} has mode {mode:o}, others may read it; chmod 600")
    return secret(settings.password)
