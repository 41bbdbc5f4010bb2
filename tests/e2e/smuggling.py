"""Requests that two servers could read differently, while other visitors look at every byte that they get.

Only the standard library: hosts run it as well, against what listens on their own loopback.
"""

# ruff: noqa: E501 (the requests are as they go over the wire)
from __future__ import annotations

import argparse
import contextlib
import hashlib
import http.client
import io
import json
import random
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import BinaryIO

ACCEPTS = ("image/webp,image/*,*/*;q=0.8", "image/png,image/jpeg,*/*;q=0.5")

_NEXT = "GET {other} HTTP/1.1\r\nHost: a\r\n\r\n"

# A head without its end, and what comes behind that. `{path}` is the picture asked for, `{other}` one that nobody
# on this connection asked for: the bytes of its request are a body's, of `{length}` bytes, or nothing at all.
ATTACKS: dict[str, tuple[str, str]] = {
    "a length and its bytes": ("GET {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 5", "12345"),
    "HEAD with a length": ("HEAD {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 5", "12345"),
    "a length without bytes": ("GET {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 50", ""),
    "a request for a body": ("GET {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {length}", _NEXT),
    "chunks": ("GET {path} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked", "5\r\n12345\r\n0\r\n\r\n"),
    "an empty chunk": ("GET {path} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked", "0\r\n\r\n"),
    "HEAD with chunks": (
        "HEAD {path} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked",
        "1\r\n1\r\n0\r\n\r\n",
    ),
    "chunks without an end": ("GET {path} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked", "5\r\n123"),
    "a request behind the last chunk": (
        "GET {path} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked",
        "0\r\n\r\n" + _NEXT,
    ),
    "length, then chunks": (
        "GET {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\nTransfer-Encoding: chunked",
        "0\r\n\r\nG",
    ),
    "chunks, then length": (
        "GET {path} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 4",
        "400\r\n" + _NEXT,
    ),
    "two lengths": ("GET {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nContent-Length: 5", "12345"),
    "a list of lengths": ("GET {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 0, 5", "12345"),
    "a length that is none": ("GET {path} HTTP/1.1\r\nHost: a\r\nContent-Length: +5", "12345"),
    "a negative length": ("GET {path} HTTP/1.1\r\nHost: a\r\nContent-Length: -5", "12345"),
    "a folded length": ("GET {path} HTTP/1.1\r\nHost: a\r\nX: a\r\n Content-Length: 5", "12345"),
    "a folded encoding": ("GET {path} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n chunked", "0\r\n\r\n"),
    "a space before the colon": ("GET {path} HTTP/1.1\r\nHost: a\r\nContent-Length : 5", "12345"),
    "another encoding": ("GET {path} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked", "0\r\n\r\n"),
    "two encodings": (
        "GET {path} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity",
        "0\r\n\r\n",
    ),
    "a tab before the encoding": (
        "GET {path} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\tchunked",
        "5\r\n12345\r\n0\r\n\r\n",
    ),
    "an encoding in HTTP/1.0": (
        "GET {path} HTTP/1.0\r\nTransfer-Encoding: chunked",
        "5\r\n12345\r\n0\r\n\r\n",
    ),
    "chunks with an extension": (
        "GET {path} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked",
        "5;a=b\n12345\r\n0\r\nContent-Length: 9\r\n\r\n",
    ),
    "a chunk's size that is too large": (
        "GET {path} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked",
        "fffffffffffffffff\r\n12345\r\n0\r\n\r\n",
    ),
    "expecting 100": ("GET {path} HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5", ""),
    "expecting 100, with bytes": (
        "GET {path} HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5",
        "12345",
    ),
    "expecting something else": ("GET {path} HTTP/1.1\r\nHost: a\r\nExpect: 200-ok", ""),
    "an upgrade to HTTP/2": (
        (
            "GET {path} HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
            "HTTP2-Settings: AAMAAABkAAQAAP__"
        ),
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ),
    "an upgrade to a socket": (
        (
            "GET {path} HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA=="
        ),
        "",
    ),
    "headers named by Connection": (
        "GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close, Content-Length, Host, Accept\r\nContent-Length: 5",
        "12345",
    ),
    "a zero in a header": ("GET {path} HTTP/1.1\r\nHost: a\r\nX: a\0b\r\nContent-Length: 5", "12345"),
    "POST with a request": ("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {length}", _NEXT),
    "OPTIONS with a request": ("OPTIONS {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {length}", _NEXT),
    "PURGE with chunks": (
        "PURGE {path}x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked",
        "1\r\n1\r\n0\r\n\r\n",
    ),
    "two requests at once": ("GET {path} HTTP/1.1\r\nHost: a", _NEXT),
    "an empty length": ("GET {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 0", ""),
    "what is too long for a server behind": (
        "GET /upload/"
        + "\xff" * 7900
        + ".jpg HTTP/1.1\r\nHost: a\r\nAccept: "
        + "a" * 8000
        + "\r\nRange: "
        + "b" * 8000,
        "",
    ),
}

# What a server of each kind answers: a status, or which picture it was. The last is what one more request for `path`
# on the same connection gets: `closed` where a body was refused. All others are `413 closed`.
_MALFORMED = dict.fromkeys(
    (
        "two lengths",
        "a list of lengths",
        "a length that is none",
        "a negative length",
        "a space before the colon",
        "a zero in a header",
    ),
    "400 closed",
)
_HARMLESS = {
    "two requests at once": "path other path",
    "an empty length": "path path",
    "an upgrade to a socket": "path path",
}
EXPECTED: dict[str, dict[str, str]] = {
    "nginx": {
        **_MALFORMED,
        **_HARMLESS,
        "length, then chunks": "400 closed",
        "chunks, then length": "400 closed",
        "a folded length": "400 closed",
        "a folded encoding": "400 closed",
        "two encodings": "400 closed",
        "an encoding in HTTP/1.0": "400 closed",
        "a chunk's size that is too large": "400 closed",
        "another encoding": "501 closed",
        "a tab before the encoding": "501 closed",
        "expecting something else": "path path",
        "an upgrade to HTTP/2": "path 400",
        "POST with a request": "405 path",
        "PURGE with chunks": "405 path",
        "what is too long for a server behind": "414 closed",
    },
    "haproxy": {
        **_MALFORMED,
        **_HARMLESS,
        # One header, with its lines joined: no length, and what follows is no request.
        "a folded length": "path 400",
        "another encoding": "400 closed",
        "two encodings": "400 closed",
        "chunks with an extension": "400 closed",
        "a chunk's size that is too large": "400 closed",
        "expecting something else": "path path",
        "an upgrade to HTTP/2": "path 400",
        "POST with a request": "405 path",
        "PURGE with chunks": "405 path",
        "what is too long for a server behind": "400 closed",
    },
    "varnish": {
        **_MALFORMED,
        **_HARMLESS,
        "POST with a request": "405 closed",
        "OPTIONS with a request": "405 closed",
        "HEAD with a length": "400 closed",
        "HEAD with chunks": "400 closed",
        "length, then chunks": "400 closed",
        "chunks, then length": "400 closed",
        "a folded length": "path 405",
        "another encoding": "400 closed",
        "headers named by Connection": "400 closed",
        "expecting something else": "417 closed",
        "an upgrade to HTTP/2": "path closed",
        "what is too long for a server behind": "404 path",
    },
}
# It has one method less, and takes longer heads.
EXPECTED["originals"] = {
    **EXPECTED["nginx"],
    "OPTIONS with a request": "405 path",
    "a chunk's size that is too large": "413 closed",
    "what is too long for a server behind": "404 path",
}


@dataclass
class Outcome:
    """What became of it; times in seconds."""

    answers: int = 0
    attacks: int = 0
    slowest: float = 0.0
    wrong: list[str] = field(default_factory=list)
    statuses: dict[str, str] = field(default_factory=dict)
    """What was last said to each attack, as :func:`attack` has it."""


Right = dict[tuple[str, str], tuple[int, str]]
"""Status and digest of the answer to a path and an `Accept`."""


@contextlib.contextmanager
def visitors(host: str, port: int, paths: list[str]) -> Iterator[tuple[Outcome, Right]]:
    """Honest visitors who compare each answer, on connections that they keep, while the body runs.

    :param paths: pictures with bytes of their own each, none of them pending.
    """
    expected = {(path, accept): _honest(host, port, path, accept) for path in paths for accept in ACCEPTS}
    digests = [digest for _, digest in expected.values()]
    assert len(set(digests)) == len(digests), "two pictures look alike"
    assert {status for status, _ in expected.values()} == {200}
    outcome, over, lock = Outcome(), threading.Event(), threading.Lock()

    def visitor(seed: int) -> None:
        chance = random.Random(seed)
        connection = http.client.HTTPConnection(host, port, timeout=20)
        while not over.is_set():
            path, accept = chance.choice(list(expected))
            started = time.monotonic()
            try:
                got = _ask(connection, path, accept)
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                got = (0, repr(error))
            with lock:
                outcome.answers += 1
                outcome.slowest = max(outcome.slowest, time.monotonic() - started)
                if got != expected[path, accept]:
                    whose = [which for which, one in expected.items() if one == got]
                    outcome.wrong.append(f"{path} ({accept}): {got} {whose}")
            # So that attacks get their turn on a machine with few cores.
            time.sleep(0.001)

    threads = [threading.Thread(target=visitor, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    try:
        yield outcome, expected
    finally:
        over.set()
        for thread in threads:
            thread.join()


def run(host: str, port: int, paths: list[str], answers: int, server: str = "nginx") -> Outcome:
    """Attack between what honest visitors ask for, until they had so many answers, and each attack at least once.

    :param server: whose answers to the attacks are expected: a key of :data:`EXPECTED`.
    """
    with visitors(host, port, paths) as (outcome, right):
        chance = random.Random(4)
        while outcome.answers < answers or outcome.attacks < len(ATTACKS):
            name = list(ATTACKS)[outcome.attacks % len(ATTACKS)]
            path, other = chance.sample(paths, 2)
            wanted = EXPECTED[server].get(name, "413 closed")
            said = attack(host, port, name, path, other, wanted, right)
            outcome.attacks += 1
            outcome.statuses[name] = said
            if said != wanted:
                outcome.wrong.append(f"{name}: {said}, not {wanted}")
    return outcome


def attack(host: str, port: int, name: str, path: str, other: str, wanted: str, right: Right) -> str:
    """What is answered, in the words of :data:`EXPECTED`; `wanted` tells after how many answers to ask once more."""
    head, body = (text.replace("{path}", path).replace("{other}", other) for text in ATTACKS[name])
    head = head.replace("{length}", str(len(body)))
    names = {
        right[which, accept]: word for which, word in ((path, "path"), (other, "other")) for accept in ACCEPTS
    }
    said: list[str] = []
    with (
        socket.create_connection((host, port), timeout=5) as connection,
        connection.makefile("rb") as answers,
    ):
        connection.sendall(f"{head}\r\n\r\n{body}".encode("latin-1"))
        try:
            for number in range(len(wanted.split()) - 1, -1, -1):
                status, digest, stays = answer(answers, head.startswith("HEAD") and not said)
                said.append(names.get((status, digest), str(status)))
                if number == 1:
                    connection.sendall(f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
                if not stays:
                    # It may wait for the rest of the body, but answers nothing more.
                    connection.shutdown(socket.SHUT_WR)
        except TimeoutError:
            said.append("silent")
        except (EOFError, OSError):
            said.append("closed")
    return " ".join(said)


def answer(answers: BinaryIO, head: bool = False) -> tuple[int, str, bool]:
    """Status and digest of the next answer, and whether the connection stays open by what it says.

    :raises EOFError: there is none.
    """
    status = 100
    while status == 100:
        line = answers.readline()
        if not line:
            raise EOFError
        status = int(line.split()[1])
        headers = http.client.parse_headers(answers)
    stays = headers.get("Connection", "").lower() != "close"
    if head or status in {204, 304}:
        return status, "", stays
    content = b""
    if headers.get("Transfer-Encoding") == "chunked":
        while size := int(answers.readline(), 16):
            content += answers.read(size)
            answers.readline()
        answers.readline()
    elif "Content-Length" in headers:
        content = answers.read(int(headers["Content-Length"]))
    else:
        content = answers.read()
    return status, hashlib.sha256(content).hexdigest(), stays


# What clients do that go away: each gets the connection and the path of a picture that isn't there, so that it is
# asked for at the servers behind.
def _half_a_request(connection: socket.socket, path: str) -> None:
    connection.sendall(f"GET {path} HTTP/1.1\r\nHost".encode())


def _no_ear(connection: socket.socket, path: str) -> None:
    connection.sendall(f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())


def _half_a_body(connection: socket.socket, path: str) -> None:
    connection.sendall(f"GET {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 900\r\n\r\n12345".encode())


def _many(connection: socket.socket, path: str) -> None:
    connection.sendall(f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode() * 20)


def _no_request(connection: socket.socket, path: str) -> None:
    connection.sendall(b"\x16\x03\x01" + path.encode() + b"\r\n\r\n")


RUDE: list[Callable[[socket.socket, str], None]] = [
    _half_a_request,
    _no_ear,
    _half_a_body,
    _many,
    _no_request,
]


def abandon(host: str, port: int, paths: list[str], clients: int = 200) -> Outcome:
    """Clients that go away amid their request or its answer, or stay and read nothing, between honest visitors."""
    with visitors(host, port, paths) as (outcome, right), contextlib.ExitStack() as staying:
        for number in range(clients):
            connection = staying.enter_context(socket.create_connection((host, port), timeout=10))
            # Answers have no room, of what isn't read.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
            RUDE[number % len(RUDE)](connection, f"/upload/{time.time_ns()}.jpg" if number % 4 else paths[0])
            if number % 3:
                # Without a word: what is on its way meets a reset.
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                connection.close()
            outcome.attacks += 1
        # Who comes now needs a connection that those who stay have left over.
        for (path, accept), wanted in right.items():
            try:
                got = _honest(host, port, path, accept)
            except (OSError, http.client.HTTPException) as error:
                got = (0, repr(error))
            if got != wanted:
                outcome.wrong.append(f"{path} ({accept}), newly come: {got}")
        asked = outcome.answers
        deadline = time.monotonic() + 30
        while outcome.answers < asked + 100 and time.monotonic() < deadline:
            time.sleep(0.01)
    return outcome


def _honest(host: str, port: int, path: str, accept: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection(host, port, timeout=20)
    try:
        return _ask(connection, path, accept)
    finally:
        connection.close()


def _ask(connection: http.client.HTTPConnection, path: str, accept: str) -> tuple[int, str]:
    connection.request("GET", path, headers={"Accept": accept})
    answer = connection.getresponse()
    return answer.status, hashlib.sha256(answer.read()).hexdigest()


def main() -> None:
    """Run with JSON arguments on standard input; print the outcome as JSON."""
    argparse.ArgumentParser(description=__doc__, epilog=main.__doc__).parse_args()
    outcome = run(**json.load(io.TextIOWrapper(sys.stdin.buffer)))
    json.dump(asdict(outcome), sys.stdout)


if __name__ == "__main__":
    main()
