"""The HTTP API: health, what is known of pictures, statistics, the queue, dead letters; and orders.

Who may read: whoever reaches the port, which is on the loopback address. Who may order: whoever bears the
token. Paths are text as Python has it: bytes that aren't UTF-8 are lone surrogates (`\\udcff` for 0xff), in
JSON as in the log.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Annotated, Any
from urllib.parse import parse_qsl

import redis
from fastapi import FastAPI, HTTPException, Query, Request, Response, Security
from fastapi import Path as PathParameter
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.security import HTTPBearer

from webp_converter.api.access import RefusedError, check_bearer, check_origin
from webp_converter.api.models import (
    ConvertRequest,
    ConvertResponse,
    Disk,
    Explanation,
    LatestWork,
    Problem,
    Retried,
    ScanRequested,
    Status,
)
from webp_converter.api.page_routes import FORM, add_page
from webp_converter.api.server import Parts
from webp_converter.api.service import Picture, Service, retry_command
from webp_converter.base import log
from webp_converter.config import Api as ApiConfig
from webp_converter.config import Config
from webp_converter.metrics import VERSION, release
from webp_converter.queue.jobs import Letter, LetterSummary, Overview
from webp_converter.variants.eviction import Space
from webp_converter.variants.statistics import Totals
from webp_converter.work.cleanup import Cleanup
from webp_converter.work.health import Health
from webp_converter.work.housekeeper import BusyError

_READING = ("GET", "HEAD", "OPTIONS")
_DESCRIPTION = """What the converter does and knows.

Reading is open to whoever reaches the port. Calls that change something need `Authorization: Bearer TOKEN`,
the content of the file `api.token_file`. Each error is `{"detail": "one line"}`. In paths, bytes that are not
UTF-8 are written as lone surrogates, in JSON `\\udc80` to `\\udcff`; in a query they are percent-encoded.
"""


class _AsciiJson(JSONResponse):
    """JSON without a byte that isn't ASCII, so that names that are not UTF-8 survive as well."""

    def render(self, content: Any) -> bytes:
        return json.dumps(content, allow_nan=False).encode("ascii")


def _problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The errors that a route documents, besides the common ones."""
    meanings = {
        400: "The `Host` header names another host.",
        401: "No token, or not the right one.",
        404: "There is no such thing.",
        409: "It is being done already.",
        422: "Something in the request is wrong.",
        503: "It can't be answered now: Redis is away, the daemon stops, or there is no token file.",
    }
    return {status: {"model": Problem, "description": meanings[status]} for status in (400, *statuses)}


LetterId = Annotated[
    str, PathParameter(pattern=r"^\d{1,15}-\d{1,10}$", description="Id of a dead letter.", examples=["17-0"])
]


def application(config: Config, service: Service, parts: Parts) -> FastAPI:
    """The API over what the daemon tells of itself, and over all that it works on."""
    app = FastAPI(
        title="webp-converter",
        version="1",
        description=_DESCRIPTION,
        docs_url=None,
        redoc_url=None,
        default_response_class=_AsciiJson,
    )
    _guard(app, config.api)
    _explain(app)
    status = _status_of(config, service, parts)
    _add_reading(app, service, parts, status)
    _add_orders(app, service, parts)
    add_page(app, config, service, parts, status)
    return app


def _guard(app: FastAPI, config: ApiConfig) -> None:
    """Refuses requests for an unknown host name, and changes without the token."""
    hosts = {"localhost", "127.0.0.1", "::1", config.address.lower(), *map(str.lower, config.hosts)}

    @app.middleware("http")
    async def guard(request: Request, call: Callable[[Request], Awaitable[Response]]) -> Response:
        host = _name(request.headers.get("host", ""))
        if host not in hosts:
            return _refusal(400, f"the host {host!r} is not this one; api.hosts can allow it")
        if request.method not in _READING:
            try:
                if (request.method, request.url.path) == ("POST", FORM):
                    check_origin(request.headers)  # the form bears the token itself
                else:
                    check_bearer(config.token_file, request.headers.get("authorization", ""))
                    log.info("order", method=request.method, path=request.url.path)
            except RefusedError as error:
                reason = error.detail
                log.warning("order refused", method=request.method, path=request.url.path, reason=reason)
                headers = {"WWW-Authenticate": "Bearer"} if error.status == 401 else None
                return _refusal(error.status, reason, headers)
        return await call(request)


def _name(host: str) -> str:
    """The name or address in a `Host` header, without the port."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].lower()


def _refusal(status: int, detail: str, headers: dict[str, str] | None = None) -> Response:
    return _AsciiJson({"detail": detail}, status, headers)


def _explain(app: FastAPI) -> None:
    """Makes one clear line of an error."""

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        return _refusal(422, "; ".join(_complaints(error.errors())))

    @app.exception_handler(redis.RedisError)
    async def away(request: Request, error: redis.RedisError) -> Response:
        return _refusal(503, " ".join(f"Redis is away: {error}".split()))


def _complaints(errors: Iterable[Any]) -> Iterable[str]:
    for error in errors:
        # Before the name stands where it was looked for: body, query, path.
        name = ".".join(str(part) for part in error["loc"][1:] if not isinstance(part, str) or part)
        message = error["msg"].removeprefix("Value error, ")
        if error["type"] == "json_invalid":
            yield f"the body is no JSON: {error.get('ctx', {}).get('error', message)}"
        else:
            yield f"{name}: {message}" if name else message


def _status_of(config: Config, service: Service, parts: Parts) -> Callable[[], Status]:
    """What tells how the daemon does."""
    started = time.monotonic()
    its_release = release()

    def status() -> Status:
        disks = []
        for tree in (config.store.root, config.originals.variants):
            try:
                space = Space.of(tree)
            except OSError:  # not there (yet)
                continue
            disks.append(
                Disk(
                    tree=str(tree),
                    used_bytes=space.used,
                    available_bytes=space.available,
                    share=round(space.share, 4),
                )
            )
        return Status(
            health=parts.condition.health(),
            consumer=service.consumer,
            version=VERSION,
            release=its_release,
            uptime_s=round(time.monotonic() - started, 1),
            disks=disks,
            originals=parts.origin,
            last_scan=parts.scanner.last,
            last_eviction=parts.housekeeper.last,
        )

    return status


def _add_reading(app: FastAPI, service: Service, parts: Parts, status: Callable[[], Status]) -> None:
    @app.get(
        "/health",
        tags=["daemon"],
        response_model=Health,
        responses={**_problems(), 503: {"model": Health, "description": "The daemon can't work."}},
    )
    def get_health(response: Response) -> Any:
        """200 while the daemon can work, with `status` ok or degraded; 503 when it can't."""
        health = parts.condition.health()
        if health.status == "failed":
            response.status_code = 503
        return health

    @app.get("/api/status", tags=["daemon"], response_model=Status, responses=_problems())
    def get_status() -> Any:
        """The daemon's health, the usage of its file systems, and the result of the last eviction."""
        return status()

    @app.get("/api/recent", tags=["pictures"], response_model=LatestWork, responses=_problems(422))
    def get_recent(
        count: Annotated[int, Query(ge=0, le=1000, description="How many conversions at most.")] = 12,
    ) -> Any:
        """This daemon's latest conversions and their rate: a thousand pictures at most, until it stops."""
        minute, hour = parts.latest_jobs.rates()
        latest = parts.latest_jobs.latest(count)
        return LatestWork(decided_minute=minute, decided_hour=hour, conversions=latest)

    @app.get("/api/pictures", tags=["pictures"], response_model=Picture, responses=_problems(404, 422))
    def get_picture(
        request: Request,
        path: Annotated[str, Query(min_length=1, description="Absolute path of an original.")],
    ) -> Any:
        """What is known of one original."""
        raw = _raw_query(request).get("path", path)
        try:
            state = service.picture(os.fsencode(raw))
        except ValueError as error:
            raise HTTPException(422, _one_line(error)) from error
        if state is None:
            raise HTTPException(404, "no decision about this path")
        return state

    @app.get("/api/explain", tags=["pictures"], response_model=Explanation, responses=_problems(422))
    def get_explanation(
        request: Request,
        target: Annotated[str, Query(min_length=1, description="URL or path of a picture.")],
    ) -> Any:
        """What is served for a picture, and why: its files, the verdict, the queue, the caches, and the
        answers to visitors. It asks nginx as a visitor does."""
        try:
            return service.explain(_raw_query(request).get("target", target))
        except ValueError as error:
            raise HTTPException(422, _one_line(error)) from error

    @app.get("/api/statistics", tags=["pictures"], response_model=Totals, responses=_problems(422, 503))
    def get_statistics(
        days: Annotated[int, Query(ge=0, le=3650, description="How many of the last days to list.")] = 30,
    ) -> Any:
        """What was converted, and what that saves. The numbers are those of all daemons on the same Redis."""
        return service.totals(days)

    @app.get("/api/queue", tags=["queue"], response_model=Overview, responses=_problems(503))
    def get_queue() -> Any:
        """How many jobs wait, for how long, which are in progress, and which are delayed."""
        return service.overview()

    @app.get(
        "/api/dead", tags=["dead letters"], response_model=list[LetterSummary], responses=_problems(422, 503)
    )
    def get_letters(
        after: Annotated[
            str,
            Query(pattern=r"^(\d{1,15}-\d{1,10})?$", description="Id of the letter behind which to begin."),
        ] = "",
        count: Annotated[int, Query(ge=1, le=1000, description="How many at most.")] = 100,
    ) -> Any:
        """Pictures that were given up, the oldest first."""
        return service.letters(after, count)

    @app.get(
        "/api/dead/{id}",
        tags=["dead letters"],
        response_model=Letter,
        responses=_problems(404, 422, 503),
    )
    def get_letter(id: LetterId) -> Any:
        """One picture that was given up, with the traceback."""
        letter = _found(service, id)
        return letter.model_copy(update={"command": retry_command(letter)})


def _add_orders(app: FastAPI, service: Service, parts: Parts) -> None:
    # Documents what `_guard` enforces.
    token = [Security(HTTPBearer(auto_error=False, description="The content of `api.token_file`."))]

    @app.post(
        "/api/dead/{id}/retry",
        tags=["dead letters"],
        status_code=202,
        response_model=Retried,
        responses=_problems(401, 404, 422, 503),
        dependencies=token,
    )
    def retry(id: LetterId) -> Any:
        """Retries a picture that was given up, with the highest priority and all its tries."""
        letter = _found(service, id)
        if not service.retry([letter]):
            raise HTTPException(404, f"no dead letter {id}")
        return Retried(id=letter.id, path=letter.path)

    @app.delete(
        "/api/dead/{id}",
        tags=["dead letters"],
        status_code=204,
        responses=_problems(401, 404, 422, 503),
        dependencies=token,
    )
    def drop(id: LetterId) -> None:
        """Forgets that a picture was given up. It is not tried again until its original changes."""
        if not service.drop([_found(service, id)]):
            raise HTTPException(404, f"no dead letter {id}")

    @app.post(
        "/api/scan",
        tags=["daemon"],
        status_code=202,
        response_model=ScanRequested,
        responses=_problems(401, 503),
        dependencies=token,
    )
    def scan() -> Any:
        """Compares all originals with their variants: missing ones are queued, stale ones are removed."""
        parts.scanner.wanted.set()
        return ScanRequested(asked=True)

    @app.post(
        "/api/cleanup",
        tags=["daemon"],
        response_model=Cleanup,
        responses=_problems(401, 409, 422, 503),
        dependencies=token,
    )
    def clean_up(
        dry_run: Annotated[bool, Query(description="Remove nothing, only list what would be.")] = False,
    ) -> Any:
        """Removes files that are stale, unfinished, or not read, and returns which. The answer comes at the
        end, for a million pictures after a minute."""
        try:
            done = parts.housekeeper.clean_up(dry_run)
        except BusyError as error:
            raise HTTPException(409, str(error)) from error
        if done is None:
            raise HTTPException(503, "the clean-up was ended: the daemon stops, or its log tells why")
        return done

    @app.post(
        "/api/convert",
        tags=["pictures"],
        status_code=202,
        response_model=ConvertResponse,
        responses=_problems(401, 422, 503),
        dependencies=token,
    )
    def convert(wanted: ConvertRequest) -> Any:
        """Queues pictures with the highest priority: all of them, or with 422 none."""
        try:
            asked = service.ask([os.fsencode(path) for path in wanted.paths])
        except ValueError as error:
            raise HTTPException(422, _one_line(error)) from error
        return ConvertResponse(pictures=asked)


def _found(service: Service, id: str) -> Letter:
    letter = service.letter(id)
    if letter is None:
        raise HTTPException(404, f"no dead letter {id}")
    return letter


def _raw_query(request: Request) -> dict[str, str]:
    """The query, with bytes that aren't UTF-8 as surrogates; the framework replaces them."""
    text = request.scope["query_string"].decode("ascii", "surrogateescape")
    return dict(parse_qsl(text, keep_blank_values=True, errors="surrogateescape"))


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
