"""A receiver of Alertmanager's webhooks, for tests that wait for an alert to arrive."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Notice:
    """One alert in one notification."""

    arrived: float
    """Seconds since 1970."""

    status: str
    """`firing` or `resolved`."""

    receiver: str
    labels: dict[str, str]
    annotations: dict[str, str]

    def is_about(self, alertname: str, labels: dict[str, str]) -> bool:
        wanted = {"alertname": alertname, **labels}
        return all(self.labels.get(name) == value for name, value in wanted.items())


class Receiver:
    """What has arrived."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.refuses = False
        """Answer 400 and forget: a receiver that doesn't work."""
        self._notices: list[Notice] = []
        self._news = threading.Condition()

    def url(self, host: str = "127.0.0.1") -> str:
        """The address to post to, where this machine is known as `host`."""
        return f"http://{host}:{self.port}/"

    def take(self, payload: dict[str, Any]) -> None:
        """Takes what Alertmanager posts.

        Raises KeyError, TypeError or AttributeError when it is something else.
        """
        now = time.time()
        notices = [
            Notice(now, alert["status"], payload["receiver"], alert["labels"], alert["annotations"])
            for alert in payload["alerts"]
        ]
        with self._news:
            self._notices += notices
            self._news.notify_all()

    def notices(self, since: float = 0) -> list[Notice]:
        """All that arrived at `since` (seconds since 1970) or later, the oldest first."""
        with self._news:
            return [notice for notice in self._notices if notice.arrived >= since]

    def wait_for(
        self, alertname: str, status: str = "firing", *, timeout: float = 120, since: float = 0, **labels: str
    ) -> Notice:
        """The first notice of an alert with that status and these labels, once it is there.

        :param since: what arrived before (seconds since 1970) doesn't count.
        :raises AssertionError: it doesn't arrive within `timeout` seconds; says what did.
        """
        deadline = time.monotonic() + timeout
        with self._news:
            while True:
                for notice in self._notices:
                    if (
                        notice.arrived >= since
                        and notice.status == status
                        and notice.is_about(alertname, labels)
                    ):
                        return notice
                left = deadline - time.monotonic()
                if left <= 0:
                    came = [
                        f"{notice.labels.get('alertname')} {notice.status}"
                        for notice in self._notices
                        if notice.arrived >= since
                    ]
                    wanted = f"{alertname} {labels or ''} {status}"
                    raise AssertionError(f"{wanted} did not arrive within {timeout:g} s; came: {came}")
                self._news.wait(left)


@contextmanager
def receiving(address: str = "127.0.0.1", port: int = 0) -> Iterator[Receiver]:
    """Listens while the body runs.

    :param port: 0: any that is free.
    :raises OSError: the port is taken.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if receiver.refuses:
                self.send_error(400)
                return
            try:
                receiver.take(json.loads(body))
            except (ValueError, KeyError, TypeError, AttributeError):
                self.send_error(400)
                return
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *arguments: object) -> None:
            """Says nothing: what arrives is in the receiver."""

    with ThreadingHTTPServer((address, port), Handler) as server:
        receiver = Receiver(server.server_port)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield receiver
        finally:
            server.shutdown()
            thread.join()
