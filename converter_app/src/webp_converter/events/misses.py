"""The miss log: a datagram from nginx for each request that got less than the best variant.

nginx writes them in syslog's form, `<190>Nov 22 12:00:00 edge: pending /upload/a.jpg`, to a socket that
systemd holds. The path is the request's, decoded: any bytes, of any visitor's choice.
"""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple, Self

from webp_converter.base.names import is_original

_FIRST_INHERITED = 3
_DATAGRAM_BYTES = 65_536
_READ_AT_ONCE = 1024
_RESIZED = b"/upload/resize_cache/"
_UPLOAD = b"/upload/"
PENDING = b"pending"


class Miss(NamedTuple):
    """A picture that was asked for."""

    path: bytes
    """Path of the request, decoded."""

    pending: bool
    """Whether it has no variant yet; otherwise it has one, or a verdict, that is to be compared with it."""


def parse(datagram: bytes) -> Miss | None:
    """What a datagram says; None for one that nginx didn't write."""
    header, colon, message = datagram.partition(b": ")
    variant, space, path = message.partition(b" ")
    if not header.startswith(b"<") or not colon or not space or not path.startswith(b"/"):
        return None
    return Miss(path, variant == PENDING)


@dataclass(frozen=True)
class Places:
    """Which file a request is for."""

    resized: bytes
    """Directory of the resized pictures."""

    originals: bytes
    """Directory of the variants of originals; there an original's path stands for it, and is no file."""

    extensions: frozenset[str]

    def of(self, path: bytes) -> bytes | None:
        """The picture's path on this host; None for what can't be a picture of the site."""
        parts = path.split(b"/")[1:]
        if b"\0" in path or any(part in (b"", b".", b"..") or part.startswith(b".") for part in parts):
            return None
        if not is_original(os.fsdecode(path.rpartition(b"/")[2]), self.extensions):
            return None
        if path.startswith(_RESIZED):
            return self.resized + b"/" + path.removeprefix(_RESIZED)
        if path.startswith(_UPLOAD):
            return self.originals + b"/" + path.removeprefix(_UPLOAD)
        return None


class MissLog:
    """The socket's reading end."""

    def __init__(self, receiver: socket.socket) -> None:
        self._socket = receiver
        self._socket.setblocking(False)
        self._poll = select.poll()
        self._poll.register(receiver, select.POLLIN)

    @classmethod
    def inherited(cls) -> Self | None:
        """The log on the socket that systemd handed over (sd_listen_fds(3)); None where it didn't."""
        if os.environ.get("LISTEN_PID") != str(os.getpid()) or os.environ.get("LISTEN_FDS") != "1":
            return None
        # Not the workers' business.
        os.set_inheritable(_FIRST_INHERITED, False)
        return cls(socket.socket(fileno=_FIRST_INHERITED))

    def read(self, timeout_s: float) -> list[Miss]:
        """What has come in, each picture once; waits for the first."""
        self._poll.poll(int(timeout_s * 1000))
        return merged(self._datagrams())

    def _datagrams(self) -> Iterable[bytes]:
        for _ in range(_READ_AT_ONCE):
            try:
                yield self._socket.recv(_DATAGRAM_BYTES)
            except BlockingIOError:
                return

    def close(self) -> None:
        self._socket.close()


def merged(datagrams: Iterable[bytes]) -> list[Miss]:
    """The misses in datagrams, each picture once; a pending one is pending whatever else is said of it."""
    found: dict[bytes, Miss] = {}
    for datagram in datagrams:
        miss = parse(datagram)
        if miss is not None and (miss.pending or miss.path not in found):
            found[miss.path] = miss
    return list(found.values())
