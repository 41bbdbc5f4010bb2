"""Visitors notice what goes wrong."""

from __future__ import annotations

import hashlib
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.kit.load import Request, RequestError, Seen, Visitor, get, report, visiting


class Server(ThreadingHTTPServer):
    status = 200
    body = b"a picture"
    length: int | None = None
    asked: str = ""


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.asked = f"{self.path} {self.headers['Accept']}"
        self.send_response(self.server.status)
        self.send_header("Content-Length", str(self.server.length or len(self.server.body)))
        self.end_headers()
        self.wfile.write(self.server.body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def url(server: Server, path: str = "/a.jpg?b=c") -> str:
    return f"http://127.0.0.1:{server.server_address[1]}{path}"


def test_the_right_body(server: Server) -> None:
    get(url(server), accept="image/webp", bodies=[hashlib.sha256(server.body).hexdigest()])()
    assert server.asked == "/a.jpg?b=c image/webp"


def test_another_body(server: Server) -> None:
    with pytest.raises(RequestError, match="another body: 9 bytes"):
        get(url(server), bodies=[hashlib.sha256(b"what was there").hexdigest()])()


def test_another_status(server: Server) -> None:
    server.status = 503
    with pytest.raises(RequestError, match="503"):
        get(url(server))()


def test_a_body_cut_short(server: Server) -> None:
    server.length = 100
    with pytest.raises(RequestError, match="IncompleteRead"):
        get(url(server))()


def test_nobody_listens() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        with pytest.raises(ConnectionRefusedError):
            get(f"http://127.0.0.1:{taken.getsockname()[1]}/")()


def test_a_moment_of_failure_is_seen(server: Server) -> None:
    with visiting([Visitor("a picture", get(url(server)), pause_s=0.01)]) as seen:
        time.sleep(0.2)
        server.status = 502
        time.sleep(0.2)
        server.status = 200
        time.sleep(0.2)
    (one,) = seen
    assert 0 < len(one.failures) < len(one.requests)
    assert all("502" in failure for failure in one.failures)


def test_a_visitor_that_breaks_is_no_content_one() -> None:
    def broken() -> None:
        raise ValueError("a fault of the visitor's own")

    with visiting([Visitor("a picture", broken, pause_s=0.01)]) as seen:
        time.sleep(0.1)
    assert len(seen[0].requests) == len(seen[0].failures) > 0


def test_a_visitor_ends_that_has_asked_for_all(server: Server) -> None:
    left = iter([1, 2, 3])
    with visiting([Visitor("a few pictures", lambda: next(left), pause_s=0)]) as seen:
        time.sleep(0.1)
    assert [request.failed for request in seen[0].requests] == [""] * 3


def test_a_report_names_the_first_failures_and_the_last() -> None:
    fine = Seen("fine", [Request(0, 0.0321)] * 10)
    bad = Seen("bad", [Request(0, 1.5)] + [Request(0, 1, f"failure {n}") for n in range(8)])
    assert report([fine, bad]).replace(
        f"{time.strftime('%H:%M:%S', time.localtime(0))}: ", ""
    ).splitlines() == [
        "fine: 10 requests, 0 failed, slowest 32 ms",
        "bad: 9 requests, 8 failed, slowest 1500 ms",
        *(f"  failure {n}" for n in range(5)),
        "  ... the last: failure 7",
    ]
