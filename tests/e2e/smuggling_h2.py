"""Bodies in HTTP/2, where a length is optional, and each request has a stream: see `smuggling`."""

from __future__ import annotations

import hashlib
import socket
import ssl
from dataclasses import dataclass, field

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
    data: list[bytes] = field(default_factory=list)
    trailers: list[tuple[str, str]] = field(default_factory=list)
    ends: bool = True


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
}

# As in HTTP/1.1: the answer, or `reset` for its stream alone, and what the next one on the connection gets.
# All others are `413 path`.
EXPECTED: dict[str, dict[str, str]] = {
    "nginx": {
        "POST with a length": "405 path",
        "a length without bytes": "400 path",
        "bytes after a length of 0": "400 path",
        "two lengths": "400 path",
        "a length that is none": "400 path",
        "a line break in a header": "400 path",
        "headers of a connection": "path path",
        # It knows of them when it has answered, or before it asks elsewhere: dropped.
        "bytes without a length": "path path",
        "a request as the body": "path path",
        "an empty body": "path path",
        "HEAD with bytes": "200 path",
        "OPTIONS with bytes": "204 path",
        # After `client_body_timeout`.
        "bytes without an end": "reset path",
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
    },
}


def run(host: str, port: int, paths: list[str], server: str, *, visitors: int) -> smuggling.Outcome:
    """Each attack once over HTTP/2 at `port`, while honest visitors ask at the port `visitors`."""
    with smuggling.visitors(host, visitors, paths) as (outcome, right):
        for number, (name, request) in enumerate(ATTACKS.items()):
            path = paths[number % len(paths)]
            said = attack(host, port, request, path, right)
            outcome.attacks += 1
            outcome.statuses[name] = said
            wanted = EXPECTED[server].get(name, "413 path")
            if said != wanted:
                outcome.wrong.append(f"{name}: {said}, not {wanted}")
    return outcome


def attack(host: str, port: int, request: Request, path: str, right: smuggling.Right) -> str:
    """The answer to it, and to an honest request on the same connection."""
    names = {right[path, accept]: "path" for accept in smuggling.ACCEPTS}
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    said = []
    with (
        socket.create_connection((host, port), timeout=10) as plain,
        context.wrap_socket(plain, server_hostname="cdn") as connection,
    ):
        state = h2.connection.H2Connection(
            h2.config.H2Configuration(validate_outbound_headers=False, normalize_outbound_headers=False)
        )
        state.initiate_connection()
        try:
            for one in (request, Request()):
                status, digest = _ask(connection, state, one, path)
                said.append(names.get((status, digest), str(status) if status else "reset"))
        except TimeoutError:
            said.append("silent")
        except (EOFError, ConnectionError, ssl.SSLError):
            said.append("closed")
    return " ".join(said)


def _ask(
    connection: ssl.SSLSocket, state: h2.connection.H2Connection, request: Request, path: str
) -> tuple[int, str]:
    """Status and digest of the answer; 0 where the stream was reset before there was one.

    :raises EOFError: the connection ends.
    """
    stream = state.get_next_available_stream_id()
    head = [(":method", request.method), (":scheme", "https"), (":authority", "a"), (":path", path)]
    rest = request.data
    state.send_headers(stream, head + request.headers, end_stream=not rest and not request.trailers)
    for number, data in enumerate(rest, 1):
        ends = request.ends and number == len(rest) and not request.trailers
        state.send_data(stream, data, end_stream=ends)
    if request.trailers:
        state.send_headers(stream, request.trailers, end_stream=True)
    connection.sendall(state.data_to_send())
    status, content = 0, b""
    while more := connection.recv(1 << 16):
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
        connection.sendall(state.data_to_send())
    raise EOFError
