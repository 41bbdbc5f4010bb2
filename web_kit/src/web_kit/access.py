"""Which request may do what: each route says what it needs.

What changes something must come from a page of this address, and bear the token of its browser's session.
"""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable, Mapping
from typing import Annotated, Any
from urllib.parse import parse_qsl, urlsplit

from fastapi import Depends, Request
from fastapi.concurrency import run_in_threadpool
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from web_kit.errors import RefusedError
from web_kit.roles import Role, Who

SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
BODY_BYTES = 64 * 1024

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    # With none at all a browser would not say where a form comes from.
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


class LogInError(RefusedError):
    """A page that somebody has to log in for."""

    def __init__(self) -> None:
        super().__init__(401, "log in first")


class Needs:
    """What a route needs; the dependency that gives it :class:`Who`."""

    def __init__(self, role: Role, scope: str) -> None:
        self.role = role
        self.scope = scope

    async def __call__(self, request: Request) -> Who:
        who: Who | None = await run_in_threadpool(request.app.state.kit.who, request)
        if who is None:
            raise LogInError
        if request.method not in SAFE and who.session:
            given = request.headers.get("x-csrf-token") or (await fields(request)).get("csrf", "")
            if not hmac.compare_digest(given.encode(), who.csrf.encode()):
                raise RefusedError(403, "this form is out of date; open the page again")
        if not who.may(self.role, self.scope):
            raise RefusedError(403, "your role does not allow that")
        return who


def needs(role: Role, scope: str) -> Any:
    """A route's parameter, who asks:

        def page(who: Who = needs(Role.VIEWER, "status")) -> Response: ...

    :param role: the lowest that is allowed it.
    :param scope: what a program's token must be for.
    """
    return Depends(Needs(role, scope))


async def fields(request: Request) -> dict[str, str]:
    """What a form says; of a name given twice the last.

    :raises RefusedError: it is no form.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/x-www-form-urlencoded":
        return {}
    try:
        return dict(
            parse_qsl((await request.body()).decode("utf-8"), keep_blank_values=True, max_num_fields=100)
        )
    except ValueError:
        raise RefusedError(422, "this is no form") from None


Fields = Annotated[dict[str, str], Depends(fields)]


class Guard:
    """Looks at each request before the application does, and sets the headers of each answer."""

    def __init__(self, app: ASGIApp, hosts: frozenset[str]) -> None:
        """
        :param hosts: names that the application is called by, without a port. A page elsewhere whose name was
            made to lead here (DNS rebinding) calls it by its own.
        """
        self._app = app
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        secure = scope["scheme"] == "https"

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                given = {name for name, _ in message["headers"]}
                own = HEADERS | {"Cache-Control": "no-store"}
                own |= {"Strict-Transport-Security": "max-age=31536000"} if secure else {}
                message["headers"] = [
                    *message["headers"],
                    *(
                        (n.lower().encode(), v.encode())
                        for n, v in own.items()
                        if n.lower().encode() not in given
                    ),
                ]
            await send(message)

        why = refusal(scope["method"], headers, self._hosts)
        if why:
            await _refuse(guarded, *why)
        else:
            await self._app(scope, receive, guarded)


def refusal(method: str, headers: Mapping[str, str], hosts: frozenset[str]) -> tuple[int, str] | None:
    """Why a request is refused whoever sends it: status and reason; None: it isn't.

    :param headers: by their names in lower case.
    """
    host = headers.get("host", "")
    if (urlsplit(f"//{host}").hostname or "") not in hosts:
        return 421, "this application is not called so"
    if method in SAFE:
        return None
    length = headers.get("content-length", "0")
    if "transfer-encoding" in headers or not length.isdigit():
        return 411, "the length of the request is needed"
    if int(length) > BODY_BYTES:
        return 413, f"more than {BODY_BYTES} bytes"
    if headers.get("authorization", "").lower().startswith("bearer "):
        return None  # a browser sends no such header by itself
    origin, site = headers.get("origin"), headers.get("sec-fetch-site")
    from_here = origin is not None or site is not None
    if site is not None:
        from_here &= site == "same-origin"
    if origin is not None:
        from_here &= urlsplit(origin).netloc == host
    return None if from_here else (403, "this was not sent from a page of this application")


async def _refuse(send: Callable[[Message], Awaitable[None]], status: int, why: str) -> None:
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [(b"content-type", b"text/plain; charset=utf-8")],
        }
    )
    await send({"type": "http.response.body", "body": f"{why}\n".encode()})
