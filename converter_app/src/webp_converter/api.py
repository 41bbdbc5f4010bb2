"""Listens for the HTTP API; what it answers is in `routes`."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import TYPE_CHECKING

from webp_converter.config import Api as ApiConfig

if TYPE_CHECKING:
    import uvicorn


class Api:
    """Serves the API."""

    def __init__(
        self,
        config: ApiConfig,
        health: Callable[[], tuple[bool, dict[str, object]]],
        picture: Callable[[bytes], dict[str, object] | None],
    ) -> None:
        """Binds the port, so that one taken is noticed now: raises OSError."""
        self._socket = socket.create_server((config.address, config.port), reuse_port=False)
        self._health = health
        self._picture = picture
        self._server: uvicorn.Server | None = None

    def serve(self) -> None:
        """Answers until `stop` is called."""
        # FastAPI takes longer to import than all else together; the pictures don't wait for it.
        import uvicorn

        from webp_converter.routes import application

        app = application(self._health, self._picture)
        self._server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False, lifespan="off"))
        self._server.run(sockets=[self._socket])

    def stop(self) -> None:
        if self._server:
            self._server.should_exit = True
