"""Bodies in HTTP/2 and 3, where a length is optional, and each request has a stream: see `smuggling`.

What is sent is the same in both; here is how HTTP/2 sends it, and in `smuggling_h3` how HTTP/3 does.
"""

from __future__ import annotations

import hashlib
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import partial

import h2.config
import h2.connection
import h2.events
import h2.exceptions

from tests.e2e import smuggling

_REQUEST = b"GET /upload/other.jpg HTTP/1.1\r\nHost: a\r\n\r\n"


@dataclass(frozen=True)
class Request:
    """What is sent on one stream."""

    method: str = "GET"
    headers: list[tuple[str, str]] = field(default_factory=list)
    """Behind `:method`, `:scheme`, `:authority` and `:path`."""
    data: list[bytes] = field(default_factory=list)
    trailers: list[tuple[str, str]] = field(default_factory=list)
    ends: bool = True
    pseudo: dict[str, str | None] = field(default_factory=dict)
    """Other values of these four; None: it isn't sent."""

    def head(self, path: str) -> list[tuple[str, str]]:
        """All its headers, where `path` is asked for."""
        usual = {":method": self.method, ":scheme": "https", ":authority": "a", ":path": path}
        given = {**usual, **self.pseudo}.items()
        return [(name, value) for name, value in given if value is not None] + self.headers


ATTACKS = {
    "a length and its bytes": Request(headers=[("content-length", "5")], data=[b"12345"]),
    "HEAD with a length": Request("HEAD", [("content-length", "5")], [b"12345"]),
    "OPTIONS with a length": Request("OPTIONS", [("content-length", "5")], [b"12345"]),
    "POST with a length": Request("POST", [("content-length", "5")], [b"12345"]),
    "a length without bytes": Request(headers=[("content-length", "5")]),
    "fewer bytes than said": Request(headers=[("content-length", "50")], data=[b"12345"]),
    "more bytes than said": Request(headers=[("content-length", "5")], data=[_REQUEST]),
    "bytes after a length of 0": Request(headers=[("content-length", "0")], data=[_REQUEST]),
    "two lengths": Request(headers=[("content-length", "0"), ("content-length", "44")], data=[_REQUEST]),
    "a length that is none": Request(headers=[("content-length", "+5")], data=[b"12345"]),
    "bytes without a length": Request(data=[b"12345"]),
    "a request as the body": Request(data=[_REQUEST, _REQUEST]),
    "an empty body": Request(data=[b""]),
    "bytes without an end": Request(data=[b"12345"], ends=False),
    "no bytes and no end": Request(ends=False),
    "HEAD with bytes": Request("HEAD", data=[b"12345"]),
    "OPTIONS with bytes": Request("OPTIONS", data=[b"12345"]),
    "trailers": Request(trailers=[("x", "a")]),
    "trailers that are lengths": Request(
        data=[b"12345"], trailers=[("content-length", "5"), ("transfer-encoding", "chunked")]
    ),
    "chunks": Request(headers=[("transfer-encoding", "chunked")], data=[b"5\r\n12345\r\n0\r\n\r\n"]),
    "headers of a connection": Request(headers=[("connection", "upgrade"), ("upgrade", "h2c")]),
    "expecting 100": Request(headers=[("expect", "100-continue"), ("content-length", "5")], data=[b"12345"]),
    "a line break in a header": Request(headers=[("x", "a\r\ncontent-length: 44\r\n\r\n")], data=[_REQUEST]),
    "a larger body than is taken": Request(data=[b"1" * 16_000] * 3),
    "a request in the method": Request("GET /upload/other.jpg HTTP/1.1\r\nHost: a\r\n\r\nGET"),
    "a request in the path": Request(
        pseudo={":path": "/upload/a.jpg HTTP/1.1\r\nHost: a\r\nContent-Length: 44\r\n\r\n"}, data=[_REQUEST]
    ),
    "a length in the host": Request(pseudo={":authority": "a\r\nContent-Length: 44"}, data=[_REQUEST]),
    "two paths": Request(headers=[(":path", "/upload/other.jpg")]),
    "two methods": Request(headers=[(":method", "POST")], data=[b"12345"]),
    "a path behind a header": Request(headers=[("x", "a"), (":path", "/upload/other.jpg")]),
    "a length as a pseudo-header": Request(headers=[(":content-length", "5")], data=[b"12345"]),
    "a length in capitals": Request(headers=[("Content-Length", "5")], data=[b"12345"]),
    "no method": Request(pseudo={":method": None}),
    "no path": Request(pseudo={":path": None}),
    "no host": Request(pseudo={":authority": None}),
    "another host beside it": Request(headers=[("host", "b")]),
    "a tunnel": Request("CONNECT", data=[_REQUEST], pseudo={":scheme": None, ":path": None}),
}

_MALFORMED = dict.fromkeys(
    (
        "a line break in a header",
        "a request in the method",
        "a request in the path",
        "a length in the host",
        "two paths",
        "two methods",
        "a path behind a header",
        "a length as a pseudo-header",
        "a length in capitals",
        "no method",
        "no path",
        "no host",
        "another host beside it",
        "a tunnel",
    ),
    "400 path",
)

# Bytes that no header may have: nginx 1.22 ends their stream without an answer.
_ODD_BYTES = (
    "a line break in a header",
    "a request in the method",
    "a request in the path",
    "a length in the host",
    "a length in capitals",
)

# As in HTTP/1.1: the answer, or `reset` for its stream alone, and what the next one on the connection gets.
# All others are `413 path`.
EXPECTED: dict[str, dict[str, str]] = {
    "nginx": {
        **_MALFORMED,
        "POST with a length": "405 path",
        "a length without bytes": "400 path",
        "bytes after a length of 0": "400 path",
        "two lengths": "400 path",
        "a length that is none": "400 path",
        "headers of a connection": "path path",
        # It knows of them when it has answered, or before it asks elsewhere: dropped.
        "bytes without a length": "path path",
        "a request as the body": "path path",
        "an empty body": "path path",
        "HEAD with bytes": "200 path",
        "OPTIONS with bytes": "204 path",
        # After `client_body_timeout`.
        "bytes without an end": "reset path",
        "no bytes and no end": "reset path",
        "trailers": "closed",
        "trailers that are lengths": "closed",
    },
    "haproxy": {
        "POST with a length": "405 path",
        "a length without bytes": "reset path",
        "fewer bytes than said": "reset path",
        "more bytes than said": "reset path",
        "bytes after a length of 0": "reset path",
        "two lengths": "reset path",
        "a length that is none": "reset path",
        "chunks": "reset path",
        "headers of a connection": "reset path",
        "trailers that are lengths": "413 closed",
        "a line break in a header": "closed",
        "a request in the method": "closed",
        "a request in the path": "closed",
        "a length in the host": "closed",
        "two paths": "reset path",
        "two methods": "reset path",
        "a path behind a header": "reset path",
        "a length as a pseudo-header": "reset path",
        "a length in capitals": "reset path",
        "no method": "reset path",
        "no path": "reset path",
        "no host": "400 path",
        # The other one is dropped.
        "another host beside it": "path path",
        # After a second.
        "no bytes and no end": "408 path",
    },
}
EXPECTED["nginx 1.22"] = {**EXPECTED["nginx"], **dict.fromkeys(_ODD_BYTES, "reset path")}


Ask = Callable[[Request, str], tuple[int, str]]
"""Sends a request for a path on a new stream; returns the status of the answer, 0 where the stream was
reset before there was one, and the digest of its content.

:raises EOFError: the connection ends.
"""

Connect = Callable[[str, int], AbstractContextManager[Ask]]


def run(
    host: str,
    port: int,
    paths: list[str],
    expected: dict[str, str],
    *,
    visitors: int,
    connect: Connect,
) -> smuggling.Outcome:
    """Each attack once at `port`, on its own connection, while honest visitors ask at the port `visitors`."""
    with smuggling.visitors(host, visitors, paths) as (outcome, right):
        for number, (name, request) in enumerate(ATTACKS.items()):
            path = paths[number % len(paths)]
            said = _attack(connect(host, port), request, path, right)
            outcome.attacks += 1
            outcome.statuses[name] = said
            wanted = expected.get(name, "413 path")
            if said != wanted:
                outcome.wrong.append(f"{name}: {said}, not {wanted}")
    return outcome


def _attack(
    connecting: AbstractContextManager[Ask], request: Request, path: str, right: smuggling.Right
) -> str:
    """The answer to it, and to an honest request on the same connection."""
    names = {right[path, accept]: "path" for accept in smuggling.ACCEPTS}
    said = []
    with connecting as ask:
        try:
            for one in (request, Request()):
                status, digest = ask(one, path)
                said.append(names.get((status, digest), str(status) if status else "reset"))
        except TimeoutError:
            said.append("silent")
        except (EOFError, ConnectionError, ssl.SSLError):
            said.append("closed")
    return " ".join(said)


@contextmanager
def connection(host: str, port: int) -> Iterator[Ask]:
    """One of HTTP/2."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    with (
        socket.create_connection((host, port), timeout=10) as plain,
        context.wrap_socket(plain, server_hostname="cdn") as connected,
    ):
        state = h2.connection.H2Connection(
            h2.config.H2Configuration(validate_outbound_headers=False, normalize_outbound_headers=False)
        )
        state.initiate_connection()
        yield partial(_ask, connected, state)


def _ask(
    connected: ssl.SSLSocket, state: h2.connection.H2Connection, request: Request, path: str
) -> tuple[int, str]:
    stream = state.get_next_available_stream_id()
    rest = request.data
    alone = request.ends and not rest and not request.trailers
    state.send_headers(stream, request.head(path), end_stream=alone)
    for number, data in enumerate(rest, 1):
        ends = request.ends and number == len(rest) and not request.trailers
        state.send_data(stream, data, end_stream=ends)
    if request.trailers:
        state.send_headers(stream, request.trailers, end_stream=True)
    connected.sendall(state.data_to_send())
    status, content = 0, b""
    while more := connected.recv(1 << 16):
        for event in state.receive_data(more):
            match event:
                case h2.events.ResponseReceived(stream_id=which, headers=headers) if which == stream:
                    status = int(dict(headers)[b":status"])
                case h2.events.DataReceived(stream_id=which, data=data) if which == stream:
                    content += data
                    state.acknowledge_received_data(event.flow_controlled_length, stream)
                case h2.events.StreamEnded(stream_id=which) | h2.events.StreamReset(stream_id=which):
                    if which == stream:
                        return status, hashlib.sha256(content).hexdigest()
                case h2.events.ConnectionTerminated():
                    raise EOFError
        connected.sendall(state.data_to_send())
    raise EOFError
