"""Listens for the HTTP API; what it answers is in `routes`."""

from __future__ import annotations

import socket
import threading
from typing import TYPE_CHECKING, NamedTuple

from webp_converter.api.service import Service
from webp_converter.config import Config
from webp_converter.events.scanner import Scanner
from webp_converter.queue.latest_jobs import LatestJobs
from webp_converter.variants.originals import OriginStatus
from webp_converter.work.health import Condition
from webp_converter.work.housekeeper import Housekeeper

if TYPE_CHECKING:
    import uvicorn


class Parts(NamedTuple):
    """The parts of the running daemon that the API uses."""

    condition: Condition
    scanner: Scanner
    housekeeper: Housekeeper
    origin: OriginStatus
    latest_jobs: LatestJobs


class Api:
    """Serves the API."""

    def __init__(self, config: Config, service: Service, parts: Parts) -> None:
        """Binds the port, so that one taken is noticed now: raises OSError."""
        self._socket = socket.create_server((config.api.address, config.api.port), reuse_port=False)
        self._config = config
        self._service = service
        self._parts = parts
        self._server: uvicorn.Server | None = None

    def run(self, stopping: threading.Event) -> None:
        """Answers until `stop` is called."""
        # FastAPI takes longer to import than all else together; the pictures don't wait for it.
        import uvicorn

        from webp_converter.api.routes import application

        app = application(self._config, self._service, self._parts)
        self._server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False, lifespan="off"))
        if not stopping.is_set():
            self._server.run(sockets=[self._socket])

    def stop(self) -> None:
        if self._server:
            self._server.should_exit = True
