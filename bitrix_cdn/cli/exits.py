"""The exit statuses of all commands."""

from __future__ import annotations

from enum import IntEnum

from bitrix_cdn.fleet import HostError, RefusedError, UsageError
from host_agent.backup.errors import BackupError, Status

HELP = (
    "Exit status: 0 fine; 1 failed; 2 a wrong command or inventory; 3 the hosts differ; 4 refused, or held "
    "by somebody else; 130 interrupted."
)


class Exit(IntEnum):
    """How a command ended."""

    FINE = 0
    FAILED = 1
    USAGE = 2
    DIFFERENCES = 3
    REFUSED = 4
    INTERRUPTED = 130


_OF_BACKUPS = {Status.USAGE: Exit.USAGE, Status.LOCKED: Exit.REFUSED, Status.LIVE: Exit.REFUSED}


def foreseen(error: Exception) -> bool:
    """Whether it is told in one line."""
    if isinstance(error, HostError | BackupError | OSError):
        return True
    from pyinfra.api.exceptions import PyinfraError

    return isinstance(error, PyinfraError)


def of(error: BaseException) -> Exit:
    """The status that an error ends a command with."""
    if isinstance(error, BackupError):
        return _OF_BACKUPS.get(error.status, Exit.FAILED)
    if isinstance(error, UsageError):
        return Exit.USAGE
    return Exit.REFUSED if isinstance(error, RefusedError) else Exit.FAILED
