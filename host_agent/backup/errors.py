"""The errors, each with the exit status by which the operator's machine distinguishes it."""

from __future__ import annotations

import re
from enum import IntEnum


class Status(IntEnum):
    """Exit statuses, the same on the hosts and on the operator's machine."""

    FAILED = 1
    USAGE = 2
    WRONG_PASSWORD = 3
    LOCKED = 4
    NO_REPOSITORY = 5
    DISK_FULL = 6
    LIVE = 7
    """A restore would overwrite a host that is in use."""


class BackupError(Exception):
    """One line for the operator, and an exit status."""

    def __init__(self, text: str, status: Status = Status.FAILED) -> None:
        super().__init__(text)
        self.status = status


# What restic (0.14 to 0.18) and ssh say, in the order in which it matters.
_KNOWN = (
    (r"wrong password or no key found", Status.WRONG_PASSWORD, "the password is not the repository's"),
    (r"(repository is already locked.*)", Status.LOCKED, "the repository is locked: {0}"),
    (r"no space left on device|disk quota exceeded|ENOSPC", Status.DISK_FULL, "no space is left"),
    (
        r"Permission denied \(",
        Status.NO_REPOSITORY,
        (
            "its server refuses this host's key; add this line to ~/.ssh/authorized_keys there: "
            'restrict,command="internal-sftp" {key}'
        ),
    ),
    (
        r"Host key verification failed|REMOTE HOST IDENTIFICATION HAS CHANGED|host key is known",
        Status.NO_REPOSITORY,
        "its server shows another host key than backup.sftp_host_key; nothing was sent to it",
    ),
    (
        (
            r"(Connection refused|Connection timed out|No route to host|Could not resolve hostname[^\n]*"
            r"|Connection closed by[^\n]*|Network is unreachable|Operation timed out)"
        ),
        Status.NO_REPOSITORY,
        "its server can't be reached: {0}",
    ),
    (
        r"Is there a repository at the following location|unable to open config file",
        Status.NO_REPOSITORY,
        "there is no repository there",
    ),
)


def explain(said: str, repository: str, public_key: str = "") -> BackupError:
    """What is wrong, in one line, from what restic and ssh print.

    :param public_key: the line that the repository's server must have among its authorized keys.
    """
    for pattern, status, text in _KNOWN:
        if match := re.search(pattern, said, re.IGNORECASE):
            found = [" ".join((group or "").split()) for group in match.groups()]
            return BackupError(f"{repository}: {text.format(*found, key=public_key)}", status)
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    last = next((line for line in reversed(lines) if line.startswith("Fatal:")), lines[-1] if lines else "")
    if re.match(r"Fatal: There were \d+ errors", last):  # how many, but not what
        last = next((line for line in lines if line.startswith("ignoring error for ")), last)
        last = last.removeprefix("ignoring error for ")
    return BackupError(
        f"{repository}: {last.removeprefix('Fatal:').strip() or 'restic failed and said nothing'}"
    )
