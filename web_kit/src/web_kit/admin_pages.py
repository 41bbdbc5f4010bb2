"""The users and the audit log, as pages and for programs."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

from web_kit import audit
from web_kit.access import Fields, needs
from web_kit.errors import RefusedError
from web_kit.kit import Kit, Section, back
from web_kit.roles import Role, Who

USERS = "users"
AUDIT = "audit"
STATUS = "status"
"""The scope of what everybody may see. An application has more of it."""

SCOPES = (STATUS, USERS, AUDIT)

MENU = (Section("/audit", "Audit log", Role.OPERATOR), Section("/users", "Users", Role.ADMIN))

_PAGE = 100


class Me(BaseModel):
    """Who asks."""

    name: str
    role: Role
    scopes: list[str] | None
    """None: all."""


class User(BaseModel):
    """An account."""

    id: int
    name: str
    role: Role
    disabled: bool
    authenticator: bool


class Invite(BaseModel):
    """Somebody who is to get an account; for one who has it, a new password."""

    name: str
    role: Role = Role.VIEWER
    reset: bool = False


class Link(BaseModel):
    """Where somebody sets a password, once."""

    path: str


class AuditEntry(BaseModel):
    """What somebody did."""

    number: int
    at: float
    who: str
    address: str
    what: str
    target: str
    result: str
    detail: str
    hash: str


class Chain(BaseModel):
    """Whether the audit log is as it was written."""

    entries: int
    broken: int | None
    """The number of the first entry that isn't."""
    head: str


def add_to(app: FastAPI) -> None:
    kit: Kit = app.state.kit
    page: dict[str, Any] = {"include_in_schema": False}
    admin, reader = needs(Role.ADMIN, USERS), needs(Role.OPERATOR, AUDIT)
    anybody = needs(Role.VIEWER, STATUS)

    def shown(request: Request, who: Who, link: str = "") -> Response:
        return kit.page(request, "users.html.j2", who, accounts=kit.accounts.all(), link=link)

    def invited(request: Request, who: Who, name: str, role: Role, *, reset: bool) -> str:
        address = request.client.host if request.client else ""
        return f"/invitation/{kit.accounts.invite(who.name, address, name, role, reset=reset)}"

    @app.get("/users", **page)
    def users(request: Request, who: Who = admin) -> Response:
        return shown(request, who)

    @app.post("/users", **page)
    def invite(request: Request, form: Fields, who: Who = admin) -> Response:
        path = invited(request, who, form.get("name", ""), _role(form), reset="reset" in form)
        return shown(request, who, f"{request.url.scheme}://{request.headers['host']}{path}")

    @app.post("/users/{id}", **page)
    def change(request: Request, id: int, form: Fields, who: Who = admin) -> Response:
        address = request.client.host if request.client else ""
        if form.get("do") == "log out":
            kit.accounts.end_sessions(who, address, id)
            return back("/users", "logged out")
        kit.accounts.change(who, address, id, _role(form), disabled="disabled" in form)
        return back("/users", "saved")

    @app.get("/audit", **page)
    def log(request: Request, q: str = "", before: int = 0, who: Who = reader) -> Response:
        entries = kit.audit.search(q, before=before, most=_PAGE)
        return kit.page(
            request, "audit.html.j2", who, entries=entries, q=q, more=len(entries) == _PAGE, chain=None
        )

    @app.post("/audit/verify", **page)
    def verify(request: Request, who: Who = reader) -> Response:
        entries = kit.audit.search(most=_PAGE)
        chain = kit.audit.verify()
        return kit.page(
            request, "audit.html.j2", who, entries=entries, q="", more=len(entries) == _PAGE, chain=chain
        )

    @app.get("/audit/export", **page)
    def export(who: Who = reader) -> Response:
        headers = {"Content-Disposition": 'attachment; filename="audit.jsonl"'}
        return StreamingResponse(kit.audit.export(), headers=headers, media_type="application/x-ndjson")

    # For programs

    @app.get("/api/openapi.json", **page)
    def openapi(who: Who = anybody) -> dict[str, Any]:
        """The document of this API."""
        return app.openapi()

    @app.get("/api/me")
    def me(who: Who = anybody) -> Me:
        """Who asks, and what that is allowed."""
        return Me(name=who.name, role=who.role, scopes=None if who.scopes is None else sorted(who.scopes))

    @app.get("/api/users")
    def list_users(who: Who = admin) -> list[User]:
        """All accounts."""
        return [
            User(
                id=a.id,
                name=a.name,
                role=Role(a.role),
                disabled=a.disabled,
                authenticator=bool(a.totp_secret),
            )
            for a in kit.accounts.all()
        ]

    @app.post("/api/users", status_code=201)
    def add_user(request: Request, wanted: Invite, who: Who = admin) -> Link:
        """Makes a link by which somebody sets a password."""
        return Link(path=invited(request, who, wanted.name, wanted.role, reset=wanted.reset))

    @app.get("/api/audit")
    def entries(q: str = "", before: int = 0, who: Who = reader) -> list[AuditEntry]:
        """The newest entries of the audit log that have a text, at most 100."""
        found = kit.audit.search(q, before=before, most=_PAGE)
        return [AuditEntry.model_validate(audit.as_data(one)) for one in found]

    @app.get("/api/audit/verify")
    def chain(head: str = "", who: Who = reader) -> Chain:
        """Whether the log is as it was written; with an earlier hash, also whether none was cut off."""
        found = kit.audit.verify(head)
        return Chain(entries=found.count, broken=found.broken, head=found.head)


def _role(form: dict[str, str]) -> Role:
    try:
        return Role(form.get("role", ""))
    except ValueError:
        raise RefusedError(422, "there is no such role") from None
