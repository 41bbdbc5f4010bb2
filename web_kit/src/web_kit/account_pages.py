"""Logging in and out, and one's own account."""

from __future__ import annotations

import re
from typing import Any

import segno
from fastapi import FastAPI, Request, Response
from markupsafe import Markup

from web_kit import passwords
from web_kit.access import Fields, needs
from web_kit.accounts import TOKEN_DAYS
from web_kit.errors import RefusedError
from web_kit.kit import Kit, back, static_answer
from web_kit.roles import Role, Who

ACCOUNT = "account"
"""The scope of one's own account. No token has it: a program changes no password."""


def add_to(app: FastAPI) -> None:
    kit: Kit = app.state.kit
    page: dict[str, Any] = {"include_in_schema": False}
    own = needs(Role.VIEWER, ACCOUNT)

    @app.get("/static/{version}/{name}", **page)
    def static(version: str, name: str) -> Response:
        return static_answer(kit, version, name)

    @app.get("/login", **page)
    def login(request: Request, next: str = "") -> Response:
        return kit.page(request, "login.html.j2", next=local(next), name="", why=None)

    @app.post("/login", **page)
    def log_in(request: Request, form: Fields) -> Response:
        name, target = form.get("name", ""), local(form.get("next", ""))
        try:
            made = kit.accounts.log_in(name, form.get("password", ""), form.get("code", ""), *_from(request))
        except RefusedError as error:
            why = kit.language(request).message(error.message, **error.values)
            return kit.page(request, "login.html.j2", None, error.status, next=target, name=name, why=why)
        return kit.log_in(request, back(target), made.cookie)

    @app.post("/logout", **page)
    def log_out(request: Request, who: Who = own) -> Response:
        kit.accounts.log_out(who, _from(request)[0])
        answer = back("/login", "logged out")
        answer.delete_cookie(kit.cookie, path="/", httponly=True, samesite="strict")
        return answer

    @app.get("/invitation/{secret}", **page)
    def invitation(request: Request, secret: str) -> Response:
        return kit.page(
            request,
            "invitation.html.j2",
            invited=kit.accounts.invitation(secret),
            why=None,
            least=passwords.LEAST,
        )

    @app.post("/invitation/{secret}", **page)
    def accept(request: Request, secret: str, form: Fields) -> Response:
        try:
            made = kit.accounts.accept(secret, _twice(form), *_from(request))
        except RefusedError as error:
            invited = kit.accounts.invitation(secret)
            why = kit.language(request).message(error.message, **error.values)
            return kit.page(
                request,
                "invitation.html.j2",
                None,
                error.status,
                invited=invited,
                why=why,
                least=passwords.LEAST,
            )
        return kit.log_in(request, back("/"), made.cookie)

    def shown(request: Request, who: Who, **values: Any) -> Response:
        account = kit.accounts.own(who)
        secret = "" if account.totp_secret else passwords.new_secret()
        return kit.page(
            request,
            "account.html.j2",
            who,
            account=account,
            sessions=kit.accounts.sessions(who),
            tokens=kit.accounts.tokens(who),
            secret=secret,
            code=_code(secret, who.name, kit.title) if secret else None,
            least=passwords.LEAST,
            days=TOKEN_DAYS,
            **{"token": "", **values},
        )

    @app.get("/account", **page)
    def account(request: Request, who: Who = own) -> Response:
        return shown(request, who)

    @app.post("/account/password", **page)
    def change_password(request: Request, form: Fields, who: Who = own) -> Response:
        kit.accounts.change_password(who, _from(request)[0], form.get("old", ""), _twice(form))
        return back("/account", "password changed")

    @app.post("/account/authenticator", **page)
    def authenticator(request: Request, form: Fields, who: Who = own) -> Response:
        address, password = _from(request)[0], form.get("old", "")
        if form.get("do") == "remove":
            kit.accounts.drop_authenticator(who, address, password)
        else:
            secret, code = form.get("secret", ""), form.get("code", "")
            kit.accounts.use_authenticator(who, address, password, secret, code)
        return back("/account", "authenticator changed")

    @app.post("/account/language", **page)
    def language(form: Fields, who: Who = own) -> Response:
        code = form.get("language", "")
        kit.accounts.choose_language(who, code if code in kit.languages else "")
        return back("/account")

    @app.post("/account/sessions/{digest}/end", **page)
    def end_session(request: Request, digest: str, who: Who = own) -> Response:
        kit.accounts.end_session(who, _from(request)[0], digest)
        return back("/account", "logged out")

    @app.post("/account/tokens", **page)
    def make_token(request: Request, form: Fields, who: Who = own) -> Response:
        days = form.get("days", "")
        scopes = [one for one in kit.scopes if f"scope-{one}" in form]
        token = kit.accounts.make_token(
            who,
            _from(request)[0],
            form.get("name", ""),
            scopes,
            int(days) if re.fullmatch(r"[0-9]{1,4}", days) else 0,
            kit.scopes,
        )
        # Shown here and never again, so it is not in an address.
        return shown(request, who, token=token)

    @app.post("/account/tokens/{id}/end", **page)
    def end_token(request: Request, id: int, who: Who = own) -> Response:
        kit.accounts.end_token(who, _from(request)[0], id)
        return back("/account", "token ended")


def local(address: str) -> str:
    """An address of this application, or its first page: never one of another host."""
    return address if re.fullmatch(r"/(?![/\\])[\x21-\x5b\x5d-\x7e]*", address) else "/"


def _from(request: Request) -> tuple[str, str]:
    """Address and program of whoever asks."""
    return request.client.host if request.client else "", request.headers.get("user-agent", "")


def _twice(form: dict[str, str]) -> str:
    """
    :raises RefusedError: the new password wasn't typed the same twice.
    """
    if form.get("password", "") != form.get("again", ""):
        raise RefusedError(422, "the two passwords differ")
    return form.get("password", "")


def _code(secret: str, name: str, title: str) -> Markup:
    """The QR code that an authenticator reads, as SVG."""
    made = segno.make(passwords.address_of(secret, name, title), error="m", micro=False)
    return Markup(made.svg_inline(scale=4, border=3, light="#fff", dark="#000"))  # noqa: S704 -- made of squares
