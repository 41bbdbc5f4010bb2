"""The Redis instances of this host, and their users."""

from __future__ import annotations

import os
from pathlib import Path

INSTANCES = ("cache", "queue")

PASSWORDS = Path("/etc/bitrix-cdn/redis")
"""Directory of a file for each user of an instance, such as `queue-converter`."""

OPERATOR = "operator"
"""The user that may do anything; only root can read its password."""


def socket_of(instance: str) -> Path:
    """Where an instance listens."""
    return Path(f"/run/redis-{instance}/redis.sock")


def password_file(instance: str, user: str) -> Path:
    """Where a user's password is."""
    return PASSWORDS / f"{instance}-{user}"


def asking(socket: Path, password: Path, *command: str) -> tuple[list[str], dict[str, str]]:
    """The command that asks an instance as its operator, and its environment, as no list of processes must
    show the password.

    An instance that has no passwords is asked without one.

    :raises OSError: the password can't be read.
    """
    words = ["redis-cli", "-s", str(socket)]
    try:
        secret = password.read_text("ascii").strip()
    except FileNotFoundError:
        return [*words, *command], dict(os.environ)
    return [*words, "--user", OPERATOR, *command], {**os.environ, "REDISCLI_AUTH": secret}
