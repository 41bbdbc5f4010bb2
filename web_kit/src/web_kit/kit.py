"""The parts put together: what an application with pages is made of."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any
from urllib.parse import quote

import jinja2
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse
from markupsafe import Markup
from starlette.exceptions import HTTPException

from web_kit import russian
from web_kit.access import Guard, LogInError
from web_kit.accounts import Accounts
from web_kit.audit import Audit
from web_kit.database import Database
from web_kit.errors import RefusedError
from web_kit.language import Language, Table, languages, moment, preferred
from web_kit.passwords import Passwords
from web_kit.roles import Role, Who

_KINDS = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
_OF_HTTP = {404: "there is no such page", 405: "that can't be done here"}


@dataclass(frozen=True)
class Section:
    """An entry of the menu."""

    address: str
    title: str
    """In English."""
    role: Role


class Kit:
    """What an application shares with others. It is `app.state.kit`."""

    def __init__(
        self,
        package: str,
        title: str,
        database: Database,
        *,
        menu: Sequence[Section],
        scopes: Collection[str],
        russian_table: Table,
        hosts: Collection[str],
        hashes: Passwords | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """
        :param package: of the application: its `templates/` and `static/`, and the name of its cookie.
        :param title: of all pages.
        :param scopes: that tokens may have.
        :param hosts: names that browsers call the application by, without a port.
        """
        self.package = package
        self.title = title
        self.menu = menu
        self.scopes = tuple(scopes)
        self.clock = clock
        self.database = database
        database.migrate("web_kit")
        self.audit = Audit(database, clock)
        self.accounts = Accounts(database, self.audit, hashes, clock)
        self.languages = languages((russian_table, russian.TABLE))
        self.hosts = frozenset(hosts)
        self.static = _static("web_kit") | _static(package)
        # Under an address that changes with them, browsers may keep them for ever.
        self.version = hashlib.sha256(
            b"".join(self.static[name] for name in sorted(self.static))
        ).hexdigest()[:12]
        self._environments = {code: self._environment(one) for code, one in self.languages.items()}

    def install(self, app: FastAPI) -> None:
        """Adds what all applications have: the guard, and pages of errors."""
        app.state.kit = self
        app.add_middleware(Guard, hosts=self.hosts)
        app.add_exception_handler(RefusedError, _refused)
        app.add_exception_handler(HTTPException, _of_http)
        app.add_exception_handler(RequestValidationError, _invalid)

    # Who asks

    @property
    def cookie(self) -> str:
        # Cookies of one host are those of all its ports.
        return f"{self.package}_session"

    def who(self, request: Request) -> Who | None:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        found = None
        if scheme:
            found = self.accounts.of_token(token.strip()) if scheme.lower() == "bearer" else None
        elif cookie := request.cookies.get(self.cookie):
            found = self.accounts.of_cookie(cookie)
        request.state.who = found
        return found

    def log_in(self, request: Request, answer: Response, cookie: str) -> Response:
        """Gives a browser its session."""
        secure = request.url.scheme == "https"
        answer.set_cookie(self.cookie, cookie, path="/", httponly=True, samesite="strict", secure=secure)
        return answer

    def language(self, request: Request, who: Who | None = None) -> Language:
        code = who.language if who else ""
        return (
            self.languages.get(code)
            or self.languages[preferred(request.headers.get("accept-language", ""), tuple(self.languages))]
        )

    # Pages

    def page(
        self, request: Request, template: str, who: Who | None = None, status: int = 200, **values: object
    ) -> HTMLResponse:
        """A page, in the language of whoever asks."""
        language = self.language(request, who)
        text = (
            self._environments[language.code]
            .get_template(template)
            .render(
                kit=self,
                who=who,
                here=request.url.path,
                now=self.clock(),
                done=request.query_params.get("done", ""),
                **values,
            )
        )
        return HTMLResponse(
            text, status, {"Content-Language": language.code, "Vary": "Accept-Language, Cookie"}
        )

    def _environment(self, language: Language) -> jinja2.Environment:
        loaders = [jinja2.PackageLoader(package, "templates") for package in (self.package, "web_kit")]
        environment = jinja2.Environment(
            loader=jinja2.ChoiceLoader(loaders),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        environment.globals |= {
            "_": language.message,
            "ngettext": language.counted,
            "language": language,
            "moment": moment,
            "roles": tuple(Role),
            "size": language.size,
            "number": language.number,
            "share": language.share,
            "duration": language.duration,
            "ago": language.ago,
            "static": lambda name: f"/static/{self.version}/{name}",
        }
        return environment


@cache
def _static(package: str) -> dict[str, bytes]:
    """Files of a package that browsers load, by name."""
    directory = files(package).joinpath("static")
    return {one.name: one.read_bytes() for one in directory.iterdir() if one.is_file()}


def static_answer(kit: Kit, version: str, name: str) -> Response:
    """
    :raises RefusedError: there is no such file.
    """
    data = kit.static.get(name)
    kind = _KINDS.get(name[name.rfind(".") :])
    if data is None or kind is None or version != kit.version:
        raise RefusedError(404, "there is no such page")
    return Response(data, headers={"Cache-Control": "public, max-age=31536000, immutable"}, media_type=kind)


def back(address: str, done: str = "") -> RedirectResponse:
    """The answer to a form: to a page, which says what was done."""
    return RedirectResponse(f"{address}?done={quote(done)}" if done else address, 303)


# Refusals, as pages and for programs


def _refused(request: Request, error: Any) -> Response:
    kit: Kit = request.app.state.kit
    if is_for_programs(request):
        headers = {"WWW-Authenticate": "Bearer"} if error.status == 401 else None
        return JSONResponse({"error": str(error)}, error.status, headers)
    if isinstance(error, LogInError) and request.method == "GET":
        target = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        return RedirectResponse("/login" if target == "/" else f"/login?next={quote(target)}", 303)
    who = getattr(request.state, "who", None)
    return kit.page(request, "error.html.j2", who, error.status, code=error.status, why=_said(error))


def _said(error: RefusedError) -> Callable[[Language], Markup]:
    return lambda language: language.message(error.message, **error.values)


def is_for_programs(request: Request) -> bool:
    return request.url.path.startswith("/api/")


def _of_http(request: Request, error: Any) -> Response:
    message = _OF_HTTP.get(error.status_code, "that can't be done here")
    return _refused(request, RefusedError(error.status_code, message))


def _invalid(request: Request, error: Any) -> Response:
    if is_for_programs(request):
        said = [f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()]
        return JSONResponse({"error": "; ".join(said)}, 422)
    return _refused(request, RefusedError(422, "that can't be done here"))
