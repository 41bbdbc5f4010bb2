"""Requests that two servers could read differently, while other visitors look at every byte that they get.

Only the standard library: hosts run it as well, against what listens on their own loopback.
"""

# ruff: noqa: E501 (the requests are as they go over the wire)
from __future__ import annotations

import hashlib
import http.client
import io
import json
import random
import socket
import sys
import threading
import time
from collections import Counter
from dataclasses import asdict, dataclass, field

ACCEPTS = ("image/webp,image/*,*/*;q=0.8", "image/png,image/jpeg,*/*;q=0.5")

_NEXT = "GET {other} HTTP/1.1\r\nHost: a\r\nX: "

# A head without its end, and what comes behind that. `{path}` is the picture asked for, `{other}` one that nobody
# on this connection asked for: the bytes of its request are a body's, or nothing at all.
ATTACKS: dict[str, tuple[str, str]] = {
    "a length and its bytes": ("GET {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 5", "12345"),
    "HEAD with a length": ("HEAD {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 5", "12345"),
    "a length without bytes": ("GET {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 50", ""),
    "a request for a body": ("GET {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 64", _NEXT),
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
        "40\r\n" + _NEXT,
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
        _NEXT,
    ),
    "headers named by Connection": (
        "GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close, Content-Length, Host, Accept\r\nContent-Length: 5",
        "12345",
    ),
    "a zero in a header": ("GET {path} HTTP/1.1\r\nHost: a\r\nX: a\0b\r\nContent-Length: 5", "12345"),
    "POST with a request": ("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 64", _NEXT),
    "OPTIONS with a request": ("OPTIONS {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 64", _NEXT),
    "PURGE with chunks": (
        "PURGE {path}x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked",
        "1\r\n1\r\n0\r\n\r\n",
    ),
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

# Both are asked for, one right behind the other, and answered in their order.
PIPELINED = "GET {path} HTTP/1.1\r\nHost: a\r\n\r\nGET {other} HTTP/1.1\r\nHost: a\r\n\r\n"


@dataclass
class Outcome:
    """What became of it; times in seconds."""

    answers: int = 0
    attacks: int = 0
    slowest: float = 0.0
    wrong: list[str] = field(default_factory=list)
    statuses: dict[str, dict[str, int]] = field(default_factory=dict)


def run(host: str, port: int, paths: list[str], answers: int, only: str = "") -> Outcome:
    """Have honest visitors ask for `answers` pictures, on connections that they keep, between attacks.

    :param paths: pictures with bytes of their own each, none of them pending.
    :param only: an attack's name; empty: all of them in turn.
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
                if outcome.answers >= answers:
                    over.set()
            # So that attacks get their turn on a machine with few cores.
            time.sleep(0.001)

    threads = [threading.Thread(target=visitor, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    chance = random.Random(4)
    names = [only] if only else list(ATTACKS)
    while not over.is_set() or (not only and outcome.attacks < len(ATTACKS)):
        name = names[outcome.attacks % len(names)]
        path, other = chance.sample(paths, 2)
        statuses, wrong = _attack(host, port, name, path, other, {expected[path, one] for one in ACCEPTS})
        outcome.attacks += 1
        seen = Counter(outcome.statuses.get(name, {}))
        seen.update(statuses)
        outcome.statuses[name] = dict(seen)
        with lock:
            outcome.wrong += [f"{name}: {one}" for one in wrong]
    for thread in threads:
        thread.join()
    return outcome


def _attack(
    host: str, port: int, name: str, path: str, other: str, right: set[tuple[int, str]]
) -> tuple[list[str], list[str]]:
    """The statuses of the answers, and what is wrong with them."""
    head, body = (text.replace("{path}", path).replace("{other}", other) for text in ATTACKS[name])
    sent = (f"{head}\r\n\r\n{body}").encode("latin-1")
    said = exchange(host, port, sent)
    statuses, wrong = [], []
    for status, content in answered(said, head.startswith("HEAD")):
        statuses.append(str(status))
        if status >= 500 and status not in {501, 505}:
            wrong.append(f"{status}, as if a server were away")
        if status == 200 and not head.startswith("HEAD") and content not in {one for _, one in right}:
            wrong.append("another picture than the one asked for")
    return statuses, wrong


def exchange(host: str, port: int, sent: bytes, wait_s: float = 0.3) -> bytes:
    """All that comes back until the server has nothing more to say for a while."""
    said = b""
    with socket.create_connection((host, port), timeout=10) as connection:
        connection.sendall(sent)
        try:
            while more := connection.recv(1 << 16):
                said += more
                connection.settimeout(wait_s)
        except OSError:
            pass
    return said


def answered(said: bytes, head: bool = False) -> list[tuple[int, str]]:
    """Status and digest of each answer in what a server said."""
    found, left = [], said
    while left.startswith(b"HTTP/"):
        start, _, left = left.partition(b"\r\n\r\n")
        lines = start.split(b"\r\n")
        status = int(lines[0].split()[1])
        headers = {
            line.partition(b":")[0].strip().lower(): line.partition(b":")[2].strip() for line in lines[1:]
        }
        if status == 100:
            continue
        length = 0 if head or status in {204, 304} else int(headers.get(b"content-length", 0))
        content, left = left[:length], left[length:]
        if headers.get(b"transfer-encoding") == b"chunked" and not head:
            left = b""
        found.append((status, hashlib.sha256(content).hexdigest()))
    return found


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
    outcome = run(**json.load(io.TextIOWrapper(sys.stdin.buffer)))
    json.dump(asdict(outcome), sys.stdout)


if __name__ == "__main__":
    main()
