"""Pictures: one is searched by its URL or path, and explained by the converter."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from typing import Any

from bitrix_cdn.fleet import HostError, Inventory
from bitrix_cdn.status.explain import ask
from fastapi import FastAPI, Request, Response
from web_kit.access import needs
from web_kit.admin_pages import STATUS
from web_kit.errors import RefusedError
from web_kit.kit import Kit
from web_kit.roles import Role, Who

_LONGEST = 4096
_AT_ONCE = 2
"""Questions to the host: each asks nginx and Varnish as several visitors do."""
_SILENCE_S = 30

Explain = Callable[[str], dict[str, Any]]
"""Has a picture explained; raises HostError with what the converter says instead."""


def explainer(inventory: Inventory) -> Explain:
    """What asks the converter of an inventory, over SSH."""

    def explain(what: str) -> dict[str, Any]:
        remote, output = ask(inventory, what, as_json=True, silence=_SILENCE_S)
        try:
            found = json.loads(output.text)
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise HostError(f"{remote.name}: {output.reason}")
        return found

    return explain


def add_to(app: FastAPI, explain: Explain) -> None:
    kit: Kit = app.state.kit
    viewer = needs(Role.VIEWER, STATUS)
    places = threading.BoundedSemaphore(_AT_ONCE)

    def asked(what: str) -> dict[str, Any]:
        """
        :raises RefusedError: nothing can be said of it, or not now.
        """
        if len(what) > _LONGEST or not what.isprintable():
            raise RefusedError(422, "this is no URL and no path of a picture")
        if not places.acquire(blocking=False):
            raise RefusedError(503, "other pictures are being explained; try again")
        try:
            return explain(what)
        except HostError as error:
            raise RefusedError(422, "it can't be explained: {why}", why=error) from None
        finally:
            places.release()

    @app.get("/pictures", include_in_schema=False)
    def pictures(request: Request, q: str = "", who: Who = viewer) -> Response:
        wanted, told, why = q.strip(), None, None
        language = kit.language(request, who)
        try:
            told = asked(wanted) if wanted else None
        except RefusedError as error:
            why = error
        return kit.page(
            request,
            "pictures.html.j2",
            who,
            why.status if why else 200,
            q=wanted,
            told=told,
            why=language.message(why.message, **why.values) if why else "",
        )

    @app.get("/api/pictures")
    def picture(q: str, who: Who = viewer) -> dict[str, Any]:
        """Which files a picture has, why, and what a browser gets, as `bitrix-cdn explain --json` has it."""
        return asked(q.strip())
