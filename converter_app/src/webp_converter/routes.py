"""Health and the HTTP API."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from fastapi import FastAPI, HTTPException, Response


def application(
    health: Callable[[], tuple[bool, dict[str, object]]],
    picture: Callable[[bytes], dict[str, object] | None],
) -> FastAPI:
    """The API over what the daemon tells of itself and of its pictures."""
    app = FastAPI(title="webp-converter", docs_url=None, redoc_url=None)

    @app.get("/health")
    def get_health(response: Response) -> dict[str, Any]:
        """200 while the daemon can work, with `status` ok or degraded; 503 when it can't."""
        works, state = health()
        if not works:
            response.status_code = 503
        return state

    @app.get("/api/pictures")
    def get_picture(path: str) -> dict[str, Any]:
        """What is known of one original, by its absolute path."""
        known = picture(os.fsencode(path))
        if known is None:
            raise HTTPException(404, "no decision about this path")
        return known

    return app
