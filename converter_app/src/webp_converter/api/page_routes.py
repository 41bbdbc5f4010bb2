"""The status page over HTTP: the page, its pictures, and its form.

It works without scripts: a form is answered by a redirect to the page, with the result in its address.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Literal
from urllib.parse import parse_qsl, urlencode

import redis
from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import HTMLResponse, RedirectResponse

from webp_converter.api.access import (
    COOKIE,
    SESSION_S,
    RefusedError,
    is_session,
    is_token,
    session,
    token_in,
)
from webp_converter.api.background_query import BackgroundQuery
from webp_converter.api.language import chosen
from webp_converter.api.models import Status
from webp_converter.api.page import (
    CONVERSIONS,
    DAYS,
    LETTERS,
    PICTURE_BYTES,
    POLICY,
    Notice,
    Queue,
    View,
    icon,
    page,
)
from webp_converter.api.server import Parts
from webp_converter.api.service import Service
from webp_converter.base import log
from webp_converter.config import Config
from webp_converter.variants.originals import OriginAwayError
from webp_converter.variants.store import AVIF, WEBP

FORM = "/"
"""Where the form is sent: the page's own address."""

_PATIENCE_S = 0.5
_FORM_BYTES = 4096
_RETRIED_AT_ONCE = 1000
_SIGNATURES = (
    (rb"\xff\xd8\xff", "image/jpeg"),
    (rb"\x89PNG\r\n\x1a\n", "image/png"),
    (rb"GIF8[79]a", "image/gif"),
    (rb"RIFF....WEBP", "image/webp"),
    (rb"....ftypavi[fs]", "image/avif"),
)
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    # With none at all a browser would not say where a form comes from.
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
}
_PICTURE_HEADERS = _HEADERS | {
    # What has such an address never changes.
    "Cache-Control": "private, max-age=600, immutable",
    "Content-Security-Policy": "default-src 'none'; sandbox",
}
_SUFFIXES = {"before": b"", "webp": WEBP, "avif": AVIF}


def media_type(data: bytes) -> str | None:
    """The media type of a picture, by its signature; None for formats that browsers must not get."""
    for signature, kind in _SIGNATURES:
        if re.match(signature, data, re.DOTALL):
            return kind
    return None


def add_page(
    app: FastAPI, config: Config, service: Service, parts: Parts, status: Callable[[], Status]
) -> None:
    """Adds the page's routes. What they take and give is for browsers, and not in the API's document."""
    queue = BackgroundQuery(lambda: Queue(service.overview(), service.letters(count=LETTERS)))
    totals = BackgroundQuery(lambda: service.totals(DAYS))
    trees = (bytes(config.store.root), bytes(config.originals.variants))

    def shown(request: Request, notice: Notice | None, code: int = 200) -> Response:
        asked = (queue.ask(), totals.ask())
        deadline = time.monotonic() + _PATIENCE_S
        view = View(
            now=time.time(),
            status=status(),
            queue=asked[0](_PATIENCE_S),
            totals=asked[1](max(0.0, deadline - time.monotonic())),
            rates=parts.latest_jobs.rates(),
            conversions=parts.latest_jobs.latest(CONVERSIONS),
            trees=trees,
            signed_in=_is_signed_in(config, request),
            refresh_s=_refresh_s(request.query_params.get("refresh", "")),
            notice=notice,
        )
        language = chosen(config.api.language, request.headers.get("accept-language", ""))
        headers = _HEADERS | {"Content-Language": language.code, "Vary": "Accept-Language"}
        return HTMLResponse(page(view, language), code, headers)

    @app.api_route(FORM, methods=["GET", "HEAD"], include_in_schema=False)
    def get_page(request: Request) -> Response:
        return shown(request, _notice(request))

    @app.post(FORM, include_in_schema=False)
    async def order(request: Request) -> Response:
        try:
            fields = await _fields(request)
            return await run_in_threadpool(_ordered, config, service, request, fields)
        except RefusedError as error:
            log.warning("order refused", method="POST", path=FORM, reason=error.detail)
            notice = Notice("refused", reason=error.detail)
            answer = await run_in_threadpool(shown, request, notice, error.status)
            if error.status == 401:
                answer.headers["WWW-Authenticate"] = "Bearer"
            return answer

    @app.api_route("/icons/{which}.svg", methods=["GET", "HEAD"], include_in_schema=False)
    def get_icon(which: Literal["ok", "degraded", "failed"]) -> Response:
        return Response(icon(which), 200, _PICTURE_HEADERS, "image/svg+xml")

    @app.api_route("/pictures/{id}/{which}", methods=["GET", "HEAD"], include_in_schema=False)
    def get_picture(id: str, which: Literal["before", "webp", "avif"]) -> Response:
        conversion = parts.latest_jobs.find(id)
        if conversion is None:
            raise HTTPException(404, "no such conversion, or it is forgotten")
        try:
            data = service.published(conversion, _SUFFIXES[which], PICTURE_BYTES)
        except OriginAwayError as error:
            raise HTTPException(503, " ".join(str(error).split())) from error
        kind = media_type(data) if data else None
        if kind is None:
            raise HTTPException(404, "it is no longer what it was, or nothing that is shown here")
        return Response(data, 200, _PICTURE_HEADERS, kind)


# The form


async def _fields(request: Request) -> dict[str, str]:
    """What the form says."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/x-www-form-urlencoded":
        raise RefusedError(422, "this is no form")
    data = bytearray()
    async for chunk in request.stream():
        data += chunk
        if len(data) > _FORM_BYTES:
            raise RefusedError(422, f"more than {_FORM_BYTES} bytes of form")
    return dict(parse_qsl(data.decode("ascii", "replace"), keep_blank_values=True))


def _ordered(config: Config, service: Service, request: Request, fields: dict[str, str]) -> Response:
    """Executes the form's action.

    :raises RefusedError: the form is refused.
    """
    if fields.get("sign") == "out":
        answer = _back(fields, done="signed-out")
        answer.delete_cookie(COOKIE, path="/", httponly=True, samesite="strict")
        return answer
    token = token_in(config.api.token_file)
    given = fields.get("token", "")
    if given:
        if not is_token(token, given):
            raise RefusedError(401, "the token is wrong")
    elif COOKIE not in request.cookies:
        raise RefusedError(401, "a token is needed")
    elif not is_session(token, request.cookies[COOKIE], time.time()):
        raise RefusedError(401, "this browser has been signed out: the token is needed again")
    log.info("order", method="POST", path=FORM, order=fields.get("retry") or "sign in")
    try:
        told = _retried(service, fields["retry"]) if "retry" in fields else {"done": "signed-in"}
    except redis.RedisError as error:
        raise RefusedError(503, " ".join(f"Redis is away: {error}".split())) from error
    answer = _back(fields, **told)
    if given:
        value = session(token, time.time())
        answer.set_cookie(COOKIE, value, max_age=SESSION_S, path="/", httponly=True, samesite="strict")
    return answer


def _retried(service: Service, which: str) -> dict[str, str | int]:
    """Retries one letter, or all up to a number; returns the notice for the page."""
    if which == "all":
        letters = service.letters(count=_RETRIED_AT_ONCE)
    elif re.fullmatch(r"[0-9]{1,15}-[0-9]{1,10}", which):
        letter = service.letter(which)
        letters = [letter] if letter else []
    else:
        raise RefusedError(422, "no dead letter has such an id")
    return {"done": "retried", "count": service.retry(letters)}


def _back(fields: dict[str, str], **told: str | int) -> Response:
    """Redirects to the page, with the result of a form."""
    refresh = _refresh_s(fields.get("refresh", ""))
    query = urlencode({**told, **({"refresh": refresh} if refresh else {})})
    return RedirectResponse(f"{FORM}?{query}", 303, _HEADERS)


def _notice(request: Request) -> Notice | None:
    """The notice that the address names: one of a few fixed sentences, whoever wrote the address."""
    done = request.query_params.get("done")
    if done == "retried":
        return Notice(done, _number(request.query_params.get("count", "")))
    return Notice(done) if done in ("signed-in", "signed-out") else None


def _is_signed_in(config: Config, request: Request) -> bool:
    try:
        token = token_in(config.api.token_file)
    except RefusedError:
        return False
    return is_session(token, request.cookies.get(COOKIE, ""), time.time())


def _number(text: str) -> int:
    return int(text) if re.fullmatch(r"[0-9]{1,9}", text) else 0


def _refresh_s(text: str) -> int:
    seconds = _number(text)
    return min(3600, max(5, seconds)) if seconds else 0
