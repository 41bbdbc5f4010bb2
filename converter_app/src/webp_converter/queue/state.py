"""Whether the queue works, shared by all parts of the daemon."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import redis

from webp_converter.base import log
from webp_converter.queue.jobs import Job

_STARTING = "starting"


class QueueState:
    """Any thread that finds Redis down says so here. None asks it again until the dispatcher reaches it."""

    def __init__(self, scan_wanted: threading.Event) -> None:
        """`scan_wanted` asks for a reconcile scan, which finds what could not be queued."""
        self._scan_wanted = scan_wanted
        self._lock = threading.Lock()
        self.losses = 0
        """How often Redis was found to be away."""

        self.problem = _STARTING
        """Why Redis can't be asked; empty: it can."""

        self.full = False
        """Whether Redis took no more jobs."""

        self.lengths: dict[str, int] = {}
        """Of each stream, when that was last asked."""

    def attempt(self, push: Callable[[Sequence[Job]], int], jobs: Sequence[Job]) -> int:
        """Queues jobs by `push`; how many are new. What can't be queued now, the scan brings that follows an
        outage."""
        if not jobs or self.problem:
            return 0
        try:
            return push(jobs)
        except redis.OutOfMemoryError:
            # Those it has are worked off, which makes room: a scan brings the rest.
            if not self.full:
                log.error("queue full")
            self.full = True
            self._scan_wanted.set()
        except redis.RedisError as error:
            self.lost(error)
        return 0

    def lost(self, error: Exception) -> None:
        """Takes note that Redis is away."""
        if self.problem in ("", _STARTING):
            log.error("queue away", reason=str(error))
        with self._lock:
            self.losses += 1
            self.problem = f"Redis is away: {error}"

    def reached(self, losses: int) -> bool:
        """Takes note that Redis answers; whatever happened while it was away was not queued.

        :param losses: how many there were before it was asked what is unfinished.
        :returns: whether it is so: it isn't when somebody found it away since, with jobs that ended meanwhile
            and of which it wasn't told.
        """
        with self._lock:
            if self.losses != losses:
                return False
            self.problem = ""
        self._scan_wanted.set()
        return True
