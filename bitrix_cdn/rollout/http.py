"""Sends HTTP requests on a host itself with tools of every Debian host: bash, and openssl for TLS."""

from __future__ import annotations

import http.client
import io
import shlex
import socket
from dataclasses import dataclass
from typing import cast

from bitrix_cdn.fleet import Remote
from bitrix_cdn.rollout.errors import RolloutError


@dataclass(frozen=True)
class Door:
    """Where visitors are let in, on the host itself."""

    port: int
    name: str
    """The host name that they ask for."""
    tls: bool


@dataclass(frozen=True)
class Answer:
    """What a visitor gets."""

    status: int
    type: str
    body: bytes


class _Bytes:
    """Enough of a socket for `http.client` to read an answer from."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def makefile(self, mode: str) -> io.BytesIO:
        return io.BytesIO(self._data)


def ask(remote: Remote, door: Door, path: str, accept: str) -> Answer:
    """Asks a host's own nginx or balancer for something.

    :raises RolloutError: it does not answer, or not in HTTP.
    :raises HostError: the host can't be reached.
    """
    request = (
        f"GET {path} HTTP/1.1\r\nHost: {door.name}\r\nAccept: {accept}\r\n"
        "User-Agent: bitrix-cdn-rollout\r\nConnection: close\r\n\r\n"
    )
    line = (
        f"openssl s_client -quiet -verify_quiet -connect 127.0.0.1:{door.port} "
        f"-servername {shlex.quote(door.name)}"
        if door.tls
        else f"exec 3<>/dev/tcp/127.0.0.1/{door.port} && cat >&3 && cat <&3"
    )
    output = remote.run(
        f"timeout 15 bash -c {shlex.quote(line)}", stdin=request.encode(), check=False, silence=30
    )
    if not output.out:
        raise RolloutError(f"{remote.name}: nothing answers at port {door.port}: {output.reason}")
    try:
        return parse(output.out)
    except ValueError as error:
        raise RolloutError(f"{remote.name}: port {door.port} does not answer in HTTP: {error}") from None


def parse(data: bytes) -> Answer:
    """The answer in the bytes that came.

    :raises ValueError: it isn't HTTP, or is cut short.
    """
    # All that `HTTPResponse` does with a socket is `makefile`.
    response = http.client.HTTPResponse(cast(socket.socket, _Bytes(data)))
    try:
        response.begin()
        return Answer(response.status, response.getheader("Content-Type") or "", response.read())
    except http.client.HTTPException as error:
        raise ValueError(repr(error)) from None
