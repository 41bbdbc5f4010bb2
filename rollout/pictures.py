"""A picture, asked for on the host itself as a browser does, without anything that isn't on every host."""

from __future__ import annotations

import http.client
import io
import shlex
import socket
import time
from dataclasses import dataclass

from PIL import Image, UnidentifiedImageError

from hosts import Remote
from rollout.errors import RolloutError

ACCEPTS = {"WEBP": "image/webp,image/*;q=0.8,*/*;q=0.5", "JPEG": "image/jpeg,image/*;q=0.8"}
"""The formats that are asked for, by Pillow's names, and how browsers ask for them."""

# Until a variant that is being made just now is there, in seconds: the picture is made anew all the time.
_PATIENCE = 30.0


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
    :raises hosts.HostError: the host can't be reached.
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
    response = http.client.HTTPResponse(_as_socket(output.out))
    try:
        response.begin()
        return Answer(response.status, response.getheader("Content-Type") or "", response.read())
    except http.client.HTTPException as error:
        raise RolloutError(f"{remote.name}: port {door.port} does not answer in HTTP: {error!r}") from None


def _as_socket(data: bytes) -> socket.socket:
    # All that `HTTPResponse` does with it is `makefile`.
    return _Bytes(data)  # type: ignore[return-value]


def comes_in(remote: Remote, door: Door, path: str, form: str) -> str:
    """What is wrong with a picture in one format; empty: it comes, and is whole."""
    answer = ask(remote, door, path, ACCEPTS[form])
    if answer.status != http.client.OK:
        return f"{path} is answered with {answer.status}"
    try:
        with Image.open(io.BytesIO(answer.body)) as picture:
            picture.load()
            found = picture.format
    except (UnidentifiedImageError, OSError) as error:
        return f"{path} is no whole picture: {error}"
    if found != form or answer.type != f"image/{form.lower()}":
        return f"{path} comes as {answer.type} ({found}), asked for as {form}"
    return ""


def check(remote: Remote, door: Door, path: str, *, patience: float = _PATIENCE) -> None:
    """Makes sure that a JPEG comes as both formats.

    :param patience: seconds in which it may still come right.
    :raises RolloutError: it does not.
    :raises hosts.HostError: the host can't be reached.
    """
    deadline = time.monotonic() + patience
    for form in ACCEPTS:
        while wrong := _wrong(remote, door, path, form):
            if time.monotonic() > deadline:
                raise RolloutError(f"{remote.name}: {wrong}")
            time.sleep(0.5)


def _wrong(remote: Remote, door: Door, path: str, form: str) -> str:
    try:
        return comes_in(remote, door, path, form)
    except RolloutError as error:
        return str(error).removeprefix(f"{remote.name}: ")
