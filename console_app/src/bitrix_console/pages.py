"""The overview and the alerts, as pages and for programs."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from fastapi import FastAPI, Request, Response
from pydantic import BaseModel, Field
from web_kit.access import Fields, needs
from web_kit.admin_pages import STATUS
from web_kit.errors import RefusedError
from web_kit.kit import Kit, back
from web_kit.roles import Role, Who

from bitrix_console.alerts import Alerts
from bitrix_console.chart import chart
from bitrix_console.prometheus import WINDOWS, Alert
from bitrix_console.runbooks import runbook
from bitrix_console.watcher import EVERY_S, Told, Watcher

ALERTS = "alerts"

_OLD_S = 4 * EVERY_S
"""Age of what is known at which a page says so."""


class State(BaseModel):
    """How the hosts are."""

    at: float
    problem: str
    troubles: dict[str, list[str]]
    """By host."""
    hosts: list[dict[str, Any]]
    alerts: list[dict[str, Any]] | None


class Silencing(BaseModel):
    """A wish to keep an alert quiet."""

    reason: str = Field(min_length=1, max_length=500)
    hours: float = Field(gt=0, le=24 * 30)


def troubles(told: Told) -> dict[str, list[str]]:
    """By host, what needs somebody; alerts are told once, not as those of the monitoring host."""
    return {one.name: [text for text in one.troubles if not text.startswith("alert: ")] for one in told.hosts}


def is_fine(told: Told, now: float) -> bool:
    """Whether everything works, as far as is known: what is unknown does not."""
    known = told.latest is not None and told.latest.alerts is not None
    quiet = known and not any(not one.silenced for one in told.latest.alerts or ())  # type: ignore[union-attr]
    return bool(told.hosts) and quiet and not any(troubles(told).values()) and now - told.at < _OLD_S


def add_to(app: FastAPI, watcher: Watcher, alerts: Alerts) -> None:
    kit: Kit = app.state.kit
    page: dict[str, Any] = {"include_in_schema": False}
    viewer = needs(Role.VIEWER, STATUS)
    may_silence = needs(Role.OPERATOR, ALERTS)

    def overview_of(request: Request, window: str, who: Who) -> Response:
        window = window if window in WINDOWS else "1d"
        monitored = watcher.want(window)
        told = watcher.told
        charts = monitored.charts if monitored else {}
        return kit.page(
            request,
            part_of(request, "overview"),
            who,
            told=told,
            monitored=monitored or told.latest,
            charts={name: chart(points) for name, points in charts.items()},
            window=window,
            windows=tuple(WINDOWS),
            troubles=troubles(told),
            fine=is_fine(told, kit.clock()),
            old_s=_OLD_S,
            every_s=int(EVERY_S),
        )

    @app.get("/", **page)
    def overview(request: Request, window: str = "1d", who: Who = viewer) -> Response:
        return overview_of(request, window, who)

    @app.get("/alerts", **page)
    def list_alerts(request: Request, who: Who = viewer) -> Response:
        return kit.page(
            request,
            part_of(request, "alerts"),
            who,
            told=watcher.told,
            monitored=watcher.told.latest,
            past=alerts.past(),
            may_silence=who.may(Role.OPERATOR, ALERTS),
        )

    @app.get("/alerts/{fingerprint}", **page)
    def show_alert(request: Request, fingerprint: str, who: Who = viewer) -> Response:
        one = firing(watcher.told, fingerprint)
        language = kit.language(request, who)
        return kit.page(
            request,
            "alert.html.j2",
            who,
            alert=one,
            runbook=runbook(one.runbook, language.code),
            may_silence=who.may(Role.OPERATOR, ALERTS),
        )

    @app.get("/runbooks/{page}/{section}", **page)
    def show_runbook(request: Request, page: str, section: str, who: Who = viewer) -> Response:
        found = runbook(f"{page}#{section}", kit.language(request, who).code)
        if found is None:
            raise RefusedError(404, "there is no such page")
        return kit.page(request, "runbook.html.j2", who, runbook=found, section=section)

    @app.post("/alerts/{fingerprint}/silence", **page)
    def silence(request: Request, fingerprint: str, form: Fields, who: Who = may_silence) -> Response:
        try:
            hours = float(form.get("hours", ""))
        except ValueError:
            hours = 0.0
        alerts.silence(
            who, address_of(request), firing(watcher.told, fingerprint), form.get("reason", ""), hours
        )
        watcher.ask_now()
        return back("/alerts", "silenced")

    @app.post("/silences/{id}/end", **page)
    def end_silence(request: Request, id: str, who: Who = may_silence) -> Response:
        alerts.end(who, address_of(request), id)
        watcher.ask_now()
        return back("/alerts", "silence ended")

    # For programs

    @app.get("/api/status")
    def status(who: Who = viewer) -> State:
        """How the hosts are, as `bitrix-cdn status` shows it."""
        told = watcher.told
        latest = told.latest
        found = latest.alerts if latest else None
        return State(
            at=told.at,
            problem=told.problem,
            troubles=troubles(told),
            hosts=[asdict(one) for one in told.hosts],
            alerts=None if found is None else [asdict(one) for one in found],
        )

    @app.get("/api/alerts/past")
    def past(who: Who = viewer) -> list[dict[str, Any]]:
        """Alerts that fired, the latest first, at most 200."""
        return [one.as_data() for one in alerts.past()]

    @app.post("/api/alerts/{fingerprint}/silence", status_code=201)
    def silence_it(
        request: Request, fingerprint: str, wanted: Silencing, who: Who = may_silence
    ) -> dict[str, str]:
        """Keeps an alert that fires quiet for some hours."""
        one = firing(watcher.told, fingerprint)
        found = alerts.silence(who, address_of(request), one, wanted.reason, wanted.hours)
        watcher.ask_now()
        return {"silence": found}


def firing(told: Told, fingerprint: str) -> Alert:
    """
    :raises RefusedError: no such alert fires.
    """
    for one in (told.latest.alerts if told.latest else None) or ():
        if one.fingerprint == fingerprint:
            return one
    raise RefusedError(404, "this alert does not fire any more")


def part_of(request: Request, page: str) -> str:
    """The template of a page, or of what of it is asked for again while it is open."""
    return f"{page}_part.html.j2" if request.headers.get("x-part") else f"{page}.html.j2"


def address_of(request: Request) -> str:
    """Where a request comes from."""
    return request.client.host if request.client else ""
