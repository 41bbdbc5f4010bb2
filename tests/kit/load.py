"""Visitors that send requests all the time while something else happens, and the result of each."""

from __future__ import annotations

import hashlib
import http.client
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit

PAUSE_S = 0.05
"""Between one visitor's requests."""

PATIENCE_S = 10.0
"""A visitor that waits longer goes away: a failed request."""

SHOWN = 5
"""Failures that a report names, of each visitor."""


class RequestError(Exception):
    """A request that did not get what it asked for; the text says what came instead."""


@dataclass(frozen=True)
class Visitor:
    """One kind of request, made again and again."""

    name: str
    ask: Callable[[], object]
    """Makes one request, and raises whatever is wrong with it."""

    pause_s: float = PAUSE_S


@dataclass(frozen=True)
class Request:
    """One request. Times are seconds since 1970, of the one kernel that all of a lab has."""

    started: float
    seconds: float
    failed: str = ""
    """Why, if it did."""


@dataclass
class Seen:
    """What one visitor met."""

    name: str
    requests: list[Request] = field(default_factory=list)

    @property
    def failures(self) -> list[str]:
        """Each with its time of day."""
        return [
            f"{time.strftime('%H:%M:%S', time.localtime(one.started))}: {one.failed}"
            for one in self.requests
            if one.failed
        ]

    @property
    def slowest_s(self) -> float:
        return max((one.seconds for one in self.requests), default=0.0)

    def line(self) -> str:
        return (
            f"{self.name}: {len(self.requests)} requests, {len(self.failures)} failed, "
            f"slowest {1000 * self.slowest_s:.0f} ms"
        )


def get(url: str, *, accept: str = "*/*", bodies: Sequence[str] = ()) -> Callable[[], None]:
    """A request over a new connection, as each new visitor's is.

    :param bodies: SHA-256 of the bodies that are right; any body is where none is given.
    """
    parts = urlsplit(url)
    assert parts.hostname
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    # The lab's certificate is its own; who answers is not in question here.
    context = ssl._create_unverified_context() if parts.scheme == "https" else None

    def ask() -> None:
        assert parts.hostname
        connection = (
            http.client.HTTPSConnection(parts.hostname, parts.port, timeout=PATIENCE_S, context=context)
            if context
            else http.client.HTTPConnection(parts.hostname, parts.port, timeout=PATIENCE_S)
        )
        try:
            connection.request("GET", target, headers={"Accept": accept, "Connection": "close"})
            answer = connection.getresponse()
            body = answer.read()
        except http.client.HTTPException as error:
            raise RequestError(f"{type(error).__name__}: {error}") from None
        finally:
            connection.close()
        if answer.status != http.client.OK:
            raise RequestError(f"{answer.status} {answer.reason}")
        if bodies and hashlib.sha256(body).hexdigest() not in bodies:
            raise RequestError(f"another body: {len(body)} bytes of {answer.headers.get('Content-Type')}")

    return ask


@contextmanager
def visiting(visitors: Sequence[Visitor]) -> Iterator[list[Seen]]:
    """All of them ask while the body runs; what they met is whole when it has ended.

    A visitor whose request raises :class:`StopIteration` has asked for all that it came for.
    """
    over = threading.Event()
    seen = [Seen(visitor.name) for visitor in visitors]

    def visit(visitor: Visitor, mine: Seen) -> None:
        while not over.is_set():
            started, failed = time.time(), ""
            try:
                visitor.ask()
            except StopIteration:
                return
            except Exception as error:  # whatever it is, a visitor who is gone must not look content
                failed = str(error) or type(error).__name__
            mine.requests.append(Request(started, time.time() - started, failed))
            over.wait(visitor.pause_s)

    threads = [threading.Thread(target=visit, args=pair) for pair in zip(visitors, seen, strict=True)]
    for thread in threads:
        thread.start()
    try:
        yield seen
    finally:
        over.set()
        for thread in threads:
            thread.join()


def report(seen: Sequence[Seen]) -> str:
    """A line a visitor, and the first failures of each."""
    lines = []
    for one in seen:
        lines.append(one.line())
        lines += [f"  {failure}" for failure in one.failures[:SHOWN]]
        if len(one.failures) > SHOWN:
            lines.append(f"  ... the last: {one.failures[-1]}")
    return "\n".join(lines)
