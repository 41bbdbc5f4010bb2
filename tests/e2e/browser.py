"""A real browser: headless Chromium behind a proxy that sees what it asks for and what it gets."""

from __future__ import annotations

import http.client
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit

# As root it has no sandbox; without the others it talks to its maker's hosts.
_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
)


@dataclass(frozen=True)
class Loaded:
    """A picture as the browser got it."""

    path: str
    accept: str
    type: str
    bytes: int


@dataclass
class Proxy:
    """An HTTP proxy on loopback."""

    port: int
    loaded: list[Loaded] = field(default_factory=list)

    def pictures(self) -> dict[str, Loaded]:
        """Those below /upload/ that the page shows, by path."""
        return {entry.path: entry for entry in self.loaded if entry.path.startswith("/upload/")}


@contextmanager
def proxy(accept: str | None = None) -> Iterator[Proxy]:
    """Runs a proxy.

    :param accept: what pictures are asked for with instead of the browser's own `Accept`.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._pass("GET")

        def do_HEAD(self) -> None:
            self._pass("HEAD")

        def _pass(self, method: str) -> None:
            url = urlsplit(self.path)
            headers = {k: v for k, v in self.headers.items() if not k.lower().startswith("proxy-")}
            asked = headers.get("Accept", "")
            # The page's own script asks with HEAD, and says which formats it means.
            is_picture = method == "GET" and url.path.startswith("/upload/")
            if is_picture and accept is not None:
                headers["Accept"] = asked = accept
            connection = http.client.HTTPConnection(url.netloc, timeout=60)
            try:
                connection.connect()
            except OSError:  # hosts of its maker's, whatever the flags say
                self.send_error(502)
                return
            try:
                target = f"{url.path}?{url.query}" if url.query else url.path
                connection.request(method, target, headers=headers)
                answer = connection.getresponse()
                data = answer.read()
            finally:
                connection.close()
            if is_picture and answer.status == 200:
                made.loaded.append(Loaded(url.path, asked, answer.headers.get("Content-Type", ""), len(data)))
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                if name.lower() not in {"connection", "transfer-encoding", "content-length"}:
                    self.send_header(name, value)
            # To HEAD there is no body; its length is the answer's own word.
            length = str(len(data)) if method == "GET" else answer.headers.get("Content-Length", "0")
            self.send_header("Content-Length", length)
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    made = Proxy(server.server_port)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield made
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def visit(
    url: str,
    through: Proxy,
    screenshot: Path,
    *,
    width: int = 1280,
    height: int = 2000,
    profile: Path | None = None,
) -> None:
    """Opens a page in a browser, and takes a picture of it once it is loaded.

    :param profile: a directory in which the browser keeps what it has seen; by default it has no past.
    :raises AssertionError: the browser fails, or takes longer than two minutes.
    """
    with TemporaryDirectory() as no_past:
        result = subprocess.run(
            [
                "chromium",
                *_FLAGS,
                f"--user-data-dir={profile or no_past}",
                f"--proxy-server=http://127.0.0.1:{through.port}",
                # The lab's addresses are no exception.
                "--proxy-bypass-list=<-loopback>",
                f"--window-size={width},{height}",
                "--virtual-time-budget=20000",
                f"--screenshot={screenshot}",
                url,
            ],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    assert screenshot.exists(), result.stderr[-2000:]
