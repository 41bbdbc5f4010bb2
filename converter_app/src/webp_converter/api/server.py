"""Listens for the HTTP API; what it answers is in `routes`."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from webp_converter.api.service import Service
from webp_converter.config import Config
from webp_converter.queue.latest_jobs import Recent
from webp_converter.variants.originals import OriginStatus
from webp_converter.work.cleanup import Cleanup

if TYPE_CHECKING:
    import uvicorn


class DaemonView(NamedTuple):
    """What only the running daemon knows and does."""

    health: Callable[[], tuple[bool, dict[str, object]]]
    """Whether it can work at all, and how each part does."""

    last_scan: Callable[[], dict[str, object] | None]
    last_eviction: Callable[[], dict[str, object] | None]
    reach: OriginStatus
    """Whether originals could be read."""

    recent: Recent
    scan: Callable[[], None]
    """Asks for a reconcile scan."""

    clean_up: Callable[[bool], Cleanup | None]
    """Cleans up, or with True only counts; None: the daemon stops. Raises BusyError."""


class Api:
    """Serves the API."""

    def __init__(self, config: Config, service: Service, live: DaemonView) -> None:
        """Binds the port, so that one taken is noticed now: raises OSError."""
        self._socket = socket.create_server((config.api.address, config.api.port), reuse_port=False)
        self._config = config
        self._service = service
        self._live = live
        self._server: uvicorn.Server | None = None

    def serve(self) -> None:
        """Answers until `stop` is called."""
        # FastAPI takes longer to import than all else together; the pictures don't wait for it.
        import uvicorn

        from webp_converter.api.routes import application

        app = application(self._config, self._service, self._live)
        self._server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False, lifespan="off"))
        self._server.run(sockets=[self._socket])

    def stop(self) -> None:
        if self._server:
            self._server.should_exit = True
