"""Passwords, and one-time codes of an authenticator (RFC 6238)."""

from __future__ import annotations

import hmac
from typing import Final

import pyotp
from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerifyMismatchError

from web_kit.errors import RefusedError

LEAST: Final = 12
MOST: Final = 256
"""Characters; more would only cost time."""

_STEP_S = 30


def check(name: str, password: str) -> None:
    """
    :raises RefusedError: the password is too easy to guess.
    """
    if not LEAST <= len(password) <= MOST:
        raise RefusedError(422, "a password has {least} to {most} characters", least=LEAST, most=MOST)
    if name.casefold() in password.casefold() or len(set(password)) < 5:
        raise RefusedError(422, "the password is too easy to guess")


class Passwords:
    """Hashes of passwords, argon2id."""

    def __init__(self, hasher: PasswordHasher | None = None) -> None:
        self._hasher = hasher or PasswordHasher()
        # What is verified for an account that isn't there, so that it takes as long.
        self._nobody = self._hasher.hash("nobody")

    def hash(self, password: str) -> str:
        return self._hasher.hash(password)

    def is_right(self, hash: str | None, password: str) -> bool:
        """Takes as long where there is no hash."""
        try:
            return self._hasher.verify(hash or self._nobody, password[:MOST]) and hash is not None
        except (VerifyMismatchError, InvalidHashError):
            return False

    def is_outdated(self, hash: str) -> bool:
        """Whether it was made with other parameters than those of now."""
        return self._hasher.check_needs_rehash(hash)


def new_secret() -> str:
    return pyotp.random_base32()


def address_of(secret: str, name: str, application: str) -> str:
    """What an authenticator reads from a QR code."""
    return pyotp.TOTP(secret).provisioning_uri(name=name, issuer_name=application)


def step_of(secret: str, code: str, now: float) -> int | None:
    """The time step that a code is of; None: it is wrong. A clock may differ by one step."""
    given = code.replace(" ", "")
    totp = pyotp.TOTP(secret)
    found = None
    for step in range(int(now) // _STEP_S - 1, int(now) // _STEP_S + 2):
        right = hmac.compare_digest(totp.at(step * _STEP_S).encode(), given.encode())
        found = step if right else found
    return found
