"""Visitors of the CDN host who ask for one picture after the other, and what each was answered."""

from __future__ import annotations

import http.client
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import cycle

OLD_BROWSER = "image/jpeg,image/png,image/*;q=0.5"
"""No variant is made for it, however many pictures it asks for."""

LONGEST_S = 900.0
"""They stop by themselves after so many seconds."""


class Seen:
    """Answers so far."""

    def __init__(self) -> None:
        self.statuses: Counter[str] = Counter()
        """By status; `none` where there was no answer."""
        self.started = time.monotonic()

    @property
    def requests(self) -> int:
        return sum(self.statuses.values())

    @property
    def errors(self) -> int:
        """Answers with 5xx."""
        return sum(number for status, number in self.statuses.items() if status.startswith("5"))


@contextmanager
def visitors(
    address: str,
    port: int,
    paths: Iterable[str],
    seen: Seen | None = None,
    *,
    number: int = 4,
    pause_s: float = 0,
) -> Iterator[Seen]:
    """They ask while the body runs, each for the next of the paths.

    :param seen: may be looked at by what yields the paths.
    :param pause_s: seconds from an answer to the next question of the same visitor.
    """
    seen = seen or Seen()
    queue, turn, over = iter(paths), threading.Lock(), threading.Event()
    ends = time.monotonic() + LONGEST_S

    def visit() -> None:
        connection = http.client.HTTPConnection(address, port, timeout=30)
        while not over.is_set() and time.monotonic() < ends:
            with turn:
                path = next(queue, None)
            if path is None:
                break
            try:
                connection.request("GET", path, headers={"Accept": OLD_BROWSER})
                answer = connection.getresponse()
                answer.read()
                status = str(answer.status)
            except (OSError, http.client.HTTPException):
                connection.close()
                status = "none"
            with turn:
                seen.statuses[status] += 1
            over.wait(pause_s)
        connection.close()

    threads = [threading.Thread(target=visit) for _ in range(number)]
    for thread in threads:
        thread.start()
    try:
        yield seen
    finally:
        over.set()
        for thread in threads:
            thread.join()


def mixed(
    bad: Iterable[str], good: Iterable[str], share: float, seen: Seen, *, others_s: float = 0
) -> Iterator[str]:
    """Paths, of which those of `bad` are a share; ends with them.

    :param others_s: bad ones that somebody else asks for in a second; these count as well.
    """
    again = cycle(good)
    asked = 0
    for asked_bad, path in enumerate(bad):
        while asked_bad + others_s * (time.monotonic() - seen.started) + 1 > share * (asked + 1):
            asked += 1
            yield next(again)
        asked += 1
        yield path
