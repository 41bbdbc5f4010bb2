"""Authorisation of changes: by the token, or by the cookie of a browser that has sent the token.

A browser gets a cookie that is valid for an hour and doesn't reveal the token. Cookies of a host are sent to
all its ports, so the origin of each form is checked in addition to `SameSite`.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

COOKIE = "webp_converter_session"
SESSION_S = 3600

_TOKEN_CHARACTERS = 16


class RefusedError(Exception):
    """A request that is refused."""

    def __init__(self, status: int, detail: str) -> None:
        """`detail` is one line."""
        super().__init__(detail)
        self.status = status
        self.detail = detail


def token_in(file: Path) -> bytes:
    """Reads the token.

    :raises RefusedError: the file is missing, or the token is too short.
    """
    try:
        token = file.read_bytes().strip()
    except OSError as error:
        raise RefusedError(503, f"api.token_file {file}: {error.strerror}") from error
    if len(token) < _TOKEN_CHARACTERS:
        raise RefusedError(503, f"api.token_file {file}: fewer than {_TOKEN_CHARACTERS} characters")
    return token


def check_bearer(file: Path, authorization: str) -> None:
    """Checks the token in the header.

    :raises RefusedError: the header doesn't have it.
    """
    token = token_in(file)
    scheme, _, given = authorization.partition(" ")
    if is_token(token, given) and scheme.lower() == "bearer":
        return
    if authorization:
        raise RefusedError(401, "the token is wrong")
    raise RefusedError(401, "a token is needed: Authorization: Bearer TOKEN")


def is_token(token: bytes, given: str) -> bool:
    return hmac.compare_digest(given.strip().encode("utf-8", "surrogateescape"), token)


def session(token: bytes, now: float) -> str:
    """The cookie's value for a browser that has sent the token. `now`: seconds of the wall clock."""
    until = str(int(now) + SESSION_S)
    return f"{until}.{_seal(token, until)}"


def is_session(token: bytes, cookie: str, now: float) -> bool:
    """Whether a value was made with this token, and is still valid."""
    until, _, seal = cookie.partition(".")
    right = hmac.compare_digest(seal.encode("utf-8", "surrogateescape"), _seal(token, until).encode())
    return right and now < int(until)


def _seal(token: bytes, until: str) -> str:
    message = b"webp-converter session " + until.encode("utf-8", "surrogateescape")
    return hmac.digest(token, message, "sha256").hex()


def check_origin(headers: Mapping[str, str]) -> None:
    """Checks that the form was sent from this very address.

    :raises RefusedError: the browser doesn't say so.
    """
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    from_here = site is not None or origin is not None
    if site is not None:
        from_here &= site == "same-origin"
    if origin is not None:
        from_here &= _place(origin) == headers.get("host", "")
    if not from_here:
        raise RefusedError(403, "this form was not sent from the status page itself")


def _place(origin: str) -> str:
    """Host and port of an origin; empty for `null` and for text that isn't an origin."""
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return ""
