"""The site's originals over HTTP, as the server that reads their mount shows them."""

from __future__ import annotations

import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

MODIFIED = "Sun, 22 Nov 2026 02:00:00 GMT"
MTIME_NS = 1_795_312_800_000_000_000


class Site(ThreadingHTTPServer):
    """Stands in for the server that reads the mount, and for the cache in front."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.status = 200
        self.pause_s = 0.0
        self.purged: list[str] = []
        self.purged_pending: list[tuple[str, str]] = []
        """With the class of browsers that was meant."""
        self.url = f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Site

    def do_GET(self) -> None:
        data = self.server.files.get(self.path)
        status = self.server.status if data is not None or self.server.status != 200 else 404
        self.send_response(status)
        if status == 200 and data is not None:
            self.send_header("Last-Modified", MODIFIED)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(data[:1])
                time.sleep(self.server.pause_s)
                self.wfile.write(data[1:])
        else:
            self.send_header("Content-Length", "0")
            self.end_headers()

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_PURGE(self) -> None:
        if self.headers.get("X-Only") == "pending":
            self.server.purged_pending.append((self.path, self.headers["Accept"]))
        else:
            self.server.purged.append(self.path)
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *arguments: object) -> None:
        pass
