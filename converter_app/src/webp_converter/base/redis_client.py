"""Connections to Redis, as the converter's user where the instance has one."""

from __future__ import annotations

from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.credentials import CredentialProvider
from redis.retry import Retry


class _FromFile(CredentialProvider):
    """Reads the password at each connection: it may have been replaced since the last one."""

    def __init__(self, user: str, password_file: Path) -> None:
        self._user = user
        self._password_file = password_file

    def get_credentials(self) -> tuple[str, str]:
        try:
            return self._user, self._password_file.read_text("ascii").strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "no password"
            raise redis.AuthenticationError(f"{self._password_file}: {reason}") from error


def connection(url: str, user: str, password_file: str, *, answer_s: float, connect_s: float) -> redis.Redis:
    """A client that connects when it is first used.

    :param user: empty: whoever connects without a name.
    :param password_file: of that user.
    :param answer_s: seconds that Redis has to answer.
    :param connect_s: seconds that it has to take the connection.
    """
    return redis.Redis.from_url(
        url,
        # Who calls decides what an outage means; a hidden retry would only hold him up.
        retry=Retry(NoBackoff(), 0),
        socket_timeout=answer_s,
        socket_connect_timeout=connect_s,
        credential_provider=_FromFile(user, Path(password_file)) if user else None,
        # A user that may do what is needed and no more may not tell its library either.
        driver_info=None,
    )
