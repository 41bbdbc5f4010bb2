"""What `smuggling_h2` sends, over HTTP/3."""

from __future__ import annotations

import hashlib
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import aioquic.h3.connection
import aioquic.h3.events
import aioquic.quic.configuration
import aioquic.quic.connection
import aioquic.quic.events

from tests.e2e import smuggling_h2
from tests.e2e.smuggling_h2 import Ask, Request

_PATIENCE = 10.0

EXPECTED = {
    **smuggling_h2.EXPECTED["nginx"],
    # In HTTP/2 it finds out by itself that there are fewer or more bytes.
    "a length without bytes": "413 path",
    "bytes after a length of 0": "413 path",
    # Dropped, as the bytes before them.
    "trailers": "path path",
    "trailers that are lengths": "path path",
}


class _Connection(aioquic.h3.connection.H3Connection):
    def _check_content_length(self, stream: aioquic.h3.connection.H3Stream) -> None:
        """Nothing: the answer to HEAD would be refused, as it has a length and no bytes."""


@contextmanager
def connection(host: str, port: int) -> Iterator[Ask]:
    """One of HTTP/3."""
    quic = aioquic.quic.connection.QuicConnection(
        configuration=aioquic.quic.configuration.QuicConfiguration(
            alpn_protocols=aioquic.h3.connection.H3_ALPN, verify_mode=ssl.CERT_NONE, server_name="cdn"
        )
    )
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
        datagrams.connect((host, port))
        quic.connect((host, port), now=time.monotonic())
        yield partial(_ask, datagrams, quic, _Connection(quic))
        quic.close()
        _send(datagrams, quic)


def _ask(
    datagrams: socket.socket,
    quic: aioquic.quic.connection.QuicConnection,
    state: aioquic.h3.connection.H3Connection,
    request: Request,
    path: str,
) -> tuple[int, str]:
    stream = quic.get_next_available_stream_id()
    rest = request.data
    alone = request.ends and not rest and not request.trailers
    state.send_headers(stream, _bytes(request.head(path)), end_stream=alone)
    for number, data in enumerate(rest, 1):
        ends = request.ends and number == len(rest) and not request.trailers
        state.send_data(stream, data, end_stream=ends)
    if request.trailers:
        state.send_headers(stream, _bytes(request.trailers), end_stream=True)
    status, content = 0, b""
    for event in _events(datagrams, quic):
        match event:
            case aioquic.quic.events.ConnectionTerminated():
                raise EOFError
            case aioquic.quic.events.StreamReset(stream_id=which) if which == stream:
                return status, hashlib.sha256(content).hexdigest()
        for part in state.handle_event(event):
            match part:
                case aioquic.h3.events.HeadersReceived(stream_id=which, headers=headers) if which == stream:
                    status = int(dict(headers)[b":status"])
                case aioquic.h3.events.DataReceived(stream_id=which, data=data) if which == stream:
                    content += data
                case _:
                    continue
            if part.stream_ended:
                return status, hashlib.sha256(content).hexdigest()
    raise TimeoutError


def _events(
    datagrams: socket.socket, quic: aioquic.quic.connection.QuicConnection
) -> Iterator[aioquic.quic.events.QuicEvent]:
    """What happens on the connection, for as long as somebody is patient."""
    deadline = time.monotonic() + _PATIENCE
    while (now := time.monotonic()) < deadline:
        _send(datagrams, quic)
        timer = min(deadline, quic.get_timer() or deadline)
        datagrams.settimeout(max(0.001, timer - now))
        try:
            quic.receive_datagram(datagrams.recv(1 << 16), quic.get_peer_address(), time.monotonic())
        except TimeoutError:
            quic.handle_timer(time.monotonic())
        while event := quic.next_event():
            yield event


def _send(datagrams: socket.socket, quic: aioquic.quic.connection.QuicConnection) -> None:
    for data, _ in quic.datagrams_to_send(time.monotonic()):
        datagrams.send(data)


def _bytes(headers: list[tuple[str, str]]) -> list[tuple[bytes, bytes]]:
    return [(name.encode(), value.encode()) for name, value in headers]
