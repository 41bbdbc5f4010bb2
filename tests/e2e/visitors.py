"""Visitors of the CDN host who ask for one picture after the other, and what each was answered."""

from __future__ import annotations

import http.client
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import cycle

from tests.kit.load import Visitor, visiting

OLD_BROWSER = "image/jpeg,image/png,image/*;q=0.5"
"""No variant is made for it, however many pictures it asks for."""

LONGEST_S = 900.0
"""They stop by themselves after so many seconds."""


@contextmanager
def visitors(
    address: str,
    port: int,
    paths: Iterable[str],
    *,
    number: int = 4,
    pause_s: float = 0.02,
) -> Iterator[Counter[str]]:
    """They ask while the body runs, each for the next of the paths; yields how many answers had which status,
    `none` where there was no answer.

    :param pause_s: seconds from an answer to the next question of the same visitor.
    """
    seen: Counter[str] = Counter()
    queue, turn = iter(paths), threading.Lock()
    ends = time.monotonic() + LONGEST_S

    def visitor() -> Visitor:
        connection = http.client.HTTPConnection(address, port, timeout=30)
        closing.callback(connection.close)

        def ask() -> None:
            with turn:
                if time.monotonic() > ends:
                    raise StopIteration
                path = next(queue)
            try:
                connection.request("GET", path, headers={"Accept": OLD_BROWSER})
                answer = connection.getresponse()
                answer.read()
                status = str(answer.status)
            except (OSError, http.client.HTTPException):
                connection.close()
                status = "none"
            with turn:
                seen[status] += 1

        return Visitor("one after the other", ask, pause_s)

    with ExitStack() as closing, visiting([visitor() for _ in range(number)]):
        yield seen


def mixed(bad: Iterable[str], good: Iterable[str], share: float) -> Iterator[str]:
    """Paths, of which those of `bad` are a share from the first one on; ends with them."""
    again = cycle(good)
    asked = 0
    for asked_bad, path in enumerate(bad):
        while asked_bad + 1 > share * (asked + 1):
            asked += 1
            yield next(again)
        asked += 1
        yield path
